package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// addExternals takes over the hosts of all EgressRules that check lets through. Of two for one host and port the first is in force; check tells the
// other.
func (b *builder) addExternals() {
	type claim struct {
		host string
		port uint32
	}
	taken := map[claim]bool{}
	for _, o := range b.set.Kind(v1alpha2.GroupVersion.Group, "EgressRule") {
		in, ok := o.Value.(*v1alpha2.EgressRule)
		if !ok || !b.judge(o) {
			continue
		}
		out := b.newExternal(o, in)
		if out == nil {
			continue
		}
		out.Ports = slices.DeleteFunc(out.Ports, func(p model.Port) bool {
			c := claim{out.Host, p.Number}
			lost := taken[c]
			taken[c] = true
			return lost
		})
		if len(out.Ports) > 0 {
			b.mesh.Externals = append(b.mesh.Externals, out)
			if b.externals[out.Host] == nil {
				b.externals[out.Host] = out
			}
		}
	}
	slices.SortFunc(b.mesh.Externals, func(x, y *model.External) int {
		return cmp.Or(cmp.Compare(x.Host, y.Host), cmp.Compare(x.Ref.Namespace, y.Ref.Namespace), cmp.Compare(x.Ref.Name, y.Ref.Name))
	})
}

// newExternal is what an EgressRule by itself means; nil when its host is a service.
func (b *builder) newExternal(o *objects.Object, in *v1alpha2.EgressRule) *model.External {
	out := &model.External{Ref: refOf(o), Host: check.ExternalHost(in.Spec.Destination.Service)}
	if svc := b.named(out.Host, in.Namespace); svc != nil {
		b.find(o, finding.DuplicateClaim, finding.Warning, "spec.destination.service",
			fmt.Sprintf("it is the name of service %s, which keeps it", short(svc.Hostname)), "services of the mesh need no EgressRule")
		return nil
	}
	for i, p := range in.Spec.Ports {
		at := finding.Item("spec.ports", i)
		if reserved(p.Port) {
			b.find(o, finding.PortConflict, finding.Warning, finding.Child(at, "port"),
				fmt.Sprintf("port %d is the mesh's own; calls to it do not arrive", p.Port), "")
			continue
		}
		port := model.Port{Number: uint32(p.Port), Protocol: model.Protocol(strings.ToLower(p.Protocol))}
		if _, ok := out.ServerName(); !ok && port.Protocol == model.HTTPS && b.cfg.Closed {
			b.find(o, finding.NotInForce, finding.Info, finding.Child(at, "protocol"), fmt.Sprintf("TLS that applications speak themselves is refused: it does not say that it is for %s", out.Host),
				"let them speak HTTP to the port; the proxy makes it HTTPS")
		}
		out.Ports = append(out.Ports, port)
	}
	slices.SortFunc(out.Ports, func(x, y model.Port) int { return cmp.Compare(x.Number, y.Number) })
	return out
}

// named is the service that workloads of namespace call when they say host; nil for none.
func (b *builder) named(host, namespace string) *model.Service {
	words := strings.SplitN(host, ".", 3)
	switch rest := words[len(words)-1]; {
	case len(words) == 1:
		return b.service(host + "." + namespace + ".svc." + b.cfg.Domain)
	case len(words) == 2 || rest == "svc" || strings.HasPrefix("svc."+b.cfg.Domain+".", rest+"."):
		return b.service(words[0] + "." + words[1] + ".svc." + b.cfg.Domain)
	}
	return nil
}

// reserved says whether a port is one that the mesh keeps for itself.
func reserved(port int32) bool { return port == 15001 || port == 15006 }
