package proxystate

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Type is a type of configuration by its short name.
type Type string

// The types.
const (
	Clusters  Type = "cds"
	Endpoints Type = "eds"
	Listeners Type = "lds"
	Routes    Type = "rds"
	Secrets   Type = "sds"
)

// Resource is one piece of configuration that the proxy has.
type Resource struct {
	Name string
	// Version is what the control plane called it; empty for what came with the bootstrap.
	Version string
	// State is static, active, warming or draining.
	State   string
	Updated time.Time
	// Error is why a newer form was refused.
	Error string
	// Body as Envoy writes it, secrets masked.
	Body map[string]any
}

// Dump is everything that a proxy was configured with.
type Dump struct {
	// Bootstrap is what it was started with.
	Bootstrap map[string]any
	Resources map[Type][]Resource
	// whole is the dump as it came, secrets masked.
	whole map[string]any
}

// Whole is the dump as Envoy wrote it, with every secret masked.
func (d *Dump) Whole() map[string]any { return d.whole }

// section is where a dump has the resources of a type.
type section struct {
	dump string
	of   Type
	// groups are the lists in it, each with the state of what is there and the field that holds the resource.
	groups []group
}

type group struct{ list, state, body string }

func sections() []section {
	return []section{
		{"ClustersConfigDump", Clusters, []group{
			{"static_clusters", "static", "cluster"}, {"dynamic_active_clusters", "active", "cluster"}, {"dynamic_warming_clusters", "warming", "cluster"},
		}},
		{"EndpointsConfigDump", Endpoints, []group{
			{"static_endpoint_configs", "static", "endpoint_config"}, {"dynamic_endpoint_configs", "active", "endpoint_config"},
		}},
		{"RoutesConfigDump", Routes, []group{
			{"static_route_configs", "static", "route_config"}, {"dynamic_route_configs", "active", "route_config"},
		}},
		{"SecretsConfigDump", Secrets, []group{
			{"static_secrets", "static", "secret"}, {"dynamic_active_secrets", "active", "secret"}, {"dynamic_warming_secrets", "warming", "secret"},
		}},
	}
}

// Parse reads what Envoy's /config_dump answers.
func Parse(data []byte) (*Dump, error) {
	whole, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("reading a configuration dump: %w", err)
	}
	if !has(whole, "configs") {
		return nil, fmt.Errorf("reading a configuration dump: it has no configs; expected is what Envoy's /config_dump?include_eds answers, or meshctl proxy-config all -o json")
	}
	mask(whole)
	d := &Dump{whole: whole, Resources: map[Type][]Resource{}}
	for _, config := range list(whole, "configs") {
		kind := text(config, "@type")
		kind = kind[strings.LastIndex(kind, ".")+1:]
		switch kind {
		case "BootstrapConfigDump":
			d.Bootstrap, _ = at(config, "bootstrap").(map[string]any)
			continue
		case "ListenersConfigDump":
			d.addListeners(config)
			continue
		}
		for _, s := range sections() {
			if s.dump != kind {
				continue
			}
			for _, g := range s.groups {
				for _, entry := range list(config, g.list) {
					d.add(s.of, entry, at(entry, g.body), g.state)
				}
			}
		}
	}
	for _, resources := range d.Resources {
		slices.SortStableFunc(resources, func(a, b Resource) int { return strings.Compare(a.Name, b.Name) })
	}
	return d, nil
}

func (d *Dump) add(of Type, entry, body any, state string) {
	b, ok := body.(map[string]any)
	if !ok {
		b = map[string]any{}
	}
	r := Resource{
		Name: text(entry, "name"), Version: text(entry, "version_info"), State: state, Body: b, Error: text(entry, "error_state", "details"),
	}
	for _, field := range []string{"name", "cluster_name"} {
		if r.Name == "" {
			r.Name = text(body, field)
		}
	}
	r.Updated, _ = time.Parse(time.RFC3339Nano, text(entry, "last_updated")) // absent is never
	d.Resources[of] = append(d.Resources[of], r)
}

// addListeners takes listeners apart that are in several states at once.
func (d *Dump) addListeners(config any) {
	for _, entry := range list(config, "static_listeners") {
		d.add(Listeners, entry, at(entry, "listener"), "static")
	}
	for _, entry := range list(config, "dynamic_listeners") {
		for _, state := range []string{"active", "warming", "draining"} {
			if in := at(entry, state+"_state"); in != nil {
				d.add(Listeners, in, at(in, "listener"), state)
				added := &d.Resources[Listeners][len(d.Resources[Listeners])-1]
				added.Name, added.Error = text(entry, "name"), text(entry, "error_state", "details")
			}
		}
		if at(entry, "active_state") == nil && at(entry, "warming_state") == nil && at(entry, "draining_state") == nil {
			d.add(Listeners, entry, nil, "refused")
		}
	}
}
