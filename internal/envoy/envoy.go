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
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshctl/meshctl/internal/model"
)

// The types of the resources made here.
const (
	ClusterType  = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	EndpointType = "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment"
	ListenerType = "type.googleapis.com/envoy.config.listener.v3.Listener"
	RouteType    = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration"
)

// Resource is one xDS resource. It is never modified after it was made and is shared between proxies.
type Resource struct {
	Name string
	// Body is the marshalled resource.
	Body *anypb.Any
	// Version is a hash of Body: equal versions mean equal resources.
	Version string
	// Refs are the objects the resource was made from, sorted.
	Refs []model.Ref
}

// Resources are all that one proxy is told, each kind sorted by name.
type Resources struct {
	Clusters  []*Resource
	Endpoints []*Resource
	Listeners []*Resource
	Routes    []*Resource
	Secrets   []*Resource
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
	case SecretType:
		return r.Secrets
	}
	return nil
}

// Build translates mesh for one proxy. Use a Builder to translate for many.
func Build(mesh *model.Mesh, proxy model.Proxy) *Resources { return NewBuilder(mesh).For(proxy) }

// newResource marshals m.
func newResource(name string, m proto.Message, refs ...model.Ref) *Resource {
	body := pack(m)
	sum := sha256.Sum256(body.GetValue())
	slices.SortFunc(refs, compareRefs)
	return &Resource{Name: name, Body: body, Version: hex.EncodeToString(sum[:8]), Refs: slices.Compact(refs)}
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
