package sandbox

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes"
)

// applyClusterObjects makes what an installer would: the rights of CoreDNS and the Service by which pods find it. CoreDNS runs on the node
// and not in a pod, so the Service has no selector and its one endpoint is the node.
func applyClusterObjects(ctx context.Context, client kubernetes.Interface, s settings) error {
	const namespace, dns = "kube-system", "kube-dns"
	create := []struct {
		what string
		do   func() error
	}{
		{"cluster role system:coredns", func() error {
			_, err := client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{
				ObjectMeta: metav1.ObjectMeta{Name: "system:coredns"},
				Rules: []rbacv1.PolicyRule{
					{APIGroups: []string{""}, Resources: []string{"services", "pods", "namespaces"}, Verbs: []string{"list", "watch"}},
					{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"}},
				},
			}, metav1.CreateOptions{})
			return err
		}},
		{"cluster role binding system:coredns", func() error {
			_, err := client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
				ObjectMeta: metav1.ObjectMeta{Name: "system:coredns"},
				RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "system:coredns"},
				Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: "system:coredns"}},
			}, metav1.CreateOptions{})
			return err
		}},
		{"service " + dns, func() error {
			_, err := client.CoreV1().Services(namespace).Create(ctx, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: dns, Labels: map[string]string{"k8s-app": dns, "kubernetes.io/name": "CoreDNS"}},
				Spec: corev1.ServiceSpec{
					ClusterIP: dnsServiceIP,
					Ports: []corev1.ServicePort{
						{Name: "dns", Protocol: corev1.ProtocolUDP, Port: 53, TargetPort: intstr.FromInt32(53)},
						{Name: "dns-tcp", Protocol: corev1.ProtocolTCP, Port: 53, TargetPort: intstr.FromInt32(53)},
					},
				},
			}, metav1.CreateOptions{})
			return err
		}},
		{"endpoints of " + dns, func() error {
			slice := &discoveryv1.EndpointSlice{
				ObjectMeta:  metav1.ObjectMeta{Name: dns + "-node", Labels: map[string]string{discoveryv1.LabelServiceName: dns}},
				AddressType: discoveryv1.AddressTypeIPv4,
				Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{s.NodeIP}, Conditions: discoveryv1.EndpointConditions{Ready: new(true)}}},
			}
			for name, protocol := range map[string]corev1.Protocol{"dns": corev1.ProtocolUDP, "dns-tcp": corev1.ProtocolTCP} {
				slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: new(name), Protocol: new(protocol), Port: new(int32(53))})
			}
			_, err := client.DiscoveryV1().EndpointSlices(namespace).Create(ctx, slice, metav1.CreateOptions{})
			return err
		}},
	}
	for _, c := range create {
		// The namespace is made by the API server itself, a moment after it says that it is ready.
		err := poll(ctx, "making "+c.what, func() error {
			if err := c.do(); err != nil && !apierrors.IsAlreadyExists(err) {
				return err
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("preparing the cluster: %w", err)
		}
	}
	return nil
}
