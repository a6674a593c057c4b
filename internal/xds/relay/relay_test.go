package relay_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/pilot"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

// client is a small Envoy.
type client struct {
	t      testing.TB
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	close  func()
}

func (b *box) client() *client {
	b.t.Helper()
	conn, err := grpc.NewClient("unix:"+b.cfg.Socket, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), pilot.Patience)
	stream, err := discoveryv3.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		b.t.Fatal(err)
	}
	c := &client{b.t, stream, func() { cancel(); _ = conn.Close() }}
	b.t.Cleanup(c.close)
	return c
}

func (c *client) send(m *discoveryv3.DeltaDiscoveryRequest) {
	c.t.Helper()
	m.TypeUrl = relay.TypeCluster
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) subscribe() {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "sidecar~1~a.b~c", Extensions: []*corev3.Extension{{Name: "long"}}}})
}

func (c *client) recv() *discoveryv3.DeltaDiscoveryResponse {
	c.t.Helper()
	m, err := c.stream.Recv()
	if err != nil {
		c.t.Fatal(err)
	}
	return m
}

func (c *client) ack(m *discoveryv3.DeltaDiscoveryResponse) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: m.GetNonce()})
}

func (c *client) nack(m *discoveryv3.DeltaDiscoveryResponse, why string) {
	c.t.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{ResponseNonce: m.GetNonce(), ErrorDetail: &rpcstatus.Status{Message: why}})
}

func names(m *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, r := range m.GetResources() {
		out = append(out, r.GetName())
	}
	slices.Sort(out)
	return out
}

func clusters(t testing.TB, names ...string) *resource.Snapshot {
	t.Helper()
	var rs []*resource.Resource
	for _, name := range names {
		rs = append(rs, pilot.Resource(t, name, &clusterv3.Cluster{Name: name}))
	}
	return &resource.Snapshot{Clusters: resource.Group{resource.NewSet(rs...)}}
}

func TestPilotIsVerified(t *testing.T) {
	tests := []struct {
		name   string
		change func(*pilot.Pilot, *box)
		want   string
	}{
		{"a certificate of another authority", func(p *pilot.Pilot, _ *box) { p.Cert.Store(pilot.NewAuthority(t).Issue(t, pilot.ServerName)) }, "unknown authority"},
		{"a certificate for another name", func(p *pilot.Pilot, _ *box) { p.Cert.Store(p.CA.Issue(t, "istio-pilot.elsewhere.svc")) }, "istio-pilot.elsewhere.svc"},
		{"no root certificate", func(_ *pilot.Pilot, b *box) { b.write("root.pem", []byte("nothing")) }, "has none"},
		{"a token that Pilot does not accept", func(_ *pilot.Pilot, b *box) { b.write("token", []byte("forged")) }, "Unauthenticated: who is this?"},
		{"an empty token", func(_ *pilot.Pilot, b *box) { b.write("token", nil) }, "is empty"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pilot.New(t)
			p.Publish(clusters(t, "a"))
			b := newBox(t, p)
			root, token, cert := p.CA.PEM, []byte("token-1"), p.Cert.Load()
			tt.change(p, b)
			p.Start()
			c := b.client()
			c.subscribe()
			b.await("refused", func(s relay.Status) bool { return !s.Pilot && strings.Contains(s.LastError, tt.want) })

			// Files and certificate are read anew at every attempt, so what is mended works without a restart.
			b.write("root.pem", root)
			b.write("token", token)
			p.Cert.Store(cert)
			if m := c.recv(); !slices.Equal(names(m), []string{"a"}) {
				t.Errorf("got %v", m)
			}
		})
	}
}

func TestTheTokenIsReadForEveryStream(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "a"))
	p.Start()
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	c.ack(c.recv())

	p.Kill()
	p.Accept("token-2")
	b.write("token", []byte("token-2"))
	p.Publish(clusters(t, "a", "b"))
	p.Start()
	if m := c.recv(); !slices.Equal(names(m), []string{"b"}) {
		t.Errorf("got %v, want what differs alone", names(m))
	}
}

func TestWhatEnvoyRefusesIsNotRecorded(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "good"))
	p.Start()
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	c.ack(c.recv())
	p.Publish(clusters(t, "good", "bad"))
	c.nack(c.recv(), "no such thing")
	b.await("the refusal", func(s relay.Status) bool { return s.Nacks == 1 })
	pilot.Eventually(t, "Pilot hears the refusal in Envoy's words", func() error {
		for _, r := range p.Rejections() {
			if strings.Contains(r.Text, "no such thing") {
				return nil
			}
		}
		return os.ErrNotExist
	})
	p.Kill()
	c.close()

	c = b.client()
	c.subscribe()
	if m := c.recv(); !slices.Equal(names(m), []string{"good"}) {
		t.Errorf("recorded %v", names(m))
	}
}

func TestARecordThatIsDamagedIsNotUsed(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "a"))
	p.Start()
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	c.ack(c.recv())
	b.await("accepted", func(s relay.Status) bool { return s.Acks == 1 })
	b.stop()
	text, err := os.ReadFile(b.cfg.CacheFile)
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string][]byte{"cut short": text[:len(text)-2], "something else": []byte("PNG"), "empty": {}} {
		b.write("xds-cache", damaged)
		b.start()
		if s, _ := b.Status(); len(s.Resources) != 0 {
			t.Errorf("%s: used %v", name, s.Resources)
		}
		b.stop()
	}
}

func TestASilentPilotIsNotWaitedForForever(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "a"))
	p.Start()
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	c.ack(c.recv())
	b.await("accepted", func(s relay.Status) bool { return s.Acks == 1 })
	c.close()
	p.Kill()

	// It runs again but has nothing to say yet, as when its caches are not filled.
	p.Forget()
	p.Start()
	c = b.client()
	c.subscribe()
	m := c.recv()
	c.ack(m)
	if s, _ := b.Status(); !slices.Equal(names(m), []string{"a"}) || s.FromRecord != 1 {
		t.Errorf("got %v, %d from the record", names(m), s.FromRecord)
	}
	p.Publish(clusters(t, "b"))
	var added, removed []string
	for len(added) == 0 || len(removed) == 0 {
		m := c.recv()
		added, removed = append(added, names(m)...), append(removed, m.GetRemovedResources()...)
		c.ack(m)
	}
	if !slices.Equal(added, []string{"b"}) || !slices.Equal(removed, []string{"a"}) {
		t.Errorf("got %v, lost %v", added, removed)
	}
}

func TestANewEnvoyDisplacesTheOldOne(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "a"))
	p.Start()
	b := newBox(t, p)
	old := b.client()
	old.subscribe()
	old.ack(old.recv())
	c := b.client()
	c.subscribe()
	c.ack(c.recv())
	if _, err := old.stream.Recv(); err == nil {
		t.Error("the old stream goes on")
	}
	s := b.await("accepted", func(s relay.Status) bool { return s.Acks == 2 })
	if !s.Envoy {
		t.Error("the end of the old stream counts as the new one's")
	}
}

func TestAnEnvoyThatComesBackKeepsWhatItHas(t *testing.T) {
	p := pilot.New(t)
	p.Publish(clusters(t, "a", "b"))
	p.Start()
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	m := c.recv()
	c.ack(m)
	versions := map[string]string{}
	for _, r := range m.GetResources() {
		versions[r.GetName()] = r.GetVersion()
	}
	b.await("accepted", func(s relay.Status) bool { return s.Acks == 1 })
	c.close()
	p.Publish(clusters(t, "a", "b", "c"))
	c = b.client()
	c.send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "n"}, InitialResourceVersions: versions})
	if m := c.recv(); !slices.Equal(names(m), []string{"c"}) {
		t.Errorf("got %v, want what differs alone", names(m))
	}
	b.await("held counts as accepted", func(s relay.Status) bool { return s.Accepted[relay.TypeCluster] })
}

func TestAttemptsArePaced(t *testing.T) {
	p := pilot.New(t)
	b := newBox(t, p)
	c := b.client()
	c.subscribe()
	begin := time.Now()
	s := b.await("ten failures", func(s relay.Status) bool { return s.Failures >= 10 })
	// 20 ms doubled up to 200 ms, each at least half: 10+20+40+80+100+100+100+100+100 ms.
	if took := time.Since(begin); took < 600*time.Millisecond {
		t.Errorf("%d attempts in %v", s.Attempts, took)
	}
}
