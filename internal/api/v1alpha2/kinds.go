package v1alpha2

// The kinds of the group that this version serves.
const (
	KindRouteRule         = "RouteRule"
	KindDestinationPolicy = "DestinationPolicy"
	KindEgressRule        = "EgressRule"
)
