package ingest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// pod is a workload and what its services need to know of it.
type pod struct {
	*model.Workload
	object *objects.Object
	// ports are the container ports by name.
	ports map[string]uint32
}

// addWorkloads takes over the pods that run or will.
func (b *builder) addWorkloads() {
	b.workloads = map[model.WorkloadKey]*pod{}
	b.byIP = map[string]*pod{}
	for _, o := range b.set.Kind("", "Pod") {
		in, ok := o.Value.(*corev1.Pod)
		if !ok || in.Status.Phase == corev1.PodSucceeded || in.Status.Phase == corev1.PodFailed {
			continue
		}
		p := &pod{
			Workload: &model.Workload{
				Key:            model.WorkloadKey{Namespace: in.Namespace, Name: in.Name},
				Addresses:      podIPs(in),
				Labels:         in.Labels,
				ServiceAccount: cmp.Or(in.Spec.ServiceAccountName, "default"),
				Node:           in.Spec.NodeName,
			},
			object: o,
			ports:  map[string]uint32{},
		}
		for _, c := range slices.Concat(in.Spec.InitContainers, in.Spec.Containers) {
			for _, cp := range c.Ports {
				if cp.Name != "" && cp.ContainerPort > 0 && (cp.Protocol == "" || cp.Protocol == corev1.ProtocolTCP) {
					p.ports[cp.Name] = uint32(cp.ContainerPort)
				}
			}
		}
		b.workloads[p.Key] = p
		b.mesh.Workloads = append(b.mesh.Workloads, p.Workload)
		if in.Spec.HostNetwork {
			// The address is the node's, shared by all such pods.
			continue
		}
		for _, a := range p.Addresses {
			if b.byIP[a] == nil {
				b.byIP[a] = p
			}
		}
	}
	slices.SortFunc(b.mesh.Workloads, func(x, y *model.Workload) int { return compareKeys(x.Key, y.Key) })
}

func compareKeys(a, b model.WorkloadKey) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

func podIPs(in *corev1.Pod) []string {
	var out []string
	add := func(a string) {
		if ip, err := netip.ParseAddr(a); err == nil && !slices.Contains(out, ip.String()) {
			out = append(out, ip.String())
		}
	}
	add(in.Status.PodIP)
	for _, ip := range in.Status.PodIPs {
		add(ip.IP)
	}
	slices.SortFunc(out, compareAddresses)
	return out
}

// addEndpoints takes over the instances of all services from their slices.
func (b *builder) addEndpoints() {
	b.endpoints = map[string]*model.Endpoints{}
	for _, svc := range b.mesh.Services {
		e := &model.Endpoints{Hostname: svc.Hostname}
		b.endpoints[svc.Hostname] = e
		b.mesh.Endpoints = append(b.mesh.Endpoints, e)
	}
	for _, o := range b.set.Kind(discoveryv1.GroupName, "EndpointSlice") {
		slice, ok := o.Value.(*discoveryv1.EndpointSlice)
		if !ok || slice.AddressType == discoveryv1.AddressTypeFQDN {
			continue
		}
		svc := b.service(slice.Labels[discoveryv1.LabelServiceName] + "." + slice.Namespace + ".svc." + b.cfg.Domain)
		if svc == nil || svc.ExternalName != "" {
			continue
		}
		all := b.endpoints[svc.Hostname]
		for _, sp := range slice.Ports {
			number, ok := servicePort(svc, sp)
			if !ok {
				continue
			}
			for _, e := range slice.Endpoints {
				all.List = append(all.List, b.endpoint(slice.Namespace, number, uint32(*sp.Port), e)...)
			}
		}
	}
	for _, all := range b.mesh.Endpoints {
		slices.SortFunc(all.List, compareEndpoints)
		// While slices are reshuffled an instance is in two of them; of two that disagree the ready one is first.
		all.List = slices.CompactFunc(all.List, func(x, y model.Endpoint) bool {
			return x.ServicePort == y.ServicePort && x.Address == y.Address && x.Port == y.Port
		})
	}
}

func compareEndpoints(x, y model.Endpoint) int {
	ready := func(e model.Endpoint) int {
		if e.Ready {
			return 0
		}
		return 1
	}
	return cmp.Or(cmp.Compare(x.ServicePort, y.ServicePort), compareAddresses(x.Address, y.Address), cmp.Compare(x.Port, y.Port),
		cmp.Compare(ready(x), ready(y)), compareKeys(x.Workload, y.Workload), cmp.Compare(x.Hostname, y.Hostname),
		cmp.Compare(x.Zone, y.Zone), cmp.Compare(x.Node, y.Node))
}

// servicePort is the number of the service's port that a slice's port stands for: they have the same name.
func servicePort(svc *model.Service, sp discoveryv1.EndpointPort) (uint32, bool) {
	if sp.Port == nil || *sp.Port < 1 || *sp.Port > 65535 || (sp.Protocol != nil && *sp.Protocol != corev1.ProtocolTCP) {
		return 0, false
	}
	name := ""
	if sp.Name != nil {
		name = *sp.Name
	}
	i := slices.IndexFunc(svc.Ports, func(p model.Port) bool { return p.Name == name })
	if i < 0 {
		return 0, false
	}
	return svc.Ports[i].Number, true
}

// endpoint is one instance: ready, draining, or nothing.
func (b *builder) endpoint(namespace string, servicePort, port uint32, e discoveryv1.Endpoint) []model.Endpoint {
	is := func(condition *bool, unknown bool) bool {
		if condition == nil {
			return unknown
		}
		return *condition
	}
	terminating := is(e.Conditions.Terminating, false)
	ready := is(e.Conditions.Ready, true) && !terminating
	if !ready && (!terminating || !is(e.Conditions.Serving, true)) {
		return nil
	}
	var out []model.Endpoint
	for _, a := range e.Addresses {
		ip, err := netip.ParseAddr(a)
		if err != nil {
			continue
		}
		out = append(out, b.place(namespace, e, model.Endpoint{ServicePort: servicePort, Address: ip.String(), Port: port, Ready: ready}))
	}
	return out
}

// place adds what is known of the pod behind an endpoint. Pods of other namespaces than the slice's are not asked about: whoever may write slices
// in one namespace is not to open ports, or to choose protocols, in another. The address alone still gets its traffic, as from kube-proxy.
func (b *builder) place(namespace string, e discoveryv1.Endpoint, out model.Endpoint) model.Endpoint {
	if e.Hostname != nil {
		out.Hostname = *e.Hostname
	}
	if e.NodeName != nil {
		out.Node = *e.NodeName
	}
	if e.Zone != nil {
		out.Zone = *e.Zone
	}
	p := b.byIP[out.Address]
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		p = b.workloads[model.WorkloadKey{Namespace: cmp.Or(t.Namespace, namespace), Name: t.Name}]
	}
	if p != nil && p.Key.Namespace == namespace {
		out.Workload = p.Key
		out.Labels = p.Labels
	}
	return out
}

// addInbound finds the ports that services point to in each pod. It goes by the selector and not by the endpoints, so that a sidecar knows its
// ports before its pod has an address.
func (b *builder) addInbound() {
	type label struct{ namespace, key, value string }
	byLabel := map[label][]*pod{}
	for _, p := range b.workloads {
		for k, v := range p.Labels {
			l := label{p.Key.Namespace, k, v}
			byLabel[l] = append(byLabel[l], p)
		}
	}
	for hostname, selector := range b.selectors {
		svc := b.services[hostname]
		var rarest []*pod
		first := true
		for k, v := range selector {
			if pods := byLabel[label{svc.Namespace, k, v}]; first || len(pods) < len(rarest) {
				rarest, first = pods, false
			}
		}
		for _, p := range rarest {
			if selects(selector, p.Labels) {
				b.serve(p, svc)
			}
		}
	}
	for _, svc := range b.mesh.Services {
		if b.selectors[svc.Hostname] != nil {
			continue
		}
		for _, e := range b.endpoints[svc.Hostname].List {
			if p := b.workloads[e.Workload]; p != nil {
				i := slices.IndexFunc(svc.Ports, func(sp model.Port) bool { return sp.Number == e.ServicePort })
				p.Inbound = append(p.Inbound, model.InboundPort{Hostname: svc.Hostname, ServicePort: e.ServicePort, Port: e.Port, Protocol: svc.Ports[i].Protocol})
			}
		}
	}
	for _, w := range b.mesh.Workloads {
		slices.SortFunc(w.Inbound, func(x, y model.InboundPort) int {
			return cmp.Or(cmp.Compare(x.Hostname, y.Hostname), cmp.Compare(x.ServicePort, y.ServicePort), cmp.Compare(x.Port, y.Port))
		})
		w.Inbound = slices.Compact(w.Inbound)
		b.judgeInbound(w)
	}
}

// serve records the ports by which svc reaches the pod.
func (b *builder) serve(p *pod, svc *model.Service) {
	for _, t := range b.targets[svc.Hostname] {
		number := t.number
		if number == 0 {
			number = p.ports[t.name]
		}
		if number == 0 || number > 65535 {
			continue
		}
		p.Inbound = append(p.Inbound, model.InboundPort{Hostname: svc.Hostname, ServicePort: t.port.Number, Port: number, Protocol: t.port.Protocol})
	}
}

// judgeInbound tells of services that disagree about what a port of the pod speaks.
func (b *builder) judgeInbound(w *model.Workload) {
	first := map[uint32]model.InboundPort{}
	for _, in := range w.Inbound {
		other, ok := first[in.Port]
		if !ok {
			first[in.Port] = in
			continue
		}
		// A port whose protocol is detected goes with either.
		if other.Protocol.IsHTTP() != in.Protocol.IsHTTP() && other.Protocol.IsTCP() != in.Protocol.IsTCP() {
			b.find(b.workloads[w.Key].object, finding.PortConflict, finding.Warning, "spec.containers",
				fmt.Sprintf("port %d is %s to service %s and %s to service %s; its connections are carried as TCP",
					in.Port, other.Protocol, short(other.Hostname), in.Protocol, short(in.Hostname)),
				"give both services' ports the same protocol")
		}
	}
}

// short is a hostname's service and namespace.
func short(hostname string) string {
	parts := strings.SplitN(hostname, ".", 3)
	return strings.Join(parts[:min(2, len(parts))], ".")
}

func selects(selector, labels map[string]string) bool {
	for k, v := range selector {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}
