package finding

import (
	"cmp"
	"slices"
)

// Report is findings by the object they are about, in the order of objects. It is never modified: With makes another one that shares what did not
// change.
type Report []*About

// About is all that was found about an object, sorted and nothing twice.
type About struct {
	Object   Object
	Findings []Finding
}

func compareObjects(a, b Object) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// With is the report with other findings about some objects; about none where there are none. It keeps those of changes that say what was said
// before as they were.
func (r Report) With(changes ...About) Report {
	slices.SortFunc(changes, func(a, b About) int { return compareObjects(a.Object, b.Object) })
	var out Report
	done := 0 // of r
	for _, c := range changes {
		c.Findings = slices.Clone(c.Findings)
		Sort(c.Findings)
		c.Findings = slices.Compact(c.Findings)
		at, there := r.find(c.Object)
		switch {
		case !there && len(c.Findings) == 0:
			continue
		case there && slices.Equal(r[at].Findings, c.Findings):
			continue
		case out == nil:
			out = make(Report, 0, len(r)+len(changes))
		}
		out = append(out, r[done:at]...)
		done = at
		if there {
			done++
		}
		if len(c.Findings) > 0 {
			out = append(out, &c)
		}
	}
	if out == nil {
		return r
	}
	return append(out, r[done:]...)
}

// Of is what was found about an object.
func (r Report) Of(o Object) []Finding {
	if i, ok := r.find(o); ok {
		return r[i].Findings
	}
	return nil
}

func (r Report) find(o Object) (int, bool) {
	return slices.BinarySearchFunc(r, o, func(a *About, o Object) int { return compareObjects(a.Object, o) })
}

// All findings, sorted.
func (r Report) All() []Finding {
	var out []Finding
	for _, a := range r {
		out = append(out, a.Findings...)
	}
	Sort(out)
	return out
}
