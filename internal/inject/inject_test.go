package inject

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/testkit/golden"
	"github.com/meshctl/meshctl/rules"
)

func testInjector() Injector {
	in := Injector{Mesh: meshconfig.Default("istio-system"), Config: DefaultConfig(), MeshNamespace: "istio-system", Namespace: "default"}
	in.Config.Params.Images("docker.io/meshctl", "test")
	in.Config.Params.Version = "test"
	return in
}

// rewrite injects into text and returns the report lines too.
func rewrite(t *testing.T, in Injector, text []byte) (out []byte, report string) {
	t.Helper()
	out, fs := Rewrite("in.yaml", text, func(obj map[string]any) (map[string]any, bool) {
		obj, rs := in.Object(obj)
		changed := false
		for _, r := range rs {
			changed = changed || r.Changed
			report += fmt.Sprintf("%s %s\n", r.Reason, r)
		}
		return obj, changed
	})
	for _, f := range fs {
		report += f.String() + "\n"
	}
	return out, report
}

func uninject(t *testing.T, text []byte) []byte {
	t.Helper()
	out, fs := Rewrite("in.yaml", text, func(obj map[string]any) (map[string]any, bool) {
		obj, rs := Uninject(obj)
		changed := false
		for _, r := range rs {
			changed = changed || r.Changed
		}
		return obj, changed
	})
	if len(fs) != 0 {
		t.Fatalf("uninject: %v", fs)
	}
	return out
}

// Each folder of testdata/golden has in.yaml, perhaps config.yaml (an injection configuration), and the expected out.yaml and report.txt.
func TestGolden(t *testing.T) {
	cases := golden.Cases(t, "testdata/golden/*/in.*")
	if dirs := golden.Cases(t, "testdata/golden/*"); len(dirs) != len(cases) {
		t.Fatalf("%d folders have %d inputs", len(dirs), len(cases))
	}
	for _, file := range cases {
		dir := filepath.Dir(file)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			in := testInjector()
			if config, err := os.ReadFile(filepath.Join(dir, "config.yaml")); err == nil {
				c, fs := ParseConfig("config.yaml", config)
				if len(fs) != 0 {
					t.Fatal(fs)
				}
				c.Params.Version = "test"
				c.Params.Images("docker.io/meshctl", "test")
				in.Config = c
			}
			out, report := rewrite(t, in, text)
			golden.Compare(t, filepath.Join(dir, "out"+filepath.Ext(file)), out)
			golden.Compare(t, filepath.Join(dir, "report.txt"), []byte(report))

			if again, _ := rewrite(t, in, out); !bytes.Equal(out, again) {
				t.Errorf("injecting twice differs from once:\n%s", cmp.Diff(string(out), string(again)))
			}
			if strings.Contains(filepath.Base(dir), "replaces") {
				return // the original is an injected file
			}
			if back := uninject(t, out); !reflect.DeepEqual(documents(t, text), documents(t, back)) {
				t.Errorf("uninject after inject is not the original:\n%s", cmp.Diff(documents(t, text), documents(t, back)))
			}
		})
	}
}

func documents(t *testing.T, text []byte) []any {
	t.Helper()
	var docs []any
	if text[0] == '{' {
		for dec := json.NewDecoder(bytes.NewReader(text)); dec.More(); {
			var v any
			if err := dec.Decode(&v); err != nil {
				t.Fatalf("%v in\n%s", err, text)
			}
			docs = append(docs, v)
		}
		return docs
	}
	for dec := yaml.NewDecoder(bytes.NewReader(text)); ; {
		var v any
		if err := dec.Decode(&v); err != nil {
			if err.Error() == "EOF" {
				return docs
			}
			t.Fatalf("%v in\n%s", err, text)
		}
		docs = append(docs, v)
	}
}

func TestShippedFilesKeepWhatIsNotAWorkload(t *testing.T) {
	text, err := rules.FS.ReadFile("bookinfo/bookinfo-v1.yaml")
	if err != nil {
		t.Fatal(err)
	}
	out, report := rewrite(t, testInjector(), text)
	if n := strings.Count(report, "injected "); n != 3 {
		t.Errorf("injected %d, want details, reviews and productpage:\n%s", n, report)
	}
	for i, doc := range bytes.Split(text, []byte("\n---\n")) {
		if bytes.Contains(doc, []byte("kind: Service")) && !bytes.Contains(out, doc) {
			t.Errorf("document %d is not there byte for byte:\n%s", i+1, doc)
		}
	}
}

func TestDecisions(t *testing.T) {
	pod := func(edit string) map[string]any {
		var obj map[string]any
		text := "kind: Deployment\nmetadata: {name: a}\nspec: {template: {metadata: {labels: {app: a}}, spec: {containers: [{name: a}]}}}\n"
		if err := yaml.Unmarshal([]byte(text), &obj); err != nil {
			t.Fatal(err)
		}
		var over map[string]any
		if err := yaml.Unmarshal([]byte(edit), &over); err != nil {
			t.Fatal(err)
		}
		merge(obj, over)
		return obj
	}
	tests := []struct {
		name, edit string
		config     func(*Config)
		want       Reason
	}{
		{"the policy decides when nothing is said", "", nil, Injected},
		{"a disabled policy", "", func(c *Config) { c.Policy = Disabled }, PolicyDisabled},
		{"yes against a disabled policy", "metadata: {annotations: {sidecar.istio.io/inject: YES}}", func(c *Config) { c.Policy = Disabled }, Injected},
		{"an unquoted true counts", "metadata: {annotations: {sidecar.istio.io/inject: true}}", func(c *Config) { c.Policy = Disabled }, Injected},
		{"any other value is no", "metadata: {annotations: {sidecar.istio.io/inject: perhaps}}", nil, Annotation},
		{"an empty value is no", "metadata: {annotations: {sidecar.istio.io/inject: ''}}", nil, Annotation},
		{"the template's no counts", "spec: {template: {metadata: {annotations: {sidecar.istio.io/inject: 'false'}}}}", nil, Annotation},
		{"the workload's own yes goes before the template's no", "{metadata: {annotations: {sidecar.istio.io/inject: 'y'}}, spec: {template: {metadata: {annotations: {sidecar.istio.io/inject: 'n'}}}}}", nil, Injected},
		{"kube-system", "metadata: {namespace: kube-system}", nil, SystemNamespace},
		{"the mesh's own namespace", "metadata: {namespace: istio-system}", nil, SystemNamespace},
		{"a system namespace whatever the annotation says", "metadata: {namespace: kube-public, annotations: {sidecar.istio.io/inject: 'true'}}", nil, SystemNamespace},
		{"an excluded namespace", "metadata: {namespace: x}", func(c *Config) { c.ExcludeNamespaces = []string{"x"} }, ExcludedNamespace},
		{"another namespace than the included", "metadata: {namespace: x}", func(c *Config) { c.Namespaces = []string{"y"} }, NamespaceNotIncluded},
		{"the included namespace", "metadata: {namespace: y}", func(c *Config) { c.Namespaces = []string{"y"} }, Injected},
		{"an empty include list includes nothing", "", func(c *Config) { c.Namespaces = nil }, NamespaceNotIncluded},
		{"the default namespace of objects that name none", "", func(c *Config) { c.Namespaces = []string{"default"} }, Injected},
		{"the node's network", "spec: {template: {spec: {hostNetwork: true}}}", nil, HostNetwork},
		{"not the node's network", "spec: {template: {spec: {hostNetwork: false}}}", nil, Injected},
		{"a pod for Windows", "spec: {template: {spec: {os: {name: windows}}}}", nil, Windows},
		{"a kind without pods", "kind: ConfigMap", nil, NotAWorkload},
		{"no pod template", "spec: {template: 5}", nil, NoPodTemplate},
		{"no containers", "spec: {template: {spec: {containers: []}}}", nil, NoPodTemplate},
		{"annotations that are a list", "metadata: {annotations: [a]}", nil, NoPodTemplate},
		{"a container named like ours", "spec: {template: {spec: {containers: [{name: istio-proxy}]}}}", nil, NameConflict},
		{"an init container named like ours", "spec: {template: {spec: {initContainers: [{name: istio-init}]}}}", nil, NameConflict},
		{"a volume named like ours", "spec: {template: {spec: {volumes: [{name: istio-token}]}}}", nil, NameConflict},
		{"a quantity that is none", "spec: {template: {metadata: {annotations: {sidecar.istio.io/proxyCPU: lots}}}}", nil, Invalid},
		{"a port that is none", "spec: {template: {metadata: {annotations: {traffic.sidecar.istio.io/excludeInboundPorts: '0'}}}}", nil, Invalid},
		{"a range that is none", "metadata: {annotations: {traffic.sidecar.istio.io/includeOutboundIPRanges: 10.0.0.0}}", nil, Invalid},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in := testInjector()
			if tt.config != nil {
				tt.config(&in.Config)
			}
			obj := pod(tt.edit)
			before := clone(obj)
			out, rs := in.Object(obj)
			if len(rs) != 1 || rs[0].Reason != tt.want {
				t.Fatalf("got %v, want %s", rs, tt.want)
			}
			if !reflect.DeepEqual(before, any(obj)) {
				t.Error("the argument was modified")
			}
			if changed := !reflect.DeepEqual(obj, out); changed != rs[0].Changed || changed != (tt.want == Injected) {
				t.Errorf("changed: %t, report says %t", changed, rs[0].Changed)
			}
		})
	}
}

func merge(into, over map[string]any) {
	for k, v := range over {
		if m, ok := v.(map[string]any); ok {
			if old, ok := into[k].(map[string]any); ok {
				merge(old, m)
				continue
			}
		}
		into[k] = v
	}
}

func TestParseConfig(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"both lists", "namespaces: [a]\nexcludeNamespaces: [b]\n", "error M0104: excludeNamespaces: is given together with namespaces"},
		{"all namespaces excluded", "excludeNamespaces: ['']\n", "error M0102: excludeNamespaces: excludes the empty name"},
		{"an unknown field", "policy: enabled\nparms: {}\n", "c.yaml:2: error M0002: parms: is not a field"},
		{"a wrong type", "params:\n  verbosity: much\n", "c.yaml:2: error M0003:"},
		{"an unknown policy is taken as enabled", "policy: perhaps\n", "warning M0102: policy:"},
		{"an unknown mode", "params: {sidecarMode: odd}\n", `error M0102: params.sidecarMode: "odd" is not a mode`},
		{"root as the proxy's user", "params: {sidecarProxyUID: 0}\n", "error M0102: params.sidecarProxyUID: 0"},
		{"a range that is none", "params: {includeIPRanges: 'a'}\n", "error M0102: params.includeIPRanges:"},
		{"not YAML", "a: [\n", "error M0001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, fs := ParseConfig("c.yaml", []byte(tt.text))
			if len(fs) != 1 || !strings.Contains(fs[0].String(), tt.want) {
				t.Errorf("got %v, want one with %q", fs, tt.want)
			}
		})
	}
	t.Run("what is not said keeps its default", func(t *testing.T) {
		c, fs := ParseConfig("c.yaml", []byte("policy: disabled\nparams: {proxyImage: x/y:1, imagePullPolicy: sometimes}\n"))
		want := DefaultConfig()
		want.Policy, want.Params.ProxyImage = Disabled, "x/y:1"
		if d := cmp.Diff(want, c); d != "" || len(fs) != 0 {
			t.Errorf("%v\n%s", fs, d)
		}
	})
}

func TestRewriteNamesThePlaceOfAnError(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"in a later document", "a: b\n---\n# c\nkind: Deployment\n  x: 1\n", "in.yaml:5: error M0001"},
		{"a key twice", "---\nkind: A\nkind: B\n", "in.yaml:3: error M0008"},
		{"a text", "---\njust words\n", "in.yaml:2:1: error M0003: the document is not a Kubernetes object"},
		{"bytes that are no text", "\x00\x01\x02", "in.yaml:1: error M0001"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, fs := Rewrite("in.yaml", []byte(tt.text), func(obj map[string]any) (map[string]any, bool) { return obj, false })
			if len(fs) != 1 || !strings.Contains(fs[0].String(), tt.want) || fs[0].Severity != finding.Error {
				t.Errorf("got %v, want one with %q", fs, tt.want)
			}
		})
	}
	t.Run("every document's", func(t *testing.T) {
		_, fs := Rewrite("in.yaml", []byte("a: [\n---\nb: [\n---\nc: d\n"), func(obj map[string]any) (map[string]any, bool) { return obj, false })
		if len(fs) != 2 {
			t.Errorf("got %v, want 2", fs)
		}
	})
}

// The laws, on any text: unchanged text is unchanged; injecting twice is injecting once; removal gives back the original values.
func FuzzLaws(f *testing.F) {
	for _, file := range golden.Cases(f, "testdata/golden/*/in.*") {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text, false)
		f.Add(text, true)
	}
	f.Fuzz(func(t *testing.T, text []byte, classic bool) {
		same, fs := Rewrite("in.yaml", text, func(obj map[string]any) (map[string]any, bool) { return obj, false })
		if len(fs) > 0 {
			return
		}
		if !bytes.Equal(text, same) {
			t.Fatalf("changed without being asked to:\n%q\n%q", text, same)
		}
		if bytes.Contains(text, []byte(AnnotationStatus)) {
			return // what is injected already has no original to give back
		}
		in := testInjector()
		if classic {
			in.Config.Params.Mode = Classic
		}
		var texts [3][]byte
		values := [3][]map[string]any{}
		collect := func(i int, text []byte, fn func(map[string]any) (map[string]any, []Report)) {
			out, fs := Rewrite("in.yaml", text, func(obj map[string]any) (map[string]any, bool) {
				was := clone(obj).(map[string]any)
				obj, rs := fn(obj)
				values[i] = append(values[i], obj)
				changed := !equal(was, obj)
				for _, r := range rs {
					changed = changed || r.Changed
				}
				return obj, changed
			})
			if len(fs) > 0 {
				t.Fatalf("step %d: %v\nof\n%s", i, fs, text)
			}
			texts[i] = out
		}
		collect(0, text, in.Object)
		collect(1, texts[0], in.Object)
		collect(2, texts[1], Uninject)
		if len(values[0]) != len(values[1]) || len(values[0]) != len(values[2]) {
			t.Fatalf("the number of objects changed: %d, %d, %d", len(values[0]), len(values[1]), len(values[2]))
		}
		if len(values[0]) == 0 {
			return
		}
		i := 0
		Rewrite("in.yaml", text, func(obj map[string]any) (map[string]any, bool) {
			if !equal(values[0][i], values[1][i]) {
				t.Errorf("injecting twice differs from once:\n%s\n%s", texts[0], texts[1])
			}
			if !equal(obj, values[2][i]) {
				t.Errorf("removal does not give back the original:\n%s\n%s", text, texts[2])
			}
			i++
			return obj, false
		})
	})
}

// equal compares as values; what YAML prints alike is alike (.nan is not equal to itself).
func equal(a, b any) bool { return reflect.DeepEqual(a, b) || sameValue(a, b) }

func TestStringsThatOldYAMLTakesForSomethingElseAreQuoted(t *testing.T) {
	for _, word := range []string{"y", "No", "ON", "off", "yes", "12:30:45", "1", "true", "null", "~", "1e3", "0x1f", ""} {
		out, fs := Rewrite("in.yaml", []byte("kind: A\n"), func(obj map[string]any) (map[string]any, bool) {
			obj["added"] = word
			return obj, true
		})
		if len(fs) > 0 {
			t.Fatal(fs)
		}
		if want := fmt.Sprintf("kind: A\nadded: %q\n", word); string(out) != want {
			t.Errorf("%q is written as\n%s", word, out)
		}
	}
}

// Every way in which the fields that injection touches can be absent, null, empty or filled.
func TestRemovalRestoresEveryShape(t *testing.T) {
	metas := []string{"", "metadata: null", "metadata: {}", "metadata: {annotations: null}", "metadata: {annotations: {}}", "metadata: {labels: {a: b}}", "metadata: {annotations: {a: b}}"}
	lists := []string{"", "null", "[]", "[{name: x}]"}
	n := 0
	for _, owner := range metas {
		for _, template := range metas {
			for _, inits := range lists {
				for _, volumes := range lists {
					for _, mode := range []Mode{Native, Classic} {
						text := fmt.Sprintf("kind: Deployment\n%s\nspec:\n  template:\n    %s\n    spec:\n      containers: [{name: a}]\n", owner, template)
						if inits != "" {
							text += "      initContainers: " + inits + "\n"
						}
						if volumes != "" {
							text += "      volumes: " + volumes + "\n"
						}
						var obj map[string]any
						if err := yaml.Unmarshal([]byte(text), &obj); err != nil {
							t.Fatal(err)
						}
						in := testInjector()
						in.Config.Params.Mode = mode
						once, rs := in.Object(obj)
						if rs[0].Reason != Injected {
							t.Fatalf("%v:\n%s", rs, text)
						}
						twice, rs := in.Object(once)
						if rs[0].Reason != Replaced || !reflect.DeepEqual(once, twice) {
							t.Fatalf("injecting twice differs from once:\n%s\n%s", text, cmp.Diff(once, twice))
						}
						back, rs := Uninject(twice)
						if rs[0].Reason != Removed || !reflect.DeepEqual(obj, back) {
							t.Fatalf("removal does not give back the original:\n%s\n%s", text, cmp.Diff(obj, back))
						}
						n++
					}
				}
			}
		}
	}
	if want := 7 * 7 * 4 * 4 * 2; n != want {
		t.Errorf("%d shapes, want %d", n, want)
	}
}
