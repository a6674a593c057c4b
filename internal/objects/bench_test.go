package objects_test

import (
	"fmt"
	"testing"

	"github.com/meshctl/meshctl/internal/objects"
)

// BenchmarkSet puts one object into sets of any size, and says what changed.
func BenchmarkSet(b *testing.B) {
	for _, n := range []int{100, 1000, 5000, 50000} {
		var all []*objects.Object
		for i := range n {
			all = append(all, service(fmt.Sprint("n", i%10), fmt.Sprint("s", i), "1"), secret(fmt.Sprint("n", i%10), fmt.Sprint("s", i), "1"))
		}
		set := objects.NewSet(all...)
		b.Run(fmt.Sprint("With/objects=", n), func(b *testing.B) {
			b.ReportAllocs()
			put := []*objects.Object{service("n0", "s50", "2")}
			for b.Loop() {
				if edits := set.With(put, nil).Since(set); len(edits) != 1 {
					b.Fatal(edits)
				}
			}
		})
		b.Run(fmt.Sprint("New/objects=", n), func(b *testing.B) {
			for b.Loop() {
				if objects.NewSet(all...).Len() != 2*n {
					b.Fatal("objects are lost")
				}
			}
		})
	}
}
