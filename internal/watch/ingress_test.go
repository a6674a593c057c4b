package watch

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is kept of Secrets in memory is what is used of them.
func TestOfACertificateOnlyItsOwnIsKept(t *testing.T) {
	in := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "shop", Namespace: "default", ResourceVersion: "7", Annotations: map[string]string{"a": "b"}, Labels: map[string]string{"c": "d"},
			ManagedFields: []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}},
		Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{"tls.crt": []byte("crt"), "tls.key": []byte("key"), "ca.crt": []byte("ca"), "keystore.p12": make([]byte, 1000)},
	}
	out := trimSecret(in)
	if got := fmt.Sprintln(out.Name, out.Namespace, out.ResourceVersion, out.Type, len(out.Data), string(out.Data["tls.crt"]), string(out.Data["tls.key"]), len(out.Annotations), len(out.Labels), len(out.ManagedFields)); got !=
		"shop default 7 kubernetes.io/tls 2 crt key 0 0 0\n" {
		t.Error(got)
	}
	// A renewal is a change, although a Secret has no generation; an annotation is none.
	renewed, annotated := out.DeepCopy(), out.DeepCopy()
	renewed.Data["tls.crt"], renewed.ResourceVersion = []byte("new"), "8"
	annotated.ResourceVersion = "8"
	if !matters(out, renewed) || matters(out, annotated) {
		t.Errorf("a renewal matters: %t, another version alone: %t", matters(out, renewed), matters(out, annotated))
	}
}

func TestAWritersOwnFieldsOfAStatusAreKept(t *testing.T) {
	own := ownFields([]metav1.ManagedFieldsEntry{
		{Manager: "kubectl", Subresource: "status"}, {Manager: "meshd-pilot"}, {Manager: "meshd-pilot", Subresource: "status"},
	}, "meshd-pilot")
	if len(own) != 1 || own[0].Manager != "meshd-pilot" || own[0].Subresource != "status" {
		t.Errorf("%+v", own)
	}
	if got := ownFields([]metav1.ManagedFieldsEntry{{Subresource: "status"}}, ""); got != nil {
		t.Errorf("without a manager: %+v", got)
	}
}
