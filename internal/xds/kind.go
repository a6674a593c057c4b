package xds

// kind is a resource type served, in the order of a rollout: what is referred to comes before what refers to it.
type kind int

const (
	clusters kind = iota
	endpoints
	listeners
	routes
	kinds int = iota
)

const typePrefix = "type.googleapis.com/envoy.config."

func (k kind) url() string {
	switch k {
	case clusters:
		return typePrefix + "cluster.v3.Cluster"
	case endpoints:
		return typePrefix + "endpoint.v3.ClusterLoadAssignment"
	case listeners:
		return typePrefix + "listener.v3.Listener"
	default:
		return typePrefix + "route.v3.RouteConfiguration"
	}
}

// String is the short name people use.
func (k kind) String() string { return [...]string{"cds", "eds", "lds", "rds"}[k] }

// full says that a state-of-the-world response must hold every resource.
func (k kind) full() bool { return k == clusters || k == listeners }

func kindOf(url string) (kind, bool) {
	for k := range kind(kinds) {
		if k.url() == url {
			return k, true
		}
	}
	return 0, false
}
