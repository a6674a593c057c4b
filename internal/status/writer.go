package status

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"reflect"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/objects"
)

// Config of a Writer.
type Config struct {
	// Kube and Dynamic should have a rate limit of their own: writing status never delays anything else.
	Kube    kubernetes.Interface
	Dynamic dynamic.Interface
	// Namespace holds the lease by which replicas agree who writes; Name tells them apart.
	Namespace, Name string
	// Manager is the name under which statuses are written; by it the writer knows its own word again.
	Manager string
	// View is asked for the state at the moment of writing.
	View func() *View
	// Current is an object as last seen, nil when it is gone: the view's objects may have older statuses.
	Current func(objects.Key) *objects.Object
	// Wrote is told of each write's result: "written", "conflict" or "error".
	Wrote func(result string)
	Log   *slog.Logger
}

// LeaseName is the lease of the replica that writes.
const LeaseName = "istio-pilot-status"

const (
	// pause between two rounds merges the acknowledgements of many proxies into one write.
	pause = 250 * time.Millisecond
	// lull before a round: where all proxies answer within it, a change is one write, and whoever waits for it sees that one.
	lull = 20 * time.Millisecond
)

// Writer writes statuses.
type Writer struct {
	cfg   Config
	dirty chan struct{}

	// written remembers what was written to which version, until the watch shows it.
	written map[objects.Key]written
	// told are the warnings about Ingresses of which there are Events.
	told map[objects.Key]map[string]bool
}

type written struct {
	base   string // the resourceVersion the decision was made on
	result string // the resourceVersion that came of it
	status any
}

// New prepares a writer.
func New(cfg Config) *Writer {
	if cfg.Wrote == nil {
		cfg.Wrote = func(string) {}
	}
	return &Writer{cfg: cfg, dirty: make(chan struct{}, 1), written: map[objects.Key]written{}, told: map[objects.Key]map[string]bool{}}
}

// Poke says that the view changed. It never blocks.
func (w *Writer) Poke() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// Run competes for the lease and writes while it has it, until ctx ends.
func (w *Writer) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		var writing sync.WaitGroup
		elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
			Name: LeaseName,
			Lock: &resourcelock.LeaseLock{
				LeaseMeta: metav1.ObjectMeta{Namespace: w.cfg.Namespace, Name: LeaseName}, Client: w.cfg.Kube.CoordinationV1(),
				LockConfig: resourcelock.ResourceLockConfig{Identity: w.cfg.Name},
			},
			LeaseDuration: 15 * time.Second, RenewDeadline: 10 * time.Second, RetryPeriod: 2 * time.Second, ReleaseOnCancel: true,
			Callbacks: leaderelection.LeaderCallbacks{
				OnStartedLeading: func(ctx context.Context) {
					writing.Add(1)
					defer writing.Done()
					w.cfg.Log.Info("writing statuses")
					w.write(ctx)
				},
				OnStoppedLeading: func() { w.cfg.Log.Info("no longer writing statuses") },
			},
		})
		if err != nil {
			return fmt.Errorf("preparing to elect who writes statuses: %w", err)
		}
		elector.Run(ctx)
		writing.Wait()
	}
	return nil
}

// write goes through the objects after each change and, for what failed, again after a while.
func (w *Writer) write(ctx context.Context) {
	retry := time.NewTimer(0)
	defer retry.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		case <-retry.C:
		}
		if !sleep(ctx, lull) {
			return
		}
		if w.round(ctx) {
			retry.Stop()
		} else {
			retry.Reset(time.Second)
		}
		if !sleep(ctx, pause) {
			return
		}
	}
}

// sleep says false when ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// round writes what differs, and says whether all went well.
func (w *Writer) round(ctx context.Context) bool {
	shown := w.cfg.View()
	if shown == nil || shown.Set == nil {
		return true
	}
	view := shown.index()
	good := true
	seen := map[objects.Key]bool{}
	for _, k := range []struct{ kind, resource string }{
		{v1alpha2.KindRouteRule, "routerules"}, {v1alpha2.KindDestinationPolicy, "destinationpolicies"}, {v1alpha2.KindEgressRule, "egressrules"},
	} {
		for _, viewed := range view.Set.Kind(v1alpha2.GroupVersion.Group, k.kind) {
			o := w.current(viewed)
			if o == nil {
				continue
			}
			seen[o.Key()] = true
			want := view.desired(o, metav1.Now())
			if same(want, current(o.Value)) || w.done(o, want) {
				continue
			}
			good = w.patch(ctx, o, v1alpha2.GroupVersion.WithResource(k.resource), want) && good
		}
	}
	for _, viewed := range view.Set.Kind(networkingv1.GroupName, "Ingress") {
		o := w.current(viewed)
		if o == nil {
			continue
		}
		in, ok := o.Value.(*networkingv1.Ingress)
		if !ok {
			continue
		}
		seen[o.Key()] = true
		good = w.tell(ctx, view, o, in) && good
		if view.Addresses == nil {
			continue
		}
		want, differs := w.ingressStatus(view, o, in)
		if !differs || w.done(o, want) {
			continue
		}
		good = w.patch(ctx, o, networkingv1.SchemeGroupVersion.WithResource("ingresses"), want) && good
	}
	for key := range w.written {
		if !seen[key] {
			delete(w.written, key)
		}
	}
	for key := range w.told {
		if !seen[key] {
			delete(w.told, key)
		}
	}
	return good
}

// current is the object as it is now, if the view speaks of it as it is now.
func (w *Writer) current(viewed *objects.Object) *objects.Object {
	o := w.cfg.Current(viewed.Key())
	if o == nil || o.Value.GetGeneration() != viewed.Value.GetGeneration() || o.Value.GetUID() != viewed.Value.GetUID() {
		return nil // a newer view is on its way
	}
	return o
}

// done says whether exactly this was written already and the watch has merely not shown it.
func (w *Writer) done(o *objects.Object, want any) bool {
	past, ok := w.written[o.Key()]
	if !ok || past.base != o.Origin.Version && past.result != o.Origin.Version {
		return false
	}
	if a, ok := past.status.(v1alpha2.Status); ok {
		b, ok := want.(v1alpha2.Status)
		return ok && same(a, b)
	}
	return reflect.DeepEqual(past.status, want)
}

// patch writes the status through its subresource, and only to the version the decision was made on.
func (w *Writer) patch(ctx context.Context, o *objects.Object, resource schema.GroupVersionResource, want any) bool {
	status := want
	if s, ok := want.(v1alpha2.Status); ok && len(s.Findings) == 0 {
		// A merge patch keeps what it does not mention.
		status = map[string]any{"observedGeneration": s.ObservedGeneration, "conditions": s.Conditions, "findings": nil}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{"resourceVersion": o.Origin.Version}, "status": status})
	if err != nil {
		w.cfg.Log.Error("writing a status", "object", o.Ref().String(), "error", err)
		return true // trying again would not help
	}
	result, err := w.cfg.Dynamic.Resource(resource).Namespace(o.Value.GetNamespace()).
		Patch(ctx, o.Value.GetName(), types.MergePatchType, body, metav1.PatchOptions{FieldManager: w.cfg.Manager}, "status")
	switch {
	case err == nil:
		w.written[o.Key()] = written{base: o.Origin.Version, result: result.GetResourceVersion(), status: want}
		w.cfg.Wrote("written")
		return true
	case apierrors.IsNotFound(err):
		return true // deleted meanwhile
	case apierrors.IsConflict(err):
		w.cfg.Wrote("conflict")
		return false // by then the watch shows the newer object
	case ctx.Err() != nil:
		return true
	default:
		w.cfg.Wrote("error")
		w.cfg.Log.Warn("writing a status", "object", o.Ref().String(), "error", err)
		return false
	}
}
