package meshd

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/identity"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/status"
	"github.com/meshctl/meshctl/internal/watch"
	"github.com/meshctl/meshctl/internal/xds"
)

// pilot is the role's state: the way from an update of the cluster to the proxies, and from their answers to the objects.
type pilot struct {
	options    *pilotOptions
	log        *slog.Logger
	settings   *settings
	translator *translator
	xds        *xds.Server
	admission  *identity.Admission
	metrics    *pilotMetrics
	status     *status.Writer // nil when statuses are not written

	// keeper has what the last mesh was made of, workloads the pods that streams were admitted by: both are the updates' alone.
	keeper    *ingest.Keeper
	workloads []*objects.Object

	mu         sync.Mutex
	generation uint64
	state      state
}

// state is what the control plane knows, as far as statuses are made of it.
type state struct {
	set  *objects.Set
	mesh *model.Mesh
	// report has the findings about the objects, besides those that are known otherwise.
	report  finding.Report
	besides []finding.Finding
	// ingressService is the name of the gateway's Service.
	ingressService string
}

// update makes the mesh of the objects and publishes it. It is called from one goroutine.
func (p *pilot) update(u watch.Update) {
	if pods := u.Set.Kind("", "Pod"); !sameList(p.workloads, pods) {
		p.workloads = pods
		p.xds.Keep(func(ctx context.Context, _ model.Proxy) bool { return p.admission.Holds(ctx) })
	}
	p.settings.follow(u.Settings)
	start := time.Now()
	mesh, report, err := p.build(u.Set, p.settings.ingest())
	if err != nil {
		p.metrics.failedBuilds.Inc()
		p.log.Error("building the mesh, the one before stays in force", "error", err)
		return
	}
	took := time.Since(start)
	p.metrics.built(took)
	now := state{
		set: u.Set, mesh: mesh, report: report, besides: slices.Concat(u.Findings, ingest.Expired(mesh, start)), ingressService: p.settings.mesh.IngressService,
	}
	p.mu.Lock()
	before := p.state
	p.state = now
	p.generation++
	generation := p.generation
	p.mu.Unlock()
	p.xds.Publish(p.translator.source(mesh), generation)
	p.metrics.generation.Set(float64(generation))
	if !sameList(before.report, report) || !slices.Equal(before.besides, now.besides) {
		p.metrics.count(append(report.All(), now.besides...))
	}
	p.log.Debug("published", "generation", generation, "objects", u.Set.Len(), "services", len(mesh.Services), "took", took.String())
	p.progressed()
}

// sameList says whether two lists are one.
func sameList[T any](a, b []*T) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// build brings the mesh up to date, with a fault in that kept from ending the program. After one everything is made anew: what was kept may be at fault.
func (p *pilot) build(set *objects.Set, config ingest.Config) (mesh *model.Mesh, report finding.Report, err error) {
	defer func() {
		if r := recover(); r != nil {
			p.keeper = nil
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	if p.keeper == nil {
		p.keeper = ingest.NewKeeper()
	}
	mesh, report = p.keeper.Update(set, config)
	return mesh, report, nil
}

// inForce are the objects that something in the mesh was made from.
func inForce(mesh *model.Mesh) map[model.Ref]bool {
	out := map[model.Ref]bool{}
	for _, r := range mesh.Rules {
		out[r.Ref] = true
	}
	for _, p := range mesh.Policies {
		out[p.Ref] = true
	}
	for _, e := range mesh.Externals {
		out[e.Ref] = true
	}
	for _, r := range mesh.Ingress {
		out[r.Ref] = true
	}
	for _, t := range mesh.IngressTLS {
		out[t.Ref] = true
	}
	return out
}

// waiting is what readiness waits for besides the watch.
func (p *pilot) waiting() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.generation == 0 {
		return []string{"the first mesh"}
	}
	return nil
}

// progressed is called when proxies were sent or said something.
func (p *pilot) progressed() {
	if p.status != nil {
		p.status.Poke()
	}
}

// rejected leaves a trace where the operator of the mesh looks; the xds room has logged it already, the objects come here.
func (p *pilot) rejected(r xds.Rejection) {
	for _, ref := range r.Refs {
		p.log.Warn("an object's configuration was rejected", "kind", ref.Kind, "namespace", ref.Namespace, "name", ref.Name, "resource", r.Resource)
	}
}

// currentView is what statuses are made of. It is made at the pace of whoever writes them.
func (p *pilot) currentView() *status.View {
	p.mu.Lock()
	now, generation := p.state, p.generation
	p.mu.Unlock()
	if generation == 0 {
		return nil
	}
	view := &status.View{
		Set: now.set, Report: now.report, Findings: now.besides, InForce: inForce(now.mesh), Addresses: gatewayAddresses(now.set, p.options.namespace, now.ingressService),
	}
	view.Connected, view.Behind = p.xds.Progress(generation)
	for _, r := range p.xds.Rejections() {
		view.Rejections = append(view.Rejections, status.Rejection{
			Proxy: r.Proxy.Workload.Namespace + "/" + r.Proxy.Workload.Name, Type: r.Type, Resource: r.Resource, Refs: r.Refs, Text: r.Text,
		})
	}
	return view
}

// fieldManager is the name under which Pilot writes statuses.
const fieldManager = "meshd-pilot"

// newStatusWriter gives it a client of its own, slow enough to leave the API server to others.
func newStatusWriter(config *rest.Config, p *pilot, watcher *watch.Watcher) (*status.Writer, error) {
	slow := limited(config, 20, 50)
	kube, err := kubernetes.NewForConfig(slow)
	if err != nil {
		return nil, fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	dyn, err := dynamic.NewForConfig(slow)
	if err != nil {
		return nil, fmt.Errorf("preparing the Kubernetes client: %w", err)
	}
	return status.New(status.Config{
		Kube: kube, Dynamic: dyn, Namespace: p.options.namespace, Name: p.options.name, Manager: fieldManager, View: p.currentView,
		Current: watcher.Object,
		Wrote:   func(result string) { p.metrics.statusWrites.WithLabelValues(result).Inc() }, Log: p.log,
	}), nil
}

// gatewayAddresses are where the ingress gateway is reached: its Service's load balancer, or the nodes its pods run on. Nil when there is none.
func gatewayAddresses(set *objects.Set, namespace, service string) []networkingv1.IngressLoadBalancerIngress {
	if service == "" {
		return nil
	}
	o := set.Get(objects.Key{Kind: "Service", Namespace: namespace, Name: service})
	if o == nil {
		return nil
	}
	svc, ok := o.Value.(*corev1.Service)
	if !ok {
		return nil
	}
	var out []networkingv1.IngressLoadBalancerIngress
	for _, a := range svc.Status.LoadBalancer.Ingress {
		out = append(out, networkingv1.IngressLoadBalancerIngress{IP: a.IP, Hostname: a.Hostname})
	}
	if len(out) == 0 {
		out = nodeAddresses(set, namespace, svc.Spec.Selector)
	}
	slices.SortFunc(out, func(a, b networkingv1.IngressLoadBalancerIngress) int {
		return cmp.Or(cmp.Compare(a.IP, b.IP), cmp.Compare(a.Hostname, b.Hostname))
	})
	return slices.CompactFunc(out, func(a, b networkingv1.IngressLoadBalancerIngress) bool {
		return a.IP == b.IP && a.Hostname == b.Hostname
	})
}

func nodeAddresses(set *objects.Set, namespace string, selector map[string]string) []networkingv1.IngressLoadBalancerIngress {
	var out []networkingv1.IngressLoadBalancerIngress
	for _, o := range set.Namespace("", "Pod", namespace) {
		pod, ok := o.Value.(*corev1.Pod)
		if !ok || len(selector) == 0 || pod.Status.Phase != corev1.PodRunning || pod.Status.HostIP == "" {
			continue
		}
		matches := true
		for k, v := range selector {
			matches = matches && pod.Labels[k] == v
		}
		if matches {
			out = append(out, networkingv1.IngressLoadBalancerIngress{IP: pod.Status.HostIP})
		}
	}
	return out
}

// count sets the gauges of objects with findings.
func (m *pilotMetrics) count(fs []finding.Finding) {
	gravest := map[finding.Object]finding.Severity{}
	for _, f := range fs {
		switch f.Object.Kind {
		case v1alpha2.KindRouteRule, v1alpha2.KindDestinationPolicy, v1alpha2.KindEgressRule:
			if s, ok := gravest[f.Object]; !ok || f.Severity > s {
				gravest[f.Object] = f.Severity
			}
		}
	}
	counts := map[finding.Severity]int{finding.Error: 0, finding.Warning: 0, finding.Info: 0}
	for _, s := range gravest {
		counts[s]++
	}
	for s, n := range counts {
		m.objectsErrors.WithLabelValues(s.String()).Set(float64(n))
	}
}
