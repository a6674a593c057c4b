package relay_test

import (
	"fmt"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/pilot"
	"github.com/meshctl/meshctl/internal/xds/relay"
)

func startEnvoy(t testing.TB, m *pilot.Mesh, b *box) *envoyproc.Proc {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Envoy")
	}
	text, err := bootstrap.JSON(bootstrap.Config{NodeID: "sidecar~127.0.0.1~a.default~default.svc.cluster.local", ServiceCluster: "a", AdminPort: m.Admin,
		XDSSocket: b.cfg.Socket, MaxConnections: 1000})
	if err != nil {
		t.Fatal(err)
	}
	return envoyproc.Start(t, text, envoyproc.Options{Admin: fmt.Sprint("127.0.0.1:", m.Admin)})
}

// bothWays runs a test with virtual hosts in their route configuration, and on their own.
func bothWays(t *testing.T, f func(*testing.T, *pilot.Mesh)) {
	for name, alone := range map[string]bool{"in their table": false, "on their own": true} {
		t.Run("virtual hosts "+name, func(t *testing.T) {
			m := pilot.NewMesh(t)
			m.VirtualHosts = alone
			f(t, m)
		})
	}
}

func TestTrafficGoesOnWhilePilotIsAway(t *testing.T) {
	bothWays(t, func(t *testing.T, m *pilot.Mesh) {
		p := pilot.New(t)
		p.Publish(m.Snapshot("1"))
		p.Start()
		b := newBox(t, p)
		startEnvoy(t, m, b)
		m.Answers("1")
		before := b.await("configured", func(s relay.Status) bool { return s.Configured() && s.Pilot })

		stop := m.Load()
		p.Kill()
		b.await("Pilot away", func(s relay.Status) bool { return !s.Pilot && s.LastError != "" })
		p.Start()
		failures := before.Failures
		b.await("a stream to Pilot again", func(s relay.Status) bool { failures = s.Failures; return s.Attempts > s.Failures })
		// The same configuration in a new Pilot: Envoy is sent nothing, and keeps its connections. A change then arrives.
		p.Publish(m.Snapshot("2"))
		m.Answers("2")
		stop()
		after := b.await("Pilot back", func(s relay.Status) bool { return s.Pilot })
		if after.Nacks != 0 || after.FromRecord != 0 {
			t.Errorf("%d refusals, %d answers from the record", after.Nacks, after.FromRecord)
		}
		// One route changed, so one answer more than before; a full resend would be four.
		if after.Acks != before.Acks+1 {
			t.Errorf("%d answers accepted while one route changed (%d failures)", after.Acks-before.Acks, failures)
		}
	})
}

func TestEnvoyRestartsWhilePilotIsAway(t *testing.T) {
	bothWays(t, func(t *testing.T, m *pilot.Mesh) {
		p := pilot.New(t)
		p.Publish(m.Snapshot("1"))
		p.Start()
		b := newBox(t, p)
		envoy := startEnvoy(t, m, b)
		m.Answers("1")
		b.await("configured", relay.Status.Configured)
		p.Kill()

		envoy.Stop()
		b.await("not configured without Envoy", func(s relay.Status) bool { return !s.Envoy && !s.Configured() })
		envoy = startEnvoy(t, m, b)
		m.Answers("1")
		s := b.await("configured from the record", relay.Status.Configured)
		want := uint64(4)
		if m.VirtualHosts {
			want++
		}
		if s.Pilot || s.FromRecord != want {
			t.Errorf("served from the record %d times, want clusters, endpoints, listeners, routes and virtual hosts; Pilot %t", s.FromRecord, s.Pilot)
		}

		// The agent restarts too: the record is a file.
		envoy.Stop()
		b.stop()
		b.start()
		startEnvoy(t, m, b)
		m.Answers("1")

		// Pilot comes back with something else, and something gone: Envoy follows without a reset.
		stop := m.Load()
		changed := m.Snapshot("2")
		p.Publish(changed)
		p.Start()
		m.Answers("2")
		stop()
		gone := m.Snapshot("2")
		gone.Listeners = resource.Group{resource.NewSet()}
		p.Publish(gone)
		pilot.Eventually(t, "the listener gone", func() error {
			if _, err := m.Get(t.Context()); err == nil {
				return fmt.Errorf("still answered")
			}
			return nil
		})
	})
}

func TestWhatIsGoneWhenPilotComesBackIsTakenFromEnvoy(t *testing.T) {
	bothWays(t, func(t *testing.T, m *pilot.Mesh) {
		p := pilot.New(t)
		p.Publish(m.Snapshot("1"))
		p.Start()
		b := newBox(t, p)
		envoy := startEnvoy(t, m, b)
		m.Answers("1")
		b.await("configured", relay.Status.Configured)
		p.Kill()
		envoy.Stop()
		startEnvoy(t, m, b)
		m.Answers("1")

		gone := m.Snapshot("1")
		gone.Listeners = resource.Group{resource.NewSet()}
		p.Publish(gone)
		p.Start()
		pilot.Eventually(t, "the listener gone", func() error {
			if _, err := m.Get(t.Context()); err == nil {
				return fmt.Errorf("still answered")
			}
			return nil
		})
	})
}

// What Envoy refuses of its very first configuration must not keep it from being ready with the rest, nor the rest from the record.
func TestAFirstConfigurationThatIsRefusedInPartIsInForceInPart(t *testing.T) {
	p := pilot.New(t)
	m := pilot.NewMesh(t)
	snapshot := m.Snapshot("1")
	snapshot.Clusters = append(snapshot.Clusters, resource.NewSet(pilot.Resource(t, "bad-cluster", &clusterv3.Cluster{
		Name: "bad-cluster", ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED, // which needs a cluster that provides
	})))
	snapshot.Listeners = append(snapshot.Listeners, resource.NewSet(pilot.Resource(t, "bad-listener", &listenerv3.Listener{Name: "bad-listener"})))
	p.Publish(snapshot)
	p.Start()
	b := newBox(t, p)
	envoy := startEnvoy(t, m, b)
	m.Answers("1")
	s := b.await("configured", relay.Status.Configured)
	if s.Nacks < 2 {
		t.Errorf("%d refusals, want one of the clusters and one of the listeners", s.Nacks)
	}
	refused := map[string]bool{}
	for _, r := range p.Rejections() {
		refused[r.Type+" "+r.Resource] = true
	}
	if len(refused) != 2 || !refused["cds bad-cluster"] || !refused["lds bad-listener"] {
		t.Errorf("refused %v", refused)
	}

	p.Kill()
	envoy.Stop()
	startEnvoy(t, m, b)
	m.Answers("1")
	if s, _ := b.Status(); s.Resources[relay.TypeCluster] != 1 || s.Resources[relay.TypeListener] != 1 {
		t.Errorf("recorded %v", s.Resources)
	}
}

func TestNothingIsServedBeforeTheFirstConfiguration(t *testing.T) {
	envoyproc.Path(t) // said here, since a goroutine cannot skip the test
	p := pilot.New(t)
	m := pilot.NewMesh(t)
	p.Publish(m.Snapshot("1"))
	b := newBox(t, p)
	text, err := bootstrap.JSON(bootstrap.Config{NodeID: "n", ServiceCluster: "a", AdminPort: m.Admin, XDSSocket: b.cfg.Socket, MaxConnections: 1000})
	if err != nil {
		t.Fatal(err)
	}
	started := make(chan struct{})
	go func() {
		defer close(started)
		// It is live only once Pilot has spoken.
		envoyproc.Start(t, text, envoyproc.Options{Admin: fmt.Sprint("127.0.0.1:", m.Admin)})
	}()
	b.await("Envoy there and Pilot tried in vain", func(s relay.Status) bool { return s.Envoy && s.Failures > 2 })
	if s, _ := b.Status(); s.Configured() {
		t.Error("configured by nobody")
	}
	p.Start()
	<-started
	m.Answers("1")
	b.await("configured", relay.Status.Configured)
}
