package ingest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// targetPort is where a service's port leads inside a pod.
type targetPort struct {
	port   model.Port
	number uint32
	// name of a container port, when number is 0.
	name string
}

func (b *builder) addServices() {
	b.selectors = map[string]map[string]string{}
	b.targets = map[string][]targetPort{}
	addresses := map[string]string{}
	for _, o := range b.set.Kind("", "Service") {
		in, ok := o.Value.(*corev1.Service)
		if !ok {
			continue
		}
		svc := &model.Service{
			Hostname:  in.Name + "." + in.Namespace + ".svc." + b.cfg.Domain,
			Name:      in.Name,
			Namespace: in.Namespace,
		}
		if in.Spec.Type == corev1.ServiceTypeExternalName {
			svc.ExternalName = cmp.Or(in.Spec.ExternalName, "invalid")
		} else {
			svc.Addresses = virtualIPs(in)
			svc.Headless = len(svc.Addresses) == 0
		}
		b.addPorts(o, in, svc)
		for _, a := range svc.Addresses {
			if other, taken := addresses[a]; taken {
				b.find(o, finding.PortConflict, finding.Warning, "spec.clusterIPs", fmt.Sprintf("address %s is also that of service %s, which keeps it", a, other), "")
				svc.Addresses = slices.DeleteFunc(slices.Clone(svc.Addresses), func(x string) bool { return x == a })
				continue
			}
			addresses[a] = svc.Namespace + "/" + svc.Name
		}
		b.services[svc.Hostname] = svc
		b.mesh.Services = append(b.mesh.Services, svc)
		if len(in.Spec.Selector) > 0 && svc.ExternalName == "" {
			b.selectors[svc.Hostname] = in.Spec.Selector
		}
	}
	slices.SortFunc(b.mesh.Services, func(a, b *model.Service) int { return cmp.Compare(a.Hostname, b.Hostname) })
}

// addPorts takes over the service's TCP ports. The mesh carries nothing else.
func (b *builder) addPorts(o *objects.Object, in *corev1.Service, svc *model.Service) {
	for i, p := range in.Spec.Ports {
		if p.Protocol != "" && p.Protocol != corev1.ProtocolTCP {
			continue
		}
		number := uint32(p.Port)
		if p.Port < 1 || p.Port > 65535 || slices.ContainsFunc(svc.Ports, func(q model.Port) bool { return q.Number == number }) {
			continue
		}
		if reserved(p.Port) {
			b.find(o, finding.PortConflict, finding.Warning, finding.Child(finding.Item("spec.ports", i), "port"),
				fmt.Sprintf("port %d is the mesh's own; calls to it from inside the mesh do not arrive", number), "choose another port")
		}
		port := model.Port{Name: p.Name, Number: number, Protocol: b.protocol(p)}
		svc.Ports = append(svc.Ports, port)
		target := targetPort{port: port, number: uint32(max(p.TargetPort.IntVal, 0)), name: p.TargetPort.StrVal}
		if target.number == 0 && target.name == "" {
			target.number = number
		}
		b.targets[svc.Hostname] = append(b.targets[svc.Hostname], target)
	}
	slices.SortFunc(svc.Ports, func(a, b model.Port) int { return cmp.Compare(a.Number, b.Number) })
}

// protocol is what a service says about its port: by appProtocol, else by the name up to its first dash. A name that says nothing leaves it to
// be detected; an appProtocol not known here is TCP, which suits everything.
func (b *builder) protocol(p corev1.ServicePort) model.Protocol {
	if p.AppProtocol == nil {
		prefix, _, _ := strings.Cut(p.Name, "-")
		known, ok := named(prefix)
		if ok || b.cfg.DetectionTimeout < 0 || speaksFirst(p) {
			return known
		}
		return model.Detected
	}
	switch name := strings.ToLower(*p.AppProtocol); name {
	case "h2c", "kubernetes.io/h2c":
		return model.HTTP2
	case "ws", "kubernetes.io/ws":
		return model.HTTP
	case "wss", "kubernetes.io/wss":
		return model.HTTPS
	default:
		known, _ := named(name)
		return known
	}
}

// named is the protocol of a name; TCP and false for any other.
func named(name string) (model.Protocol, bool) {
	switch p := model.Protocol(name); p {
	case model.HTTP, model.HTTP2, model.GRPC, model.HTTPS, model.TLS, model.TCP, model.Mongo, model.Redis:
		return p, true
	case model.Detected:
	}
	return model.TCP, false
}

// speaksFirst says whether the server of a well-known port does: to wait for a word of the client would only delay every connection.
func speaksFirst(p corev1.ServicePort) bool {
	switch number := cmp.Or(p.TargetPort.IntVal, p.Port); number {
	case 21, 22, 23, 25, 110, 119, 143, 587, 3306, 5900: // FTP, SSH, Telnet, SMTP, POP3, NNTP, IMAP, submission, MySQL, RFB
		return true
	}
	return strings.HasPrefix(p.Name, "mysql")
}

// virtualIPs are the service's addresses, IPv4 first.
func virtualIPs(in *corev1.Service) []string {
	var out []string
	for _, a := range append([]string{in.Spec.ClusterIP}, in.Spec.ClusterIPs...) {
		if ip, err := netip.ParseAddr(a); err == nil && !slices.Contains(out, ip.String()) {
			out = append(out, ip.String())
		}
	}
	slices.SortFunc(out, compareAddresses)
	return out
}

// compareAddresses orders IP addresses by family and value.
func compareAddresses(a, b string) int {
	x, errX := netip.ParseAddr(a)
	y, errY := netip.ParseAddr(b)
	if errX != nil || errY != nil {
		return cmp.Compare(a, b)
	}
	return x.Compare(y)
}
