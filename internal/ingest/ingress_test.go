package ingest_test

import (
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

func TestWhoseIngressItIs(t *testing.T) {
	const all = `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: annotated, annotations: {kubernetes.io/ingress.class: istio}}
spec: {defaultBackend: {service: {name: a, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: named}
spec: {ingressClassName: istio, defaultBackend: {service: {name: a, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: edge}
spec: {ingressClassName: edge, defaultBackend: {service: {name: a, port: {number: 80}}}}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: none}
spec: {defaultBackend: {service: {name: a, port: {number: 80}}}}
`
	class := func(name, controller, isDefault string) string {
		return "\n---\napiVersion: networking.k8s.io/v1\nkind: IngressClass\nmetadata: {name: " + name + `, annotations: {ingressclass.kubernetes.io/is-default-class: "` + isDefault + `"}}` +
			"\nspec: {controller: " + controller + "}\n"
	}
	const ours, others = "istio.io/ingress-controller", "example.com/other"
	for name, c := range map[string]struct {
		classes string
		config  ingest.Config
		want    string
	}{
		"by the class's name alone":                     {"", ingest.Config{}, "annotated named"},
		"by an IngressClass of the mesh's controller":   {class("istio", ours, "false") + class("edge", ours, "false"), ingest.Config{}, "annotated edge named"},
		"the name is another controller's":              {class("istio", others, "false"), ingest.Config{}, "annotated"},
		"the mesh's class is the default one":           {class("istio", ours, "true"), ingest.Config{}, "annotated named none"},
		"another controller's class is the default one": {class("edge", others, "true"), ingest.Config{}, "annotated named"},
		"those without a class, too":                    {"", ingest.Config{IngressMode: meshconfig.IngressDefault}, "annotated named none"},
		"none":                                          {class("istio", ours, "true"), ingest.Config{IngressMode: meshconfig.IngressOff}, ""},
		"a class of another name":                       {"", ingest.Config{IngressClass: "edge"}, "edge"},
	} {
		objs, fs := manifest.Decode("test", []byte(all+c.classes), manifest.Options{DefaultNamespace: "default"})
		if finding.HasErrors(fs) {
			t.Fatal(fs)
		}
		mesh, _ := ingest.Build(objects.NewSet(objs...), c.config)
		var got []string
		for _, in := range mesh.Ingress {
			got = append(got, in.Ref.Name)
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%s: %v, want %s", name, got, c.want)
		}
	}
}

func TestCertificatesThatAreNotValidNow(t *testing.T) {
	at := func(day int) time.Time { return time.Date(2026, 3, day, 0, 0, 0, 0, time.UTC) }
	cert := &model.Certificate{Ref: model.Ref{Kind: "Secret", Namespace: "default", Name: "shop"}, NotBefore: at(2), NotAfter: at(5)}
	in := model.Ref{Kind: "Ingress", Namespace: "default", Name: "shop"}
	mesh := &model.Mesh{IngressTLS: []*model.IngressTLS{
		{Ref: in, Host: "a.example", Certificate: cert}, {Ref: in, Host: "b.example", Certificate: cert}, {Ref: in, Host: "c.example"},
	}}
	for day, want := range map[int]string{1: "is not valid before Mon, 02 Mar 2026", 3: "", 6: "expired on Thu, 05 Mar 2026"} {
		fs := ingest.Expired(mesh, at(day))
		if want == "" && len(fs) == 0 {
			continue
		}
		if len(fs) != 1 || !strings.Contains(fs[0].Message, want) || fs[0].Object.Name != "shop" || fs[0].Code != finding.DoubtfulCertificate {
			t.Errorf("on day %d: %+v", day, fs)
		}
	}
}
