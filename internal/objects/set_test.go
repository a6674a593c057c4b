package objects_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/objects"
)

func secret(namespace, name, version string) *objects.Object {
	return &objects.Object{
		GVK:    schema.GroupVersionKind{Version: "v1", Kind: "Secret"},
		Value:  &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}},
		Origin: objects.Origin{Version: version},
	}
}

func show(edits []objects.Edit) []string {
	var out []string
	for _, e := range edits {
		was, is := "", ""
		if e.Old != nil {
			was = e.Old.Origin.Version
		}
		if e.New != nil {
			is = e.New.Origin.Version
		}
		out = append(out, fmt.Sprintf("%s %s/%s %s>%s", e.Key().Kind, e.Key().Namespace, e.Key().Name, was, is))
	}
	return out
}

// The laws: a set made by any sequence of changes is the one that is made of the same objects at once; what Since says are its differences from
// any set before, whether it remembers them or finds them out; and the sets before stay as they were.
func TestASetMadeByChangesIsTheSetOfWhatIsThere(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	there := map[objects.Key]*objects.Object{}
	set := objects.NewSet()
	type moment struct {
		set  *objects.Set
		want []string
	}
	past := []moment{{set: set}}
	for round := range 3000 {
		var put []*objects.Object
		var drop []objects.Key
		for range r.IntN(4) {
			make := service
			if r.IntN(3) == 0 {
				make = secret
			}
			o := make(fmt.Sprint("n", r.IntN(2)), fmt.Sprint("o", r.IntN(5)), fmt.Sprint(round, "-", len(put)))
			if was := there[o.Key()]; was != nil && r.IntN(5) == 0 {
				o = was // put again
			}
			put = append(put, o)
		}
		for range r.IntN(4) {
			kind := []string{"Service", "Secret", "Pod"}[r.IntN(3)]
			drop = append(drop, objects.Key{Kind: kind, Namespace: fmt.Sprint("n", r.IntN(2)), Name: fmt.Sprint("o", r.IntN(5))})
		}
		before := set
		set = before.With(slices.Clone(put), drop)
		for _, k := range drop {
			delete(there, k)
		}
		for _, o := range put {
			there[o.Key()] = o
		}
		var all []*objects.Object
		for _, o := range there {
			all = append(all, o)
		}
		fresh := objects.NewSet(all...)
		if diff := cmp.Diff(names(fresh.All()), names(set.All())); diff != "" {
			t.Fatalf("round %d: (-want +got):\n%s", round, diff)
		}
		for _, kind := range []string{"Service", "Secret"} {
			if diff := cmp.Diff(names(fresh.Kind("", kind)), names(set.Kind("", kind))); diff != "" {
				t.Fatalf("round %d: %s (-want +got):\n%s", round, kind, diff)
			}
		}
		for k, o := range there {
			if set.Get(k) != o {
				t.Fatalf("round %d: %v is not found", round, k)
			}
		}
		for _, ns := range []string{"a", "n0", "n1", "z"} {
			want := slices.DeleteFunc(slices.Clone(fresh.Kind("", "Service")), func(o *objects.Object) bool { return o.Value.GetNamespace() != ns })
			if !slices.Equal(set.Namespace("", "Service", ns), want) {
				t.Fatalf("round %d: of namespace %s %v", round, ns, names(set.Namespace("", "Service", ns)))
			}
		}
		if set.Len() != len(there) {
			t.Fatalf("round %d: %d objects, want %d", round, set.Len(), len(there))
		}
		for range 3 {
			old := past[r.IntN(len(past))]
			if diff := cmp.Diff(show(fresh.Since(old.set)), show(set.Since(old.set))); diff != "" {
				t.Fatalf("round %d: since an older set (-found out +got):\n%s", round, diff)
			}
			if diff := cmp.Diff(old.want, names(old.set.All())); diff != "" {
				t.Fatalf("round %d: an older set has changed:\n%s", round, diff)
			}
		}
		if diff := cmp.Diff(show(fresh.Since(before)), show(set.Since(before))); diff != "" {
			t.Fatalf("round %d: since the set before (-found out +remembered):\n%s", round, diff)
		}
		past = append(past, moment{set, names(set.All())})
	}
}

func TestKindsThatDidNotChangeAreShared(t *testing.T) {
	set := objects.NewSet(service("x", "a", "1"), secret("x", "a", "1"))
	now := set.With([]*objects.Object{secret("x", "b", "1")}, nil)
	if &set.Kind("", "Service")[0] != &now.Kind("", "Service")[0] {
		t.Error("the services are copied although a secret came")
	}
	if &set.Kind("", "Secret")[0] == &now.Kind("", "Secret")[0] {
		t.Error("the secrets are not copied although one came")
	}
	if edits := now.With(now.All(), []objects.Key{{Kind: "Service", Namespace: "x", Name: "missing"}}).Since(now); len(edits) > 0 {
		t.Errorf("putting what is there and dropping what is not makes %v", show(edits))
	}
	if diff := cmp.Diff([]string{"Secret x/a >1", "Service x/a >1"}, show(set.Since(nil))); diff != "" {
		t.Errorf("since nothing:\n%s", diff)
	}
}
