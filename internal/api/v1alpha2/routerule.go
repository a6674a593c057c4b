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

// RouteRuleSpec is the rule proper. Redirect excludes what is about forwarding a request.
//
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !(has(self.route) && self.route.size() > 0)",message="a rule that redirects has no route"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.httpFault)",message="a rule that redirects has no httpFault"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.rewrite)",message="a rule that redirects has no rewrite"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !(has(self.websocketUpgrade) && self.websocketUpgrade)",message="a rule that redirects has no websocketUpgrade"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.mirror)",message="a rule that redirects has no mirror"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !has(self.corsPolicy)",message="a rule that redirects has no corsPolicy"
// +kubebuilder:validation:XValidation:rule="!has(self.redirect) || !(has(self.appendHeaders) && self.appendHeaders.size() > 0)",message="a rule that redirects has no appendHeaders"
// +kubebuilder:validation:XValidation:rule="!has(self.l4Fault)",message="faults on connections are not carried out, and are refused as in 0.2"
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
	// L4Fault is kept from 0.2's schema and refused.
	L4Fault *L4FaultInjection `json:"l4Fault,omitempty"`
	// Mirror gets a copy of each request; what it answers is thrown away. Of later v1alpha2 releases.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0",message="name or service is set"
	Mirror *IstioService `json:"mirror,omitempty"`
	// CORSPolicy answers browsers that ask whether a page of another origin may call. Of later v1alpha2 releases.
	CORSPolicy *CORSPolicy `json:"corsPolicy,omitempty"`
	// AppendHeaders are put into requests before they are forwarded, beside values that are there. Of later v1alpha2 releases.
	// +kubebuilder:validation:MaxProperties=64
	// +kubebuilder:validation:XValidation:rule="self.all(name, name.size() <= 256 && name.matches('^[-A-Za-z0-9!#$%&\\'*+.^_`|~]+$'))",message="a header name is a word of letters, digits and some signs"
	// +kubebuilder:validation:XValidation:rule="self.all(name, !(name.lowerAscii() in ['host', 'content-length', 'transfer-encoding', 'connection', 'upgrade', 'te', 'keep-alive', 'proxy-connection']))",message="headers that frame a request, and host, cannot be appended"
	AppendHeaders map[string]HeaderValue `json:"appendHeaders,omitempty"`
}

// HeaderValue is what a header says.
//
// +kubebuilder:validation:MaxLength=4096
// +kubebuilder:validation:Pattern=`^[^\x00-\x1f\x7f]*$`
type HeaderValue string

// MatchCondition narrows a rule; all conditions given must hold.
//
// +kubebuilder:validation:XValidation:rule="!has(self.udp)",message="UDP is not supported, as in 0.2"
type MatchCondition struct {
	// Source is the caller: by name, by namespace, by labels, or any of them together.
	// +kubebuilder:validation:XValidation:rule="has(self.name) && self.name.size() > 0 || has(self.service) && self.service.size() > 0 || has(self.__namespace__) && self.__namespace__.size() > 0 || has(self.labels) && self.labels.size() > 0",message="name, service, namespace or labels are set"
	Source *IstioService `json:"source,omitempty"`
	// TCP matches requests by the addresses of the connection they came in.
	TCP     *L4MatchAttrs   `json:"tcp,omitempty"`
	UDP     *L4MatchAttrs   `json:"udp,omitempty"`
	Request *RequestMatcher `json:"request,omitempty"`
}

// L4MatchAttrs match by address: one of the subnets of each list that is not empty. An address alone is a subnet of one.
type L4MatchAttrs struct {
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:Pattern=`^(((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/(3[0-2]|[12]?[0-9]))?|(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}|([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}|[0-9a-fA-F]{1,4}:(:[0-9a-fA-F]{1,4}){1,6}|:((:[0-9a-fA-F]{1,4}){1,7}|:))(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$`
	// +listType=atomic
	SourceSubnet []string `json:"sourceSubnet,omitempty"`
	// +kubebuilder:validation:MaxItems=128
	// +kubebuilder:validation:items:MaxLength=43
	// +kubebuilder:validation:items:Pattern=`^(((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])(/(3[0-2]|[12]?[0-9]))?|(([0-9a-fA-F]{1,4}:){7}[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,7}:|([0-9a-fA-F]{1,4}:){1,6}:[0-9a-fA-F]{1,4}|([0-9a-fA-F]{1,4}:){1,5}(:[0-9a-fA-F]{1,4}){1,2}|([0-9a-fA-F]{1,4}:){1,4}(:[0-9a-fA-F]{1,4}){1,3}|([0-9a-fA-F]{1,4}:){1,3}(:[0-9a-fA-F]{1,4}){1,4}|([0-9a-fA-F]{1,4}:){1,2}(:[0-9a-fA-F]{1,4}){1,5}|[0-9a-fA-F]{1,4}:(:[0-9a-fA-F]{1,4}){1,6}|:((:[0-9a-fA-F]{1,4}){1,7}|:))(/(12[0-8]|1[01][0-9]|[1-9]?[0-9]))?)$`
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
	Timeout *metav1.Duration `json:"timeout,omitempty"`
	// OverrideHeaderName names a header in which a request says its own timeout: a whole number of milliseconds.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]*$`
	OverrideHeaderName string `json:"overrideHeaderName,omitempty"`
}

// HTTPRetry says how failed requests are tried again.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.simpleRetry) && has(self.custom))",message="simpleRetry and custom exclude each other"
type HTTPRetry struct {
	SimpleRetry *SimpleRetry `json:"simpleRetry,omitempty"`
	// +kubebuilder:pruning:PreserveUnknownFields
	Custom *runtime.RawExtension `json:"custom,omitempty"`
}

// SimpleRetry tries Attempts times more, each bounded by PerTryTimeout when that is set, each on another instance.
type SimpleRetry struct {
	// +kubebuilder:validation:Minimum=0
	Attempts int32 `json:"attempts,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	PerTryTimeout *metav1.Duration `json:"perTryTimeout,omitempty"`
	// OverrideHeaderName names a header in which a request says its own number of attempts.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]*$`
	OverrideHeaderName string `json:"overrideHeaderName,omitempty"`
	// NonIdempotent also tries requests again that may then take effect twice, such as a POST, after an instance has seen them. This release's.
	NonIdempotent bool `json:"nonIdempotent,omitempty"`
}

// HTTPFaultInjection delays or aborts requests on purpose.
type HTTPFaultInjection struct {
	Delay *HTTPDelay `json:"delay,omitempty"`
	Abort *HTTPAbort `json:"abort,omitempty"`
}

// HTTPDelay makes Percent of requests (all when unset) wait.
//
// +kubebuilder:validation:XValidation:rule="has(self.fixedDelay) != has(self.exponentialDelay)",message="either fixedDelay or exponentialDelay is set"
type HTTPDelay struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *float64 `json:"percent,omitempty"`
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	FixedDelay *metav1.Duration `json:"fixedDelay,omitempty"`
	// ExponentialDelay is the mean of delays that are distributed exponentially.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms')",message="the shortest duration is 1ms"
	ExponentialDelay *metav1.Duration `json:"exponentialDelay,omitempty"`
	// OverrideHeaderName names a header in which a request says its own delay: a whole number of milliseconds.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]*$`
	OverrideHeaderName string `json:"overrideHeaderName,omitempty"`
}

// HTTPAbort answers Percent of requests (all when unset) with the status.
//
// +kubebuilder:validation:XValidation:rule="!has(self.http2Error)",message="proxies cannot break off an HTTP/2 stream with an error of their choice; write httpStatus or grpcStatus"
// +kubebuilder:validation:XValidation:rule="[has(self.httpStatus), has(self.grpcStatus), has(self.http2Error)].filter(set, set).size() == 1",message="exactly one of httpStatus, grpcStatus and http2Error is set"
type HTTPAbort struct {
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *float64 `json:"percent,omitempty"`
	// GRPCStatus is a status of gRPC but OK, by name or number, as in UNAVAILABLE or "14".
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^(CANCELLED|UNKNOWN|INVALID_ARGUMENT|DEADLINE_EXCEEDED|NOT_FOUND|ALREADY_EXISTS|PERMISSION_DENIED|RESOURCE_EXHAUSTED|FAILED_PRECONDITION|ABORTED|OUT_OF_RANGE|UNIMPLEMENTED|INTERNAL|UNAVAILABLE|DATA_LOSS|UNAUTHENTICATED|[1-9]|1[0-6])$`
	GRPCStatus *string `json:"grpcStatus,omitempty"`
	HTTP2Error *string `json:"http2Error,omitempty"`
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=600
	HTTPStatus *int32 `json:"httpStatus,omitempty"`
	// OverrideHeaderName names a header in which a request says its own status: a number of HTTP's, or of gRPC's where GRPCStatus is set.
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]*$`
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

// CORSPolicy says which pages of other origins may call from a browser. It is what browsers ask for; other callers are not held up.
type CORSPolicy struct {
	// AllowOrigin are the origins, as in https://shop.example, or * for all.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MinLength=1
	// +kubebuilder:validation:items:MaxLength=4096
	// +kubebuilder:validation:items:Pattern=`^[^\x00-\x20\x7f]*$`
	// +listType=atomic
	// +required
	AllowOrigin []string `json:"allowOrigin,omitempty"`
	// AllowMethods, AllowHeaders and ExposeHeaders are names, or * for all.
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]+$`
	// +listType=atomic
	AllowMethods []string `json:"allowMethods,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]+$`
	// +listType=atomic
	AllowHeaders []string `json:"allowHeaders,omitempty"`
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=256
	// +kubebuilder:validation:items:Pattern=`^[-A-Za-z0-9!#$%&'*+.^_|~]+$`
	// +listType=atomic
	ExposeHeaders []string `json:"exposeHeaders,omitempty"`
	// MaxAge is how long a browser may remember the answer, in whole seconds.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^\+?(0|(([0-9]+(\.[0-9]{0,3}0*)?|\.[0-9]{1,3}0*)[smh]|[0-9]+(\.0*)?ms|[0-9]*000[uµμ]s|[0-9]*000000ns)+)$`
	// +kubebuilder:validation:XValidation:rule="duration(self).getMilliseconds() % 1000 == 0",message="it is a whole number of seconds"
	MaxAge *metav1.Duration `json:"maxAge,omitempty"`
	// AllowCredentials lets pages send cookies and the like.
	AllowCredentials *bool `json:"allowCredentials,omitempty"`
}
