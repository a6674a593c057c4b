package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// rule is a RouteRule with its names resolved; nil when it has no meaning that could be carried out.
func (b *builder) rule(o *objects.Object, in *v1alpha2.RouteRule) *model.Rule {
	t := &ruleTranslation{builder: b, object: o, in: in}
	return t.rule()
}

// compareRules is the order in which rules are tried.
func compareRules(x, y *model.Rule) int {
	return cmp.Or(cmp.Compare(y.Precedence, x.Precedence), compareRefs(x.Ref, y.Ref))
}

// ruleTranslation is the work on one RouteRule.
type ruleTranslation struct {
	*builder
	object *objects.Object
	in     *v1alpha2.RouteRule
}

func (t *ruleTranslation) hostname(s v1alpha2.IstioService) string {
	return check.Hostname(s, t.in.Namespace, t.cfg.Domain)
}

// rule is the RouteRule's meaning; nil when it has none that could be carried out.
func (t *ruleTranslation) rule() *model.Rule {
	spec := &t.in.Spec
	out := &model.Rule{Ref: refOf(t.object), Precedence: spec.Precedence, Host: t.hostname(spec.Destination)}
	svc := t.service(out.Host)
	if svc != nil {
		out.CallerNamespace = callers(svc, t.in.Namespace)
	}
	t.match(out)
	if svc != nil && !hasHTTP(svc) {
		t.find(t.object, finding.NotInForce, finding.Warning, "spec.destination", fmt.Sprintf("service %s has no HTTP port, and rules act on requests only", short(out.Host)),
			"name the port http-…, http2-… or grpc-…, or set its appProtocol")
		return nil
	}
	t.targets(out)
	if r := spec.Redirect; r != nil {
		out.Redirect = &model.Redirect{URI: r.URI, Authority: r.Authority}
	}
	if r := spec.Rewrite; r != nil {
		out.Rewrite = &model.Rewrite{URI: r.URI, Authority: r.Authority}
	}
	out.Websocket = spec.WebsocketUpgrade
	if t := spec.HTTPReqTimeout; t != nil && t.SimpleTimeout != nil {
		out.Timeout = duration(t.SimpleTimeout.Timeout)
		out.TimeoutHeader = strings.ToLower(t.SimpleTimeout.OverrideHeaderName)
	}
	if r := spec.HTTPReqRetries; r != nil && r.SimpleRetry != nil {
		out.Retry = &model.Retry{
			Attempts: uint32(max(r.SimpleRetry.Attempts, 0)), PerTryTimeout: duration(r.SimpleRetry.PerTryTimeout),
			NonIdempotent: r.SimpleRetry.NonIdempotent, Header: strings.ToLower(r.SimpleRetry.OverrideHeaderName),
		}
	}
	out.Fault = fault(spec.HTTPFault)
	out.CORS = cors(spec.CORSPolicy)
	for _, name := range slices.Sorted(maps.Keys(spec.AppendHeaders)) {
		out.AppendHeaders = append(out.AppendHeaders, model.Header{Name: strings.ToLower(name), Value: string(spec.AppendHeaders[name])})
	}
	t.mirror(out)
	return out
}

func hasHTTP(svc *model.Service) bool {
	return slices.ContainsFunc(svc.Ports, func(p model.Port) bool { return p.Protocol.IsHTTP() })
}

// callers is the only namespace whose calls an object of namespace acts on, empty for all. check tells the author.
func callers(svc *model.Service, namespace string) string {
	if svc.Namespace != namespace && namespace != check.MeshNamespace {
		return namespace
	}
	return ""
}

// source is the callers that s means in an object of namespace; nil for all.
func (b *builder) source(s *v1alpha2.IstioService, namespace string) *model.Source {
	switch {
	case s == nil:
		return nil
	case s.Name != "" || s.Service != "":
		caller := check.AsCaller(*s, func(svc v1alpha2.IstioService) bool {
			return b.service(check.Hostname(svc, namespace, b.cfg.Domain)) != nil
		})
		return &model.Source{Host: check.Hostname(caller, namespace, b.cfg.Domain), Labels: s.Labels}
	default:
		return &model.Source{Namespace: s.Namespace, Labels: s.Labels}
	}
}

// match takes over the conditions.
func (t *ruleTranslation) match(out *model.Rule) {
	m := t.in.Spec.Match
	if m == nil {
		return
	}
	out.Source = t.source(m.Source, t.in.Namespace)
	if m.TCP != nil && len(m.TCP.SourceSubnet)+len(m.TCP.DestinationSubnet) > 0 {
		out.Addresses = &model.Addresses{Sources: subnets(m.TCP.SourceSubnet), Destinations: subnets(m.TCP.DestinationSubnet)}
	}
	if m.Request == nil {
		return
	}
	for _, name := range slices.Sorted(maps.Keys(m.Request.Headers)) {
		h := model.HeaderMatch{Name: pseudoHeader(name)}
		switch s := m.Request.Headers[name]; {
		case s.Exact != nil:
			h.Kind, h.Value = model.Exact, *s.Exact
		case s.Prefix != nil:
			h.Kind, h.Value = model.Prefix, *s.Prefix
		case s.Regex != nil:
			h.Kind, h.Value = model.Regex, *s.Regex
		default:
			continue
		}
		out.Headers = append(out.Headers, h)
	}
	slices.SortFunc(out.Headers, func(a, b model.HeaderMatch) int { return cmp.Compare(a.Name, b.Name) })
}

// subnets reads what check lets through.
func subnets(texts []string) []netip.Prefix {
	var out []netip.Prefix
	for _, text := range texts {
		if p, ok := check.Subnet(text); ok {
			out = append(out, p)
		}
	}
	slices.SortFunc(out, netip.Prefix.Compare)
	return slices.Compact(out)
}

// pseudoHeader is the header of HTTP/2 that a rule means by a name without colon.
func pseudoHeader(name string) string {
	switch name {
	case "uri":
		return ":path"
	case "method", "authority", "scheme":
		return ":" + name
	}
	return name
}

// targets takes over the weighted destinations. A single one gets everything, whatever its weight.
func (t *ruleTranslation) targets(out *model.Rule) {
	own := t.service(out.Host)
	for i, r := range t.in.Spec.Route {
		target := model.Target{Host: out.Host, Labels: r.Labels, Weight: uint32(min(max(r.Weight, 0), 100))}
		if r.Destination != nil {
			target.Host = t.hostname(*r.Destination)
			t.judgeTarget(finding.Child(finding.Item("spec.route", i), "destination"), own, target.Host)
		}
		t.judgeOutside(finding.Item("spec.route", i), out.Host, target)
		if len(t.in.Spec.Route) == 1 {
			target.Weight = 100
		}
		out.Routes = append(out.Routes, target)
	}
}

// judgeOutside says what a target outside of the mesh cannot be: a version, or in place of another host.
func (t *ruleTranslation) judgeOutside(field, host string, target model.Target) {
	switch {
	case t.external(target.Host) == nil:
	case target.Host != host:
		t.find(t.object, finding.NotInForce, finding.Warning, finding.Child(field, "destination"),
			fmt.Sprintf("%s is outside of the mesh and cannot answer for another host, so these requests get 503", target.Host), "let the application call it by its name")
	case len(target.Labels) > 0:
		t.find(t.object, finding.NotInForce, finding.Warning, finding.Child(field, "labels"),
			fmt.Sprintf("%s is outside of the mesh and has no versions", host), "remove the labels")
	}
}

// judgeTarget says when requests to a port of the rule's service would find no port at the target.
func (t *ruleTranslation) judgeTarget(field string, own *model.Service, host string) {
	target := t.leading(host)
	if own == nil || target == nil {
		return
	}
	for _, p := range own.Ports {
		if _, ok := target.TargetPort(p.Number); p.Protocol.IsHTTP() && !ok {
			t.find(t.object, finding.NotInForce, finding.Warning, field,
				fmt.Sprintf("service %s has no HTTP port %d and not just one other, so these requests get 503", short(host), p.Number),
				"give the target service an HTTP port of the same number")
		}
	}
}

// mirror takes over where copies go.
func (t *ruleTranslation) mirror(out *model.Rule) {
	in := t.in.Spec.Mirror
	if in == nil {
		return
	}
	to := model.Target{Host: t.hostname(*in), Labels: in.Labels}
	if t.service(to.Host) == nil && t.external(to.Host) != nil {
		t.find(t.object, finding.NotInForce, finding.Warning, "spec.mirror", fmt.Sprintf("%s is outside of the mesh, where no copies are sent", to.Host), "mirror to a service of the mesh")
		return
	}
	t.judgeMirror(out, to.Host)
	out.Mirror = &to
}

// judgeMirror says when copies of requests to a port of the rule's service would find no port.
func (t *ruleTranslation) judgeMirror(out *model.Rule, host string) {
	own, target := t.service(out.Host), t.leading(host)
	if own == nil || target == nil {
		return
	}
	for _, p := range own.Ports {
		if _, ok := target.TargetPort(p.Number); p.Protocol.IsHTTP() && !ok {
			t.find(t.object, finding.NotInForce, finding.Warning, "spec.mirror",
				fmt.Sprintf("service %s has no HTTP port %d and not just one other, so these requests are not copied", short(host), p.Number),
				"give the service an HTTP port of the same number")
		}
	}
}

// fault is nil when nothing would be injected.
func fault(in *v1alpha2.HTTPFaultInjection) *model.Fault {
	if in == nil {
		return nil
	}
	f := model.Fault{}
	if d := in.Delay; d != nil && percent(d.Percent) > 0 {
		f.Delay = &model.Delay{Percent: percent(d.Percent), Fixed: duration(d.FixedDelay), Mean: duration(d.ExponentialDelay), Header: strings.ToLower(d.OverrideHeaderName)}
	}
	if a := in.Abort; a != nil && percent(a.Percent) > 0 {
		abort := &model.Abort{Percent: percent(a.Percent), Header: strings.ToLower(a.OverrideHeaderName)}
		// Envoy can abort with a status that ends a request and no other; check tells the author.
		switch {
		case a.GRPCStatus != nil:
			abort.GRPCStatus, abort.IsGRPC = check.GRPCStatus(*a.GRPCStatus)
		case a.HTTPStatus != nil && *a.HTTPStatus >= 200 && *a.HTTPStatus < 600:
			abort.HTTPStatus = uint32(*a.HTTPStatus)
		default:
			abort = nil
		}
		f.Abort = abort
	}
	if f == (model.Fault{}) {
		return nil
	}
	return &f
}

func cors(in *v1alpha2.CORSPolicy) *model.CORS {
	if in == nil {
		return nil
	}
	out := &model.CORS{
		AllowOrigins: in.AllowOrigin, AllowMethods: in.AllowMethods, AllowHeaders: in.AllowHeaders, ExposeHeaders: in.ExposeHeaders,
		Credentials: in.AllowCredentials != nil && *in.AllowCredentials,
	}
	if in.MaxAge != nil {
		out.MaxAge = new(duration(in.MaxAge))
	}
	return out
}

// percent is all when unset.
func percent(p *float64) float64 {
	if p == nil {
		return 100
	}
	return min(max(*p, 0), 100)
}

func duration(d *metav1.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return max(d.Duration, 0)
}
