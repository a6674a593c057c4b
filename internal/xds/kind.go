package xds

import "strings"

// kind is a resource type served, in the order of a rollout: what is referred to comes before what refers to it.
type kind int

const (
	clusters kind = iota
	endpoints
	listeners
	routes
	virtualHosts
	secrets
	kinds int = iota
)

func (k kind) url() string {
	return "type.googleapis.com/envoy." + [...]string{
		"config.cluster.v3.Cluster",
		"config.endpoint.v3.ClusterLoadAssignment",
		"config.listener.v3.Listener",
		"config.route.v3.RouteConfiguration",
		"config.route.v3.VirtualHost",
		"extensions.transport_sockets.tls.v3.Secret",
	}[k]
}

// String is the short name people use.
func (k kind) String() string { return [...]string{"cds", "eds", "lds", "rds", "vhds", "sds"}[k] }

// full says that a state-of-the-world response must hold every resource.
func (k kind) full() bool { return k == clusters || k == listeners }

// table is the name by which a resource is subscribed to: its own, or for a virtual host also that of its route configuration, which stands before a
// slash in its name.
func (k kind) table(name string) (string, bool) {
	if k != virtualHosts {
		return "", false
	}
	table, _, ok := strings.Cut(name, "/")
	return table, ok
}

// immediate kinds do not wait for rollouts: where an instance is, and a certificate that is about to expire, depend on nothing else.
func (k kind) immediate() bool { return k == endpoints || k == secrets }

func kindOf(url string) (kind, bool) {
	for k := range kind(kinds) {
		if k.url() == url {
			return k, true
		}
	}
	return 0, false
}
