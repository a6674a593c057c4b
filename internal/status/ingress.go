package status

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// unusableSecret is what the status of an Ingress says of its port for TLS when a Secret that it names cannot be used.
const unusableSecret = "istio.io/UnusableSecret"

// ingressStatus is the status that an Ingress should have, and whether that differs from what it has. One that the mesh does not serve any more loses
// what was written for it, and keeps what another controller wrote.
func (w *Writer) ingressStatus(view *index, o *objects.Object, in *networkingv1.Ingress) (want any, differs bool) {
	has := in.Status.LoadBalancer.Ingress
	if !view.InForce[model.Ref{Kind: "Ingress", Namespace: in.Namespace, Name: in.Name}] {
		none := map[string]any{"loadBalancer": map[string]any{"ingress": nil}}
		return none, len(has) > 0 && slices.ContainsFunc(in.ManagedFields, func(e metav1.ManagedFieldsEntry) bool { return e.Manager == w.cfg.Manager && e.Subresource == "status" })
	}
	addresses := slices.Clone(view.Addresses)
	if slices.ContainsFunc(view.findings(o), func(f finding.Finding) bool { return f.Code == finding.UnusableSecret }) {
		for i := range addresses {
			addresses[i].Ports = []networkingv1.IngressPortStatus{{Port: 443, Protocol: corev1.ProtocolTCP, Error: new(unusableSecret)}}
		}
	}
	return networkingv1.IngressStatus{LoadBalancer: networkingv1.IngressLoadBalancerStatus{Ingress: addresses}}, !sameAddresses(has, addresses)
}

func sameAddresses(a, b []networkingv1.IngressLoadBalancerIngress) bool {
	return slices.EqualFunc(a, b, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname && slices.EqualFunc(a.Ports, b.Ports, func(a, b networkingv1.IngressPortStatus) bool {
			return a.Port == b.Port && a.Protocol == b.Protocol && (a.Error == nil) == (b.Error == nil) && (a.Error == nil || *a.Error == *b.Error)
		})
	})
}
