// Package v1alpha2 holds the mesh object types of config.istio.io/v1alpha2, one file per kind, with generated deep copies and CRDs.
//
// Fields and their meaning are those of the 0.2 release; what is added is said at the field. Keys are lowerCamelCase; the manifest room also
// accepts the original snake_case. Durations are Go duration strings.
//
// +kubebuilder:object:generate=true
// +groupName=config.istio.io
package v1alpha2

//go:generate go tool -modfile=../../../.tools/go.mod controller-gen object crd:allowDangerousTypes=true paths=. output:crd:dir=../../../rules/crds

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of every mesh object.
var GroupVersion = schema.GroupVersion{Group: "config.istio.io", Version: "v1alpha2"}

// The limits of what an object may hold. They bound the work of judging one.
const (
	MaxText       = 4096
	MaxHeaderName = 256
	MaxLabels     = 64
	MaxHeaders    = 64
	MaxRoutes     = 64
	MaxPorts      = 128
	MaxSubnets    = 128
)

// IstioService identifies a service, or with labels some versions of it. Exactly one of Name and Service is set; a caller may be told by its
// labels alone.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.name) && self.name.size() > 0 && has(self.service) && self.service.size() > 0)",message="name and service exclude each other"
// +kubebuilder:validation:XValidation:rule="!(has(self.service) && self.service.size() > 0 && (has(self.__namespace__) && self.__namespace__.size() > 0 || has(self.domain) && self.domain.size() > 0))",message="service is a full host name and takes no namespace and no domain"
type IstioService struct {
	// Name is the short name of the service, a DNS label.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$`
	Name string `json:"name,omitempty"`
	// Namespace of the service; the rule's own when empty.
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$`
	Namespace string `json:"namespace,omitempty"`
	// Domain suffix of the service's full name; svc.<mesh domain> when empty.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*)?$`
	Domain string `json:"domain,omitempty"`
	// Service is a fully qualified or wildcard host name, in place of Name, Namespace and Domain; outside of the mesh also an address or, for
	// connections, a subnet.
	// +kubebuilder:validation:MaxLength=255
	// +kubebuilder:validation:Pattern=`^(\*|(\*[.-]?)?[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)*|[0-9a-fA-F:.]+(/[0-9]{1,3})?)?$`
	// +kubebuilder:validation:XValidation:rule="!self.contains(':') && !self.contains('/') || isIP(self) || isCIDR(self)",message="neither a name nor an address nor a subnet"
	Service string `json:"service,omitempty"`
	// Labels select instances by their pod labels.
	// +kubebuilder:validation:MaxProperties=64
	Labels map[string]string `json:"labels,omitempty"`
}

// StringMatch is one way to match a string; exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.exact), has(self.prefix), has(self.regex)].filter(set, set).size() == 1",message="exactly one of exact, prefix and regex is set"
type StringMatch struct {
	// Exact is the whole value.
	// +kubebuilder:validation:MaxLength=4096
	Exact *string `json:"exact,omitempty"`
	// Prefix is what the value begins with.
	// +kubebuilder:validation:MaxLength=4096
	Prefix *string `json:"prefix,omitempty"`
	// Regex must match the whole value; RE2 syntax.
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:XValidation:rule="'x'.matches(self) ? true : true",message="it is a regular expression in RE2 syntax"
	Regex *string `json:"regex,omitempty"`
}

// Status is what the control plane says about an object.
type Status struct {
	// ObservedGeneration is the generation the conditions speak of.
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// Conditions hold Accepted (the object is valid and in force) and Programmed (every proxy concerned has it).
	// +listType=map
	// +listMapKey=type
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	// Findings are what the control plane found about the object, one line each.
	// +listType=atomic
	Findings []StatusFinding `json:"findings,omitempty"`
}

// StatusFinding is a finding as stored in an object's status.
type StatusFinding struct {
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Field    string `json:"field,omitempty"`
	Message  string `json:"message"`
	Hint     string `json:"hint,omitempty"`
}

// The condition types of Status.
const (
	ConditionAccepted   = "Accepted"
	ConditionProgrammed = "Programmed"
)
