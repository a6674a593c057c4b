package wait

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
)

// state is how far an object has come.
type state int

const (
	pending state = iota
	distributed
	refused
)

// verdict is what an object's status says of its present generation, with the reason where that is not "distributed".
type verdict struct {
	state  state
	reason string
}

// judge reads the status that the control plane wrote. What it says of an earlier generation says nothing about this one.
func judge(u *unstructured.Unstructured) verdict {
	var s v1alpha2.Status
	if m, ok := u.Object["status"].(map[string]any); ok {
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s); err != nil {
			return verdict{pending, "its status is not readable: " + err.Error()}
		}
	}
	generation := u.GetGeneration()
	accepted, programmed := condition(s, v1alpha2.ConditionAccepted, generation), condition(s, v1alpha2.ConditionProgrammed, generation)
	switch {
	case accepted == nil || programmed == nil:
		return verdict{pending, fmt.Sprintf("the control plane has not judged generation %d yet", generation)}
	case accepted.Status == metav1.ConditionFalse:
		return verdict{refused, "the control plane refuses it: " + because(s, accepted)}
	case programmed.Status == metav1.ConditionTrue:
		return verdict{distributed, ""}
	case programmed.Reason == v1alpha2.ReasonPending || programmed.Reason == v1alpha2.ReasonNoProxies:
		return verdict{pending, programmed.Message}
	}
	return verdict{refused, because(s, programmed)}
}

func condition(s v1alpha2.Status, kind string, generation int64) *metav1.Condition {
	i := slices.IndexFunc(s.Conditions, func(c metav1.Condition) bool { return c.Type == kind && c.ObservedGeneration == generation })
	if i < 0 {
		return nil
	}
	return &s.Conditions[i]
}

// because is the gravest findings of an object, all of them, or else what the condition says.
func because(s v1alpha2.Status, c *metav1.Condition) string {
	var lines []string
	for _, severity := range []string{finding.Error.String(), finding.Warning.String()} {
		for _, f := range s.Findings {
			if f.Severity == severity {
				lines = append(lines, line(f))
			}
		}
		if len(lines) > 0 {
			break
		}
	}
	switch {
	case c.Reason == v1alpha2.ReasonSharedRejected || len(lines) == 0:
		return c.Message
	case len(lines) == 1:
		return lines[0]
	}
	return fmt.Sprintf("%d reasons\n  %s", len(lines), strings.Join(lines, "\n  "))
}

func line(f v1alpha2.StatusFinding) string {
	out := f.Code + ": " + strings.Join(strings.Fields(f.Message), " ")
	if f.Field != "" {
		out = f.Code + ": " + f.Field + ": " + strings.Join(strings.Fields(f.Message), " ")
	}
	if f.Hint != "" {
		out += " (" + f.Hint + ")"
	}
	return out
}
