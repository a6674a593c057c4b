package check

import (
	"fmt"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
)

func (s *subject) destinationPolicy(p *v1alpha2.DestinationPolicySpec) {
	s.service("spec.destination", p.Destination, false)
	if p.Source != nil {
		s.service("spec.source", *p.Source, true)
	}
	if p.LoadBalancing == nil && p.CircuitBreaker == nil {
		s.warn(finding.NotInForce, "spec", "the policy says nothing about the calls it speaks of", "add loadBalancing or circuitBreaker")
	}
	if lb := p.LoadBalancing; lb != nil {
		if lb.Name == "" && lb.Custom == nil {
			s.error(finding.Required, "spec.loadBalancing", "no scheme is named", fmt.Sprintf("set name to one of %s", v1alpha2.LoadBalancingSchemes()))
		} else {
			s.form("spec.loadBalancing", "name", lb.Name != "", lb.Custom)
		}
		s.scheme(lb.Name)
	}
	if cb := p.CircuitBreaker; cb != nil {
		s.form("spec.circuitBreaker", "simpleCb", cb.SimpleCb != nil, cb.Custom)
		s.circuitBreaker(cb.SimpleCb)
	}
}

func (s *subject) scheme(name v1alpha2.LoadBalancingScheme) {
	if name == "" {
		return
	}
	known := make([]string, 0, 3)
	for _, scheme := range v1alpha2.LoadBalancingSchemes() {
		if scheme == name {
			return
		}
		known = append(known, string(scheme))
	}
	hint := fmt.Sprintf("it is one of %s", known)
	if near := finding.Nearest(string(name), known); near != "" {
		hint = fmt.Sprintf("did you mean %s?", near)
	}
	s.error(finding.InvalidValue, "spec.loadBalancing.name", fmt.Sprintf("%q is no load balancing scheme", name), hint)
}

func (s *subject) circuitBreaker(cb *v1alpha2.SimpleCircuitBreaker) {
	if cb == nil {
		return
	}
	const path = "spec.circuitBreaker.simpleCb"
	for _, n := range []struct {
		field string
		value int32
	}{
		{"maxConnections", cb.MaxConnections},
		{"httpMaxPendingRequests", cb.HTTPMaxPendingRequests},
		{"httpMaxRequests", cb.HTTPMaxRequests},
		{"httpConsecutiveErrors", cb.HTTPConsecutiveErrors},
		{"httpMaxRequestsPerConnection", cb.HTTPMaxRequestsPerConnection},
	} {
		s.notNegative(path+"."+n.field, int64(n.value))
	}
	s.duration(path+".sleepWindow", cb.SleepWindow)
	s.duration(path+".httpDetectionInterval", cb.HTTPDetectionInterval)
	ejected := float64(cb.HTTPMaxEjectionPercent)
	s.percent(path+".httpMaxEjectionPercent", &ejected)
}
