package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// What a circuit breaker does where its author said nothing. The numbers are those that 0.2's reference names.
const (
	defaultConsecutiveErrors = 5
	defaultDetectionInterval = 10 * time.Second
	defaultSleepWindow       = 30 * time.Second
	defaultEjectionPercent   = 10
	// defaultPendingRequests bounds the queue before limited connections: without it nothing would ever be refused.
	defaultPendingRequests = 1024
)

// comparePolicies puts the one that says more about the calls it means first.
func comparePolicies(x, y *model.Policy) int {
	all := func(p *model.Policy) int {
		if p.Source == nil && p.CallerNamespace == "" {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(len(y.Labels), len(x.Labels)), cmp.Compare(all(x), all(y)),
		cmp.Compare(x.Ref.Namespace, y.Ref.Namespace), cmp.Compare(x.Ref.Name, y.Ref.Name))
}

// policy is a DestinationPolicy with its names resolved; nil when it says nothing.
func (b *builder) policy(o *objects.Object, in *v1alpha2.DestinationPolicy) *model.Policy {
	out := &model.Policy{
		Ref:    refOf(o),
		Host:   check.Hostname(in.Spec.Destination, in.Namespace, b.cfg.Domain),
		Labels: in.Spec.Destination.Labels,
		Source: b.source(in.Spec.Source, in.Namespace),
	}
	if svc := b.service(out.Host); svc != nil {
		if inside, outside := b.leads(svc); svc.ExternalName != "" && outside == "" {
			b.find(o, finding.NotInForce, finding.Warning, "spec.destination", fmt.Sprintf("service %s only stands for another name of the mesh", short(out.Host)), lead(inside))
			return nil
		}
		http := slices.ContainsFunc(svc.Ports, func(p model.Port) bool { return p.Protocol.IsHTTP() })
		if len(out.Labels) > 0 && !http {
			b.find(o, finding.NotInForce, finding.Warning, "spec.destination.labels",
				fmt.Sprintf("service %s has no HTTP port, and connections are not told apart by version", short(out.Host)),
				"remove the labels to speak of all instances")
			return nil
		}
		if lb := in.Spec.LoadBalancing; !http && lb != nil {
			b.forConnections(o, lb, short(out.Host))
		}
		out.CallerNamespace = callers(svc, in.Namespace)
	}
	if b.external(out.Host) != nil && len(out.Labels) > 0 {
		b.find(o, finding.NotInForce, finding.Warning, "spec.destination.labels", fmt.Sprintf("%s is outside of the mesh and has no versions", out.Host), "remove the labels")
		return nil
	}
	if lb := in.Spec.LoadBalancing; lb != nil {
		if b.external(out.Host) != nil && strings.HasPrefix(out.Host, "*") {
			b.find(o, finding.NotInForce, finding.Warning, "spec.loadBalancing", "the addresses behind a wildcard are chosen by the callers", "name the host without a wildcard, in an EgressRule too")
		}
		out.Balancing, out.Hash = balancing(lb)
	}
	if cb := in.Spec.CircuitBreaker; cb != nil && cb.SimpleCb != nil {
		out.Breaker = breaker(cb.SimpleCb)
	}
	if out.Balancing == "" && out.Breaker == nil {
		return nil
	}
	return out
}

// forConnections warns of what means nothing to connections, which have no requests.
func (b *builder) forConnections(o *objects.Object, lb *v1alpha2.LoadBalancing, name string) {
	switch {
	case lb.ConsistentHash != nil && !lb.ConsistentHash.UseSourceIP:
		b.find(o, finding.NotInForce, finding.Warning, "spec.loadBalancing.consistentHash", fmt.Sprintf("service %s has no HTTP port, and connections have no headers", name), "useSourceIp is what they can be told by")
	case lb.Name == v1alpha2.LatencyAware:
		b.find(o, finding.NotInForce, finding.Warning, "spec.loadBalancing.name", fmt.Sprintf("service %s has no HTTP port, and how long connections are open says nothing of their latency", name), "name another scheme")
	}
}

// balancing is how an instance is picked, and by what when that is a hash.
func balancing(lb *v1alpha2.LoadBalancing) (model.Balancing, *model.Hash) {
	h := lb.ConsistentHash
	if h == nil {
		return map[v1alpha2.LoadBalancingScheme]model.Balancing{
			v1alpha2.RoundRobin: model.RoundRobin, v1alpha2.LeastConn: model.LeastConn, v1alpha2.Random: model.Random,
			v1alpha2.LatencyAware: model.LatencyAware,
		}[lb.Name], nil
	}
	out := &model.Hash{Header: h.HTTPHeaderName, SourceIP: h.UseSourceIP, RingSize: count(h.MinimumRingSize)}
	if c := h.HTTPCookie; c != nil {
		out.Cookie = &model.HashCookie{Name: c.Name, Given: c.TTL != nil, Path: c.Path, TTL: duration(c.TTL)}
	}
	return model.ConsistentHash, out
}

// breaker completes what the author said.
func breaker(cb *v1alpha2.SimpleCircuitBreaker) *model.Breaker {
	out := &model.Breaker{
		MaxConnections:           count(cb.MaxConnections),
		MaxPendingRequests:       count(cb.HTTPMaxPendingRequests),
		MaxRequests:              count(cb.HTTPMaxRequests),
		MaxRequestsPerConnection: count(cb.HTTPMaxRequestsPerConnection),
	}
	if out.MaxConnections > 0 && out.MaxPendingRequests == 0 {
		out.MaxPendingRequests = defaultPendingRequests
	}
	if cb.HTTPConsecutiveErrors <= 0 && cb.SleepWindow == nil && cb.HTTPDetectionInterval == nil && cb.HTTPMaxEjectionPercent <= 0 {
		return out
	}
	e := &model.Ejection{
		ConsecutiveErrors: cmp.Or(count(cb.HTTPConsecutiveErrors), defaultConsecutiveErrors),
		SleepWindow:       cmp.Or(duration(cb.SleepWindow), defaultSleepWindow),
		Interval:          duration(cb.HTTPDetectionInterval),
		MaxPercent:        cmp.Or(min(count(cb.HTTPMaxEjectionPercent), 100), defaultEjectionPercent),
	}
	if e.Interval == 0 {
		// Who may return is looked at only so often; a short window would be stretched to the interval.
		e.Interval = min(e.SleepWindow, defaultDetectionInterval)
	}
	out.Ejection = e
	return out
}

func count(n int32) uint32 { return uint32(max(n, 0)) }
