// Package capture sends a pod's traffic through its proxy: it makes the firewall rules as text and applies them, for IPv4 and IPv6.
//
// In: a Config, and the rules that are there. Out: text for iptables-restore, and rules in the kernel. The rules are in chains of their own and
// are replaced as a whole, so applying them again changes nothing.
package capture

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
)

// Config says what is captured.
type Config struct {
	// OutboundPort and InboundPort are the proxy's.
	OutboundPort, InboundPort int
	// UID and GID are the proxy's; its own traffic is not captured.
	UID, GID int
	// IncludeRanges are the outbound destinations that are captured; all when there is none.
	IncludeRanges []netip.Prefix
	ExcludeRanges []netip.Prefix
	// ExcludeInboundPorts and ExcludeOutboundPorts are left alone, besides the proxy's own.
	ExcludeInboundPorts, ExcludeOutboundPorts []int
}

// proxyPorts are served by the sidecar itself: captured outbound traffic, health and statistics.
func proxyPorts() []int { return []int{15000, 15008, 15020, 15021, 15090} }

// Family is an IP version with the programs and addresses that belong to it.
type Family struct {
	name     string
	programs string // the prefix of the programs' names
	// loopback is the address of the pod itself; passthrough is where inbound traffic comes from that the proxy hands on unchanged.
	loopback, passthrough netip.Prefix
}

// IPv4 is the family that every pod has.
func IPv4() Family {
	return Family{"IPv4", "iptables", netip.MustParsePrefix("127.0.0.1/32"), netip.MustParsePrefix("127.0.0.6/32")}
}

// IPv6 is the family that a pod may have.
func IPv6() Family {
	return Family{"IPv6", "ip6tables", netip.MustParsePrefix("::1/128"), netip.MustParsePrefix("::6/128")}
}

func (f Family) String() string { return f.name }

func (f Family) has(p netip.Prefix) bool { return p.Addr().Is4() == f.loopback.Addr().Is4() }

// The chains. Everything but the two jumps into them is in chains of our own.
const (
	chainInbound    = "MESH_INBOUND"
	chainInRedirect = "MESH_IN_REDIRECT"
	chainOutput     = "MESH_OUTPUT"
	chainRedirect   = "MESH_REDIRECT"
)

func jumps() []string {
	return []string{
		"PREROUTING -p tcp -j " + chainInbound,
		"OUTPUT -p tcp -j " + chainOutput,
	}
}

// Rules is the text for iptables-restore --noflush that replaces whatever is there of ours by what c says. saved is the output of iptables-save for
// the table; of it only our own jumps matter.
func Rules(c Config, f Family, saved string) string {
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	line("*nat")
	for _, chain := range []string{chainInbound, chainInRedirect, chainOutput, chainRedirect} {
		line(":%s - [0:0]", chain) // made when absent, emptied when there
	}
	for old := range strings.Lines(saved) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(old), "-A "); ok && slices.Contains(jumps(), rule) {
			line("-D %s", rule)
		}
	}
	for _, jump := range jumps() {
		line("-A %s", jump)
	}

	line("-A %s -p tcp -j REDIRECT --to-ports %d", chainRedirect, c.OutboundPort)
	line("-A %s -p tcp -j REDIRECT --to-ports %d", chainInRedirect, c.InboundPort)

	own := append([]int{c.OutboundPort}, proxyPorts()...)
	for _, ports := range chunks(unique(own, c.ExcludeInboundPorts), 15) {
		line("-A %s -p tcp -m multiport --dports %s -j RETURN", chainInbound, ports)
	}
	line("-A %s -p tcp -j %s", chainInbound, chainInRedirect)

	// What the proxy hands to the application unchanged comes from an address of its own, so that it is not captured again.
	line("-A %s -s %s -o lo -j RETURN", chainOutput, f.passthrough)
	// The proxy calling its own pod by an address of the service takes the inbound side, as any caller would.
	line("-A %s ! -d %s -o lo -m owner --uid-owner %d -j %s", chainOutput, f.loopback, c.UID, chainInRedirect)
	line("-A %s -o lo -m owner ! --uid-owner %d -j RETURN", chainOutput, c.UID)
	line("-A %s -m owner --uid-owner %d -j RETURN", chainOutput, c.UID)
	line("-A %s -m owner --gid-owner %d -j RETURN", chainOutput, c.GID)
	line("-A %s -d %s -j RETURN", chainOutput, f.loopback)
	for _, ports := range chunks(unique(c.ExcludeOutboundPorts), 15) {
		line("-A %s -p tcp -m multiport --dports %s -j RETURN", chainOutput, ports)
	}
	for _, r := range c.ExcludeRanges {
		if f.has(r) {
			line("-A %s -d %s -j RETURN", chainOutput, r.Masked())
		}
	}
	if len(c.IncludeRanges) == 0 {
		line("-A %s -j %s", chainOutput, chainRedirect)
	}
	for _, r := range c.IncludeRanges {
		if f.has(r) {
			line("-A %s -d %s -j %s", chainOutput, r.Masked(), chainRedirect)
		}
	}
	line("COMMIT")
	return b.String()
}

func unique(lists ...[]int) []int {
	var out []int
	for _, n := range slices.Concat(lists...) {
		if !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}

// chunks writes ports in lists that one rule can hold.
func chunks(ports []int, size int) []string {
	var out []string
	for part := range slices.Chunk(ports, size) {
		words := make([]string, len(part))
		for i, p := range part {
			words[i] = strconv.Itoa(p)
		}
		out = append(out, strings.Join(words, ","))
	}
	return out
}
