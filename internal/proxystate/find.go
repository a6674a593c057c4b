package proxystate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/kube"
)

// container is the name of the proxy's in an application's pod.
const container = "istio-proxy"

// AbsentError is the answer that there is no such pod, or no proxy in it.
type AbsentError struct{ text string }

func (e *AbsentError) Error() string { return e.text }

func absent(format string, args ...any) error { return &AbsentError{fmt.Sprintf(format, args...)} }

// Find is the pod that a user means by POD[.NAMESPACE], pod/POD or WORKLOAD/NAME[.NAMESPACE], in namespace unless the name says otherwise. Of a
// workload it is a pod that is ready, where there is one. It is an *AbsentError when there is none, or when it has no proxy.
func Find(ctx context.Context, client *kube.Client, name, namespace string) (*corev1.Pod, error) {
	kind, rest, ok := strings.Cut(name, "/")
	if !ok {
		kind, rest = "pod", name
	}
	pods, err := find(ctx, client, kind, rest, namespace)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		if ra, rb := Ready(a), Ready(b); ra != rb {
			if ra {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	for _, pod := range pods {
		if HasProxy(pod) {
			return pod, nil
		}
	}
	if len(pods) == 0 {
		return nil, absent("%s has no pods", name)
	}
	return nil, absent("pod %s/%s has no proxy: its template went through no kube-inject (meshctl kube-inject -f FILE | kubectl apply -f -)", pods[0].Namespace, pods[0].Name)
}

// HasProxy says whether the pod is a gateway, or has a container for the proxy: among the main ones or those that stay beside them.
func HasProxy(pod *corev1.Pod) bool {
	if role := pod.Labels["istio"]; role == "ingress" || role == "egress" {
		return true
	}
	is := func(c corev1.Container) bool { return c.Name == container }
	return slices.ContainsFunc(pod.Spec.Containers, is) || slices.ContainsFunc(pod.Spec.InitContainers, is)
}

// Ready says whether the pod takes requests.
func Ready(pod *corev1.Pod) bool {
	return pod.DeletionTimestamp == nil && slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// find takes the name as it is first, and as NAME.NAMESPACE when there is no such object.
func find(ctx context.Context, client *kube.Client, kind, name, namespace string) ([]*corev1.Pod, error) {
	pods, err := lookUp(ctx, client, kind, name, namespace)
	i := strings.LastIndex(name, ".")
	if !apierrors.IsNotFound(err) {
		return pods, err
	}
	if i > 0 {
		if pods, err = lookUp(ctx, client, kind, name[:i], name[i+1:]); !apierrors.IsNotFound(err) {
			return pods, err
		}
		return nil, absent("there is no %s %s in namespace %s, and none %s in namespace %s", kind, name, namespace, name[:i], name[i+1:])
	}
	return nil, absent("there is no %s %s in namespace %s", kind, name, namespace)
}

func lookUp(ctx context.Context, client *kube.Client, kind, name, namespace string) ([]*corev1.Pod, error) {
	resource, err := resourceOf(client, kind)
	if err != nil {
		return nil, err
	}
	u, err := client.Dynamic.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	if resource.Resource == "pods" && resource.Group == "" {
		pod, err := typed(u)
		return []*corev1.Pod{pod}, err
	}
	selector, err := selectorOf(u)
	if err != nil {
		return nil, err
	}
	found, err := client.Dynamic.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(namespace).
		List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, err
	}
	var pods []*corev1.Pod
	for i := range found.Items {
		pod, err := typed(&found.Items[i])
		if err != nil {
			return nil, err
		}
		pods = append(pods, pod)
	}
	return pods, nil
}

// resourceOf saves the question which resource is meant where the answer is known.
func resourceOf(client *kube.Client, kind string) (schema.GroupVersionResource, error) {
	switch strings.ToLower(kind) {
	case "pod", "pods", "po":
		return corev1.SchemeGroupVersion.WithResource("pods"), nil
	case "deployment", "deployments", "deploy":
		return schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}, nil
	}
	resource, err := client.Mapper.ResourceFor(schema.ParseGroupResource(kind).WithVersion(""))
	if err != nil {
		return resource, absent("the cluster has no resource %q", kind)
	}
	return resource, nil
}

// selectorOf is how a workload or a service finds its pods.
func selectorOf(u *unstructured.Unstructured) (labels.Selector, error) {
	spec, _ := u.Object["spec"].(map[string]any)
	in, ok := spec["selector"].(map[string]any)
	if !ok {
		return nil, absent("%s %s selects no pods", u.GetKind(), u.GetName())
	}
	if u.GetKind() == "Service" {
		set := labels.Set{}
		for k, v := range in {
			set[k], _ = v.(string)
		}
		return set.AsSelector(), nil
	}
	var s metav1.LabelSelector
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(in, &s); err != nil {
		return nil, fmt.Errorf("reading the selector of %s %s: %w", u.GetKind(), u.GetName(), err)
	}
	return metav1.LabelSelectorAsSelector(&s)
}

func typed(u *unstructured.Unstructured) (*corev1.Pod, error) {
	var pod corev1.Pod
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &pod); err != nil {
		return nil, fmt.Errorf("reading pod %s/%s: %w", u.GetNamespace(), u.GetName(), err)
	}
	return &pod, nil
}

// IsAbsent says whether err is the answer that there is no such proxy.
func IsAbsent(err error) bool {
	var a *AbsentError
	return errors.As(err, &a)
}
