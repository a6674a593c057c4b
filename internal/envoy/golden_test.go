package envoy_test

import (
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/golden"
)

// proxyAnnotation marks the pods of a case that have a proxy, and says which: sidecar or ingress.
const proxyAnnotation = "golden/proxy"

// TestGolden translates testdata/<case>/in.yaml, in a random order, for every pod that is marked to have a proxy, and compares each step with the
// files beside it: the model, the findings, and for each proxy its resources.
func TestGolden(t *testing.T) {
	for _, in := range golden.Cases(t, "testdata/*/in.yaml") {
		dir := filepath.Dir(in)
		t.Run(filepath.Base(dir), func(t *testing.T) {
			t.Parallel()
			objs := read(t, in)
			rand.Shuffle(len(objs), func(i, j int) { objs[i], objs[j] = objs[j], objs[i] })
			mesh, findings := ingest.Build(objects.NewSet(objs...), ingest.Config{AccessLog: "/dev/stdout"})
			golden.Compare(t, filepath.Join(dir, "model.yaml"), toYAML(t, mesh))
			golden.Compare(t, filepath.Join(dir, "findings.txt"), lines(findings))
			proxies := proxiesOf(mesh, objs)
			if len(proxies) == 0 {
				t.Fatal("no pod of the case has a proxy")
			}
			known := []string{"in.yaml", "model.yaml", "findings.txt"}
			for _, p := range proxies {
				name := p.Workload.Namespace + "." + p.Workload.Name
				known = append(known, name)
				r := envoy.Build(mesh, p)
				golden.Compare(t, filepath.Join(dir, name, "clusters.yaml"), resources(t, r.Clusters))
				golden.Compare(t, filepath.Join(dir, name, "endpoints.yaml"), resources(t, r.Endpoints))
				golden.Compare(t, filepath.Join(dir, name, "listeners.yaml"), resources(t, r.Listeners))
				golden.Compare(t, filepath.Join(dir, name, "routes.yaml"), resources(t, r.Routes))
				if err := envoy.Consistent(r); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
			noOrphans(t, dir, known)
		})
	}
}

// TestEnvoyAccepts lets the real Envoy judge what each proxy of the golden cases is told.
func TestEnvoyAccepts(t *testing.T) {
	envoyproc.Path(t)
	for _, in := range golden.Cases(t, "testdata/*/in.yaml") {
		mesh, _ := ingest.Build(objects.NewSet(read(t, in)...), ingest.Config{AccessLog: "/dev/stdout"})
		for _, p := range proxiesOf(mesh, read(t, in)) {
			t.Run(filepath.Base(filepath.Dir(in))+"/"+p.Workload.Name, func(t *testing.T) {
				t.Parallel()
				envoyproc.Validate(t, envoyproc.Static(t, envoy.Build(mesh, p), "127.0.0.1", 15000, nil))
			})
		}
	}
}

// read decodes a case. Its own findings are part of no case: what a file may look like is the manifest room's.
func read(t testing.TB, path string) []*objects.Object {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("reading %s: %v", path, err)
	}
	objs, fs := manifest.Decode(filepath.Base(path), text, manifest.Options{DefaultNamespace: "default"})
	if finding.HasErrors(fs) {
		t.Fatalf("reading %s: %v", path, fs)
	}
	return objs
}

// proxiesOf are the proxies of the marked pods.
func proxiesOf(mesh *model.Mesh, objs []*objects.Object) []model.Proxy {
	role := map[model.WorkloadKey]model.ProxyType{}
	for _, o := range objs {
		if kind := o.Value.GetAnnotations()[proxyAnnotation]; kind != "" {
			role[model.WorkloadKey{Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}] = model.ProxyType(kind)
		}
	}
	var out []model.Proxy
	for _, w := range mesh.Workloads {
		if kind, ok := role[w.Key]; ok {
			out = append(out, model.Proxy{Type: kind, Workload: w.Key})
		}
	}
	return out
}

// noOrphans fails when the case has files that nothing compares with.
func noOrphans(t *testing.T, dir string, known []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(known, e.Name()) {
			t.Errorf("%s belongs to nothing in the case", filepath.Join(dir, e.Name()))
		}
	}
}

func lines(fs []finding.Finding) []byte {
	var b strings.Builder
	for _, f := range fs {
		b.WriteString(f.String() + "\n")
	}
	return []byte(b.String())
}

// toYAML writes what of v is not empty.
func toYAML(t testing.TB, v any) []byte {
	t.Helper()
	text, err := yaml.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		t.Fatal(err)
	}
	out, err := yaml.Marshal(prune(tree))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// prune removes empty values, nil when nothing is left.
func prune(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for k, item := range v {
			if v[k] = prune(item); v[k] == nil {
				delete(v, k)
			}
		}
		if len(v) == 0 {
			return nil
		}
	case []any:
		for i := range v {
			v[i] = prune(v[i])
		}
		if len(v) == 0 {
			return nil
		}
	case string:
		if v == "" {
			return nil
		}
	case float64:
		if v == 0 {
			return nil
		}
	case bool:
		if !v {
			return nil
		}
	}
	return v
}

// resources writes resources as YAML documents. Versions are left out: they are hashes of what is there.
func resources(t testing.TB, rs []*envoy.Resource) []byte {
	t.Helper()
	var b strings.Builder
	for _, r := range rs {
		text, err := protojson.Marshal(envoy.Message(r))
		if err != nil {
			t.Fatalf("writing %s: %v", r.Name, err)
		}
		doc, err := yaml.JSONToYAML(text)
		if err != nil {
			t.Fatalf("writing %s: %v", r.Name, err)
		}
		b.WriteString("---\n")
		for _, ref := range r.Refs {
			b.WriteString("# from " + ref.Kind + " " + ref.Namespace + "/" + ref.Name + "\n")
		}
		b.Write(doc)
	}
	return []byte(b.String())
}
