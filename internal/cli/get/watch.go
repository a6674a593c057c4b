package get

import (
	"context"
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/client-go/dynamic"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// follow prints the listing and then every change, until interrupted.
func (o *options) follow(ctx context.Context, printer printers.ResourcePrinter) error {
	types := factory.Types(o.args[0])
	kind, ok := factory.MeshKind(types[0])
	if len(types) != 1 || !ok || len(o.args) > 2 {
		return factory.Usage("--watch follows one mesh type, and at most one object of it")
	}
	var api dynamic.ResourceInterface = o.client.Dynamic.Resource(kind.GVR())
	if !o.allNamespaces {
		api = o.client.Dynamic.Resource(kind.GVR()).Namespace(o.client.Namespace)
	}
	options := metav1.ListOptions{LabelSelector: o.selector, FieldSelector: o.fieldSelector}
	if len(o.args) == 2 {
		options.FieldSelector = strings.TrimPrefix(options.FieldSelector+",metadata.name="+o.args[1], ",")
	}
	list, err := api.List(ctx, options)
	if apierrors.IsNotFound(err) {
		return factory.No("the mesh is not installed in this cluster: it does not know %s", kind.GVR().GroupResource())
	}
	if err != nil {
		return o.f.Explain(o.client, err)
	}
	out := &stream{o: o, printer: printer}
	var objs []*unstructured.Unstructured
	for i := range list.Items {
		objs = append(objs, &list.Items[i])
	}
	if err := o.sort(objs); err != nil {
		return err
	}
	if err := out.print(objs...); err != nil {
		return err
	}
	changes, err := watchtools.NewRetryWatcherWithContext(ctx, list.GetResourceVersion(), watcher{api, options})
	if err != nil {
		return o.f.Explain(o.client, err)
	}
	defer changes.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case event, open := <-changes.ResultChan():
			if !open {
				return &factory.ExitErr{Code: factory.ExitError, Err: errors.New("watching: the server ended the watch")}
			}
			if event.Type == watch.Error {
				return o.f.Explain(o.client, fmt.Errorf("watching: %w", apierrors.FromObject(event.Object)))
			}
			if u, ok := event.Object.(*unstructured.Unstructured); ok && event.Type != watch.Bookmark {
				if err := out.print(u); err != nil {
					return err
				}
			}
		}
	}
}

type watcher struct {
	api     dynamic.ResourceInterface
	options metav1.ListOptions
}

func (w watcher) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.LabelSelector, options.FieldSelector = w.options.LabelSelector, w.options.FieldSelector
	return w.api.Watch(ctx, options)
}

// stream prints objects as they come, in columns as wide as those of the first batch at least.
type stream struct {
	o       *options
	printer printers.ResourcePrinter
	widths  []int
}

func (s *stream) print(objs ...*unstructured.Unstructured) error {
	if len(objs) == 0 {
		return nil
	}
	if s.printer != nil {
		for _, u := range objs {
			if err := s.o.printOne(s.printer, u); err != nil {
				return err
			}
		}
		return nil
	}
	if *s.o.format.OutputFormat == "short" {
		return s.o.short(objs)
	}
	header, rows := s.o.table(objs, nil, false)
	if s.widths == nil && !s.o.noHeaders {
		rows = append([][]string{header}, rows...)
	}
	if s.widths == nil {
		s.widths = make([]int, len(header))
	}
	for _, row := range rows {
		for n, cell := range row {
			s.widths[n] = max(s.widths[n], len(cell))
		}
	}
	for _, row := range rows {
		var line strings.Builder
		for n, cell := range row {
			fmt.Fprintf(&line, "%-*s", s.widths[n]+3, cell)
		}
		fmt.Fprintln(s.o.f.Out, strings.TrimRight(line.String(), " "))
	}
	return nil
}
