package watch

import (
	"reflect"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
)

// gatewaySources are what Ingresses speak of beside services: classes, and the Secrets that are certificates. No other Secret is ever read. A mesh
// that may not read them does without.
func gatewaySources(kube kubernetes.Interface) []*source {
	core := informers.NewSharedInformerFactory(kube, 0)
	certificates := informers.NewSharedInformerFactoryWithOptions(kube, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("type", string(corev1.SecretTypeTLS)).String()
	}))
	return []*source{
		{
			gvk: networkingv1.SchemeGroupVersion.WithKind("IngressClass"), resource: "ingressclasses", optional: true,
			informer: core.Networking().V1().IngressClasses().Informer(),
		},
		{
			gvk: corev1.SchemeGroupVersion.WithKind("Secret"), resource: "secrets", optional: true,
			informer: certificates.Core().V1().Secrets().Informer(),
		},
	}
}

// ready says whether everything there was at first has been seen, or is not there to be seen.
func (s *source) ready() bool {
	if s.registration.HasSynced() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.optional && apierrors.IsForbidden(s.trouble)
}

// trimSecret keeps of a certificate what makes it one.
func trimSecret(in *corev1.Secret) *corev1.Secret {
	out := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: in.Name, Namespace: in.Namespace, UID: in.UID, ResourceVersion: in.ResourceVersion},
		Type:       in.Type,
		Data:       map[string][]byte{},
	}
	for _, key := range []string{corev1.TLSCertKey, corev1.TLSPrivateKeyKey} {
		if v, ok := in.Data[key]; ok {
			out.Data[key] = v
		}
	}
	return out
}

func sameSecret(a, b *corev1.Secret) bool {
	return a.Type == b.Type && reflect.DeepEqual(a.Data, b.Data)
}

// ownFields are those of the managed fields that the manager wrote into a status: by them a writer knows its own word again.
func ownFields(all []metav1.ManagedFieldsEntry, manager string) []metav1.ManagedFieldsEntry {
	var own []metav1.ManagedFieldsEntry
	for _, e := range all {
		if manager != "" && e.Manager == manager && e.Subresource == "status" {
			own = append(own, e)
		}
	}
	return own
}
