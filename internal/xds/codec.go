package xds

import (
	"fmt"

	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshctl/meshctl/internal/resource"
)

// frame is a response in its wire form: a few bytes of its own around the shared bytes of its resources, copied only into the socket.
type frame struct {
	buffers mem.BufferSlice
	size    int
}

func (f *frame) add(b []byte) {
	if len(b) > 0 {
		f.buffers = append(f.buffers, mem.SliceBuffer(b))
		f.size += len(b)
	}
}

// deltaFrame is a DeltaDiscoveryResponse: resources = 2, type_url = 4, nonce = 5, removed_resources = 6.
func deltaFrame(url, nonce string, resources []*resource.Resource, removed []string) *frame {
	var head []byte
	head = protowire.AppendTag(head, 4, protowire.BytesType)
	head = protowire.AppendString(head, url)
	head = protowire.AppendTag(head, 5, protowire.BytesType)
	head = protowire.AppendString(head, nonce)
	for _, name := range removed {
		head = protowire.AppendTag(head, 6, protowire.BytesType)
		head = protowire.AppendString(head, name)
	}
	f := &frame{buffers: make(mem.BufferSlice, 0, 1+len(resources))}
	f.add(head)
	for _, r := range resources {
		f.add(r.Delta())
	}
	return f
}

// sotwFrame is a DiscoveryResponse: version_info = 1, resources = 2, type_url = 4, nonce = 5.
func sotwFrame(url, nonce, version string, resources []*resource.Resource) *frame {
	var head []byte
	head = protowire.AppendTag(head, 1, protowire.BytesType)
	head = protowire.AppendString(head, version)
	head = protowire.AppendTag(head, 4, protowire.BytesType)
	head = protowire.AppendString(head, url)
	head = protowire.AppendTag(head, 5, protowire.BytesType)
	head = protowire.AppendString(head, nonce)
	f := &frame{buffers: make(mem.BufferSlice, 0, 1+2*len(resources))}
	f.add(head)
	for _, r := range resources {
		head := protowire.AppendTag(make([]byte, 0, 8), 2, protowire.BytesType)
		f.add(protowire.AppendVarint(head, uint64(len(r.Any()))))
		f.add(r.Any())
	}
	return f
}

// codec writes frames as they are and leaves every other message to gRPC's own.
type codec struct{ encoding.CodecV2 }

func newCodec() (codec, error) {
	proto := encoding.GetCodecV2("proto")
	if proto == nil {
		return codec{}, fmt.Errorf("finding gRPC's proto codec: not registered")
	}
	return codec{proto}, nil
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	if f, ok := v.(*frame); ok {
		return f.buffers, nil
	}
	return c.CodecV2.Marshal(v)
}
