package identity_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/meshctl/meshctl/internal/identity"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// workload makes a service account and a pod, and returns the pod with an address.
func workload(t *testing.T, client kubernetes.Interface, ns, account, pod string) *corev1.Pod {
	t.Helper()
	ctx := context.Background()
	if _, err := client.CoreV1().ServiceAccounts(ns).Create(ctx, &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account}}, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	p, err := client.CoreV1().Pods(ns).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: pod, Labels: map[string]string{"app": "x"}},
		Spec:       corev1.PodSpec{ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	p.Status.PodIPs = []corev1.PodIP{{IP: "10.0.0.1"}}
	p.Status.PodIP = "10.0.0.1"
	p, err = client.CoreV1().Pods(ns).UpdateStatus(ctx, p, metav1.UpdateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func token(t *testing.T, client kubernetes.Interface, ns, account, audience string, bound *corev1.Pod) string {
	t.Helper()
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}}}
	if bound != nil {
		r.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: bound.Name, UID: bound.UID}
	}
	r, err := client.CoreV1().ServiceAccounts(ns).CreateToken(context.Background(), account, r, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return r.Status.Token
}

func TestATokenProvesPodAndAccount(t *testing.T) {
	server := apiserver.Shared(t)
	client, ns := server.Client(t), server.Namespace(t)
	pod := workload(t, client, ns, "sa", "pod")
	v := identity.NewReviews(client, time.Now)
	good := token(t, client, ns, "sa", identity.Audience, pod)
	want := identity.Caller{Namespace: ns, ServiceAccount: "sa", Pod: "pod", PodUID: string(pod.UID)}
	if got, err := v.Verify(context.Background(), good); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	for name, bad := range map[string]string{
		"a token for another audience":     token(t, client, ns, "sa", "someone-else", pod),
		"a token that is not bound to pod": token(t, client, ns, "sa", identity.Audience, nil),
		"a token that was tampered with":   good[:len(good)-20] + strings.Repeat("A", 20),
		"no token":                         "",
		"a very long token":                strings.Repeat("A", 1<<20),
	} {
		if got, err := v.Verify(context.Background(), bad); !errors.Is(err, identity.ErrInvalidToken) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestATokenOfADeletedPodIsRefusedOnceForgotten(t *testing.T) {
	server := apiserver.Shared(t)
	client, ns := server.Client(t), server.Namespace(t)
	pod := workload(t, client, ns, "sa", "pod")
	var ahead atomic.Int64
	v := identity.NewReviews(client, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) })
	tok := token(t, client, ns, "sa", identity.Audience, pod)
	if _, err := v.Verify(context.Background(), tok); err != nil {
		t.Fatal(err)
	}
	zero := int64(0)
	if err := client.CoreV1().Pods(ns).Delete(context.Background(), "pod", metav1.DeleteOptions{GracePeriodSeconds: &zero}); err != nil {
		t.Fatal(err)
	}
	ahead.Store(int64(2 * time.Minute))
	// The API server itself remembers verdicts for some seconds.
	deadline := time.Now().Add(30 * time.Second)
	for {
		_, err := v.Verify(context.Background(), tok)
		if errors.Is(err, identity.ErrInvalidToken) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("still accepted: %v", err)
		}
		ahead.Add(int64(2 * time.Minute))
		time.Sleep(100 * time.Millisecond) // polling the API server
	}
}

// verifier accepts the tokens it knows.
type verifier map[string]identity.Caller

func (v verifier) Verify(_ context.Context, token string) (identity.Caller, error) {
	if token == "broken" {
		return identity.Caller{}, errors.New("the API server is away")
	}
	c, ok := v[token]
	if !ok {
		return identity.Caller{}, identity.ErrInvalidToken
	}
	return c, nil
}

// admit opens a stream with the token over a real connection and gives nodeID to admission.
func admit(t *testing.T, v identity.Verifier, a *identity.Admission, token, nodeID string) (model.Proxy, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	admitted := make(chan model.Proxy, 1)
	g := grpc.NewServer(grpc.StreamInterceptor(identity.StreamInterceptor(v, quiet())), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		p, err := a.Admit(s.Context(), nodeID)
		if err == nil {
			admitted <- p
		}
		return err
	}))
	go func() { _ = g.Serve(l) }()
	defer g.Stop()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	ctx := context.Background()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	s, err := conn.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/x/y")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(nil); !errors.Is(err, io.EOF) {
		return model.Proxy{}, err
	}
	return <-admitted, nil
}

func TestWhoMayBeWhichProxy(t *testing.T) {
	pod := func(ns, name, account string) *corev1.Pod {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "uid-1"},
			Spec:       corev1.PodSpec{ServiceAccountName: account},
			Status:     corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}},
		}
	}
	pods := map[string]*corev1.Pod{
		"default/app-1.x":      pod("default", "app-1.x", "app"),
		"istio-system/gw":      pod("istio-system", "gw", "istio-ingress-service-account"),
		"default/gw":           pod("default", "gw", "istio-ingress-service-account"),
		"istio-system/pretend": pod("istio-system", "pretend", "default"),
	}
	a := &identity.Admission{
		Pods:      func(ns, name string) (*corev1.Pod, bool) { p, ok := pods[ns+"/"+name]; return p, ok },
		Namespace: "istio-system", Wait: 100 * time.Millisecond, Log: quiet(),
	}
	v := verifier{
		"app":     {Namespace: "default", ServiceAccount: "app", Pod: "app-1.x", PodUID: "uid-1"},
		"reborn":  {Namespace: "default", ServiceAccount: "app", Pod: "app-1.x", PodUID: "uid-0"},
		"unknown": {Namespace: "default", ServiceAccount: "app", Pod: "nowhere", PodUID: "uid-1"},
		"gw":      {Namespace: "istio-system", ServiceAccount: "istio-ingress-service-account", Pod: "gw", PodUID: "uid-1"},
		"gw-out":  {Namespace: "default", ServiceAccount: "istio-ingress-service-account", Pod: "gw", PodUID: "uid-1"},
		"pretend": {Namespace: "istio-system", ServiceAccount: "default", Pod: "pretend", PodUID: "uid-1"},
	}
	for name, c := range map[string]struct {
		token, node string
		code        codes.Code
	}{
		"a sidecar with its own token":                         {"app", "sidecar~10.0.0.1~app-1.x.default~default.svc.cluster.local", codes.OK},
		"an ingress gateway of the control plane":              {"gw", "ingress~10.0.0.1~gw.istio-system~istio-system.svc.cluster.local", codes.OK},
		"a gateway's pod as a sidecar":                         {"gw", "sidecar~10.0.0.1~gw.istio-system~istio-system.svc.cluster.local", codes.OK},
		"no token":                                             {"", "sidecar~10.0.0.1~app-1.x.default~d", codes.Unauthenticated},
		"a token that is not accepted":                         {"bad", "sidecar~10.0.0.1~app-1.x.default~d", codes.Unauthenticated},
		"a token that cannot be judged now":                    {"broken", "sidecar~10.0.0.1~app-1.x.default~d", codes.Unavailable},
		"another pod's name":                                   {"app", "sidecar~10.0.0.1~gw.istio-system~d", codes.PermissionDenied},
		"a pod of the same name in another namespace":          {"gw", "sidecar~10.0.0.1~gw.default~d", codes.PermissionDenied},
		"a workload as ingress":                                {"app", "ingress~10.0.0.1~app-1.x.default~d", codes.PermissionDenied},
		"a workload as egress":                                 {"app", "egress~10.0.0.1~app-1.x.default~d", codes.PermissionDenied},
		"the ingress as egress":                                {"gw", "egress~10.0.0.1~gw.istio-system~d", codes.PermissionDenied},
		"the gateway's account in another namespace":           {"gw-out", "ingress~10.0.0.1~gw.default~d", codes.PermissionDenied},
		"another account in the control plane's namespace":     {"pretend", "ingress~10.0.0.1~pretend.istio-system~d", codes.PermissionDenied},
		"a token of an earlier pod of that name":               {"reborn", "sidecar~10.0.0.1~app-1.x.default~d", codes.PermissionDenied},
		"a pod that is not known":                              {"unknown", "sidecar~10.0.0.1~nowhere.default~d", codes.Unavailable},
		"a node id of too few parts":                           {"app", "sidecar~10.0.0.1", codes.InvalidArgument},
		"a node id of unknown type":                            {"app", "router~10.0.0.1~app-1.x.default~d", codes.InvalidArgument},
		"a node id whose address is none":                      {"app", "sidecar~ten~app-1.x.default~d", codes.InvalidArgument},
		"a node id whose pod has no namespace":                 {"app", "sidecar~10.0.0.1~app~d", codes.InvalidArgument},
		"a node id that ends where the namespace should begin": {"app", "sidecar~10.0.0.1~app.~d", codes.InvalidArgument},
	} {
		t.Run(name, func(t *testing.T) {
			proxy, err := admit(t, v, a, c.token, c.node)
			if status.Code(err) != c.code {
				t.Fatalf("got %v, want %s", err, c.code)
			}
			if err == nil && (len(proxy.Addresses) != 2 || proxy.Workload.Name == "" || string(proxy.Type) != strings.SplitN(c.node, "~", 2)[0]) {
				t.Errorf("proxy %+v", proxy)
			}
		})
	}
}

func TestAPodMayBeKnownALittleLater(t *testing.T) {
	var asked atomic.Int32
	a := &identity.Admission{
		Pods: func(ns, name string) (*corev1.Pod, bool) {
			if asked.Add(1) < 3 {
				return nil, false
			}
			return &corev1.Pod{
				ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name, UID: "uid-1"},
				Spec:       corev1.PodSpec{ServiceAccountName: "app"}, Status: corev1.PodStatus{PodIPs: []corev1.PodIP{{IP: "10.0.0.1"}}},
			}, true
		},
		Namespace: "istio-system", Wait: 10 * time.Second, Log: quiet(),
	}
	v := verifier{"app": {Namespace: "default", ServiceAccount: "app", Pod: "app", PodUID: "uid-1"}}
	if _, err := admit(t, v, a, "app", "sidecar~10.0.0.1~app.default~d"); err != nil {
		t.Error(err)
	}
}
