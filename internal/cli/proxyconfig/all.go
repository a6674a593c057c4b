package proxyconfig

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/proxystate"
)

func newAll(f *factory.Factory) *cobra.Command {
	o := &options{f: f}
	return o.command("all", "everything", "Show or save everything a proxy was configured with",
		`Show clusters, listeners, routes, endpoints and secrets, each as its own command does. With -o json it is what
Envoy's /config_dump?include_eds answers, secrets masked: save it, and look at it with --file.`,
		`  meshctl proxy-config all deployment/productpage-v1
  meshctl proxy-config all deployment/productpage-v1 -o json > dump.json`,
		tables(), func(ctx context.Context, args []string) error {
			d, err := o.dump(ctx, args)
			if err != nil {
				return err
			}
			if o.output != "table" {
				return factory.Encode(f.Out, o.output, d.Whole())
			}
			return o.tables(d)
		})
}

// tables writes one after the other, with a line between.
func (o *options) tables(d *proxystate.Dump) error {
	type part struct {
		name string
		of   proxystate.Type
		run  func(*options) error
	}
	shown := *o
	first := true
	for _, p := range []part{
		{"clusters", proxystate.Clusters, func(o *options) error { return (&clusterOptions{options: *o}).table(d) }},
		{"listeners", proxystate.Listeners, func(o *options) error { return (&listenerOptions{options: *o}).table(d) }},
		{"routes", proxystate.Routes, func(o *options) error { return (&routeOptions{options: *o}).table(d) }},
		{"endpoints", proxystate.Endpoints, func(o *options) error { return (&endpointOptions{options: *o}).table(d.Endpoints()) }},
		{"secrets", proxystate.Secrets, func(o *options) error { return o.secrets(d) }},
	} {
		if len(d.Resources[p.of]) == 0 {
			continue
		}
		if !first {
			fmt.Fprintln(o.f.Out)
		}
		first = false
		if err := p.run(&shown); err != nil {
			return err
		}
	}
	return nil
}
