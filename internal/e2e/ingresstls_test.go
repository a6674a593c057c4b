package e2e_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
)

// door is where this machine reaches a port of the ingress.
func (l *lab) door(t *testing.T, port string) string {
	t.Helper()
	var address string
	until(t, "the ingress has a port "+port, func() error {
		var status struct {
			NodePorts []struct{ Namespace, Service, Port, Address string }
		}
		if err := json.Unmarshal([]byte(l.run(t, "", "meshctl sandbox status -o json")), &status); err != nil {
			return err
		}
		for _, p := range status.NodePorts {
			if p.Namespace == "istio-system" && p.Service == "istio-ingress" && p.Port == port {
				address = p.Address
				return nil
			}
		}
		return errors.New("the Service istio-ingress has no such node port")
	})
	return address
}

// visitor calls the ingress from this machine by the names of hosts.
func visitor(roots *x509.CertPool, plain, secure string, keepAlive bool) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: !keepAlive, ForceAttemptHTTP2: true,
			DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
				door := plain
				if strings.HasSuffix(to, ":443") {
					door = secure
				}
				return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, network, door)
			},
		}}
}

// keyPair makes kubectl's files of a certificate.
func keyPair(t *testing.T, pair tls.Certificate) (crt, key string) {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	crt, key = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	if err := errors.Join(os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600),
		os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
		t.Fatal(err)
	}
	return crt, key
}

func visit(c *http.Client, url string, header ...string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(context.Background(), http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

// Over TLS by the Secret that the Ingress names, by the rules of its destination for calls through the gateway, and while the gateway itself is
// replaced and its certificate is renewed.
func TestIngressOverTLS(t *testing.T) {
	l := open(t)
	ns := l.namespace(t)
	host := ns + ".example"
	l.services(t, ns, "server")
	l.deploy(t, ns, workload{Name: "server"}, workload{Name: "server-v2", App: "server", Version: "v2"})
	ca := envoyproc.NewAuthority(t)
	plain, secure := l.door(t, "http"), l.door(t, "https")
	crt, key := keyPair(t, ca.Certificate(t, host))
	l.apply(t, ns, fmt.Sprintf(`apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop, annotations: {ingress.kubernetes.io/ssl-redirect: "true"}}
spec:
  ingressClassName: istio
  tls: [{hosts: [%[1]s], secretName: shop}]
  rules:
  - host: %[1]s
    http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: server, port: {number: 80}}}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: default}
spec: {destination: {name: server}, route: [{labels: {version: v1}}]}
---
apiVersion: config.istio.io/v1alpha2
kind: RouteRule
metadata: {name: for-the-gateway}
spec:
  destination: {name: server}
  precedence: 1
  match: {source: {name: istio-ingress, namespace: istio-system, labels: {istio: ingress}}, request: {headers: {x-version: {exact: v2}}}}
  route: [{labels: {version: v2}}]
`, host))
	until(t, "the Ingress says that its Secret is missing", func() error {
		if got := l.run(t, ns, "kubectl -n $NS get ingress shop -o jsonpath={.status.loadBalancer.ingress[0].ports[0].error}"); got != "istio.io/UnusableSecret" {
			return errors.New(got)
		}
		return nil
	})
	l.run(t, ns, "kubectl -n $NS create secret tls shop --cert "+crt+" --key "+key)
	fresh := visitor(ca.Pool(), plain, secure, false)
	version := func(want string, header ...string) {
		t.Helper()
		until(t, "the host is answered by "+want, func() error {
			status, body, err := visit(fresh, "https://"+host+"/", header...)
			if err == nil && (status != http.StatusOK || !strings.Contains(body, `"version":"`+want+`"`)) {
				err = fmt.Errorf("%d %s", status, body)
			}
			return err
		})
	}
	version("v1")
	version("v2", "X-Version", "v2")
	if status, _, err := visit(fresh, "http://"+host+"/x"); err != nil || status != http.StatusPermanentRedirect {
		t.Errorf("in the clear: %d, %v", status, err)
	}

	// Two replicas, both replaced, and a certificate renewed meanwhile.
	l.run(t, ns, "kubectl -n istio-system scale deployment istio-ingress --replicas=2 && kubectl -n istio-system rollout status deployment istio-ingress --timeout=120s")
	t.Cleanup(func() { l.run(t, ns, "kubectl -n istio-system scale deployment istio-ingress --replicas=1") })
	var asked, failed atomic.Int64
	var first atomic.Value
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range []*http.Client{fresh, visitor(ca.Pool(), plain, secure, true), visitor(ca.Pool(), plain, secure, true), visitor(ca.Pool(), plain, secure, false)} {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				case <-time.After(5 * time.Millisecond): // a steady load, not as many as there can be
				}
				asked.Add(1)
				if status, _, err := visit(c, "https://"+host+"/"); err != nil || status != http.StatusOK {
					failed.Add(1)
					first.CompareAndSwap(nil, fmt.Sprint(time.Now().Format(time.TimeOnly), " ", status, " ", err))
				}
			}
		})
	}
	l.run(t, ns, "kubectl -n istio-system rollout restart deployment istio-ingress && kubectl -n istio-system rollout status deployment istio-ingress --timeout=180s")
	crt, key = keyPair(t, ca.Certificate(t, host))
	l.run(t, ns, "kubectl -n $NS create secret tls shop --cert "+crt+" --key "+key+" --dry-run=client -o yaml | kubectl apply -n $NS -f -")
	until(t, "the gateways that left are gone", func() error {
		if pods := strings.Fields(l.run(t, ns, "kubectl -n istio-system get pod -l istio=ingress -o name")); len(pods) != 2 {
			return fmt.Errorf("%v", pods)
		}
		return nil
	})
	close(done)
	wg.Wait()
	t.Logf("%d requests while both gateways were replaced and the certificate was renewed, %d failed", asked.Load(), failed.Load())
	if failed.Load() > 0 || asked.Load() < 500 {
		t.Errorf("of %d requests %d failed, first %v", asked.Load(), failed.Load(), first.Load())
	}
}
