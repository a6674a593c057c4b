package e2e_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
)

// rule is a RouteRule for the service "server".
func rule(name, spec string) string {
	return "apiVersion: config.istio.io/v1alpha2\nkind: RouteRule\nmetadata:\n  name: " + name + "\nspec:\n  destination:\n    name: server\n" + spec + "\n---\n"
}

func to(versions ...string) string {
	var b strings.Builder
	fmt.Fprintln(&b, "  route:")
	for _, v := range versions {
		fmt.Fprintf(&b, "  - labels:\n      version: %s\n    weight: %d\n", v, 100/len(versions))
	}
	return b.String()
}

// type_ pipes a text into a meshctl verb.
func (l *lab) mesh(t *testing.T, ns, verb, text string) {
	t.Helper()
	l.run(t, ns, "meshctl "+verb+" -n $NS -f - <<'END_OF_FILE'\n"+text+"\nEND_OF_FILE")
}

func TestRouteRules(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server")
	l.deploy(t, ns,
		workload{Name: "client"},
		workload{Name: "server-v1", App: "server", Version: "v1"},
		workload{Name: "server-v2", App: "server", Version: "v2"},
	)
	const site = "http://server/"
	only := func(version, args string) func() error {
		return func() error { return l.answers(t, ns, "client", args+" "+site, version) }
	}

	t.Run("labels choose a version", func(t *testing.T) {
		l.mesh(t, ns, "create", rule("default", to("v1")))
		until(t, "v1 answers alone", only("v1", ""))
		l.mesh(t, ns, "replace", rule("default", to("v2")))
		until(t, "v2 answers alone", only("v2", ""))
	})

	t.Run("weights share requests", func(t *testing.T) {
		l.mesh(t, ns, "replace", rule("default", `  route:
  - labels: {version: v1}
    weight: 25
  - labels: {version: v2}
    weight: 75`))
		const n = 1000
		low, high := within(n, 0.25)
		until(t, "the shares are those of the rule", func() error {
			c := l.call(t, ns, "client", fmt.Sprintf("-n %d -c 4 %s", n, site))
			if err := c.only("200"); err != nil {
				return err
			}
			if k := c.Versions["v1"]; k < low || k > high {
				return fmt.Errorf("%d of %d requests met v1, want %d to %d", k, n, low, high)
			}
			return nil
		})
	})

	t.Run("headers match by exact value, prefix and expression, and the highest precedence comes first", func(t *testing.T) {
		l.mesh(t, ns, "replace", rule("default", to("v1")))
		match := func(header, how, value string) string {
			return fmt.Sprintf("  match:\n    request:\n      headers:\n        %s:\n          %s: %q\n", header, how, value)
		}
		l.mesh(t, ns, "create",
			rule("exact", "  precedence: 2\n"+match("x-exact", "exact", "yes")+to("v2"))+
				rule("prefix", "  precedence: 2\n"+match("x-prefix", "prefix", "be")+to("v2"))+
				rule("expression", "  precedence: 2\n"+match("x-regex", "regex", "a+b")+to("v2"))+
				rule("uri", "  precedence: 2\n"+match("uri", "prefix", "/two")+to("v2"))+
				rule("method", "  precedence: 2\n"+match("method", "exact", "PUT")+to("v2"))+
				rule("stronger", "  precedence: 3\n"+match("x-stronger", "exact", "yes")+to("v1")))
		until(t, "the last of them works", only("v2", "-H x-exact:yes"))
		for args, want := range map[string]string{
			"":                                   "v1",
			"-H x-exact:yes":                     "v2",
			"-H x-exact:yesterday":               "v1",
			"-H x-prefix:begin":                  "v2",
			"-H x-prefix:maybe":                  "v1",
			"-H x-regex:aab":                     "v2",
			"-H x-regex:aabc":                    "v1", // the whole value must match
			"-method PUT":                        "v2",
			"-H x-exact:yes -H x-stronger:yes":   "v1",
			"-H x-exact:never -H x-stronger:yes": "v1",
		} {
			until(t, args+" meets "+want, only(want, args))
		}
		until(t, "the path is matched", func() error { return l.answers(t, ns, "client", site+"two/three", "v2") })
		until(t, "the rest of paths is not", func() error { return l.answers(t, ns, "client", site+"three/two", "v1") })
	})

	t.Run("a timeout ends what is slow", func(t *testing.T) {
		if c := l.call(t, ns, "client", site+"slow/1500ms"); c.Codes["200"] != 1 {
			t.Fatalf("without a timeout: %v", c.Codes)
		}
		l.mesh(t, ns, "replace", rule("default", to("v1")+"  httpReqTimeout:\n    simpleTimeout:\n      timeout: 500ms"))
		until(t, "slow requests are 504", func() error { return l.call(t, ns, "client", site+"slow/1500ms").only("504") })
		if err := l.call(t, ns, "client", "-n 20 "+site).only("200"); err != nil {
			t.Error(err)
		}
	})

	t.Run("retries hide a failure", func(t *testing.T) {
		fail := func() {
			l.run(t, ns, "kubectl -n $NS exec deployment/server-v1 -c echo -- /echo call -method POST http://127.0.0.1:8080/fail/2")
		}
		l.mesh(t, ns, "replace", rule("default", to("v1")+"  httpReqRetries:\n    simpleRetry:\n      attempts: 3\n      perTryTimeout: 2s"))
		until(t, "two failures are hidden", func() error {
			fail()
			return l.call(t, ns, "client", site+"flaky").only("200")
		})
	})

	t.Run("deleting a rule ends its effect, by file and by name", func(t *testing.T) {
		l.run(t, ns, "meshctl delete -n $NS -f - <<'END_OF_FILE'\n"+rule("default", to("v1"))+"\nEND_OF_FILE")
		until(t, "both versions answer", func() error {
			c := l.call(t, ns, "client", "-n 20 "+site)
			if len(c.Versions) != 2 {
				return fmt.Errorf("%v answered", c.Versions)
			}
			return nil
		})
		l.run(t, ns, "meshctl delete routerule -n $NS exact")
		until(t, "the header means nothing any more", func() error {
			c := l.call(t, ns, "client", "-n 20 -H x-exact:yes "+site)
			if len(c.Versions) != 2 {
				return fmt.Errorf("%v answered", c.Versions)
			}
			return nil
		})
		if s := l.try(t, ns, "meshctl delete routerule -n $NS exact"); s.Exit != 1 {
			t.Errorf("deleting what is not there ended with %d, want 1: %s", s.Exit, s.Stderr)
		}
		if got := l.run(t, ns, "meshctl get routerules -n $NS"); strings.Contains(got, "exact") || !strings.Contains(got, "expression") {
			t.Errorf("get shows\n%s", got)
		}
	})
}

// within are the bounds of a share p of n requests at four standard deviations.
func within(n int, p float64) (low, high int) {
	mean, sigma := float64(n)*p, math.Sqrt(float64(n)*p*(1-p))
	return int(math.Ceil(mean - 4*sigma)), int(math.Floor(mean + 4*sigma))
}

// The CRD refuses what check refuses, so a bad object can only be one that is older than its rule: it comes in while the rules are off.
func TestABadObjectHarmsNothingAndSaysSo(t *testing.T) {
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server")
	l.deploy(t, ns,
		workload{Name: "client"},
		workload{Name: "server-v1", App: "server", Version: "v1"},
		workload{Name: "server-v2", App: "server", Version: "v2"},
	)
	bad := rule("bad", "  precedence: 9\n  match:\n    request:\n      headers:\n        cookie:\n          regex: \"(\"\n"+to("v2"))
	if s := l.try(t, ns, "meshctl create -n $NS -f - <<'END_OF_FILE'\n"+bad+"\nEND_OF_FILE"); s.Exit != 1 || !strings.Contains(s.Stderr, "M0105") {
		t.Errorf("meshctl create ended with %d: %s", s.Exit, s.Stderr)
	}
	if s := l.try(t, ns, "kubectl apply -n $NS -f - <<'END_OF_FILE'\n"+bad+"\nEND_OF_FILE"); s.Exit == 0 {
		t.Error("the API server took the bad rule from kubectl")
	}
	l.withoutValidation(t, ns)
	l.apply(t, ns, bad)
	l.mesh(t, ns, "create", rule("good", to("v1")))
	until(t, "the good rule works beside it", func() error { return l.answers(t, ns, "client", "http://server/", "v1") })
	condition := func(name string) func() string {
		return func() string {
			return l.run(t, ns, "kubectl -n $NS get routerule "+name+` -o jsonpath='{range .status.conditions[?(@.type=="Accepted")]}{.status} {.message}{end}'`)
		}
	}
	until(t, "the bad rule's status says what is wrong", func() error {
		if got := condition("bad")(); !strings.HasPrefix(got, "False") {
			return fmt.Errorf("Accepted is %q", got)
		}
		return nil
	})
	until(t, "the good rule's status says that it is in force", func() error {
		if got := condition("good")(); !strings.HasPrefix(got, "True") {
			return fmt.Errorf("Accepted is %q", got)
		}
		return nil
	})
	if got := l.run(t, ns, "kubectl -n $NS get routerule bad -o jsonpath={.status}"); !strings.Contains(got, "M0105") {
		t.Errorf("the status names no code: %s", got)
	}
	if got := l.run(t, ns, "meshctl proxy-status"); strings.Contains(got, "ERROR") {
		t.Errorf("a proxy was sent what it rejects:\n%s", got)
	}
}

// withoutValidation takes the rules out of the RouteRules' definition until the test ends.
func (l *lab) withoutValidation(t *testing.T, ns string) {
	t.Helper()
	const get = "kubectl get crd routerules.config.istio.io -o json"
	var crd map[string]any
	if err := json.Unmarshal([]byte(l.run(t, ns, get)), &crd); err != nil {
		t.Fatal(err)
	}
	replace := func(what any) {
		meta, _ := crd["metadata"].(map[string]any)
		delete(meta, "resourceVersion")
		delete(meta, "managedFields")
		text, err := json.Marshal(what)
		if err != nil {
			t.Fatal(err)
		}
		l.run(t, ns, "kubectl replace -f - <<'END_OF_FILE'\n"+string(text)+"\nEND_OF_FILE")
	}
	original, err := json.Marshal(crd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := json.Unmarshal(original, &crd); err != nil {
			t.Fatal(err)
		}
		replace(crd)
	})
	drop(crd, "x-kubernetes-validations")
	replace(crd)
}

// drop removes a key wherever it is.
func drop(v any, key string) {
	switch v := v.(type) {
	case map[string]any:
		delete(v, key)
		for _, e := range v {
			drop(e, key)
		}
	case []any:
		for _, e := range v {
			drop(e, key)
		}
	}
}
