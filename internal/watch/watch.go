// Package watch turns a cluster's informers into objects sets, debounced.
//
// In: a connection to an API server. Out: after each change a frozen objects set of everything the mesh is made of, with findings about objects
// that could not be read; the first change at once, bursts merged. It outlives the API server's restarts and waits for kinds it does not have yet.
package watch

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/cache"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// Config of a Watcher.
type Config struct {
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace and ConfigMap hold the mesh configuration; no ConfigMap is watched when the name is empty.
	Namespace string
	ConfigMap string
	// Gap is the least time between two updates; 20 ms when zero. While updates take longer than that, half of the time is left free.
	Gap time.Duration
	// Manager is the name under which statuses of Ingresses are written; what it owns in an Ingress is kept of the managed fields.
	Manager string
	Log     *slog.Logger
}

// Update is the state of the cluster.
type Update struct {
	Set *objects.Set
	// Findings are about objects that could not be read and are not in Set as what they claim to be.
	Findings []finding.Finding
	// Settings is the data of the ConfigMap; nil when it does not exist.
	Settings map[string]string
}

// Watcher keeps the current objects.
type Watcher struct {
	cfg     Config
	sources []*source
	changed chan struct{}

	mu sync.RWMutex
	// set is what the last update had.
	set *objects.Set
	// pending are the objects that changed since in what the mesh is made of; nil for one that is gone.
	pending map[objects.Key]*objects.Object
	// newer are those of which something else is newer than in set and pending: a status, and with it the version.
	newer map[objects.Key]*objects.Object
	// bad are the findings about objects that could not be read, findings all of them when said is set.
	bad      map[objects.Key][]finding.Finding
	findings []finding.Finding
	said     bool
	// settings is nil until the ConfigMap exists.
	settings map[string]string
}

// source is the stream of one kind.
type source struct {
	gvk      schema.GroupVersionKind
	resource string
	informer cache.SharedIndexInformer
	// registration knows when our handler has seen everything there was at first, which is later than when the informer has.
	registration cache.ResourceEventHandlerRegistration
	// awaited is set for kinds that a cluster has only once their definitions are installed.
	awaited bool
	// optional is set for kinds that the mesh does without where it may not read them.
	optional bool
	// manager is the Config's.
	manager string

	mu sync.Mutex
	// trouble is why the kind cannot be read at the moment.
	trouble error
}

// New prepares the informers.
func New(cfg Config) (*Watcher, error) {
	if cfg.Gap == 0 {
		cfg.Gap = 20 * time.Millisecond
	}
	w := &Watcher{
		cfg: cfg, changed: make(chan struct{}, 1),
		set: objects.NewSet(), pending: map[objects.Key]*objects.Object{}, newer: map[objects.Key]*objects.Object{}, bad: map[objects.Key][]finding.Finding{},
	}
	core := informers.NewSharedInformerFactory(cfg.Kube, 0)
	mesh := dynamicinformer.NewDynamicSharedInformerFactory(cfg.Dynamic, 0)
	w.sources = []*source{
		{gvk: corev1.SchemeGroupVersion.WithKind("Service"), resource: "services", informer: core.Core().V1().Services().Informer()},
		{gvk: corev1.SchemeGroupVersion.WithKind("Pod"), resource: "pods", informer: core.Core().V1().Pods().Informer()},
		{gvk: discoveryv1.SchemeGroupVersion.WithKind("EndpointSlice"), resource: "endpointslices", informer: core.Discovery().V1().EndpointSlices().Informer()},
		{gvk: networkingv1.SchemeGroupVersion.WithKind("Ingress"), resource: "ingresses", informer: core.Networking().V1().Ingresses().Informer()},
	}
	for _, k := range []struct{ kind, resource string }{
		{v1alpha2.KindRouteRule, "routerules"}, {v1alpha2.KindDestinationPolicy, "destinationpolicies"}, {v1alpha2.KindEgressRule, "egressrules"},
	} {
		w.sources = append(w.sources, &source{
			gvk: v1alpha2.GroupVersion.WithKind(k.kind), resource: k.resource, awaited: true,
			informer: mesh.ForResource(v1alpha2.GroupVersion.WithResource(k.resource)).Informer(),
		})
	}
	w.sources = append(w.sources, gatewaySources(cfg.Kube)...)
	var errs []error
	for _, s := range w.sources {
		s.manager = cfg.Manager
		errs = append(errs, s.informer.SetTransform(s.trim), s.informer.SetWatchErrorHandlerWithContext(w.troubled(s)))
		registration, err := s.informer.AddEventHandler(w.handler(s))
		s.registration = registration
		errs = append(errs, err)
	}
	if cfg.ConfigMap != "" {
		s := &source{gvk: corev1.SchemeGroupVersion.WithKind("ConfigMap"), resource: "configmaps"}
		s.informer = informers.NewSharedInformerFactoryWithOptions(cfg.Kube, 0, informers.WithNamespace(cfg.Namespace), informers.WithTweakListOptions(func(o *metav1.ListOptions) {
			o.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, cfg.ConfigMap).String()
		})).Core().V1().ConfigMaps().Informer()
		registration, err := s.informer.AddEventHandler(cache.ResourceEventHandlerFuncs{
			AddFunc:    func(o any) { w.setSettings(o) },
			UpdateFunc: func(_, o any) { w.setSettings(o) },
			DeleteFunc: func(any) { w.setSettings(nil) },
		})
		s.registration = registration
		errs = append(errs, s.informer.SetTransform(s.trim), s.informer.SetWatchErrorHandlerWithContext(w.troubled(s)), err)
		w.sources = append(w.sources, s)
	}
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("preparing informers: %w", err)
	}
	return w, nil
}

// Run watches until ctx ends and calls update, from one goroutine, with the first complete state and after each change.
func (w *Watcher) Run(ctx context.Context, update func(Update)) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, s := range w.sources {
		wg.Go(func() {
			if s.awaited && !w.await(ctx, s) {
				return
			}
			s.informer.RunWithContext(ctx)
		})
	}
	synced := make([]cache.InformerSynced, 0, len(w.sources))
	for _, s := range w.sources {
		synced = append(synced, s.ready)
	}
	if !cache.WaitForCacheSync(ctx.Done(), synced...) {
		return nil // ctx ended
	}
	pace := newPacer(w.cfg.Gap)
	for {
		pace.run(func() { update(w.state()) })
		select {
		case <-ctx.Done():
			return nil
		case <-w.changed:
		}
		if !pace.wait(ctx) {
			return nil
		}
		select { // what came during the wait is in the state as well
		case <-w.changed:
		default:
		}
	}
}

// await returns when the server has the kind; false when ctx ended.
func (w *Watcher) await(ctx context.Context, s *source) bool {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for said := false; ; said = true {
		list, err := w.cfg.Kube.Discovery().ServerResourcesForGroupVersion(s.gvk.GroupVersion().String())
		if err == nil && slices.ContainsFunc(list.APIResources, func(r metav1.APIResource) bool { return r.Kind == s.gvk.Kind }) {
			s.setTrouble(nil)
			return true
		}
		s.setTrouble(fmt.Errorf("the cluster has no kind %s (apply the mesh's CustomResourceDefinitions)", s.gvk.Kind))
		if !said {
			w.cfg.Log.Warn("waiting for a kind the cluster does not have", "kind", s.gvk.Kind, "group", s.gvk.Group, "error", err)
		}
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
		}
	}
}

// Waiting lists the kinds not yet read, each with the reason when one is known; empty when everything is.
func (w *Watcher) Waiting() []string {
	var out []string
	for _, s := range w.sources {
		if s.ready() {
			continue
		}
		s.mu.Lock()
		line := s.resource
		if s.trouble != nil {
			line += ": " + s.trouble.Error()
		}
		s.mu.Unlock()
		out = append(out, line)
	}
	return out
}

func (s *source) setTrouble(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trouble = err
}

// troubled notes why a kind cannot be read; the informer tries again by itself.
func (w *Watcher) troubled(s *source) cache.WatchErrorHandlerWithContext {
	return func(ctx context.Context, _ *cache.Reflector, err error) {
		s.setTrouble(err)
		if ctx.Err() == nil {
			w.cfg.Log.Warn("watching is interrupted", "resource", s.resource, "error", err)
		}
	}
}

// Pod is the pod as last seen.
func (w *Watcher) Pod(namespace, name string) (*corev1.Pod, bool) {
	o := w.Object(objects.Key{Kind: "Pod", Namespace: namespace, Name: name})
	if o == nil {
		return nil, false
	}
	p, ok := o.Value.(*corev1.Pod)
	return p, ok
}

// Object is any object as last seen, nil when there is none.
func (w *Watcher) Object(key objects.Key) *objects.Object {
	w.mu.RLock()
	defer w.mu.RUnlock()
	if o := w.newer[key]; o != nil {
		return o
	}
	if o, ok := w.pending[key]; ok {
		return o
	}
	return w.set.Get(key)
}

// state freezes what is known.
func (w *Watcher) state() Update {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.pending) > 0 {
		var put []*objects.Object
		var drop []objects.Key
		for key, o := range w.pending {
			if o != nil {
				put = append(put, o)
			} else {
				drop = append(drop, key)
			}
		}
		w.set = w.set.With(put, drop)
		w.pending = map[objects.Key]*objects.Object{}
	}
	if !w.said {
		w.findings, w.said = nil, true
		for _, fs := range w.bad {
			w.findings = append(w.findings, fs...)
		}
		finding.Sort(w.findings)
	}
	return Update{Set: w.set, Findings: w.findings, Settings: w.settings}
}

// handler keeps the objects of one kind current.
func (w *Watcher) handler(s *source) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(o any) { w.put(s, nil, o) },
		UpdateFunc: func(old, o any) {
			w.put(s, old, o)
		},
		DeleteFunc: func(o any) {
			if gone, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = gone.Obj
			}
			if v, ok := o.(metav1.Object); ok {
				w.remove(objects.Key{Group: s.gvk.Group, Kind: s.gvk.Kind, Namespace: v.GetNamespace(), Name: v.GetName()})
			}
		},
	}
}

func (w *Watcher) put(s *source, old, o any) {
	v, ok := o.(objects.Value)
	if !ok || old == o {
		return
	}
	object := &objects.Object{GVK: s.gvk, Value: v, Origin: objects.Origin{Version: v.GetResourceVersion()}}
	key := object.Key()
	if old != nil && !matters(old, o) {
		w.mu.Lock()
		w.newer[key] = object
		w.mu.Unlock()
		return
	}
	bad := unreadable(object)
	w.mu.Lock()
	w.pending[key] = object
	delete(w.newer, key)
	w.judged(key, bad)
	w.mu.Unlock()
	w.signal()
}

func (w *Watcher) remove(key objects.Key) {
	w.mu.Lock()
	w.pending[key] = nil
	delete(w.newer, key)
	w.judged(key, nil)
	w.mu.Unlock()
	w.signal()
}

// judged takes note of the findings about an object that was read.
func (w *Watcher) judged(key objects.Key, fs []finding.Finding) {
	if len(fs)+len(w.bad[key]) == 0 {
		return
	}
	w.said = false
	delete(w.bad, key)
	if len(fs) > 0 {
		w.bad[key] = fs
	}
}

func (w *Watcher) setSettings(o any) {
	w.mu.Lock()
	w.settings = nil
	if m, ok := o.(*corev1.ConfigMap); ok {
		w.settings = m.Data
		if w.settings == nil {
			w.settings = map[string]string{}
		}
	}
	w.mu.Unlock()
	w.signal()
}

func (w *Watcher) signal() {
	select {
	case w.changed <- struct{}{}:
	default:
	}
}
