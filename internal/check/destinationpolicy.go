package check

import (
	"fmt"
	"strings"

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
		s.loadBalancing(lb)
	}
	if cb := p.CircuitBreaker; cb != nil {
		s.form("spec.circuitBreaker", "simpleCb", cb.SimpleCb != nil, cb.Custom)
		s.circuitBreaker(cb.SimpleCb)
	}
}

func (s *subject) loadBalancing(lb *v1alpha2.LoadBalancing) {
	const path = "spec.loadBalancing"
	switch {
	case lb.Name == "" && lb.ConsistentHash == nil && lb.Custom == nil:
		s.error(finding.Required, path, "no scheme is named", fmt.Sprintf("set name to one of %s, or consistentHash", v1alpha2.LoadBalancingSchemes()))
	case lb.Name != "" && lb.ConsistentHash != nil:
		s.error(finding.Conflict, path+".consistentHash", "name and consistentHash exclude each other", "keep one of them")
	case lb.Name == "" && lb.ConsistentHash == nil:
		s.warn(finding.NotInForce, path+".custom", "the field has no effect: no custom form is known", "consistentHash keeps calls with one another; else remove it")
	case lb.ConsistentHash != nil:
		s.form(path, "consistentHash", true, lb.Custom)
	default:
		s.form(path, "name", true, lb.Custom)
	}
	s.scheme(lb.Name)
	if lb.ConsistentHash != nil {
		s.consistentHash(path+".consistentHash", lb.ConsistentHash)
	}
}

// maxRingSize is Envoy's own bound.
const maxRingSize = 8 << 20

func (s *subject) consistentHash(path string, h *v1alpha2.ConsistentHash) {
	var keys []string
	for _, k := range []struct {
		field string
		set   bool
	}{{"httpHeaderName", h.HTTPHeaderName != ""}, {"httpCookie", h.HTTPCookie != nil}, {"useSourceIp", h.UseSourceIP}} {
		if k.set {
			keys = append(keys, k.field)
		}
	}
	switch {
	case len(keys) == 0:
		s.error(finding.Required, path, "it is not said what calls must agree in", "set httpHeaderName, httpCookie or useSourceIp")
	case len(keys) > 1:
		s.error(finding.Conflict, finding.Child(path, keys[1]), strings.Join(keys, " and ")+" exclude each other", "keep one of them")
	}
	s.hashHeader(path+".httpHeaderName", h.HTTPHeaderName)
	if c := h.HTTPCookie; c != nil {
		s.cookie(path+".httpCookie", c)
	}
	if h.MinimumRingSize < 0 || h.MinimumRingSize > maxRingSize {
		s.error(finding.InvalidValue, path+".minimumRingSize", fmt.Sprintf("%d places are no ring", h.MinimumRingSize), fmt.Sprintf("it is from 0, for the default, to %d", maxRingSize))
	}
}

func (s *subject) hashHeader(path, name string) {
	switch {
	case name == "" || name == ":path" || name == ":method" || name == ":authority":
	case name != strings.ToLower(name):
		s.error(finding.InvalidValue, path, fmt.Sprintf("header %q is not in lower case, in which requests carry it", name), "write "+strings.ToLower(name))
	case len(name) > v1alpha2.MaxHeaderName || strings.ContainsFunc(name, notToken):
		s.error(finding.InvalidValue, path, fmt.Sprintf("%.256q is no header name", name), "for the request's own parts write :path, :method or :authority")
	}
}

func (s *subject) cookie(path string, c *v1alpha2.HTTPCookie) {
	if c.Name == "" {
		s.error(finding.Required, path+".name", "the cookie has no name", "")
	} else if len(c.Name) > v1alpha2.MaxHeaderName || strings.ContainsFunc(strings.ToLower(c.Name), notToken) {
		s.error(finding.InvalidValue, path+".name", fmt.Sprintf("%.256q is no name of a cookie", c.Name), "use letters, digits, dashes and underscores")
	}
	beyond := func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ';' }
	if c.Path != "" && (c.Path[0] != '/' || len(c.Path) > v1alpha2.MaxText || strings.ContainsFunc(c.Path, beyond)) {
		s.error(finding.InvalidValue, path+".path", fmt.Sprintf("%.256q is no path of a cookie", c.Path), "it begins with a slash and holds no blanks and semicolons")
	}
	switch {
	case c.TTL == nil:
		if c.Path != "" {
			s.ignored(path+".path", "no cookie is given without a ttl")
		}
	case c.TTL.Duration < 0:
		s.error(finding.InvalidValue, path+".ttl", fmt.Sprintf("%s is negative", c.TTL.Duration), "0s is for as long as the client's session lasts")
	case c.TTL.Duration > 0:
		s.duration(path+".ttl", c.TTL)
	}
}

func (s *subject) scheme(name v1alpha2.LoadBalancingScheme) {
	if name == "" {
		return
	}
	known := make([]string, 0, 4)
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
