package watch

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
)

// trim drops before it is stored what the mesh never looks at; of pods that is most of them. An object in which nothing else is new stays the one
// that is stored, and one of the mesh's own becomes one of its type.
func (s *source) trim(o any) (any, error) {
	if m, ok := o.(metav1.Object); ok {
		var keep []metav1.ManagedFieldsEntry
		if _, ok := o.(*networkingv1.Ingress); ok {
			keep = ownFields(m.GetManagedFields(), s.manager)
		}
		m.SetManagedFields(keep)
	}
	switch v := o.(type) {
	case *corev1.Pod:
		return s.stored(trimPod(v)), nil
	case *corev1.Service:
		return s.stored(trimService(v)), nil
	case *discoveryv1.EndpointSlice:
		return s.stored(trimSlice(v)), nil
	case *corev1.Secret:
		return s.stored(trimSecret(v)), nil
	case *unstructured.Unstructured:
		if typed, err := typed(v); err == nil {
			return typed, nil
		}
	}
	return o, nil
}

// stored is the object that is stored already when it differs from o in nothing that matters.
func (s *source) stored(o metav1.Object) any {
	name := cache.ObjectName{Namespace: o.GetNamespace(), Name: o.GetName()}
	if old, there, err := s.informer.GetStore().GetByKey(name.String()); err == nil && there && !matters(old, o) {
		return old
	}
	return o
}

func trimService(in *corev1.Service) *corev1.Service {
	delete(in.Annotations, corev1.LastAppliedConfigAnnotation)
	in.OwnerReferences, in.Finalizers = nil, nil
	in.Status = corev1.ServiceStatus{LoadBalancer: in.Status.LoadBalancer}
	return in
}

func trimSlice(in *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	labels := map[string]string{discoveryv1.LabelServiceName: in.Labels[discoveryv1.LabelServiceName]}
	in.Annotations, in.OwnerReferences, in.Finalizers, in.Labels = nil, nil, nil, labels
	return in
}

func trimPod(p *corev1.Pod) *corev1.Pod {
	out := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.Name, Namespace: p.Namespace, UID: p.UID, ResourceVersion: p.ResourceVersion, Labels: p.Labels,
			DeletionTimestamp: p.DeletionTimestamp,
		},
		Spec: corev1.PodSpec{
			ServiceAccountName: p.Spec.ServiceAccountName, NodeName: p.Spec.NodeName, HostNetwork: p.Spec.HostNetwork,
			Hostname: p.Spec.Hostname, Subdomain: p.Spec.Subdomain,
			InitContainers: ports(p.Spec.InitContainers), Containers: ports(p.Spec.Containers),
		},
		Status: corev1.PodStatus{Phase: p.Status.Phase, PodIP: p.Status.PodIP, PodIPs: p.Status.PodIPs, HostIP: p.Status.HostIP},
	}
	for k, v := range p.Annotations {
		if strings.HasPrefix(k, "sidecar.istio.io/") {
			if out.Annotations == nil {
				out.Annotations = map[string]string{}
			}
			out.Annotations[k] = v
		}
	}
	return out
}

// ports keeps of containers what names their ports.
func ports(in []corev1.Container) []corev1.Container {
	var out []corev1.Container
	for _, c := range in {
		if len(c.Ports) > 0 {
			out = append(out, corev1.Container{Name: c.Name, Ports: c.Ports})
		}
	}
	return out
}

// matters says whether a change is one of something the mesh is made of, and not of a version or a status alone.
func matters(old, now any) bool {
	a, ok := old.(metav1.Object)
	b, ok2 := now.(metav1.Object)
	if !ok || !ok2 || a.GetResourceVersion() == b.GetResourceVersion() {
		return ok != ok2
	}
	if a.GetUID() != b.GetUID() || !reflect.DeepEqual(a.GetLabels(), b.GetLabels()) || !reflect.DeepEqual(a.GetAnnotations(), b.GetAnnotations()) ||
		(a.GetDeletionTimestamp() == nil) != (b.GetDeletionTimestamp() == nil) {
		return true
	}
	switch x := old.(type) {
	case *corev1.Pod:
		y, ok := now.(*corev1.Pod)
		return !ok || !reflect.DeepEqual(x.Spec, y.Spec) || !reflect.DeepEqual(x.Status, y.Status)
	case *corev1.Service:
		y, ok := now.(*corev1.Service)
		return !ok || !reflect.DeepEqual(x.Spec, y.Spec) || !reflect.DeepEqual(x.Status.LoadBalancer, y.Status.LoadBalancer)
	case *discoveryv1.EndpointSlice:
		y, ok := now.(*discoveryv1.EndpointSlice)
		return !ok || !reflect.DeepEqual(x.Endpoints, y.Endpoints) || !reflect.DeepEqual(x.Ports, y.Ports)
	case *networkingv1.Ingress:
		y, ok := now.(*networkingv1.Ingress)
		return !ok || !reflect.DeepEqual(x.Spec, y.Spec)
	case *corev1.Secret:
		y, ok := now.(*corev1.Secret)
		return !ok || !sameSecret(x, y)
	}
	return a.GetGeneration() != b.GetGeneration()
}

// typed is an object of the mesh's own as one of its type.
func typed(u *unstructured.Unstructured) (objects.Value, error) {
	out := newTyped(u.GetKind())
	if out == nil {
		return u, nil
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		return nil, err
	}
	return out, nil
}

// unreadable says what is wrong with a mesh object that does not fit its type, which a definition of another release may have let in. It stays
// as it came.
func unreadable(o *objects.Object) []finding.Finding {
	u, ok := o.Value.(*unstructured.Unstructured)
	if !ok {
		return nil
	}
	if _, err := typed(u); err != nil {
		return undecodable(o, u, err)
	}
	return nil
}

func newTyped(kind string) objects.Value {
	switch kind {
	case v1alpha2.KindRouteRule:
		return &v1alpha2.RouteRule{}
	case v1alpha2.KindDestinationPolicy:
		return &v1alpha2.DestinationPolicy{}
	case v1alpha2.KindEgressRule:
		return &v1alpha2.EgressRule{}
	}
	return nil
}

// undecodable asks the reader of files what is wrong: it names fields.
func undecodable(o *objects.Object, u *unstructured.Unstructured, cause error) []finding.Finding {
	var fs []finding.Finding
	spec := map[string]any{
		"apiVersion": u.GetAPIVersion(), "kind": u.GetKind(),
		"metadata": map[string]any{"name": u.GetName(), "namespace": u.GetNamespace()}, "spec": u.Object["spec"],
	}
	if text, err := json.Marshal(spec); err == nil {
		_, fs = manifest.Decode(o.Ref().String(), text, manifest.Options{})
	}
	out := fs[:0]
	for _, f := range fs {
		if f.Severity == finding.Error {
			f.Object, f.Position = o.Ref(), finding.Position{}
			out = append(out, f)
		}
	}
	if len(out) == 0 {
		out = append(out, o.Find(finding.WrongType, finding.Error, "spec", fmt.Sprintf("cannot be read: %v", cause), "correct the field or delete the object"))
	}
	return out
}
