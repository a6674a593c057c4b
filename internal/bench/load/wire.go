package load

import (
	"fmt"
	"sync"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/meshctl/meshctl/internal/envoy"
)

// payload is a response as it came: hundreds of proxies that decode thousands of resources each would be what is measured.
type payload struct{ mem.Buffer }

// codec hands responses over as they came.
type codec struct{}

// Name implements encoding.CodecV2.
func (codec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (codec) Marshal(v any) (mem.BufferSlice, error) {
	m, ok := v.(proto.Message)
	if !ok {
		return nil, fmt.Errorf("writing a request: %T is no message", v)
	}
	b, err := proto.Marshal(m)
	return mem.BufferSlice{mem.SliceBuffer(b)}, err
}

// Unmarshal implements encoding.CodecV2.
func (codec) Unmarshal(data mem.BufferSlice, v any) error {
	p, ok := v.(*payload)
	if !ok {
		return fmt.Errorf("reading a response: into %T", v)
	}
	p.Buffer = data.MaterializeToBuffer(mem.DefaultBufferPool())
	return nil
}

// sent is a resource of a response; its slices are the response's.
type sent struct{ name, version, value []byte }

type response struct {
	url, nonce string
	resources  []sent
	removed    [][]byte
}

// parse reads a DeltaDiscoveryResponse: resources 2, type_url 4, nonce 5, removed_resources 6; a Resource: version 1, body 2, name 3.
func parse(b []byte) (r response, err error) {
	err = fields(b, func(n protowire.Number, v []byte) error {
		switch n {
		case 2:
			var res sent
			err := fields(v, func(n protowire.Number, v []byte) error {
				switch n {
				case 1:
					res.version = v
				case 2:
					return fields(v, func(n protowire.Number, v []byte) error {
						if n == 2 {
							res.value = v
						}
						return nil
					})
				case 3:
					res.name = v
				}
				return nil
			})
			r.resources = append(r.resources, res)
			return err
		case 4:
			r.url = string(v)
		case 5:
			r.nonce = string(v)
		case 6:
			r.removed = append(r.removed, v)
		}
		return nil
	})
	return r, err
}

// fields calls f for every field of b that has a length.
func fields(b []byte, f func(protowire.Number, []byte) error) error {
	for len(b) > 0 {
		n, typ, size := protowire.ConsumeTag(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		b = b[size:]
		if typ != protowire.BytesType {
			if size = protowire.ConsumeFieldValue(n, typ, b); size < 0 {
				return protowire.ParseError(size)
			}
			b = b[size:]
			continue
		}
		v, size := protowire.ConsumeBytes(b)
		if size < 0 {
			return protowire.ParseError(size)
		}
		if err := f(n, v); err != nil {
			return err
		}
		b = b[size:]
	}
	return nil
}

// references remembers what each distinct cluster, listener and route configuration refers to; all proxies get mostly the same ones.
type references struct {
	mu    sync.RWMutex
	known map[string]*reference
}

// reference is a resource's own name and the names it makes a proxy ask for.
type reference struct {
	name  string
	names []string
}

func (c *references) of(url string, res sent) (*reference, error) {
	var scratch [192]byte
	key := append(append(append(scratch[:0], url[len(url)-8:]...), res.version...), res.name...)
	c.mu.RLock()
	r := c.known[string(key)]
	c.mu.RUnlock()
	if r != nil {
		return r, nil
	}
	r = &reference{name: string(res.name)}
	switch url {
	case envoy.ClusterType:
		m := &clusterv3.Cluster{}
		if err := proto.Unmarshal(res.value, m); err != nil {
			return nil, fmt.Errorf("reading cluster %s: %w", r.name, err)
		}
		if m.GetType() == clusterv3.Cluster_EDS {
			name := m.GetEdsClusterConfig().GetServiceName()
			if name == "" {
				name = m.GetName()
			}
			r.names = []string{name}
		}
	case envoy.ListenerType:
		m := &listenerv3.Listener{}
		if err := proto.Unmarshal(res.value, m); err != nil {
			return nil, fmt.Errorf("reading listener %s: %w", r.name, err)
		}
		for _, chain := range append(m.GetFilterChains(), m.GetDefaultFilterChain()) {
			for _, f := range chain.GetFilters() {
				h := &hcmv3.HttpConnectionManager{}
				if f.GetTypedConfig().MessageIs(h) && f.GetTypedConfig().UnmarshalTo(h) == nil && h.GetRds() != nil {
					r.names = append(r.names, h.GetRds().GetRouteConfigName())
				}
			}
		}
	case envoy.RouteType:
		m := &routev3.RouteConfiguration{}
		if err := proto.Unmarshal(res.value, m); err != nil {
			return nil, fmt.Errorf("reading route configuration %s: %w", r.name, err)
		}
		if m.GetVhds() != nil {
			r.names = []string{m.GetName()}
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.known[string(key)] = r
	return r, nil
}
