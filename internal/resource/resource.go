// Package resource is configuration as proxies are sent it: named pieces as bytes, and sets of them that share what they have in common.
//
// In: what a data-plane room marshalled. Out: immutable values that the xds room serves to any number of proxies without copying them, and that say
// what differs from one set to the next at a cost that follows the difference.
package resource

import (
	"crypto/sha256"
	"encoding/hex"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/meshctl/meshctl/internal/model"
)

// Resource is one named piece of configuration, marshalled once and shared by all who send it. Make one with New; it is never modified.
type Resource struct {
	// Name is unique among the resources of its type that one proxy is sent.
	Name string
	// Version is a hash of the content: equal versions mean equal values.
	Version string
	// TypeURL says what Value is.
	TypeURL string
	// Value is the marshalled message.
	Value []byte
	// Refs are the objects it was made from; a rejection is theirs.
	Refs []model.Ref

	// delta is the resource as an entry of a delta response; the entry's Any, which ends with Value, begins at body.
	delta []byte
	body  int
}

// New copies value. The version is computed from it.
func New(typeURL, name string, value []byte, refs ...model.Ref) *Resource {
	sum := sha256.Sum256(value)
	return NewVersion(typeURL, name, hex.EncodeToString(sum[:8]), value, refs...)
}

// NewVersion is New for who knows the version already.
func NewVersion(typeURL, name, version string, value []byte, refs ...model.Ref) *Resource {
	// google.protobuf.Any: type_url = 1, value = 2.
	body := sizeOf(1, len(typeURL)) + sizeOf(2, len(value))
	// envoy.service.discovery.v3.Resource: version = 1, name = 3, resource = 2.
	entry := sizeOf(1, len(version)) + sizeOf(3, len(name)) + sizeOf(2, body)
	b := make([]byte, 0, sizeOf(2, entry))
	// envoy.service.discovery.v3.DeltaDiscoveryResponse: resources = 2.
	b = appendHead(b, 2, entry)
	b = append(appendHead(b, 1, len(version)), version...)
	b = append(appendHead(b, 3, len(name)), name...)
	b = appendHead(b, 2, body)
	at := len(b)
	b = append(appendHead(b, 1, len(typeURL)), typeURL...)
	b = append(appendHead(b, 2, len(value)), value...)
	return &Resource{
		Name: name, Version: version, TypeURL: typeURL, Value: b[len(b)-len(value):], Refs: refs,
		delta: b, body: at,
	}
}

// Delta is the resource as the field `resources` of a DeltaDiscoveryResponse. It must not be modified.
func (r *Resource) Delta() []byte { return r.delta }

// Any is the resource as a marshalled google.protobuf.Any. It must not be modified.
func (r *Resource) Any() []byte { return r.delta[r.body:] }

// sizeOf a field of n bytes, with its tag and length.
func sizeOf(field protowire.Number, n int) int {
	return protowire.SizeTag(field) + protowire.SizeBytes(n)
}

func appendHead(b []byte, field protowire.Number, n int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(n))
}
