// Package pilot runs the control plane's real xDS server for tests of what connects to it: behind TLS, with tokens, at an address that stays the
// same when it is killed and started again.
package pilot

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
	"slices"
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
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/xds"
)

// ServerName is what Pilot's certificate is for, Token what it accepts at first.
const (
	ServerName = "istio-pilot.istio-system.svc"
	Token      = "token-1"
)

// Authority signs Pilot's certificate.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	// PEM is the root certificate.
	PEM []byte
}

// NewAuthority makes a root certificate.
func NewAuthority(t testing.TB) *Authority {
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
	return &Authority{cert, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// Issue signs a certificate for a name or an address.
func (a *Authority) Issue(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}
	if ip := net.ParseIP(name); ip != nil {
		template.DNSNames, template.IPAddresses = nil, []net.IP{ip}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// Pilot is the real xDS server behind TLS, at an address that stays the same over restarts.
type Pilot struct {
	t testing.TB
	// Addr is where it listens, CA who signed its certificate.
	Addr string
	CA   *Authority
	// Cert can be replaced at any time.
	Cert   atomic.Pointer[tls.Certificate]
	server *grpc.Server

	mu         sync.Mutex
	token      string
	generation uint64
	snapshot   *resource.Snapshot
	ads        *xds.Server
	rejected   []xds.Rejection
}

// New prepares a Pilot that does not run yet. It stops with the test.
func New(t testing.TB) *Pilot {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	p := &Pilot{t: t, Addr: addr, CA: NewAuthority(t), token: Token}
	p.Cert.Store(p.CA.Issue(t, ServerName))
	t.Cleanup(p.Kill)
	return p
}

// Snapshot is the same for every proxy.
func (p *Pilot) Snapshot(model.Proxy) *resource.Snapshot {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.snapshot
}

// Publish makes the snapshot Pilot's truth, whether it runs or not.
func (p *Pilot) Publish(s *resource.Snapshot) {
	p.mu.Lock()
	p.snapshot = s
	p.generation++
	ads, generation := p.ads, p.generation
	p.mu.Unlock()
	if ads != nil {
		ads.Publish(p, generation)
	}
}

// admit takes everybody with the right token for the same proxy.
func (p *Pilot) admit(ctx context.Context, node string) (model.Proxy, error) {
	md, _ := metadata.FromIncomingContext(ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+p.token {
		return model.Proxy{}, status.Error(codes.Unauthenticated, "who is this?")
	}
	if node == "" {
		return model.Proxy{}, status.Error(codes.InvalidArgument, "a node without id")
	}
	return model.Proxy{Type: model.Sidecar, Workload: model.WorkloadKey{Namespace: "default", Name: "a"}}, nil
}

// Start lets it serve what was published.
func (p *Pilot) Start() {
	p.t.Helper()
	ads := xds.New(xds.Config{
		Pilot: "pilot-test",
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
	config := &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return p.Cert.Load(), nil }}
	p.server = grpc.NewServer(append(options, grpc.Creds(credentials.NewTLS(config)))...)
	ads.Register(p.server, p.admit)
	p.mu.Lock()
	p.ads = ads
	snapshot, generation := p.snapshot, p.generation
	p.mu.Unlock()
	if snapshot != nil {
		ads.Publish(p, generation)
	}
	l, err := net.Listen("tcp", p.Addr)
	if err != nil {
		p.t.Fatal(err)
	}
	go func(s *grpc.Server) { _ = s.Serve(l) }(p.server)
}

// Kill ends Pilot at once, as a crash would.
func (p *Pilot) Kill() {
	p.mu.Lock()
	p.ads = nil
	p.mu.Unlock()
	if p.server != nil {
		p.server.Stop()
		p.server = nil
	}
}

// Resource packs m.
func Resource(t testing.TB, name string, m proto.Message) *resource.Resource {
	t.Helper()
	body, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return resource.New(body.GetTypeUrl(), name, body.GetValue())
}

// Accept makes token the one that is accepted.
func (p *Pilot) Accept(token string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.token = token
}

// Forget makes it as if nothing had ever been published.
func (p *Pilot) Forget() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.snapshot = nil
}

// Rejections that proxies have sent.
func (p *Pilot) Rejections() []xds.Rejection {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.rejected)
}
