package meshd

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/keystore"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
	"github.com/meshctl/meshctl/rules"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

const patience = 30 * time.Second

// until polls f, for everything that another process does.
func until(t *testing.T, what string, f func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: %v", what, err)
		}
		time.Sleep(20 * time.Millisecond) // polling
	}
}

// lab is an API server with the control plane's namespace.
type lab struct {
	t      *testing.T
	server *apiserver.Server
	kube   kubernetes.Interface
	dyn    dynamic.Interface
	binary string // of meshctl, once it is built
}

func newLab(t *testing.T) *lab {
	t.Helper()
	l := labOn(t, apiserver.Shared(t))
	l.createNamespace("istio-system")
	return l
}

// createNamespace makes a namespace, unless it is there already.
func (l *lab) createNamespace(name string) {
	l.t.Helper()
	_, err := l.kube.CoreV1().Namespaces().Create(l.t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		l.t.Fatal(err)
	}
}

// emptyLab is an API server of the test's own, on which there is nothing yet.
func emptyLab(t *testing.T) *lab {
	t.Helper()
	apiserver.Shared(t) // says when there can be none
	server, err := apiserver.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Stop)
	return labOn(t, server)
}

func labOn(t *testing.T, server *apiserver.Server) *lab {
	t.Helper()
	l := &lab{t: t, server: server}
	l.kube = l.server.Client(t)
	dyn, err := dynamic.NewForConfig(l.server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	l.dyn = dyn
	return l
}

var crds = schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}

// installKinds creates the mesh's definitions.
func (l *lab) installKinds() {
	l.t.Helper()
	files, err := fs.Glob(rules.FS, "crds/*.yaml")
	if err != nil || len(files) == 0 {
		l.t.Fatal("no definitions", err)
	}
	for _, f := range files {
		text, err := fs.ReadFile(rules.FS, f)
		if err != nil {
			l.t.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, &u.Object); err != nil {
			l.t.Fatal(err)
		}
		if _, err := l.dyn.Resource(crds).Create(l.t.Context(), u, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			l.t.Fatal(err)
		}
	}
}

// apply creates the objects of a YAML text in namespace, status included where the kind has one apart.
func (l *lab) apply(namespace, text string) {
	l.t.Helper()
	for _, doc := range strings.Split(text, "\n---\n") {
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal([]byte(doc), &u.Object); err != nil {
			l.t.Fatal(err)
		}
		resources := map[string]schema.GroupVersionResource{
			"Service": corev1.SchemeGroupVersion.WithResource("services"), "Pod": corev1.SchemeGroupVersion.WithResource("pods"),
			"EndpointSlice": {Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"},
			"Ingress":       {Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"},
			"RouteRule":     routeRules, "ConfigMap": corev1.SchemeGroupVersion.WithResource("configmaps"),
			"DestinationPolicy": v1alpha2.GroupVersion.WithResource("destinationpolicies"),
			"EgressRule":        v1alpha2.GroupVersion.WithResource("egressrules"),
		}
		r, ok := resources[u.GetKind()]
		if !ok {
			l.t.Fatalf("kind %s", u.GetKind())
		}
		status := u.Object["status"]
		made, err := l.dyn.Resource(r).Namespace(namespace).Create(l.t.Context(), u, metav1.CreateOptions{})
		if err != nil {
			l.t.Fatal(err)
		}
		if status != nil {
			made.Object["status"] = status
			if _, err := l.dyn.Resource(r).Namespace(namespace).UpdateStatus(l.t.Context(), made, metav1.UpdateOptions{}); err != nil {
				l.t.Fatal(err)
			}
		}
	}
}

var routeRules = v1alpha2.GroupVersion.WithResource("routerules")

// rule reads a RouteRule.
func (l *lab) rule(namespace, name string) *v1alpha2.RouteRule {
	l.t.Helper()
	u, err := l.dyn.Resource(routeRules).Namespace(namespace).Get(l.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	out := &v1alpha2.RouteRule{}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, out); err != nil {
		l.t.Fatal(err)
	}
	return out
}

// condition waits until the rule's condition has status and reason, and returns its message.
func (l *lab) condition(namespace, name, kind, status, reason string) string {
	l.t.Helper()
	message := ""
	until(l.t, name+" is "+kind+"="+status, func() error {
		r := l.rule(namespace, name)
		for _, c := range r.Status.Conditions {
			if c.Type == kind && string(c.Status) == status && c.Reason == reason && c.ObservedGeneration == r.Generation {
				message = c.Message
				return nil
			}
		}
		text, err := json.Marshal(r.Status)
		return errors.Join(errors.New(string(text)), err)
	})
	return message
}

// token is one for a pod, as the kubelet would project it.
func (l *lab) token(namespace, account, pod string) string {
	l.t.Helper()
	p, err := l.kube.CoreV1().Pods(namespace).Get(l.t.Context(), pod, metav1.GetOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	r, err := l.kube.CoreV1().ServiceAccounts(namespace).CreateToken(l.t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{"istio-pilot"}, BoundObjectRef: &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod, UID: p.UID},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		l.t.Fatal(err)
	}
	return r.Status.Token
}

func (l *lab) account(namespace, name string) {
	l.t.Helper()
	if _, err := l.kube.CoreV1().ServiceAccounts(namespace).Create(l.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
		l.t.Fatal(err)
	}
}

// process is a running pilot role.
type process struct {
	t         *testing.T
	lab       *lab
	addresses map[string]string
	stop      context.CancelFunc
	done      chan error
	log       *lockedBuffer
}

// lockedBuffer collects the log.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// pilot starts the role through its command line, on free ports.
func (l *lab) pilot(kubeconfig string, more ...string) *process {
	l.t.Helper()
	ctx, stop := context.WithCancel(context.Background())
	p := &process{t: l.t, lab: l, addresses: map[string]string{}, stop: stop, done: make(chan error, 1), log: &lockedBuffer{}}
	args := append([]string{
		"pilot", "--kubeconfig", kubeconfig, "--namespace", "istio-system", "--name", "pilot-test", "--log-level", "debug",
		"--xds-address", "127.0.0.1:0", "--debug-address", "127.0.0.1:0", "--health-address", "127.0.0.1:0", "--debug-xds-address", "127.0.0.1:0",
	}, more...)
	go func() {
		if code := Main(ctx, args, io.Discard, p.log); code != 0 {
			p.done <- errors.New("it ended with an error")
			return
		}
		p.done <- nil
	}()
	l.t.Cleanup(func() {
		p.end()
		if l.t.Failed() {
			l.t.Logf("log:\n%s", p.log)
		}
	})
	until(l.t, "the servers listen", func() error {
		for line := range strings.Lines(p.log.String()) {
			var e struct{ Msg, Server, Address string }
			if json.Unmarshal([]byte(line), &e) == nil && e.Msg == "listening" {
				p.addresses[e.Server] = e.Address
			}
		}
		if len(p.addresses) < 4 {
			select {
			case err := <-p.done:
				p.done <- err
				l.t.Fatalf("it ended: %v\n%s", err, p.log)
			default:
			}
			return errors.New(p.log.String())
		}
		return nil
	})
	return p
}

func (p *process) end() {
	p.stop()
	select {
	case err := <-p.done:
		if err != nil {
			p.t.Errorf("ending: %v", err)
		}
		p.done <- nil
	case <-time.After(patience):
		p.t.Error("it does not end")
	}
}

// get asks the health server.
func (p *process) get(path string) (int, string) {
	p.t.Helper()
	resp, err := http.Get("http://" + p.addresses["health"] + path)
	if err != nil {
		return 0, err.Error()
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		p.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func (p *process) ready() {
	p.t.Helper()
	until(p.t, "it is ready", func() error {
		if code, body := p.get("/ready"); code != http.StatusOK {
			return errors.New(body)
		}
		return nil
	})
}

// trust is a client's TLS configuration with the root published in namespace.
func (p *process) trust(namespace string) *tls.Config {
	p.t.Helper()
	pool := x509.NewCertPool()
	until(p.t, "the root is published", func() error {
		m, err := p.lab.kube.CoreV1().ConfigMaps(namespace).Get(p.t.Context(), keystore.RootConfigMap, metav1.GetOptions{})
		if err == nil && !pool.AppendCertsFromPEM([]byte(m.Data[keystore.RootKey])) {
			return errors.New("no certificate in it")
		}
		return err
	})
	return &tls.Config{RootCAs: pool, ServerName: "istio-pilot.istio-system.svc", MinVersion: tls.VersionTLS12}
}

// proxy is a stand-in for Envoy: it asks for everything and answers as told.
type testProxy struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	ended  chan error

	mu   sync.Mutex
	held map[string]map[string]string
	// refuse is the text to answer a resource with; by name.
	refuse map[string]string
	// moody decides, where it is set, how a response is answered: with a refusal, or not at all.
	moody func(*discoveryv3.DeltaDiscoveryResponse) (refusal string, mute bool)
}

const typePrefix = "type.googleapis.com/envoy.config."

// connect opens a stream: with a token over TLS, without over the plaintext port.
func (p *process) connect(node, token, namespace string) *testProxy {
	p.t.Helper()
	address, creds := p.addresses["debug-xds"], insecure.NewCredentials()
	ctx, cancel := context.WithCancel(context.Background())
	p.t.Cleanup(cancel)
	if token != "" {
		address, creds = p.addresses["xds"], credentials.NewTLS(p.trust(namespace))
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(creds))
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = conn.Close() })
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		p.t.Fatal(err)
	}
	x := &testProxy{t: p.t, stream: s, ended: make(chan error, 1), held: map[string]map[string]string{}, refuse: map[string]string{}}
	if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typePrefix + "cluster.v3.Cluster", Node: &corev3.Node{Id: node}}); err != nil {
		p.t.Fatal(err)
	}
	for _, kind := range []string{"listener.v3.Listener", "route.v3.RouteConfiguration"} { // routes as a wildcard, for simplicity
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: typePrefix + kind}); err != nil && !errors.Is(err, io.EOF) { // a refused stream may be over
			p.t.Fatal(err)
		}
	}
	go func() { x.ended <- x.run() }()
	return x
}

func (x *testProxy) run() error {
	for {
		r, err := x.stream.Recv()
		if err != nil {
			return err
		}
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce}
		x.mu.Lock()
		if x.held[r.TypeUrl] == nil {
			x.held[r.TypeUrl] = map[string]string{}
		}
		for _, res := range r.Resources {
			x.held[r.TypeUrl][res.Name] = res.Version
			if text, bad := x.refuse[res.Name]; bad {
				answer.ErrorDetail = &rpcstatus.Status{Code: 13, Message: text}
			}
		}
		for _, name := range r.RemovedResources {
			delete(x.held[r.TypeUrl], name)
		}
		mute := false
		if x.moody != nil {
			var text string
			if text, mute = x.moody(r); text != "" {
				answer.ErrorDetail = &rpcstatus.Status{Code: 13, Message: text}
			}
		}
		x.mu.Unlock()
		if mute {
			continue
		}
		if err := x.stream.Send(answer); err != nil && !errors.Is(err, io.EOF) { // of a stream that is over, Recv knows why
			return err
		}
	}
}

// holds waits until the proxy has a resource of the kind with the name.
func (x *testProxy) holds(kind, name string) string {
	x.t.Helper()
	version := ""
	until(x.t, "the proxy has "+name, func() error {
		x.mu.Lock()
		defer x.mu.Unlock()
		version = x.held[typePrefix+kind][name]
		if version == "" {
			text, err := json.Marshal(x.held)
			return errors.Join(errors.New(string(text)), err)
		}
		return nil
	})
	return version
}

// broken is a way to the API server that can be interrupted.
type broken struct {
	t       *testing.T
	target  string
	address string

	mu       sync.Mutex
	listener net.Listener
	conns    map[net.Conn]struct{}
}

func newBroken(t *testing.T, target string) *broken {
	t.Helper()
	b := &broken{t: t, target: target, address: "127.0.0.1:0", conns: map[net.Conn]struct{}{}}
	b.repair()
	t.Cleanup(b.interrupt)
	return b
}

func (b *broken) repair() {
	b.t.Helper()
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.listener, b.address = l, l.Addr().String()
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", b.target)
			if err != nil {
				_ = in.Close()
				continue
			}
			b.mu.Lock()
			b.conns[in], b.conns[out] = struct{}{}, struct{}{}
			b.mu.Unlock()
			pipe := func(to, from net.Conn) {
				_, _ = io.Copy(to, from)
				_ = to.Close()
				_ = from.Close()
			}
			go pipe(in, out)
			go pipe(out, in)
		}
	}()
}

func (b *broken) interrupt() {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.listener.Close()
	for c := range b.conns {
		_ = c.Close()
		delete(b.conns, c)
	}
}

// kubeconfig is the server's, through b.
func (b *broken) kubeconfig(server *apiserver.Server) string {
	b.t.Helper()
	config, err := clientcmd.LoadFromFile(server.Kubeconfig)
	if err != nil {
		b.t.Fatal(err)
	}
	for _, c := range config.Clusters {
		c.Server = "https://" + b.address
	}
	path := b.t.TempDir() + "/kubeconfig"
	if err := clientcmd.WriteToFile(*config, path); err != nil {
		b.t.Fatal(err)
	}
	return path
}
