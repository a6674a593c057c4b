// Package status writes what became of each object into the object's status.
//
// In: a View, which is what the control plane knows at one moment: the objects, findings about them, what proxies acknowledged and rejected.
// Out: conditions and findings in the status of mesh objects, and the gateway's address in that of Ingresses; written by one replica, at a
// bounded rate, and only where something changed.
package status

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// View is everything that statuses are made of.
type View struct {
	Set *objects.Set
	// Report has the findings about the objects, Findings those besides.
	Report   finding.Report
	Findings []finding.Finding
	// InForce are the objects that the mesh in use was made from.
	InForce map[model.Ref]bool
	// Rejections are in force at this moment.
	Rejections []Rejection
	// Connected proxies, and how many of them have not yet answered everything they were sent.
	Connected, Behind int
	// Addresses are where the ingress gateway is reached; nil leaves Ingresses alone.
	Addresses []networkingv1.IngressLoadBalancerIngress
}

// Rejection is a proxy's refusal of something made from objects.
type Rejection struct {
	Proxy string
	// Type is the short name of the resource's type, Resource its name.
	Type, Resource string
	Refs           []model.Ref
	Text           string
}

// maxMessage and maxFindings bound what an object carries about itself.
const (
	maxMessage  = 1024
	maxFindings = 20
)

// current reads the object's status as it is. An object that could not be read into its type is looked at as it came.
func current(v objects.Value) v1alpha2.Status {
	switch o := v.(type) {
	case *v1alpha2.RouteRule:
		return o.Status
	case *v1alpha2.DestinationPolicy:
		return o.Status
	case *v1alpha2.EgressRule:
		return o.Status
	case *unstructured.Unstructured:
		var s v1alpha2.Status
		if m, ok := o.Object["status"].(map[string]any); ok && runtime.DefaultUnstructuredConverter.FromUnstructured(m, &s) == nil {
			return s
		}
	}
	return v1alpha2.Status{}
}

// desired is the status that o should have, given what it has; the times of conditions that did not change stay.
func (x *index) desired(o *objects.Object, now metav1.Time) v1alpha2.Status {
	was := current(o.Value)
	generation := o.Value.GetGeneration()
	out := v1alpha2.Status{ObservedGeneration: generation}

	own := x.findings(o)
	accepted := metav1.Condition{Type: v1alpha2.ConditionAccepted, Status: metav1.ConditionTrue, Reason: v1alpha2.ReasonAccepted, Message: "the object is valid"}
	if i := slices.IndexFunc(own, func(f finding.Finding) bool { return f.Severity == finding.Error }); i >= 0 {
		accepted.Status, accepted.Reason, accepted.Message = metav1.ConditionFalse, v1alpha2.ReasonInvalid, sentence(own[i])
	}
	programmed, rejected := x.programmed(o, accepted.Status == metav1.ConditionTrue, was)
	own = append(rejected, own...)

	for _, f := range own {
		if len(out.Findings) == maxFindings {
			break
		}
		out.Findings = append(out.Findings, v1alpha2.StatusFinding{
			Code: string(f.Code), Severity: f.Severity.String(), Field: f.Field, Message: cut(f.Message), Hint: cut(f.Hint),
		})
	}
	for _, c := range []metav1.Condition{accepted, programmed} {
		c.ObservedGeneration, c.LastTransitionTime, c.Message = generation, now, cut(c.Message)
		for _, old := range was.Conditions {
			if old.Type == c.Type && old.Status == c.Status {
				c.LastTransitionTime = old.LastTransitionTime
			}
		}
		out.Conditions = append(out.Conditions, c)
	}
	return out
}

// programmed says whether the proxies have the object, and what they said against it.
func (x *index) programmed(o *objects.Object, accepted bool, was v1alpha2.Status) (metav1.Condition, []finding.Finding) {
	c := metav1.Condition{Type: v1alpha2.ConditionProgrammed, Status: metav1.ConditionFalse}
	ref := model.Ref{Kind: o.GVK.Kind, Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}
	var rejected []finding.Finding
	for _, words := range x.rejected[ref] {
		rejected = append(rejected, o.Find(finding.ProxyRejected, finding.Error, "", words,
			"the proxies keep the configuration they had; correct the object or report this as a fault of the mesh"))
	}
	switch {
	case !accepted:
		c.Reason, c.Message = v1alpha2.ReasonInvalid, "the object is not valid"
	case !x.InForce[ref]:
		c.Reason, c.Message = v1alpha2.ReasonNotInForce, "nothing was made of the object; its findings say why"
	case len(rejected) > 0:
		c.Reason, c.Message = v1alpha2.ReasonProxyRejected, rejected[0].Message
	case x.shared[ref] != "":
		c.Reason, c.Message = v1alpha2.ReasonSharedRejected, x.shared[ref]
	case x.Connected == 0:
		c.Status, c.Reason, c.Message = metav1.ConditionUnknown, v1alpha2.ReasonNoProxies, "no proxy is connected"
	case x.Behind > 0 && !wasProgrammed(was, o.Value.GetGeneration()):
		c.Reason, c.Message = v1alpha2.ReasonPending, "not every connected proxy has it yet"
	default:
		// Once it was there it stays: a proxy that connects later gets it with its first configuration.
		c.Status, c.Reason, c.Message = metav1.ConditionTrue, v1alpha2.ReasonProgrammed, "every connected proxy has it"
	}
	return c, rejected
}

func wasProgrammed(s v1alpha2.Status, generation int64) bool {
	return slices.ContainsFunc(s.Conditions, func(c metav1.Condition) bool {
		return c.Type == v1alpha2.ConditionProgrammed && c.Status == metav1.ConditionTrue && c.ObservedGeneration == generation
	})
}

// findings about o, gravest first.
func (x *index) findings(o *objects.Object) []finding.Finding {
	own := slices.Concat(x.Report.Of(o.Ref()), x.besides[o.Ref()])
	slices.SortStableFunc(own, func(a, b finding.Finding) int { return cmp.Compare(b.Severity, a.Severity) })
	return own
}

func sentence(f finding.Finding) string {
	if f.Field == "" {
		return f.Message
	}
	return f.Field + ": " + f.Message
}

// cut bounds a text that a proxy or a user made, at a character's end.
func cut(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= maxMessage {
		return s
	}
	end := maxMessage
	for !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "…"
}

// same compares statuses as they are stored: without the fractions of seconds that storage drops.
func same(a, b v1alpha2.Status) bool {
	if a.ObservedGeneration != b.ObservedGeneration || len(a.Conditions) != len(b.Conditions) || !slices.Equal(a.Findings, b.Findings) {
		return false
	}
	for i := range a.Conditions {
		x, y := a.Conditions[i], b.Conditions[i]
		x.LastTransitionTime, y.LastTransitionTime = metav1.Time{}, metav1.Time{}
		if !reflect.DeepEqual(x, y) {
			return false
		}
	}
	return true
}
