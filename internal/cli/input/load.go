package input

import (
	"fmt"

	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
)

// Decode reads the sources strictly. The same object twice, in whatever files, is a finding of the second. Objects that the server is to name are
// not the same.
func Decode(sources []Source, options manifest.Options) ([]*objects.Object, []finding.Finding) {
	var objs []*objects.Object
	var fs []finding.Finding
	seen := map[objects.Key]*objects.Object{}
	for _, s := range sources {
		decoded, found := manifest.Decode(s.Name, s.Data, options)
		fs = append(fs, found...)
		for _, o := range decoded {
			if o.Value.GetName() == "" {
				objs = append(objs, o)
				continue
			}
			if first := seen[o.Key()]; first != nil && first.Origin.File != o.Origin.File {
				fs = append(fs, o.Find(finding.DuplicateObject, finding.Error, "metadata.name",
					fmt.Sprintf("the same object is in %s", first.Origin.Position("metadata.name")), "remove one of the two"))
			}
			if seen[o.Key()] == nil {
				seen[o.Key()] = o
			}
			objs = append(objs, o)
		}
	}
	return objs, fs
}

// Check judges each object by itself.
func Check(objs []*objects.Object) []finding.Finding {
	var fs []finding.Finding
	for _, o := range objs {
		fs = append(fs, check.Object(o)...)
	}
	return fs
}

// Among judges the objects among all others.
func Among(all *objects.Set, objs []*objects.Object) []finding.Finding {
	return check.Set(all, objs)
}
