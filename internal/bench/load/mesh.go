// Package load makes meshes of any size, and proxies in any number that ask for their configuration, for measuring.
//
// In: how many services and instances, or how many proxies and where their control plane is. Out: objects, files and answers that are the same
// on every run, so that two measurements differ by what is measured alone.
package load

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

const (
	// Namespaces that services are spread over.
	Namespaces = 10
	// nodes that pods are spread over.
	nodes = 50
	// Host of the service that edits are about.
	Host = "svc-0.bench-0.svc.cluster.local"
)

// Mesh is Services services of Instances pods each: svc-I in namespace bench-(I mod 10), its pods svc-I-J, and a rule for svc-0.
type Mesh struct{ Services, Instances int }

// Namespace of service i.
func Namespace(i int) string { return fmt.Sprint("bench-", i%Namespaces) }

func service(i int) string { return fmt.Sprint("svc-", i) }

// address of pod j of service i.
func (m Mesh) address(i, j int) string {
	k := uint32(10<<24+128<<16+1) + uint32(i*m.Instances+j)
	return netip.AddrFrom4([4]byte{byte(k >> 24), byte(k >> 16), byte(k >> 8), byte(k)}).String()
}

// Pods are those of service i, all ready.
func (m Mesh) Pods(i int) []*corev1.Pod {
	var out []*corev1.Pod
	for j := range m.Instances {
		no := false
		ip := m.address(i, j)
		out = append(out, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: Namespace(i), Name: fmt.Sprint(service(i), "-", j), Labels: map[string]string{"app": service(i), "version": "v1"}},
			Spec: corev1.PodSpec{
				NodeName: fmt.Sprint("bench-node-", (i*m.Instances+j)%nodes), AutomountServiceAccountToken: &no,
				Containers: []corev1.Container{{Name: "app", Image: "app", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}}}},
			},
			Status: corev1.PodStatus{
				Phase: corev1.PodRunning, PodIP: ip, PodIPs: []corev1.PodIP{{IP: ip}},
				Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
			},
		})
	}
	return out
}

// Service i, without an address: the API server gives it one.
func (m Mesh) Service(i int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace(i), Name: service(i), Labels: map[string]string{"app": service(i)}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": service(i)},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080), Protocol: corev1.ProtocolTCP}},
		},
	}
}

// Slice of service i's instances.
func (m Mesh) Slice(i int) *discoveryv1.EndpointSlice {
	yes, no, name, port, tcp := true, false, "http", int32(8080), corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: Namespace(i), Name: service(i) + "-0", Labels: map[string]string{discoveryv1.LabelServiceName: service(i)}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
	for j, p := range m.Pods(i) {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
			Addresses:  []string{m.address(i, j)},
			Conditions: discoveryv1.EndpointConditions{Ready: &yes, Serving: &yes, Terminating: &no},
			NodeName:   &p.Spec.NodeName,
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name},
		})
	}
	return s
}

// SliceWith is the slice of svc-0 with the address of its first instance replaced: an endpoint edit.
func (m Mesh) SliceWith(address string) *discoveryv1.EndpointSlice {
	s := m.Slice(0)
	s.Endpoints[0].Addresses = []string{address}
	return s
}

// Rule for svc-0; marker is in what proxies are told of it and nowhere else: a route edit changes it.
func Rule(marker string) *v1alpha2.RouteRule {
	return &v1alpha2.RouteRule{
		TypeMeta:   metav1.TypeMeta{APIVersion: v1alpha2.GroupVersion.String(), Kind: v1alpha2.KindRouteRule},
		ObjectMeta: metav1.ObjectMeta{Namespace: Namespace(0), Name: "bench-route"},
		Spec: v1alpha2.RouteRuleSpec{
			Destination: v1alpha2.IstioService{Name: service(0)},
			Precedence:  1,
			Match:       &v1alpha2.MatchCondition{Request: &v1alpha2.RequestMatcher{Headers: map[string]v1alpha2.StringMatch{"x-bench": {Exact: &marker}}}},
			Route:       []v1alpha2.DestinationWeight{{Labels: map[string]string{"version": "v1"}, Weight: 100}},
		},
	}
}

// Objects of the mesh as the control plane would read them from a cluster.
func (m Mesh) Objects() []*objects.Object {
	var out []*objects.Object
	for i := range m.Services {
		for _, p := range m.Pods(i) {
			out = append(out, Object(corev1.SchemeGroupVersion.WithKind("Pod"), p))
		}
		svc := m.Service(i)
		svc.Spec.ClusterIP = fmt.Sprintf("10.96.%d.%d", i/250, 1+i%250)
		svc.Spec.ClusterIPs = []string{svc.Spec.ClusterIP}
		out = append(out, Object(corev1.SchemeGroupVersion.WithKind("Service"), svc), Object(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), m.Slice(i)))
	}
	return append(out, Object(v1alpha2.GroupVersion.WithKind(v1alpha2.KindRouteRule), Rule("0000")))
}

// Object wraps a typed object.
func Object(gvk schema.GroupVersionKind, v objects.Value) *objects.Object {
	return &objects.Object{GVK: gvk, Value: v, Origin: objects.Origin{Version: "1"}}
}

// Replace returns objs with the object of with's key replaced.
func Replace(objs []*objects.Object, with *objects.Object) []*objects.Object {
	out := make([]*objects.Object, len(objs))
	for i, o := range objs {
		if out[i] = o; o.Key() == with.Key() {
			out[i] = with
		}
	}
	return out
}

// RouteEdit returns objs with another rule for svc-0.
func RouteEdit(objs []*objects.Object, marker string) []*objects.Object {
	return Replace(objs, Object(v1alpha2.GroupVersion.WithKind(v1alpha2.KindRouteRule), Rule(marker)))
}

// EndpointEdit returns objs with another address for the first instance of svc-0.
func (m Mesh) EndpointEdit(objs []*objects.Object, address string) []*objects.Object {
	return Replace(objs, Object(discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), m.SliceWith(address)))
}

// Model is what the control plane makes of objs.
func Model(objs []*objects.Object) *model.Mesh {
	mesh, _ := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	return mesh
}

// Proxy is the sidecar of the pod that client i stands for: one of the first hundred services.
func (m Mesh) Proxy(i int) model.Proxy {
	s := i % min(100, m.Services)
	j := i / min(100, m.Services) % m.Instances
	return model.Proxy{
		Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: Namespace(s), Name: fmt.Sprint(service(s), "-", j)},
		Addresses: []string{m.address(s, j)}, Labels: map[string]string{"app": service(s), "version": "v1"},
	}
}

// Node is the node id by which client i introduces itself.
func (m Mesh) Node(i int) string {
	p := m.Proxy(i)
	return fmt.Sprintf("sidecar~%s~%s.%s~%s.svc.cluster.local", p.Addresses[0], p.Workload.Name, p.Workload.Namespace, p.Workload.Namespace)
}
