package xds_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/meshctl/meshctl/internal/proxystatus"
	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
	"github.com/meshctl/meshctl/internal/xds"
)

// realProxy is an Envoy configured by the fixture's server, in front of an application.
type realProxy struct {
	t            *testing.T
	f            *fixture
	proc         *envoyproc.Proc
	app          string
	admin, front int
}

// startEnvoy publishes a configuration with version first and starts an Envoy that asks for it.
func startEnvoy(t *testing.T, f *fixture, api string, first int, edit ...func(*resource.Snapshot)) *realProxy {
	t.Helper()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	t.Cleanup(app.Close)
	p := &realProxy{t: t, f: f, app: app.Listener.Addr().String(), admin: freeport.For(t), front: freeport.For(t)}
	p.publish(first, edit...)
	type object = map[string]any
	host, port, err := net.SplitHostPort(f.addr)
	if err != nil {
		t.Fatal(err)
	}
	socket := func(host string, port any) object {
		return object{"socket_address": object{"address": host, "port_value": port}}
	}
	ads := object{"resource_api_version": "V3", "ads": object{}}
	text, err := json.Marshal(object{
		"node":  object{"id": "envoy", "cluster": "test", "metadata": object{resource.VirtualHosts: true}},
		"admin": object{"address": socket("127.0.0.1", p.admin)},
		"dynamic_resources": object{
			"ads_config": object{"api_type": api, "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{object{"envoy_grpc": object{"cluster_name": "xds"}}}},
			"cds_config": ads, "lds_config": ads,
		},
		"static_resources": object{"clusters": []any{object{
			"name": "xds", "type": "STATIC", "connect_timeout": "1s",
			"load_assignment": object{"cluster_name": "xds", "endpoints": []any{object{"lb_endpoints": []any{object{"endpoint": object{"address": socket(host, number(t, port))}}}}}},
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}},
			}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	p.proc = envoyproc.Start(t, text, envoyproc.Options{Admin: fmt.Sprint("127.0.0.1:", p.admin)})
	return p
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func at(host string, port int) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(port)},
	}}}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

// publish configures a listener whose only route leads to a cluster that belongs to the version alone, so that every change needs another
// cluster before the route and leaves one to remove after it.
func (p *realProxy) publish(version int, edit ...func(*resource.Snapshot)) {
	p.t.Helper()
	p.f.generation++
	name := fmt.Sprint("cluster-", version)
	host, port, err := net.SplitHostPort(p.app)
	if err != nil {
		p.t.Fatal(err)
	}
	manager := &hcmv3.HttpConnectionManager{
		StatPrefix:     "in",
		RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: "in", ConfigSource: ads()}},
		HttpFilters:    []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(p.t, &routerv3.Router{})}}},
	}
	snap := &resource.Snapshot{
		Clusters: resource.Group{resource.NewSet(made(p.t, name, edsCluster(name)))},
		Endpoints: resource.Group{resource.NewSet(made(p.t, name, &endpointv3.ClusterLoadAssignment{
			ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
				HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: at(host, number(p.t, port))}},
			}}}},
		}))},
		Listeners: resource.Group{resource.NewSet(made(p.t, "in", &listenerv3.Listener{
			Name: "in", Address: at("127.0.0.1", p.front),
			FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(p.t, manager)}}}}},
		}))},
		Routes: resource.Group{resource.NewSet(made(p.t, "in", routeTo("in", name, version)))},
	}
	for _, e := range edit {
		e(snap)
	}
	p.f.server.Publish(source{snap}, p.f.generation)
}

func edsCluster(name string) *clusterv3.Cluster {
	return &clusterv3.Cluster{
		Name: name, ConnectTimeout: durationpb.New(time.Second), ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS},
		EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()},
	}
}

func routeTo(name, cluster string, version int) *routev3.RouteConfiguration {
	return &routev3.RouteConfiguration{Name: name, VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"},
		Routes: []*routev3.Route{{
			Match:                &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action:               &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}},
			ResponseHeadersToAdd: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-version", Value: strconv.Itoa(version)}}},
		}},
	}}}
}

// get asks through the proxy and returns the version that answered.
func (p *realProxy) get() (string, error) {
	resp, err := http.Get(fmt.Sprint("http://127.0.0.1:", p.front, "/"))
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || string(body) != "hello" {
		return "", fmt.Errorf("%s %s %w", resp.Status, body, err)
	}
	return resp.Header.Get("x-version"), nil
}

func (p *realProxy) answers(version int) {
	p.t.Helper()
	p.f.await(fmt.Sprint("version ", version, " answers"), func() bool {
		v, err := p.get()
		return err == nil && v == strconv.Itoa(version)
	})
}

// inSync waits until the proxy has answered everything.
func (p *realProxy) inSync() {
	p.t.Helper()
	p.f.await("Envoy has answered everything", func() bool {
		connected, behind := p.f.server.Progress(p.f.generation)
		return connected == 1 && behind == 0
	})
}

func TestEnvoyLosesNoRequestOverManyChanges(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			f := start(t)
			p := startEnvoy(t, f, api, 1)
			p.answers(1)
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
					if _, err := p.get(); err != nil {
						failed.Add(1)
						t.Errorf("under load: %v", err)
					}
					asked.Add(1)
				}
			}()
			const changes = 200
			for v := 2; v <= changes; v++ {
				p.publish(v)
				if v%4 != 0 { // some follow each other at once
					p.inSync()
				}
			}
			p.answers(changes)
			p.inSync()
			close(stop)
			<-stopped
			if asked.Load() < changes {
				t.Errorf("only %d requests over %d changes", asked.Load(), changes)
			}
			t.Logf("%d requests, %d failed", asked.Load(), failed.Load())
			for kind, s := range f.server.Proxies()[0].Types {
				if s.State != proxystatus.Synced || s.Message != "" {
					t.Errorf("%s: %+v", kind, s)
				}
			}
			if v := f.server.Proxies()[0].Version; !strings.HasPrefix(v, "1.40.") {
				t.Errorf("Envoy's version %q", v)
			}
		})
	}
}

// Envoy warms a changed cluster until it is sent its endpoints, which it does not ask for, and takes nothing else meanwhile.
func TestEnvoyTakesAChangedClusterIntoUse(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			f := start(t)
			p := startEnvoy(t, f, api, 1)
			p.answers(1)
			for i := range 3 {
				p.publish(1, func(s *resource.Snapshot) {
					c := edsCluster("cluster-1")
					c.ConnectTimeout = durationpb.New(time.Duration(2+i) * time.Second)
					s.Clusters = resource.Group{resource.NewSet(made(t, c.GetName(), c))}
				})
				p.inSync()
				f.await("no cluster is warming", func() bool {
					_, stats, err := p.proc.Admin(t.Context(), "/stats?filter=warming_clusters")
					return err == nil && strings.Contains(stats, "warming_clusters: 0")
				})
			}
		})
	}
}

func TestEnvoysRejectionsAreFoundAndHarmNothingElse(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			f := start(t)
			p := startEnvoy(t, f, api, 1)
			p.answers(1)
			p.inSync()

			bad := edsCluster("bad-cluster")
			bad.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED // which needs a cluster that provides
			p.publish(2, func(s *resource.Snapshot) {
				s.Clusters = append(s.Clusters, resource.NewSet(made(t, "bad-cluster", bad), made(t, "good-cluster", edsCluster("good-cluster"))))
			})
			p.answers(2) // the good part of the change is in force
			rejected := <-f.rejected
			if rejected.Resource != "bad-cluster" || rejected.Type != "cds" || !strings.Contains(rejected.Text, "bad-cluster") || rejected.Refs[0].Name != "for-bad-cluster" {
				t.Errorf("rejection %+v", rejected)
			}
			p.inSync()
			if s := f.server.Proxies()[0].Types["cds"]; s.State != proxystatus.Error || s.Message != rejected.Text {
				t.Errorf("status %+v", s)
			}

			// Several routes in one response, one of them bad: Envoy's text names none. The listeners ask for them.
			listeners := func(s *resource.Snapshot, routes ...proto.Message) {
				var ls, rs []*resource.Resource
				for i, m := range routes {
					name := fmt.Sprint("extra-", i)
					manager := &hcmv3.HttpConnectionManager{
						StatPrefix: name, RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: name, ConfigSource: ads()}},
						HttpFilters: []*hcmv3.HttpFilter{{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &routerv3.Router{})}}},
					}
					ls = append(ls, made(t, name, &listenerv3.Listener{
						Name: name, Address: at("127.0.0.1", freeport.For(t)),
						FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, manager)}}}}},
					}))
					rs = append(rs, made(t, name, m))
				}
				s.Listeners = append(s.Listeners, resource.NewSet(ls...))
				s.Routes = append(s.Routes, resource.NewSet(rs...))
			}
			broken := routeTo("extra-1", "cluster-3", 3)
			broken.VirtualHosts[0].Routes[0].Match.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: "["}}
			p.publish(3, func(s *resource.Snapshot) {
				listeners(s, routeTo("extra-0", "cluster-3", 3), broken, routeTo("extra-2", "cluster-3", 3))
			})
			p.answers(3)
			f.await("the bad route is found", func() bool {
				return slices.ContainsFunc(f.server.Rejections(), func(r xds.Rejection) bool {
					return r.Type == "rds" && r.Resource == "extra-1" && strings.Contains(r.Text, "missing ]")
				})
			})
			f.await("and only that one", func() bool {
				return len(f.server.Rejections()) == 1
			})
			_, dump, err := p.proc.Admin(t.Context(), "/config_dump?resource=dynamic_route_configs")
			if err != nil || !strings.Contains(dump, "extra-0") || !strings.Contains(dump, "extra-2") {
				t.Errorf("the good routes beside it: %v\n%s", err, dump)
			}
			p.publish(4, func(s *resource.Snapshot) {
				listeners(s, routeTo("extra-0", "cluster-4", 4), routeTo("extra-1", "cluster-4", 4), routeTo("extra-2", "cluster-4", 4))
			})
			p.answers(4)
			f.await("nothing is rejected any more", func() bool { return len(f.server.Rejections()) == 0 })
		})
	}
}

// Some faults Envoy reports without a name, and drops the whole response for them.
func TestARejectionOfClustersThatNamesNoneIsFoundToo(t *testing.T) {
	f := start(t)
	p := startEnvoy(t, f, "DELTA_GRPC", 1)
	p.answers(1)
	bad := edsCluster("bad-cluster")
	bad.ConnectTimeout = durationpb.New(-time.Second)
	p.publish(2, func(s *resource.Snapshot) {
		s.Clusters = append(s.Clusters, resource.NewSet(made(t, "bad-cluster", bad)))
	})
	p.answers(2)
	rejected := <-f.rejected
	if rejected.Resource != "bad-cluster" || strings.Contains(rejected.Text, "bad-cluster") || rejected.Refs[0].Name != "for-bad-cluster" {
		t.Errorf("rejection %+v", rejected)
	}
	p.inSync()
}

// restart is Pilot's end, and another in its place at the same address.
func (p *realProxy) restart(again *xds.Server, publish func()) {
	p.t.Helper()
	f := p.f
	f.grpc.Stop()
	opts, err := xds.Options()
	if err != nil {
		p.t.Fatal(err)
	}
	g := grpc.NewServer(opts...)
	again.Register(g, byName)
	f.server = again
	publish()
	l, err := net.Listen("tcp", f.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- g.Serve(l) }()
	p.t.Cleanup(func() {
		g.Stop()
		if err := <-done; err != nil {
			p.t.Error(err)
		}
	})
}

func TestEnvoyThatComesBackIsSentNothingItHas(t *testing.T) {
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			f := start(t)
			p := startEnvoy(t, f, api, 1)
			p.answers(1)
			p.inSync()
			again := xds.New(xds.Config{Pilot: "again", Log: quietLog(), Progress: f.signal})
			p.restart(again, func() { p.publish(1) })
			p.inSync()
			f.await("all types are asked for again", func() bool {
				for _, kind := range []string{"cds", "eds", "lds", "rds"} {
					if again.Proxies()[0].Types[kind].State != proxystatus.Synced {
						return false
					}
				}
				return true
			})
			for kind, n := range again.Stats().Resources {
				if n != 0 {
					t.Errorf("%d resources of type %s were sent again", n, kind)
				}
			}
			p.publish(2)
			p.answers(2)
		})
	}
}
