// Package meshconfig is the mesh-wide configuration: its fields, their defaults, reading it and judging it.
//
// In: the text under the key "mesh" of the ConfigMap "istio", or of a file in its place. Out: a complete, valid Mesh, or findings that name line,
// field, fault and remedy. What the text does not say keeps its default, also inside defaultConfig.
package meshconfig

import "time"

// ConfigMap and Key are where a cluster keeps the mesh configuration, in the control plane's namespace.
const (
	ConfigMap = "istio"
	Key       = "mesh"
)

// Mesh is the configuration of the whole mesh.
type Mesh struct {
	// EgressProxyAddress is the egress gateway, host:port, or empty.
	EgressProxyAddress string
	// MixerAddress is the policy and telemetry service, host:port; empty for none.
	MixerAddress string
	// DisablePolicyChecks leaves only reports to Mixer.
	DisablePolicyChecks bool
	// ProxyListenPort receives captured outbound traffic.
	ProxyListenPort int
	// ProxyHTTPPort is an explicit HTTP proxy port; 0 is off.
	ProxyHTTPPort int
	// ConnectTimeout bounds connecting to an instance.
	ConnectTimeout time.Duration
	// IngressClass is the class of the Ingresses this mesh serves.
	IngressClass string
	// IngressService names the Service whose address Ingresses show in their status.
	IngressService string
	// IngressControllerMode says which Ingresses are served.
	IngressControllerMode IngressMode
	AuthPolicy            AuthPolicy
	// OutboundTrafficPolicy says what becomes of connections that neither a service nor an EgressRule is for.
	OutboundTrafficPolicy OutboundMode
	// RDSRefreshDelay belongs to polling proxies; it is accepted and has no effect on a pushed configuration.
	RDSRefreshDelay time.Duration
	EnableTracing   bool
	// AccessLogFile is where proxies log requests; empty for nowhere.
	AccessLogFile string
	// ProtocolDetectionTimeout is how long a connection to a port that does not say its protocol may keep silent before it is taken for TCP;
	// 0 takes all such ports for TCP, as 0.2 did.
	ProtocolDetectionTimeout time.Duration
	// DefaultConfig is for every proxy.
	DefaultConfig Proxy
}

// Proxy is the configuration of one proxy.
type Proxy struct {
	ConfigPath             string
	BinaryPath             string
	ServiceCluster         string
	DrainDuration          time.Duration
	ParentShutdownDuration time.Duration
	// DiscoveryAddress is Pilot, host:port.
	DiscoveryAddress string
	// DiscoveryRefreshDelay belongs to polling proxies; it is accepted and has no effect on a pushed configuration.
	DiscoveryRefreshDelay time.Duration
	ZipkinAddress         string
	ConnectTimeout        time.Duration
	StatsdUDPAddress      string
	ProxyAdminPort        int
	AvailabilityZone      string
}

// IngressMode says which Ingresses are served.
type IngressMode string

// The modes: none, those without a class too, only those of the mesh's class.
const (
	IngressOff     IngressMode = "OFF"
	IngressDefault IngressMode = "DEFAULT"
	IngressStrict  IngressMode = "STRICT"
)

// OutboundMode says what becomes of connections that neither a service nor an EgressRule is for.
type OutboundMode string

// The modes: they go where they were going, or are refused.
const (
	OutboundAllowAny     OutboundMode = "ALLOW_ANY"
	OutboundRegistryOnly OutboundMode = "REGISTRY_ONLY"
)

// AuthPolicy says whether proxies authenticate each other.
type AuthPolicy string

// The policies.
const (
	AuthNone      AuthPolicy = "NONE"
	AuthMutualTLS AuthPolicy = "MUTUAL_TLS"
)

// Default is the configuration of a mesh that says nothing, with its control plane in namespace.
func Default(namespace string) Mesh {
	return Mesh{
		EgressProxyAddress:    "istio-egress." + namespace + ":80",
		ProxyListenPort:       15001,
		ConnectTimeout:        time.Second,
		IngressClass:          "istio",
		IngressService:        "istio-ingress",
		IngressControllerMode: IngressStrict,
		AuthPolicy:            AuthNone,
		OutboundTrafficPolicy: OutboundAllowAny,
		RDSRefreshDelay:       time.Second,
		EnableTracing:         true,
		AccessLogFile:         "/dev/stdout",

		ProtocolDetectionTimeout: 100 * time.Millisecond,

		DefaultConfig: Proxy{
			ConfigPath:             "/etc/istio/proxy",
			BinaryPath:             "/usr/local/bin/envoy",
			ServiceCluster:         "istio-proxy",
			DrainDuration:          45 * time.Second,
			ParentShutdownDuration: time.Minute,
			DiscoveryAddress:       "istio-pilot." + namespace + ":15012",
			DiscoveryRefreshDelay:  time.Second,
			ConnectTimeout:         10 * time.Second,
			ProxyAdminPort:         15000,
		},
	}
}
