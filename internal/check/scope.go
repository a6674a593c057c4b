package check

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// scope is whose calls a rule or policy acts on.
type scope struct {
	// callers is the only namespace whose calls are meant, "" for all.
	callers string
	// source is the service that calls come from, sourceNamespace the namespace of a caller told by labels alone; "" for any.
	source          string
	sourceNamespace string
	sourceLabels    map[string]string
}

// newScope is the scope of an object of namespace about host.
func newScope(host, namespace string, source *v1alpha2.IstioService) scope {
	var s scope
	if _, home, ok := clusterService(host); ok && home != namespace && namespace != MeshNamespace {
		s.callers = namespace
	}
	if source != nil {
		s.sourceLabels = source.Labels
		if s.source = identity(*source, namespace); s.source == "" {
			s.sourceNamespace = source.Namespace
		}
	}
	return s
}

func sourceOf(r *v1alpha2.RouteRuleSpec) *v1alpha2.IstioService {
	if r.Match == nil {
		return nil
	}
	return r.Match.Source
}

// all says whether every call is meant.
func (s scope) all() bool {
	return s.callers == "" && s.source == "" && s.sourceNamespace == "" && len(s.sourceLabels) == 0
}

// meets says whether one caller could be in both scopes, as far as can be told.
func (s scope) meets(other scope) bool {
	for _, pair := range [][2]string{{s.callers, other.callers}, {s.source, other.source}, {s.sourceNamespace, other.sourceNamespace}} {
		if pair[0] != "" && pair[1] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return agree(s.sourceLabels, other.sourceLabels)
}

// contains says whether every caller in other is in s.
func (s scope) contains(other scope) bool {
	for _, pair := range [][2]string{{s.callers, other.callers}, {s.source, other.source}, {s.sourceNamespace, other.sourceNamespace}} {
		if pair[0] != "" && pair[0] != pair[1] {
			return false
		}
	}
	return contains(other.sourceLabels, s.sourceLabels)
}

// agree says whether one instance could carry both.
func agree(a, b map[string]string) bool {
	for k, v := range a {
		if other, ok := b[k]; ok && other != v {
			return false
		}
	}
	return true
}

// policy is a destination policy with its names resolved.
type policy struct {
	object *objects.Object
	spec   *v1alpha2.DestinationPolicySpec
	scope
}

func newPolicy(o *objects.Object, v *v1alpha2.DestinationPolicy) *policy {
	return &policy{object: o, spec: &v.Spec, scope: newScope(identity(v.Spec.Destination, v.Namespace), v.Namespace, v.Spec.Source)}
}

// rank compares how much two policies say about the calls they mean; the one that says more wins.
func (p *policy) rank(other *policy) int {
	all := func(p *policy) int {
		if p.all() {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(len(other.spec.Destination.Labels), len(p.spec.Destination.Labels)), cmp.Compare(all(p), all(other)))
}

func comparePolicies(a, b *policy) int {
	return cmp.Or(a.rank(b), cmp.Compare(a.object.Value.GetNamespace(), b.object.Value.GetNamespace()), cmp.Compare(a.object.Value.GetName(), b.object.Value.GetName()))
}

// contest warns when a policy that says no more about its calls comes before this one by its name and answers the same question.
func (j *judge) contest(s *subject, p *v1alpha2.DestinationPolicy) {
	policies := j.policiesFor(s, identity(p.Spec.Destination, p.Namespace))
	own := slices.IndexFunc(policies, func(o *policy) bool { return o.object == s.object })
	if own < 0 {
		return
	}
	for _, question := range []struct {
		field    string
		answered func(*v1alpha2.DestinationPolicySpec) bool
	}{
		{"spec.loadBalancing", func(p *v1alpha2.DestinationPolicySpec) bool {
			return p.LoadBalancing != nil && (p.LoadBalancing.Name != "" || p.LoadBalancing.ConsistentHash != nil)
		}},
		{"spec.circuitBreaker", func(p *v1alpha2.DestinationPolicySpec) bool {
			return p.CircuitBreaker != nil && p.CircuitBreaker.SimpleCb != nil
		}},
	} {
		if !question.answered(&p.Spec) {
			continue
		}
		for _, other := range policies[:own] {
			if question.answered(other.spec) && other.rank(policies[own]) == 0 && other.meets(policies[own].scope) &&
				agree(other.spec.Destination.Labels, p.Spec.Destination.Labels) {
				s.warn(finding.DuplicateClaim, question.field, fmt.Sprintf("DestinationPolicy %s/%s says it of the same calls and wins, for its name comes first",
					other.object.Value.GetNamespace(), other.object.Value.GetName()), "keep one of them, or tell them apart by labels or source")
				break
			}
		}
	}
}
