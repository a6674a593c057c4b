package ingest

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// leads follows the name that an ExternalName service stands for: to another service, or to a host outside of the mesh. Names that lead in a circle
// lead to neither.
func (b *builder) leads(svc *model.Service) (inside *model.Service, outside string) {
	seen := map[string]bool{}
	for svc.ExternalName != "" {
		if seen[svc.Hostname] {
			return nil, ""
		}
		seen[svc.Hostname] = true
		name := strings.ToLower(strings.TrimSuffix(svc.ExternalName, "."))
		next := b.service(name)
		if next == nil {
			return nil, name
		}
		svc = next
	}
	return svc, ""
}

// leading is the service of a name, or the one that its name leads to in the mesh; nil when there is none.
func (b *builder) leading(host string) *model.Service {
	svc := b.service(host)
	if svc == nil {
		return nil
	}
	if inside, outside := b.leads(svc); outside == "" {
		return inside
	}
	return svc
}

// lead is what the author of something about a mere name may do.
func lead(to *model.Service) string {
	if to == nil {
		return "its name leads in a circle; change its externalName"
	}
	return "write it for service " + short(to.Hostname)
}

// judgeAlias tells of an ExternalName service whose name leads in a circle, and of ports that what it leads to in the mesh has not.
func (b *builder) judgeAlias(o *objects.Object, in *corev1.Service) *struct{} {
	if in.Spec.Type != corev1.ServiceTypeExternalName {
		return nil
	}
	svc := b.service(in.Name + "." + in.Namespace + ".svc." + b.cfg.Domain)
	if svc == nil {
		return nil
	}
	inside, outside := b.leads(svc)
	switch {
	case outside != "":
	case inside == nil:
		b.find(o, finding.NotInForce, finding.Warning, "spec.externalName", fmt.Sprintf("%q leads back here, so requests get 503", in.Spec.ExternalName), "name a host or another service")
	default:
		for _, p := range svc.Ports {
			if _, ok := inside.TargetPort(p.Number); p.Protocol.IsHTTP() && !ok {
				b.find(o, finding.NotInForce, finding.Warning, "spec.ports", fmt.Sprintf("service %s has no HTTP port %d and not just one other, so these requests get 503", short(inside.Hostname), p.Number),
					"give the port the number that the service has")
			}
		}
	}
	return nil
}
