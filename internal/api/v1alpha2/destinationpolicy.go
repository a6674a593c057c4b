package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// DestinationPolicy says how a service's instances are called: load balancing and circuit breaking.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=destinationpolicies,categories=mesh
// +kubebuilder:printcolumn:name="Destination",type=string,JSONPath=`.spec.destination['name','service']`
// +kubebuilder:printcolumn:name="Labels",type=string,JSONPath=`.spec.destination.labels`
// +kubebuilder:printcolumn:name="Balancing",type=string,JSONPath=`.spec.loadBalancing.name`
// +kubebuilder:printcolumn:name="Accepted",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type DestinationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec   DestinationPolicySpec `json:"spec"`
	Status Status                `json:"status,omitempty,omitzero"`
}

// DestinationPolicyList is a list of DestinationPolicy.
//
// +kubebuilder:object:root=true
type DestinationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []DestinationPolicy `json:"items"`
}

// DestinationPolicySpec is the policy proper. Labels in Destination select a version.
type DestinationPolicySpec struct {
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0",message="name or service is set"
	Destination IstioService `json:"destination"`
	// Source narrows the policy to some callers.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0 || has(self.__namespace__) && self.__namespace__.size() > 0 || has(self.labels) && self.labels.size() > 0",message="name, service, namespace or labels are set"
	Source         *IstioService   `json:"source,omitempty"`
	LoadBalancing  *LoadBalancing  `json:"loadBalancing,omitempty"`
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
}

// LoadBalancingScheme is a way to pick an instance.
//
// +kubebuilder:validation:Enum=ROUND_ROBIN;LEAST_CONN;RANDOM;LATENCY_AWARE
type LoadBalancingScheme string

// The load balancing schemes. LATENCY_AWARE, which 0.2 did not have, sends to the instance that has the fewest
// requests of this caller under way; ROUND_ROBIN is what happens where nothing is said.
const (
	RoundRobin   LoadBalancingScheme = "ROUND_ROBIN"
	LeastConn    LoadBalancingScheme = "LEAST_CONN"
	Random       LoadBalancingScheme = "RANDOM"
	LatencyAware LoadBalancingScheme = "LATENCY_AWARE"
)

// LoadBalancingSchemes are the schemes in the order of their numbers, by which files may call them too.
func LoadBalancingSchemes() []LoadBalancingScheme {
	return []LoadBalancingScheme{RoundRobin, LeastConn, Random, LatencyAware}
}

// LoadBalancing picks one scheme, or lets something of the call decide.
//
// +kubebuilder:validation:XValidation:rule="[has(self.name) && self.name.size() > 0, has(self.consistentHash), has(self.custom)].exists_one(set, set)",message="one of name and consistentHash is set, and custom is not"
type LoadBalancing struct {
	Name           LoadBalancingScheme `json:"name,omitempty"`
	ConsistentHash *ConsistentHash     `json:"consistentHash,omitempty"`
	// Custom has no meaning; 0.2 had room for it.
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// ConsistentHash sends calls that agree in one thing to the same instance, as long as it is there. Calls without that thing go to any.
//
// +kubebuilder:validation:XValidation:rule="[has(self.httpHeaderName) && self.httpHeaderName.size() > 0, has(self.httpCookie), has(self.useSourceIp) && self.useSourceIp].exists_one(set, set)",message="one of httpHeaderName, httpCookie and useSourceIp is set"
type ConsistentHash struct {
	// HTTPHeaderName, in lower case; :path, :method and :authority are parts of every request.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^(:path|:method|:authority|[a-z0-9!#$%&'*+.^_|~\x60-]*)$`
	HTTPHeaderName string      `json:"httpHeaderName,omitempty"`
	HTTPCookie     *HTTPCookie `json:"httpCookie,omitempty"`
	// UseSourceIP takes the address of the connection: for a sidecar its own pod's, for a gateway the client's.
	UseSourceIP bool `json:"useSourceIp,omitempty"`
	// MinimumRingSize is the least number of places on the ring; 1024 when 0. More places part the calls more evenly.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=8388608
	MinimumRingSize int32 `json:"minimumRingSize,omitempty"`
}

// HTTPCookie names a cookie, and says whether callers without it are given one.
type HTTPCookie struct {
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~\x60-]+$`
	Name string `json:"name"`
	// Path of a cookie that is given.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^(/[!-:<-~]*)?$`
	Path string `json:"path,omitempty"`
	// TTL of a cookie that is given; 0s makes it last as long as the client's session. Without it none is given.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// CircuitBreaker bounds what is sent and takes failing instances out.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.simpleCb) && has(self.custom))",message="simpleCb and custom exclude each other"
type CircuitBreaker struct {
	SimpleCb *SimpleCircuitBreaker `json:"simpleCb,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleCircuitBreaker bounds a service by numbers, each of which may be left out.
type SimpleCircuitBreaker struct {
	// +kubebuilder:validation:Minimum=0
	MaxConnections int32 `json:"maxConnections,omitempty"`
	// +kubebuilder:validation:Minimum=0
	HTTPMaxPendingRequests int32 `json:"httpMaxPendingRequests,omitempty"`
	// +kubebuilder:validation:Minimum=0
	HTTPMaxRequests int32 `json:"httpMaxRequests,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	SleepWindow *metav1.Duration `json:"sleepWindow,omitempty"`
	// +kubebuilder:validation:Minimum=0
	HTTPConsecutiveErrors int32 `json:"httpConsecutiveErrors,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	HTTPDetectionInterval *metav1.Duration `json:"httpDetectionInterval,omitempty"`
	// +kubebuilder:validation:Minimum=0
	HTTPMaxRequestsPerConnection int32 `json:"httpMaxRequestsPerConnection,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	HTTPMaxEjectionPercent int32 `json:"httpMaxEjectionPercent,omitempty"`
}
