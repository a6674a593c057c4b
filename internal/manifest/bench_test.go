package manifest_test

import (
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/files"
	"github.com/meshctl/meshctl/internal/manifest"
)

// BenchmarkRules reads a file of 1,000 RouteRules: Parse only makes values of the YAML, which is what reading cannot do without.
func BenchmarkRules(b *testing.B) {
	file := files.Rules(1000)
	b.Run("Parse", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		docs := files.Documents(file)
		cpu.Loop(b, func() {
			for _, doc := range docs {
				var v any
				if err := yaml.Unmarshal(doc, &v); err != nil {
					b.Fatal(err)
				}
			}
		})
	})
	b.Run("Decode", func(b *testing.B) {
		b.SetBytes(int64(len(file)))
		cpu.Loop(b, func() {
			objs, fs := manifest.Decode("rules.yaml", file, manifest.Options{})
			if len(objs) != 1000 || len(fs) != 0 {
				b.Fatalf("%d objects, %v", len(objs), fs)
			}
		})
	})
}
