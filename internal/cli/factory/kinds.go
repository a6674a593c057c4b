package factory

import (
	"strings"

	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
)

// Kind is a mesh kind and the names it goes by.
type Kind struct {
	Kind     string
	Resource string
	// Names a user may type: singular, plural, and 0.2's with hyphens.
	Names []string
}

// GVR is the kind's resource on the server.
func (k Kind) GVR() schema.GroupVersionResource {
	return v1alpha2.GroupVersion.WithResource(k.Resource)
}

// MeshKinds are the mesh kinds, in the order they are listed.
func MeshKinds() []Kind {
	return []Kind{
		{v1alpha2.KindRouteRule, "routerules", []string{"routerule", "routerules", "route-rule", "route-rules"}},
		{v1alpha2.KindDestinationPolicy, "destinationpolicies", []string{"destinationpolicy", "destinationpolicies", "destination-policy", "destination-policies"}},
		{v1alpha2.KindEgressRule, "egressrules", []string{"egressrule", "egressrules", "egress-rule", "egress-rules"}},
	}
}

// MeshKind is the mesh kind that a user calls name, in whatever case and with or without the group.
func MeshKind(name string) (Kind, bool) {
	name = strings.ToLower(name)
	if short, ok := strings.CutSuffix(name, "."+v1alpha2.GroupVersion.Group); ok {
		name = short
	}
	for _, k := range MeshKinds() {
		for _, n := range k.Names {
			if n == name {
				return k, true
			}
		}
	}
	return Kind{}, false
}

// Types splits a comma list of types as kubectl takes it and names the mesh kinds in full, so that no other group's kind of the same name is
// meant; "all" and "mesh" are all mesh kinds.
func Types(list string) []string {
	var out []string
	for _, name := range strings.Split(list, ",") {
		if lower := strings.ToLower(name); lower == "all" || lower == "mesh" {
			for _, k := range MeshKinds() {
				out = append(out, k.GVR().GroupResource().String())
			}
			continue
		}
		if k, ok := MeshKind(name); ok {
			name = k.GVR().GroupResource().String()
		}
		out = append(out, name)
	}
	return out
}

// ResourceArgs rewrites TYPE[,TYPE] [NAME...] or TYPE/NAME arguments so that mesh kinds are named in full.
func ResourceArgs(args []string) []string {
	out := make([]string, 0, len(args))
	for n, arg := range args {
		if kind, name, ok := strings.Cut(arg, "/"); ok {
			out = append(out, strings.Join(Types(kind), ",")+"/"+name)
			continue
		}
		if n == 0 {
			arg = strings.Join(Types(arg), ",")
		}
		out = append(out, arg)
	}
	return out
}
