package inject_test

import (
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/files"
	"github.com/meshctl/meshctl/internal/inject"
	"github.com/meshctl/meshctl/internal/meshconfig"
)

// BenchmarkDeployments puts sidecars into a file of 1,000 Deployments. Parse only makes values of the YAML; Copy also writes them as YAML again,
// without comments and in another order.
func BenchmarkDeployments(b *testing.B) {
	file := files.Deployments(1000)
	docs := files.Documents(file)
	parse := func(b *testing.B, then func(any)) {
		b.SetBytes(int64(len(file)))
		cpu.Loop(b, func() {
			for _, doc := range docs {
				var v any
				if err := yaml.Unmarshal(doc, &v); err != nil {
					b.Fatal(err)
				}
				then(v)
			}
		})
	}
	b.Run("Parse", func(b *testing.B) { parse(b, func(any) {}) })
	b.Run("Copy", func(b *testing.B) {
		parse(b, func(v any) {
			if _, err := yaml.Marshal(v); err != nil {
				b.Fatal(err)
			}
		})
	})
	b.Run("Inject", func(b *testing.B) {
		in := inject.Injector{Mesh: meshconfig.Default("istio-system"), Config: inject.DefaultConfig(), MeshNamespace: "istio-system", Namespace: "default"}
		in.Config.Params.Images(inject.DefaultHub, "bench")
		in.Config.Params.Version = "bench"
		b.SetBytes(int64(len(file)))
		cpu.Loop(b, func() {
			n := 0
			_, fs := inject.Rewrite("deployments.yaml", file, func(obj map[string]any) (map[string]any, bool) {
				out, reports := in.Object(obj)
				for _, r := range reports {
					if r.Changed {
						n++
					}
				}
				return out, true
			})
			if n != 1000 || len(fs) != 0 {
				b.Fatalf("%d objects have a sidecar now, %v", n, fs)
			}
		})
	})
}
