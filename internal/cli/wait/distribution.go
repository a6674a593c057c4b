package wait

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/proxystatus"
	"github.com/meshctl/meshctl/internal/kube"
)

// Target is a mesh object to wait for.
type Target struct {
	Kind            factory.Kind
	Namespace, Name string
	// Generation is the least that will do: that of the object as it was written.
	Generation int64
}

func (t Target) String() string { return t.Kind.Kind + " " + t.Namespace + "/" + t.Name }

// place is where one watch sees targets.
type place struct {
	resource  string
	namespace string
}

// event is the newest that is known of an object; a nil object is gone. An error ends the waiting.
type event struct {
	key    string
	object *unstructured.Unstructured
	err    error
}

// Distribution returns when every connected proxy has acknowledged the present generation of each target, calling done for each as it happens.
// A target that was refused, or that does not exist, is told on standard error and makes the answer no. A timeout of 0 looks once.
func Distribution(ctx context.Context, f *factory.Factory, client *kube.Client, targets []Target, timeout time.Duration, done func(*unstructured.Unstructured) error) error {
	limited, cancel := context.WithTimeout(ctx, max(timeout, 0))
	defer cancel()
	watching, stop := context.WithCancel(ctx)
	defer stop()

	waiting := map[string]Target{}
	places := map[place][]Target{}
	for _, t := range targets {
		waiting[key(t.Kind.Resource, t.Namespace, t.Name)] = t
		at := place{t.Kind.Resource, t.Namespace}
		places[at] = append(places[at], t)
	}
	events := make(chan event)
	listed := make(chan struct{}, len(places))
	for at, ts := range places {
		go follow(watching, client, at, ts, events, listed)
	}

	reasons := map[string]string{}
	refusals, unlisted := 0, len(places)
	for len(waiting) > 0 {
		expired := limited.Done()
		if unlisted > 0 {
			expired = nil // the state at the beginning is always looked at
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-listed:
			unlisted--
		case <-expired:
			return overdue(ctx, f, client, waiting, reasons, len(targets), timeout, refusals)
		case e := <-events:
			if e.err != nil {
				return f.Explain(client, e.err)
			}
			t, ours := waiting[e.key]
			if !ours {
				continue
			}
			if e.object == nil {
				f.Error("%s does not exist", t)
				refusals++
				delete(waiting, e.key)
				continue
			}
			if e.object.GetGeneration() < t.Generation {
				continue // older than what was written
			}
			switch v := judge(e.object); v.state {
			case pending:
				reasons[e.key] = v.reason
			case refused:
				f.Error("%s is not distributed: %s", t, v.reason)
				refusals++
				delete(waiting, e.key)
			case distributed:
				delete(waiting, e.key)
				if err := done(e.object); err != nil {
					return err
				}
			}
		}
	}
	if refusals > 0 {
		return factory.Silent(factory.ExitNo)
	}
	return nil
}

func key(resource, namespace, name string) string { return resource + " " + namespace + "/" + name }

// follow lists the targets of a place and then sends each change, until ctx ends. Where the server no longer knows the changes since the last one
// seen, it lists anew.
func follow(ctx context.Context, client *kube.Client, at place, targets []Target, events chan<- event, listed chan<- struct{}) {
	kind := targets[0].Kind
	source := source{api: client.Dynamic.Resource(kind.GVR()).Namespace(at.namespace)}
	if len(targets) == 1 {
		source.fields = fields.OneTermEqualSelector(metav1.ObjectNameField, targets[0].Name).String()
	}
	send := func(e event) bool {
		select {
		case events <- e:
			return true
		case <-ctx.Done():
			return false
		}
	}
	for first := true; ctx.Err() == nil; first = false {
		version, err := source.list(ctx, targets, send)
		if err != nil {
			send(event{err: err})
			return
		}
		if first {
			listed <- struct{}{}
		}
		if err := source.watch(ctx, at, version, send); err != nil {
			send(event{err: err})
			return
		}
	}
}

// source is what is listed and watched.
type source struct {
	api    dynamic.ResourceInterface
	fields string
}

// list sends the targets as they are, and returns from where to watch.
func (s source) list(ctx context.Context, targets []Target, send func(event) bool) (version string, err error) {
	list, err := s.api.List(ctx, metav1.ListOptions{FieldSelector: s.fields})
	if apierrors.IsNotFound(err) {
		return "", factory.No("the mesh is not installed in this cluster: it does not know %s", targets[0].Kind.GVR().GroupResource())
	}
	if err != nil {
		return "", err
	}
	found := map[string]*unstructured.Unstructured{}
	for i := range list.Items {
		found[list.Items[i].GetName()] = &list.Items[i]
	}
	for _, t := range targets {
		send(event{key: key(t.Kind.Resource, t.Namespace, t.Name), object: found[t.Name]})
	}
	return list.GetResourceVersion(), nil
}

// watch sends changes until ctx ends or the server asks for a new list, which is no error.
func (s source) watch(ctx context.Context, at place, version string, send func(event) bool) error {
	changes, err := watchtools.NewRetryWatcherWithContext(ctx, version, s)
	if err != nil {
		return err
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case e, open := <-changes.ResultChan():
			if !open {
				return nil
			}
			if e.Type == watch.Error {
				err := apierrors.FromObject(e.Object)
				if apierrors.IsResourceExpired(err) || apierrors.IsGone(err) {
					return nil
				}
				return fmt.Errorf("watching: %w", err)
			}
			u, ok := e.Object.(*unstructured.Unstructured)
			if !ok || e.Type == watch.Bookmark {
				continue
			}
			next := event{key: key(at.resource, u.GetNamespace(), u.GetName()), object: u}
			if e.Type == watch.Deleted {
				next.object = nil
			}
			send(next)
		}
	}
}

// WatchWithContext makes a source what a RetryWatcher asks.
func (s source) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.FieldSelector = s.fields
	return s.api.Watch(ctx, options)
}

// overdue says of each target what is missing. Who has not answered only Pilot knows; when it cannot be asked, that is said, too.
func overdue(ctx context.Context, f *factory.Factory, client *kube.Client, waiting map[string]Target, reasons map[string]string, total int, timeout time.Duration, refusals int) error {
	keys := make([]string, 0, len(waiting))
	for k := range waiting {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		f.Error("%s is not distributed after %s: %s", waiting[k], timeout, cmp.Or(reasons[k], "nothing newer than before it was written is known of it"))
	}
	proxies, errs := proxystatus.Fetch(ctx, client, *f.MeshNamespace)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	for _, err := range errs {
		fmt.Fprintf(f.ErrOut, "  %s\n", err)
	}
	if missing := proxystatus.Missing(proxies, time.Now()); missing != "" {
		fmt.Fprintf(f.ErrOut, "  %s\n", missing)
	}
	summary := fmt.Sprintf("%d of %d objects are distributed", total-len(waiting)-refusals, total)
	if total == 1 {
		return factory.Silent(factory.ExitError)
	}
	return &factory.ExitErr{Code: factory.ExitError, Err: errors.New(strings.TrimSpace(summary))}
}
