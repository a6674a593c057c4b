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
// +kubebuilder:printcolumn:name="Accepted",type=string,priority=1,JSONPath=`.status.conditions[?(@.type=="Accepted")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type RouteRule struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	// +required
	Spec   RouteRuleSpec `json:"spec"`
	Status Status        `json:"status,omitempty,omitzero"`
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
//
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !(has(self.route) && self.route.size() > 0)",message="a rule that redirects has no route"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.httpFault)",message="a rule that redirects has no httpFault"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.rewrite)",message="a rule that redirects has no rewrite"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !(has(self.websocketUpgrade) && self.websocketUpgrade)",message="a rule that redirects has no websocketUpgrade"
// +kubebuilder:validation:XValidation:rule="!has(self.l4Fault)",message="faults on connections are not supported, as in 0.2"
type RouteRuleSpec struct {
	// Destination is the service the rule is about; it carries no labels.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0",message="name or service is set"
	// +kubebuilder:validation:XValidation:rule="!has(self.labels) || self.labels.size() == 0",message="a rule is about a service, not about one version of it"
	Destination IstioService `json:"destination"`
	// Precedence orders rules for one destination, highest first; equal ones by namespace, then name.
	Precedence int32 `json:"precedence,omitempty"`
	// Match narrows the rule; without it the rule takes every request.
	Match *MatchCondition `json:"match,omitempty"`
	// Route splits traffic over versions; without it all instances share it.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:XValidation:rule="self.size() == 0 || self.size() == 1 && (!has(self[0].weight) || self[0].weight == 0) || self.map(r, has(r.weight) ? r.weight : 0).sum() == 100",message="all weights of a rule total 100; a single entry may leave its weight out"
	// +listType=atomic
	Route            []DestinationWeight `json:"route,omitempty"`
	Redirect         *HTTPRedirect       `json:"redirect,omitempty"`
	Rewrite          *HTTPRewrite        `json:"rewrite,omitempty"`
	WebsocketUpgrade bool                `json:"websocketUpgrade,omitempty"`
	HTTPReqTimeout   *HTTPTimeout        `json:"httpReqTimeout,omitempty"`
	HTTPReqRetries   *HTTPRetry          `json:"httpReqRetries,omitempty"`
	HTTPFault        *HTTPFaultInjection `json:"httpFault,omitempty"`
	L4Fault          *L4FaultInjection   `json:"l4Fault,omitempty"`
}

// MatchCondition narrows a rule; all conditions given must hold.
//
// +kubebuilder:validation:XValidation:rule="!has(self.udp)",message="UDP is not supported, as in 0.2"
type MatchCondition struct {
	// Source is the caller: by name, by labels, or both.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0 || has(self.labels) && self.labels.size() > 0",message="name, service or labels are set"
	Source  *IstioService   `json:"source,omitempty"`
	TCP     *L4MatchAttrs   `json:"tcp,omitempty"`
	UDP     *L4MatchAttrs   `json:"udp,omitempty"`
	Request *RequestMatcher `json:"request,omitempty"`
}

// L4MatchAttrs match by address.
type L4MatchAttrs struct {
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=18
	// +kubebuilder:validation:items:Pattern=`^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/([1-9]|[12][0-9]|3[0-2]))?$`
	// +listType=atomic
	SourceSubnet []string `json:"sourceSubnet,omitempty"`
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=18
	// +kubebuilder:validation:items:Pattern=`^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/([1-9]|[12][0-9]|3[0-2]))?$`
	// +listType=atomic
	DestinationSubnet []string `json:"destinationSubnet,omitempty"`
}

// RequestMatcher matches HTTP headers by lower-case name; uri, scheme, method and authority stand for the pseudo headers.
type RequestMatcher struct {
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.size() <= 256 && name.matches('^[-a-z0-9!#$%&\\'*+.^_`|~]+$'))",message="header names are in lower case; the request's own parts are uri, method, authority and scheme"
	// +kubebuilder:validation:XValidation:rule="!('uri' in self) || !(has(self['uri'].exact) && self['uri'].exact.size() == 0 || has(self['uri'].prefix) && self['uri'].prefix.size() == 0 || has(self['uri'].regex) && self['uri'].regex.size() == 0)",message="an empty uri matches nothing"
	Headers map[string]StringMatch `json:"headers,omitempty"`
}

// DestinationWeight is one share of the traffic.
type DestinationWeight struct {
	// Destination is another service than the rule's, when set.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0",message="name or service is set"
	Destination *IstioService `json:"destination,omitempty"`
	// Labels of the version, as its pods carry them.
	// +kubebuilder:validation:MaxProperties=64
	Labels map[string]string `json:"labels,omitempty"`
	// Weight in percent; all weights of a rule total 100, a single entry may leave it out.
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Weight int32 `json:"weight,omitempty"`
}

// HTTPRedirect answers with a 301.
//
// +kubebuilder:validation:XValidation:rule="has(self.uri) && self.uri.size() > 0 || has(self.authority) && self.authority.size() > 0",message="uri or authority is set"
type HTTPRedirect struct {
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^\x00-\x20\x7f]*$`
	URI string `json:"uri,omitempty"`
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^\x00-\x20\x7f]*$`
	Authority string `json:"authority,omitempty"`
}

// HTTPRewrite changes the request before it is forwarded.
//
// +kubebuilder:validation:XValidation:rule="has(self.uri) && self.uri.size() > 0 || has(self.authority) && self.authority.size() > 0",message="uri or authority is set"
type HTTPRewrite struct {
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^\x00-\x20\x7f]*$`
	URI string `json:"uri,omitempty"`
	// +kubebuilder:validation:MaxLength=4096
	// +kubebuilder:validation:Pattern=`^[^\x00-\x20\x7f]*$`
	Authority string `json:"authority,omitempty"`
}

// HTTPTimeout bounds a request.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.simpleTimeout) && has(self.custom))",message="simpleTimeout and custom exclude each other"
type HTTPTimeout struct {
	SimpleTimeout *SimpleTimeout `json:"simpleTimeout,omitempty"`
	// Custom is kept from 0.2's schema and has no meaning.
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleTimeout is a fixed bound.
type SimpleTimeout struct {
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	// +required
	Timeout            *metav1.Duration `json:"timeout,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPRetry says how failed requests are tried again.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.simpleRetry) && has(self.custom))",message="simpleRetry and custom exclude each other"
type HTTPRetry struct {
	SimpleRetry *SimpleRetry `json:"simpleRetry,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleRetry tries Attempts times, each bounded by PerTryTimeout when that is set.
type SimpleRetry struct {
	// +kubebuilder:validation:Minimum=0
	Attempts int32 `json:"attempts,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	PerTryTimeout      *metav1.Duration `json:"perTryTimeout,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPFaultInjection delays or aborts requests on purpose.
type HTTPFaultInjection struct {
	Delay *HTTPDelay `json:"delay,omitempty"`
	Abort *HTTPAbort `json:"abort,omitempty"`
}

// HTTPDelay makes Percent of requests (all when unset) wait.
//
// +kubebuilder:validation:XValidation:rule="!has(self.exponentialDelay)",message="delays of random length are not supported, as in 0.2"
// +kubebuilder:validation:XValidation:rule="has(self.fixedDelay) || has(self.exponentialDelay)",message="fixedDelay is set"
type HTTPDelay struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *float64 `json:"percent,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	FixedDelay         *metav1.Duration `json:"fixedDelay,omitempty"`
	ExponentialDelay   *metav1.Duration `json:"exponentialDelay,omitempty"`
	OverrideHeaderName string           `json:"overrideHeaderName,omitempty"`
}

// HTTPAbort answers Percent of requests (all when unset) with the status.
//
// +kubebuilder:validation:XValidation:rule="!has(self.grpcStatus)",message="gRPC statuses are not supported, as in 0.2"
// +kubebuilder:validation:XValidation:rule="[has(self.httpStatus), has(self.grpcStatus), has(self.http2Error)].filter(set, set).size() == 1",message="exactly one of httpStatus, grpcStatus and http2Error is set"
type HTTPAbort struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent    *float64 `json:"percent,omitempty"`
	GRPCStatus *string  `json:"grpcStatus,omitempty"`
	HTTP2Error *string  `json:"http2Error,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=600
	HTTPStatus         *int32 `json:"httpStatus,omitempty"`
	OverrideHeaderName string `json:"overrideHeaderName,omitempty"`
}

// L4FaultInjection throttles or terminates connections.
type L4FaultInjection struct {
	Throttle  *L4Throttle  `json:"throttle,omitempty"`
	Terminate *L4Terminate `json:"terminate,omitempty"`
}

// L4Throttle limits bandwidth.
type L4Throttle struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent             *float64         `json:"percent,omitempty"`
	DownstreamLimitBps  int64            `json:"downstreamLimitBps,omitempty"`
	UpstreamLimitBps    int64            `json:"upstreamLimitBps,omitempty"`
	ThrottleAfterPeriod *metav1.Duration `json:"throttleAfterPeriod,omitempty"`
	ThrottleAfterBytes  *float64         `json:"throttleAfterBytes,omitempty"`
	ThrottleForPeriod   *metav1.Duration `json:"throttleForPeriod,omitempty"`
}

// L4Terminate closes connections.
type L4Terminate struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent              *float64         `json:"percent,omitempty"`
	TerminateAfterPeriod *metav1.Duration `json:"terminateAfterPeriod,omitempty"`
}
