package xds_test

import (
	"fmt"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"

	"github.com/meshctl/meshctl/internal/proxystatus"
)

func base() content {
	return content{cds: set{"a": 1, "b": 1}, eds: set{"a": 1, "b": 1}, lds: set{"80": 1}, rds: set{"80": 1, "81": 1}}
}

// connect subscribes as Envoy does and acknowledges everything.
func connect(t *testing.T, f *fixture, node string) *deltaClient {
	t.Helper()
	c := f.delta(node)
	c.subscribe(cds)
	c.hearAndAck(cds, "a", "b")
	c.subscribe(eds, "a", "b")
	c.hearAndAck(eds, "a", "b")
	c.subscribe(lds)
	c.hearAndAck(lds, "80")
	c.subscribe(rds, "80")
	c.hearAndAck(rds, "80")
	f.await("the proxy has everything", func() bool { _, behind := f.server.Progress(f.generation); return behind == 0 })
	return c
}

func (c *deltaClient) hearAndAck(url string, names ...string) heard {
	c.t.Helper()
	h := c.hear(url, names...)
	c.ack(h)
	return h
}

func TestAProxyGetsWhatItAsksForAndAfterwardsOnlyWhatChanged(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	f.publish(base())
	c.quiet()
	next := base()
	next.rds["80"] = 2
	next.rds["81"] = 2 // not subscribed
	f.publish(next)
	c.hearAndAck(rds, "80")
	next.eds = set{"a": 2, "b": 1}
	f.publish(next)
	c.hearAndAck(eds, "a")
	c.quiet()
}

func TestAProxyThatConnectsBeforeTheFirstPublicationIsAnsweredByIt(t *testing.T) {
	f := start(t)
	c := f.delta("p")
	c.subscribe(cds)
	c.subscribe(eds, "a", "nowhere")
	c.quiet()
	f.publish(base())
	c.in = reorder(t, c.in, 2, eds, cds)
	c.hearAndAck(eds, "a", "nowhere")
	c.hearAndAck(cds, "a", "b")
}

// reorder sorts the next n responses by the order of types, for tests that do not care which comes first.
func reorder(t *testing.T, in chan heard, n int, order ...string) chan heard {
	t.Helper()
	got := make([]heard, 0, n)
	for range n {
		got = append(got, next(t, in))
	}
	out := make(chan heard, 100)
	for _, url := range order {
		for _, h := range got {
			if h.url == url {
				out <- h
			}
		}
	}
	go func() {
		for h := range in {
			out <- h
		}
	}()
	return out
}

func TestNamesThatDoNotExistAreAnsweredAtOnce(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.delta("p")
	c.subscribe(rds, "80", "99")
	c.hearAndAck(rds, "80", "-99")
	c.subscribe(eds, "zzz")
	c.hearAndAck(eds, "zzz") // an empty load assignment
	next := base()
	next.rds["99"] = 1
	next.eds["zzz"] = 1
	f.publish(next)
	c.hearAndAck(eds, "zzz")
	c.hearAndAck(rds, "99")
	c.quiet()
}

func TestAnEmptyMeshIsAnAnswer(t *testing.T) {
	f := start(t)
	f.publish(content{})
	c := f.delta("p")
	c.subscribe(cds)
	c.hearAndAck(cds)
	c.subscribe(lds)
	c.hearAndAck(lds)
	c.quiet()
}

func TestWhatIsNewComesBeforeWhatUsesItAndWhatIsGoneGoesAfter(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	f.publish(content{cds: set{"b": 1, "c": 1}, eds: set{"b": 1, "c": 1}, lds: set{"90": 1}, rds: set{"80": 2, "90": 1}})
	added := c.hear(cds, "c")
	c.quiet() // routes wait until the cluster is warm
	c.subscribe(eds, "c")
	c.hearAndAck(eds, "c")
	c.quiet()
	c.ack(added)
	l := c.hear(lds, "90")
	r := c.hear(rds, "80")
	c.ack(l)
	c.quiet() // nothing is taken away while the old routes may be in use
	c.ack(r)
	c.hearAndAck(lds, "-80")
	gone := c.hear(cds, "-a")
	c.quiet()
	c.ack(gone)
	c.hear(eds, "a") // still asked for: known to be empty
	c.quiet()
}

func TestANameDroppedWithItsClusterIsNotMentionedAgain(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	delete(next.cds, "a")
	delete(next.eds, "a")
	f.publish(next)
	gone := c.hear(cds, "-a")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesUnsubscribe: []string{"a"}})
	c.ack(gone)
	c.quiet()
	next = base() // and when it is back, it comes in full
	f.publish(next)
	h := c.hear(cds, "a")
	c.subscribe(eds, "a")
	c.hearAndAck(eds, "a")
	c.ack(h)
	c.quiet()
}

func TestAResourceThatIsBackBeforeItWasTakenAwayIsNotSentAgain(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	delete(next.cds, "a")
	next.rds["80"] = 2
	f.publish(next)
	r := c.hear(rds, "80")
	next = base()
	next.rds["80"] = 2
	f.publish(next) // while the removal waits for the route
	c.quiet()
	c.ack(r)
	c.hearAndAck(cds, "-a") // the rollout that began ends
	c.hearAndAck(cds, "a")
	c.hearAndAck(eds, "a") // which the cluster needs again
	c.quiet()
}

func TestEndpointsDoNotWaitForARollout(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.cds["c"] = 1
	next.rds["80"] = 2
	f.publish(next)
	stuck := c.hear(cds, "c")
	next.eds = set{"a": 2, "b": 1}
	f.publish(next)
	c.hearAndAck(eds, "a")
	c.quiet()
	c.ack(stuck)
	c.hearAndAck(rds, "80")
	c.quiet()
}

func TestAClusterOfAPlanUnderWayKeepsItsEndpointsAlthoughTheyAreGoneFromTheNext(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.cds["c"] = 1
	next.eds = set{"a": 1, "b": 1, "c": 1}
	next.rds["80"] = 2
	f.publish(next)
	added := c.hear(cds, "c")
	f.publish(base()) // c is gone again before anybody asked for its endpoints
	c.quiet()
	c.subscribe(eds, "c")
	h := c.hearAndAck(eds, "c")
	if want := made(t, "c", endpoint("c", 1)).Version; h.resources["c"] != want {
		t.Errorf("endpoints of version %q, want those of the plan", h.resources["c"])
	}
	c.ack(added)
	c.hearAndAck(rds, "80")
	c.hearAndAck(rds, "80") // the plan is over, the next one follows
	gone := c.hear(cds, "-c")
	c.quiet() // its endpoints stay as long as the cluster does
	c.ack(gone)
	c.hearAndAck(eds, "c")
	c.quiet()
}

func TestAStepThatIsNotAnsweredHoldsUpOnlyForAWhile(t *testing.T) {
	f := start(t, stepTimeout)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.cds["c"] = 1
	next.rds["80"] = 2
	f.publish(next)
	c.hear(cds, "c")
	c.hear(rds, "80")
	if s := f.server.Proxies()[0].Types["cds"].State; s != proxystatus.Stale {
		t.Errorf("state %s, want STALE", s)
	}
}

func TestAProxyThatComesBackIsSentOnlyWhatChangedMeanwhile(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.delta("p")
	c.subscribe(cds)
	clusters := c.hearAndAck(cds, "a", "b")
	c.subscribe(eds, "a", "b")
	endpoints := c.hearAndAck(eds, "a", "b")
	c.subscribe(rds, "80")
	routes := c.hearAndAck(rds, "80")
	c.cancel()

	resume := func(node string) *deltaClient {
		c := f.delta(node)
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: cds, InitialResourceVersions: clusters.resources})
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: eds, ResourceNamesSubscribe: []string{"a", "b"}, InitialResourceVersions: endpoints.resources})
		c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: rds, ResourceNamesSubscribe: []string{"80"}, InitialResourceVersions: routes.resources})
		return c
	}
	c = resume("same")
	c.quiet()
	f.await("it counts as in sync", func() bool {
		for _, p := range f.server.Proxies() {
			if p.Name == "same" {
				return p.Types["cds"].State == proxystatus.Synced && p.Types["rds"].State == proxystatus.Synced && p.Types["cds"].Resources == 2
			}
		}
		return false
	})
	c.cancel()

	f.publish(content{cds: set{"a": 2, "c": 1}, eds: set{"a": 1, "c": 1}, rds: set{"80": 2}})
	c = resume("changed")
	h := c.hear(cds, "a", "c")
	c.hearAndAck(eds, "a") // a changed cluster needs them again
	c.quiet()
	c.ack(h)
	c.hearAndAck(rds, "80")
	c.hearAndAck(cds, "-b")
	c.hearAndAck(eds, "b")
	c.quiet()
}

func TestARejectionNamesResourceAndObjectAndEndsWithTheNextGoodVersion(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.cds = set{"a": 13, "b": 14}
	f.publish(next)
	const text = "Error adding/updating cluster(s) b: no such thing as b-side"
	refused := c.hear(cds, "a", "b")
	c.hearAndAck(eds, "a", "b")
	c.nack(refused, text)
	rej := <-f.rejected
	if rej.Resource != "b" || rej.Text != text || len(rej.Refs) != 1 || rej.Refs[0].Name != "for-b" || rej.Type != "cds" {
		t.Errorf("rejection %+v", rej)
	}
	p := f.server.Proxies()[0].Types["cds"]
	if p.State != proxystatus.Error || p.Message != text || p.Rejected == nil {
		t.Errorf("status %+v", p)
	}
	if n := len(f.server.Rejections()); n != 1 {
		t.Errorf("%d rejections in force, want 1", n)
	}
	c.hearAndAck(cds, "a") // which Envoy took, and now can say so
	c.quiet()              // b is not sent again by itself
	if n := len(f.server.Rejections()); n != 1 {
		t.Errorf("%d rejections in force after the others were accepted, want 1", n)
	}
	next.cds = set{"a": 13, "b": 15}
	f.publish(next)
	c.hearAndAck(cds, "b")
	f.await("the rejection is over", func() bool {
		return len(f.server.Rejections()) == 0 && f.server.Proxies()[0].Types["cds"].State == proxystatus.Synced
	})
}

func TestARejectionOfAllThatWasSentIsTheEndOfIt(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.delta("p")
	c.subscribe(cds)
	c.nack(c.hear(cds, "a", "b"), "Error adding/updating cluster(s) a: bad")
	c.nack(c.hear(cds, "b"), "Error adding/updating cluster(s) b: bad as well")
	c.quiet()
	if n := len(f.server.Rejections()); n != 2 {
		t.Errorf("%d rejections in force, want 2", n)
	}
}

func TestARejectedRouteIsFoundBySendingEachAlone(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := f.delta("p")
	c.subscribe(rds, "80", "81")
	const text = "Proto constraint validation failed: missing ]: [ near 80"
	c.nack(c.hear(rds, "80", "81"), text)
	one := c.hear(rds, "80")
	two := c.hear(rds, "81")
	c.ack(one)
	c.nack(two, text)
	rej := <-f.rejected
	if rej.Resource != "81" || rej.Refs[0].Name != "for-81" {
		t.Errorf("rejection %+v", rej)
	}
	c.quiet()
	f.await("only one is in force", func() bool { r := f.server.Rejections(); return len(r) == 1 && r[0].Resource == "81" })
}

func TestARejectionEndsWhenTheResourceIsGone(t *testing.T) {
	f := start(t)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.lds["90"] = 1
	f.publish(next)
	c.nack(c.hear(lds, "90"), "no")
	<-f.rejected
	f.publish(base())
	c.hearAndAck(lds, "-90")
	f.await("the rejection is over", func() bool { return len(f.server.Rejections()) == 0 })
}

func TestALargeAnswerComesInPieces(t *testing.T) {
	f := start(t)
	c := content{cds: set{}}
	long := strings.Repeat("n", 1000)
	for i := range 5000 {
		c.cds[fmt.Sprintf("%s-%d", long, i)] = 1
	}
	f.publish(c)
	p := f.delta("p")
	p.subscribe(cds)
	seen := map[string]bool{}
	pieces := 0
	for len(seen) < len(c.cds) {
		h := next(t, p.in)
		pieces++
		for _, n := range h.names {
			if seen[n] {
				t.Fatalf("%s came twice", n)
			}
			seen[n] = true
		}
		p.ack(h)
	}
	if pieces < 2 {
		t.Errorf("all in %d response", pieces)
	}
	p.quiet()
}
