package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// addRules resolves the names of all RouteRules that check lets through.
func (b *builder) addRules() {
	for _, o := range b.set.Kind(v1alpha2.GroupVersion.Group, "RouteRule") {
		in, ok := o.Value.(*v1alpha2.RouteRule)
		if !ok || !b.judge(o) {
			continue
		}
		t := &ruleTranslation{builder: b, object: o, in: in}
		if rule := t.rule(); rule != nil {
			b.mesh.Rules = append(b.mesh.Rules, rule)
		}
	}
	slices.SortFunc(b.mesh.Rules, func(x, y *model.Rule) int {
		return cmp.Or(cmp.Compare(y.Precedence, x.Precedence), cmp.Compare(x.Ref.Namespace, y.Ref.Namespace), cmp.Compare(x.Ref.Name, y.Ref.Name))
	})
}

// ruleTranslation is the work on one RouteRule.
type ruleTranslation struct {
	*builder
	object *objects.Object
	in     *v1alpha2.RouteRule
}

// idle says that a field is accepted and does nothing.
func (t *ruleTranslation) idle(field, why, hint string) {
	t.find(t.object, finding.NotInForce, finding.Warning, field, why, hint)
}

func (t *ruleTranslation) hostname(s v1alpha2.IstioService) string {
	return check.Hostname(s, t.in.Namespace, t.cfg.Domain)
}

// rule is the RouteRule's meaning; nil when it has none that could be carried out.
func (t *ruleTranslation) rule() *model.Rule {
	spec := &t.in.Spec
	if !t.printable() {
		return nil
	}
	out := &model.Rule{Ref: refOf(t.object), Precedence: spec.Precedence, Host: t.hostname(spec.Destination)}
	if svc := t.services[out.Host]; svc != nil {
		if !slices.ContainsFunc(svc.Ports, func(p model.Port) bool { return p.Protocol.IsHTTP() }) {
			t.idle("spec.destination", fmt.Sprintf("service %s has no HTTP port, and rules act on requests only", short(out.Host)),
				"name the port http-…, http2-… or grpc-…, or set its appProtocol")
			return nil
		}
		if svc.Namespace != t.in.Namespace && t.in.Namespace != t.cfg.RootNamespace {
			out.CallerNamespace = t.in.Namespace
			t.find(t.object, finding.ForeignNamespace, finding.Warning, "spec.destination",
				fmt.Sprintf("service %s is of another namespace, so the rule acts only on calls from namespace %s", short(out.Host), t.in.Namespace),
				fmt.Sprintf("for all callers put the rule into namespace %s or %s", svc.Namespace, t.cfg.RootNamespace))
		}
	}
	if !t.match(out) {
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
	t.timeout(out)
	t.retry(out)
	t.fault(out)
	if spec.L4Fault != nil {
		t.idle("spec.l4Fault", "faults on connections are not carried out", "use httpFault for requests")
	}
	return out
}

// printable refuses what no header can hold and Envoy would reject together with the rules beside it.
func (t *ruleTranslation) printable() bool {
	bad := func(s string) bool { return !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r\n") }
	fields := map[string]string{}
	spec := &t.in.Spec
	if spec.Match != nil && spec.Match.Request != nil {
		for name, m := range spec.Match.Request.Headers {
			field := "spec.match.request.headers." + name
			fields[field] = name + value(m.Exact) + value(m.Prefix) + value(m.Regex)
		}
	}
	if r := spec.Redirect; r != nil {
		fields["spec.redirect"] = r.URI + r.Authority
	}
	if r := spec.Rewrite; r != nil {
		fields["spec.rewrite"] = r.URI + r.Authority
	}
	ok := true
	for field, s := range fields {
		if bad(s) {
			t.find(t.object, finding.InvalidValue, finding.Error, field, "line breaks, NUL and broken UTF-8 cannot stand in a header", "remove them")
			ok = false
		}
	}
	return ok
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// match takes over the conditions. A rule with a condition that cannot be held is not carried out: without the condition it would act on
// requests its author excluded.
func (t *ruleTranslation) match(out *model.Rule) bool {
	m := t.in.Spec.Match
	if m == nil {
		return true
	}
	if m.TCP != nil || m.UDP != nil {
		t.idle("spec.match", "conditions on addresses are not evaluated, so the rule is left out", "remove match.tcp and match.udp")
		return false
	}
	if s := m.Source; s != nil {
		out.Source = &model.Source{Labels: s.Labels}
		if s.Name != "" || s.Service != "" {
			out.Source.Host = t.hostname(*s)
		} else {
			out.Source.Namespace = s.Namespace
		}
	}
	if m.Request == nil {
		return true
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
	return true
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
	own := t.services[out.Host]
	for i, r := range t.in.Spec.Route {
		target := model.Target{Host: out.Host, Labels: r.Labels, Weight: uint32(min(max(r.Weight, 0), 100))}
		if r.Destination != nil {
			target.Host = t.hostname(*r.Destination)
			if len(r.Destination.Labels) > 0 {
				target.Labels = maps.Clone(r.Destination.Labels)
				maps.Copy(target.Labels, r.Labels)
			}
			t.judgeTarget(fmt.Sprintf("spec.route[%d].destination", i), own, target.Host)
		}
		if len(t.in.Spec.Route) == 1 {
			target.Weight = 100
		}
		out.Routes = append(out.Routes, target)
	}
}

// judgeTarget says when requests to a port of the rule's service would find no port at the target.
func (t *ruleTranslation) judgeTarget(field string, own *model.Service, host string) {
	target := t.services[host]
	if own == nil || target == nil {
		return
	}
	for _, p := range own.Ports {
		if !p.Protocol.IsHTTP() {
			continue
		}
		if _, ok := target.TargetPort(p.Number); !ok || target.ExternalName != "" {
			t.find(t.object, finding.NotInForce, finding.Warning, field,
				fmt.Sprintf("service %s has no HTTP port %d and not just one other, so these requests get 503", short(host), p.Number),
				"give the target service an HTTP port of the same number")
		}
	}
}

func (t *ruleTranslation) timeout(out *model.Rule) {
	in := t.in.Spec.HTTPReqTimeout
	if in == nil {
		return
	}
	if in.Custom != nil {
		t.idle("spec.httpReqTimeout.custom", "custom timeouts have no meaning", "use simpleTimeout")
	}
	if s := in.SimpleTimeout; s != nil {
		out.Timeout = duration(s.Timeout)
		t.override("spec.httpReqTimeout.simpleTimeout", s.OverrideHeaderName)
	}
}

func (t *ruleTranslation) retry(out *model.Rule) {
	in := t.in.Spec.HTTPReqRetries
	if in == nil {
		return
	}
	if in.Custom != nil {
		t.idle("spec.httpReqRetries.custom", "custom retries have no meaning", "use simpleRetry")
	}
	if s := in.SimpleRetry; s != nil {
		out.Retry = &model.Retry{Attempts: uint32(max(s.Attempts, 0)), PerTryTimeout: duration(s.PerTryTimeout)}
		t.override("spec.httpReqRetries.simpleRetry", s.OverrideHeaderName)
	}
}

func (t *ruleTranslation) fault(out *model.Rule) {
	in := t.in.Spec.HTTPFault
	if in == nil {
		return
	}
	f := model.Fault{}
	if d := in.Delay; d != nil {
		f.DelayPercent, f.Delay = percent(d.Percent), duration(d.FixedDelay)
		if d.ExponentialDelay != nil {
			t.idle("spec.httpFault.delay.exponentialDelay", "exponential delays are not carried out", "use fixedDelay")
		}
		t.override("spec.httpFault.delay", d.OverrideHeaderName)
	}
	if a := in.Abort; a != nil {
		f.AbortPercent = percent(a.Percent)
		if a.HTTPStatus != nil {
			f.AbortStatus = t.status(*a.HTTPStatus)
		}
		if a.GRPCStatus != nil {
			t.idle("spec.httpFault.abort.grpcStatus", "aborting with a gRPC status is not carried out", "use httpStatus")
		}
		if a.HTTP2Error != nil {
			t.idle("spec.httpFault.abort.http2Error", "aborting with an HTTP/2 error is not carried out", "use httpStatus")
		}
		t.override("spec.httpFault.abort", a.OverrideHeaderName)
	}
	if f != (model.Fault{}) {
		out.Fault = &f
	}
}

// status is an HTTP status that Envoy can abort with; 0, which stands for none, for any other.
func (t *ruleTranslation) status(code int32) uint32 {
	if code >= 200 && code < 600 {
		return uint32(code)
	}
	if code != 0 {
		t.idle("spec.httpFault.abort.httpStatus", fmt.Sprintf("%d is no status that ends a request", code), "use one from 200 to 599")
	}
	return 0
}

func (t *ruleTranslation) override(field, header string) {
	if header != "" {
		t.idle(field+".overrideHeaderName", "requests cannot override the rule by a header", "")
	}
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
