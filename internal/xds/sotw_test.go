package xds_test

import (
	"context"
	"fmt"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"

	"github.com/meshctl/meshctl/internal/proxystatus"
)

// sotwClient keeps, as a proxy does, the version and names per type.
type sotwClient struct {
	t      *testing.T
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
	in     chan heard
	cancel context.CancelFunc
	node   *corev3.Node
	names  map[string][]string
	good   map[string]string
}

func (f *fixture) sotw(node string) *sotwClient {
	f.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	f.t.Cleanup(cancel)
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(dial(f.t, f.addr)).StreamAggregatedResources(ctx)
	if err != nil {
		f.t.Fatal(err)
	}
	c := &sotwClient{t: f.t, stream: s, in: make(chan heard, 100), cancel: cancel, node: &corev3.Node{Id: node}, names: map[string][]string{}, good: map[string]string{}}
	go func() {
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			h := heard{url: m.TypeUrl, nonce: m.Nonce, version: m.VersionInfo}
			for _, r := range m.Resources {
				msg, err := r.UnmarshalNew()
				if err != nil {
					panic(err)
				}
				fields := msg.ProtoReflect().Descriptor().Fields()
				field := fields.ByName("name")
				if field == nil {
					field = fields.ByName("cluster_name")
				}
				h.names = append(h.names, msg.ProtoReflect().Get(field).String())
			}
			slices.Sort(h.names)
			c.in <- h
		}
	}()
	return c
}

func (c *sotwClient) send(m *discoveryv3.DiscoveryRequest) {
	c.t.Helper()
	m.Node, c.node = c.node, nil
	if err := c.stream.Send(m); err != nil {
		c.t.Fatal(err)
	}
}

// ask subscribes for the first time, with the version held from before.
func (c *sotwClient) ask(url string, names ...string) {
	c.t.Helper()
	c.names[url] = names
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: names, VersionInfo: c.good[url]})
}

// again sends the names, answering h.
func (c *sotwClient) again(h heard, names ...string) {
	c.t.Helper()
	c.names[h.url] = names
	c.ack(h)
}

func (c *sotwClient) ack(h heard) {
	c.t.Helper()
	c.good[h.url] = h.version
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: h.url, ResourceNames: c.names[h.url], VersionInfo: h.version, ResponseNonce: h.nonce})
}

func (c *sotwClient) nack(h heard, text string) {
	c.t.Helper()
	c.send(&discoveryv3.DiscoveryRequest{
		TypeUrl: h.url, ResourceNames: c.names[h.url], VersionInfo: c.good[h.url], ResponseNonce: h.nonce,
		ErrorDetail: &rpcstatus.Status{Code: 13, Message: text},
	})
}

func (c *sotwClient) hear(url string, names ...string) heard {
	c.t.Helper()
	h := next(c.t, c.in)
	if h.url != url || !slices.Equal(h.names, names) {
		c.t.Fatalf("heard %s %v, want %s %v", h.url, h.names, url, names)
	}
	return h
}

func (c *sotwClient) hearAndAck(url string, names ...string) heard {
	c.t.Helper()
	h := c.hear(url, names...)
	c.ack(h)
	return h
}

func (c *sotwClient) quiet(i int) {
	c.t.Helper()
	url := fmt.Sprint("probe", i) // asked once each
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: url, ResourceNames: []string{"x"}})
	c.hear(url)
}

func TestAStateOfTheWorldProxyGetsCompleteClustersAndPartialRoutes(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.sotw("p")
	c.ask(cds)
	c.hearAndAck(cds, "a", "b")
	c.ask(eds, "a", "b", "zzz")
	c.hearAndAck(eds, "a", "b", "zzz")
	c.ask(lds)
	c.hearAndAck(lds, "80")
	c.ask(rds, "80")
	r := c.hearAndAck(rds, "80")
	c.again(r, "80", "81")
	c.hearAndAck(rds, "81")
	c.quiet(1)

	next := base()
	next.cds = set{"a": 2, "c": 1}
	next.rds["80"] = 2
	f.publish(next)
	h := c.hear(cds, "a", "b", "c") // b stays until the routes have changed
	c.hearAndAck(eds, "a")          // a changed cluster needs them again
	c.quiet(2)
	c.ack(h)
	c.hearAndAck(rds, "80")
	c.hearAndAck(cds, "a", "c")
	c.quiet(3)
	f.await("it is in sync", func() bool { return f.server.Proxies()[0].Types["cds"].State == proxystatus.Synced })
}

func TestAStateOfTheWorldRejectionIsNotSentAgain(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.sotw("p")
	c.ask(cds)
	c.nack(c.hear(cds, "a", "b"), "Error adding/updating cluster(s) a: bad")
	rej := <-f.rejected
	if rej.Resource != "a" {
		t.Errorf("rejection %+v", rej)
	}
	c.quiet(1)
	next := base()
	next.cds["a"] = 2
	f.publish(next)
	c.hearAndAck(cds, "a", "b")
	f.await("the rejection is over", func() bool { return len(f.server.Rejections()) == 0 })
	c.quiet(2)
}

func TestAStaleNonceIsIgnored(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.sotw("p")
	c.ask(rds, "80")
	first := c.hear(rds, "80")
	next := base()
	next.rds["80"] = 2
	f.publish(next)
	// The rollout of the second version waits for the answer to the first one.
	c.ack(first)
	second := c.hear(rds, "80")
	c.again(first, "80", "81") // crossed the second response on the wire
	c.quiet(1)
	c.again(second, "80", "81")
	c.hearAndAck(rds, "81")
}

func TestAStateOfTheWorldProxyThatComesBackUnchangedHearsNothing(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.sotw("p")
	c.ask(cds)
	c.hearAndAck(cds, "a", "b")
	c.ask(rds, "80", "81")
	c.hearAndAck(rds, "80", "81")
	good := c.good
	c.cancel()
	c = f.sotw("p")
	c.good = good
	c.ask(cds)
	c.ask(rds, "80", "81")
	c.quiet(1)
	next := base()
	next.rds["80"] = 2
	f.publish(next)
	c.hearAndAck(rds, "80")
	c.quiet(2)
}
