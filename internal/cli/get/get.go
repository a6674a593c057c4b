// Package get is the verb that shows stored objects: the mesh's own in tables made for them, others in the server's.
package get

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/printers"
	"k8s.io/cli-runtime/pkg/resource"
	"k8s.io/client-go/rest"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/kube"
)

type options struct {
	format         *genericclioptions.PrintFlags
	allNamespaces  bool
	selector       string
	fieldSelector  string
	sortBy         string
	noHeaders      bool
	watch          bool
	ignoreNotFound bool

	f      *factory.Factory
	client *kube.Client
	args   []string
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{f: f, format: genericclioptions.NewPrintFlags("")}
	cmd := &cobra.Command{
		Use:   "get TYPE[,TYPE...] [NAME...]",
		Short: "Show rules, policies and other objects",
		Long: `Show objects of the cluster. TYPE is routerules, destinationpolicies or egressrules (singular, plural or
with a hyphen as in route-rule), all or mesh for all of them, or any other type the cluster has.

RouteRules are listed in the order in which they are tried: for each destination the highest
precedence first, equal ones by name. MATCH reads header~regex, header=exact, header=prefix*; ROUTE
reads version=percent. * is everything.`,
		Example: `  # The rules of the namespace, in the order they are tried
  meshctl get routerules

  # Everything of the mesh, everywhere, with status
  meshctl get all -A -o wide

  # One rule as YAML
  meshctl get route-rule reviews-default -o yaml

  # One field of each rule
  meshctl get routerules -o custom-columns=NAME:.metadata.name,TO:.spec.destination.name

  # Show changes as they come
  meshctl get routerules -w`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.complete(args); err != nil {
				return err
			}
			return o.run(cmd.Context())
		},
		ValidArgsFunction: f.CompleteResources,
	}
	o.format.AddFlags(cmd)
	fs := cmd.Flags()
	fs.Lookup("output").Usage = "wide, short, name, json, yaml, kyaml, custom-columns=..., jsonpath=... or go-template=..."
	fs.BoolVarP(&o.allNamespaces, "all-namespaces", "A", false, "all namespaces")
	fs.StringVarP(&o.selector, "selector", "l", "", "only objects with these labels, as in app=reviews,version!=v1")
	fs.StringVar(&o.fieldSelector, "field-selector", "", "only objects with these fields, as in metadata.name=reviews-default")
	fs.StringVar(&o.sortBy, "sort-by", "", "name, age, precedence, or a path as in .spec.destination.name")
	fs.BoolVar(&o.noHeaders, "no-headers", false, "leave the headers out")
	fs.BoolVarP(&o.watch, "watch", "w", false, "after the listing, show each change as it comes")
	fs.BoolVar(&o.ignoreNotFound, "ignore-not-found", false, "a name that does not exist is not an error")
	factory.Values(cmd, "output", "wide", "short", "name", "json", "yaml", "kyaml", "custom-columns=", "jsonpath=", "go-template=")
	factory.Values(cmd, "sort-by", "name", "age", "precedence")
	return cmd
}

func (o *options) complete(args []string) error {
	if len(args) == 0 {
		return factory.Usage("name the type to get: routerules, destinationpolicies, egressrules, or all")
	}
	if o.watch && o.sortBy != "" {
		return factory.Usage("--watch shows changes as they come and cannot be sorted")
	}
	if o.allNamespaces && (len(args) > 1 || strings.Contains(args[0], "/")) {
		return factory.Usage("an object cannot be got by name across all namespaces: name its namespace with -n")
	}
	o.args = args
	return nil
}

// human says whether a table is asked for.
func (o *options) human() bool {
	return slices.Contains([]string{"", "wide", "short"}, *o.format.OutputFormat) && *o.format.TemplatePrinterFlags.TemplateArgument == ""
}

func (o *options) wide() bool { return *o.format.OutputFormat == "wide" }

func (o *options) run(ctx context.Context) error {
	printer, err := o.printer()
	if err != nil {
		return err
	}
	if o.client, err = o.f.Connect(); err != nil {
		return err
	}
	if o.watch {
		return o.follow(ctx, printer)
	}
	builder := resource.NewBuilder(o.f.Config).Unstructured().
		NamespaceParam(o.client.Namespace).DefaultNamespace().AllNamespaces(o.allNamespaces).
		LabelSelectorParam(o.selector).FieldSelectorParam(o.fieldSelector).
		RequestChunksOf(500).
		ResourceTypeOrNameArgs(true, factory.ResourceArgs(o.args)...).
		ContinueOnError()
	if o.human() {
		builder = builder.TransformRequests(asTable)
	}
	result := builder.Do()
	if err := result.Err(); err != nil {
		return o.f.ResourceError(o.client, o.args, err)
	}
	single := false
	infos, err := result.IntoSingleItemImplied(&single).Infos()
	found, parts := o.collect(infos)
	if err := o.sort(found); err != nil {
		return err
	}
	if printErr := o.show(found, parts, single && len(found) == 1, printer, err == nil); printErr != nil {
		return printErr
	}
	return o.trouble(err)
}

// trouble tells every error of several, and ends with not found only when nothing graver was among them.
func (o *options) trouble(err error) error {
	if err == nil {
		return nil
	}
	errs := []error{err}
	var all utilerrors.Aggregate
	if errors.As(err, &all) {
		errs = all.Errors()
	}
	code := factory.ExitOK
	for _, err := range errs {
		if apierrors.IsNotFound(err) && o.ignoreNotFound {
			continue
		}
		worded := o.f.ResourceError(o.client, o.args, err)
		o.f.Error("%s", worded)
		code = max(code, factory.Code(worded))
	}
	if code == factory.ExitOK {
		return nil
	}
	return factory.Silent(code)
}

// asTable asks for the server's table together with the whole objects: other kinds are shown by the one, ours from the other.
func asTable(r *rest.Request) {
	r.SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io,application/json")
	r.Param("includeObject", "Object")
}

// collect takes lists and tables apart into objects, and keeps the tables' cells for those shown the server's way.
func (o *options) collect(infos []*resource.Info) ([]*unstructured.Unstructured, *cells) {
	var found []*unstructured.Unstructured
	parts := &cells{rows: map[*unstructured.Unstructured][]string{}, columns: map[string][]metav1.TableColumnDefinition{}}
	for _, info := range infos {
		if meta.IsListType(info.Object) {
			_ = meta.EachListItem(info.Object, func(item runtime.Object) error { // the callback never fails
				if u, ok := item.(*unstructured.Unstructured); ok {
					found = append(found, u)
				}
				return nil
			})
			continue
		}
		u, ok := info.Object.(*unstructured.Unstructured)
		switch {
		case !ok:
		case u.GetKind() == "Table":
			found = append(found, parts.add(u)...)
		default:
			found = append(found, u)
		}
	}
	return found, parts
}

// printer is the machine format asked for, nil for tables.
func (o *options) printer() (printers.ResourcePrinter, error) {
	if o.human() {
		return nil, nil
	}
	if spec, ok := strings.CutPrefix(*o.format.OutputFormat, "custom-columns="); ok {
		return newCustomColumns(spec, o.noHeaders)
	}
	p, err := o.format.ToPrinter()
	if err != nil {
		if genericclioptions.IsNoCompatiblePrinterError(err) {
			return nil, factory.Usage("-o %s: the formats are wide, short, name, json, yaml, kyaml, custom-columns=, jsonpath= and go-template=", *o.format.OutputFormat)
		}
		return nil, factory.Usage("-o %s: %w", *o.format.OutputFormat, err)
	}
	return p, nil
}

// show prints what was found; emptiness is said on the side of the talk.
func (o *options) show(found []*unstructured.Unstructured, parts *cells, single bool, printer printers.ResourcePrinter, complete bool) error {
	if len(found) == 0 && (o.human() || *o.format.OutputFormat == "name") {
		if complete {
			o.sayEmpty()
		}
		return nil
	}
	if o.human() {
		return o.tables(found, parts)
	}
	if _, each := printer.(*customColumns); *o.format.OutputFormat == "name" && !each {
		for _, u := range found {
			if err := printer.PrintObj(u, o.f.Out); err != nil {
				return fmt.Errorf("printing %s %s: %w", u.GetKind(), u.GetName(), err)
			}
		}
		return nil
	}
	if single {
		return o.printOne(printer, found[0])
	}
	if len(found) == 0 && !complete {
		return nil
	}
	list := &unstructured.UnstructuredList{Object: map[string]any{"apiVersion": "v1", "kind": "List", "metadata": map[string]any{"resourceVersion": ""}}}
	for _, u := range found {
		list.Items = append(list.Items, *u)
	}
	return o.printOne(printer, list)
}

func (o *options) printOne(printer printers.ResourcePrinter, obj runtime.Object) error {
	if err := printer.PrintObj(obj, o.f.Out); err != nil {
		return factory.Usage("-o %s: %w", *o.format.OutputFormat, err)
	}
	return nil
}

func (o *options) sayEmpty() {
	if o.allNamespaces {
		fmt.Fprintln(o.f.ErrOut, "No resources found.")
		return
	}
	fmt.Fprintf(o.f.ErrOut, "No resources found in %s namespace.\n", o.client.Namespace)
}
