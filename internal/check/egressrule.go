package check

import (
	"fmt"
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
)

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
		s.error(finding.InvalidValue, path+".service", fmt.Sprintf("%q is no host name", d.Service), "a host name is dot-separated words, at most with a star in front; it has no port")
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
		switch strings.ToLower(p.Protocol) {
		case "http", "https", "http2", "grpc":
		case "":
			s.error(finding.Required, at+".protocol", "the protocol is missing", "it is http, https, http2 or grpc")
		default:
			s.error(finding.InvalidValue, at+".protocol", fmt.Sprintf("%q cannot be called outside of the mesh", p.Protocol), "it is http, https, http2 or grpc")
		}
	}
	if r.UseEgressProxy {
		s.error(finding.NotSupported, "spec.useEgressProxy", "calls through the egress proxy were never carried out, and are refused as in 0.2", "remove it")
	}
}
