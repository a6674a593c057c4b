// Package wait is the verb that returns when the proxies have an object, and the waiting itself, which the verbs that write share.
//
// In: objects, and what the control plane writes into their status. Out: yes when every connected proxy has acknowledged each; no with the reason
// where one was refused; on a timeout, which proxies are missing.
package wait

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/input"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/manifest"
)

// DefaultTimeout is how long is waited unless --timeout says otherwise.
const DefaultTimeout = 30 * time.Second

type options struct {
	input         input.Flags
	condition     string
	timeout       time.Duration
	all           bool
	allNamespaces bool
	selector      string
	format        *genericclioptions.PrintFlags

	// named are the objects that arguments name, without their namespace; kinds are those of --all and -l.
	named []Target
	kinds []factory.Kind
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{timeout: DefaultTimeout, format: genericclioptions.NewPrintFlags("distributed")}
	cmd := &cobra.Command{
		Use:   "wait --for=distribution (TYPE NAME... | -f FILE | TYPE --all)",
		Short: "Wait until the proxies have a rule",
		Long: `Wait until every connected proxy has acknowledged the present form of rules and policies: requests that
are sent after that are treated by them.

TYPE is routerules, destinationpolicies, egressrules, or all. Objects of other kinds in files are
passed over. Nothing is polled: the objects' statuses, written by the control plane, are watched.

The exit code is 0 when all proxies have all objects; 1 when an object does not exist or was refused,
by the control plane or by a proxy, with the reason; 3 when --timeout passed, with the proxies that
are missing. While no proxy is connected nothing is distributed.`,
		Example: `  # Apply a rule, then go on when all proxies have it
  meshctl apply -f rules/bookinfo/route-default-v1.yaml
  meshctl wait --for=distribution routerule reviews-default

  # Everything a directory defines
  meshctl wait --for=distribution -R -f rules/bookinfo --timeout 1m

  # All rules and policies of all namespaces
  meshctl wait --for=distribution all --all -A

  # Look, but do not wait
  meshctl wait --for=distribution --timeout 0 routerule/reviews-default`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), f)
		},
		ValidArgsFunction: f.CompleteResources,
	}
	o.input.Add(cmd, "wait for")
	fs := cmd.Flags()
	fs.StringVar(&o.condition, "for", "", "what to wait for: distribution")
	fs.DurationVar(&o.timeout, "timeout", o.timeout, "how long to wait; 0 looks once")
	fs.BoolVar(&o.all, "all", false, "all objects of TYPE in the namespace")
	fs.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "with --all or -l, those of all namespaces")
	fs.StringVarP(&o.selector, "selector", "l", "", "the objects of TYPE with these labels, as in app=reviews")
	o.format.AddFlags(cmd)
	factory.Values(cmd, "for", "distribution")
	factory.Values(cmd, "output", o.format.AllowedFormats()...)
	return cmd
}

func (o *options) complete(args []string) error {
	byFile, bySet := len(o.input.Filenames) > 0, o.selector != "" || o.all
	switch {
	case o.condition == "":
		return factory.Usage("say what to wait for: --for=distribution")
	case o.condition != "distribution":
		return factory.Usage("--for=%s: the value is distribution; for conditions of other objects there is kubectl wait", o.condition)
	case o.timeout < 0:
		return factory.Usage("--timeout %s: it cannot be negative", o.timeout)
	case byFile && (len(args) > 0 || bySet):
		return factory.Usage("-f names the objects; arguments, -l and --all go without it")
	case o.selector != "" && o.all:
		return factory.Usage("-l and --all exclude each other")
	case !byFile && len(args) == 0:
		return factory.Usage("name the objects: TYPE NAME, TYPE --all, TYPE -l SELECTOR, or -f FILE")
	case bySet && (len(args) > 1 || strings.Contains(args[0], "/")):
		return factory.Usage("--all and -l go with a TYPE alone")
	case o.allNamespaces && !bySet:
		return factory.Usage("-A goes with --all or -l; an object is named in its namespace (-n)")
	case byFile:
		return nil
	case bySet:
		return o.ofKinds(args[0])
	}
	return o.byName(args)
}

func (o *options) ofKinds(types string) error {
	for _, name := range factory.Types(types) {
		kind, err := meshKind(name)
		if err != nil {
			return err
		}
		o.kinds = append(o.kinds, kind)
	}
	return nil
}

// byName takes TYPE NAME... or TYPE/NAME... apart.
func (o *options) byName(args []string) error {
	typed, names := args[0], args[1:]
	if strings.Contains(typed, "/") {
		typed, names = "", args
	} else if len(names) == 0 {
		return factory.Usage("name an object of type %s, or give --all", typed)
	}
	for _, name := range names {
		of := typed
		if of == "" {
			var ok bool
			if of, name, ok = strings.Cut(name, "/"); !ok || name == "" {
				return factory.Usage("%q is no TYPE/NAME", of)
			}
		}
		kind, err := meshKind(of)
		if err != nil {
			return err
		}
		o.named = append(o.named, Target{Kind: kind, Name: name})
	}
	return nil
}

func (o *options) run(ctx context.Context, f *factory.Factory) error {
	printer, err := o.format.ToPrinter()
	if err != nil {
		return factory.Usage("%w", err)
	}
	client, err := f.Connect()
	if err != nil {
		return err
	}
	targets := o.named
	switch {
	case len(o.input.Filenames) > 0:
		targets, err = o.fromFiles(ctx, f, client)
	case len(o.kinds) > 0:
		targets, err = o.fromCluster(ctx, f, client)
	default:
		for i := range targets {
			targets[i].Namespace = client.Namespace
		}
	}
	if err != nil {
		return err
	}
	if len(targets) == 0 {
		fmt.Fprintln(f.ErrOut, "There is nothing to wait for.")
		return nil
	}
	return Distribution(ctx, f, client, targets, o.timeout, func(u *unstructured.Unstructured) error {
		u.SetManagedFields(nil)
		return printer.PrintObj(u, f.Out)
	})
}

// fromFiles are the mesh objects of the files; what they say beyond their names does not matter here.
func (o *options) fromFiles(ctx context.Context, f *factory.Factory, client *kube.Client) ([]Target, error) {
	sources, err := o.input.Read(ctx, f.In)
	if err != nil {
		return nil, err
	}
	objs, fs := input.Decode(sources, manifest.Options{Namespace: *f.Config.Namespace, DefaultNamespace: client.Namespace, IdentityOnly: true})
	f.WriteFindings(f.ErrOut, fs)
	if finding.HasErrors(fs) {
		return nil, factory.No("nothing was waited for: %s", factory.Count(fs))
	}
	var targets []Target
	for _, obj := range objs {
		if kind, ok := factory.MeshKind(obj.GVK.Kind); ok && obj.GVK.Group == v1alpha2.GroupVersion.Group {
			targets = append(targets, Target{Kind: kind, Namespace: obj.Value.GetNamespace(), Name: obj.Value.GetName()})
		}
	}
	return targets, nil
}

// fromCluster are the objects that there are at this moment.
func (o *options) fromCluster(ctx context.Context, f *factory.Factory, client *kube.Client) ([]Target, error) {
	namespace := client.Namespace
	if o.allNamespaces {
		namespace = metav1.NamespaceAll
	}
	var targets []Target
	for _, kind := range o.kinds {
		list, err := client.Dynamic.Resource(kind.GVR()).Namespace(namespace).List(ctx, metav1.ListOptions{LabelSelector: o.selector})
		if apierrors.IsNotFound(err) {
			return nil, factory.No("the mesh is not installed in this cluster: it does not know %s", kind.GVR().GroupResource())
		}
		if err != nil {
			return nil, f.Explain(client, err)
		}
		for i := range list.Items {
			targets = append(targets, Target{Kind: kind, Namespace: list.Items[i].GetNamespace(), Name: list.Items[i].GetName()})
		}
	}
	return targets, nil
}

func meshKind(name string) (factory.Kind, error) {
	kind, ok := factory.MeshKind(name)
	if !ok {
		return kind, factory.Usage("%s are not distributed to proxies: the types are routerules, destinationpolicies and egressrules", name)
	}
	return kind, nil
}
