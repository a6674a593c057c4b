package proxystate

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestNoSecretLeavesADump(t *testing.T) {
	const key = "VerySecret"
	for name, text := range map[string]string{
		"a private key":                `{"tls_certificate": {"private_key": {"inline_string": "VerySecret"}}}`,
		"a key that is a plain string": `{"private_key": "VerySecret"}`,
		"a generic secret":             `{"generic_secret": {"secret": {"inline_bytes": "VerySecret"}}}`,
		"a password within a list":     `{"users": [{"name": "a"}, {"password": {"inline_string": "VerySecret", "filename": "/etc/password"}}]}`,
		"ticket keys":                  `{"session_ticket_keys": {"keys": [{"inline_bytes": "VerySecret"}]}}`,
		"a provider's configuration":   `{"private_key_provider": {"typed_config": {"poll_delay": "1s", "private_key": {"inline_bytes": "VerySecret"}}}}`,
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse([]byte(`{"configs": [{"@type": "x.SecretsConfigDump", "static_secrets": [{"name": "s", "secret": ` + text + `}]}]}`))
			if err != nil {
				t.Fatal(err)
			}
			out, err := json.Marshal([]any{d.Whole(), d.Secrets()})
			if err != nil || strings.Contains(string(out), key) || !strings.Contains(string(out), Masked) {
				t.Errorf("%v %s", err, out)
			}
			if strings.Contains(text, "filename") && !strings.Contains(string(out), "/etc/password") {
				t.Errorf("where the secret comes from is hidden: %s", out)
			}
		})
	}
}

func TestRoutesInWords(t *testing.T) {
	for name, c := range map[string]struct{ route, match, target, options string }{
		"a path":                    {`{"match": {"path": "/a"}, "route": {"cluster": "c"}}`, "/a", "c", ""},
		"a prefix of path elements": {`{"match": {"path_separated_prefix": "/a"}, "direct_response": {"status": 404}}`, "/a/*", "404", ""},
		"what must not be":          {`{"match": {"safe_regex": {"regex": "/a.*"}, "headers": [{"name": "x", "invert_match": true, "string_match": {"prefix": "b"}}, {"name": "y", "present_match": true}]}}`, "~/a.*&!x=b*&y", "-", ""},
		"a redirect to https":       {`{"match": {"prefix": "/"}, "redirect": {"https_redirect": true, "response_code": "PERMANENT_REDIRECT"}}`, "/*", "308:https://", ""},
		"a mirror and a fault": {`{"match": {"prefix": "/"}, "route": {"cluster": "c", "request_mirror_policies": [{"cluster": "m"}]}, "typed_per_filter_config": {"envoy.filters.http.fault": {"abort": {"http_status": 500, "percentage": {"numerator": 5, "denominator": "TEN_THOUSAND"}}}}}`,
			"/*", "c", "mirror=m abort=500@0.05%"},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := Parse([]byte(`{"configs": [{"@type": "x.RoutesConfigDump", "dynamic_route_configs": [{"route_config": {"name": "r", "virtual_hosts": [{"domains": ["a.b"], "routes": [` + c.route + `]}]}}]}]}`))
			if err != nil {
				t.Fatal(err)
			}
			r := d.Routes()[0]
			if got := strings.Join(r.Options, " "); r.Match != c.match || r.Target != c.target || got != c.options {
				t.Errorf("got %q %q %q", r.Match, r.Target, got)
			}
			if !r.Serves("a") || !r.Serves("a.b") || r.Serves("a.") || r.Serves("b") {
				t.Error("it serves a.b by its full name and its first parts, and nothing else")
			}
		})
	}
}

func TestLiveEndpointsAreSeenAsTheProxySeesThem(t *testing.T) {
	got, err := liveEndpoints([]byte(`{"cluster_statuses": [{"name": "c", "host_statuses": [
		{"address": {"socket_address": {"address": "fd00::1", "port_value": 80}}, "health_status": {"eds_health_status": "HEALTHY", "failed_outlier_check": true}, "weight": 3,
		 "stats": [{"name": "rq_total", "value": "12"}, {"name": "rq_error"}], "locality": {"zone": "z"}},
		{"address": {"socket_address": {"address": "10.0.0.1", "port_value": 80}}, "health_status": {"eds_health_status": "DRAINING", "failed_active_health_check": true}}]}]}`))
	want := "[{c 10.0.0.1:80 UNHEALTHY false 1  0 0} {c [fd00::1]:80 HEALTHY true 3 z 12 0}]"
	if err != nil || fmt.Sprint(got) != want {
		t.Errorf("got  %v %v\nwant %s", got, err, want)
	}
}

// Whatever a file holds, reading it ends with a dump or an error.
func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"configs": [{"@type": "x.ListenersConfigDump", "dynamic_listeners": [{"name": "l", "active_state": {"listener": {"filter_chains": [{"filters": [{}]}]}}}, 3]}]}`))
	f.Add([]byte(`{"configs": [{"@type": "x.RoutesConfigDump", "static_route_configs": [{"route_config": {"virtual_hosts": [[], {"routes": [null]}]}}]}]}`))
	f.Add([]byte(`{"configs": {"a": 1}}`))
	f.Add([]byte(`[]`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		d, err := Parse(data)
		if err != nil {
			return
		}
		d.Clusters()
		d.Endpoints()
		d.Chains()
		d.Routes()
		d.Secrets()
	})
}
