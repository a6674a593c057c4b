package xds_test

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/xds"
)

// hosts are virtual hosts of the route configuration "in" by name, each with the version by which it answers; 0 is for one that Envoy refuses.
type hosts map[string]int

func (h hosts) group(t testing.TB) resource.Group {
	t.Helper()
	var out []*resource.Resource
	for name, version := range h {
		out = append(out, made(t, "in/"+name, virtualHost(name, version)))
	}
	return resource.Group{resource.NewSet(out...)}
}

func virtualHost(name string, version int) *routev3.VirtualHost {
	match := &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}}
	if version == 0 {
		match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "["}}
	}
	return &routev3.VirtualHost{
		Name: "in/" + name, Domains: []string{name},
		Routes: []*routev3.Route{{Match: match, Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{
			Status: 200, Body: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: fmt.Sprint(name, " ", version)}},
		}}}},
	}
}

// with puts the hosts in a route configuration that has none of its own.
func (h hosts) with(t testing.TB) func(*resource.Snapshot) {
	t.Helper()
	config := made(t, "in", &routev3.RouteConfiguration{Name: "in", Vhds: &routev3.Vhds{ConfigSource: ads()}})
	group := h.group(t)
	return func(s *resource.Snapshot) { s.Routes, s.VirtualHosts = resource.Group{resource.NewSet(config)}, group }
}

// ask for a host, and say what answers; 404 when nothing does.
func (p *realProxy) ask(host string) (string, error) {
	req, err := http.NewRequestWithContext(p.t.Context(), http.MethodGet, fmt.Sprint("http://127.0.0.1:", p.front, "/"), nil)
	if err != nil {
		return "", err
	}
	req.Host = host
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		return fmt.Sprint(resp.StatusCode), nil
	}
	return string(body), err
}

// says waits until host is answered by what is wanted.
func (p *realProxy) says(host, want string) {
	p.t.Helper()
	p.f.await(fmt.Sprintf("%s says %q", host, want), func() bool {
		got, err := p.ask(host)
		return err == nil && got == want
	})
}

func TestEnvoyTakesVirtualHostsOnTheirOwnAndLosesNoRequest(t *testing.T) {
	f := start(t)
	now := hosts{"steady": 1, "changing": 1}
	p := startEnvoy(t, f, "DELTA_GRPC", 1, now.with(t))
	// Envoy is live when its listener is, and that waits for the virtual hosts.
	if got, err := p.ask("steady"); err != nil || got != "steady 1" {
		t.Fatalf("the first request is answered by %q %v", got, err)
	}
	var asked, failed atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for _, host := range []string{"steady", "changing"} {
				if got, err := p.ask(host); err != nil || !strings.HasPrefix(got, host) {
					failed.Add(1)
					t.Errorf("under load: %q %v", got, err)
				}
				asked.Add(1)
			}
		}
	}()
	const changes = 200
	for v := 2; v <= changes; v++ {
		now["changing"] = v
		now[fmt.Sprint("extra-", v)] = v
		delete(now, fmt.Sprint("extra-", v-3))
		p.publish(1, now.with(t))
		if v%4 != 0 {
			p.inSync()
		}
	}
	p.says("changing", fmt.Sprint("changing ", changes))
	p.says(fmt.Sprint("extra-", changes), fmt.Sprint("extra-", changes, " ", changes))
	p.says(fmt.Sprint("extra-", changes-3), "404")
	p.inSync()
	before := f.server.Stats()
	now["changing"]++
	p.publish(1, now.with(t))
	p.inSync()
	after := f.server.Stats()
	if n := after.Resources["vhds"] - before.Resources["vhds"]; n != 1 {
		t.Errorf("an edit of one virtual host sent %d", n)
	}
	if n := after.Resources["rds"]; n != 1 {
		t.Errorf("the route configuration was sent %d times", n)
	}
	close(stop)
	<-stopped
	t.Logf("%d requests, %d failed", asked.Load(), failed.Load())
	for kind, s := range f.server.Proxies()[0].Types {
		if s.State == proxystatus.Error || s.Message != "" {
			t.Errorf("%s: %+v", kind, s)
		}
	}
	if n := f.server.Proxies()[0].Types["vhds"].Resources; n != len(now) {
		t.Errorf("%d virtual hosts are counted and not %d", n, len(now))
	}
}

func TestADomainGoesFromOneVirtualHostToAnother(t *testing.T) {
	f := start(t)
	p := startEnvoy(t, f, "DELTA_GRPC", 1, hosts{"a": 1, "b": 1}.with(t))
	p.says("a", "a 1")
	moved := func(s *resource.Snapshot) {
		hosts{"b": 1}.with(t)(s)
		c := virtualHost("a", 2)
		c.Name = "in/c"
		s.VirtualHosts = append(s.VirtualHosts, resource.NewSet(made(t, "in/c", c)))
	}
	p.publish(1, moved)
	p.says("a", "a 2")
	p.inSync()
	if r := f.server.Rejections(); len(r) > 0 {
		t.Errorf("rejected: %+v", r)
	}
}

func TestAVirtualHostThatEnvoyRefusesHarmsNoOther(t *testing.T) {
	f := start(t)
	now := hosts{"gone": 1}
	for i := range 30 {
		now[fmt.Sprint("host-", i)] = 1
	}
	p := startEnvoy(t, f, "DELTA_GRPC", 1, now.with(t))
	p.says("host-3", "host-3 1")
	delete(now, "gone")
	for i := range 20 {
		now[fmt.Sprint("host-", i)] = 2
	}
	now["host-7"], now["bad"] = 0, 0
	p.publish(1, now.with(t))
	f.await("both bad ones are found, and nothing else", func() bool {
		var names []string
		for _, r := range f.server.Rejections() {
			if r.Type == "vhds" && len(r.Refs) == 1 {
				names = append(names, r.Resource)
			}
		}
		return slices.Equal(names, []string{"in/bad", "in/host-7"})
	})
	p.inSync()
	p.says("gone", "404")
	p.says("host-7", "host-7 1") // its last good form
	for i := range 20 {
		if i != 7 {
			p.says(fmt.Sprint("host-", i), fmt.Sprint("host-", i, " 2"))
		}
	}
	now["host-7"], now["bad"] = 3, 3
	p.publish(1, now.with(t))
	p.says("host-7", "host-7 3")
	p.says("bad", "bad 3")
	f.await("nothing is rejected any more", func() bool { return len(f.server.Rejections()) == 0 })
}

func TestATableWithoutVirtualHostsHoldsNothingUp(t *testing.T) {
	f := start(t)
	p := startEnvoy(t, f, "DELTA_GRPC", 1, hosts{}.with(t)) // waits until Envoy is live
	p.says("late", "404")
	p.publish(1, hosts{"late": 1}.with(t))
	p.says("late", "late 1")
	p.publish(1, hosts{}.with(t))
	p.says("late", "404")
	p.inSync()
}

func TestEnvoyThatComesBackHasItsVirtualHosts(t *testing.T) {
	f := start(t)
	now := hosts{"a": 1, "b": 1, "c": 1}
	p := startEnvoy(t, f, "DELTA_GRPC", 1, now.with(t))
	p.says("a", "a 1")
	p.inSync()
	again := xds.New(xds.Config{Pilot: "again", Log: quietLog(), Progress: f.signal})
	delete(now, "c")
	now["b"], now["d"] = 2, 2
	p.restart(again, func() { p.publish(1, now.with(t)) })
	p.says("b", "b 2")
	p.says("c", "404")
	p.says("d", "d 2")
	p.says("a", "a 1")
	p.inSync()
	if s := again.Stats(); s.Resources["vhds"] != 2 || s.Resources["rds"] != 0 {
		t.Errorf("sent again: %v", s.Resources)
	}
}
