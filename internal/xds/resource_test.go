package xds

import (
	"runtime"
	"testing"

	"google.golang.org/protobuf/types/known/anypb"
)

func TestANewStreamGetsTheWholeSetAlsoWhenTheOneItWasComparedWithIsGone(t *testing.T) {
	resource := func(name, version string) *Resource {
		return NewResource(name, version, &anypb.Any{Value: []byte(version)}, nil)
	}
	shared := resource("a", "1")
	next := NewSet(shared, resource("b", "2"))
	func() {
		if d := next.since(NewSet(shared, resource("b", "1"), resource("c", "1"))); len(d.changed) != 1 || len(d.removed) != 1 {
			t.Fatalf("%d changed, %d removed", len(d.changed), len(d.removed))
		}
	}()
	for next.from.Value() != nil {
		runtime.GC()
	}
	if d := next.since(nil); len(d.changed) != 2 || len(d.removed) != 0 {
		t.Errorf("%d of 2 resources, %d removed", len(d.changed), len(d.removed))
	}
}
