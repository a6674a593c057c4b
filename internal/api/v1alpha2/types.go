// Package v1alpha2 holds the mesh object types of config.istio.io/v1alpha2, one file per kind, with scheme, defaults and generated CRDs.
//
// Fields and their meaning are those of the 0.2 release; what is added is said at the field. Keys are lowerCamelCase; the manifest room also
// accepts the original snake_case. Durations are Go duration strings.
//
// +kubebuilder:object:generate=true
// +groupName=config.istio.io
package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// GroupVersion of every mesh object.
var GroupVersion = schema.GroupVersion{Group: "config.istio.io", Version: "v1alpha2"}

// IstioService identifies a service, or with labels some versions of it. Exactly one of Name and Service is set.
type IstioService struct {
	// Name is the short name of the service, a DNS label.
	Name string `json:"name,omitempty"`
	// Namespace of the service; the rule's own when empty.
	Namespace string `json:"namespace,omitempty"`
	// Domain suffix of the service's full name; svc.<mesh domain> when empty.
	Domain string `json:"domain,omitempty"`
	// Service is a fully qualified or wildcard host name, in place of Name, Namespace and Domain.
	Service string `json:"service,omitempty"`
	// Labels select instances by their pod labels.
	Labels map[string]string `json:"labels,omitempty"`
}

// StringMatch is one way to match a string; exactly one field is set.
type StringMatch struct {
	Exact  *string `json:"exact,omitempty"`
	Prefix *string `json:"prefix,omitempty"`
	// Regex must match the whole value; RE2 syntax.
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
