package proxystate

import (
	"cmp"
	"strings"
)

// Cluster is a set of instances that requests are sent to.
type Cluster struct {
	Resource
	Key
	// Type is how the instances are found: STATIC, EDS, STRICT_DNS, LOGICAL_DNS, ORIGINAL_DST or the name of an extension.
	Type string
	// Balancing is how one of them is picked.
	Balancing string
}

// Key is what the name of a cluster says.
type Key struct {
	// Direction is outbound or inbound; empty for clusters of another kind.
	Direction string
	Port      string
	// Subset are the labels of a version; empty for all instances.
	Subset string
	// Service is the host name, or the whole name where it says nothing.
	Service string
}

// ParseKey takes a cluster's name apart: direction|port|subset|host.
func ParseKey(name string) Key {
	parts := strings.Split(name, "|")
	if len(parts) < 2 || parts[0] != "outbound" && parts[0] != "inbound" {
		return Key{Service: name}
	}
	parts = append(parts, "", "")
	return Key{Direction: parts[0], Port: parts[1], Subset: parts[2], Service: parts[3]}
}

// Named says whether host means service: in full, or by its first parts.
func Named(host, service string) bool {
	return host == service || strings.HasPrefix(service, host+".")
}

// Clusters of the dump, by name.
func (d *Dump) Clusters() []Cluster {
	var out []Cluster
	for _, r := range d.Resources[Clusters] {
		kind := cmp.Or(text(r.Body, "type"), lastPart(text(r.Body, "cluster_type", "name")), "STATIC")
		out = append(out, Cluster{Resource: r, Key: ParseKey(r.Name), Type: kind, Balancing: balancing(r.Body)})
	}
	return out
}

// balancing is the policy's name: the old field's value, or the extension's without its namespace.
func balancing(body any) string {
	for _, p := range list(body, "load_balancing_policy", "policies") {
		return strings.ToUpper(lastPart(text(p, "typed_extension_config", "name")))
	}
	return cmp.Or(text(body, "lb_policy"), "ROUND_ROBIN")
}

func lastPart(name string) string { return name[strings.LastIndex(name, ".")+1:] }
