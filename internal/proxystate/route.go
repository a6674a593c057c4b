package proxystate

import (
	"strconv"
	"strings"
)

// Route is one route of a virtual host.
type Route struct {
	Resource
	Host    string
	Domains []string
	// Route is its name, which tells the rule it was made from; empty for those that are of none.
	Route string
	// Match is which requests take it, joined by &: /exact, /prefix*, ~regex, then headers as name=exact, name=prefix*, name~regex, and ! before what must not be.
	Match string
	// Target is a cluster, several with weights, or what is answered at once.
	Target string
	// Options are what else happens on the way: timeout, retries, faults, rewriting.
	Options []string
}

// Routes of all route configurations, in the order Envoy tries them. Virtual hosts that came on their own are among those of their configuration.
func (d *Dump) Routes() []Route {
	var out []Route
	for _, r := range d.Resources[Routes] {
		hosts := list(r.Body, "virtual_hosts")
		for _, h := range hosts {
			one := Route{Resource: r, Host: text(h, "name")}
			for _, domain := range list(h, "domains") {
				if s, ok := domain.(string); ok {
					one.Domains = append(one.Domains, s)
				}
			}
			routes := list(h, "routes")
			for _, route := range routes {
				one.Route, one.Match, one.Target, one.Options = text(route, "name"), requestMatch(at(route, "match")), target(route), options(route)
				out = append(out, one)
			}
			if len(routes) == 0 {
				one.Match, one.Target = "*", "404"
				if text(h, "require_tls") == "ALL" {
					one.Target = "301:https"
				}
				out = append(out, one)
			}
		}
		if len(hosts) == 0 {
			out = append(out, Route{Resource: r, Match: "-", Target: "-"})
		}
	}
	return out
}

// Serves says whether a virtual host is for a host: by one of its domains in full, or by the first parts of one.
func (r Route) Serves(host string) bool {
	for _, d := range r.Domains {
		if Named(host, d) {
			return true
		}
	}
	return false
}

// requestMatch is what a route asks of requests.
func requestMatch(m any) string {
	var parts []string
	switch {
	case has(m, "path"):
		parts = append(parts, text(m, "path"))
	case has(m, "prefix"):
		parts = append(parts, text(m, "prefix")+"*")
	case has(m, "path_separated_prefix"):
		parts = append(parts, text(m, "path_separated_prefix")+"/*")
	case has(m, "safe_regex"):
		parts = append(parts, "~"+text(m, "safe_regex", "regex"))
	case has(m, "connect_matcher"):
		parts = append(parts, "CONNECT")
	}
	for _, h := range list(m, "headers") {
		parts = append(parts, header(h))
	}
	for _, q := range list(m, "query_parameters") {
		parts = append(parts, "?"+text(q, "name")+stringMatch(at(q, "string_match")))
	}
	return strings.Join(parts, "&")
}

func header(h any) string {
	name := text(h, "name")
	out := name + stringMatch(at(h, "string_match"))
	switch {
	case has(h, "present_match"):
		out = name
	case has(h, "range_match"):
		out = name + "=" + text(h, "range_match", "start") + ".." + text(h, "range_match", "end")
	}
	if text(h, "invert_match") == "true" {
		out = "!" + out
	}
	return out
}

func stringMatch(m any) string {
	switch {
	case has(m, "exact"):
		return "=" + text(m, "exact")
	case has(m, "prefix"):
		return "=" + text(m, "prefix") + "*"
	case has(m, "suffix"):
		return "=*" + text(m, "suffix")
	case has(m, "contains"):
		return "=*" + text(m, "contains") + "*"
	case has(m, "safe_regex"):
		return "~" + text(m, "safe_regex", "regex")
	}
	return ""
}

// target is where a route leads.
func target(route any) string {
	switch {
	case has(route, "redirect"):
		r := at(route, "redirect")
		code := map[string]string{"FOUND": "302", "SEE_OTHER": "303", "TEMPORARY_REDIRECT": "307", "PERMANENT_REDIRECT": "308"}[text(r, "response_code")]
		if code == "" {
			code = "301"
		}
		to := text(r, "host_redirect") + text(r, "path_redirect") + text(r, "prefix_rewrite")
		if text(r, "https_redirect") == "true" {
			to = "https://" + to
		}
		return code + ":" + to
	case has(route, "direct_response"):
		return text(route, "direct_response", "status")
	case has(route, "route", "weighted_clusters"):
		return weights(list(route, "route", "weighted_clusters", "clusters"))
	case has(route, "route", "cluster_header"):
		return "header:" + text(route, "route", "cluster_header")
	case has(route, "route", "cluster"):
		return text(route, "route", "cluster")
	}
	return "-"
}

// weights are clusters as name=weight, name=weight.
func weights(clusters []any) string {
	var out []string
	for _, c := range clusters {
		weight := text(c, "weight")
		if weight == "" {
			weight = "0"
		}
		out = append(out, text(c, "name")+"="+weight)
	}
	return strings.Join(out, ",")
}

// options are what happens to a request besides being sent on.
func options(route any) []string {
	var out []string
	add := func(name, value string) {
		if value != "" && value != "0s" {
			out = append(out, name+"="+value)
		}
	}
	action := at(route, "route")
	add("timeout", text(action, "timeout"))
	add("retries", text(action, "retry_policy", "num_retries"))
	add("per-try-timeout", text(action, "retry_policy", "per_try_timeout"))
	add("rewrite", text(action, "prefix_rewrite")+text(action, "regex_rewrite", "substitution"))
	add("host-rewrite", text(action, "host_rewrite_literal"))
	for _, m := range list(action, "request_mirror_policies") {
		add("mirror", text(m, "cluster"))
	}
	fault := at(route, "typed_per_filter_config", "envoy.filters.http.fault")
	if has(fault, "delay") {
		add("delay", text(fault, "delay", "fixed_delay")+"@"+percent(at(fault, "delay", "percentage")))
	}
	if has(fault, "abort") {
		add("abort", text(fault, "abort", "http_status")+text(fault, "abort", "grpc_status")+"@"+percent(at(fault, "abort", "percentage")))
	}
	return out
}

// percent is a fraction, of which Envoy says how many parts the whole has.
func percent(v any) string {
	n, err := strconv.ParseFloat(text(v, "numerator"), 64)
	if err != nil { // nothing is none
		n = 0
	}
	switch text(v, "denominator") {
	case "TEN_THOUSAND":
		n /= 100
	case "MILLION":
		n /= 10_000
	}
	return strconv.FormatFloat(n, 'f', -1, 64) + "%"
}
