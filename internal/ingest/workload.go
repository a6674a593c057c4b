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
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// pod is a workload and what its services need to know of it.
type pod struct {
	key       model.WorkloadKey
	addresses []string
	labels    map[string]string
	account   string
	node      string
	// shared says that the addresses are the node's, those of all such pods.
	shared bool
	// ports are the container ports by name.
	ports map[string]uint32
}

// label is one label in a namespace.
type label struct{ namespace, key, value string }

// firstLabel is the label of a selector whose key comes first.
func firstLabel(namespace string, selector map[string]string) label {
	key := slices.Min(slices.Collect(maps.Keys(selector)))
	return label{namespace, key, selector[key]}
}

// updatePods takes over the pods that run or will.
func (k *Keeper) updatePods() {
	for _, c := range k.pods.update() {
		if c.was != nil {
			for key, value := range c.was.labels {
				l := label{c.was.key.Namespace, key, value}
				if k.labelled[l] = remove(k.labelled[l], c.was); len(k.labelled[l]) == 0 {
					delete(k.labelled, l)
				}
			}
		}
		if c.is != nil {
			for key, value := range c.is.labels {
				l := label{c.is.key.Namespace, key, value}
				k.labelled[l] = append(k.labelled[l], c.is)
			}
		}
		one := cmp.Or(c.is, c.was)
		who := objects.Key{Kind: "Pod", Namespace: one.key.Namespace, Name: one.key.Name}
		moved := func(address string) { k.change(podAt, address, "") }
		k.placed.edit(who, c.was.own(), c.is.own(), moved)
		k.change(podNamed, one.key.Namespace, one.key.Name)
		// The pod that an address means may be another although its name is the same.
		for _, address := range c.is.own() {
			moved(address)
		}
	}
}

// own are the addresses that are the pod's alone.
func (p *pod) own() []string {
	if p == nil || p.shared {
		return nil
	}
	return p.addresses
}

// newPod is a pod as its object says; nil for one that has ended.
func (b *builder) newPod(_ *objects.Object, in *corev1.Pod) *pod {
	if in.Status.Phase == corev1.PodSucceeded || in.Status.Phase == corev1.PodFailed {
		return nil
	}
	p := &pod{
		key:       model.WorkloadKey{Namespace: in.Namespace, Name: in.Name},
		addresses: podIPs(in),
		labels:    in.Labels,
		account:   cmp.Or(in.Spec.ServiceAccountName, "default"),
		node:      in.Spec.NodeName,
		shared:    in.Spec.HostNetwork,
	}
	for _, c := range slices.Concat(in.Spec.InitContainers, in.Spec.Containers) {
		for _, cp := range c.Ports {
			if cp.Name == "" || cp.ContainerPort <= 0 || cp.Protocol != "" && cp.Protocol != corev1.ProtocolTCP {
				continue
			}
			if p.ports == nil {
				p.ports = map[string]uint32{}
			}
			p.ports[cp.Name] = uint32(cp.ContainerPort)
		}
	}
	return p
}

func compareWorkloads(x, y *model.Workload) int { return compareKeys(x.Key, y.Key) }

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

// instances are those that one slice has of a service, in order and each once.
type instances struct {
	of   serviceName
	list []model.Endpoint
}

// updateEndpoints takes over the instances of all services from their slices.
func (k *Keeper) updateEndpoints(mesh *model.Mesh, services []change[*service]) {
	for _, c := range k.instances.update() {
		for _, part := range []*instances{c.was, c.is} {
			if part == nil {
				continue
			}
			if part == c.is {
				k.parts[part.of] = append(k.parts[part.of], part)
			} else if k.parts[part.of] = remove(k.parts[part.of], part); len(k.parts[part.of]) == 0 {
				delete(k.parts, part.of)
			}
			k.change(slicesOf, part.of.namespace, part.of.name)
		}
	}
	stale := map[string]bool{}
	for _, c := range services {
		for _, svc := range []*service{c.was, c.is} {
			if svc != nil {
				stale[svc.Hostname] = true
			}
		}
	}
	for _, hostname := range k.endpoints.Readers(k.changed...) {
		stale[hostname] = true
	}
	var changes []change[*model.Endpoints]
	for hostname := range stale {
		var c change[*model.Endpoints]
		c.was, _ = k.endpoints.Kept(hostname)
		k.endpoints.Drop(hostname)
		if svc := k.hosts[hostname]; svc != nil {
			c.is = k.endpoints.Get(hostname, func(read func(input)) *model.Endpoints { return k.gather(svc, c.was, read) })
		}
		if c.was != c.is {
			changes = append(changes, c)
		}
		k.aim(hostname)
	}
	mesh.Endpoints = splice(mesh.Endpoints, func(a, b *model.Endpoints) int { return cmp.Compare(a.Hostname, b.Hostname) }, changes)
}

// gather puts together what the slices of a service have.
func (k *Keeper) gather(svc *service, was *model.Endpoints, read func(input)) *model.Endpoints {
	of := serviceName{svc.Namespace, svc.Name}
	read(input{what: slicesOf, a: of.namespace, b: of.name})
	is := &model.Endpoints{Hostname: svc.Hostname}
	switch parts := k.parts[of]; len(parts) {
	case 0:
	case 1:
		is.List = parts[0].list
	default:
		for _, part := range parts {
			is.List = append(is.List, part.list...)
		}
		is.List = arrange(is.List)
	}
	if was != nil && reflect.DeepEqual(was, is) {
		return was
	}
	return is
}

// arrange sorts endpoints. While slices are reshuffled an instance is in two of them; of two that disagree the ready one is first.
func arrange(list []model.Endpoint) []model.Endpoint {
	slices.SortFunc(list, compareEndpoints)
	return slices.CompactFunc(list, func(x, y model.Endpoint) bool {
		return x.ServicePort == y.ServicePort && x.Address == y.Address && x.Port == y.Port
	})
}

// aim takes note of the pods that a service leads to by its endpoints alone, now and before.
func (k *Keeper) aim(hostname string) {
	var is []model.WorkloadKey
	if svc := k.hosts[hostname]; svc != nil && len(svc.selector) == 0 {
		if endpoints, _ := k.endpoints.Kept(hostname); endpoints != nil {
			for _, e := range endpoints.List {
				if e.Workload != (model.WorkloadKey{}) {
					is = append(is, e.Workload)
				}
			}
		}
	}
	slices.SortFunc(is, compareKeys)
	is = slices.Compact(is)
	for _, key := range k.aims[hostname] {
		if k.aimed[key] = remove(k.aimed[key], hostname); len(k.aimed[key]) == 0 {
			delete(k.aimed, key)
		}
		k.change(servicesOf, key.Namespace, key.Name)
	}
	for _, key := range is {
		k.aimed[key] = append(k.aimed[key], hostname)
		k.change(servicesOf, key.Namespace, key.Name)
	}
	if k.aims[hostname] = is; len(is) == 0 {
		delete(k.aims, hostname)
	}
}

// instances are those that a slice has of its service; nil when there is no such service, or one that has no instances.
func (b *builder) instances(_ *objects.Object, slice *discoveryv1.EndpointSlice) *instances {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return nil
	}
	of := serviceName{slice.Namespace, slice.Labels[discoveryv1.LabelServiceName]}
	svc := b.service(of.name + "." + of.namespace + ".svc." + b.cfg.Domain)
	if svc == nil || svc.ExternalName != "" {
		return nil
	}
	out := &instances{of: of}
	for _, sp := range slice.Ports {
		number, ok := servicePort(svc, sp)
		if !ok {
			continue
		}
		for _, e := range slice.Endpoints {
			out.list = append(out.list, b.endpoint(slice.Namespace, number, uint32(*sp.Port), e)...)
		}
	}
	out.list = arrange(out.list)
	return out
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
	var p *pod
	if t := e.TargetRef; t != nil && t.Kind == "Pod" {
		p = b.pod(model.WorkloadKey{Namespace: cmp.Or(t.Namespace, namespace), Name: t.Name})
	} else {
		p = b.podAt(out.Address)
	}
	if p != nil && p.key.Namespace == namespace {
		out.Workload, out.Labels = p.key, p.labels
	}
	return out
}

// selected are the pods that a service selects.
func (k *Keeper) selected(svc *service) []*pod {
	var rarest []*pod
	first := true
	for key, value := range svc.selector {
		if pods := k.labelled[label{svc.Namespace, key, value}]; first || len(pods) < len(rarest) {
			rarest, first = pods, false
		}
	}
	var out []*pod
	for _, p := range rarest {
		if selects(svc.selector, p.labels) {
			out = append(out, p)
		}
	}
	return out
}

// workload is a pod with the ports that services point to in it. It goes by the selectors and not by the endpoints, so that a sidecar knows its
// ports before its pod has an address; but where there is no selector there is nothing else to go by.
func (b *builder) workload(o *objects.Object, in *corev1.Pod) *model.Workload {
	p := b.pod(model.WorkloadKey{Namespace: in.Namespace, Name: in.Name})
	if p == nil {
		return nil
	}
	w := &model.Workload{Key: p.key, Addresses: p.addresses, Labels: p.labels, ServiceAccount: p.account, Node: p.node}
	b.read(input{what: servicesOf, a: p.key.Namespace, b: p.key.Name})
	for key, value := range p.labels {
		for _, svc := range b.keeper.selecting[label{p.key.Namespace, key, value}] {
			if selects(svc.selector, p.labels) {
				w.Inbound = append(w.Inbound, p.serve(svc)...)
			}
		}
	}
	for _, hostname := range b.keeper.aimed[p.key] {
		svc := b.keeper.hosts[hostname]
		endpoints, _ := b.keeper.endpoints.Kept(hostname)
		for _, e := range endpoints.List {
			if e.Workload == p.key {
				i := slices.IndexFunc(svc.Ports, func(sp model.Port) bool { return sp.Number == e.ServicePort })
				w.Inbound = append(w.Inbound, model.InboundPort{Hostname: hostname, ServicePort: e.ServicePort, Port: e.Port, Protocol: svc.Ports[i].Protocol})
			}
		}
	}
	slices.SortFunc(w.Inbound, func(x, y model.InboundPort) int {
		return cmp.Or(cmp.Compare(x.Hostname, y.Hostname), cmp.Compare(x.ServicePort, y.ServicePort), cmp.Compare(x.Port, y.Port))
	})
	w.Inbound = slices.Compact(w.Inbound)
	b.judgeInbound(o, w)
	return w
}

// serve are the ports by which svc reaches the pod.
func (p *pod) serve(svc *service) []model.InboundPort {
	var out []model.InboundPort
	for _, t := range svc.targets {
		number := t.number
		if number == 0 {
			number = p.ports[t.name]
		}
		if number == 0 || number > 65535 {
			continue
		}
		out = append(out, model.InboundPort{Hostname: svc.Hostname, ServicePort: t.port.Number, Port: number, Protocol: t.port.Protocol})
	}
	return out
}

// judgeInbound tells of services that disagree about what a port of the pod speaks.
func (b *builder) judgeInbound(o *objects.Object, w *model.Workload) {
	first := map[uint32]model.InboundPort{}
	for _, in := range w.Inbound {
		other, ok := first[in.Port]
		if !ok {
			first[in.Port] = in
			continue
		}
		// A port whose protocol is detected goes with either.
		if other.Protocol.IsHTTP() != in.Protocol.IsHTTP() && other.Protocol.IsTCP() != in.Protocol.IsTCP() {
			b.find(o, finding.PortConflict, finding.Warning, "spec.containers",
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
