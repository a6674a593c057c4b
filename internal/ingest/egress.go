package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
)

// addExternals takes over the hosts of all EgressRules that check lets through. Of two for one host the first is in force; check tells the other.
func (b *builder) addExternals() {
	taken := map[string]bool{}
	for _, o := range b.set.Kind(v1alpha2.GroupVersion.Group, "EgressRule") {
		in, ok := o.Value.(*v1alpha2.EgressRule)
		if !ok || !b.judge(o) || taken[in.Spec.Destination.Service] {
			continue
		}
		out := &model.External{Ref: refOf(o), Host: in.Spec.Destination.Service}
		taken[out.Host] = true
		if svc := b.service(out.Host); svc != nil {
			b.find(o, finding.DuplicateClaim, finding.Warning, "spec.destination.service",
				fmt.Sprintf("it is the name of service %s, which keeps it", short(svc.Hostname)), "services of the mesh need no EgressRule")
			continue
		}
		for i, p := range in.Spec.Ports {
			if reserved(p.Port) {
				b.find(o, finding.PortConflict, finding.Warning, finding.Child(finding.Item("spec.ports", i), "port"),
					fmt.Sprintf("port %d is the mesh's own; calls to it do not arrive", p.Port), "")
				continue
			}
			out.Ports = append(out.Ports, model.Port{Number: uint32(p.Port), Protocol: model.Protocol(strings.ToLower(p.Protocol))})
		}
		slices.SortFunc(out.Ports, func(x, y model.Port) int { return cmp.Compare(x.Number, y.Number) })
		if len(out.Ports) > 0 {
			b.mesh.Externals = append(b.mesh.Externals, out)
			b.externals[out.Host] = out
		}
	}
	slices.SortFunc(b.mesh.Externals, func(x, y *model.External) int { return cmp.Compare(x.Host, y.Host) })
}

// reserved says whether a port is one that the mesh keeps for itself.
func reserved(port int32) bool { return port == 15001 || port == 15006 }
