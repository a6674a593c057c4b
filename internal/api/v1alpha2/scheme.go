package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// The kinds of the group that this version serves.
const (
	KindRouteRule         = "RouteRule"
	KindDestinationPolicy = "DestinationPolicy"
	KindEgressRule        = "EgressRule"
)

// AddToScheme makes s know the mesh kinds and their lists.
func AddToScheme(s *runtime.Scheme) error {
	s.AddKnownTypes(GroupVersion,
		&RouteRule{}, &RouteRuleList{},
		&DestinationPolicy{}, &DestinationPolicyList{},
		&EgressRule{}, &EgressRuleList{},
	)
	metav1.AddToGroupVersion(s, GroupVersion)
	return nil
}
