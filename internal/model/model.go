// Package model is the mesh as data: services, endpoints, routes, policies, identities; free of Kubernetes and Envoy types, printable and comparable.
//
// In: what the ingest room makes of an object set. Out: what the data-plane rooms (envoy, later others) translate.
// Every slice is sorted as its comment says, so that equal meshes are equal values.
package model

import "time"

// Protocol is what is spoken on a port.
type Protocol string

// The protocols. UDP is not carried, so there are no UDP ports here.
const (
	// Detected is for a port that does not say: HTTP for a connection that begins like it, TCP for any other.
	Detected Protocol = "detected"

	HTTP  Protocol = "http"
	HTTP2 Protocol = "http2"
	GRPC  Protocol = "grpc"
	HTTPS Protocol = "https"
	TLS   Protocol = "tls"
	TCP   Protocol = "tcp"
	Mongo Protocol = "mongo"
	Redis Protocol = "redis"
)

// IsHTTP says whether requests on the port are routed one by one, where that is what comes.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC || p == Detected }

// IsTCP says whether connections to the port may be carried unseen.
func (p Protocol) IsTCP() bool { return !p.IsHTTP() || p == Detected }

// Ref names the object a part of the mesh was made from.
type Ref struct {
	Kind      string
	Namespace string
	Name      string
}

// Mesh is everything the control plane knows.
type Mesh struct {
	// Domain is the cluster's DNS suffix, as in cluster.local.
	Domain string
	// ConnectTimeout bounds every connection attempt.
	ConnectTimeout time.Duration
	// DetectionTimeout is how long a connection to a port of protocol Detected may keep silent before it is taken for TCP.
	DetectionTimeout time.Duration
	// AccessLog is the file requests are logged to; empty for none.
	AccessLog string
	// Services, by Hostname.
	Services []*Service
	// Endpoints of each of Services, in the same order. They change so much more often than their service that they are apart from it.
	Endpoints []*Endpoints
	// Workloads, by namespace and name.
	Workloads []*Workload
	// Rules, in the order they are tried: precedence descending, then namespace and name ascending.
	Rules []*Rule
	// Policies, in the order they are asked: those with more labels first, then those for some callers alone, then by namespace and name.
	Policies []*Policy
	// Externals, by Host, then Ref. No two have the same host and port.
	Externals []*External
	// Closed refuses connections and requests that neither a service nor an External is for, where they would otherwise go where they were going.
	Closed bool
	// Roots is the file in which proxies find the certificates of the authorities they trust outside of the mesh; empty for the system's.
	Roots string
	// Ingress: default backends last, the others by host and then in the order paths are tried: exact, regular expressions, prefixes, each
	// longer first. Of equal ones that of the older Ingress is first.
	Ingress []*IngressRoute
	// IngressTLS, by Host, one for each.
	IngressTLS []*IngressTLS
}

// Service is one name that can be called.
type Service struct {
	// Hostname is the full name, reviews.default.svc.cluster.local.
	Hostname  string
	Name      string
	Namespace string
	// Addresses are the virtual IPs, IPv4 first; none for a headless service.
	Addresses []string
	Ports     []Port
	Headless  bool
	// ExternalName is the DNS name an ExternalName service stands for.
	ExternalName string
}

// Ref names the Service object.
func (s *Service) Ref() Ref { return Ref{Kind: "Service", Namespace: s.Namespace, Name: s.Name} }

// TargetPort is the HTTP port that a request meant for port number of another service goes to when a rule sends it here: the one of the same
// number, else the only one. It is false when there is no such port.
func (s *Service) TargetPort(number uint32) (Port, bool) {
	var http []Port
	for _, p := range s.Ports {
		if !p.Protocol.IsHTTP() {
			continue
		}
		if p.Number == number {
			return p, true
		}
		http = append(http, p)
	}
	if len(http) == 1 {
		return http[0], true
	}
	return Port{}, false
}

// Port of a service.
type Port struct {
	Name     string
	Number   uint32
	Protocol Protocol
}

// Endpoints are the instances of a service.
type Endpoints struct {
	// Hostname is the service's.
	Hostname string
	// List is by service port, address and port. Instances that are not ready are left out, but those draining are kept with Ready false.
	List []Endpoint
}

// Endpoint is one instance's port.
type Endpoint struct {
	// ServicePort is the Number of the service port this endpoint serves.
	ServicePort uint32
	Address     string
	Port        uint32
	// Labels of the workload behind it; nil for an address outside the cluster.
	Labels map[string]string
	// Workload behind it, empty when unknown.
	Workload WorkloadKey
	// Hostname is the pod's own DNS label in a headless service.
	Hostname string
	// Node and Zone where it runs.
	Node string
	Zone string
	// Ready is false for an instance that is shutting down but still serves what it has.
	Ready bool
}

// WorkloadKey names a workload instance (a pod).
type WorkloadKey struct {
	Namespace string
	Name      string
}

// Workload is a pod: a place a proxy runs beside.
type Workload struct {
	Key            WorkloadKey
	Addresses      []string
	Labels         map[string]string
	ServiceAccount string
	Node           string
	// Services with a port here, each with the container ports: what the sidecar serves inbound. By hostname and port.
	Inbound []InboundPort
}

// InboundPort is a port of the workload that a service points to.
type InboundPort struct {
	Hostname string
	// ServicePort is the service's port number, Port the workload's.
	ServicePort uint32
	Port        uint32
	Protocol    Protocol
}

// Proxy is the role and place of one proxy; translation depends on nothing else about it.
type Proxy struct {
	// Type is sidecar, ingress or egress.
	Type     ProxyType
	Workload WorkloadKey
	// Addresses and Labels are used as long as the mesh does not know the workload.
	Addresses []string
	Labels    map[string]string
	// Unproven is set for a proxy that was taken at its word; it is told no secrets.
	Unproven bool
	// VirtualHosts says that the proxy takes virtual hosts on their own; to others they come with their route configuration.
	VirtualHosts bool
}

// ProxyType is the role of a proxy.
type ProxyType string

// The roles.
const (
	Sidecar ProxyType = "sidecar"
	Ingress ProxyType = "ingress"
	Egress  ProxyType = "egress"
)

// Rule is a RouteRule with every name resolved.
type Rule struct {
	Ref        Ref
	Precedence int32
	// Host is the hostname of the destination service.
	Host string
	// CallerNamespace is the namespace whose workloads alone are bound by the rule; empty for all callers. A rule for a service of another
	// namespace acts on calls from its own.
	CallerNamespace string
	Source          *Source
	// Headers, by name, all must match. Pseudo headers are :path, :method, :authority, :scheme.
	Headers []HeaderMatch
	// Addresses of the connection; nil for any.
	Addresses *Addresses
	// Routes are the weighted targets; empty means all instances of Host. Weights total 100.
	Routes   []Target
	Redirect *Redirect
	Rewrite  *Rewrite
	// Websocket allows the upgrade.
	Websocket bool
	// Timeout of the whole request, 0 when the rule sets none.
	Timeout time.Duration
	// TimeoutHeader, in lower case, in which a request may say its own, in milliseconds; empty for none.
	TimeoutHeader string
	Retry         *Retry
	Fault         *Fault
	// Mirror gets a copy of each request; its Weight means nothing.
	Mirror *Target
	CORS   *CORS
	// AppendHeaders to requests, by name.
	AppendHeaders []Header
}

// Source restricts a rule to callers; all that is set must hold.
type Source struct {
	// Host is a service the caller must belong to; empty for any.
	Host string
	// Namespace the caller must run in; empty for any.
	Namespace string
	// Labels the caller must carry.
	Labels map[string]string
}

// MatchKind is how a string is compared.
type MatchKind string

// The comparisons. Regex matches the whole value, RE2 syntax.
const (
	Exact  MatchKind = "exact"
	Prefix MatchKind = "prefix"
	Regex  MatchKind = "regex"
)

// HeaderMatch is one condition on a request.
type HeaderMatch struct {
	Name  string
	Kind  MatchKind
	Value string
}

// Target is a version of a service and its share.
type Target struct {
	Host   string
	Labels map[string]string
	Weight uint32
}

// Redirect answers 301 with the parts given replaced.
type Redirect struct {
	URI       string
	Authority string
}

// Rewrite replaces the matched path or prefix and the authority.
type Rewrite struct {
	URI       string
	Authority string
}

// Retry of failed requests.
type Retry struct {
	Attempts      uint32
	PerTryTimeout time.Duration
	// NonIdempotent requests are repeated, too.
	NonIdempotent bool
	// Header, in lower case, in which a request may say its own number of attempts; empty for none.
	Header string
}

// Fault injected on purpose; percents are 0 to 100.
type Fault struct {
	Delay *Delay
	Abort *Abort
}

// Policy is a DestinationPolicy with every name resolved. What it leaves open, balancing or breaker, the next policy that applies may say.
type Policy struct {
	Ref Ref
	// Host is the hostname of the destination service, Labels those of the instances spoken of: all when empty.
	Host   string
	Labels map[string]string
	// CallerNamespace and Source narrow the policy to callers as they do a Rule.
	CallerNamespace string
	Source          *Source
	// Balancing is empty when the policy does not say.
	Balancing Balancing
	// Hash is set with Balancing ConsistentHash.
	Hash    *Hash
	Breaker *Breaker
}

// Balancing is a way to pick an instance.
type Balancing string

// The ways to pick.
const (
	RoundRobin     Balancing = "round-robin"
	LeastConn      Balancing = "least-conn"
	Random         Balancing = "random"
	LatencyAware   Balancing = "latency-aware"
	ConsistentHash Balancing = "consistent-hash"
)

// Breaker bounds what is sent to a set of instances; 0 is no bound.
type Breaker struct {
	MaxConnections           uint32
	MaxPendingRequests       uint32
	MaxRequests              uint32
	MaxRequestsPerConnection uint32
	// Ejection is nil when no instance is to be taken out.
	Ejection *Ejection
}

// Ejection takes an instance out for a while that failed several times in a row. All fields are set.
type Ejection struct {
	ConsecutiveErrors uint32
	// Interval is how often it is decided who returns; SleepWindow how long an instance stays out the first time.
	Interval    time.Duration
	SleepWindow time.Duration
	// MaxPercent of the instances may be out, but one always.
	MaxPercent uint32
}

// IngressRoute is one path of an Ingress.
type IngressRoute struct {
	Ref Ref
	// Host is an authority, *.suffix, or * for any.
	Host string
	Path string
	// PathKind is Exact, Prefix or Regex; PathElements makes Prefix match whole path elements (pathType Prefix).
	PathKind     MatchKind
	PathElements bool
	// Default marks a default backend: it takes what no other route of its host takes, or with Host * of any.
	Default bool
	// Plain says that requests in the clear are answered, Secure those over TLS. ToSecure sends those in the clear there.
	Plain, Secure, ToSecure bool
	// Created is when the Ingress was.
	Created time.Time `json:",omitzero"`
	// Service is the hostname of the backend, Port its number.
	Service string
	Port    uint32
}
