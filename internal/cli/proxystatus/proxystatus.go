// Package proxystatus is the verb that shows each proxy: what it has, whether that is what it should have, since when not, and why.
package proxystatus

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/proxystatus"
)

type options struct {
	output    string
	noHeaders bool
	fetch     func(ctx context.Context, client *kube.Client, namespace string) ([]proxystatus.Proxy, []error)
	now       func() time.Time
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{output: "table", fetch: Fetch, now: time.Now}
	cmd := &cobra.Command{
		Use:     "proxy-status [POD[.NAMESPACE]]",
		Aliases: []string{"ps"},
		Short:   "Show what each proxy has and whether it is up to date",
		Long: `Show each proxy connected to the control plane, and for each type of configuration (clusters,
endpoints, listeners, routes) whether the proxy has what it should have:

  SYNCED      it has acknowledged the last that was sent
  STALE(12s)  it was sent something 12 seconds ago and has not answered yet
  ERROR       it has refused the last that was sent, and keeps what it had; the reason is below the table
  NOT_SENT    it has not asked, or there is nothing to send

With a POD, the proxy of that pod in detail. Listing is the whole job: the exit code is 0 whatever the
states are. It is 1 when the pod named has no connected proxy.`,
		Example: `  # All proxies
  meshctl proxy-status

  # One of them in detail
  meshctl proxy-status reviews-v1-5d8c9f.default

  # The proxies that refuse their routes
  meshctl proxy-status -o json | jq -r '.[] | select(.types.rds.state == "ERROR") | .name'`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return factory.Usage("proxy-status takes one pod, but got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return o.run(cmd.Context(), f, args) },
		ValidArgsFunction: func(cmd *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return f.CompletePods(cmd, args, prefix)
		},
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", o.output, "table, json or yaml")
	cmd.Flags().BoolVar(&o.noHeaders, "no-headers", false, "leave the headers out")
	factory.Values(cmd, "output", "table", "json", "yaml")
	return cmd
}

func (o *options) run(ctx context.Context, f *factory.Factory, args []string) error {
	if err := factory.OneOf("output", o.output, "table", "json", "yaml"); err != nil {
		return err
	}
	client, err := f.Connect()
	if err != nil {
		return err
	}
	proxies, errs := o.fetch(ctx, client, *f.MeshNamespace)
	if len(errs) > 0 && len(proxies) == 0 {
		return &factory.ExitErr{Code: factory.ExitError, Err: errors.Join(errs...)}
	}
	for _, err := range errs {
		f.Error("%s", err)
	}
	if len(args) == 1 {
		proxies = pick(proxies, args[0], client.Namespace)
		if len(proxies) == 0 {
			return factory.No("no connected proxy of pod %s: it is not in the mesh, not ready yet, or in another namespace (POD.NAMESPACE)", args[0])
		}
	}
	if err := o.write(f.Out, proxies, len(args) == 1); err != nil {
		return err
	}
	if len(proxies) == 0 {
		fmt.Fprintln(f.ErrOut, "No proxies are connected.")
	}
	if len(errs) > 0 {
		return factory.Silent(factory.ExitError)
	}
	return nil
}

// pick finds the proxies of POD in the namespace, or of POD.NAMESPACE.
func pick(proxies []proxystatus.Proxy, name, namespace string) []proxystatus.Proxy {
	var found []proxystatus.Proxy
	for _, p := range proxies {
		if p.Name == name && p.Namespace == namespace || p.Name+"."+p.Namespace == name {
			found = append(found, p)
		}
	}
	return found
}

func (o *options) write(w io.Writer, proxies []proxystatus.Proxy, detail bool) error {
	switch {
	case o.output != "table":
		return factory.Encode(w, o.output, append([]proxystatus.Proxy{}, proxies...))
	case detail:
		for n, p := range proxies {
			if n > 0 {
				fmt.Fprintln(w)
			}
			if err := o.detail(w, p); err != nil {
				return err
			}
		}
		return nil
	case len(proxies) == 0:
		return nil
	}
	return o.table(w, proxies)
}

// shownTypes are the columns of the table.
func shownTypes() []string { return []string{"cds", "eds", "lds", "rds"} }

func (o *options) table(w io.Writer, proxies []proxystatus.Proxy) error {
	header := []string{"NAME", "NAMESPACE", "ROLE", "CDS", "EDS", "LDS", "RDS", "PILOT", "VERSION", "AGE"}
	if o.noHeaders {
		header = nil
	}
	var rows [][]string
	for _, p := range proxies {
		row := []string{p.Name, p.Namespace, p.Role}
		for _, t := range shownTypes() {
			row = append(row, o.state(p.Types[t]))
		}
		rows = append(rows, append(row, p.Pilot, cmp.Or(p.Version, "-"), o.since(p.Connected)))
	}
	if err := factory.Table(w, header, rows); err != nil {
		return err
	}
	first := true
	for _, p := range proxies {
		for _, t := range typesOf(p) {
			if p.Types[t].Message == "" {
				continue
			}
			if first {
				fmt.Fprintln(w)
				first = false
			}
			fmt.Fprintf(w, "%s.%s refused its %s%s: %s\n", p.Name, p.Namespace, strings.ToUpper(t), o.ago(p.Types[t].Rejected), oneLine(p.Types[t].Message))
		}
	}
	return nil
}

func (o *options) detail(w io.Writer, p proxystatus.Proxy) error {
	for _, line := range [][2]string{
		{"Name:", p.Name}, {"Namespace:", p.Namespace}, {"Role:", p.Role}, {"Version:", cmp.Or(p.Version, "-")},
		{"Pilot:", p.Pilot}, {"Connected:", o.since(p.Connected) + " ago"},
	} {
		fmt.Fprintf(w, "%-11s %s\n", line[0], line[1])
	}
	fmt.Fprintln(w)
	var rows [][]string
	for _, t := range typesOf(p) {
		s := p.Types[t]
		rows = append(rows, []string{strings.ToUpper(t), o.state(s), o.since(s.Since), fmt.Sprint(s.Resources)})
	}
	if err := factory.Table(w, []string{"TYPE", "STATE", "SINCE", "RESOURCES"}, rows); err != nil {
		return err
	}
	for _, t := range typesOf(p) {
		if s := p.Types[t]; s.Message != "" {
			fmt.Fprintf(w, "\n%s refused%s:\n  %s\n", strings.ToUpper(t), o.ago(s.Rejected), strings.ReplaceAll(strings.TrimSpace(s.Message), "\n", "\n  "))
		}
	}
	return nil
}

func typesOf(p proxystatus.Proxy) []string {
	var types []string
	for t := range p.Types {
		types = append(types, t)
	}
	slices.Sort(types)
	return types
}

// state is one word, so that awk can count columns.
func (o *options) state(t proxystatus.Type) string {
	switch t.State {
	case proxystatus.Stale:
		return fmt.Sprintf("%s(%s)", t.State, o.since(t.Since))
	case "", proxystatus.NotSent:
		return "NOT_SENT"
	default:
		return string(t.State)
	}
}

func (o *options) since(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return duration.HumanDuration(o.now().Sub(t))
}

func (o *options) ago(t *time.Time) string {
	if t == nil {
		return ""
	}
	return " " + o.since(*t) + " ago"
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
