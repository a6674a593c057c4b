package ingest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// updateExternals takes over the hosts of all EgressRules that check lets through. Of two for one host and port the first is in force; check tells the
// other.
func (k *Keeper) updateExternals() []change[*model.External] {
	hosts := map[string]bool{}
	for _, c := range k.declared.update() {
		if c.was != nil {
			hosts[c.was.Host] = true
			k.claimants[c.was.Host] = slices.DeleteFunc(k.claimants[c.was.Host], func(e *model.External) bool { return e == c.was })
		}
		if c.is != nil {
			hosts[c.is.Host] = true
			k.claimants[c.is.Host] = append(k.claimants[c.is.Host], c.is)
		}
	}
	var out []change[*model.External]
	for host := range hosts {
		was, is := k.externals[host], k.share(host)
		if slices.Equal(was, is) {
			continue
		}
		for _, e := range was {
			if !slices.Contains(is, e) {
				out = append(out, change[*model.External]{was: e})
			}
		}
		for _, e := range is {
			if !slices.Contains(was, e) {
				out = append(out, change[*model.External]{is: e})
			}
		}
		k.externals[host] = is
		if len(is) == 0 {
			delete(k.externals, host)
		}
		k.change(externalNamed, host, "")
	}
	return out
}

// share gives each rule for a host the ports that none before it has.
func (k *Keeper) share(host string) []*model.External {
	all := k.claimants[host]
	if len(all) == 0 {
		delete(k.claimants, host)
		return nil
	}
	slices.SortFunc(all, compareExternals)
	taken := map[uint32]bool{}
	var out []*model.External
	for _, e := range all {
		own := slices.DeleteFunc(slices.Clone(e.Ports), func(p model.Port) bool { return taken[p.Number] })
		for _, p := range own {
			taken[p.Number] = true
		}
		if len(own) == 0 {
			continue
		}
		if len(own) < len(e.Ports) {
			part := *e
			part.Ports = own
			e = &part
			if i := slices.IndexFunc(k.externals[host], func(was *model.External) bool { return reflect.DeepEqual(was, e) }); i >= 0 {
				e = k.externals[host][i]
			}
		}
		out = append(out, e)
	}
	return out
}

func compareExternals(x, y *model.External) int {
	return cmp.Or(cmp.Compare(x.Host, y.Host), compareRefs(x.Ref, y.Ref))
}

// newExternal is what an EgressRule by itself means; nil when its host is a service.
func (b *builder) newExternal(o *objects.Object, in *v1alpha2.EgressRule) *model.External {
	out := &model.External{Ref: refOf(o), Host: check.ExternalHost(in.Spec.Destination.Service)}
	if svc := b.named(out.Host, in.Namespace); svc != nil {
		b.find(o, finding.DuplicateClaim, finding.Warning, "spec.destination.service",
			fmt.Sprintf("it is the name of service %s, which keeps it", short(svc.Hostname)), "services of the mesh need no EgressRule")
		return nil
	}
	for i, p := range in.Spec.Ports {
		at := finding.Item("spec.ports", i)
		if reserved(p.Port) {
			b.find(o, finding.PortConflict, finding.Warning, finding.Child(at, "port"),
				fmt.Sprintf("port %d is the mesh's own; calls to it do not arrive", p.Port), "")
			continue
		}
		port := model.Port{Number: uint32(p.Port), Protocol: model.Protocol(strings.ToLower(p.Protocol))}
		if _, ok := out.ServerName(); !ok && port.Protocol == model.HTTPS && b.cfg.Closed {
			b.find(o, finding.NotInForce, finding.Info, finding.Child(at, "protocol"), fmt.Sprintf("TLS that applications speak themselves is refused: it does not say that it is for %s", out.Host),
				"let them speak HTTP to the port; the proxy makes it HTTPS")
		}
		out.Ports = append(out.Ports, port)
	}
	slices.SortFunc(out.Ports, func(x, y model.Port) int { return cmp.Compare(x.Number, y.Number) })
	return out
}

// named is the service that workloads of namespace call when they say host; nil for none.
func (b *builder) named(host, namespace string) *model.Service {
	words := strings.SplitN(host, ".", 3)
	switch rest := words[len(words)-1]; {
	case len(words) == 1:
		return b.service(host + "." + namespace + ".svc." + b.cfg.Domain)
	case len(words) == 2 || rest == "svc" || strings.HasPrefix("svc."+b.cfg.Domain+".", rest+"."):
		return b.service(words[0] + "." + words[1] + ".svc." + b.cfg.Domain)
	}
	return nil
}

// reserved says whether a port is one that the mesh keeps for itself.
func reserved(port int32) bool { return port == 15001 || port == 15006 }
