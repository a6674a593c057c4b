package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// EgressRule lets the mesh call a host outside of it.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=egressrules,categories=mesh
// +kubebuilder:printcolumn:name="Host",type=string,JSONPath=`.spec.destination.service`
// +kubebuilder:printcolumn:name="Ports",type=string,JSONPath=`.spec.ports`
// +kubebuilder:printcolumn:name="Accepted",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type EgressRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec   EgressRuleSpec `json:"spec"`
	Status Status         `json:"status,omitempty,omitzero"`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.destination.service) || self.ports.all(p, p.protocol.lowerAscii() == 'tcp' ? isIP(self.destination.service) || isCIDR(self.destination.service) : !self.destination.service.contains('/'))",message="tcp is for an address or a subnet, and a subnet for tcp alone"
// +kubebuilder:validation:XValidation:rule="!has(self.destination.service) || self.ports.all(p, p.protocol.lowerAscii() != 'tls' || !isIP(self.destination.service) && (!self.destination.service.startsWith('*') || self.destination.service == '*' || self.destination.service.startsWith('*.')))",message="tls is for a name, with at most *. in front"
type EgressRuleSpec struct {
	// Destination is a host name, perhaps behind a wildcard, an address, or for tcp a subnet.
	// +kubebuilder:validation:XValidation:rule="has(self.service) && self.service.size() > 0",message="service is set to the name of the host"
	// +kubebuilder:validation:XValidation:rule="!(has(self.name) && self.name.size() > 0) && !(has(self.__namespace__) && self.__namespace__.size() > 0) && !(has(self.domain) && self.domain.size() > 0) && !(has(self.labels) && self.labels.size() > 0)",message="a host outside of the mesh has no name, namespace, domain or labels"
	Destination IstioService `json:"destination"`
	// Ports of the host that may be called.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=128
	// +listType=map
	// +listMapKey=port
	Ports []EgressRulePort `json:"ports"`
	// UseEgressProxy is kept from 0.2's schema and must be false.
	// +kubebuilder:validation:XValidation:rule="!self",message="calls through the egress proxy are not supported, as in 0.2"
	UseEgressProxy bool `json:"useEgressProxy,omitempty"`
}

// EgressRulePort is a port of the external host.
type EgressRulePort struct {
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`
	// Protocol is http, https, http2, grpc, tls or tcp, in any case.
	// +kubebuilder:validation:MaxLength=5
	// +kubebuilder:validation:Pattern=`^([hH][tT][tT][pP][sS2]?|[gG][rR][pP][cC]|[tT][lL][sS]|[tT][cC][pP])$`
	Protocol string `json:"protocol"`
}
