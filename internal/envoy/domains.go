package envoy

import (
	"cmp"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/model"
)

// claims are the names by which services and hosts outside of the mesh would be called at a port. Each name is given to one only: Envoy refuses a
// configuration in which two virtual hosts have the same. Ports are not part of them, Envoy ignores those of the request.
type claims map[claim][]claimant

// claim is a name in lower case, at a port.
type claim struct {
	port uint32
	name string
}

func claimOf(port uint32, name string) claim { return claim{port, strings.ToLower(name)} }

type claimant struct {
	host string
	rank rank
	// namespace is whose callers alone know the name; empty for all.
	namespace string
}

// rank says who of several claimants has a name: full names and addresses go before short names, services before hosts outside.
type rank uint8

const (
	full rank = iota
	short
	outside
)

// before says whether a claimant has a name rather than another.
func (c claimant) before(other claimant) bool {
	return cmp.Or(cmp.Compare(c.rank, other.rank), strings.Compare(c.host, other.host)) < 0
}

// take and release change who claims a name, which may change what the others are called.
func (cs claims) take(c *changes, at claim, by claimant) {
	cs.touch(c, at, by)
	if !slices.Contains(cs[at], by) {
		cs[at] = append(slices.Clip(cs[at]), by)
	}
}

func (cs claims) release(c *changes, at claim, by claimant) {
	if cs[at] = slices.DeleteFunc(cs[at], func(o claimant) bool { return o == by }); len(cs[at]) == 0 {
		delete(cs, at)
	}
	cs.touch(c, at, by)
}

func (cs claims) touch(c *changes, at claim, by claimant) {
	for _, other := range cs[at] {
		if other.host != by.host {
			c.dirty(input{kind: domainsOf, name: other.host})
		}
	}
}

// has says whether callers of a namespace reach the host by the name.
func (cs claims) has(at claim, host string, rank rank, namespace string) bool {
	mine := claimant{host: host, rank: rank}
	for _, other := range cs[at] {
		if other.host != host && (other.namespace == "" || other.namespace == namespace) && other.before(mine) {
			return false
		}
	}
	return true
}

// callName is a name of a service.
type callName struct {
	name string
	rank rank
	// namespace is whose callers alone know the name; empty for all.
	namespace string
	// pods stands for single instances.
	pods bool
}

// callNames are all names of svc, the full one first.
func callNames(svc *model.Service, domain string) []callName {
	out := []callName{{name: svc.Hostname}}
	shorts := shortNames(svc, domain)
	for _, n := range shorts {
		if n.name != svc.Hostname {
			out = append(out, n)
		}
	}
	for _, a := range svc.Addresses {
		out = append(out, callName{name: hostOf(a)})
	}
	if svc.Headless {
		for _, n := range append([]callName{{name: svc.Hostname}}, shorts...) {
			out = append(out, callName{name: "*." + n.name, rank: short, namespace: n.namespace, pods: true})
		}
	}
	return out
}

// shortNames are what the resolver's search path completes to the full name: the first only in the service's own namespace.
func shortNames(svc *model.Service, domain string) []callName {
	name := svc.Name + "." + svc.Namespace
	out := []callName{{name: svc.Name, rank: short, namespace: svc.Namespace}, {name: name, rank: short}, {name: name + ".svc", rank: short}}
	labels := strings.Split(domain, ".")
	for i := 1; i < len(labels); i++ {
		out = append(out, callName{name: name + ".svc." + strings.Join(labels[:i], "."), rank: short})
	}
	return out
}

// eachClaim calls f for each name of each of svc's HTTP ports.
func (x *index) eachClaim(svc *model.Service, f func(claim, claimant)) {
	names := callNames(svc, x.settings.Domain)
	for _, p := range svc.Ports {
		if !p.Protocol.IsHTTP() || reserved(p.Number) {
			continue
		}
		for _, n := range names {
			f(claimOf(p.Number, n.name), claimant{host: svc.Hostname, rank: n.rank, namespace: n.namespace})
		}
	}
}

// hostOf writes an address as it stands in a Host header.
func hostOf(address string) string {
	if isIPv6(address) {
		return "[" + address + "]"
	}
	return address
}
