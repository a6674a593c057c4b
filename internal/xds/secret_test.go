package xds_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"log/slog"
	"math/big"
	"strings"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"

	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
	"github.com/meshctl/meshctl/internal/xds"
)

const sds = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

func secret(name string, v int) proto.Message {
	return &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
		Secret: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: fmt.Sprint("hush", v)}},
	}}}
}

// byWorkload gives each proxy its own.
type byWorkload map[string]*resource.Snapshot

func (s byWorkload) Snapshot(p model.Proxy) *resource.Snapshot { return s[p.Workload.Name] }

// publishSecrets gives gateway the secrets, and another proxy none.
func (f *fixture) publishSecrets(secrets set, clusters set) {
	f.t.Helper()
	f.generation++
	common := resource.Group{f.set(clusters, cluster)}
	f.server.Publish(byWorkload{
		"gateway": {Clusters: common, Secrets: resource.Group{f.set(secrets, secret)}},
		"other":   {Clusters: common, Secrets: resource.Group{f.set(set{"own": 1}, secret)}},
	}, f.generation)
}

func TestAProxyGetsItsSecretsAndNoneOfAnothers(t *testing.T) {
	f := start(t)
	f.publishSecrets(set{"cert": 1}, set{"a": 1})
	gateway, other := f.delta("gateway"), f.delta("other")
	gateway.subscribe(sds, "cert", "missing")
	gateway.hearAndAck(sds, "cert", "-missing")
	other.subscribe(sds, "cert", "own")
	other.hearAndAck(sds, "own", "-cert")
	// Who asks for everything gets no more than its own either.
	other.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: sds, ResourceNamesSubscribe: []string{"*"}})
	other.hearAndAck(sds, "own")

	gateway.subscribe(cds)
	gateway.hearAndAck(cds, "a")
	f.publishSecrets(set{"cert": 1}, set{"a": 2})
	gateway.hear(cds, "a") // not answered: the rollout waits
	f.publishSecrets(set{"cert": 2, "missing": 1}, set{"a": 2})
	gateway.hearAndAck(sds, "cert", "missing") // which does not
	other.quiet()
}

func TestASecretThatIsGoneIsTakenAway(t *testing.T) {
	f := start(t)
	f.publishSecrets(set{"cert": 1}, nil)
	c := f.delta("gateway")
	c.subscribe(sds, "cert")
	c.hearAndAck(sds, "cert")
	f.publishSecrets(nil, nil)
	c.hearAndAck(sds, "-cert")
	f.publishSecrets(set{"cert": 1}, nil)
	c.hearAndAck(sds, "cert")
}

func TestAStateOfTheWorldProxyGetsItsSecretsToo(t *testing.T) {
	f := start(t)
	f.publishSecrets(set{"cert": 1}, nil)
	other := f.sotw("other")
	other.ask(sds, "cert") // no answer: an empty one would be a mistake to Envoy
	other.ask(sds, "own")
	other.ack(other.hear(sds, "own"))
	gateway := f.sotw("gateway")
	gateway.ask(sds, "cert")
	gateway.ack(gateway.hear(sds, "cert"))
	f.publishSecrets(set{"cert": 2}, nil)
	gateway.ack(gateway.hear(sds, "cert"))
}

func TestSecretsAreInNoLogAndNoReport(t *testing.T) {
	log := &syncBuilder{}
	f := start(t, func(c *xds.Config) {
		c.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	f.publishSecrets(set{"cert": 1}, nil)
	c := f.delta("gateway")
	c.subscribe(sds, "cert")
	c.nack(c.hear(sds, "cert"), "no good")
	f.await("the rejection", func() bool { return len(f.server.Rejections()) == 1 })
	report := fmt.Sprintf("%+v %+v %s", f.server.Proxies(), f.server.Rejections(), log)
	if !strings.Contains(report, "cert") || strings.Contains(report, "hush") {
		t.Error(report)
	}
	if s := f.server.Proxies()[0].Types["sds"]; s.State != proxystatus.Error || s.Resources != 1 {
		t.Errorf("%+v", s)
	}
}

type syncBuilder struct {
	mu sync.Mutex
	b  strings.Builder
}

func (b *syncBuilder) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuilder) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// certificate is a secret with a certificate for name, signed by itself.
func certificate(t *testing.T, name string) *tlsv3.Secret {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	inline := func(kind string, der []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})}}
	}
	return &tlsv3.Secret{Name: "cert", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		CertificateChain: inline("CERTIFICATE", der), PrivateKey: inline("EC PRIVATE KEY", keyDER),
	}}}
}

func TestEnvoyTakesCertificatesFromTheStreamItHas(t *testing.T) {
	f := start(t)
	port := freeport.For(t)
	publish := func(cert *tlsv3.Secret) func(*resource.Snapshot) {
		manager := &hcmv3.HttpConnectionManager{
			StatPrefix: "tls", RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: routeTo("tls", "cluster-1", 1)},
			HttpFilters: []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
		}
		from := ads()
		socket := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "cert", SdsConfig: from}},
		}}
		l := made(t, "tls", &listenerv3.Listener{Name: "tls", Address: at("127.0.0.1", port), FilterChains: []*listenerv3.FilterChain{{
			Filters:         []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, manager)}}},
			TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: pack(t, socket)}},
		}}})
		return func(s *resource.Snapshot) {
			s.Listeners = append(s.Listeners, resource.NewSet(l))
			if cert != nil {
				s.Secrets = resource.Group{resource.NewSet(made(t, "cert", cert))}
			}
		}
	}
	presented := func() string {
		conn, err := tls.Dial("tcp", fmt.Sprint("127.0.0.1:", port), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			return err.Error()
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	// The secret is not there yet: Envoy and all of its other listeners are not held up.
	p := startEnvoy(t, f, "DELTA_GRPC", 1, publish(nil))
	p.answers(1)
	p.inSync()
	for _, name := range []string{"first", "second"} {
		p.publish(1, publish(certificate(t, name)))
		f.await(name+" is presented", func() bool { return presented() == name })
	}
	p.inSync()
	if r := f.server.Rejections(); len(r) > 0 {
		t.Errorf("rejected: %+v", r)
	}
	p.publish(1, publish(nil))
	p.inSync()
	if got := presented(); got != "second" { // which it had last
		t.Errorf("after the secret's removal: %s", got)
	}
	p.publish(1, publish(certificate(t, "third")))
	f.await("the third is presented", func() bool { return presented() == "third" })
	f.await("nothing is rejected", func() bool { return len(f.server.Rejections()) == 0 })
}
