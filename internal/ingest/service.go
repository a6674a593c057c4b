package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
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

// service is a service and where it leads.
type service struct {
	*model.Service
	// selector is nil for a service whose slices somebody else writes.
	selector map[string]string
	// targets are the container ports of the service's ports: a number, or the name that each pod resolves for itself.
	targets []targetPort
}

// serviceName is the namespace and name of a service.
type serviceName struct{ namespace, name string }

// updateServices takes over all services.
func (k *Keeper) updateServices(mesh *model.Mesh) []change[*service] {
	for _, e := range k.edits[[2]string{"", "Service"}] {
		k.virtual.edit(e.Key(), claimed(e.Old), claimed(e.New), func(address string) { k.change(holderOf, address, "") })
	}
	changes := k.services.update()
	var services []change[*model.Service]
	for _, c := range changes {
		var inner change[*model.Service]
		if c.was != nil {
			delete(k.hosts, c.was.Hostname)
			inner.was = c.was.Service
		}
		if c.is != nil {
			if c.was != nil && reflect.DeepEqual(c.was.Service, c.is.Service) {
				c.is.Service = c.was.Service
			}
			inner.is = c.is.Service
		}
		if inner.was != inner.is {
			services = append(services, inner)
		}
		k.reselect(c)
	}
	for _, c := range changes {
		if c.is != nil {
			k.hosts[c.is.Hostname] = c.is
		}
	}
	for _, c := range services {
		for _, svc := range []*model.Service{c.was, c.is} {
			if svc != nil {
				k.change(serviceNamed, svc.Hostname, "")
			}
		}
	}
	mesh.Services = splice(mesh.Services, func(a, b *model.Service) int { return cmp.Compare(a.Hostname, b.Hostname) }, services)
	return changes
}

// claimed are the addresses that a service claims.
func claimed(o *objects.Object) []string {
	if o == nil {
		return nil
	}
	if in, ok := o.Value.(*corev1.Service); ok && in.Spec.Type != corev1.ServiceTypeExternalName {
		return virtualIPs(in)
	}
	return nil
}

// reselect takes note of the pods that a service leads to now and that it led to before.
func (k *Keeper) reselect(c change[*service]) {
	if c.was != nil && c.is != nil && c.was.Hostname == c.is.Hostname && maps.Equal(c.was.selector, c.is.selector) && slices.Equal(c.was.targets, c.is.targets) {
		if len(c.is.selector) > 0 {
			l := firstLabel(c.is.Namespace, c.is.selector)
			k.selecting[l][slices.Index(k.selecting[l], c.was)] = c.is
		}
		return
	}
	for _, svc := range []*service{c.was, c.is} {
		if svc == nil || len(svc.selector) == 0 {
			continue
		}
		for _, p := range k.selected(svc) {
			k.change(servicesOf, p.key.Namespace, p.key.Name)
		}
		l := firstLabel(svc.Namespace, svc.selector)
		if svc == c.is {
			k.selecting[l] = append(k.selecting[l], svc)
		} else if k.selecting[l] = remove(k.selecting[l], svc); len(k.selecting[l]) == 0 {
			delete(k.selecting, l)
		}
	}
}

// remove takes an item out of a list whose order does not matter.
func remove[T comparable](list []T, item T) []T {
	i := slices.Index(list, item)
	if i < 0 {
		return list
	}
	last := len(list) - 1
	var nothing T
	list[i], list[last] = list[last], nothing
	return list[:last]
}

// newService is a service as its object says; nil for one whose name is none.
func (b *builder) newService(o *objects.Object, in *corev1.Service) *service {
	if strings.Contains(in.Name+in.Namespace, ".") {
		b.find(o, finding.InvalidValue, finding.Warning, "metadata.name", "the name of a service, and that of its namespace, has no dots", "")
		return nil
	}
	svc := &service{Service: &model.Service{
		Hostname:  in.Name + "." + in.Namespace + ".svc." + b.cfg.Domain,
		Name:      in.Name,
		Namespace: in.Namespace,
	}}
	if in.Spec.Type == corev1.ServiceTypeExternalName {
		svc.ExternalName = cmp.Or(in.Spec.ExternalName, "invalid")
	} else {
		svc.Addresses = virtualIPs(in)
		svc.Headless = len(svc.Addresses) == 0
		svc.selector = in.Spec.Selector
	}
	b.addPorts(o, in, svc)
	svc.Addresses = slices.DeleteFunc(svc.Addresses, func(a string) bool {
		b.read(input{what: holderOf, a: a})
		holder, _ := b.keeper.virtual.holder(a)
		lost := holder != o.Key()
		if lost {
			b.find(o, finding.PortConflict, finding.Warning, "spec.clusterIPs", fmt.Sprintf("address %s is also that of service %s/%s, which keeps it", a, holder.Namespace, holder.Name), "")
		}
		return lost
	})
	if len(svc.Addresses) == 0 {
		svc.Addresses = nil
	}
	return svc
}

// addPorts takes over the service's TCP ports. The mesh carries nothing else.
func (b *builder) addPorts(o *objects.Object, in *corev1.Service, svc *service) {
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
		svc.targets = append(svc.targets, target)
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
