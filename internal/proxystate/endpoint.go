package proxystate

import (
	"cmp"
	"fmt"
	"net"
	"slices"
)

// Endpoint is one instance of a cluster.
type Endpoint struct {
	Cluster string `json:"cluster"`
	// Address is host:port, or the path of a socket.
	Address string `json:"address"`
	// Status is HEALTHY, UNHEALTHY, DRAINING, DEGRADED or TIMEOUT.
	Status string `json:"status"`
	// Ejected says that outlier detection took it out.
	Ejected bool   `json:"ejected"`
	Weight  string `json:"weight"`
	Zone    string `json:"zone,omitempty"`
	// Requests sent to it and those of them that failed; empty where only the configuration is known.
	Requests string `json:"requests,omitempty"`
	Errors   string `json:"errors,omitempty"`
}

func sortEndpoints(out []Endpoint) []Endpoint {
	slices.SortStableFunc(out, func(a, b Endpoint) int {
		return cmp.Or(cmp.Compare(a.Cluster, b.Cluster), cmp.Compare(a.Address, b.Address))
	})
	return out
}

// liveEndpoints reads what Envoy's /clusters?format=json answers.
func liveEndpoints(data []byte) ([]Endpoint, error) {
	whole, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("reading the proxy's endpoints: %w", err)
	}
	var out []Endpoint
	for _, cluster := range list(whole, "cluster_statuses") {
		for _, host := range list(cluster, "host_statuses") {
			health := at(host, "health_status")
			e := Endpoint{
				Cluster: text(cluster, "name"), Address: address(at(host, "address")), Weight: cmp.Or(text(host, "weight"), "1"), Zone: text(host, "locality", "zone"),
				Status: cmp.Or(text(health, "eds_health_status"), "HEALTHY"), Ejected: text(health, "failed_outlier_check") == "true",
				Requests: "0", Errors: "0",
			}
			if text(health, "failed_active_health_check") == "true" {
				e.Status = "UNHEALTHY"
			}
			for _, s := range list(host, "stats") {
				switch text(s, "name") {
				case "rq_total":
					e.Requests = cmp.Or(text(s, "value"), "0")
				case "rq_error":
					e.Errors = cmp.Or(text(s, "value"), "0")
				}
			}
			out = append(out, e)
		}
	}
	return sortEndpoints(out), nil
}

// Endpoints are those the proxy was configured with, without what it has learned of them since.
func (d *Dump) Endpoints() []Endpoint {
	var out []Endpoint
	for _, r := range d.Resources[Endpoints] {
		for _, locality := range list(r.Body, "endpoints") {
			for _, host := range list(locality, "lb_endpoints") {
				out = append(out, Endpoint{
					Cluster: r.Name, Address: address(at(host, "endpoint", "address")), Zone: text(locality, "locality", "zone"),
					Weight: cmp.Or(text(host, "load_balancing_weight"), "1"), Status: cmp.Or(configured(text(host, "health_status")), "HEALTHY"),
				})
			}
		}
	}
	return sortEndpoints(out)
}

// configured is a health status of a configuration; what is unknown counts as healthy.
func configured(status string) string {
	if status == "UNKNOWN" {
		return ""
	}
	return status
}

// address is host:port or the path of a socket.
func address(v any) string {
	if has(v, "socket_address") {
		port := text(v, "socket_address", "port_value")
		return net.JoinHostPort(text(v, "socket_address", "address"), cmp.Or(port, "0"))
	}
	if path := text(v, "pipe", "path"); path != "" {
		return "unix://" + path
	}
	return cmp.Or(text(v, "envoy_internal_address", "server_listener_name"), "-")
}
