package check

import "github.com/meshctl/meshctl/internal/api/v1alpha2"

// AsCaller is a source as its author means it: a gateway's name without a namespace means the gateway, as 0.2's documents write it, unless the rule's
// own namespace has such a service, which known tells.
func AsCaller(svc v1alpha2.IstioService, known func(v1alpha2.IstioService) bool) v1alpha2.IstioService {
	if (svc.Name == "istio-ingress" || svc.Name == "istio-egress") && svc.Namespace == "" && svc.Domain == "" && !known(svc) {
		svc.Namespace = MeshNamespace
	}
	return svc
}

// caller is a source of the subject as its author means it.
func (j *judge) caller(s *subject, svc v1alpha2.IstioService) v1alpha2.IstioService {
	return AsCaller(svc, func(svc v1alpha2.IstioService) bool {
		return j.service(s, resolve(svc, s.object.Value.GetNamespace())) != nil
	})
}
