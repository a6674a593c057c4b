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
type DestinationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              DestinationPolicySpec `json:"spec"`
	Status            Status                `json:"status,omitempty"`
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
	Destination    IstioService    `json:"destination"`
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
type LoadBalancing struct {
	Name   LoadBalancingScheme   `json:"name,omitempty"`
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// CircuitBreaker bounds what is sent and takes failing instances out.
type CircuitBreaker struct {
	SimpleCb *SimpleCircuitBreaker `json:"simpleCb,omitempty"`
	Custom   *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleCircuitBreaker: every field may be left out alone.
type SimpleCircuitBreaker struct {
	MaxConnections               int32            `json:"maxConnections,omitempty"`
	HTTPMaxPendingRequests       int32            `json:"httpMaxPendingRequests,omitempty"`
	HTTPMaxRequests              int32            `json:"httpMaxRequests,omitempty"`
	SleepWindow                  *metav1.Duration `json:"sleepWindow,omitempty"`
	HTTPConsecutiveErrors        int32            `json:"httpConsecutiveErrors,omitempty"`
	HTTPDetectionInterval        *metav1.Duration `json:"httpDetectionInterval,omitempty"`
	HTTPMaxRequestsPerConnection int32            `json:"httpMaxRequestsPerConnection,omitempty"`
	HTTPMaxEjectionPercent       int32            `json:"httpMaxEjectionPercent,omitempty"`
}
