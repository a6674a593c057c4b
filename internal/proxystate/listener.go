package proxystate

import (
	"net"
	"slices"
	"strings"
)

// Chain is one way that connections to a listener can go.
type Chain struct {
	Resource
	// Addresses are host:port.
	Addresses []string
	Direction string
	// Match is which connections go this way, ALL for every one, DEFAULT for those that no other chain takes.
	Match string
	// Protocol is HTTP or TCP, or the name of another filter.
	Protocol string
	// Destination is route:NAME for a route configuration, inline:NAME for one within the listener, or cluster names.
	Destination string
}

// Chains of all listeners, in the order of the listeners' names and then as Envoy has them.
func (d *Dump) Chains() []Chain {
	var out []Chain
	for _, r := range d.Resources[Listeners] {
		one := Chain{Resource: r, Addresses: []string{address(at(r.Body, "address"))}, Direction: strings.ToLower(text(r.Body, "traffic_direction"))}
		for _, more := range list(r.Body, "additional_addresses") {
			one.Addresses = append(one.Addresses, address(at(more, "address")))
		}
		chains := list(r.Body, "filter_chains")
		for _, c := range chains {
			one.Match = match(at(c, "filter_chain_match"))
			one.Protocol, one.Destination = destination(c)
			out = append(out, one)
		}
		if c := at(r.Body, "default_filter_chain"); c != nil {
			one.Match = "DEFAULT"
			if len(chains) == 0 {
				one.Match = "ALL"
			}
			one.Protocol, one.Destination = destination(c)
			out = append(out, one)
		}
		if len(chains) == 0 && !has(r.Body, "default_filter_chain") {
			one.Match, one.Protocol, one.Destination = "NONE", "-", "-"
			out = append(out, one)
		}
	}
	return out
}

// Has says whether the chain listens on an address or port; an empty one is any.
func (c Chain) Has(address, port string) bool {
	return slices.ContainsFunc(c.Addresses, func(a string) bool {
		host, p, err := net.SplitHostPort(a)
		if err != nil {
			host = a
		}
		return (address == "" || host == address) && (port == "" || p == port)
	})
}

// match is what a chain asks of connections, on one word.
func match(m any) string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+"="+value)
		}
	}
	var ranges []string
	for _, r := range list(m, "prefix_ranges") {
		length := text(r, "prefix_len")
		if length == "" {
			length = "0"
		}
		ranges = append(ranges, text(r, "address_prefix")+"/"+length)
	}
	add("addr", strings.Join(ranges, ","))
	add("port", text(m, "destination_port"))
	add("transport", text(m, "transport_protocol"))
	add("sni", join(list(m, "server_names")))
	add("app", join(list(m, "application_protocols")))
	var sources []string
	for _, r := range list(m, "source_prefix_ranges") {
		sources = append(sources, text(r, "address_prefix")+"/"+text(r, "prefix_len"))
	}
	add("from", strings.Join(sources, ","))
	if len(parts) == 0 {
		return "ALL"
	}
	return strings.Join(parts, ";")
}

func join(l []any) string {
	var out []string
	for _, v := range l {
		if s, ok := v.(string); ok {
			out = append(out, s)
		}
	}
	return strings.Join(out, ",")
}

// destination is where the filters of a chain lead.
func destination(chain any) (protocol, to string) {
	protocol, to = "-", "-"
	for _, f := range list(chain, "filters") {
		config := at(f, "typed_config")
		switch lastPart(text(config, "@type")) {
		case "HttpConnectionManager":
			protocol = "HTTP"
			switch {
			case has(config, "rds"):
				to = "route:" + text(config, "rds", "route_config_name")
			case has(config, "scoped_routes"):
				to = "scoped:" + text(config, "scoped_routes", "name")
			default:
				to = "inline:" + text(config, "route_config", "name")
			}
			return protocol, to
		case "TcpProxy":
			protocol = "TCP"
			to = "cluster:" + text(config, "cluster")
			if has(config, "weighted_clusters") {
				to = "clusters:" + weights(list(config, "weighted_clusters", "clusters"))
			}
			return protocol, to
		default:
			protocol = lastPart(text(f, "name"))
		}
	}
	return protocol, to
}
