package meshd

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
	"github.com/meshctl/meshctl/internal/keystore"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// gateway is a real Envoy of type ingress in a network of its own, told what to do by Pilot through the agent's relay.
type gateway struct {
	t       *testing.T
	network netns.NsHandle
}

// address is where the instances of the gateway's network listen: the API server takes no endpoint on loopback.
const address = "10.99.0.1"

// enter runs f in the gateway's network.
func (g *gateway) enter(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and the thread ends with the goroutine
		if err := netns.Set(g.network); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

func (g *gateway) dial(ctx context.Context, _, to string) (conn net.Conn, err error) {
	err = g.enter(func() error {
		conn, err = (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "tcp", to)
		return err
	})
	return conn, err
}

func (l *lab) gateway(p *process, pod string) *gateway {
	t := l.t
	t.Helper()
	envoyproc.Path(t)
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("SKIPPED, no gateway was started: network namespaces need root")
	}
	g := &gateway{t: t}
	made := make(chan error)
	go func() {
		runtime.LockOSThread()
		var err error
		if g.network, err = netns.New(); err == nil {
			err = configureLoopback()
		}
		made <- err
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.network.Close() })

	dir := t.TempDir()
	root, token := filepath.Join(dir, "root.pem"), filepath.Join(dir, "token")
	until(t, "the root is published", func() error {
		m, err := l.kube.CoreV1().ConfigMaps("istio-system").Get(t.Context(), keystore.RootConfigMap, metav1.GetOptions{})
		if err != nil {
			return err
		}
		return os.WriteFile(root, []byte(m.Data[keystore.RootKey]), 0o600)
	})
	if err := os.WriteFile(token, []byte(l.token("istio-system", "istio-ingress-service-account", pod)), 0o600); err != nil {
		t.Fatal(err)
	}
	// A socket's path is short.
	sockets, err := os.MkdirTemp("", "gw")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(sockets) })
	carrier := relay.New(relay.Config{
		Socket: filepath.Join(sockets, "xds.sock"), Address: p.addresses["xds"], ServerName: "istio-pilot.istio-system.svc", RootFile: root, TokenFile: token,
		Log: slog.New(slog.DiscardHandler),
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	listening := make(chan struct{})
	wg.Go(func() {
		if err := carrier.Run(ctx, func() { close(listening) }); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); wg.Wait() })
	<-listening
	text, err := bootstrap.JSON(bootstrap.Config{
		NodeID: "ingress~10.1.0.1~" + pod + ".istio-system~istio-system.svc.cluster.local", ServiceCluster: "istio-ingress", AdminPort: 15000,
		XDSSocket: filepath.Join(sockets, "xds.sock"), MaxConnections: 1000,
	})
	if err != nil {
		t.Fatal(err)
	}
	envoyproc.Start(t, text, envoyproc.Options{
		Admin:  "127.0.0.1:15000",
		Client: &http.Client{Transport: &http.Transport{DialContext: g.dial, DisableKeepAlives: true}},
		Start:  func(cmd *exec.Cmd) error { return g.start(cmd) },
	})
	return g
}

// start lets the thread that started Envoy live on: Envoy ends with it.
func (g *gateway) start(cmd *exec.Cmd) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		if err := netns.Set(g.network); err != nil {
			done <- err
			return
		}
		done <- cmd.Start()
		<-context.Background().Done()
	}()
	return <-done
}

func configureLoopback() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	ip, err := netlink.ParseAddr(address + "/32")
	if err != nil {
		return err
	}
	return errors.Join(netlink.LinkSetUp(lo), netlink.AddrAdd(lo, ip))
}

// client asks the gateway, each host under its own name.
func (g *gateway) client(roots *x509.CertPool, keepAlive bool) *http.Client {
	return &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots}, DisableKeepAlives: !keepAlive, ForceAttemptHTTP2: keepAlive,
		DialContext: func(ctx context.Context, network, to string) (net.Conn, error) {
			_, port, err := net.SplitHostPort(to)
			if err != nil {
				return nil, err
			}
			return g.dial(ctx, network, "127.0.0.1:"+map[string]string{"443": "8443", "80": "8080"}[port])
		},
	}}
}

// serial is that of the certificate by which a host is answered.
func serial(c *http.Client, host string) (string, error) {
	resp, err := c.Get("https://" + host + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return "", err
	}
	if resp.StatusCode != http.StatusOK {
		return "", errors.New(resp.Status)
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.String(), nil
}

// secretOf is a certificate as a Secret.
func secretOf(t *testing.T, name string, pair tls.Certificate) *corev1.Secret {
	t.Helper()
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{
		"tls.crt": pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}),
		"tls.key": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}),
	}}
}

func serialOf(t *testing.T, pair tls.Certificate) string {
	t.Helper()
	cert, err := x509.ParseCertificate(pair.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert.SerialNumber.String()
}

// load asks without pause until it is stopped, over connections that are kept and over new ones, and counts what fails.
func load(t *testing.T, clients []*http.Client, host string) (stop func()) {
	var asked, failed atomic.Int64
	var first atomic.Value
	done := make(chan struct{})
	var wg sync.WaitGroup
	for _, c := range clients {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				asked.Add(1)
				if _, err := serial(c, host); err != nil {
					failed.Add(1)
					first.CompareAndSwap(nil, err.Error())
				}
			}
		})
	}
	return func() {
		t.Helper()
		close(done)
		wg.Wait()
		t.Logf("%d requests for %s, %d failed", asked.Load(), host, failed.Load())
		if failed.Load() > 0 || asked.Load() < 100 {
			t.Errorf("of %d requests for %s %d failed, first %v", asked.Load(), host, failed.Load(), first.Load())
		}
	}
}

func TestCertificatesOfIngressesComeThroughPilot(t *testing.T) {
	l := emptyLab(t)
	l.install()
	p := l.pilot(l.as("istio-system", "istio-pilot-service-account"))
	p.ready()
	ns := l.server.Namespace(t)
	l.apply("istio-system", `
apiVersion: v1
kind: Pod
metadata: {name: gateway, labels: {istio: ingress}}
spec:
  serviceAccountName: istio-ingress-service-account
  automountServiceAccountToken: false
  securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
  containers: [{name: c, image: i, securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}}]
status: {phase: Running, hostIP: 192.0.2.7, hostIPs: [{ip: 192.0.2.7}], podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}`)
	g := l.gateway(p, "gateway")
	var web net.Listener
	if err := g.enter(func() (err error) { web, err = net.Listen("tcp", address+":0"); return err }); err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), ReadHeaderTimeout: time.Minute}
	go func() { _ = server.Serve(web) }()
	t.Cleanup(func() { server.Close() })

	ca := envoyproc.NewAuthority(t)
	one, renewed, two := ca.Certificate(t, "one.example"), ca.Certificate(t, "one.example"), ca.Certificate(t, "two.example")
	secrets := l.kube.CoreV1().Secrets(ns)
	put := func(s *corev1.Secret) {
		t.Helper()
		_, err := secrets.Update(t.Context(), s, metav1.UpdateOptions{})
		if err != nil {
			if _, err = secrets.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	put(secretOf(t, "one", one))
	l.apply(ns, fmt.Sprintf(`
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: %d}]
endpoints: [{addresses: [%s]}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: istio
  tls: [{hosts: [one.example], secretName: one}, {hosts: [two.example], secretName: two}]
  defaultBackend: {service: {name: web, port: {number: 80}}}`, web.Addr().(*net.TCPAddr).Port, address))

	fresh, kept := g.client(ca.Pool(), false), g.client(ca.Pool(), true)
	answers := func(host string, pair tls.Certificate) {
		t.Helper()
		want := serialOf(t, pair)
		until(t, host+" is answered", func() error {
			got, err := serial(fresh, host)
			if err == nil && got != want {
				err = errors.New("with another certificate")
			}
			return err
		})
	}
	closed := func(host string) {
		t.Helper()
		until(t, host+" is closed", func() error {
			if got, err := serial(fresh, host); err == nil {
				return fmt.Errorf("answered with %s", got)
			}
			return nil
		})
	}
	ingress := func(what string, is func(networkingv1.IngressStatus) bool) {
		t.Helper()
		until(t, "the Ingress "+what, func() error {
			in, err := l.kube.NetworkingV1().Ingresses(ns).Get(t.Context(), "shop", metav1.GetOptions{})
			if err == nil && !is(in.Status) {
				text, _ := json.Marshal(in.Status)
				err = errors.New(string(text))
			}
			return err
		})
	}
	trouble := func(s networkingv1.IngressStatus) bool {
		in := s.LoadBalancer.Ingress
		return len(in) == 1 && in[0].IP == "192.0.2.7" && len(in[0].Ports) == 1 && in[0].Ports[0].Error != nil && *in[0].Ports[0].Error == "istio.io/UnusableSecret"
	}
	fine := func(s networkingv1.IngressStatus) bool {
		return len(s.LoadBalancer.Ingress) == 1 && len(s.LoadBalancer.Ingress[0].Ports) == 0
	}

	answers("one.example", one)
	closed("two.example")
	ingress("says that a Secret cannot be used", trouble)

	told := func(reason, words string) {
		t.Helper()
		until(t, "an Event tells of "+words, func() error {
			list, err := l.kube.CoreV1().Events(ns).List(t.Context(), metav1.ListOptions{FieldSelector: "involvedObject.name=shop"})
			if err != nil {
				return err
			}
			for _, e := range list.Items {
				if e.Type == corev1.EventTypeWarning && e.Reason == reason && strings.Contains(e.Message, words) {
					return nil
				}
			}
			return fmt.Errorf("%d Events", len(list.Items))
		})
	}
	told("UnusableSecret", "spec.tls[1].secretName: there is no Secret two of type kubernetes.io/tls in namespace "+ns)

	// What becomes of another host's Secret, and a renewal of its own, is nothing to the connections of a host.
	stop := load(t, []*http.Client{fresh, kept, g.client(ca.Pool(), true), g.client(ca.Pool(), false)}, "one.example")
	put(secretOf(t, "two", two))
	answers("two.example", two)
	ingress("says nothing more", fine)
	put(secretOf(t, "one", renewed))
	answers("one.example", renewed)
	if got, err := serial(kept, "one.example"); err != nil || got != serialOf(t, one) {
		t.Errorf("a connection from before the renewal: %s, %v", got, err)
	}
	mixed := secretOf(t, "two", two)
	mixed.Data["tls.key"] = secretOf(t, "one", one).Data["tls.key"]
	put(mixed)
	closed("two.example")
	ingress("says that the key is another's", trouble)
	told("UnusableSecret", "tls.key of Secret two cannot be used")
	put(secretOf(t, "two", two))
	answers("two.example", two)
	if err := secrets.Delete(t.Context(), "two", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	closed("two.example")
	stop()

	// Pilot has all keys by now, and tells nobody else.
	p.connect("ingress~10.1.0.1~gateway.istio-system~d", "", "").holds(listenersType, "0.0.0.0_8080")
	var keys []string
	for _, s := range []*corev1.Secret{secretOf(t, "", one), secretOf(t, "", renewed), secretOf(t, "", two)} {
		keys = append(keys, strings.Split(string(s.Data["tls.key"]), "\n")[1])
	}
	list, err := json.Marshal(p.proxies("istio-system"))
	if err != nil {
		t.Fatal(err)
	}
	_, metrics := p.get("/metrics")
	for _, key := range keys {
		if strings.Contains(p.log.String(), key) || strings.Contains(string(list), key) || strings.Contains(metrics, key) {
			t.Error("a key is where people look")
		}
	}

	// What was written goes when the Ingress is another controller's.
	patch := []byte(`{"spec":{"ingressClassName":"other"}}`)
	if _, err := l.kube.NetworkingV1().Ingresses(ns).Patch(t.Context(), "shop", types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	ingress("has lost the address", func(s networkingv1.IngressStatus) bool { return len(s.LoadBalancer.Ingress) == 0 })
	closed("one.example")
	other := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"192.0.2.99"}]}}}`)
	if _, err := l.kube.NetworkingV1().Ingresses(ns).Patch(t.Context(), "shop", types.MergePatchType, other, metav1.PatchOptions{FieldManager: "other"}, "status"); err != nil {
		t.Fatal(err)
	}

	// An Ingress without a class gets the default one from the API server, which knows it by its IngressClass.
	class := []byte(`{"metadata":{"annotations":{"ingressclass.kubernetes.io/is-default-class":"true"}}}`)
	if _, err := l.kube.NetworkingV1().IngressClasses().Patch(t.Context(), "istio", types.MergePatchType, class, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	l.apply(ns, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: unclassed}
spec:
  tls: [{secretName: one}]
  rules: [{host: one.example, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]`)
	answers("one.example", renewed)
	ingress("keeps what another wrote", func(s networkingv1.IngressStatus) bool {
		return len(s.LoadBalancer.Ingress) == 1 && s.LoadBalancer.Ingress[0].IP == "192.0.2.99"
	})
}

// Who does not let Pilot read Secrets has a mesh without TLS at its ingress, not a Pilot that never gets ready.
func TestPilotDoesWithoutTheRightToSecrets(t *testing.T) {
	l := emptyLab(t)
	l.install()
	roles := l.kube.RbacV1().ClusterRoles()
	role, err := roles.Get(t.Context(), "istio-pilot-istio-system", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	before := len(role.Rules)
	role.Rules = slices.DeleteFunc(role.Rules, func(r rbacv1.PolicyRule) bool {
		return slices.Contains(r.Resources, "secrets") || slices.Contains(r.Resources, "events")
	})
	if before-len(role.Rules) != 2 {
		t.Fatalf("%d of %d rules are left", len(role.Rules), before)
	}
	if _, err := roles.Update(t.Context(), role, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	p := l.pilot(l.as("istio-system", "istio-pilot-service-account"))
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	l.apply(ns, `
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: shop}
spec:
  ingressClassName: istio
  tls: [{hosts: [shop.example], secretName: shop}]
  defaultBackend: {service: {name: reviews, port: {number: 9080}}}`)
	p.connect("ingress~10.1.0.1~gateway.istio-system~d", "", "").holds("route.v3.RouteConfiguration", "ingress.8080")
	until(t, "the log says what is missing", func() error {
		if log := p.log.String(); !strings.Contains(log, "cannot list resource \\\"secrets\\\"") || !strings.Contains(log, "telling of an Ingress by an Event") {
			return errors.New("it does not")
		}
		return nil
	})
}

const listenersType = "listener.v3.Listener"
