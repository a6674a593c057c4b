package v1alpha2

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// RouteRule says where requests to a service go.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:path=routerules,categories=mesh
// +kubebuilder:printcolumn:name="Destination",type=string,JSONPath=`.spec.destination['name','service']`
// +kubebuilder:printcolumn:name="Precedence",type=integer,JSONPath=`.spec.precedence`
// +kubebuilder:printcolumn:name="Match",type=string,JSONPath=`.spec.match`
// +kubebuilder:printcolumn:name="Route",type=string,JSONPath=`.spec.route`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RouteRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              RouteRuleSpec `json:"spec"`
	Status            Status        `json:"status,omitempty"`
}

// RouteRuleList is a list of RouteRule.
//
// +kubebuilder:object:root=true
type RouteRuleList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []RouteRule `json:"items"`
}

// RouteRuleSpec is the rule proper. Redirect excludes Route, HTTPFault, Rewrite and WebsocketUpgrade.
type RouteRuleSpec struct {
	// Destination is the service the rule is about; it carries no labels.
	Destination IstioService `json:"destination"`
	// Precedence orders rules for one destination, highest first; equal ones by namespace, then name.
	Precedence int32 `json:"precedence,omitempty"`
	// Match narrows the rule; without it the rule takes every request.
	Match *MatchCondition `json:"match,omitempty"`
	// Route splits traffic over versions; without it all instances share it.
	Route            []DestinationWeight `json:"route,omitempty"`
	Redirect         *HTTPRedirect       `json:"redirect,omitempty"`
	Rewrite          *HTTPRewrite        `json:"rewrite,omitempty"`
	WebsocketUpgrade bool                `json:"websocketUpgrade,omitempty"`
	HTTPReqTimeout   *HTTPTimeout        `json:"httpReqTimeout,omitempty"`
	HTTPReqRetries   *HTTPRetry          `json:"httpReqRetries,omitempty"`
	HTTPFault        *HTTPFaultInjection `json:"httpFault,omitempty"`
	L4Fault          *L4FaultInjection   `json:"l4Fault,omitempty"`
}

// MatchCondition: all conditions given must hold.
type MatchCondition struct {
	// Source is the caller: by name, by labels, or both.
	Source  *IstioService   `json:"source,omitempty"`
	TCP     *L4MatchAttrs   `json:"tcp,omitempty"`
	UDP     *L4MatchAttrs   `json:"udp,omitempty"`
	Request *RequestMatcher `json:"request,omitempty"`
}

// L4MatchAttrs match by address.
type L4MatchAttrs struct {
	SourceSubnet      []string `json:"sourceSubnet,omitempty"`
	DestinationSubnet []string `json:"destinationSubnet,omitempty"`
}

// RequestMatcher matches HTTP headers by lower-case name; uri, scheme, method and authority stand for the pseudo headers.
type RequestMatcher struct {
	Headers map[string]StringMatch `json:"headers,omitempty"`
}

// DestinationWeight is one share of the traffic.
type DestinationWeight struct {
	// Destination is another service than the rule's, when set.
	Destination *IstioService     `json:"destination,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	// Weight in percent; all weights of a rule total 100, a single entry may leave it out.
	Weight int32 `json:"weight,omitempty"`
}

// HTTPRedirect answers with a 301.
type HTTPRedirect struct {
	URI       string `json:"uri,omitempty"`
	Authority string `json:"authority,omitempty"`
}

// HTTPRewrite changes the request before it is forwarded.
type HTTPRewrite struct {
	URI       string `json:"uri,omitempty"`
	Authority string `json:"authority,omitempty"`
}

// HTTPTimeout bounds a request.
type HTTPTimeout struct {
	SimpleTimeout *SimpleTimeout `json:"simpleTimeout,omitempty"`
	// Custom is kept from 0.2's schema and has no meaning.
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleTimeout is a fixed bound.
type SimpleTimeout struct {
	Timeout            *metav1.Duration `json:"timeout,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPRetry says how failed requests are tried again.
type HTTPRetry struct {
	SimpleRetry *SimpleRetry          `json:"simpleRetry,omitempty"`
	Custom      *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleRetry tries Attempts times, each bounded by PerTryTimeout when that is set.
type SimpleRetry struct {
	Attempts           int32            `json:"attempts,omitempty"`
	PerTryTimeout      *metav1.Duration `json:"perTryTimeout,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPFaultInjection delays or aborts requests on purpose.
type HTTPFaultInjection struct {
	Delay *HTTPDelay `json:"delay,omitempty"`
	Abort *HTTPAbort `json:"abort,omitempty"`
}

// HTTPDelay: Percent of requests (all when unset) wait.
type HTTPDelay struct {
	Percent            *float64         `json:"percent,omitempty"`
	FixedDelay         *metav1.Duration `json:"fixedDelay,omitempty"`
	ExponentialDelay   *metav1.Duration `json:"exponentialDelay,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPAbort: Percent of requests (all when unset) are answered with the status.
type HTTPAbort struct {
	Percent            *float64 `json:"percent,omitempty"`
	GRPCStatus         *string  `json:"grpcStatus,omitempty"`
	HTTP2Error         *string  `json:"http2Error,omitempty"`
	HTTPStatus         *int32   `json:"httpStatus,omitempty"`
	OverrideHeaderName string   `json:"overrideHeaderName,omitempty"`
}

// L4FaultInjection throttles or terminates connections.
type L4FaultInjection struct {
	Throttle  *L4Throttle  `json:"throttle,omitempty"`
	Terminate *L4Terminate `json:"terminate,omitempty"`
}

// L4Throttle limits bandwidth.
type L4Throttle struct {
	Percent             *float64         `json:"percent,omitempty"`
	DownstreamLimitBps  int64            `json:"downstreamLimitBps,omitempty"`
	UpstreamLimitBps    int64            `json:"upstreamLimitBps,omitempty"`
	ThrottleAfterPeriod *metav1.Duration `json:"throttleAfterPeriod,omitempty"`
	ThrottleAfterBytes  *float64         `json:"throttleAfterBytes,omitempty"`
	ThrottleForPeriod   *metav1.Duration `json:"throttleForPeriod,omitempty"`
}

// L4Terminate closes connections.
type L4Terminate struct {
	Percent              *float64         `json:"percent,omitempty"`
	TerminateAfterPeriod *metav1.Duration `json:"terminateAfterPeriod,omitempty"`
}
