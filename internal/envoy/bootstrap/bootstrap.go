// Package bootstrap is the configuration an Envoy starts with: who it is, where its administration listens, and where the rest comes from.
//
// In: a Config. Out: JSON. Everything else an Envoy needs it gets over xDS, through the agent's socket. The package uses none of Envoy's
// protocol types, so that the agent, which runs in every pod, does not carry them all.
package bootstrap

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"

	"github.com/meshctl/meshctl/internal/resource"
)

// Config is what the bootstrap depends on.
type Config struct {
	// NodeID and ServiceCluster name the proxy.
	NodeID         string
	ServiceCluster string
	// Metadata of the node, for the control plane.
	Metadata map[string]any
	// Zone is where the proxy runs; empty when not known.
	Zone string
	// AdminPort is on 127.0.0.1.
	AdminPort int
	// XDSSocket is the path of the agent's socket.
	XDSSocket string
	// MaxConnections bounds the connections that callers have open at a time.
	MaxConnections int
	// StatsdUDP receives the proxy's statistics; the zero value is for none.
	StatsdUDP netip.AddrPort
}

// MaxConnections is enough for any sidecar and keeps a flood of connections from exhausting its memory.
const MaxConnections = 50000

type object = map[string]any

// Runtime is what every Envoy of the mesh must be told, or it refuses configuration that is sound: by itself it takes no regular expression of
// more than 100 steps, which a cookie's has, and refuses with it all that came along. How large one may be is judged before, with the object.
func Runtime() map[string]any {
	return object{"re2.max_program_size.error_level": 100_000}
}

// JSON renders the bootstrap.
func JSON(c Config) ([]byte, error) {
	metadata := maps.Clone(c.Metadata)
	if metadata == nil {
		metadata = object{}
	}
	// The agent and every Envoy it starts can do this.
	metadata[resource.VirtualHosts] = true
	node := object{"id": c.NodeID, "cluster": c.ServiceCluster, "metadata": metadata}
	if c.Zone != "" {
		node["locality"] = object{"zone": c.Zone}
	}
	ads := object{
		"resource_api_version": "V3",
		"ads":                  object{},
		// Without configuration there is nothing to serve: better not to start than to start empty. The agent has the last one for the
		// case that the control plane is away.
		"initial_fetch_timeout": "0s",
	}
	b := object{
		"node":  node,
		"admin": object{"address": socket("127.0.0.1", c.AdminPort)},
		"layered_runtime": object{"layers": []any{
			object{"name": "static", "static_layer": Runtime()},
			object{"name": "admin", "admin_layer": object{}},
		}},
		"dynamic_resources": object{
			"ads_config": object{
				"api_type":                       "DELTA_GRPC",
				"transport_api_version":          "V3",
				"set_node_on_first_message_only": true,
				"grpc_services":                  []any{object{"envoy_grpc": object{"cluster_name": "agent"}}},
			},
			"cds_config": ads,
			"lds_config": ads,
		},
		"static_resources": object{"clusters": []any{object{
			"name":            "agent",
			"type":            "STATIC",
			"connect_timeout": "1s",
			"load_assignment": object{"cluster_name": "agent", "endpoints": []any{object{"lb_endpoints": []any{object{
				"endpoint": object{"address": object{"pipe": object{"path": c.XDSSocket}}},
			}}}}},
			"typed_extension_protocol_options": object{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": object{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": object{"http2_protocol_options": object{}},
			}},
		}}},
		"overload_manager": object{"resource_monitors": []any{object{
			"name": "envoy.resource_monitors.global_downstream_max_connections",
			"typed_config": object{
				"@type":                             "type.googleapis.com/envoy.extensions.resource_monitors.downstream_connections.v3.DownstreamConnectionsConfig",
				"max_active_downstream_connections": c.MaxConnections,
			},
		}}},
	}
	if c.StatsdUDP.IsValid() {
		address := socket(c.StatsdUDP.Addr().String(), int(c.StatsdUDP.Port()))
		address["socket_address"].(object)["protocol"] = "UDP"
		b["stats_sinks"] = []any{object{"name": "envoy.stat_sinks.statsd", "typed_config": object{
			"@type":   "type.googleapis.com/envoy.config.metrics.v3.StatsdSink",
			"address": address,
		}}}
	}
	out, err := json.MarshalIndent(b, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("rendering the bootstrap: %w", err)
	}
	return append(out, '\n'), nil
}

func socket(address string, port int) object {
	return object{"socket_address": object{"address": address, "port_value": port}}
}
