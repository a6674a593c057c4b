package check

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// protocols are those that may be spoken outside of the mesh.
const protocols = "it is http, https, http2, grpc, tls or tcp"

func (s *subject) egressRule(r *v1alpha2.EgressRuleSpec) {
	const path = "spec.destination"
	d := r.Destination
	for _, f := range []struct {
		field string
		set   bool
	}{{"name", d.Name != ""}, {"namespace", d.Namespace != ""}, {"domain", d.Domain != ""}, {"labels", len(d.Labels) > 0}} {
		if f.set {
			s.error(finding.Conflict, path+"."+f.field, "a host outside of the mesh has no "+f.field, "write its name as service")
		}
	}
	switch {
	case d.Service == "" && d.Name == "":
		s.error(finding.Required, path+".service", "the host is not named", "set service to its name, as in *.example.com")
	case d.Service != "" && !isEgressHost(d.Service):
		s.error(finding.InvalidValue, path+".service", fmt.Sprintf("%q is no host name", d.Service), hostForm+". For tcp it is an address or a subnet, as in 192.0.2.0/24")
	}
	if len(r.Ports) == 0 {
		s.error(finding.Required, "spec.ports", "no port is named", "add the ports of the host with their protocols")
	}
	s.atMost("spec.ports", len(r.Ports), v1alpha2.MaxPorts)
	seen := map[int32]bool{}
	for i, p := range r.Ports {
		at := finding.Item("spec.ports", i)
		if p.Port < 1 || p.Port > 65535 {
			s.error(finding.InvalidValue, at+".port", fmt.Sprintf("%d is no port", p.Port), "it is from 1 to 65535")
		} else if seen[p.Port] {
			s.error(finding.Conflict, at+".port", fmt.Sprintf("port %d is there twice", p.Port), "keep one of them")
		}
		seen[p.Port] = true
		s.egressProtocol(at+".protocol", p.Protocol, d.Service)
	}
	if r.UseEgressProxy {
		s.error(finding.NotSupported, "spec.useEgressProxy", "calls through the egress proxy are not carried out, and are refused as in 0.2", "remove it")
	}
}

// egressProtocol judges what is spoken to host. What is not HTTP is told apart by the name in TLS or by the address alone.
func (s *subject) egressProtocol(path, protocol, host string) {
	switch protocol := strings.ToLower(protocol); protocol {
	case "http", "https", "http2", "grpc":
		if isSubnet(host) {
			s.error(finding.InvalidValue, path, protocol+" is spoken to a host, not to a subnet", "the protocol for a subnet is tcp")
		}
	case "tls":
		switch {
		case isAddress(host) || isSubnet(host):
			s.error(finding.InvalidValue, path, "tls is told apart by the name it asks for, and this is none", "the protocol for an address or a subnet is tcp")
		case strings.HasPrefix(host, "*") && host != "*" && !strings.HasPrefix(host, "*."):
			s.error(finding.InvalidValue, path, "names in TLS are compared by whole words", "write *. in front of the name")
		}
	case "tcp":
		if isEgressHost(host) && !isAddress(host) && !isSubnet(host) {
			s.error(finding.InvalidValue, path, "a TCP connection does not say which name it is for",
				"write the address of the host, or a subnet as in 192.0.2.0/24, as service; for TLS the protocol is tls")
		}
	case "":
		s.error(finding.Required, path, "the protocol is missing", protocols)
	default:
		s.error(finding.InvalidValue, path, fmt.Sprintf("%q cannot be called outside of the mesh", protocol), protocols)
	}
}

// ExternalHost is the same for all spellings of a host outside of the mesh: names and addresses as they are written most shortly, subnets without
// the bits that do not count.
func ExternalHost(service string) string {
	if a, err := netip.ParseAddr(service); err == nil {
		return a.String()
	}
	if p, err := netip.ParsePrefix(service); err == nil {
		if p.IsSingleIP() {
			return p.Addr().String()
		}
		return p.Masked().String()
	}
	return service
}

// egressClaim names what only one object may say of each port.
func egressClaim(e *v1alpha2.EgressRule) string {
	return "EgressRule " + ExternalHost(e.Spec.Destination.Service)
}

// claim warns when other rules for the host have some of the rule's ports and come before it. The other ports are its own.
func (j *judge) claim(s *subject, e *v1alpha2.EgressRule) {
	taken := map[int32]bool{}
	for _, holder := range j.holders(s, egressClaim(e)) {
		if holder.Key() == s.object.Key() {
			return
		}
		other, ok := holder.Value.(*v1alpha2.EgressRule)
		if !ok {
			continue
		}
		var ports []string
		at := ""
		for i, p := range e.Spec.Ports {
			if !taken[p.Port] && hasPort(other, p.Port) {
				taken[p.Port] = true
				ports = append(ports, fmt.Sprint(p.Port))
				at = cmp.Or(at, finding.Child(finding.Item("spec.ports", i), "port"))
			}
		}
		if len(ports) > 0 {
			s.warn(finding.DuplicateClaim, at, fmt.Sprintf("EgressRule %s/%s is about the same host and port %s and wins there, for its name comes first",
				other.Namespace, other.Name, strings.Join(ports, ", ")), "keep one of them")
		}
	}
}

// covered tells of a rule for many hosts about the rules that keep some of them and a port of theirs for themselves.
func (j *judge) covered(s *subject, e *v1alpha2.EgressRule) {
	if !wide(e.Spec.Destination.Service) {
		return
	}
	for _, claim := range j.allClaims(s) {
		if claim == egressClaim(e) {
			continue
		}
		for _, p := range e.Spec.Ports {
			if other := holder(j.claims[claim], p.Port); other != nil && narrower(other.Spec.Destination.Service, e.Spec.Destination.Service) {
				s.findings = append(s.findings, s.object.Find(finding.DuplicateClaim, finding.Info, "spec.destination.service",
					fmt.Sprintf("EgressRule %s/%s is about %s alone and wins for it on port %d", other.Namespace, other.Name, other.Spec.Destination.Service, p.Port), ""))
			}
		}
	}
}

// holder is the first of the rules for a host that has the port; nil when none has.
func holder(rules []*objects.Object, port int32) *v1alpha2.EgressRule {
	for _, o := range rules {
		if e, ok := o.Value.(*v1alpha2.EgressRule); ok && hasPort(e, port) {
			return e
		}
	}
	return nil
}

func hasPort(e *v1alpha2.EgressRule, port int32) bool {
	return slices.ContainsFunc(e.Spec.Ports, func(p v1alpha2.EgressRulePort) bool { return p.Port == port })
}

// wide says whether host stands for many.
func wide(host string) bool { return strings.HasPrefix(host, "*") || isSubnet(host) }

// narrower says whether every host that a stands for is one that b stands for, and b for more.
func narrower(a, b string) bool {
	if suffix, wildcard := strings.CutPrefix(b, "*"); wildcard {
		return a != b && !isSubnet(a) && strings.HasSuffix(a, suffix)
	}
	outer, err := netip.ParsePrefix(b)
	if err != nil {
		return false
	}
	if addr, err := netip.ParseAddr(a); err == nil {
		return outer.Contains(addr) && !outer.IsSingleIP()
	}
	inner, err := netip.ParsePrefix(a)
	return err == nil && outer.Overlaps(inner) && inner.Bits() > outer.Bits()
}

// external says whether a rule lets the host be called.
func (j *judge) external(s *subject, host string) bool {
	return len(j.holders(s, "EgressRule "+ExternalHost(host))) > 0
}
