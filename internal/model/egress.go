package model

import (
	"net/netip"
	"strings"
)

// External is a host outside of the mesh that may be called.
type External struct {
	Ref Ref
	// Host is a name, a suffix behind a star, an address, or for TCP a subnet.
	Host string
	// Ports, by number: HTTP, HTTP2, GRPC, HTTPS, TLS or TCP. Calls to a port of HTTPS come as HTTP and leave as HTTPS, or are TLS already.
	Ports []Port
}

// Wildcard says whether Host stands for many names.
func (e *External) Wildcard() bool { return strings.HasPrefix(e.Host, "*") }

// Address is the Host when it is one.
func (e *External) Address() (netip.Addr, bool) {
	a, err := netip.ParseAddr(e.Host)
	return a, err == nil
}

// Subnet is the Host when it is one.
func (e *External) Subnet() (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(e.Host)
	return p, err == nil
}

// ServerName is what TLS connections to the host ask for: a name, *.suffix, or * for any. It is false when they are not told by a name.
func (e *External) ServerName() (string, bool) {
	if _, ok := e.Address(); ok {
		return "", false
	}
	if _, ok := e.Subnet(); ok {
		return "", false
	}
	if e.Wildcard() && e.Host != "*" && !strings.HasPrefix(e.Host, "*.") {
		return "", false
	}
	return e.Host, true
}
