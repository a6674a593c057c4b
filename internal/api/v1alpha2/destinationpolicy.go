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
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0 || has(self.labels) && self.labels.size() > 0",message="name, service or labels are set"
	Source         *IstioService   `json:"source,omitempty"`
	LoadBalancing  *LoadBalancing  `json:"loadBalancing,omitempty"`
	CircuitBreaker *CircuitBreaker `json:"circuitBreaker,omitempty"`
}

// LoadBalancingScheme is a way to pick an instance.
//
// +kubebuilder:validation:Enum=ROUND_ROBIN;LEAST_CONN;RANDOM
type LoadBalancingScheme string

// The load balancing schemes.
const (
	RoundRobin LoadBalancingScheme = "ROUND_ROBIN"
	LeastConn  LoadBalancingScheme = "LEAST_CONN"
	Random     LoadBalancingScheme = "RANDOM"
)

// LoadBalancingSchemes are the schemes in the order of their numbers, by which files may call them too.
func LoadBalancingSchemes() []LoadBalancingScheme {
	return []LoadBalancingScheme{RoundRobin, LeastConn, Random}
}

// LoadBalancing picks one scheme.
//
// +kubebuilder:validation:XValidation:rule="has(self.name) != has(self.custom)",message="name is set, and custom is not"
type LoadBalancing struct {
	Name LoadBalancingScheme `json:"name,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
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
