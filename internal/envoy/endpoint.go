package envoy

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/meshctl/meshctl/internal/model"
)

// endpoints lists the instances of a subset. An instance that is shutting down is kept as draining: it finishes what it has and gets nothing
// new. A subset without instances is an empty list, not an absent one, which Envoy would wait for.
func endpoints(s subset, which selection, svc *model.Service, all []model.Endpoint) *Resource {
	assignment := &endpointv3.ClusterLoadAssignment{ClusterName: s.cluster()}
	var instances []*endpointv3.LbEndpoint
	for _, e := range all {
		if e.ServicePort != s.port || !which.takes(e.Labels) {
			continue
		}
		health := corev3.HealthStatus_UNKNOWN
		if !e.Ready {
			health = corev3.HealthStatus_DRAINING
		}
		instances = append(instances, lbEndpoint(e.Address, e.Port, health))
	}
	if len(instances) > 0 {
		assignment.Endpoints = []*endpointv3.LocalityLbEndpoints{{LbEndpoints: instances}}
	}
	return newResource(s.cluster(), assignment, svc.Ref())
}

func lbEndpoint(host string, port uint32, health corev3.HealthStatus) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HealthStatus:   health,
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(host, port)}},
	}
}
