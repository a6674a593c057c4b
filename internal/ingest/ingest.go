// Package ingest turns an objects set into a model, plus findings per object.
//
// In: a frozen set of Kubernetes and mesh objects. Out: the mesh they describe. An object that check refuses is left out with its findings and
// changes nothing else; what a rule asks for and does not get is said by a finding, too. Everything is pure, and the order objects came in does
// not matter.
package ingest

import (
	"cmp"
	"time"

	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/meshconfig"
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
	// Roots is the file in which proxies find the certificates of the authorities they trust outside of the mesh: the system's when empty.
	Roots string
	// DetectionTimeout is how long a connection to a port that does not say its protocol may keep silent before it is taken for TCP: 100ms. Below
	// zero all such ports are TCP.
	DetectionTimeout time.Duration
	// Closed refuses what neither a service nor an EgressRule is for, where it would otherwise go where it was going.
	Closed bool
	// IngressClass is the class of the Ingresses served here: istio.
	IngressClass string
	// IngressMode says which Ingresses are served: STRICT.
	IngressMode meshconfig.IngressMode
}

func (c Config) withDefaults() Config {
	c.Domain = cmp.Or(c.Domain, check.DefaultDomain)
	c.ConnectTimeout = cmp.Or(c.ConnectTimeout, time.Second)
	c.DetectionTimeout = cmp.Or(c.DetectionTimeout, 100*time.Millisecond)
	c.IngressClass = cmp.Or(c.IngressClass, "istio")
	c.IngressMode = cmp.Or(c.IngressMode, meshconfig.IngressStrict)
	return c
}

// Build makes the mesh that set describes. The findings are those of check on the mesh's own objects and Ingresses, and what only translation
// can know; they are sorted, and no object is told the same twice.
func Build(set *objects.Set, cfg Config) (*model.Mesh, []finding.Finding) {
	mesh, report := NewKeeper().Update(set, cfg)
	return mesh, report.All()
}
