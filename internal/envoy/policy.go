package envoy

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	aggregatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/aggregate/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
)

// treatment is what policies say of the calls to a cluster's instances.
type treatment struct {
	balancing model.Balancing
	hash      *model.Hash
	breaker   model.Breaker
	refs      []model.Ref
}

// treatment asks the policies for instances that all carry labels; of each question the first policy that answers it decides.
func (c *caller) treatment(host string, labels map[string]string) treatment {
	var t treatment
	var breaker *model.Breaker
	for _, p := range c.policiesFor(host) {
		if !selects(p.Labels, labels) {
			continue
		}
		used := false
		if t.balancing == "" && p.Balancing != "" {
			t.balancing, t.hash, used = p.Balancing, p.Hash, true
		}
		if breaker == nil && p.Breaker != nil {
			breaker, used = p.Breaker, true
		}
		if used {
			t.refs = append(t.refs, p.Ref)
		}
	}
	if breaker != nil {
		t.breaker = *breaker
	}
	return t
}

// apply writes what the policies say into a cluster.
func (t treatment) apply(m *clusterv3.Cluster) {
	switch t.balancing {
	case model.LeastConn:
		m.LbPolicy = clusterv3.Cluster_LEAST_REQUEST
	case model.Random:
		m.LbPolicy = clusterv3.Cluster_RANDOM
	case model.LatencyAware:
		// Who answers slowly has more requests under way, who hangs has them for ever. All instances are looked at: of two picked at random the
		// slow one of three would still be the better in a ninth of the cases.
		m.LoadBalancingPolicy = &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
			TypedExtensionConfig: &corev3.TypedExtensionConfig{Name: "envoy.load_balancing_policies.least_request", TypedConfig: pack(&leastrequestv3.LeastRequest{
				SelectionMethod: leastrequestv3.LeastRequest_FULL_SCAN,
			})},
		}}}
	case model.ConsistentHash:
		m.LbPolicy = clusterv3.Cluster_RING_HASH
		if n := t.hash.RingSize; n > 0 {
			m.LbConfig = &clusterv3.Cluster_RingHashLbConfig_{RingHashLbConfig: &clusterv3.Cluster_RingHashLbConfig{MinimumRingSize: wrapperspb.UInt64(uint64(n))}}
		}
	case model.RoundRobin, "":
		m.LbPolicy = clusterv3.Cluster_ROUND_ROBIN
	}
	t.limit(m)
}

// limit is apply without the balancing.
func (t treatment) limit(m *clusterv3.Cluster) {
	m.CircuitBreakers = thresholds(t.breaker)
	e := t.breaker.Ejection
	if e == nil {
		return
	}
	m.OutlierDetection = &clusterv3.OutlierDetection{
		Consecutive_5Xx:    wrapperspb.UInt32(e.ConsecutiveErrors),
		Interval:           duration(e.Interval),
		BaseEjectionTime:   duration(e.SleepWindow),
		MaxEjectionPercent: wrapperspb.UInt32(e.MaxPercent),
		// Without this a percentage of few instances would be none at all.
		AlwaysEjectOneHost: wrapperspb.Bool(true),
		// Envoy would also eject whoever succeeds less often than the others, which nobody asked for.
		EnforcingSuccessRate: wrapperspb.UInt32(0),
	}
}

// thresholds lift what is not bounded: Envoy's own limits of 1,024 connections and requests and of 3 retries at a time nobody asked for.
func thresholds(b model.Breaker) *clusterv3.CircuitBreakers {
	limit := func(n uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(cmp.Or(n, math.MaxUint32)) }
	return &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
		MaxConnections: limit(b.MaxConnections), MaxPendingRequests: limit(b.MaxPendingRequests), MaxRequests: limit(b.MaxRequests), RetryBudget: &clusterv3.CircuitBreakers_Thresholds_RetryBudget{
			BudgetPercent: &typev3.Percent{Value: retryBudget}, MinRetryConcurrency: wrapperspb.UInt32(minRetries),
		},
	}}}
}

// retryBudget is the share, in percent, of a cluster's requests under way that may be retries: enough for all requests when half of the instances
// are gone, and at most twice the load on instances that fail. minRetries may be under way in any case.
const (
	retryBudget = 50
	minRetries  = 10
)

// selection says which instances of a service a cluster holds.
type selection struct {
	// labels they carry.
	labels map[string]string
	// without are sets of labels that none of them carries in whole.
	without []map[string]string
}

func (s selection) takes(labels map[string]string) bool {
	return selects(s.labels, labels) && !slices.ContainsFunc(s.without, func(other map[string]string) bool { return selects(other, labels) })
}

// name is the same for the same selection: the labels, then each set that is left out behind an exclamation mark.
func (s selection) name() string {
	out := formatLabels(s.labels)
	for _, other := range s.without {
		out += "!" + formatLabels(other)
	}
	return out
}

// parseSelection reads what name writes.
func parseSelection(name string) selection {
	parts := strings.Split(name, "!")
	s := selection{labels: parseLabels(parts[0])}
	for _, other := range parts[1:] {
		s.without = append(s.without, parseLabels(other))
	}
	return s
}

// share is a part of a cluster's instances to which the same policies apply, and how many of them take requests.
type share struct {
	subset
	selection
	weight uint32
}

// shares parts the instances of a service that carry labels by the policies for versions that apply to them, so that such a policy is in force
// without a rule that names the version. It is nil when no such policy is about any of them.
func (c *caller) shares(svc *model.Service, port uint32, labels map[string]string) []share {
	versions := c.versions(svc.Hostname, labels)
	if len(versions) == 0 {
		return nil
	}
	found := map[string]share{}
	told := false
	for _, e := range c.b.endpoints(svc) {
		if e.ServicePort != port || !e.Ready || !selects(labels, e.Labels) {
			continue
		}
		s := selection{labels: maps.Clone(labels)}
		for _, v := range versions {
			if selects(v, e.Labels) {
				told = true
				if s.labels == nil {
					s.labels = map[string]string{}
				}
				maps.Copy(s.labels, v)
			}
		}
		for _, v := range versions {
			if !selects(v, s.labels) && agree(v, s.labels) {
				s.without = append(s.without, v)
			}
		}
		name := s.name()
		one, ok := found[name]
		if !ok {
			one = share{subset: subset{host: svc.Hostname, port: port, labels: name}, selection: s}
		}
		one.weight++
		found[name] = one
	}
	if !told {
		return nil
	}
	out := make([]share, 0, len(found))
	for _, name := range slices.Sorted(maps.Keys(found)) {
		out = append(out, found[name])
	}
	return out
}

// versions are the sets of labels that policies for host speak of and that instances with labels may or may not carry.
func (c *caller) versions(host string, labels map[string]string) []map[string]string {
	var out []map[string]string
	for _, p := range c.policiesFor(host) {
		same := func(v map[string]string) bool { return maps.Equal(v, p.Labels) }
		if !selects(p.Labels, labels) && agree(p.Labels, labels) && !slices.ContainsFunc(out, same) {
			out = append(out, p.Labels)
		}
	}
	slices.SortFunc(out, func(a, b map[string]string) int { return strings.Compare(formatLabels(a), formatLabels(b)) })
	return out
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

// spreadCluster is the name of the cluster that prefers the share one of the instances whole stands for.
func spreadCluster(whole, one subset) string {
	return fmt.Sprintf("spread|%d|%s|%s|%s", whole.port, whole.labels, one.labels, whole.host)
}

// spread is a cluster for the share that carries the labels first, which sends on to the others when its own instances fail. Bounds and balancing are those
// of the clusters behind it.
func (c *caller) spread(whole subset, labels string) []*Resource {
	svc := c.b.service(whole.host)
	if svc == nil {
		return nil
	}
	shares := c.shares(svc, whole.port, parseLabels(whole.labels))
	first := slices.IndexFunc(shares, func(s share) bool { return s.subset.labels == labels })
	if first < 0 {
		return nil
	}
	name := spreadCluster(whole, shares[first].subset)
	config := &aggregatev3.ClusterConfig{Clusters: []string{c.cluster(shares[first].subset)}}
	for i, s := range shares {
		if i != first {
			config.Clusters = append(config.Clusters, c.cluster(s.subset))
		}
	}
	return []*Resource{newResource(name, &clusterv3.Cluster{
		Name: name,
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: aggregateName, TypedConfig: pack(config),
		}},
		ConnectTimeout:  duration(c.b.connectTimeout()),
		LbPolicy:        clusterv3.Cluster_CLUSTER_PROVIDED,
		CommonLbConfig:  &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{Value: 0}},
		CircuitBreakers: thresholds(model.Breaker{}),
	}, svc.Ref())}
}

const aggregateName = "envoy.clusters.aggregate"

// weighted is a cluster to send to, its part of the requests, and what of a request picks the instance, if anything does.
type weighted struct {
	cluster string
	weight  uint32
	hash    *model.Hash
	// renamed says that requests carry the name of the host they are sent to.
	renamed bool
}

// part sends to the instances that carry labels: to one cluster, or to several when policies tell their versions apart. The weights of a part
// total fine when there are several.
func (c *caller) part(svc *model.Service, port uint32, labels map[string]string) []weighted {
	whole := newSubset(svc.Hostname, port, labels)
	if svc.ExternalName != "" {
		return []weighted{{cluster: c.cluster(whole), weight: 1, renamed: true, hash: c.treatment(whole.host, labels).hash}}
	}
	shares := c.shares(svc, port, labels)
	switch len(shares) {
	case 0:
		return []weighted{{cluster: c.cluster(whole), weight: 1, hash: c.treatment(whole.host, labels).hash}}
	case 1:
		return []weighted{{cluster: c.cluster(shares[0].subset), weight: 1, hash: c.treatment(whole.host, shares[0].selection.labels).hash}}
	}
	out := make([]weighted, 0, len(shares))
	for _, s := range shares {
		c.want(unit{kind: spreadUnit, host: whole.host, port: whole.port, labels: whole.labels, other: s.subset.labels})
		out = append(out, weighted{cluster: spreadCluster(whole, s.subset), weight: s.weight, hash: c.treatment(whole.host, s.selection.labels).hash})
	}
	return out
}

// outside is the cluster of a host outside of the mesh.
func (c *caller) outside(e externalPort) []weighted {
	w := weighted{cluster: e.cluster(), weight: 1}
	if !e.Wildcard() {
		w.hash = c.treatment(e.Host, nil).hash
	}
	return []weighted{w}
}

// fine is what the weight of a target is multiplied with before it is parted.
const fine = 100_000

// sendTo sets the targets of a route, each with its weight and the parts it is made of. It says whether one is made of several.
func sendTo(action *routev3.RouteAction, weights []uint32, targets [][]weighted) bool {
	hash(action, targets)
	if slices.ContainsFunc(targets, func(t []weighted) bool { return slices.ContainsFunc(t, func(w weighted) bool { return w.renamed }) }) {
		// It leaves those alone that are sent to instances, which have no name.
		action.HostRewriteSpecifier = &routev3.RouteAction_AutoHostRewrite{AutoHostRewrite: wrapperspb.Bool(true)}
	}
	if len(targets) == 1 && len(targets[0]) == 1 {
		action.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: targets[0][0].cluster}
		return false
	}
	parted := slices.ContainsFunc(targets, func(t []weighted) bool { return len(t) > 1 })
	clusters := &routev3.WeightedCluster{}
	if len(targets) == 1 && len(action.GetHashPolicy()) == 1 {
		// The parts are one service to its callers: what keeps them with an instance keeps them with its part, too. The weights of a rule are
		// parts of the requests.
		clusters.RandomValueSpecifier = &routev3.WeightedCluster_UseHashPolicy{UseHashPolicy: wrapperspb.Bool(true)}
	}
	for i, parts := range targets {
		whole, total := uint64(weights[i]), uint64(0)
		if parted {
			whole *= fine
		}
		for _, p := range parts {
			total += uint64(p.weight)
		}
		done := uint64(0)
		for _, p := range parts {
			before := whole * done / total
			done += uint64(p.weight)
			clusters.Clusters = append(clusters.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: p.cluster, Weight: wrapperspb.UInt32(uint32(whole*done/total - before)),
			})
		}
	}
	action.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: clusters}
	return parted
}

// hash takes from requests what the targets' policies pick instances by. Envoy has one list for a route; where targets differ, the first on it
// that a request has picks for all of them.
func hash(action *routev3.RouteAction, targets [][]weighted) {
	for _, w := range slices.Concat(targets...) {
		if w.hash == nil {
			continue
		}
		p := hashPolicy(w.hash)
		if !slices.ContainsFunc(action.HashPolicy, func(other *routev3.RouteAction_HashPolicy) bool { return proto.Equal(other, p) }) {
			action.HashPolicy = append(action.HashPolicy, p)
		}
	}
}

func hashPolicy(h *model.Hash) *routev3.RouteAction_HashPolicy {
	p := &routev3.RouteAction_HashPolicy{Terminal: true}
	switch {
	case h.Header != "":
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Header_{Header: &routev3.RouteAction_HashPolicy_Header{HeaderName: h.Header}}
	case h.Cookie != nil:
		cookie := &routev3.RouteAction_HashPolicy_Cookie{Name: h.Cookie.Name}
		if h.Cookie.Given {
			// Cookies count seconds; a part of one would be none, and the cookie gone at once.
			cookie.Ttl, cookie.Path = duration((h.Cookie.TTL + time.Second - 1).Truncate(time.Second)), h.Cookie.Path
		}
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_Cookie_{Cookie: cookie}
	default:
		p.PolicySpecifier = &routev3.RouteAction_HashPolicy_ConnectionProperties_{ConnectionProperties: &routev3.RouteAction_HashPolicy_ConnectionProperties{SourceIp: true}}
	}
	return p
}

// acrossShares lets retries of a route go on to another share when the first has no other instance.
func acrossShares(r *routev3.RetryPolicy) *routev3.RetryPolicy {
	r.RetryPriority = &routev3.RetryPolicy_RetryPriority{
		Name: "envoy.retry_priorities.previous_priorities",
		ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{TypedConfig: pack(&prioritiesv3.PreviousPrioritiesConfig{
			UpdateFrequency: 1,
		})},
	}
	return r
}
