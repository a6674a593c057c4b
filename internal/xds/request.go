package xds

import (
	"slices"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// request is what both variants of the protocol ask.
type request struct {
	url  string
	node *corev3.Node
	// nonce of the response this answers, empty for none; rejected with text when it is a refusal.
	nonce    string
	rejected bool
	text     string

	// Delta: names to add and drop, and what the proxy holds from an earlier stream.
	subscribe, unsubscribe []string
	initial                map[string]string

	// State-of-the-world: all names, and the version held from an earlier stream.
	names   []string
	version string
}

// wildcardName asks for everything.
const wildcardName = "*"

func fromDelta(m *discoveryv3.DeltaDiscoveryRequest) *request {
	return &request{
		url: m.GetTypeUrl(), node: m.GetNode(), nonce: m.GetResponseNonce(),
		rejected: m.GetErrorDetail() != nil, text: m.GetErrorDetail().GetMessage(),
		subscribe: m.GetResourceNamesSubscribe(), unsubscribe: m.GetResourceNamesUnsubscribe(), initial: m.GetInitialResourceVersions(),
	}
}

func fromSotw(m *discoveryv3.DiscoveryRequest) *request {
	return &request{
		url: m.GetTypeUrl(), node: m.GetNode(), nonce: m.GetResponseNonce(),
		rejected: m.GetErrorDetail() != nil, text: m.GetErrorDetail().GetMessage(),
		names: m.GetResourceNames(), version: m.GetVersionInfo(),
	}
}

// toDelta says a state-of-the-world request in terms of what changes for sub, and whether it changes from names to everything or back.
func (r *request) toDelta(sub *subscription) {
	if !sub.asked {
		r.subscribe = r.names
		return
	}
	if len(r.names) == 0 && sub.wildcard && len(sub.names) == 0 {
		return // everything, as before
	}
	want := make(map[string]struct{}, len(r.names))
	for _, n := range r.names {
		want[n] = struct{}{}
		if _, had := sub.names[n]; !had && (n != wildcardName || !sub.wildcard) {
			r.subscribe = append(r.subscribe, n)
		}
	}
	for n := range sub.names {
		if _, keep := want[n]; !keep {
			r.unsubscribe = append(r.unsubscribe, n)
		}
	}
	if sub.wildcard && !slices.Contains(r.names, wildcardName) {
		r.unsubscribe = append(r.unsubscribe, wildcardName)
	}
}
