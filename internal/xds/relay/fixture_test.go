package relay_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/xds"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// patience bounds every wait; nothing is expected to take it.
const patience = 20 * time.Second

const serverName = "istio-pilot.istio-system.svc"

// authority signs Pilot's certificate.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func (a *authority) issue(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pilot is the real xDS server behind TLS, at an address that stays the same over restarts.
type pilot struct {
	t    testing.TB
	addr string
	ca   *authority

	cert   atomic.Pointer[tls.Certificate]
	server *grpc.Server

	mu         sync.Mutex
	token      string // what it asks for
	generation uint64
	snapshot   *xds.Snapshot
	ads        *xds.Server
	admitted   int
	rejected   []xds.Rejection
}

func newPilot(t testing.TB) *pilot {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := &pilot{t: t, addr: addr, ca: newAuthority(t), token: "token-1"}
	p.cert.Store(p.ca.issue(t, serverName))
	t.Cleanup(p.kill)
	return p
}

func (p *pilot) Snapshot(model.Proxy) *xds.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snapshot
}

// publish makes the snapshot Pilot's truth, whether it runs or not.
func (p *pilot) publish(s *xds.Snapshot) {
	p.mu.Lock()
	p.snapshot = s
	p.generation++
	ads, generation := p.ads, p.generation
	p.mu.Unlock()
	if ads != nil {
		ads.Publish(p, generation)
	}
}

func (p *pilot) start() {
	p.t.Helper()
	ads := xds.New(xds.Config{
		Pilot: "pilot-test",
		Admit: func(ctx context.Context, node string) (model.Proxy, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			p.mu.Lock()
			defer p.mu.Unlock()
			if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+p.token {
				return model.Proxy{}, status.Error(codes.Unauthenticated, "who is this?")
			}
			if node == "" {
				return model.Proxy{}, status.Error(codes.InvalidArgument, "a node without id")
			}
			p.admitted++
			return model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "a"}}, nil
		},
		Rejected: func(r xds.Rejection) {
			p.mu.Lock()
			defer p.mu.Unlock()
			p.rejected = append(p.rejected, r)
		},
		Log: slog.New(slog.DiscardHandler),
	})
	options, err := xds.Options()
	if err != nil {
		p.t.Fatal(err)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.cert.Load(), nil }}
	p.server = grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(config)))...)
	ads.Register(p.server)
	p.mu.Lock()
	p.ads = ads
	snapshot, generation := p.snapshot, p.generation
	p.mu.Unlock()
	if snapshot != nil {
		ads.Publish(p, generation)
	}
	l, err := net.Listen("tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	go func(s *grpc.Server) { _ = s.Serve(l) }(p.server)
}

// kill ends Pilot at once, as a crash would.
func (p *pilot) kill() {
	p.mu.Lock()
	p.ads = nil
	p.mu.Unlock()
	if p.server != nil {
		p.server.Stop()
		p.server = nil
	}
}

func resource(t testing.TB, name string, m proto.Message) *xds.Resource {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return xds.NewResource(name, "", body, nil)
}

// box is one pod's relay and its files.
type box struct {
	*relay.Relay
	t      testing.TB
	dir    string
	cfg    relay.Config
	cancel context.CancelFunc
	over   chan error
}

func newBox(t testing.TB, p *pilot) *box {
	t.Helper()
	dir, err := os.MkdirTemp("", "relay") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	b := &box{t: t, dir: dir, cfg: relay.Config{
		Socket: filepath.Join(dir, "xds.sock"), Address: p.addr, ServerName: serverName, RootFile: filepath.Join(dir, "root.pem"),
		TokenFile: filepath.Join(dir, "token"), CacheFile: filepath.Join(dir, "xds-cache"), FirstRetry: 20 * time.Millisecond, LastRetry: 200 * time.Millisecond,
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}}
	b.write("root.pem", p.ca.pem)
	b.write("token", []byte("token-1\n"))
	b.start()
	t.Cleanup(b.stop)
	return b
}

func (b *box) write(name string, text []byte) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.dir, name), text, 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *box) start() {
	b.t.Helper()
	b.Relay = relay.New(b.cfg)
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.over = cancel, make(chan error, 1)
	ready := make(chan struct{})
	go func() { b.over <- b.Run(ctx, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-b.over:
		b.t.Fatal(err)
	}
}

func (b *box) stop() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	if err := <-b.over; err != nil {
		b.t.Error(err)
	}
	b.cancel = nil
}

// await waits until the status is as wanted.
func (b *box) await(what string, ok func(relay.Status) bool) relay.Status {
	b.t.Helper()
	deadline := time.After(patience)
	for {
		s, changed := b.Status()
		if ok(s) {
			return s
		}
		select {
		case <-changed:
		case <-deadline:
			b.t.Fatalf("%s: not in %v; the status is %+v", what, patience, s)
		}
	}
}

// eventually polls for what cannot be waited for.
func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
