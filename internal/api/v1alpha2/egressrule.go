package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EgressRule lets the mesh call a host outside of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=egressrules,categories=mesh
type EgressRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              EgressRuleSpec `json:"spec"`
	Status            Status         `json:"status,omitempty"`
}

// EgressRuleList is a list of EgressRule.
//
// +kubebuilder:object:root=true
type EgressRuleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []EgressRule `json:"items"`
}

// EgressRuleSpec is the rule proper; only Destination.Service may be set.
type EgressRuleSpec struct {
	Destination    IstioService     `json:"destination"`
	Ports          []EgressRulePort `json:"ports"`
	UseEgressProxy bool             `json:"useEgressProxy,omitempty"`
}

// EgressRulePort is a port of the external host.
type EgressRulePort struct {
	Port int32 `json:"port"`
	// Protocol is http, https, http2 or grpc, in any case.
	Protocol string `json:"protocol"`
}
