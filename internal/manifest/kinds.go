package manifest

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// newTyped is an empty object of a kind whose Go type the mesh knows and reads, nil for the others.
func newTyped(gvk schema.GroupVersionKind) objects.Value {
	switch gvk.GroupVersion().String() + "/" + gvk.Kind {
	case "config.istio.io/v1alpha2/RouteRule":
		return &v1alpha2.RouteRule{}
	case "config.istio.io/v1alpha2/DestinationPolicy":
		return &v1alpha2.DestinationPolicy{}
	case "config.istio.io/v1alpha2/EgressRule":
		return &v1alpha2.EgressRule{}
	case "v1/Service":
		return &corev1.Service{}
	case "v1/Endpoints":
		return &corev1.Endpoints{} //nolint:staticcheck // files of 2017 have them
	case "v1/Pod":
		return &corev1.Pod{}
	case "v1/ReplicationController":
		return &corev1.ReplicationController{}
	case "v1/Namespace":
		return &corev1.Namespace{}
	case "v1/Node":
		return &corev1.Node{}
	case "v1/ServiceAccount":
		return &corev1.ServiceAccount{}
	case "v1/ConfigMap":
		return &corev1.ConfigMap{}
	case "v1/Secret":
		return &corev1.Secret{}
	case "apps/v1/Deployment":
		return &appsv1.Deployment{}
	case "apps/v1/StatefulSet":
		return &appsv1.StatefulSet{}
	case "apps/v1/DaemonSet":
		return &appsv1.DaemonSet{}
	case "apps/v1/ReplicaSet":
		return &appsv1.ReplicaSet{}
	case "batch/v1/Job":
		return &batchv1.Job{}
	case "batch/v1/CronJob":
		return &batchv1.CronJob{}
	case "networking.k8s.io/v1/Ingress":
		return &networkingv1.Ingress{}
	case "networking.k8s.io/v1/IngressClass":
		return &networkingv1.IngressClass{}
	case "discovery.k8s.io/v1/EndpointSlice":
		return &discoveryv1.EndpointSlice{}
	}
	return nil
}

func meshKinds() []string {
	return []string{v1alpha2.KindRouteRule, v1alpha2.KindDestinationPolicy, v1alpha2.KindEgressRule}
}

// mixerKinds are kinds of the group that belong to policy and telemetry, which this version does not serve.
func mixerKinds() []string {
	return []string{
		"rule", "attributemanifest",
		"denier", "listchecker", "memquota", "noop", "prometheus", "stackdriver", "statsd", "stdio", "svcctrl",
		"checknothing", "listentry", "logentry", "metric", "quota", "reportnothing",
	}
}

// builtIn lists the kinds of Kubernetes that people write, by the group version that serves them; a star marks those without namespace.
func builtIn() map[string][]string {
	return map[string][]string{
		"v1": {
			"ConfigMap", "Endpoints", "Event", "LimitRange", "Namespace*", "Node*", "PersistentVolume*", "PersistentVolumeClaim", "Pod", "PodTemplate",
			"ReplicationController", "ResourceQuota", "Secret", "Service", "ServiceAccount",
		},
		"apps/v1":                         {"ControllerRevision", "DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"},
		"batch/v1":                        {"CronJob", "Job"},
		"networking.k8s.io/v1":            {"Ingress", "IngressClass*", "NetworkPolicy", "IPAddress*", "ServiceCIDR*"},
		"policy/v1":                       {"PodDisruptionBudget"},
		"autoscaling/v2":                  {"HorizontalPodAutoscaler"},
		"rbac.authorization.k8s.io/v1":    {"ClusterRole*", "ClusterRoleBinding*", "Role", "RoleBinding"},
		"storage.k8s.io/v1":               {"StorageClass*", "CSIDriver*", "CSINode*", "VolumeAttachment*", "CSIStorageCapacity"},
		"scheduling.k8s.io/v1":            {"PriorityClass*"},
		"coordination.k8s.io/v1":          {"Lease"},
		"discovery.k8s.io/v1":             {"EndpointSlice"},
		"node.k8s.io/v1":                  {"RuntimeClass*"},
		"apiextensions.k8s.io/v1":         {"CustomResourceDefinition*"},
		"apiregistration.k8s.io/v1":       {"APIService*"},
		"admissionregistration.k8s.io/v1": {"MutatingWebhookConfiguration*", "ValidatingWebhookConfiguration*", "ValidatingAdmissionPolicy*", "ValidatingAdmissionPolicyBinding*"},
	}
}

// builtInKind finds a kind in any version of group, or in any group when group is "*".
func builtInKind(group, kind string) (groupVersion string, inNamespace, ok bool) {
	for gv, kinds := range builtIn() {
		if parsed, err := schema.ParseGroupVersion(gv); err != nil || (group != "*" && parsed.Group != group) {
			continue
		}
		if slices.Contains(kinds, kind) {
			return gv, true, true
		}
		if slices.Contains(kinds, kind+"*") {
			return gv, false, true
		}
	}
	return "", false, false
}

// namespaced says whether objects of the kind live in a namespace. Of kinds that only a cluster knows it says no, and leaves them alone.
func namespaced(gvk schema.GroupVersionKind) bool {
	if isMesh(gvk) {
		return true
	}
	group := gvk.Group
	if group == "extensions" {
		group = "*"
	}
	_, inNamespace, _ := builtInKind(group, gvk.Kind)
	return inNamespace
}

func isMesh(gvk schema.GroupVersionKind) bool {
	return gvk.Group == v1alpha2.GroupVersion.Group && slices.Contains(meshKinds(), gvk.Kind)
}

// identify says what kind of object it is, and false after a finding when that is nothing to go on with.
func (s *subject) identify() (schema.GroupVersionKind, bool) {
	none := schema.GroupVersionKind{}
	apiVersion, goodVersion := s.identity("apiVersion")
	kind, goodKind := s.identity("kind")
	meta, _ := s.content["metadata"].(map[string]any)
	name, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	s.ref = finding.Object{Kind: kind, Namespace: namespace, Name: name}
	if !goodVersion || !goodKind {
		return none, false
	}
	if kind == "" {
		hint := "an object begins with apiVersion, kind and metadata"
		if apiVersion != "" {
			hint = "add kind"
		}
		s.find(finding.MissingIdentity, finding.Error, "kind", "the object has no kind", hint)
		return none, false
	}
	want := v1alpha2.GroupVersion.String()
	if slices.Contains(meshKinds(), kind) {
		if apiVersion != want {
			message := fmt.Sprintf("%s is read as %s", apiVersion, want)
			if apiVersion == "" {
				message = "the object has no apiVersion and is read as " + want
			}
			s.find(finding.RetiredVersion, finding.Warning, "apiVersion", message, "write apiVersion: "+want)
		}
		s.content["apiVersion"] = want
		return v1alpha2.GroupVersion.WithKind(kind), true
	}
	gv, err := schema.ParseGroupVersion(apiVersion)
	if err != nil {
		s.find(finding.MissingIdentity, finding.Error, "apiVersion", fmt.Sprintf("%q is no apiVersion", apiVersion), "it is group/version, or v1")
		return none, false
	}
	if apiVersion == "" || gv.Group == v1alpha2.GroupVersion.Group {
		s.unknownKind(apiVersion, kind)
		return none, false
	}
	if _, _, known := builtInKind(gv.Group, kind); !known {
		if near := nearBuiltIn(gv.Group, kind); near != "" {
			s.find(finding.UnknownKind, finding.Error, "kind", fmt.Sprintf("there is no kind %s in %s", kind, apiVersion), fmt.Sprintf("did you mean %s?", near))
			return none, false
		}
	}
	return gv.WithKind(kind), true
}

// identity reads a string that says what the object is.
func (s *subject) identity(key string) (string, bool) {
	v, ok := s.content[key].(string)
	if !ok && s.content[key] != nil {
		s.find(finding.WrongType, finding.Error, key, fmt.Sprintf("expected a string, found %s", describe(s.content[key])), "")
		return "", false
	}
	return v, true
}

// unknownKind words the finding about a kind that the mesh's group does not have, or that no apiVersion places.
func (s *subject) unknownKind(apiVersion, kind string) {
	if gv, _, ok := builtInKind("*", kind); ok && apiVersion == "" {
		s.find(finding.MissingIdentity, finding.Error, "apiVersion", "the object has no apiVersion", "write apiVersion: "+gv)
		return
	}
	message := "there is no kind " + kind
	hint := "the kinds are " + strings.Join(meshKinds(), ", ")
	near := finding.Nearest(kind, meshKinds())
	switch {
	case slices.Contains(mixerKinds(), kind):
		message, hint = fmt.Sprintf("kind %s is not served by this version", kind), "policy and telemetry come with a later release"
	case kind == "IngressRule":
		message, hint = "kind IngressRule is never stored", "write a Kubernetes Ingress with ingress class istio"
	case near != "":
		hint = fmt.Sprintf("did you mean %s?", near)
	case apiVersion == "":
		s.find(finding.MissingIdentity, finding.Error, "apiVersion", "the object has no apiVersion", "add apiVersion")
		return
	default:
		if near := finding.Nearest(kind, mixerKinds()); near != "" {
			hint = fmt.Sprintf("did you mean %s? It is not served by this version", near)
		}
	}
	s.find(finding.UnknownKind, finding.Error, "kind", message, hint)
}

// nearBuiltIn is the kind of a built-in group that kind looks like, or "".
func nearBuiltIn(group, kind string) string {
	for gv, kinds := range builtIn() {
		if parsed, err := schema.ParseGroupVersion(gv); err != nil || parsed.Group != group {
			continue
		}
		names := make([]string, len(kinds))
		for i, k := range kinds {
			names[i] = strings.TrimSuffix(k, "*")
		}
		return finding.Nearest(kind, names)
	}
	return ""
}
