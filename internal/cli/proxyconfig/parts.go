package proxyconfig

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/proxystate"
)

func newBootstrap(f *factory.Factory) *cobra.Command {
	o := &options{f: f}
	return o.command("bootstrap", "bootstraps", "Show what a proxy was started with",
		`Show what a proxy was started with: who it says it is, where it gets its configuration from, and what it has
besides.`,
		`  meshctl proxy-config bootstrap deployment/productpage-v1
  meshctl proxy-config bootstrap deployment/productpage-v1 -o json | jq -r .node.id`,
		[]string{"yaml", "json"}, func(ctx context.Context, args []string) error {
			d, err := o.dump(ctx, args)
			if err != nil {
				return err
			}
			if d.Bootstrap == nil {
				return &factory.ExitErr{Code: factory.ExitNo, Err: errNoBootstrap}
			}
			return factory.Encode(f.Out, o.output, d.Bootstrap)
		})
}

// clusterOptions choose among clusters.
type clusterOptions struct {
	options
	fqdn, port, subset, direction string
}

func newCluster(f *factory.Factory) *cobra.Command {
	o := &clusterOptions{options: options{f: f}}
	cmd := o.command("cluster", "clusters", "Show the sets of instances a proxy can send to",
		`Show the sets of instances that a proxy can send requests to: one for each port of each service, and one for
each version that a rule or policy speaks of.`,
		`  meshctl proxy-config cluster deployment/productpage-v1
  meshctl proxy-config cluster deployment/productpage-v1 --fqdn reviews --subset version=v1 -o yaml`,
		tables(), o.run)
	fs := cmd.Flags()
	fs.StringVar(&o.fqdn, "fqdn", "", "only those of this service: its full name, or the first parts of it")
	fs.StringVar(&o.port, "port", "", "only those of this port of the service")
	fs.StringVar(&o.subset, "subset", "", "only those of this version, as in version=v1")
	fs.StringVar(&o.direction, "direction", "", "outbound: requests that leave the pod; inbound: those that come in")
	factory.Values(cmd, "direction", "outbound", "inbound")
	return cmd
}

func (o *clusterOptions) run(ctx context.Context, args []string) error {
	if o.direction != "" {
		if err := factory.OneOf("direction", o.direction, "outbound", "inbound"); err != nil {
			return err
		}
	}
	d, err := o.dump(ctx, args)
	if err != nil {
		return err
	}
	return o.table(d)
}

func (o *clusterOptions) table(d *proxystate.Dump) error {
	var rows [][]string
	var shown []proxystate.Resource
	for _, c := range d.Clusters() {
		if !among(o.port, c.Port) || !among(o.subset, c.Subset) || !among(o.direction, c.Direction) || o.fqdn != "" && !proxystate.Named(o.fqdn, c.Service) {
			continue
		}
		rows = append(rows, []string{c.Service, c.Port, c.Subset, c.Direction, c.Type, c.Balancing, strings.ToUpper(c.State)})
		shown = append(shown, c.Resource)
	}
	o.tell(shown)
	return o.show("clusters", []string{"SERVICE", "PORT", "SUBSET", "DIRECTION", "TYPE", "BALANCING", "STATE"}, rows, body(shown))
}

// among says whether a value is the one asked for; an empty question is none.
func among(want, have string) bool { return want == "" || want == have }

type endpointOptions struct {
	options
	cluster, address, status string
}

func newEndpoint(f *factory.Factory) *cobra.Command {
	o := &endpointOptions{options: options{f: f}}
	cmd := o.command("endpoint", "endpoints", "Show the instances a proxy knows, and how they are",
		`Show the instances of each set, as the proxy sees them at this moment: whether they are well, whether one was
taken out because it failed, and how many requests the proxy has sent to each. Of a saved dump there is only
what was configured.`,
		`  meshctl proxy-config endpoint deployment/productpage-v1
  meshctl proxy-config endpoint deployment/productpage-v1 --cluster reviews --status EJECTED`,
		tables(), o.run)
	fs := cmd.Flags()
	fs.StringVar(&o.cluster, "cluster", "", "only those of this cluster, by its name, or of this service")
	fs.StringVar(&o.address, "address", "", "only those at this address, with or without the port")
	fs.StringVar(&o.status, "status", "", "only those of this status: HEALTHY, UNHEALTHY, DRAINING, DEGRADED, TIMEOUT or EJECTED")
	factory.Values(cmd, "status", statuses()...)
	return cmd
}

func statuses() []string {
	return []string{"HEALTHY", "UNHEALTHY", "DRAINING", "DEGRADED", "TIMEOUT", "EJECTED"}
}

func (o *endpointOptions) run(ctx context.Context, args []string) error {
	o.status = strings.ToUpper(o.status)
	if o.status != "" {
		if err := factory.OneOf("status", o.status, statuses()...); err != nil {
			return err
		}
	}
	found, err := o.endpoints(ctx, args)
	if err != nil {
		return err
	}
	return o.table(found)
}

func (o *endpointOptions) table(found []proxystate.Endpoint) error {
	shown := []proxystate.Endpoint{}
	var rows [][]string
	for _, e := range found {
		status := e.Status
		if e.Ejected {
			status = "EJECTED"
		}
		host := e.Address[:max(strings.LastIndex(e.Address, ":"), 0)]
		if !among(o.status, status) || o.cluster != "" && o.cluster != e.Cluster && !proxystate.Named(o.cluster, proxystate.ParseKey(e.Cluster).Service) ||
			o.address != "" && o.address != e.Address && o.address != strings.Trim(host, "[]") {
			continue
		}
		shown = append(shown, e)
		rows = append(rows, []string{e.Address, status, e.Weight, e.Requests, e.Errors, e.Zone, e.Cluster})
	}
	return o.show("endpoints", []string{"ADDRESS", "STATUS", "WEIGHT", "REQUESTS", "ERRORS", "ZONE", "CLUSTER"}, rows, shown)
}

func (o *endpointOptions) endpoints(ctx context.Context, args []string) ([]proxystate.Endpoint, error) {
	if o.file != "" {
		d, err := o.saved()
		if err != nil {
			return nil, err
		}
		return d.Endpoints(), nil
	}
	admin, client, err := o.admin(ctx, args)
	if err != nil {
		return nil, err
	}
	found, err := admin.Endpoints(ctx)
	if err != nil {
		return nil, o.f.Explain(client, err)
	}
	return found, nil
}

type listenerOptions struct {
	options
	port, address, protocol string
}

func newListener(f *factory.Factory) *cobra.Command {
	o := &listenerOptions{options: options{f: f}}
	cmd := o.command("listener", "listeners", "Show where a proxy takes connections, and what it does with them",
		`Show where a proxy takes connections. A line is one way they can go: MATCH says which connections go it, and
DESTINATION where to: route:NAME is a route configuration (proxy-config route --name NAME), inline:NAME one
within the listener, cluster:NAME a set of instances.`,
		`  meshctl proxy-config listener deployment/productpage-v1
  meshctl proxy-config listener deployment/productpage-v1 --port 9080 -o yaml`,
		tables(), o.run)
	fs := cmd.Flags()
	fs.StringVar(&o.port, "port", "", "only those on this port")
	fs.StringVar(&o.address, "address", "", "only those on this address")
	fs.StringVar(&o.protocol, "type", "", "only ways that are HTTP or TCP")
	factory.Values(cmd, "type", "HTTP", "TCP")
	return cmd
}

func (o *listenerOptions) run(ctx context.Context, args []string) error {
	o.protocol = strings.ToUpper(o.protocol)
	if o.protocol != "" {
		if err := factory.OneOf("type", o.protocol, "HTTP", "TCP"); err != nil {
			return err
		}
	}
	d, err := o.dump(ctx, args)
	if err != nil {
		return err
	}
	return o.table(d)
}

func (o *listenerOptions) table(d *proxystate.Dump) error {
	var rows [][]string
	var shown []proxystate.Resource
	for _, c := range d.Chains() {
		if !c.Has(o.address, o.port) || !among(o.protocol, c.Protocol) {
			continue
		}
		shown = append(shown, c.Resource)
		rows = append(rows, []string{c.Name, strings.Join(c.Addresses, ","), c.Direction, c.Match, c.Protocol, c.Destination, strings.ToUpper(c.State)})
	}
	o.tell(shown)
	return o.show("listeners", []string{"NAME", "ADDRESS", "DIRECTION", "MATCH", "TYPE", "DESTINATION", "STATE"}, rows, body(shown))
}

type routeOptions struct {
	options
	name, host string
}

func newRoute(f *factory.Factory) *cobra.Command {
	o := &routeOptions{options: options{f: f}}
	cmd := o.command("route", "routes", "Show which requests a proxy sends where",
		`Show the routes of a proxy, in the order in which it tries them: the first whose MATCH holds takes the request.
MATCH reads /path, /prefix*, ~regex, then &header=exact, &header=prefix*, &header~regex. TARGET is a cluster, or
several with their weights, or the status that is answered at once. With -o wide also what happens on the
way: timeouts, retries, faults, rewriting.`,
		`  meshctl proxy-config route deployment/productpage-v1
  meshctl proxy-config route deployment/productpage-v1 --host reviews -o wide
  meshctl proxy-config route deployment/productpage-v1 --name 9080 -o yaml`,
		[]string{"table", "wide", "json", "yaml"}, o.run)
	fs := cmd.Flags()
	fs.StringVar(&o.name, "name", "", "only those of this route configuration")
	fs.StringVar(&o.host, "host", "", "only those for this host: its full name, or the first parts of it")
	return cmd
}

func (o *routeOptions) run(ctx context.Context, args []string) error {
	d, err := o.dump(ctx, args)
	if err != nil {
		return err
	}
	return o.table(d)
}

func (o *routeOptions) table(d *proxystate.Dump) error {
	header := []string{"NAME", "VIRTUALHOST", "DOMAINS", "MATCH", "TARGET"}
	if o.output == "wide" {
		header = append(header, "RULE", "OPTIONS")
	}
	var rows [][]string
	var shown []proxystate.Resource
	for _, r := range d.Routes() {
		if !among(o.name, r.Name) || o.host != "" && !r.Serves(o.host) {
			continue
		}
		shown = append(shown, r.Resource)
		row := []string{r.Name, r.Host, domains(r.Domains), r.Match, r.Target}
		if o.output == "wide" {
			row = append(row, r.Route, strings.Join(r.Options, ","))
		}
		rows = append(rows, row)
	}
	o.tell(shown)
	return o.show("routes", header, rows, o.bodies(shown))
}

// bodies are the route configurations, with only the virtual hosts asked for.
func (o *routeOptions) bodies(shown []proxystate.Resource) []map[string]any {
	all := body(shown)
	if o.host == "" {
		return all
	}
	for i, b := range all {
		only := map[string]any{}
		for k, v := range b {
			only[k] = v
		}
		hosts, _ := b["virtual_hosts"].([]any)
		only["virtual_hosts"] = slices.DeleteFunc(slices.Clone(hosts), func(h any) bool {
			m, _ := h.(map[string]any)
			names, _ := m["domains"].([]any)
			return !slices.ContainsFunc(names, func(d any) bool { s, ok := d.(string); return ok && proxystate.Named(o.host, s) })
		})
		all[i] = only
	}
	return all
}

// domains is the first and how many more there are.
func domains(all []string) string {
	switch len(all) {
	case 0:
		return ""
	case 1:
		return all[0]
	}
	return fmt.Sprintf("%s+%d", all[0], len(all)-1)
}

func newSecret(f *factory.Factory) *cobra.Command {
	o := &options{f: f}
	return o.command("secret", "secrets", "Show the certificates a proxy has, without their keys",
		`Show the certificates and authorities that a proxy was given: for which names, and until when they are valid.
Keys are not shown, nor can they be had in any format.`,
		`  meshctl proxy-config secret deployment/istio-ingress.istio-system
  meshctl proxy-config secret deployment/istio-ingress.istio-system -o json`,
		tables(), func(ctx context.Context, args []string) error {
			d, err := o.dump(ctx, args)
			if err != nil {
				return err
			}
			return o.secrets(d)
		})
}

func (o *options) secrets(d *proxystate.Dump) error {
	var rows [][]string
	var shown []proxystate.Resource
	for _, s := range d.Secrets() {
		rows = append(rows, []string{s.Name, s.Type, strings.ToUpper(s.State), validity(s, time.Now()), day(s.From), day(s.Until), s.Serial, strings.Join(s.Names, ",")})
		shown = append(shown, s.Resource)
	}
	return o.show("secrets", []string{"NAME", "TYPE", "STATE", "VALID", "FROM", "UNTIL", "SERIAL", "FOR"}, rows, body(shown))
}

func validity(s proxystate.Secret, now time.Time) string {
	switch {
	case s.Until.IsZero():
		return "-"
	case now.Before(s.From):
		return "NOT_YET"
	case now.After(s.Until):
		return "EXPIRED"
	}
	return "YES"
}

func day(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}
