package envoy

import (
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/model"
)

// domains gives out the names by which services are called in one route configuration, each to one service only: Envoy refuses a configuration
// in which two virtual hosts have the same. Full names go before short ones. Ports are not part of them, Envoy ignores those of the request.
type domains struct {
	domain    string
	namespace string
	owner     map[string]string
}

func newDomains(domain, namespace string) *domains {
	return &domains{domain: domain, namespace: namespace, owner: map[string]string{}}
}

// claim takes svc's full name and addresses for it; all services of a configuration claim before the first asks of.
func (d *domains) claim(svc *model.Service) {
	d.take(svc.Hostname, svc.Hostname)
	for _, a := range svc.Addresses {
		d.take(hostOf(a), svc.Hostname)
	}
}

// take gives name to owner unless another has it.
func (d *domains) take(name, owner string) bool {
	key := strings.ToLower(name)
	if has, taken := d.owner[key]; taken {
		return has == owner
	}
	d.owner[key] = owner
	return true
}

// of lists all names of svc, the full one first.
func (d *domains) of(svc *model.Service) []string {
	out := []string{svc.Hostname}
	for _, name := range d.shortNames(svc) {
		if name != svc.Hostname && d.take(name, svc.Hostname) {
			out = append(out, name)
		}
	}
	for _, a := range svc.Addresses {
		if d.take(hostOf(a), svc.Hostname) {
			out = append(out, hostOf(a))
		}
	}
	return out
}

// podsOf lists the patterns of the names that single instances of a headless service have.
func (d *domains) podsOf(svc *model.Service) []string {
	if !svc.Headless {
		return nil
	}
	var out []string
	for _, name := range append([]string{svc.Hostname}, d.shortNames(svc)...) {
		if pattern := "*." + name; d.take(pattern, svc.Hostname) && !slices.Contains(out, pattern) {
			out = append(out, pattern)
		}
	}
	return out
}

// shortNames are what the resolver's search path completes to the full name, from the proxy's namespace.
func (d *domains) shortNames(svc *model.Service) []string {
	var out []string
	if svc.Namespace == d.namespace {
		out = append(out, svc.Name)
	}
	name := svc.Name + "." + svc.Namespace
	out = append(out, name, name+".svc")
	labels := strings.Split(d.domain, ".")
	for i := 1; i < len(labels); i++ {
		out = append(out, name+".svc."+strings.Join(labels[:i], "."))
	}
	return out
}

// hostOf writes an address as it stands in a Host header.
func hostOf(address string) string {
	if isIPv6(address) {
		return "[" + address + "]"
	}
	return address
}
