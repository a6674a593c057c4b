package keystore_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/meshctl/meshctl/internal/keystore"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

// clock is set by hand.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func TestOneRootWhoeverIsFirst(t *testing.T) {
	server := apiserver.Shared(t)
	client, ns := server.Client(t), server.Namespace(t)
	roots := make([][]byte, 8)
	var wg sync.WaitGroup
	for i := range roots {
		wg.Go(func() {
			a, err := keystore.Load(context.Background(), client, ns, time.Now)
			if err != nil {
				t.Error(err)
				return
			}
			roots[i] = a.RootPEM()
		})
	}
	wg.Wait()
	for _, r := range roots {
		if !bytes.Equal(r, roots[0]) || len(r) == 0 {
			t.Fatal("replicas that start together have different roots")
		}
	}
}

func TestARootThatIsUnusableIsNeverReplaced(t *testing.T) {
	server := apiserver.Shared(t)
	client, ns := server.Client(t), server.Namespace(t)
	ctx := context.Background()
	_, cert, _, err := keystore.NewAuthority(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	_, _, otherKey, err := keystore.NewAuthority(time.Now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := client.CoreV1().Secrets(ns).Create(ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: keystore.SecretName}, Data: map[string][]byte{keystore.CertKey: cert, keystore.KeyKey: otherKey},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = keystore.Load(ctx, client, ns, time.Now)
	if err == nil || !strings.Contains(err.Error(), "not that of the key") || !strings.Contains(err.Error(), "delete it") {
		t.Errorf("got %v", err)
	}
	after, err := client.CoreV1().Secrets(ns).Get(ctx, keystore.SecretName, metav1.GetOptions{})
	if err != nil || after.ResourceVersion != s.ResourceVersion {
		t.Errorf("the Secret changed (%v)", err)
	}
}

func TestTheServingCertificateIsRenewedInTimeAndVerifies(t *testing.T) {
	c := &clock{now: time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)}
	a, _, _, err := keystore.NewAuthority(c.Now)
	if err != nil {
		t.Fatal(err)
	}
	s, err := keystore.NewServing(a, []string{"istio-pilot.istio-system.svc"}, []net.IP{net.IPv4(127, 0, 0, 1)}, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	get := func() *tls.Certificate {
		cert, err := s.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(a.RootPEM())
		for _, name := range []string{"istio-pilot.istio-system.svc", "127.0.0.1"} {
			if _, err := cert.Leaf.Verify(x509.VerifyOptions{DNSName: name, Roots: roots, CurrentTime: c.Now()}); err != nil {
				t.Fatal(err)
			}
		}
		return cert
	}
	first := get()
	c.advance(15 * time.Hour)
	if get() != first {
		t.Error("renewed although more than a third of its life was left")
	}
	c.advance(2 * time.Hour)
	second := get()
	if second == first {
		t.Error("not renewed")
	}
	if first.Leaf.SerialNumber.Cmp(second.Leaf.SerialNumber) == 0 {
		t.Error("same serial number")
	}
}

func TestAnExpiredRootIsSaidToBe(t *testing.T) {
	c := &clock{now: time.Now()}
	_, cert, key, err := keystore.NewAuthority(c.Now)
	if err != nil {
		t.Fatal(err)
	}
	c.advance(11 * 365 * 24 * time.Hour)
	if _, err := keystore.ParseAuthority(cert, key, c.Now); err == nil || !strings.Contains(err.Error(), "expired on") {
		t.Errorf("got %v", err)
	}
}

func TestKeysPrintAsRedacted(t *testing.T) {
	key := keystore.Secret("topsecret")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %v %+v %#v %q %x %s", key, key, struct{ K keystore.Secret }{key}, key, key, key, key.String())
	slog.New(slog.NewTextHandler(&b, nil)).Info("x", "key", key)
	slog.New(slog.NewJSONHandler(&b, nil)).Info("x", "key", key)
	j, err := json.Marshal(map[string]any{"key": key})
	if err != nil {
		t.Fatal(err)
	}
	b.Write(j)
	if s := b.String(); strings.Contains(s, "topsecret") || strings.Contains(s, "dG9wc2VjcmV0") || strings.Contains(s, "746f70") || !strings.Contains(s, "[redacted]") {
		t.Error(s)
	}
}

func TestTheRootIsInEveryNamespaceAndIsRepaired(t *testing.T) {
	server := apiserver.Shared(t)
	client, before := server.Client(t), server.Namespace(t)
	p, err := keystore.NewPublisher(client, []byte("the root"), slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- p.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	await := func(ns string) {
		t.Helper()
		deadline := time.Now().Add(10 * time.Second)
		for {
			m, err := client.CoreV1().ConfigMaps(ns).Get(ctx, keystore.RootConfigMap, metav1.GetOptions{})
			if err == nil && len(m.Data) == 1 && m.Data[keystore.RootKey] == "the root" {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("namespace %s: %v %v", ns, m, err)
			}
			time.Sleep(5 * time.Millisecond) // polling the API server
		}
	}
	await(before)
	start := time.Now()
	after := server.Namespace(t)
	await(after)
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("a new namespace waited %s for the root", took)
	}
	m, err := client.CoreV1().ConfigMaps(after).Get(ctx, keystore.RootConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	m.Data = map[string]string{keystore.RootKey: "another's root", "more": "keys"}
	if _, err := client.CoreV1().ConfigMaps(after).Update(ctx, m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(after)
	if err := client.CoreV1().ConfigMaps(after).Delete(ctx, keystore.RootConfigMap, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(after)
}
