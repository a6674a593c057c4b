package write

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/kube"
)

// refused is one object the server did not take, in the words for the user.
type refused struct {
	code     int
	findings []finding.Finding
	// text stands where no finding fits: position, object, message, hint.
	text string
	// lost is set when no answer came, so that nobody knows whether the object was written.
	lost bool
}

// refusal turns the server's answer about an object into findings where it speaks of fields, else into a line that names file, object, message
// and next step.
func (r *run) refusal(i *Item, err error) *refused {
	if message, hint := r.verb.Refusal(i, err); message != "" {
		return &refused{code: factory.ExitNo, text: r.line(i, message, hint)}
	}
	var api apierrors.APIStatus
	if kube.Unreachable(err) || errors.Is(err, context.Canceled) || !errors.As(err, &api) {
		explained := r.f.Explain(r.client, err)
		if errors.Is(err, context.Canceled) {
			explained = errors.New("interrupted")
		}
		return &refused{
			code: factory.Code(explained),
			text: i.where() + ": " + r.f.Paint(r.f.ErrOut, factory.Red, "error:") + " " + r.verb.Name + " " + i.Name() + ": " + explained.Error(),
			lost: !errors.Is(err, syscall.ECONNREFUSED),
		}
	}
	status := api.Status()
	if fs := fieldFindings(i, status); len(fs) > 0 {
		return &refused{code: factory.ExitError, findings: fs}
	}
	hint := ""
	switch {
	case apierrors.IsForbidden(err):
		hint = fmt.Sprintf("kubectl auth can-i %s %s -n %s tells what these credentials may do", r.verb.Name, i.Target.Resource.GroupResource(), i.Target.Namespace)
	case status.Details != nil && status.Details.Kind == "namespaces" && apierrors.IsNotFound(err):
		hint = "kubectl create namespace " + status.Details.Name
	}
	return &refused{code: factory.ExitError, text: r.line(i, fmt.Sprintf("the server refuses to %s %s: %s", r.verb.Name, i.Name(), serverMessage(status)), hint)}
}

func (r *run) line(i *Item, message, hint string) string {
	text := i.where() + ": " + r.f.Paint(r.f.ErrOut, factory.Red, "error:") + " " + message
	if hint != "" {
		text += " (" + hint + ")"
	}
	return text
}

// serverMessage is the server's text on one line, without the quoting of the whole object that some messages begin with.
func serverMessage(s metav1.Status) string {
	return strings.Join(strings.Fields(s.Message), " ")
}

// fieldFindings are the field errors of an answer, each at its place in the file.
func fieldFindings(i *Item, s metav1.Status) []finding.Finding {
	var fs []finding.Finding
	if s.Details != nil {
		for _, c := range s.Details.Causes {
			if c.Field == "" || c.Field == "<nil>" {
				continue
			}
			fs = append(fs, i.Object.Find(causeCode(c.Type), finding.Error, c.Field, c.Message, ""))
		}
	}
	if s.Reason == metav1.StatusReasonBadRequest && strings.Contains(s.Message, "strict decoding error") {
		for _, m := range regexp.MustCompile(`(unknown|duplicate) field "([^"]+)"`).FindAllStringSubmatch(s.Message, -1) {
			code := finding.UnknownField
			if m[1] == "duplicate" {
				code = finding.DuplicateKey
			}
			fs = append(fs, i.Object.Find(code, finding.Error, m[2], m[1]+" field", ""))
		}
	}
	return fs
}

func causeCode(t metav1.CauseType) finding.Code {
	switch t {
	case metav1.CauseTypeFieldValueRequired:
		return finding.Required
	case metav1.CauseTypeTypeInvalid:
		return finding.WrongType
	default:
		return finding.InvalidValue
	}
}

// refuse tells what was refused and ends the command with the gravest code.
func (r *run) refuse(all []*refused, summary string) error {
	code := factory.ExitNo
	var fs []finding.Finding
	for _, one := range all {
		fs = append(fs, one.findings...)
		code = max(code, one.code)
	}
	r.f.WriteFindings(r.f.ErrOut, fs)
	for _, one := range all {
		if one.text != "" {
			fmt.Fprintln(r.f.ErrOut, one.text)
		}
	}
	if summary == "" && len(fs) > 0 {
		summary = "nothing was written: " + factory.Count(fs)
	}
	if summary == "" {
		return factory.Silent(code)
	}
	return &factory.ExitErr{Code: code, Err: errors.New(summary)}
}
