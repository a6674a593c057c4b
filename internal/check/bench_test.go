package check_test

import (
	"testing"

	"github.com/meshctl/meshctl/internal/bench/cpu"
	"github.com/meshctl/meshctl/internal/bench/files"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
)

// BenchmarkCheck judges 1,000 RouteRules, each by itself and all among each other.
func BenchmarkCheck(b *testing.B) {
	objs, fs := manifest.Decode("rules.yaml", files.Rules(1000), manifest.Options{})
	if len(objs) != 1000 || len(fs) != 0 {
		b.Fatalf("%d objects, %v", len(objs), fs)
	}
	cpu.Loop(b, func() {
		set := objects.NewSet(objs...)
		for _, o := range objs {
			if fs := check.Object(o); len(fs) != 0 {
				b.Fatal(fs)
			}
		}
		if fs := check.Set(set, objs); len(fs) != 0 {
			b.Fatal(fs)
		}
	})
}
