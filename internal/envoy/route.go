package envoy

import (
	"math"
	"slices"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previoushostsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
)

// unprocessedHeader is how an inbound proxy says that a request never reached the application, so that trying another instance is safe
// whatever the request does. Callers' proxies take it off.
const unprocessedHeader = "x-mesh-unprocessed"

// What is tried again. The first is safe for every request: the instance has not begun with it.
const (
	retryUnprocessed = "connect-failure,refused-stream,reset-before-request,retriable-headers"
	retryIdempotent  = "5xx," + retryUnprocessed
)

const (
	// defaultRetries is how often a request that no instance began with is tried again where no rule says otherwise.
	defaultRetries = 2
	// otherInstance is how many picks of the balancer are refused in search of an instance not tried yet. A hash leads to the same instance
	// again with a probability of its part of the ring; with few tries some callers would be lost as long as it is away.
	otherInstance = 20
)

// idempotentMethods may be sent twice with the effect of once (RFC 9110, 9.2.2).
const idempotentMethods = "GET|HEAD|OPTIONS|TRACE|PUT|DELETE"

// destination is what callers call: a port of a service or of a host outside of the mesh.
type destination struct {
	host string
	port model.Port
	// own are the clusters of all instances.
	own []weighted
	// external is a host outside, which has no versions.
	external bool
}

func (c *caller) destination(svc *model.Service, port model.Port) destination {
	return destination{host: svc.Hostname, port: port, own: c.own(svc, port)}
}

// routes are the routes to a destination for requests that an outer condition has let through: one or two for each rule, up to the
// first that takes everything, else a last one to all instances.
func (c *caller) routes(d destination, name string, outer pathMatch, conditions []*routev3.HeaderMatcher) []*routev3.Route {
	var out []*routev3.Route
	for _, rule := range c.rulesFor(d.host) {
		path, headers := requestMatch(rule)
		both, extra, ok := intersect(outer, path)
		if !ok {
			continue
		}
		out = append(out, c.ruleRoutes(rule, d, both, slices.Concat(conditions, headers, extra))...)
		if path.takesAll() && len(headers) == 0 && rule.Addresses == nil {
			return out
		}
	}
	action := &routev3.RouteAction{
		Timeout: durationpb.New(0),
	}
	if sendTo(action, []uint32{100}, [][]weighted{d.own}) {
		action.RetryPolicy = acrossShares(defaultRetryPolicy())
	}
	return append(out, newRoute(name, outer, conditions, &routev3.Route_Route{Route: action}))
}

// ruleRoutes are the routes of one rule. A rule with retries has two, because only idempotent requests may be repeated after an instance
// has seen them, and Envoy tells methods apart by matching only.
func (c *caller) ruleRoutes(rule *model.Rule, d destination, path pathMatch, headers []*routev3.HeaderMatcher) []*routev3.Route {
	name := rule.Ref.Namespace + "/" + rule.Ref.Name
	match := func(headers []*routev3.HeaderMatcher, action any) *routev3.Route {
		r := newRoute(name, path, headers, action)
		setAddresses(r.GetMatch(), rule.Addresses)
		return r
	}
	if rule.Redirect != nil {
		r := &routev3.RedirectAction{HostRedirect: rule.Redirect.Authority}
		if rule.Redirect.URI != "" {
			r.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: rule.Redirect.URI}
		}
		return []*routev3.Route{match(headers, &routev3.Route_Redirect{Redirect: r})}
	}
	build := func(headers []*routev3.HeaderMatcher, retry *routev3.RetryPolicy) *routev3.Route {
		action := &routev3.RouteAction{Timeout: duration(rule.Timeout), RetryPolicy: retry, RequestMirrorPolicies: c.mirror(rule, d)}
		if c.setClusters(action, rule, d) && retries(rule.Retry) {
			if retry == nil {
				action.RetryPolicy = defaultRetryPolicy()
			}
			acrossShares(action.GetRetryPolicy())
		}
		if rule.Rewrite != nil {
			setRewrite(action, rule.Rewrite, path)
		}
		r := match(headers, &routev3.Route_Route{Route: action})
		c.setFilters(r, rule)
		return r
	}
	switch r := rule.Retry; {
	case r == nil:
		return []*routev3.Route{build(headers, nil)}
	case !retries(r):
		// An empty policy stands in the way of the virtual host's.
		return []*routev3.Route{build(headers, &routev3.RetryPolicy{})}
	case r.NonIdempotent:
		on := retryIdempotent
		if d.port.Protocol == model.GRPC {
			on += ",unavailable"
		}
		return []*routev3.Route{build(headers, ruleRetryPolicy(on, r))}
	default:
		idempotent := append(slices.Clone(headers), regexHeader(methodHeader, idempotentMethods))
		return []*routev3.Route{
			build(idempotent, ruleRetryPolicy(retryIdempotent, r)),
			build(headers, ruleRetryPolicy(retryUnprocessed, r)),
		}
	}
}

// retries says whether anything may be tried again: by the rule, or by what a request may ask for.
func retries(r *model.Retry) bool { return r == nil || r.Attempts > 0 || r.Header != "" }

// setFilters tells the filters before the router what a rule wants of them, and what a request is to carry when they are through.
func (c *caller) setFilters(r *routev3.Route, rule *model.Rule) {
	set := func(name string, config proto.Message) {
		if r.TypedPerFilterConfig == nil {
			r.TypedPerFilterConfig = map[string]*anypb.Any{}
		}
		r.TypedPerFilterConfig[name] = pack(config)
	}
	if p := cors(rule.CORS); p != nil {
		set(corsFilter, p)
	}
	if p := c.said(rule); p != nil {
		set(luaFilter, p)
	}
	if f := fault(rule.Fault); f != nil {
		set(faultFilter, f)
		if f.GetDelay().GetHeaderDelay() != nil || f.GetAbort().GetHeaderAbort() != nil {
			r.RequestHeadersToRemove = faultHeaders()
		}
	}
	for _, h := range rule.AppendHeaders {
		r.RequestHeadersToAdd = append(r.RequestHeadersToAdd, &corev3.HeaderValueOption{
			// The author's percent signs are no commands to Envoy.
			Header:         &corev3.HeaderValue{Key: h.Name, Value: strings.ReplaceAll(h.Value, "%", "%%")},
			AppendAction:   corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD,
			KeepEmptyValue: true,
		})
	}
}

// mirror sends copies of requests to d.
func (c *caller) mirror(rule *model.Rule, d destination) []*routev3.RouteAction_RequestMirrorPolicy {
	if rule.Mirror == nil {
		return nil
	}
	to, ok := c.b.target(rule.Mirror.Host, rule.Mirror.Labels, d.port)
	if !ok {
		return nil
	}
	return []*routev3.RouteAction_RequestMirrorPolicy{{Cluster: c.cluster(to)}}
}

// setClusters sends to the rule's targets, or to all instances when it names none. It says whether a target is in shares.
func (c *caller) setClusters(action *routev3.RouteAction, rule *model.Rule, d destination) bool {
	var weights []uint32
	var targets [][]weighted
	for _, t := range rule.Routes {
		// Also where a target gets nothing yet: when it does, its cluster is there.
		to := c.to(t, d)
		if t.Weight > 0 || len(rule.Routes) == 1 {
			weights = append(weights, t.Weight)
			targets = append(targets, to)
		}
	}
	if len(targets) == 0 {
		weights, targets = []uint32{100}, [][]weighted{d.own}
	}
	return sendTo(action, weights, targets)
}

// to are the clusters of a target for requests that came to d.
func (c *caller) to(t model.Target, d destination) []weighted {
	if d.external && t.Host == d.host {
		return d.own
	}
	s, ok := c.b.target(t.Host, t.Labels, d.port)
	if !ok {
		return []weighted{{cluster: blackHoleCluster, weight: 1}}
	}
	return c.part(c.b.service(s.host), s.port, t.Labels)
}

// target finds the port of host that requests to port go to: the one of that number, else the only HTTP port there is.
func (b *Builder) target(host string, labels map[string]string, port model.Port) (subset, bool) {
	svc := b.service(host)
	if svc == nil {
		return subset{}, false
	}
	if inside, outside := b.leads(svc); outside == "" {
		svc = inside
	}
	if svc == nil {
		return subset{}, false
	}
	p, ok := svc.TargetPort(port.Number)
	return newSubset(svc.Hostname, p.Number, labels), ok
}

// own are the clusters of all instances, for an ExternalName service of those its name leads to.
func (c *caller) own(svc *model.Service, port model.Port) []weighted {
	if svc.ExternalName == "" {
		return c.part(svc, port.Number, nil)
	}
	return c.to(model.Target{Host: svc.Hostname}, destination{host: svc.Hostname, port: port})
}

func newRoute(name string, path pathMatch, headers []*routev3.HeaderMatcher, action any) *routev3.Route {
	r := &routev3.Route{Name: name, Match: &routev3.RouteMatch{Headers: headers}}
	path.set(r.Match)
	switch a := action.(type) {
	case *routev3.Route_Route:
		r.Action = a
	case *routev3.Route_Redirect:
		r.Action = a
	case *routev3.Route_DirectResponse:
		r.Action = a
	}
	return r
}

// setRewrite replaces the matched prefix, or the whole path where the match was on the whole path, and the authority.
func setRewrite(action *routev3.RouteAction, rewrite *model.Rewrite, path pathMatch) {
	action.PrefixRewrite = rewrite.URI
	if path.takesAll() && rewrite.URI != "" && !strings.HasSuffix(rewrite.URI, "/") {
		// The matched prefix is the slash itself: without its replacement /v1 and /item would become /v1item.
		action.PrefixRewrite += "/"
	}
	if rewrite.Authority != "" {
		action.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: rewrite.Authority}
	}
}

// defaultRetryPolicy is a virtual host's, for the routes that have none of their own: it loses no request to an instance that comes or goes.
func defaultRetryPolicy() *routev3.RetryPolicy {
	return retryPolicy(retryUnprocessed, defaultRetries, soon)
}

func ruleRetryPolicy(on string, r *model.Retry) *routev3.RetryPolicy {
	p := retryPolicy(on, r.Attempts, later)
	if r.PerTryTimeout > 0 {
		p.PerTryTimeout = duration(r.PerTryTimeout)
	}
	return p
}

// How long a retry waits at most at first, and then twice as long. It goes to another instance, so there is nothing to wait for where none has begun;
// and who waits counts against the retry budget.
const (
	soon  = time.Millisecond
	later = 5 * time.Millisecond
)

func retryPolicy(on string, attempts uint32, wait time.Duration) *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:      on,
		NumRetries:   wrapperspb.UInt32(attempts),
		RetryBackOff: &routev3.RetryPolicy_RetryBackOff{BaseInterval: duration(wait), MaxInterval: duration(50 * wait)},
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name:       "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{TypedConfig: pack(&previoushostsv3.PreviousHostsPredicate{})},
		}},
		HostSelectionRetryMaxAttempts: otherInstance,
		RetriableHeaders: []*routev3.HeaderMatcher{{
			Name: unprocessedHeader, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true},
		}},
	}
}

// duration bounds d by a century: Envoy refuses what its clock cannot count.
func duration(d time.Duration) *durationpb.Duration {
	const century = 100 * 365 * 24 * time.Hour
	return durationpb.New(min(d, century))
}

func percent(p float64) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: uint32(math.Round(p * 10_000)), Denominator: typev3.FractionalPercent_MILLION}
}

// outboundRoutes is the route configuration of a port, but for the virtual hosts of services and hosts outside.
func (c *caller) outboundRoutes(port uint32) []*Resource {
	config := &routev3.RouteConfiguration{
		Name:                     routeName(port),
		IgnorePortInHostMatching: true,
		ResponseHeadersToRemove:  []string{unprocessedHeader},
	}
	if _, all := c.externalPort("*", port); !all {
		config.VirtualHosts = []*routev3.VirtualHost{c.b.unknownHosts(port)}
	}
	whole := newResource(config.GetName(), config)
	config.Vhds = &routev3.Vhds{ConfigSource: fromADS()}
	return []*Resource{newResource(config.GetName(), config), resource.NewVersion(wholeType, whole.Name, whole.Version, whole.Value)}
}

// passthroughRoute sends a request where its connection was going.
func passthroughRoute(headers []*routev3.HeaderMatcher) *routev3.Route {
	return newRoute("passthrough", anyPath(), headers, &routev3.Route_Route{Route: &routev3.RouteAction{
		ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: passthroughCluster},
		Timeout:          durationpb.New(0),
	}})
}

// notFound answers 404 and says why.
func notFound(text string) *routev3.Route {
	return newRoute("not-found", anyPath(), nil, &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
		Status: 404,
		BodyFormat: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
			TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: text + "\n"}},
		}},
	}})
}
