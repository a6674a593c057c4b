// Package delete is the verb that removes exactly the objects it is given.
package delete

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/resource"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/input"
	"github.com/meshctl/meshctl/internal/cli/write"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/store"
)

type options struct {
	input          input.Flags
	selector       string
	all            bool
	ignoreNotFound bool
	wait           bool
	timeout        time.Duration
	cascade        string
	dryRun         string
	output         string
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{wait: true, cascade: "background", dryRun: "none"}
	cmd := &cobra.Command{
		Use:   "delete (-f FILE | TYPE NAME... | TYPE -l SELECTOR | TYPE --all)",
		Short: "Delete objects by file, by name or by label",
		Long: `Delete the objects of files, directories, URLs or standard input, or those of a type by name or label.

Only the objects named are deleted, each by its own name: never a collection. An object that does not
exist is reported, the others are deleted all the same, and the exit code is 1 unless
--ignore-not-found. The command returns when the objects are gone, unless --wait=false.`,
		Example: `  # The objects of a file
  meshctl delete -f rules/bookinfo/route-user-jason-v2.yaml

  # By type and name; route-rule is understood too
  meshctl delete routerule reviews-test-v2 reviews-default

  # By label, in another namespace
  meshctl delete routerules -n bookinfo -l stage=canary`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), f, args)
		},
		ValidArgsFunction: f.CompleteResources,
	}
	o.input.Add(cmd, "delete")
	fs := cmd.Flags()
	fs.StringVarP(&o.selector, "selector", "l", "", "delete the objects of TYPE with these labels, as in app=reviews")
	fs.BoolVar(&o.all, "all", false, "delete all objects of TYPE in the namespace")
	fs.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "an object that does not exist is as good as deleted")
	fs.BoolVar(&o.wait, "wait", o.wait, "return only when the objects are gone")
	fs.DurationVar(&o.timeout, "timeout", 0, "how long to wait; 0 is without limit")
	fs.StringVar(&o.cascade, "cascade", o.cascade, "what becomes of the objects that these own: background, foreground or orphan")
	fs.StringVar(&o.dryRun, "dry-run", o.dryRun, "none; client: say what would be deleted; server: let the server judge")
	fs.StringVarP(&o.output, "output", "o", "", "name: print only the names")
	factory.Values(cmd, "cascade", "background", "foreground", "orphan")
	factory.Values(cmd, "dry-run", "none", "client", "server")
	factory.Values(cmd, "output", "name")
	return cmd
}

func (o *options) complete(args []string) error {
	byFile, bySet := len(o.input.Filenames) > 0, o.selector != "" || o.all
	switch {
	case byFile && len(args) > 0:
		return factory.Usage("delete takes no arguments when -f is used")
	case byFile && bySet:
		return factory.Usage("-f names the objects; -l and --all go with a TYPE")
	case o.selector != "" && o.all:
		return factory.Usage("-l and --all exclude each other")
	case !byFile && len(args) == 0:
		return factory.Usage("name the objects: TYPE NAME, TYPE -l SELECTOR, or -f FILE")
	}
	if err := factory.OneOf("cascade", o.cascade, "background", "foreground", "orphan"); err != nil {
		return err
	}
	if o.output != "" {
		if err := factory.OneOf("output", o.output, "name"); err != nil {
			return err
		}
	}
	return factory.OneOf("dry-run", o.dryRun, "none", "client", "server")
}

// victim is one object to delete.
type victim struct {
	*write.Item
	// typed is the type as the user typed it; empty for an object of a file.
	typed string
}

func (o *options) run(ctx context.Context, f *factory.Factory, args []string) error {
	client, err := f.Connect()
	if err != nil {
		return err
	}
	s := store.New(client)
	var victims []victim
	if len(o.input.Filenames) > 0 {
		victims, err = o.fromFiles(ctx, f, client)
	} else {
		victims, err = o.fromArgs(f, client, args)
	}
	if err != nil {
		return err
	}
	var deleted []victim
	missing := 0
	for _, v := range victims {
		err := o.deleteOne(ctx, s, v)
		switch {
		case err == nil:
			o.print(f, v)
			deleted = append(deleted, v)
		case apierrors.IsNotFound(err) && o.ignoreNotFound:
		case apierrors.IsNotFound(err):
			missing++
			f.Error("%s does not exist", v.Name())
		case kube.Unreachable(err) || ctx.Err() != nil:
			return f.Explain(client, err)
		default:
			return &factory.ExitErr{Code: factory.ExitError, Err: fmt.Errorf("deleting %s: %w", v.Name(), client.Explain(err))}
		}
	}
	if err := o.await(ctx, s, deleted); err != nil {
		return f.Explain(client, err)
	}
	if missing > 0 {
		return factory.Silent(factory.ExitNo)
	}
	return nil
}

// deleteOne deletes v and remembers which object that was: another of its name may follow.
func (o *options) deleteOne(ctx context.Context, s *store.Store, v victim) error {
	stored, err := s.Get(ctx, v.Target)
	if err != nil {
		return err
	}
	v.Sent.SetUID(stored.GetUID())
	if o.dryRun == "client" {
		return nil
	}
	return s.Delete(ctx, v.Target, stored.GetUID(), propagation(o.cascade), o.dryRun == "server")
}

func propagation(cascade string) metav1.DeletionPropagation {
	switch cascade {
	case "foreground":
		return metav1.DeletePropagationForeground
	case "orphan":
		return metav1.DeletePropagationOrphan
	default:
		return metav1.DeletePropagationBackground
	}
}

// fromFiles are the objects of the files. What they say beyond their names does not matter here.
func (o *options) fromFiles(ctx context.Context, f *factory.Factory, client *kube.Client) ([]victim, error) {
	sources, err := o.input.Read(ctx, f.In)
	if err != nil {
		return nil, err
	}
	objs, fs := input.Decode(sources, manifest.Options{Namespace: *f.Config.Namespace, DefaultNamespace: client.Namespace, IdentityOnly: true})
	f.WriteFindings(f.ErrOut, fs)
	if finding.HasErrors(fs) {
		return nil, factory.No("nothing was deleted: %s", factory.Count(fs))
	}
	if len(objs) == 0 {
		return nil, factory.No("nothing to delete")
	}
	slices.Reverse(objs) // what was made last goes first: a namespace, or the definition of a kind, after what is in it
	s := store.New(client)
	var victims []victim
	for _, obj := range objs {
		item, err := write.NewItem(obj)
		if err != nil {
			return nil, err
		}
		if item.Target, err = s.Place(item.Sent); err != nil {
			return nil, f.Explain(client, err)
		}
		victims = append(victims, victim{Item: item})
	}
	return victims, nil
}

// fromArgs are the objects that TYPE NAME... or TYPE with -l or --all mean.
func (o *options) fromArgs(f *factory.Factory, client *kube.Client, args []string) ([]victim, error) {
	named := factory.ResourceArgs(args)
	result := resource.NewBuilder(f.Config).Unstructured().
		NamespaceParam(client.Namespace).DefaultNamespace().
		LabelSelectorParam(o.selector).SelectAllParam(o.all).
		ResourceTypeOrNameArgs(false, named...).
		RequireObject(o.selector != "" || o.all).
		ContinueOnError().Flatten().Do()
	infos, err := result.Infos()
	if err != nil {
		return nil, f.ResourceError(client, args, err)
	}
	s := store.New(client)
	var victims []victim
	for _, info := range infos {
		u := &unstructured.Unstructured{}
		u.SetGroupVersionKind(info.Mapping.GroupVersionKind)
		u.SetNamespace(info.Namespace)
		u.SetName(info.Name)
		item := &write.Item{Sent: u}
		if item.Target, err = s.Place(u); err != nil {
			return nil, f.Explain(client, err)
		}
		victims = append(victims, victim{Item: item, typed: typed(args, info)})
	}
	if len(victims) == 0 {
		fmt.Fprintf(f.ErrOut, "No resources found in %s namespace.\n", client.Namespace)
	}
	return victims, nil
}

// typed is the type as the user wrote it for info: 0.2's line repeats it.
func typed(args []string, info *resource.Info) string {
	for _, arg := range args {
		if kind, name, ok := strings.Cut(arg, "/"); ok && name == info.Name {
			return kind
		}
	}
	return args[0]
}

// await returns when all are gone.
func (o *options) await(ctx context.Context, s *store.Store, deleted []victim) error {
	if !o.wait || o.dryRun != "none" {
		return nil
	}
	if o.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, o.timeout)
		defer cancel()
	}
	for _, v := range deleted {
		err := s.Gone(ctx, v.Target, v.Sent.GetUID())
		if errors.Is(err, context.DeadlineExceeded) {
			return &factory.ExitErr{Code: factory.ExitError, Err: fmt.Errorf("waiting until %s is gone: not within %s; it was marked for deletion", v.Name(), o.timeout)}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (o *options) print(f *factory.Factory, v victim) {
	suffix := map[string]string{"client": " (dry run)", "server": " (server dry run)"}[o.dryRun]
	switch {
	case o.output == "name":
		fmt.Fprintln(f.Out, write.Resource(v.Sent))
	case v.IsMesh() && v.typed != "":
		fmt.Fprintf(f.Out, "Deleted config: %s %s%s\n", v.typed, v.Sent.GetName(), suffix)
	case v.IsMesh():
		fmt.Fprintf(f.Out, "Deleted config: %s%s\n", v.Key(), suffix)
	default:
		fmt.Fprintf(f.Out, "%s deleted%s\n", write.Resource(v.Sent), suffix)
	}
}
