package envoy

import (
	"github.com/meshctl/meshctl/internal/model"
)

// Builder translates one mesh for any number of proxies. What proxies share is made once. It is safe for concurrent use.
type Builder struct {
	mesh *model.Mesh
}

// NewBuilder prepares the translation of mesh, which must not change any more.
func NewBuilder(mesh *model.Mesh) *Builder {
	return &Builder{mesh: mesh}
}

// For is what proxy is told. The result must not be modified.
func (b *Builder) For(proxy model.Proxy) *Resources {
	return &Resources{}
}
