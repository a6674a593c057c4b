package envoy

import (
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Clusters that every sidecar has.
const (
	// passthroughCluster connects to where the application wanted to go.
	passthroughCluster = "PassthroughCluster"
	// inboundPassthroughCluster connects to the application's port, leaving from an address that capture exempts.
	inboundPassthroughCluster = "InboundPassthroughCluster"
	// blackHoleCluster has no endpoints: requests get 503, connections are closed.
	blackHoleCluster = "BlackHoleCluster"
)

// Ports the mesh keeps for itself; capture redirects to the first two.
const (
	outboundPort = 15001
	inboundPort  = 15006
)

// IngressHTTPPort is the port on which an ingress gateway takes plain HTTP. It is not privileged, so the gateway needs no capability.
const IngressHTTPPort = 8080

// ingressRoutes names the route configuration of the ingress gateways.
const ingressRoutes = "ingress.8080"

// subset is a version of a service at one port: what a cluster stands for.
type subset struct {
	host   string
	port   uint32
	labels string
}

func newSubset(host string, port uint32, labels map[string]string) subset {
	return subset{host: host, port: port, labels: formatLabels(labels)}
}

// cluster is the name of the cluster and of its endpoints.
func (s subset) cluster() string {
	return "outbound|" + strconv.FormatUint(uint64(s.port), 10) + "|" + s.labels + "|" + s.host
}

func inboundCluster(port uint32) string { return "inbound|" + strconv.FormatUint(uint64(port), 10) }

func listenerName(address string, port uint32) string {
	return address + "_" + strconv.FormatUint(uint64(port), 10)
}

// routeName is the name of the route configuration for an outbound port.
func routeName(port uint32) string { return strconv.FormatUint(uint64(port), 10) }

// formatLabels writes labels as k=v,k=v in order of keys. The characters that part them cannot stand in a label.
func formatLabels(labels map[string]string) string {
	parts := make([]string, 0, len(labels))
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		parts = append(parts, k+"="+labels[k])
	}
	return strings.Join(parts, ",")
}

// parseLabels reads what formatLabels writes.
func parseLabels(text string) map[string]string {
	if text == "" {
		return nil
	}
	out := map[string]string{}
	for pair := range strings.SplitSeq(text, ",") {
		k, v, _ := strings.Cut(pair, "=")
		out[k] = v
	}
	return out
}

// selects says whether labels contain all of selector.
func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// families says which IP families addresses hold; IPv4 alone when none is known.
func families(addresses []string) (v4, v6 bool) {
	for _, a := range addresses {
		if isIPv6(a) {
			v6 = true
		} else {
			v4 = true
		}
	}
	return v4 || !v6, v6
}

func isIPv6(address string) bool {
	a, err := netip.ParseAddr(address)
	return err == nil && a.Is6() && !a.Is4In6()
}
