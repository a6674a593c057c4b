package envoy

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// Pseudo headers as the model names them.
const (
	pathHeader      = ":path"
	authorityHeader = ":authority"
	methodHeader    = ":method"
)

// pathMatch is a condition on the path without its query.
type pathMatch struct {
	kind  model.MatchKind
	value string
	// elements makes a prefix end where a path element ends.
	elements bool
}

// anyPath takes every path.
func anyPath() pathMatch { return pathMatch{kind: model.Prefix, value: "/"} }

func (p pathMatch) takesAll() bool {
	return p.kind == model.Prefix && (p.value == "/" || p.value == "")
}

// takes says whether the prefix or exact path p takes path.
func (p pathMatch) takes(path string) bool {
	switch {
	case p.kind == model.Exact:
		return path == p.value
	case !p.elements:
		return strings.HasPrefix(path, p.value)
	default:
		rest, ok := strings.CutPrefix(path, p.value)
		return ok && (rest == "" || rest[0] == '/' || strings.HasSuffix(p.value, "/"))
	}
}

// intersect is the condition that both p and q hold. A regular expression, which cannot be merged, is returned apart as a condition on the
// path header. It is false when no path meets both.
func intersect(p, q pathMatch) (both pathMatch, extra []*routev3.HeaderMatcher, ok bool) {
	switch {
	case q.takesAll():
		return p, nil, true
	case p.takesAll():
		return q, nil, true
	case p.kind == model.Regex:
		return q, []*routev3.HeaderMatcher{pathRegexHeader(p.value)}, true
	case q.kind == model.Regex:
		return p, []*routev3.HeaderMatcher{pathRegexHeader(q.value)}, true
	case p.kind == model.Exact:
		return p, nil, q.takes(p.value)
	case q.kind == model.Exact:
		return q, nil, p.takes(q.value)
	case p.value == q.value:
		p.elements = p.elements || q.elements
		return p, nil, true
	case p.takes(q.value):
		return q, nil, true
	default:
		// The longer prefix is the narrower one, unless it cuts an element of the other in two: /foo by elements and /fo is /foo by elements.
		return p, nil, q.takes(p.value)
	}
}

// set writes the condition into m.
func (p pathMatch) set(m *routev3.RouteMatch) {
	switch {
	case p.kind == model.Exact:
		m.PathSpecifier = &routev3.RouteMatch_Path{Path: p.value}
	case p.kind == model.Regex:
		m.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: p.value}}
	case p.elements && strings.TrimRight(p.value, "/") != "" && !strings.ContainsAny(p.value, "?#"):
		m.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: strings.TrimRight(p.value, "/")}
	default:
		m.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: p.value}
	}
}

// requestMatch is the path condition and the header conditions of a rule.
func requestMatch(rule *model.Rule) (pathMatch, []*routev3.HeaderMatcher) {
	path := anyPath()
	var headers []*routev3.HeaderMatcher
	for _, h := range rule.Headers {
		if h.Name == pathHeader {
			path = pathMatch{kind: h.Kind, value: h.Value}
			continue
		}
		headers = append(headers, headerMatch(h))
	}
	return path, headers
}

// headerMatch is a condition on a header. An authority is compared with and without its port: clients leave out the one they take for granted.
func headerMatch(h model.HeaderMatch) *routev3.HeaderMatcher {
	if h.Name == authorityHeader {
		switch h.Kind {
		case model.Exact:
			return regexHeader(h.Name, regexp.QuoteMeta(h.Value)+"(:[0-9]+)?")
		case model.Regex:
			return regexHeader(h.Name, "(?:"+h.Value+")(:[0-9]+)?")
		case model.Prefix:
		}
	}
	match := &matcherv3.StringMatcher{}
	switch h.Kind {
	case model.Regex:
		// The group lets an empty expression through, which Envoy would refuse.
		return regexHeader(h.Name, "(?:"+h.Value+")")
	case model.Prefix:
		if h.Value == "" {
			return &routev3.HeaderMatcher{Name: h.Name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
		}
		match.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: h.Value}
	case model.Exact:
		match.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: h.Value}
	}
	return stringHeader(h.Name, match)
}

// pathRegexHeader holds the whole path, without its query, against a regular expression.
func pathRegexHeader(pattern string) *routev3.HeaderMatcher {
	return regexHeader(pathHeader, "(?:"+pattern+`)(\?.*)?`)
}

func regexHeader(name, pattern string) *routev3.HeaderMatcher {
	return stringHeader(name, &matcherv3.StringMatcher{
		MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: pattern}},
	})
}

func stringHeader(name string, match *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: match}}
}
