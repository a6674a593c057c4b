package envoy

import (
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// leads follows the name that an ExternalName service stands for: to another service, or to a host outside of the mesh. Names that lead in a circle
// lead to neither.
func (b *Builder) leads(svc *model.Service) (inside *model.Service, outside string) {
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

// aliasCluster connects to all addresses that the name of an ExternalName service has, at the service's port.
func (b *Builder) aliasCluster(s subset, up upstreamHTTP, svc *model.Service, t treatment) *Resource {
	_, host := b.leads(svc)
	m := &clusterv3.Cluster{
		Name:                          s.cluster(),
		ConnectTimeout:                duration(b.connectTimeout()),
		TypedExtensionProtocolOptions: httpOptions(up, t.breaker.MaxRequestsPerConnection),
	}
	resolved(m, host, s.port)
	t.apply(m)
	return newResource(m.GetName(), m, append(t.refs, svc.Ref())...)
}
