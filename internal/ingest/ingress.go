package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// classController is what an IngressClass of the mesh names as its controller.
const classController = "istio.io/ingress-controller"

// ingress is the work on one Ingress, and what comes of it.
type ingress struct {
	*builder
	object *objects.Object
	in     *networkingv1.Ingress
	paths  []*ingressPath
	tls    []*ingressTLS
}

// ingressPath is a route with the field it is from.
type ingressPath struct {
	*model.IngressRoute
	object *objects.Object
	field  string
}

// ingressTLS is a host with the Secret and the field it is from.
type ingressTLS struct {
	*model.IngressTLS
	object *objects.Object
	secret string
	field  string
}

// ingress is what one Ingress of the mesh's class means, by itself; nil for one of another class.
func (b *builder) ingress(o *objects.Object, in *networkingv1.Ingress) *ingress {
	if !b.serves(in) || !b.judge(o) {
		return nil
	}
	if class, _ := check.IngressClassOf(in); class != check.DefaultIngressClass {
		b.findings = append(b.findings, check.Ingress(o)...)
	}
	t := &ingress{builder: b, object: o, in: in}
	for _, host := range check.IngressTLSHosts(in) {
		t.tls = append(t.tls, &ingressTLS{
			IngressTLS: &model.IngressTLS{Ref: refOf(o), Host: host.Host, Certificate: b.certificate(in.Namespace, host.Secret)}, object: o, secret: host.Secret, field: host.Field,
		})
	}
	// hosts are those for which the Ingress says something, with how.
	hosts := map[string]check.Exposure{}
	for _, e := range check.Exposures(in, check.AnyHost) {
		hosts[e.Host] = e
	}
	for i, rule := range in.Spec.Rules {
		exposures := check.Exposures(in, rule.Host)
		for _, e := range exposures {
			hosts[e.Host] = e
		}
		if rule.HTTP == nil {
			continue
		}
		for j, p := range rule.HTTP.Paths {
			field := finding.Item(finding.Item("spec.rules", i)+".http.paths", j)
			if route, ok := t.path(field, p); ok {
				t.add(field, exposures, p.Backend, route)
			}
		}
	}
	if backend := in.Spec.DefaultBackend; backend != nil {
		t.addDefault(*backend, hosts)
	}
	t.builder = nil
	return t
}

// addDefault makes the default backend that of every host the Ingress speaks of, and of those nobody does.
func (t *ingress) addDefault(backend networkingv1.IngressBackend, hosts map[string]check.Exposure) {
	if _, ok := hosts[check.AnyHost]; !ok {
		any := check.Exposure{Host: check.AnyHost}
		for _, e := range hosts {
			any.Plain, any.Secure, any.ToSecure = any.Plain || e.Plain, any.Secure || e.Secure, any.ToSecure || e.ToSecure
		}
		hosts[check.AnyHost] = any
	}
	t.add("spec.defaultBackend", slices.Collect(maps.Values(hosts)), backend, model.IngressRoute{Path: "/", PathKind: model.Prefix, Default: true})
}

// updateIngresses puts together what the Ingresses say, the elder one's word first. It looks at all of them when one has changed.
func (k *Keeper) updateIngresses(mesh *model.Mesh) {
	changes := k.ingresses.update()
	if len(changes) == 0 {
		return
	}
	for _, c := range changes {
		if c.was != nil {
			delete(k.served, c.was.object.Key())
		}
		if c.is != nil {
			k.served[c.is.object.Key()] = c.is
		}
	}
	all := slices.SortedFunc(maps.Values(k.served), func(x, y *ingress) int { return check.IngressOrder(x.object, y.object) })
	j := &joint{findings: map[objects.Key][]finding.Finding{}}
	routes, tls := j.join(all)
	mesh.Ingress = adopt(k.mesh.Ingress, routes, compareIngress)
	mesh.IngressTLS = adopt(k.mesh.IngressTLS, tls, func(x, y *model.IngressTLS) int { return cmp.Compare(x.Host, y.Host) })
	for _, conflicts := range []map[objects.Key][]finding.Finding{k.conflicts, j.findings} {
		for key := range conflicts {
			k.touched[key] = true
		}
	}
	k.conflicts = j.findings
}

// adopt is list with members of was, which is in the same order, in the place of their equals; and was itself when nothing differs.
func adopt[T any](was, list []*T, order func(a, b *T) int) []*T {
	i := 0
	taken := make([]bool, len(was)) // of several that are equal each stands for one
	for j, item := range list {
		for i < len(was) && order(was[i], item) < 0 {
			i++
		}
		for m := i; m < len(was) && order(was[m], item) == 0; m++ {
			if !taken[m] && reflect.DeepEqual(was[m], item) {
				list[j], taken[m] = was[m], true
				break
			}
		}
	}
	if slices.Equal(was, list) {
		return was
	}
	return list
}

// joint is what comes of putting Ingresses together.
type joint struct {
	findings map[objects.Key][]finding.Finding
}

func (j *joint) find(o *objects.Object, code finding.Code, severity finding.Severity, field, message, hint string) {
	j.findings[o.Key()] = append(j.findings[o.Key()], o.Find(code, severity, field, message, hint))
}

func (j *joint) join(all []*ingress) (routes []*model.IngressRoute, tls []*model.IngressTLS) {
	var paths []*ingressPath
	secured := map[string]*ingressTLS{}
	for _, one := range all {
		paths = append(paths, one.paths...)
		for _, t := range one.tls {
			first := secured[t.Host]
			switch {
			case first == nil:
				secured[t.Host] = t
			case first.object.Value.GetNamespace() != t.object.Value.GetNamespace() || first.secret != t.secret:
				j.judgeTLS(t, first)
			}
		}
	}
	slices.SortStableFunc(paths, func(x, y *ingressPath) int { return compareIngress(x.IngressRoute, y.IngressRoute) })
	for i, p := range paths {
		routes = append(routes, p.IngressRoute)
		if i > 0 && samePath(paths[i-1].IngressRoute, p.IngressRoute) && !p.Default {
			j.judgePath(p, paths[i-1])
		}
	}
	for _, host := range slices.Sorted(maps.Keys(secured)) {
		tls = append(tls, secured[host].IngressTLS)
	}
	return routes, tls
}

// judgeTLS tells of a host that another Ingress serves with another Secret.
func (j *joint) judgeTLS(t, first *ingressTLS) {
	if t.Host == check.AnyHost {
		j.find(t.object, finding.DuplicateClaim, finding.Info, t.field,
			fmt.Sprintf("clients that name no host that is served get the Secret of %s, which is older", first.object.Ref()), "")
		return
	}
	j.find(t.object, finding.DuplicateClaim, finding.Warning, t.field,
		fmt.Sprintf("%s is older and serves host %s with Secret %s, which is in force", first.object.Ref(), t.Host, first.secret), "name one Secret for the host")
}

// judgePath tells of a path that another entry has.
func (j *joint) judgePath(p, first *ingressPath) {
	whose := "an entry before this one"
	if p.object != first.object {
		whose = fmt.Sprintf("%s, which is older,", first.object.Ref())
	}
	j.find(p.object, finding.DuplicateClaim, finding.Warning, p.field, fmt.Sprintf("%s has the same path of host %s and is in force", whose, p.Host), "keep one of them")
}

// secret is the Secret of the name, nil when there is none.
func (b *builder) secret(namespace, name string) *corev1.Secret {
	if o := b.object("", "Secret", namespace, name); o != nil {
		secret, _ := o.Value.(*corev1.Secret)
		return secret
	}
	return nil
}

// certificate is that of a Secret; nil when there is none to use, of which check tells.
func (b *builder) certificate(namespace, name string) *model.Certificate {
	secret := b.secret(namespace, name)
	if secret == nil {
		return nil
	}
	pair, unusable := check.ReadKeyPair(secret)
	if unusable != nil {
		return nil
	}
	return &model.Certificate{Ref: model.Ref{Kind: "Secret", Namespace: namespace, Name: name}, Chain: pair.Chain, Key: pair.Key, NotBefore: pair.Leaf.NotBefore, NotAfter: pair.Leaf.NotAfter}
}

// serves says whether an Ingress is of the mesh's class. A class that there is an IngressClass for is the mesh's if that says so.
func (b *builder) serves(in *networkingv1.Ingress) bool {
	if b.cfg.IngressMode == meshconfig.IngressOff {
		return false
	}
	class, named := check.IngressClassOf(in)
	_, annotated := in.Annotations[check.ClassAnnotation]
	switch {
	case !named:
		return b.cfg.IngressMode == meshconfig.IngressDefault || b.defaultClass()
	case annotated:
		return class == b.cfg.IngressClass
	}
	if o := b.ingressClass(class); o != nil {
		return o.Spec.Controller == classController
	}
	return class == b.cfg.IngressClass
}

// ingressClass is the IngressClass of the name, nil when there is none.
func (b *builder) ingressClass(name string) *networkingv1.IngressClass {
	if o := b.object(networkingv1.GroupName, "IngressClass", "", name); o != nil {
		class, _ := o.Value.(*networkingv1.IngressClass)
		return class
	}
	return nil
}

// defaultClass says whether Ingresses that name no class are the mesh's: an IngressClass of its controller is marked so. The API server gives them
// that class when they are created; those that were there before have none.
func (b *builder) defaultClass() bool {
	return slices.ContainsFunc(b.kind(networkingv1.GroupName, "IngressClass"), func(o *objects.Object) bool {
		class, ok := o.Value.(*networkingv1.IngressClass)
		return ok && class.Spec.Controller == classController && class.Annotations[networkingv1.AnnotationIsDefaultIngressClass] == "true"
	})
}

// path reads one path. ImplementationSpecific is what a path was in 0.2: everything when empty, X.* the prefix X, a regular expression when it
// has characters of one, else exact.
func (t *ingress) path(field string, p networkingv1.HTTPIngressPath) (model.IngressRoute, bool) {
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
		t.find(t.object, finding.InvalidRegex, finding.Error, finding.Child(field, "path"), fmt.Sprintf("the path is not a regular expression that proxies take: %s", fault),
			hint+"; set pathType to Exact or Prefix for a literal path")
		return model.IngressRoute{}, false
	}
	return model.IngressRoute{Path: p.Path, PathKind: model.Regex}, true
}

// add resolves the backend. One that does not exist (yet) is kept: its requests get 503, not another backend's answer.
func (t *ingress) add(field string, hosts []check.Exposure, backend networkingv1.IngressBackend, route model.IngressRoute) {
	route.Ref, route.Created = refOf(t.object), t.in.CreationTimestamp.Time
	if backend.Service != nil {
		route.Service = backend.Service.Name + "." + t.in.Namespace + ".svc." + t.cfg.Domain
		if backend.Service.Port.Number > 0 {
			route.Port = uint32(backend.Service.Port.Number)
		}
		if svc := t.service(route.Service); svc != nil {
			at := field
			if !route.Default {
				at = finding.Child(field, "backend")
			}
			t.judgeBackend(at, svc, backend.Service.Port, &route)
		}
	}
	for _, e := range hosts {
		if strings.ContainsAny(e.Host+route.Path, "\x00\r\n") {
			t.find(t.object, finding.InvalidValue, finding.Error, field, "line breaks and NUL cannot stand in a host or path", "remove them")
			return
		}
		if !e.Plain && !e.Secure {
			continue
		}
		one := route
		one.Host, one.Plain, one.Secure, one.ToSecure = e.Host, e.Plain, e.Secure, e.ToSecure
		t.paths = append(t.paths, &ingressPath{IngressRoute: &one, object: t.object, field: field})
	}
}

// judgeBackend finds the backend's port and says when it is not one for requests. That there is none at all is found by check.
func (t *ingress) judgeBackend(field string, svc *model.Service, port networkingv1.ServiceBackendPort, route *model.IngressRoute) {
	for _, p := range svc.Ports {
		if p.Number != route.Port && (port.Number != 0 || port.Name == "" || p.Name != port.Name) {
			continue
		}
		route.Port = p.Number
		if !p.Protocol.IsHTTP() {
			t.find(t.object, finding.NotInForce, finding.Warning, finding.Child(finding.Child(field, "service"), "port"),
				fmt.Sprintf("port %d of service %s is %s and not HTTP, so these requests get 503", p.Number, short(svc.Hostname), p.Protocol),
				"name the port http-…, http2-… or grpc-…, or set its appProtocol")
		}
		return
	}
}

// compareIngress is the order in which paths are tried. Of equal ones the elder Ingress's is first.
func compareIngress(x, y *model.IngressRoute) int {
	last := func(r *model.IngressRoute) int {
		if r.Default {
			return 1
		}
		return 0
	}
	rank := map[model.MatchKind]int{model.Exact: 0, model.Regex: 1, model.Prefix: 2}
	return cmp.Or(cmp.Compare(last(x), last(y)), cmp.Compare(x.Host, y.Host), cmp.Compare(rank[x.PathKind], rank[y.PathKind]),
		cmp.Compare(len(y.Path), len(x.Path)), cmp.Compare(x.Path, y.Path),
		x.Created.Compare(y.Created), cmp.Compare(x.Ref.Namespace, y.Ref.Namespace), cmp.Compare(x.Ref.Name, y.Ref.Name))
}

// samePath says whether y takes no request that x, which is tried before it, does not.
func samePath(x, y *model.IngressRoute) bool {
	return x.Default == y.Default && x.Host == y.Host && x.PathKind == y.PathKind && x.Path == y.Path && (x.PathElements == y.PathElements || y.PathElements) &&
		(x.Plain || x.ToSecure || !y.Plain && !y.ToSecure) && (x.Secure || !y.Secure)
}
