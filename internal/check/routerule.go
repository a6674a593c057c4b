package check

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
)

func (s *subject) routeRule(r *v1alpha2.RouteRuleSpec) {
	s.service("spec.destination", r.Destination, false)
	if len(r.Destination.Labels) > 0 {
		s.error(finding.InvalidValue, "spec.destination.labels", "a rule is about a service, not about one version of it", "put the labels into an entry of spec.route")
	}
	if r.Match != nil {
		s.match(r.Match)
	}
	s.route(r.Route)
	if r.Redirect != nil {
		s.redirect(r)
	}
	if w := r.Rewrite; w != nil {
		s.uriOrAuthority("spec.rewrite", w.URI, w.Authority)
	}
	if t := r.HTTPReqTimeout; t != nil {
		s.timeout(t)
	}
	if t := r.HTTPReqRetries; t != nil {
		s.retries(t)
	}
	if f := r.HTTPFault; f != nil {
		s.delay(f.Delay)
		s.abort(f.Abort)
	}
	if r.L4Fault != nil {
		s.error(finding.NotSupported, "spec.l4Fault", "faults on connections are not carried out, and are refused as in 0.2", "put faults into requests with spec.httpFault")
	}
	if r.Mirror != nil {
		s.service("spec.mirror", *r.Mirror, false)
	}
	if r.CORSPolicy != nil {
		s.cors(r.CORSPolicy)
	}
	s.appendHeaders(r.AppendHeaders)
}

func (s *subject) match(m *v1alpha2.MatchCondition) {
	if m.Source != nil {
		s.service("spec.match.source", *m.Source, true)
	}
	if m.TCP != nil {
		s.subnets("spec.match.tcp.sourceSubnet", m.TCP.SourceSubnet)
		s.subnets("spec.match.tcp.destinationSubnet", m.TCP.DestinationSubnet)
	}
	if m.UDP != nil {
		s.error(finding.NotSupported, "spec.match.udp", "UDP is not carried by the mesh, and is refused as in 0.2", "remove it")
	}
	if m.Request == nil {
		return
	}
	s.atMost("spec.match.request.headers", len(m.Request.Headers), v1alpha2.MaxHeaders)
	for _, name := range sortedKeys(m.Request.Headers) {
		s.header(finding.Child("spec.match.request.headers", name), name, m.Request.Headers[name])
	}
}

func (s *subject) header(path, name string, m v1alpha2.StringMatch) {
	switch {
	case name == "":
		s.error(finding.InvalidValue, path, "the header has no name", "")
	case name != strings.ToLower(name):
		s.error(finding.InvalidValue, path, fmt.Sprintf("header %q is not in lower case, in which requests carry it", name), "write "+strings.ToLower(name))
	case len(name) > v1alpha2.MaxHeaderName || strings.ContainsFunc(name, notToken):
		s.error(finding.InvalidValue, path, fmt.Sprintf("%.256q is no header name", name), "for the request's own parts write uri, method, authority or scheme")
	}
	set := 0
	for _, v := range []*string{m.Exact, m.Prefix, m.Regex} {
		if v == nil {
			continue
		}
		set++
		s.short(path, *v)
		if name == "uri" && *v == "" {
			s.error(finding.InvalidValue, path, "an empty uri matches nothing", "a uri begins with a slash")
		}
	}
	switch {
	case set == 0:
		s.error(finding.Required, path, "it is not said how to compare the header", "set exact, prefix or regex")
	case set > 1:
		s.error(finding.Conflict, path, "exact, prefix and regex exclude each other", "keep one of them")
	}
	if m.Regex != nil {
		s.regex(finding.Child(path, "regex"), *m.Regex)
	}
}

// isToken says whether text is a name of a header or method, of the length and the signs that names of objects here may have.
func isToken(text string) bool {
	return text != "" && len(text) <= v1alpha2.MaxHeaderName && !strings.ContainsFunc(text, notTokenAnyCase) && !strings.Contains(text, "`")
}

// notToken says of a character that no header's name has it.
func notToken(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func notTokenAnyCase(r rune) bool { return (r < 'A' || r > 'Z') && notToken(r) }

func (s *subject) route(route []v1alpha2.DestinationWeight) {
	s.atMost("spec.route", len(route), v1alpha2.MaxRoutes)
	total, bad := 0, false
	for i, w := range route {
		path := finding.Item("spec.route", i)
		if w.Destination != nil {
			s.service(finding.Child(path, "destination"), *w.Destination, false)
			if len(w.Destination.Labels) > 0 {
				s.ignored(path+".destination.labels", "the version is chosen by the entry's own labels")
			}
		}
		s.labels(finding.Child(path, "labels"), w.Labels)
		if w.Weight < 0 || w.Weight > 100 {
			s.error(finding.InvalidValue, finding.Child(path, "weight"), fmt.Sprintf("%d is no percentage", w.Weight), "it is from 0 to 100")
			bad = true
		}
		total += int(w.Weight)
	}
	alone := len(route) == 1 && route[0].Weight == 0
	if len(route) > 0 && !bad && !alone && total != 100 {
		s.error(finding.WeightSum, "spec.route", fmt.Sprintf("the weights total %d, not 100", total), "all weights of a rule total 100; a single entry may leave its weight out")
	}
}

func (s *subject) redirect(r *v1alpha2.RouteRuleSpec) {
	s.uriOrAuthority("spec.redirect", r.Redirect.URI, r.Redirect.Authority)
	for _, other := range []struct {
		field string
		set   bool
	}{
		{"route", len(r.Route) > 0},
		{"httpFault", r.HTTPFault != nil},
		{"rewrite", r.Rewrite != nil},
		{"websocketUpgrade", r.WebsocketUpgrade},
		{"mirror", r.Mirror != nil},
		{"corsPolicy", r.CORSPolicy != nil},
		{"appendHeaders", len(r.AppendHeaders) > 0},
	} {
		if other.set {
			s.error(finding.Conflict, "spec."+other.field, "a rule that redirects has no "+other.field, "remove one of them")
		}
	}
}

func (s *subject) uriOrAuthority(path, uri, authority string) {
	if uri == "" && authority == "" {
		s.error(finding.Required, path, "neither uri nor authority is set", "set one of them")
	}
	s.headerText(finding.Child(path, "uri"), uri)
	s.headerText(finding.Child(path, "authority"), authority)
}

func (s *subject) timeout(t *v1alpha2.HTTPTimeout) {
	const path = "spec.httpReqTimeout"
	s.form(path, "simpleTimeout", t.SimpleTimeout != nil, t.Custom)
	if simple := t.SimpleTimeout; simple != nil {
		s.requiredDuration(path+".simpleTimeout.timeout", simple.Timeout)
		s.overrideHeader(path+".simpleTimeout", simple.OverrideHeaderName)
	}
}

func (s *subject) retries(t *v1alpha2.HTTPRetry) {
	const path = "spec.httpReqRetries"
	s.form(path, "simpleRetry", t.SimpleRetry != nil, t.Custom)
	if simple := t.SimpleRetry; simple != nil {
		s.notNegative(path+".simpleRetry.attempts", int64(simple.Attempts))
		s.duration(path+".simpleRetry.perTryTimeout", simple.PerTryTimeout)
		s.overrideHeader(path+".simpleRetry", simple.OverrideHeaderName)
	}
}

func (s *subject) delay(d *v1alpha2.HTTPDelay) {
	if d == nil {
		return
	}
	const path = "spec.httpFault.delay"
	s.percent(path+".percent", d.Percent)
	if d.ExponentialDelay == nil {
		s.requiredDuration(path+".fixedDelay", d.FixedDelay)
	} else {
		s.duration(path+".exponentialDelay", d.ExponentialDelay)
		if d.FixedDelay != nil {
			s.error(finding.Conflict, path, "fixedDelay and exponentialDelay exclude each other", "keep one of them")
		}
		s.duration(path+".fixedDelay", d.FixedDelay)
	}
	s.overrideHeader(path, d.OverrideHeaderName)
}

func (s *subject) abort(a *v1alpha2.HTTPAbort) {
	if a == nil {
		return
	}
	const path = "spec.httpFault.abort"
	s.percent(path+".percent", a.Percent)
	s.overrideHeader(path, a.OverrideHeaderName)
	set := 0
	for _, given := range []bool{a.HTTPStatus != nil, a.GRPCStatus != nil, a.HTTP2Error != nil} {
		if given {
			set++
		}
	}
	switch {
	case set == 0:
		s.error(finding.Required, path+".httpStatus", "it is not said what to answer", "set httpStatus or grpcStatus")
	case set > 1:
		s.error(finding.Conflict, path, "httpStatus, grpcStatus and http2Error exclude each other", "keep httpStatus or grpcStatus")
	}
	if a.GRPCStatus != nil {
		if _, ok := GRPCStatus(*a.GRPCStatus); !ok {
			s.error(finding.InvalidValue, path+".grpcStatus", fmt.Sprintf("%q is no status to fail with", *a.GRPCStatus), `write a name as in UNAVAILABLE, or a number from "1" to "16"`)
		}
	}
	if a.HTTP2Error != nil {
		s.error(finding.NotSupported, path+".http2Error", "proxies cannot break off an HTTP/2 stream with an error of their choice, nor could those of 0.2", "write httpStatus or grpcStatus")
	}
	if a.HTTPStatus == nil {
		return
	}
	switch status := *a.HTTPStatus; {
	case status < 0 || status > 600:
		s.error(finding.InvalidValue, path+".httpStatus", fmt.Sprintf("%d is no HTTP status", status), "it is from 200 to 599")
	case status == 0:
		s.ignored(path+".httpStatus", "0 aborts nothing")
	case status < 200 || status == 600:
		s.warn(finding.NotInForce, path+".httpStatus", fmt.Sprintf("a proxy cannot answer with %d, so no request is aborted", status), "write a status from 200 to 599")
	}
}

// GRPCStatus is the number of a status of gRPC other than OK, given by its name or number.
func GRPCStatus(text string) (number uint32, ok bool) {
	names := []string{"CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED",
		"FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}
	if i := slices.Index(names, text); i >= 0 {
		return uint32(i + 1), true
	}
	n, err := strconv.ParseUint(text, 10, 32)
	return uint32(n), err == nil && n >= 1 && n <= uint64(len(names)) && strconv.FormatUint(n, 10) == text
}

func (s *subject) cors(c *v1alpha2.CORSPolicy) {
	const path = "spec.corsPolicy"
	s.atMost(path+".allowOrigin", len(c.AllowOrigin), v1alpha2.MaxHeaders)
	if len(c.AllowOrigin) == 0 {
		s.error(finding.Required, path+".allowOrigin", "no origin is allowed, so nothing is", `write origins as in https://shop.example, or "*" for all`)
	}
	for i, origin := range c.AllowOrigin {
		item := finding.Item(path+".allowOrigin", i)
		if origin == "" {
			s.error(finding.InvalidValue, item, "an empty origin is none", `write it as in https://shop.example, or "*" for all`)
		}
		s.headerText(item, origin)
	}
	for _, list := range []struct {
		field string
		names []string
	}{
		{"allowMethods", c.AllowMethods}, {"allowHeaders", c.AllowHeaders}, {"exposeHeaders", c.ExposeHeaders},
	} {
		s.atMost(path+"."+list.field, len(list.names), v1alpha2.MaxHeaders)
		for i, name := range list.names {
			if !isToken(name) {
				s.error(finding.InvalidValue, finding.Item(path+"."+list.field, i), fmt.Sprintf("%.256q is no name of a method or header", name), "write one name an entry")
			}
		}
	}
	switch d := c.MaxAge; {
	case d == nil:
	case d.Duration < 0:
		s.error(finding.InvalidValue, path+".maxAge", fmt.Sprintf("%s is negative", d.Duration), "it is 0s or more")
	case d.Duration%time.Second != 0:
		s.error(finding.InvalidValue, path+".maxAge", fmt.Sprintf("%s is no whole number of seconds", d.Duration), "write it as in 10m or 86400s")
	}
	if c.AllowCredentials != nil && *c.AllowCredentials && slices.Contains(c.AllowOrigin, "*") {
		s.warn(finding.NotInForce, path+".allowCredentials", "with every origin allowed, any page on the web may act in the name of whoever visits it", "name the origins")
	}
}

// unappendable are the headers that say where a request goes and where it ends.
func unappendable() []string {
	return []string{"host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "keep-alive", "proxy-connection"}
}

func (s *subject) appendHeaders(headers map[string]v1alpha2.HeaderValue) {
	const path = "spec.appendHeaders"
	s.atMost(path, len(headers), v1alpha2.MaxHeaders)
	names := map[string]string{}
	for _, name := range sortedKeys(headers) {
		field, value := finding.Child(path, name), string(headers[name])
		switch lower := strings.ToLower(name); {
		case name == "" || len(name) > v1alpha2.MaxHeaderName || strings.ContainsFunc(name, notTokenAnyCase):
			s.error(finding.InvalidValue, field, fmt.Sprintf("%.256q is no header name", name), "a name is made of letters, digits and dashes")
		case slices.Contains(unappendable(), lower):
			s.error(finding.InvalidValue, field, fmt.Sprintf("%s says where a request goes or ends", name), "rewrite.authority changes the host; the others are the proxies' own")
		case names[lower] != "":
			s.warn(finding.NotInForce, field, fmt.Sprintf("%s is the same header, so both values are added", names[lower]), "keep one of them")
		default:
			names[lower] = name
		}
		s.short(field, value)
		if strings.ContainsFunc(value, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			s.error(finding.InvalidValue, field, fmt.Sprintf("%q holds a control character", value), "remove it")
		}
	}
}
