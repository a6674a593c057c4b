package check

import (
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/memo"
	"github.com/meshctl/meshctl/internal/objects"
)

// Judge keeps the verdicts that Object and Set reach in step with a set that changes, and reaches only those anew that a change bears on. It is not
// safe for concurrent use.
type Judge struct {
	judge *judge
	// about are the objects judged among all.
	about map[objects.Key]*objects.Object
	kept  *memo.Table[objects.Key, input, []finding.Finding]
}

// NewJudge makes the judge of an empty set. It judges among all the objects for which about holds, which depends on the object alone.
func NewJudge(about func(*objects.Object) bool) *Judge {
	return &Judge{judge: newJudge(about), about: map[objects.Key]*objects.Object{}, kept: memo.New[objects.Key, input, []finding.Finding]()}
}

// Update takes note of what became of objects, and returns the keys of those that were judged anew or no longer are.
func (j *Judge) Update(edits []objects.Edit) []objects.Key {
	j.judge.changed = nil
	stale := map[objects.Key]bool{}
	for _, e := range edits {
		j.judge.edit(e.Old, e.New)
		key := e.Key()
		if _, was := j.about[key]; was {
			stale[key] = true
			delete(j.about, key)
		}
		if e.New != nil && j.judge.asked(e.New) {
			stale[key] = true
			j.about[key] = e.New
		}
	}
	for _, key := range j.kept.Readers(j.judge.changed...) {
		stale[key] = true
	}
	out := make([]objects.Key, 0, len(stale))
	for key := range stale {
		out = append(out, key)
		j.kept.Drop(key)
		if o := j.about[key]; o != nil {
			j.kept.Get(key, func(read func(input)) []finding.Finding { return j.judge.among(o, read) })
		}
	}
	return out
}

// Object is what Object says of o, known already if o is of the set.
func (j *Judge) Object(o *objects.Object) []finding.Finding {
	if v, ok := j.judge.verdicts[o.Key()]; ok && v.object == o {
		return v.findings
	}
	return Object(o)
}

// Among are the findings about an object of the set among all.
func (j *Judge) Among(key objects.Key) []finding.Finding {
	fs, _ := j.kept.Kept(key)
	return fs
}
