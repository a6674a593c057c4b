package status

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

func rule(generation int64, status v1alpha2.Status) *objects.Object {
	return &objects.Object{
		GVK:   v1alpha2.GroupVersion.WithKind("RouteRule"),
		Value: &v1alpha2.RouteRule{ObjectMeta: metav1.ObjectMeta{Name: "r", Namespace: "n", Generation: generation}, Status: status},
	}
}

var ref = model.Ref{Kind: "RouteRule", Namespace: "n", Name: "r"}

// show is a status on one line: each condition as type=status/reason, then the findings' codes.
func show(s v1alpha2.Status) string {
	var parts []string
	for _, c := range s.Conditions {
		parts = append(parts, fmt.Sprintf("%s=%s/%s", c.Type, c.Status, c.Reason))
	}
	for _, f := range s.Findings {
		parts = append(parts, f.Code)
	}
	return strings.Join(parts, " ")
}

func TestWhatBecameOfAnObject(t *testing.T) {
	warning := finding.Finding{Code: finding.UnknownService, Severity: finding.Warning, Object: finding.Object{Kind: "RouteRule", Namespace: "n", Name: "r"}, Message: "m"}
	invalid := warning
	invalid.Code, invalid.Severity = finding.WeightSum, finding.Error
	foreign := warning
	foreign.Object.Name = "another"
	rejection := Rejection{Proxy: "n/p", Refs: []model.Ref{{Kind: "Service"}, ref}, Text: "no"}
	inForce := map[model.Ref]bool{ref: true}
	programmed := v1alpha2.Status{ObservedGeneration: 3, Conditions: []metav1.Condition{
		{Type: v1alpha2.ConditionProgrammed, Status: metav1.ConditionTrue, ObservedGeneration: 3, Reason: "Programmed"},
	}}
	for name, c := range map[string]struct {
		view View
		was  v1alpha2.Status
		want string
	}{
		"every proxy has it":                 {View{InForce: inForce, Connected: 2}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=True/Programmed"},
		"no proxy is there":                  {View{InForce: inForce}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=Unknown/NoProxies"},
		"one proxy is behind":                {View{InForce: inForce, Connected: 2, Behind: 1}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=False/Pending"},
		"a new proxy is behind":              {View{InForce: inForce, Connected: 3, Behind: 1}, programmed, "Accepted=True/Accepted Programmed=True/Programmed"},
		"a warning":                          {View{InForce: inForce, Connected: 1, Findings: []finding.Finding{foreign, warning}}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=True/Programmed M0201"},
		"an error, graver than the warning":  {View{Connected: 1, Findings: []finding.Finding{warning, invalid}}, v1alpha2.Status{}, "Accepted=False/Invalid Programmed=False/Invalid M0103 M0201"},
		"nothing was made of it":             {View{Connected: 1}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=False/NotInForce"},
		"a proxy rejected it":                {View{InForce: inForce, Connected: 1, Rejections: []Rejection{rejection, rejection}}, programmed, "Accepted=True/Accepted Programmed=False/ProxyRejected M0301"},
		"a proxy rejected something else":    {View{InForce: inForce, Connected: 1, Rejections: []Rejection{{Proxy: "n/p", Text: "no"}}}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=True/Programmed"},
		"an object nobody said anything of ": {View{InForce: inForce, Connected: 1, Findings: []finding.Finding{foreign}}, v1alpha2.Status{}, "Accepted=True/Accepted Programmed=True/Programmed"},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.view.index().desired(rule(3, c.was), metav1.Now())
			if show(got) != c.want {
				t.Errorf("got  %s\nwant %s", show(got), c.want)
			}
			if got.ObservedGeneration != 3 {
				t.Errorf("observed generation %d", got.ObservedGeneration)
			}
			if again := c.view.index().desired(rule(3, got), metav1.Now()); !same(got, again) {
				t.Errorf("written once more it differs: %s", show(again))
			}
		})
	}
}

// A route configuration is made from the rules of all services with its port.
func TestARejectedConfigurationIsBlamedOnTheObjectItIsAboutAlone(t *testing.T) {
	named := func(name, path string) *objects.Object {
		return &objects.Object{GVK: v1alpha2.GroupVersion.WithKind("RouteRule"), Value: &v1alpha2.RouteRule{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "n"},
			Spec: v1alpha2.RouteRuleSpec{Destination: v1alpha2.IstioService{Name: "reviews"}, Match: &v1alpha2.MatchCondition{
				Request: &v1alpha2.RequestMatcher{Headers: map[string]v1alpha2.StringMatch{"uri": {Regex: &path}}}}},
		}}
	}
	all := []*objects.Object{named("one", "/one.*"), named("two", "/two.*"), named("three", "/three.*")}
	refs := []model.Ref{{Kind: "Service", Namespace: "n", Name: "reviews"}}
	view := View{Set: objects.NewSet(all...), InForce: map[model.Ref]bool{}, Connected: 1}
	for _, o := range all {
		r := model.Ref{Kind: "RouteRule", Namespace: "n", Name: o.Value.GetName()}
		refs, view.InForce[r] = append(refs, r), true
	}
	const no = "Accepted=True/Accepted Programmed=False/ProxyRejected M0301"
	const shared = "Accepted=True/Accepted Programmed=False/SharedConfigurationRejected"
	for name, c := range map[string]struct {
		text string
		want []string
		say  string
	}{
		"the text quotes one":                      {"regex '/two.*' of host reviews is too large", []string{shared, no, shared}, "point at RouteRule n/two"},
		"the text quotes two":                      {"'/two.*' or '/one.*'", []string{no, no, shared}, "point at RouteRule n/one and 1 more"},
		"the text quotes what all of them have":    {"something about reviews", []string{shared, shared, shared}, "single out none"},
		"the text quotes nothing of what they say": {"missing ]: [", []string{shared, shared, shared}, "single out none"},
	} {
		t.Run(name, func(t *testing.T) {
			view.Rejections = nil
			for i := range 3 {
				view.Rejections = append(view.Rejections, Rejection{Proxy: fmt.Sprint("n/p", i), Type: "rds", Resource: "9080", Refs: refs, Text: c.text})
			}
			x := view.index()
			for i, o := range all {
				got := x.desired(o, metav1.Now())
				if show(got) != c.want[i] {
					t.Errorf("%s: %s", o.Value.GetName(), show(got))
				}
				message := got.Conditions[1].Message
				named := strings.Contains(message, `route configuration "9080"`) && strings.Contains(message, c.say)
				if !strings.Contains(message, c.text) || c.want[i] == shared && !named {
					t.Errorf("%s: %s", o.Value.GetName(), message)
				}
			}
		})
	}
}

func BenchmarkARound(b *testing.B) {
	view := View{InForce: map[model.Ref]bool{}, Connected: 1}
	var all []*objects.Object
	for i := range 5000 {
		o := rule(1, v1alpha2.Status{})
		o.Value.SetName(fmt.Sprint("r", i))
		all = append(all, o)
		view.Findings = append(view.Findings, o.Find(finding.InvalidValue, finding.Warning, "spec", "m", "h"))
	}
	view.Set = objects.NewSet(all...)
	for b.Loop() {
		x := view.index()
		for _, o := range all {
			x.desired(o, metav1.Now())
		}
	}
}

func TestTheTimeOfAConditionIsWhenItChanged(t *testing.T) {
	long, now := metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
	view := View{InForce: map[model.Ref]bool{ref: true}, Connected: 1}
	was := view.index().desired(rule(1, v1alpha2.Status{}), long)
	view.Rejections = []Rejection{{Proxy: "n/p", Refs: []model.Ref{ref}, Text: "no"}}
	got := view.index().desired(rule(1, was), now)
	if !got.Conditions[0].LastTransitionTime.Equal(&long) || !got.Conditions[1].LastTransitionTime.Equal(&now) {
		t.Errorf("times %v and %v", got.Conditions[0].LastTransitionTime, got.Conditions[1].LastTransitionTime)
	}
}

func TestAStatusStaysSmallWhateverWasSaid(t *testing.T) {
	o := rule(1, v1alpha2.Status{})
	view := View{InForce: map[model.Ref]bool{ref: true}, Connected: 1, Rejections: []Rejection{{Proxy: "n/p", Refs: []model.Ref{ref}, Text: strings.Repeat("é\xff", 100_000)}}}
	for i := range 1000 {
		f := o.Find(finding.InvalidValue, finding.Warning, fmt.Sprint("spec.", i), strings.Repeat("m", 5000), strings.Repeat("h", 5000))
		view.Findings = append(view.Findings, f)
	}
	got := view.index().desired(o, metav1.Now())
	var errs []error
	for _, c := range got.Conditions {
		if len(c.Message) > maxMessage+10 || !utf8.ValidString(c.Message) {
			errs = append(errs, fmt.Errorf("message of %d bytes", len(c.Message)))
		}
	}
	for _, f := range got.Findings {
		if len(f.Message)+len(f.Hint) > 2*maxMessage+20 {
			errs = append(errs, fmt.Errorf("finding of %d bytes", len(f.Message)+len(f.Hint)))
		}
	}
	if len(got.Findings) > maxFindings || errors.Join(errs...) != nil {
		t.Errorf("%d findings, %v", len(got.Findings), errors.Join(errs...))
	}
}

func TestTheStatusOfAnObjectThatCannotBeReadIsReadAllTheSame(t *testing.T) {
	o := &objects.Object{GVK: v1alpha2.GroupVersion.WithKind("RouteRule"), Value: &unstructured.Unstructured{Object: map[string]any{
		"kind": "RouteRule", "metadata": map[string]any{"name": "r", "namespace": "n", "generation": int64(4)}, "spec": "nonsense",
		"status": map[string]any{"observedGeneration": int64(4), "conditions": []any{map[string]any{"type": "Accepted", "status": "False", "reason": "Invalid", "observedGeneration": int64(4), "message": "spec: m", "lastTransitionTime": "2026-01-01T00:00:00Z"}}},
	}}}
	view := View{Findings: []finding.Finding{o.Find(finding.WrongType, finding.Error, "spec", "m", "")}}
	got := view.index().desired(o, metav1.Now())
	if show(got) != "Accepted=False/Invalid Programmed=False/Invalid M0003" || got.Conditions[0].LastTransitionTime.Year() != 2026 || got.Conditions[0].LastTransitionTime.YearDay() != 1 {
		t.Errorf("got %s %v", show(got), got.Conditions[0].LastTransitionTime)
	}
}
