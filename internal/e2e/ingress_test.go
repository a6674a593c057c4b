package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"
)

func TestIngressClasses(t *testing.T) {
	t.Parallel()
	l := open(t)
	ns := l.namespace(t)
	l.services(t, ns, "server", "empty")
	l.deploy(t, ns, workload{Name: "server"})
	ingress := func(name, head, class, host, service string) string {
		return fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: %s
%s
spec:
%s
  rules:
  - host: %s
    http:
      paths:
      - {path: /, pathType: Prefix, backend: {service: {name: %s, port: {number: 80}}}}
---
`, name, head, class, host, service)
	}
	l.apply(t, ns, ingress("annotated", `  annotations: {kubernetes.io/ingress.class: istio}`, "", ns+"-annotated.example", "server")+
		ingress("named", "", "  ingressClassName: istio", ns+"-named.example", "server")+
		ingress("other", "", "  ingressClassName: nginx", ns+"-other.example", "server")+
		ingress("none", "", "", ns+"-none.example", "server")+
		ingress("empty", "", "  ingressClassName: istio", ns+"-empty.example", "empty"))
	get := func(host, path string) (int, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, l.site(t)+path, nil)
		if err != nil {
			return 0, err
		}
		req.Host = host
		res, err := (&http.Client{Timeout: 10 * time.Second}).Do(req)
		if err != nil {
			return 0, err
		}
		defer res.Body.Close()
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, err
	}
	is := func(host string, want int) {
		t.Helper()
		until(t, fmt.Sprintf("%s is %d", host, want), func() error {
			got, err := get(host, "/any/path")
			if err == nil && got != want {
				err = fmt.Errorf("got %d", got)
			}
			return err
		})
	}
	is(ns+"-annotated.example", http.StatusOK)
	is(ns+"-named.example", http.StatusOK)
	is(ns+"-empty.example", http.StatusServiceUnavailable)
	// The ingress has all of them by now; what is of another class, or of nobody's, must not be there.
	for _, host := range []string{ns + "-other.example", ns + "-none.example", "unknown.example"} {
		got, err := get(host, "/")
		if err != nil || got != http.StatusNotFound {
			t.Errorf("%s is %d, %v; want 404", host, got, err)
		}
	}
	l.run(t, ns, "meshctl delete ingress -n $NS named || kubectl -n $NS delete ingress named")
	is(ns+"-named.example", http.StatusNotFound)
}
