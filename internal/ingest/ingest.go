// Package ingest turns an objects set into a model, plus findings per object.
//
// In: a frozen set of Kubernetes and mesh objects. Out: the mesh they describe. An object that check refuses is left out with its findings and
// changes nothing else; what a rule asks for and does not get is said by a finding, too. Everything is pure, and the order objects came in does
// not matter.
package ingest

import (
	"cmp"
	"slices"
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
	b := &builder{
		set:      set,
		cfg:      cfg.withDefaults(),
		services: map[string]*model.Service{}, externals: map[string]*model.External{},
	}
	b.mesh = &model.Mesh{Domain: b.cfg.Domain, ConnectTimeout: b.cfg.ConnectTimeout, AccessLog: b.cfg.AccessLog, Roots: b.cfg.Roots, DetectionTimeout: max(b.cfg.DetectionTimeout, 0),
		Closed: b.cfg.Closed}
	b.addWorkloads()
	b.addServices()
	b.judgeAliases()
	b.addEndpoints()
	b.addInbound()
	b.addExternals()
	b.addRules()
	b.addPolicies()
	b.addIngresses()
	b.findings = append(b.findings, check.Set(set, b.judged)...)
	return b.mesh, distinct(b.findings)
}

// builder holds what the steps of Build hand to each other.
type builder struct {
	set      *objects.Set
	cfg      Config
	mesh     *model.Mesh
	findings []finding.Finding
	// judged are the objects that check is asked about as a set.
	judged []*objects.Object

	services map[string]*model.Service
	// endpoints by hostname.
	endpoints map[string]*model.Endpoints
	// externals by host.
	externals map[string]*model.External
	// selectors of the services that have one, by hostname.
	selectors map[string]map[string]string
	// targets are the container ports of a service's port: a number, or the name that each pod resolves for itself.
	targets   map[string][]targetPort
	workloads map[model.WorkloadKey]*pod
	byIP      map[string]*pod
}

// service is the one with the hostname, nil when there is none. What is made of an object looks services up in no other way, so that it is known
// what must be made anew when one changes.
func (b *builder) service(hostname string) *model.Service { return b.services[hostname] }

// external is the host outside of the mesh that was declared by the name, nil when none was. As for services, there is no other way.
func (b *builder) external(host string) *model.External { return b.externals[host] }

// find records a finding about an object.
func (b *builder) find(o *objects.Object, code finding.Code, severity finding.Severity, field, message, hint string) {
	b.findings = append(b.findings, o.Find(code, severity, field, message, hint))
}

// judge asks check about o by itself, and says whether o may be used.
func (b *builder) judge(o *objects.Object) bool {
	b.judged = append(b.judged, o)
	fs := check.Object(o)
	b.findings = append(b.findings, fs...)
	return !finding.HasErrors(fs)
}

func refOf(o *objects.Object) model.Ref {
	return model.Ref{Kind: o.GVK.Kind, Namespace: o.Value.GetNamespace(), Name: o.Value.GetName()}
}

// distinct sorts findings and keeps one of those that are the same.
func distinct(fs []finding.Finding) []finding.Finding {
	finding.Sort(fs)
	return slices.Compact(fs)
}
