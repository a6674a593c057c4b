// Package proxyconfig is the verb that shows what one proxy was configured with, as the proxy itself says.
//
// In: a pod with a proxy, or a file with its dump. Out: tables that awk can take apart, or Envoy's own configuration with every secret masked.
package proxyconfig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/proxystate"
)

// options are what every subcommand takes.
type options struct {
	f         *factory.Factory
	file      string
	output    string
	noHeaders bool
	formats   []string
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "proxy-config",
		Aliases: []string{"pc"},
		Short:   "Show what a proxy was configured with",
		Long: `Show what the proxy of one pod was configured with, as the proxy itself says: not what the control plane
means for it. Where the two differ, proxy-status POD says so.

The pod is named as POD, POD.NAMESPACE, or by what it belongs to: deployment/NAME. With --file, a dump is
shown that was saved before (proxy-config all POD -o json) or comes from Envoy's /config_dump?include_eds;
no cluster is needed then.

Private keys, passwords and the like are never shown, whatever the format.`,
		Example: `  # Where do requests for reviews go from the productpage?
  meshctl proxy-config route deployment/productpage-v1 --host reviews

  # Which instances does the proxy know, and are they well?
  meshctl proxy-config endpoint deployment/productpage-v1 --cluster reviews

  # Save everything, and look at it later
  meshctl proxy-config all deployment/productpage-v1 -o json > dump.json
  meshctl proxy-config listener --file dump.json`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return cmd.Help()
			}
			return factory.Usage("unknown kind of configuration %q; there are %s", args[0], strings.Join(kinds(cmd), ", "))
		},
	}
	cmd.AddCommand(newBootstrap(f), newCluster(f), newEndpoint(f), newListener(f), newRoute(f), newSecret(f), newLog(f), newAll(f))
	return cmd
}

func kinds(cmd *cobra.Command) []string {
	var out []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			out = append(out, c.Name())
		}
	}
	return out
}

// command is a subcommand that shows a part of a dump.
func (o *options) command(name, plural, short, long, example string, formats []string, run func(ctx context.Context, args []string) error) *cobra.Command {
	o.formats = formats
	o.output = formats[0]
	cmd := &cobra.Command{
		Use:     name + " POD[.NAMESPACE]",
		Aliases: []string{plural},
		Short:   short,
		Long:    long,
		Example: example,
		Args: func(_ *cobra.Command, args []string) error {
			switch {
			case len(args) > 1:
				return factory.Usage("%s takes one pod, but got %d", name, len(args))
			case len(args) == 0 && o.file == "":
				return factory.Usage("name the pod: POD, POD.NAMESPACE or deployment/NAME; or a dump with --file")
			case len(args) == 1 && o.file != "":
				return factory.Usage("either a pod or --file, not both")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := factory.OneOf("output", o.output, o.formats...); err != nil {
				return err
			}
			return run(cmd.Context(), args)
		},
		ValidArgsFunction: o.f.CompleteProxies,
	}
	fs := cmd.Flags()
	fs.StringVarP(&o.output, "output", "o", o.output, strings.Join(formats[:len(formats)-1], ", ")+" or "+formats[len(formats)-1])
	fs.StringVar(&o.file, "file", "", "a saved dump to show in place of a pod's; - is standard input")
	if formats[0] == "table" {
		fs.BoolVar(&o.noHeaders, "no-headers", false, "leave the headers out")
	}
	factory.Values(cmd, "output", formats...)
	if err := cmd.RegisterFlagCompletionFunc("file", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"json"}, cobra.ShellCompDirectiveFilterFileExt
	}); err != nil {
		panic(err) // the flag was defined a few lines up
	}
	return cmd
}

// admin finds the proxy that the arguments name.
func (o *options) admin(ctx context.Context, args []string) (*proxystate.Admin, *kube.Client, error) {
	client, err := o.f.Connect()
	if err != nil {
		return nil, nil, err
	}
	pod, err := proxystate.Find(ctx, client, args[0], client.Namespace)
	if proxystate.IsAbsent(err) {
		return nil, nil, &factory.ExitErr{Code: factory.ExitNo, Err: err}
	}
	if err != nil {
		return nil, nil, o.f.Explain(client, err)
	}
	return proxystate.Open(client, pod.Namespace, pod.Name), client, nil
}

// dump is the proxy's, or the file's.
func (o *options) dump(ctx context.Context, args []string) (*proxystate.Dump, error) {
	if o.file != "" {
		return o.saved()
	}
	admin, client, err := o.admin(ctx, args)
	if err != nil {
		return nil, err
	}
	d, err := admin.Dump(ctx)
	if err != nil {
		return nil, o.f.Explain(client, err)
	}
	return d, nil
}

func (o *options) saved() (*proxystate.Dump, error) {
	var data []byte
	var err error
	if o.file == "-" {
		data, err = io.ReadAll(o.f.In)
	} else {
		data, err = os.ReadFile(o.file)
	}
	if err != nil {
		return nil, fmt.Errorf("reading the dump: %w", err)
	}
	d, err := proxystate.Parse(data)
	if err != nil {
		return nil, &factory.ExitErr{Code: factory.ExitNo, Err: fmt.Errorf("%s: %w", o.file, err)}
	}
	return d, nil
}

// show writes rows as a table, or bodies as json or yaml. What is empty is said on the side of the talk.
func (o *options) show(what string, header []string, rows [][]string, bodies any) error {
	if o.output == "json" || o.output == "yaml" {
		return factory.Encode(o.f.Out, o.output, bodies)
	}
	if len(rows) == 0 {
		fmt.Fprintf(o.f.ErrOut, "The proxy has no such %s.\n", what)
		return nil
	}
	if o.noHeaders {
		header = nil
	}
	for _, row := range rows {
		for n := range row {
			row[n] = word(row[n])
		}
	}
	return factory.Table(o.f.Out, header, rows)
}

// word makes a cell one word, so that awk can count columns.
func word(s string) string {
	if s == "" {
		return "-"
	}
	return strings.NewReplacer(" ", "%20", "\t", "%09", "\n", "%0A", "\r", "%0D").Replace(s)
}

// tell says what the proxy refused beside what is shown.
func (o *options) tell(resources []proxystate.Resource) {
	for _, r := range resources {
		if r.Error != "" {
			o.f.Warn("the proxy refused a newer form of %s: %s", r.Name, strings.Join(strings.Fields(r.Error), " "))
		}
	}
}

// body is what json and yaml show of resources: each once, in their order.
func body(resources []proxystate.Resource) []map[string]any {
	out := []map[string]any{}
	last := ""
	for _, r := range resources {
		key := r.State + " " + r.Name
		if key != last {
			out = append(out, r.Body)
		}
		last = key
	}
	return out
}

var errNoBootstrap = errors.New("the dump holds no bootstrap")

func tables() []string { return []string{"table", "json", "yaml"} }
