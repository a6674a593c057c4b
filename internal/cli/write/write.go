// Package write runs the verbs that put the objects of files into the cluster: read, judge, rehearse, write in order, account for every object.
//
// In: the files and a Verb. Out: one line per object written, findings about what was refused, and, when the connection breaks halfway, which
// objects were written and which were not. Nothing is written before everything was read, judged and, where there is more than one object,
// rehearsed on the server.
package write

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/input"
	"github.com/meshctl/meshctl/internal/cli/wait"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
	"github.com/meshctl/meshctl/internal/store"
)

// Verb is what distinguishes create, replace and apply.
type Verb struct {
	Name string
	// Past is what a dry run says was done: created.
	Past string
	// Write asks the server to do it; word says what was done: created, replaced, configured, unchanged.
	Write func(ctx context.Context, s *store.Store, i *Item, dry bool) (result *unstructured.Unstructured, word string, err error)
	// Line is what is printed about a mesh object, as 0.2 did; nil prints kubectl's line for every kind.
	Line func(key, revision string) string
	// Refusal words an error that the verb expects, as the answer no. Empty when it does not.
	Refusal func(i *Item, err error) (message, hint string)
}

// Options are the flags that the verbs share.
type Options struct {
	Input           input.Flags
	KeepAPIVersions bool
	DryRun          string
	Wait            bool
	Timeout         time.Duration
	Print           *genericclioptions.PrintFlags
}

// NewOptions is the options with every flag at its default.
func NewOptions() *Options {
	return &Options{DryRun: "none", Timeout: wait.DefaultTimeout, Print: genericclioptions.NewPrintFlags("")}
}

// AddFlags binds the flags to cmd.
func (o *Options) AddFlags(cmd *cobra.Command) {
	o.Input.Add(cmd, cmd.Name())
	fs := cmd.Flags()
	fs.BoolVar(&o.KeepAPIVersions, "keep-api-versions", false, "do not upgrade API versions that Kubernetes no longer serves")
	fs.StringVar(&o.DryRun, "dry-run", o.DryRun, "none; client: judge only, without a cluster; server: let the server judge, without writing")
	fs.BoolVar(&o.Wait, "wait", false, "return only when every connected proxy has the rules and policies written, as wait --for=distribution does")
	fs.DurationVar(&o.Timeout, "timeout", o.Timeout, "how long --wait waits")
	o.Print.AddFlags(cmd)
	factory.Values(cmd, "dry-run", "none", "client", "server")
	factory.Values(cmd, "output", o.Print.AllowedFormats()...)
}

// Complete checks the flags.
func (o *Options) Complete() (printers.ResourcePrinter, error) {
	if err := o.Input.Check(); err != nil {
		return nil, err
	}
	if err := factory.OneOf("dry-run", o.DryRun, "none", "client", "server"); err != nil {
		return nil, err
	}
	if o.Timeout < 0 {
		return nil, factory.Usage("--timeout %s: it cannot be negative", o.Timeout)
	}
	if *o.Print.OutputFormat == "" {
		return nil, nil
	}
	p, err := o.Print.ToPrinter()
	if err != nil {
		return nil, factory.Usage("%w", err)
	}
	return p, nil
}

// Item is one object on its way.
type Item struct {
	Object *objects.Object
	// Sent is the object as the server gets it.
	Sent   *unstructured.Unstructured
	Target store.Target
	placed bool
	// written is what the write resulted in.
	written *unstructured.Unstructured
}

func (i *Item) where() string { return i.Object.Origin.Position("metadata.name").String() }

// Name is the object in words: "RouteRule default/reviews-default".
func (i *Item) Name() string {
	return finding.Object{Kind: i.Sent.GetKind(), Namespace: i.Sent.GetNamespace(), Name: i.Sent.GetName()}.String()
}

// Key is 0.2's name of an object: route-rule/default/reviews-default.
func (i *Item) Key() string {
	return Kebab(i.Sent.GetKind()) + "/" + i.Sent.GetNamespace() + "/" + i.Sent.GetName()
}

// IsMesh says whether the object is of the mesh's own group.
func (i *Item) IsMesh() bool { return i.Sent.GroupVersionKind().Group == v1alpha2.GroupVersion.Group }

// Files is the part of a command line that names the object's file again, and the namespace where the user gave one.
func (i *Item) Files(f *factory.Factory) string {
	words := "-f " + i.Object.Origin.File
	if ns := *f.Config.Namespace; ns != "" {
		words = "-n " + ns + " " + words
	}
	return words
}

// Kebab is a kind as 0.2 wrote it: RouteRule is route-rule, memquota stays.
func Kebab(kind string) string {
	var b strings.Builder
	for n, r := range kind {
		if r >= 'A' && r <= 'Z' {
			if n > 0 {
				b.WriteByte('-')
			}
			r += 'a' - 'A'
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Resource is an object as kubectl names it: deployment.apps/x.
func Resource(u *unstructured.Unstructured) string {
	name := strings.ToLower(u.GetKind())
	if g := u.GroupVersionKind().Group; g != "" {
		name += "." + g
	}
	return name + "/" + u.GetName()
}

// run is one invocation.
type run struct {
	*Options
	verb    Verb
	f       *factory.Factory
	client  *kube.Client
	store   *store.Store
	printer printers.ResourcePrinter
	items   []*Item
}

// Run does the verb with all objects of the input.
func (o *Options) Run(ctx context.Context, f *factory.Factory, verb Verb) error {
	printer, err := o.Complete()
	if err != nil {
		return err
	}
	r := &run{Options: o, verb: verb, f: f, printer: printer}
	if o.DryRun != "client" {
		if r.client, err = f.Connect(); err != nil {
			return err
		}
		r.store = store.New(r.client)
	}
	if err := r.read(ctx); err != nil {
		return err
	}
	if o.DryRun == "client" {
		for _, i := range r.items {
			if err := r.done(i, i.Sent, verb.Past); err != nil {
				return err
			}
		}
		return nil
	}
	if len(r.items) > 1 {
		if err := r.rehearse(ctx); err != nil {
			return err
		}
	}
	if err := r.write(ctx); err != nil || !o.Wait || o.DryRun != "none" {
		return err
	}
	return r.await(ctx)
}

// await returns when the proxies have what was written; objects of other kinds do not travel to them.
func (r *run) await(ctx context.Context) error {
	var targets []wait.Target
	for _, i := range r.items {
		if kind, ok := factory.MeshKind(i.Sent.GetKind()); ok && i.IsMesh() {
			targets = append(targets, wait.Target{Kind: kind, Namespace: i.Target.Namespace, Name: i.written.GetName(), Generation: i.written.GetGeneration()})
		}
	}
	if len(targets) == 0 {
		return nil
	}
	start := time.Now()
	if err := wait.Distribution(ctx, r.f, r.client, targets, r.Timeout, func(*unstructured.Unstructured) error { return nil }); err != nil {
		return err
	}
	fmt.Fprintf(r.f.ErrOut, "Every connected proxy has it after %s.\n", time.Since(start).Round(time.Millisecond))
	return nil
}

// read brings the input through reader and validator; errors end the command here.
func (r *run) read(ctx context.Context) error {
	sources, err := r.Input.Read(ctx, r.f.In)
	if err != nil {
		return err
	}
	options := manifest.Options{KeepAPIVersions: r.KeepAPIVersions, Namespace: *r.f.Config.Namespace, DefaultNamespace: "default"}
	if r.client != nil {
		options.DefaultNamespace = r.client.Namespace
	}
	objs, fs := input.Decode(sources, options)
	fs = append(fs, input.Check(objs)...)
	for _, o := range objs {
		item, err := NewItem(o)
		if err != nil {
			return err
		}
		r.items = append(r.items, item)
	}
	if !finding.HasErrors(fs) && r.client != nil {
		refused, err := r.place()
		if err != nil {
			return err
		}
		fs = append(fs, refused...)
		among, err := r.among(ctx)
		if err != nil {
			return err
		}
		fs = append(fs, among...)
	}
	r.f.WriteFindings(r.f.ErrOut, fs)
	if finding.HasErrors(fs) {
		return factory.No("nothing was written: %s", factory.Count(fs))
	}
	if len(objs) == 0 {
		return factory.No("nothing to %s", r.verb.Name)
	}
	return nil
}

// NewItem is o as the server gets it: what the user wrote, in the namespace it was found to belong to.
func NewItem(o *objects.Object) (*Item, error) {
	sent, err := o.Unstructured()
	if err != nil {
		return nil, err
	}
	sent.SetNamespace(o.Value.GetNamespace())
	return &Item{Object: o, Sent: sent}, nil
}

// place finds where each object goes. Kinds that the input itself defines are placed later.
func (r *run) place() ([]finding.Finding, error) {
	var fs []finding.Finding
	for _, i := range r.items {
		var err error
		i.Target, err = r.store.Place(i.Sent)
		switch {
		case err == nil:
			i.placed = true
		case meta.IsNoMatchError(err) && r.defines(i):
		case meta.IsNoMatchError(err):
			hint := "check apiVersion and kind against kubectl api-resources"
			switch {
			case r.KeepAPIVersions:
				hint = "without --keep-api-versions a retired version is upgraded"
			case i.IsMesh():
				hint = "the mesh is not installed in this cluster, its custom resource definitions are missing"
			}
			fs = append(fs, i.Object.Find(finding.UnknownKind, finding.Error, "kind",
				fmt.Sprintf("the cluster has no kind %s in %s", i.Object.GVK.Kind, i.Object.GVK.GroupVersion()), hint))
		default:
			return nil, r.f.Explain(r.client, err)
		}
	}
	return fs, nil
}

// defines says whether a CustomResourceDefinition of the input makes i's kind.
func (r *run) defines(i *Item) bool {
	for _, o := range r.items {
		if o.Sent.GetKind() != "CustomResourceDefinition" {
			continue
		}
		group, _, _ := unstructured.NestedString(o.Sent.Object, "spec", "group")
		kind, _, _ := unstructured.NestedString(o.Sent.Object, "spec", "names", "kind")
		if group == i.Object.GVK.Group && kind == i.Object.GVK.Kind {
			return true
		}
	}
	return false
}

// among judges the objects among those of the cluster.
func (r *run) among(ctx context.Context) ([]finding.Finding, error) {
	var objs []*objects.Object
	namespaces := map[string]bool{}
	concerned := false
	for _, i := range r.items {
		o := *i.Object
		if u, ok := o.Value.DeepCopyObject().(objects.Value); ok {
			u.SetNamespace(i.Sent.GetNamespace())
			o.Value = u
		}
		objs = append(objs, &o)
		if i.IsMesh() || i.Sent.GetKind() == "Ingress" {
			concerned = true
			for _, ns := range store.NamespacesOf(i.Sent) {
				namespaces[ns] = true
			}
		}
	}
	if !concerned {
		return nil, nil
	}
	names := make([]string, 0, len(namespaces))
	for ns := range namespaces {
		names = append(names, ns)
	}
	slices.Sort(names)
	cluster, err := r.store.Surroundings(ctx, names)
	if errors.Is(err, store.ErrHidden) {
		return nil, nil
	}
	if err != nil {
		return nil, r.f.Explain(r.client, err)
	}
	return input.Among(cluster.Overlay(objects.NewSet(objs...)), objs), nil
}

// rehearse lets the server judge every object before the first is written.
func (r *run) rehearse(ctx context.Context) error {
	var all []*refused
	for _, i := range r.items {
		if !i.placed {
			continue
		}
		_, _, err := r.verb.Write(ctx, r.store, i, true)
		switch {
		case err == nil, r.namespaceFollows(err), noDryRun(err):
		case kube.Unreachable(err) || ctx.Err() != nil:
			return r.f.Explain(r.client, err)
		default:
			all = append(all, r.refusal(i, err))
		}
	}
	if len(all) == 0 {
		return nil
	}
	return r.refuse(all, fmt.Sprintf("nothing was written: %d of %d objects were refused", len(all), len(r.items)))
}

// namespaceFollows says whether err is about a namespace that the input itself makes.
func (r *run) namespaceFollows(err error) bool {
	var status apierrors.APIStatus
	if !apierrors.IsNotFound(err) || !errors.As(err, &status) || status.Status().Details == nil || status.Status().Details.Kind != "namespaces" {
		return false
	}
	return slices.ContainsFunc(r.items, func(i *Item) bool {
		return i.Sent.GetKind() == "Namespace" && i.Sent.GetName() == status.Status().Details.Name
	})
}

// noDryRun says whether an admission webhook with side effects keeps the server from rehearsing; the write itself decides then.
func noDryRun(err error) bool {
	return apierrors.IsBadRequest(err) && strings.Contains(err.Error(), "does not support dry run")
}

// write does it, in the order of the documents, and stops at the first trouble.
func (r *run) write(ctx context.Context) error {
	dry := r.DryRun == "server"
	for n, i := range r.items {
		err := r.writeOne(ctx, i, dry)
		if err == nil {
			continue
		}
		refusal := r.refusal(i, err)
		if len(r.items) == 1 {
			return r.refuse([]*refused{refusal}, "")
		}
		return r.refuse([]*refused{refusal}, r.account(n, refusal.lost))
	}
	return nil
}

func (r *run) writeOne(ctx context.Context, i *Item, dry bool) error {
	if !i.placed {
		if dry { // its kind exists only once the input is written
			return r.done(i, i.Sent, r.verb.Past)
		}
		if err := r.placeLate(ctx, i); err != nil {
			return err
		}
	}
	result, word, err := r.verb.Write(ctx, r.store, i, dry)
	if dry && err != nil && r.namespaceFollows(err) {
		return r.done(i, i.Sent, r.verb.Past)
	}
	if err != nil {
		return err
	}
	i.written = result
	return r.done(i, result, word)
}

// lateKind bounds the wait for a kind that the input has just defined.
const lateKind = 15 * time.Second

func (r *run) placeLate(ctx context.Context, i *Item) error {
	ctx, cancel := context.WithTimeout(ctx, lateKind)
	defer cancel()
	for {
		r.store.Refresh()
		var err error
		if i.Target, err = r.store.Place(i.Sent); err == nil {
			i.placed = true
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// account says which objects were written before the n-th was not; of that one nobody knows when the answer was lost.
func (r *run) account(n int, lost bool) string {
	if n == 0 && !lost {
		return "nothing was written"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d objects were written", n, len(r.items))
	for k, i := range r.items {
		state := "written:    "
		switch {
		case k == n && lost:
			state = "unknown:    "
		case k >= n:
			state = "not written:"
		}
		fmt.Fprintf(&b, "\n  %s %s", state, i.Name())
	}
	return b.String()
}

// done prints the line, or the object, of one success.
func (r *run) done(i *Item, result *unstructured.Unstructured, word string) error {
	if r.printer != nil {
		return r.printer.PrintObj(result, r.f.Out)
	}
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[r.DryRun]
	if i.IsMesh() && r.verb.Line != nil {
		fmt.Fprintln(r.f.Out, r.verb.Line(i.Key(), result.GetResourceVersion())+suffix)
		return nil
	}
	fmt.Fprintf(r.f.Out, "%s %s%s\n", Resource(result), word, suffix)
	return nil
}
