package memo_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshctl/meshctl/internal/memo"
)

func TestOnlyWhatReadAChangedInputIsMadeAgain(t *testing.T) {
	inputs := map[string]int{"a": 1, "b": 2}
	made := map[string]int{}
	table := memo.New[string, string, int]()
	sum := func(key string, names ...string) int {
		return table.Get(key, func(read func(string)) int {
			made[key]++
			total := 0
			for _, n := range names {
				read(n)
				total += inputs[n]
			}
			return total
		})
	}
	for range 2 {
		if got := [2]int{sum("both", "a", "b"), sum("other", "b", "missing")}; got != [2]int{3, 2} {
			t.Fatalf("sums are %v", got)
		}
	}
	if readers := table.Readers("a", "missing", "a"); len(readers) != 2 || !slices.Contains(readers, "both") || !slices.Contains(readers, "other") || table.Len() != 2 {
		t.Errorf("a or what is missing was read for %v, and %d values are kept", readers, table.Len())
	}
	inputs["a"] = 5
	if stale := table.Changed("a"); !slices.Equal(stale, []string{"both"}) {
		t.Errorf("after a changed, %v are stale", stale)
	}
	if _, kept := table.Kept("both"); kept {
		t.Error("a stale value is still kept")
	}
	if got := [2]int{sum("both", "a", "b"), sum("other", "b", "missing")}; got != [2]int{7, 2} {
		t.Errorf("sums are %v", got)
	}
	if made["both"] != 2 || made["other"] != 1 {
		t.Errorf("made %v", made)
	}
	inputs["missing"] = 10
	table.Changed("missing")
	if got := sum("other", "b", "missing"); got != 12 {
		t.Errorf("an input that was looked for in vain and came is not seen: %d", got)
	}
	table.Drop("other")
	if stale := table.Changed("missing"); len(stale) > 0 || table.Len() != 1 {
		t.Errorf("a dropped value is stale (%v), or kept (%d)", stale, table.Len())
	}
}

// The law: whatever changes in whatever order, a kept value is the one that would be made now.
func TestKeptValuesEqualFreshOnes(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	inputs := make([]int, 20)
	table := memo.New[int, int, string]()
	// Which inputs a unit reads depends on what it finds there.
	fresh := func(key int, read func(int)) string {
		at := key
		out := ""
		for range 4 + key*4 {
			read(at)
			out += fmt.Sprint(inputs[at], ",")
			at = (at + inputs[at] + 1) % len(inputs)
		}
		return out
	}
	for round := range 2000 {
		i := r.IntN(len(inputs))
		inputs[i] = r.IntN(50)
		table.Changed(i)
		key := r.IntN(10)
		got := table.Get(key, func(read func(int)) string { return fresh(key, read) })
		if want := fresh(key, func(int) {}); got != want {
			t.Fatalf("round %d: unit %d is %s, made anew %s", round, key, got, want)
		}
	}
}
