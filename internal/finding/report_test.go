package finding_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/meshctl/meshctl/internal/finding"
)

// The law: after any changes a report has what was said last of each object, and shares with the one before what was not said anew.
func TestAReportHasWhatWasSaidLastOfEachObject(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	last := map[finding.Object][]finding.Finding{}
	var report finding.Report
	for round := range 2000 {
		said := map[finding.Object]finding.About{}
		for range r.IntN(4) {
			o := finding.Object{Kind: "K", Namespace: fmt.Sprint(r.IntN(2)), Name: fmt.Sprint(r.IntN(5))}
			about := finding.About{Object: o}
			for range r.IntN(3) {
				f := finding.Finding{Object: o, Message: fmt.Sprint(r.IntN(3))}
				about.Findings = append(about.Findings, f)
			}
			said[o] = about
		}
		var changes []finding.About
		for o, about := range said {
			changes = append(changes, about)
			fs := slices.Clone(about.Findings)
			finding.Sort(fs)
			last[o] = slices.Compact(fs)
		}
		before := report
		report = before.With(changes...)
		n := 0
		for o, want := range last {
			if !slices.Equal(report.Of(o), want) {
				t.Fatalf("round %d: of %v %v, want %v", round, o, report.Of(o), want)
			}
			n += len(want)
		}
		if all := report.All(); len(all) != n {
			t.Fatalf("round %d: %d findings, want %d", round, len(all), n)
		}
		for _, about := range report {
			i := slices.IndexFunc(before, func(b *finding.About) bool { return b.Object == about.Object })
			if i >= 0 && before[i] != about && slices.Equal(before[i].Findings, about.Findings) {
				t.Fatalf("round %d: what is said of %v has not changed and is made anew", round, about.Object)
			}
		}
	}
}
