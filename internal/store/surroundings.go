package store

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"golang.org/x/sync/errgroup"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/objects"
)

// ErrHidden is returned by Surroundings when the user may not see enough to judge objects among each other.
var ErrHidden = errors.New("the services are not readable with these credentials")

// pageSize of lists; a large namespace comes in several answers.
const pageSize = 500

// Surroundings reads what check needs to judge objects among each other: the mesh objects of the cluster, and the services, Ingresses and pods
// (their labels only) of the namespaces given.
func (s *Store) Surroundings(ctx context.Context, namespaces []string) (*objects.Set, error) {
	var mu sync.Mutex
	// check takes a set without Services for one that says nothing about names. A cluster always says something: this one every cluster has.
	all := []*objects.Object{{
		GVK:   corev1.SchemeGroupVersion.WithKind("Service"),
		Value: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes", Namespace: metav1.NamespaceDefault}},
	}}
	add := func(objs []*objects.Object) {
		mu.Lock()
		defer mu.Unlock()
		all = append(all, objs...)
	}
	group, ctx := errgroup.WithContext(ctx)
	for resource, prototype := range map[string]func() objects.Value{
		"routerules":          func() objects.Value { return &v1alpha2.RouteRule{} },
		"destinationpolicies": func() objects.Value { return &v1alpha2.DestinationPolicy{} },
		"egressrules":         func() objects.Value { return &v1alpha2.EgressRule{} },
	} {
		group.Go(func() error {
			objs, err := s.listEverywhere(ctx, v1alpha2.GroupVersion.WithResource(resource), namespaces, prototype)
			add(objs)
			return err
		})
	}
	for _, ns := range namespaces {
		group.Go(func() error {
			objs, err := s.list(ctx, corev1.SchemeGroupVersion.WithResource("services"), ns, func() objects.Value { return &corev1.Service{} })
			add(objs)
			if apierrors.IsForbidden(err) {
				return ErrHidden
			}
			return err
		})
		group.Go(func() error {
			objs, err := s.list(ctx, networkingv1.SchemeGroupVersion.WithResource("ingresses"), ns, func() objects.Value { return &networkingv1.Ingress{} })
			add(objs)
			return ignoreForbidden(err)
		})
		group.Go(func() error {
			objs, err := s.listPods(ctx, ns)
			add(objs)
			if apierrors.IsForbidden(err) {
				return ErrHidden
			}
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	return objects.NewSet(all...), nil
}

// listEverywhere lists the whole cluster, or the namespaces given where only those may be read. A kind the server lacks has no objects.
func (s *Store) listEverywhere(ctx context.Context, resource schema.GroupVersionResource, namespaces []string, prototype func() objects.Value) ([]*objects.Object, error) {
	objs, err := s.list(ctx, resource, metav1.NamespaceAll, prototype)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if !apierrors.IsForbidden(err) {
		return objs, err
	}
	objs = nil
	for _, ns := range namespaces {
		found, err := s.list(ctx, resource, ns, prototype)
		if ignoreForbidden(err) != nil {
			return nil, err
		}
		objs = append(objs, found...)
	}
	return objs, nil
}

func (s *Store) list(ctx context.Context, resource schema.GroupVersionResource, namespace string, prototype func() objects.Value) ([]*objects.Object, error) {
	var objs []*objects.Object
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := s.client.Dynamic.Resource(resource).Namespace(namespace).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			objs = append(objs, typed(&list.Items[i], prototype()))
		}
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return objs, nil
		}
	}
}

// typed is an object of the cluster as check reads it. One that does not fit its type, which a CRD schema of another release may let in,
// stays as it is.
func typed(u *unstructured.Unstructured, into objects.Value) *objects.Object {
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, into); err != nil {
		into = u
	}
	return &objects.Object{GVK: u.GroupVersionKind(), Value: into, Origin: objects.Origin{Version: u.GetResourceVersion()}}
}

// listPods reads the pods' metadata alone: a namespace with thousands of pods costs a tenth of the whole objects.
func (s *Store) listPods(ctx context.Context, namespace string) ([]*objects.Object, error) {
	client, err := metadata.NewForConfig(s.client.Config)
	if err != nil {
		return nil, fmt.Errorf("preparing to list pods: %w", err)
	}
	var objs []*objects.Object
	options := metav1.ListOptions{Limit: pageSize}
	for {
		list, err := client.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace).List(ctx, options)
		if err != nil {
			return nil, err
		}
		for i := range list.Items {
			m := &list.Items[i]
			objs = append(objs, &objects.Object{
				GVK:    corev1.SchemeGroupVersion.WithKind("Pod"),
				Value:  &corev1.Pod{ObjectMeta: m.ObjectMeta},
				Origin: objects.Origin{Version: m.ResourceVersion},
			})
		}
		if options.Continue = list.Continue; options.Continue == "" {
			return objs, nil
		}
	}
}

func ignoreForbidden(err error) error {
	if apierrors.IsForbidden(err) {
		return nil
	}
	return err
}

// NamespacesOf lists the namespaces whose services obj speaks of: its own, and those that a destination or source in it names.
func NamespacesOf(obj *unstructured.Unstructured) []string {
	found := map[string]bool{}
	if ns := obj.GetNamespace(); ns != "" {
		found[ns] = true
	}
	collectNamespaces(obj.Object["spec"], found)
	out := make([]string, 0, len(found))
	for ns := range found {
		out = append(out, ns)
	}
	return out
}

func collectNamespaces(v any, found map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			collectNamespaces(e, found)
		}
	case map[string]any:
		for key, value := range v {
			service, ok := value.(map[string]any)
			if ok && (key == "destination" || key == "source") {
				if ns, ok := service["namespace"].(string); ok && ns != "" {
					found[ns] = true
				}
				if full, ok := service["service"].(string); ok {
					if parts := strings.Split(full, "."); len(parts) > 2 && parts[2] == "svc" {
						found[parts[1]] = true
					}
				}
			}
			collectNamespaces(value, found)
		}
	}
}
