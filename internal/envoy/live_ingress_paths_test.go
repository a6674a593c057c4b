package envoy_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
)

// Whatever key check lets through, the proxy serves.
func TestLiveKindsOfKeys(t *testing.T) {
	var manifests strings.Builder
	var hosts []string
	add := func(name string, key crypto.Signer, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		host := name + ".example"
		template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{host}, NotAfter: time.Now().Add(time.Hour)}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			t.Fatal(err)
		}
		hosts = append(hosts, host)
		manifests.WriteString(keyPair(t, name, tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}))
		fmt.Fprintf(&manifests, `
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: %[1]s}
spec: {ingressClassName: istio, tls: [{hosts: [%[1]s.example], secretName: %[1]s}], defaultBackend: {service: {name: reviews, port: {number: 9080}}}}
`, name)
	}
	for name, curve := range map[string]elliptic.Curve{"p256": elliptic.P256(), "p384": elliptic.P384(), "p521": elliptic.P521()} {
		key, err := ecdsa.GenerateKey(curve, rand.Reader)
		add(name, key, err)
	}
	for _, bits := range []int{2048, 3072} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		add(fmt.Sprint("rsa", bits), key, err)
	}
	p := startGateway(t, reviews+manifests.String())
	for _, host := range hosts {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			conn, err := p.shake(t, &tls.Config{ServerName: host, InsecureSkipVerify: true, MinVersion: version, MaxVersion: version})
			if err != nil {
				t.Errorf("%s: %v", host, err)
			} else if got := conn.ConnectionState().PeerCertificates[0].DNSNames[0]; got != host {
				t.Errorf("%s gets the certificate of %s", host, got)
			}
		}
	}
}

func TestLivePathsOfSeveralIngresses(t *testing.T) {
	service := func(name string) string {
		in := serve(t, name, nil)
		return fmt.Sprintf("---\napiVersion: v1\nkind: Service\nmetadata: {name: %[1]s}\nspec: {clusterIP: None, ports: [{name: http, port: 80}]}\n", name) +
			pods(name, "http", "v1", name+"-1", in.port, ready)
	}
	path := func(p, kind, service string) string {
		return fmt.Sprintf("{path: %q, pathType: %s, backend: {service: {name: %s, port: {number: 80}}}}", p, kind, service)
	}
	ingress := func(name, created, spec string) string {
		return fmt.Sprintf("\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: %s, creationTimestamp: %s}\nspec:\n  ingressClassName: istio\n%s\n", name, created, spec)
	}
	host := func(name string, paths ...string) string {
		return fmt.Sprintf("  - host: %q\n    http: {paths: [%s]}", name, strings.Join(paths, ", "))
	}
	var text strings.Builder
	for _, name := range []string{"root", "foo", "foobar", "exact", "regex", "old", "young", "per-host", "everybody", "wild", "nohost"} {
		text.WriteString(service(name))
	}
	text.WriteString(ingress("a-root", "2026-01-02T00:00:00Z", "  rules:\n"+host("shop.example", path("/", "Prefix", "root"), path("/foo/bar", "Prefix", "foobar"))) +
		ingress("b-deep", "2026-01-03T00:00:00Z", "  rules:\n"+host("shop.example", path("/foo", "Prefix", "foo"), path("/foo/bar", "Exact", "exact"), path("/v[0-9]+/x", "ImplementationSpecific", "regex"))) +
		ingress("c-young", "2026-01-05T00:00:00Z", "  rules:\n"+host("two.example", path("/", "Prefix", "young"), path("/more", "Prefix", "young"))) +
		ingress("d-old", "2026-01-04T00:00:00Z", "  rules:\n"+host("two.example", path("/", "Prefix", "old"))) +
		ingress("e-default", "2026-01-06T00:00:00Z", "  defaultBackend: {service: {name: per-host, port: {number: 80}}}\n  rules:\n"+host("def.example", path("/only", "Exact", "root"))) +
		ingress("f-everybody", "2026-01-01T00:00:00Z", "  defaultBackend: {service: {name: everybody, port: {number: 80}}}") +
		ingress("g-wild", "2026-01-07T00:00:00Z", "  rules:\n"+host("*.wild.example", path("/w", "Prefix", "wild"))) +
		"\n---\napiVersion: networking.k8s.io/v1\nkind: Ingress\nmetadata: {name: h-nohost}\nspec:\n  ingressClassName: istio\n  rules: [{http: {paths: [" + path("/health", "Prefix", "nohost") + "]}}]\n")
	p := startGateway(t, text.String())
	for _, c := range []struct{ host, path, want string }{
		{"shop.example", "/", "root"},
		{"shop.example", "/foo", "foo"},
		{"shop.example", "/foo/", "foo"},
		{"shop.example", "/foo/baz", "foo"},
		{"shop.example", "/foobar", "root"},
		{"shop.example", "/foo/bar", "exact"},
		{"shop.example", "/foo/bar/", "foobar"},
		{"shop.example", "/foo/bar/x?y", "foobar"},
		{"shop.example", "/foo/x/../bar", "exact"},
		{"shop.example", "/v7/x", "regex"},
		{"shop.example", "/v7/xy", "root"},
		{"two.example", "/", "old"},
		{"two.example", "/more", "young"},
		{"def.example", "/only", "root"},
		{"def.example", "/other", "per-host"},
		{"nobody.example", "/", "everybody"},
		{"nobody.example", "/health/x", "nohost"},
		{"a.wild.example", "/w", "wild"},
		{"a.wild.example", "/health", "everybody"},
		{"b.a.wild.example", "/w", "everybody"},
		{"b.a.wild.example", "/health", "nohost"},
	} {
		if got, _ := p.who(t, plainDoor, get, c.host, c.path); got != c.want {
			t.Errorf("%s%s met %s, want %s", c.host, c.path, got, c.want)
		}
	}
	objs, _ := manifest.Decode("test", []byte(text.String()), manifest.Options{DefaultNamespace: "default"})
	_, fs := ingest.Build(objects.NewSet(objs...), ingest.Config{})
	var said []string
	for _, f := range fs {
		if f.Code == finding.DuplicateClaim {
			said = append(said, f.Object.Name+" "+f.Field+": "+f.Message)
		}
	}
	if want := "c-young spec.rules[0].http.paths[0]: Ingress default/d-old, which is older, has the same path of host two.example and is in force"; len(said) != 1 || said[0] != want {
		t.Errorf("said %q", said)
	}
}
