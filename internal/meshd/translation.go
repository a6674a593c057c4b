package meshd

import (
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
)

// translator makes an xds.Source of each mesh.
type translator struct{ envoy *envoy.Translator }

func newTranslator() *translator {
	return &translator{envoy: envoy.NewTranslator()}
}

// source translates mesh, at the cost of what differs from the one before. A source always tells of the latest mesh: who asks one that the next has already
// replaced is told what it will be told anyway.
func (t *translator) source(mesh *model.Mesh) *source {
	t.envoy.Update(mesh)
	return &source{t.envoy}
}

type source struct{ envoy *envoy.Translator }

// Snapshot implements xds.Source.
func (s *source) Snapshot(p model.Proxy) *resource.Snapshot { return s.envoy.Snapshot(p) }
