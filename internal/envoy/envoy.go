// Package envoy turns a model and a proxy's role into xDS resources, one file per concern.
//
// In: a model.Mesh and the model.Proxy to configure. Out: Resources, sorted, deterministic and complete in themselves: every name they refer to
// is among them (Consistent). Everything is pure; the same mesh gives the same bytes.
//
// The names that follow from the mesh alone: a cluster and its endpoints are outbound|<port>|<labels>|<host>, a route configuration of sidecars
// is the port's number, a listener is <address>_<port>.
package envoy

import (
	"cmp"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/resource"
)

// The types of the resources made here.
const (
	ClusterType     = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType    = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType    = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType       = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
	VirtualHostType = "type.googleapis.com/envoy.config.route.v3.VirtualHost"
)

// Resource is one xDS resource.
type Resource = resource.Resource

// Resources are all that one proxy is told, each kind sorted by name.
type Resources struct {
	Clusters  []*Resource
	Endpoints []*Resource
	Listeners []*Resource
	Routes    []*Resource
	// VirtualHosts are there for proxies that take them on their own. Their names are <route configuration>/<virtual host>.
	VirtualHosts []*Resource
	Secrets      []*Resource
}

// Of lists the resources of a type URL; nil for another type.
func (r *Resources) Of(typeURL string) []*Resource {
	switch typeURL {
	case ClusterType:
		return r.Clusters
	case EndpointType:
		return r.Endpoints
	case ListenerType:
		return r.Listeners
	case RouteType:
		return r.Routes
	case VirtualHostType:
		return r.VirtualHosts
	case SecretType:
		return r.Secrets
	}
	return nil
}

// Build translates mesh for one proxy. Use a Translator to translate for many, and again.
func Build(mesh *model.Mesh, proxy model.Proxy) *Resources {
	t := NewTranslator()
	t.Update(mesh)
	return All(t.Snapshot(proxy))
}

// All lists what is in a snapshot.
func All(s *resource.Snapshot) *Resources {
	list := func(g resource.Group) []*Resource {
		return slices.SortedFunc(g.All(), func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	}
	return &Resources{
		Clusters: list(s.Clusters), Endpoints: list(s.Endpoints), Listeners: list(s.Listeners),
		Routes: list(s.Routes), VirtualHosts: list(s.VirtualHosts), Secrets: list(s.Secrets),
	}
}

// Message is a resource's content.
func Message(r *Resource) *anypb.Any { return &anypb.Any{TypeUrl: r.TypeURL, Value: r.Value} }

// newResource marshals m.
func newResource(name string, m proto.Message, refs ...model.Ref) *Resource {
	body := pack(m)
	return resource.New(body.GetTypeUrl(), name, body.GetValue(), sortedRefs(refs)...)
}

func sortedRefs(refs []model.Ref) []model.Ref {
	slices.SortFunc(refs, compareRefs)
	return slices.Clip(slices.Compact(refs))
}

// pack marshals m so that equal messages give equal bytes.
func pack(m proto.Message) *anypb.Any {
	body := &anypb.Any{}
	if err := anypb.MarshalFrom(body, m, proto.MarshalOptions{Deterministic: true}); err != nil {
		// Only invalid UTF-8 or a missing required field can do this; ingest lets neither through.
		panic(fmt.Sprintf("marshalling %T: %v", m, err))
	}
	return body
}

func compareRefs(a, b model.Ref) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// byName sorts resources.
func byName(rs []*Resource) []*Resource {
	slices.SortFunc(rs, func(a, b *Resource) int { return cmp.Compare(a.Name, b.Name) })
	return rs
}
