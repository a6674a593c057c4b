package ingest

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// classAnnotation is how an Ingress named its class before spec.ingressClassName.
const classAnnotation = "kubernetes.io/ingress.class"

// anyHost is the host of an Ingress that names none.
const anyHost = "*"

// addIngresses takes over the Ingresses of the mesh's class.
func (b *builder) addIngresses() {
	for _, o := range b.set.Kind(networkingv1.GroupName, "Ingress") {
		in, ok := o.Value.(*networkingv1.Ingress)
		if !ok || !b.serves(in) || !b.judge(o) {
			continue
		}
		if len(in.Spec.TLS) > 0 {
			b.find(o, finding.NotInForce, finding.Info, "spec.tls", "TLS is not terminated by this version; the hosts are served on plain HTTP", "")
		}
		if backend := in.Spec.DefaultBackend; backend != nil {
			b.addPath(o, "spec.defaultBackend", *backend, model.IngressRoute{Host: anyHost, Path: "/", PathKind: model.Prefix, Default: true})
		}
		for i, rule := range in.Spec.Rules {
			host := cmp.Or(strings.ToLower(rule.Host), anyHost)
			if rule.HTTP == nil {
				continue
			}
			for j, p := range rule.HTTP.Paths {
				field := finding.Item(finding.Item("spec.rules", i)+".http.paths", j)
				route, ok := b.path(o, field, p)
				if !ok {
					continue
				}
				route.Host = host
				b.addPath(o, finding.Child(field, "backend"), p.Backend, route)
			}
		}
	}
	slices.SortStableFunc(b.mesh.Ingress, compareIngress)
}

// serves says whether an Ingress is of the mesh's class.
func (b *builder) serves(in *networkingv1.Ingress) bool {
	class, named := in.Annotations[classAnnotation]
	if !named && in.Spec.IngressClassName != nil {
		class, named = *in.Spec.IngressClassName, true
	}
	switch b.cfg.IngressMode {
	case meshconfig.IngressOff:
		return false
	case meshconfig.IngressDefault:
		return !named || class == b.cfg.IngressClass
	default:
		return class == b.cfg.IngressClass
	}
}

// path reads one path. ImplementationSpecific is what a path was in 0.2: everything when empty, X.* the prefix X, a regular expression when it
// has characters of one, else exact.
func (b *builder) path(o *objects.Object, field string, p networkingv1.HTTPIngressPath) (model.IngressRoute, bool) {
	kind := networkingv1.PathTypeImplementationSpecific
	if p.PathType != nil {
		kind = *p.PathType
	}
	switch {
	case p.Path == "":
		return model.IngressRoute{Path: "/", PathKind: model.Prefix}, true
	case kind == networkingv1.PathTypeExact:
		return model.IngressRoute{Path: p.Path, PathKind: model.Exact}, true
	case kind == networkingv1.PathTypePrefix:
		path := "/" + strings.Trim(p.Path, "/")
		return model.IngressRoute{Path: path, PathKind: model.Prefix, PathElements: true}, true
	case regexp.QuoteMeta(p.Path) == p.Path:
		return model.IngressRoute{Path: p.Path, PathKind: model.Exact}, true
	}
	if prefix, ok := strings.CutSuffix(p.Path, ".*"); ok && regexp.QuoteMeta(prefix) == prefix {
		return model.IngressRoute{Path: cmp.Or(prefix, "/"), PathKind: model.Prefix}, true
	}
	if fault, hint := check.Regex(p.Path); fault != "" {
		b.find(o, finding.InvalidRegex, finding.Error, finding.Child(field, "path"), fmt.Sprintf("the path is not a regular expression that proxies take: %s", fault),
			hint+"; set pathType to Exact or Prefix for a literal path")
		return model.IngressRoute{}, false
	}
	return model.IngressRoute{Path: p.Path, PathKind: model.Regex}, true
}

// addPath resolves the backend. One that does not exist (yet) is kept: its requests get 503, not another backend's answer.
func (b *builder) addPath(o *objects.Object, field string, backend networkingv1.IngressBackend, route model.IngressRoute) {
	if strings.ContainsAny(route.Host+route.Path, "\x00\r\n") {
		b.find(o, finding.InvalidValue, finding.Error, field, "line breaks and NUL cannot stand in a host or path", "remove them")
		return
	}
	route.Ref = refOf(o)
	if backend.Service == nil {
		b.find(o, finding.NotInForce, finding.Warning, field, "only services can be backends, so these requests get 503", "name a service")
		b.mesh.Ingress = append(b.mesh.Ingress, &route)
		return
	}
	route.Service = backend.Service.Name + "." + o.Value.GetNamespace() + ".svc." + b.cfg.Domain
	if backend.Service.Port.Number > 0 {
		route.Port = uint32(backend.Service.Port.Number)
	}
	if svc := b.service(route.Service); svc != nil {
		b.judgeBackend(o, field, svc, backend.Service.Port, &route)
	}
	b.mesh.Ingress = append(b.mesh.Ingress, &route)
}

// judgeBackend finds the backend's port and says when it is not one for requests. That there is none at all is found by check.
func (b *builder) judgeBackend(o *objects.Object, field string, svc *model.Service, port networkingv1.ServiceBackendPort, route *model.IngressRoute) {
	for _, p := range svc.Ports {
		if p.Number != route.Port && (port.Number != 0 || port.Name == "" || p.Name != port.Name) {
			continue
		}
		route.Port = p.Number
		if !p.Protocol.IsHTTP() {
			b.find(o, finding.NotInForce, finding.Warning, finding.Child(finding.Child(field, "service"), "port"),
				fmt.Sprintf("port %d of service %s is %s and not HTTP, so these requests get 503", p.Number, short(svc.Hostname), p.Protocol),
				"name the port http-…, http2-… or grpc-…, or set its appProtocol")
		}
		return
	}
}

// compareIngress is the order in which paths are tried; of equal ones the first Ingress by namespace and name wins.
func compareIngress(x, y *model.IngressRoute) int {
	last := func(r *model.IngressRoute) int {
		if r.Default {
			return 1
		}
		return 0
	}
	rank := map[model.MatchKind]int{model.Exact: 0, model.Regex: 1, model.Prefix: 2}
	return cmp.Or(cmp.Compare(last(x), last(y)), cmp.Compare(x.Host, y.Host), cmp.Compare(rank[x.PathKind], rank[y.PathKind]),
		cmp.Compare(len(y.Path), len(x.Path)), cmp.Compare(x.Path, y.Path), cmp.Compare(x.Ref.Namespace, y.Ref.Namespace), cmp.Compare(x.Ref.Name, y.Ref.Name))
}
