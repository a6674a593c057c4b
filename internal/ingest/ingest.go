// Package ingest turns an objects set into a model, plus findings per object.
//
// In: a frozen set of Kubernetes and mesh objects. Out: the mesh they describe. An object that check refuses is left out with its findings and
// changes nothing else. Everything is pure, and the order objects came in does not matter.
package ingest

import (
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// Config is what the mesh's settings say about translation. Zero fields take the defaults named.
type Config struct {
	// Domain is the cluster's DNS suffix: cluster.local.
	Domain string
	// ConnectTimeout bounds every connection attempt: 1s.
	ConnectTimeout time.Duration
	// AccessLog is the file requests are logged to; none when empty.
	AccessLog string
	// IngressClass is the class of the Ingresses served here: istio.
	IngressClass string
	// RootNamespace holds the rules that act on the whole mesh: istio-system.
	RootNamespace string
}

// Build makes the mesh that set describes.
func Build(set *objects.Set, cfg Config) (*model.Mesh, []finding.Finding) {
	return &model.Mesh{}, nil
}
