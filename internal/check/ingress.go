package check

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// AnyHost is the host of an Ingress's rule that names none.
const AnyHost = "*"

// DefaultIngressClass is the class of the mesh's Ingresses unless it is configured otherwise.
const DefaultIngressClass = "istio"

// ClassAnnotation is how an Ingress named its class before spec.ingressClassName.
const ClassAnnotation = "kubernetes.io/ingress.class"

// allowHTTPAnnotation says whether an Ingress is answered in the clear.
const allowHTTPAnnotation = "kubernetes.io/ingress.allow-http"

// redirectAnnotations ask for requests in the clear to be sent to https. They are those that users of other controllers know.
func redirectAnnotations() []string {
	var out []string
	for _, prefix := range []string{"ingress.kubernetes.io/", "nginx.ingress.kubernetes.io/"} {
		out = append(out, prefix+"ssl-redirect", prefix+"force-ssl-redirect")
	}
	return out
}

// IngressClassOf is the class that an Ingress names, and whether it names one.
func IngressClassOf(in *networkingv1.Ingress) (string, bool) {
	if class, ok := in.Annotations[ClassAnnotation]; ok {
		return class, true
	}
	if in.Spec.IngressClassName != nil {
		return *in.Spec.IngressClassName, true
	}
	return "", false
}

// IngressOrder compares two Ingresses by age, then namespace and name: where two say the same of one host, that of the first is in force. So nobody
// takes a host or path away from who had it.
func IngressOrder(a, b *objects.Object) int {
	x, y := a.Value.GetCreationTimestamp(), b.Value.GetCreationTimestamp()
	return cmp.Or(x.Compare(y.Time), cmp.Compare(a.Value.GetNamespace(), b.Value.GetNamespace()), cmp.Compare(a.Value.GetName(), b.Value.GetName()))
}

// Exposure is a host of an Ingress and how requests for it are answered: in the clear, over TLS, or with a redirect to TLS.
type Exposure struct {
	Host                    string
	Plain, Secure, ToSecure bool
}

// Exposures are the hosts at which the paths of a rule for host are answered. An Ingress with TLS is not answered in the clear unless it asks for
// that; a rule for any host means the hosts of its TLS then. A host that its TLS leaves out is answered in the clear.
func Exposures(in *networkingv1.Ingress, host string) []Exposure {
	host = cmp.Or(strings.ToLower(host), AnyHost)
	allow, asked := boolAnnotation(in, allowHTTPAnnotation)
	secured := IngressTLSHosts(in)
	over := func(host string) Exposure {
		e := Exposure{Host: host, Secure: true, Plain: asked && allow}
		for _, name := range redirectAnnotations() {
			on, _ := boolAnnotation(in, name)
			e.ToSecure = e.ToSecure || on
		}
		if e.ToSecure {
			e.Plain = false
		}
		return e
	}
	if slices.ContainsFunc(secured, func(t TLSHost) bool { return hostWithin(host, t.Host) }) {
		return []Exposure{over(host)}
	}
	var inside []Exposure
	for _, t := range secured {
		if hostWithin(t.Host, host) {
			inside = append(inside, over(t.Host))
		}
	}
	if len(inside) == 0 {
		return []Exposure{{Host: host, Plain: !asked || allow}}
	}
	return inside
}

// hostWithin says whether every request for host is one for pattern: the same, any, or one label under a star.
func hostWithin(host, pattern string) bool {
	if host == pattern || pattern == AnyHost {
		return true
	}
	suffix, wildcard := strings.CutPrefix(pattern, "*.")
	_, parent, found := strings.Cut(host, ".")
	return wildcard && found && parent == suffix
}

// TLSHost is a host that an Ingress serves over TLS.
type TLSHost struct {
	Host string
	// Secret holds the certificate, in the Ingress's namespace.
	Secret string
	// Field is the entry of spec.tls.
	Field string
}

// IngressTLSHosts are the hosts that an Ingress serves over TLS, each once. An entry without hosts is for those of the Ingress's rules that no other
// entry names, and for clients that name no host, or one that nobody serves.
func IngressTLSHosts(in *networkingv1.Ingress) []TLSHost {
	var out []TLSHost
	seen := map[string]bool{}
	add := func(i int, host string) {
		host = strings.ToLower(host)
		if !seen[host] && (host == AnyHost || isIngressHost(host)) {
			seen[host] = true
			out = append(out, TLSHost{Host: host, Secret: in.Spec.TLS[i].SecretName, Field: finding.Item("spec.tls", i)})
		}
	}
	for i, t := range in.Spec.TLS {
		for _, host := range t.Hosts {
			if host != AnyHost {
				add(i, host)
			}
		}
	}
	named := len(out)
	for i, t := range in.Spec.TLS {
		if len(t.Hosts) > 0 {
			continue
		}
		for _, r := range in.Spec.Rules {
			host := strings.ToLower(r.Host)
			if host != "" && !slices.ContainsFunc(out[:named], func(t TLSHost) bool { return hostWithin(host, t.Host) }) {
				add(i, host)
			}
		}
		add(i, AnyHost)
	}
	return out
}

// isIngressHost takes a DNS name, at most with a star for its first label.
func isIngressHost(host string) bool {
	if strings.HasPrefix(host, "*") {
		return len(validation.IsWildcardDNS1123Subdomain(host)) == 0
	}
	return len(validation.IsDNS1123Subdomain(host)) == 0
}

// boolAnnotation is the value of an annotation, and whether it is there and is one.
func boolAnnotation(in *networkingv1.Ingress, name string) (value, ok bool) {
	text, there := in.Annotations[name]
	if !there {
		return false, false
	}
	value, err := strconv.ParseBool(text)
	return value, err == nil
}

// Ingress judges an Ingress of the mesh's class by itself. Object calls it for those of the default class only: what is legal differs from
// controller to controller.
func Ingress(o *objects.Object) []finding.Finding {
	in, ok := o.Value.(*networkingv1.Ingress)
	if !ok {
		return nil
	}
	s := &subject{object: o}
	s.ingressAnnotations(in)
	s.ingressTLS(in)
	if b := in.Spec.DefaultBackend; b != nil {
		s.ingressBackend("spec.defaultBackend", *b)
	}
	for i, r := range in.Spec.Rules {
		at := finding.Item("spec.rules", i)
		if host := strings.ToLower(r.Host); host != "" && len(in.Spec.TLS) > 0 {
			if e := Exposures(in, host); len(e) == 1 && !e[0].Secure {
				s.findings = append(s.findings, o.Find(finding.NotInForce, finding.Info, at+".host",
					"spec.tls does not name the host, so it is served in the clear", "add it to the hosts of an entry of spec.tls"))
			}
		}
		if r.HTTP == nil {
			continue
		}
		for j, p := range r.HTTP.Paths {
			s.ingressBackend(finding.Item(at+".http.paths", j)+".backend", p.Backend)
		}
	}
	return s.findings
}

func (s *subject) ingressBackend(path string, b networkingv1.IngressBackend) {
	if b.Service == nil {
		s.warn(finding.NotInForce, path, "only services can be backends, so these requests get 503", "name a service")
	}
}

func (s *subject) ingressTLS(in *networkingv1.Ingress) {
	first := map[string]string{}
	for i, t := range in.Spec.TLS {
		at := finding.Item("spec.tls", i)
		if t.SecretName == "" {
			s.warn(finding.UnusableSecret, at, "no Secret is named, so connections for these hosts are closed", "set secretName")
		}
		for j, host := range t.Hosts {
			host = strings.ToLower(host)
			field := finding.Item(at+".hosts", j)
			switch {
			case !isIngressHost(host):
				s.warn(finding.InvalidValue, field, fmt.Sprintf("%q is no host name and is left out", host), "a host name is dot-separated words, at most with *. in front; leave hosts out for all")
			case first[host] != "" && first[host] != t.SecretName:
				s.warn(finding.DuplicateClaim, field, fmt.Sprintf("an entry before this one serves the host with Secret %s", first[host]), "keep one of them")
			case first[host] == "":
				first[host] = t.SecretName
			}
		}
	}
}

func (s *subject) ingressAnnotations(in *networkingv1.Ingress) {
	at := func(name string) string { return finding.Child("metadata.annotations", name) }
	known := append(redirectAnnotations(), allowHTTPAnnotation)
	for _, name := range known {
		if _, ok := in.Annotations[name]; !ok {
			continue
		}
		value, ok := boolAnnotation(in, name)
		switch {
		case !ok:
			s.warn(finding.InvalidValue, at(name), fmt.Sprintf("%q is neither true nor false, so the annotation has no effect", in.Annotations[name]), `write "true" or "false"`)
		case name == allowHTTPAnnotation && !value && len(in.Spec.TLS) == 0:
			s.warn(finding.NotInForce, at(name), "without spec.tls and without HTTP the Ingress is served nowhere", "add spec.tls, or remove the annotation")
		case name != allowHTTPAnnotation && value && len(in.Spec.TLS) == 0:
			s.warn(finding.NotInForce, at(name), "there is no https to redirect to", "add spec.tls")
		}
	}
	for _, name := range sortedKeys(in.Annotations) {
		prefix, _, _ := strings.Cut(name, "/")
		if (prefix == "ingress.kubernetes.io" || strings.HasSuffix(prefix, ".ingress.kubernetes.io")) && !slices.Contains(known, name) {
			s.warn(finding.NotInForce, at(name), "the annotation has no effect here", "a RouteRule for the backend's service rewrites, redirects, retries and injects faults at the ingress, too")
		}
	}
}

// certificates judges the Secrets that an Ingress names. Those that are read from files are asked for only if there are any.
func (j *judge) certificates(s *subject, in *networkingv1.Ingress) {
	class, _ := IngressClassOf(in)
	if s.object.Origin.File != "" && (!j.anySecret(s) || class != DefaultIngressClass) {
		return
	}
	for i, t := range in.Spec.TLS {
		if t.SecretName == "" {
			continue
		}
		field := finding.Item("spec.tls", i)
		secret := j.secret(s, t.SecretName, in.Namespace)
		if secret == nil {
			s.warn(finding.UnusableSecret, field+".secretName",
				fmt.Sprintf("there is no Secret %s of type %s in namespace %s, so connections for its hosts are closed", t.SecretName, corev1.SecretTypeTLS, in.Namespace),
				"make it with kubectl create secret tls")
			continue
		}
		pair, fault := ReadKeyPair(secret)
		if fault != nil {
			what := "Secret " + t.SecretName
			if fault.Key != "" {
				what = fault.Key + " of " + what
			}
			s.warn(finding.UnusableSecret, field+".secretName", fmt.Sprintf("%s cannot be used, so connections for its hosts are closed: %s", what, fault.Message), fault.Hint)
			continue
		}
		for _, host := range IngressTLSHosts(in) {
			if host.Field == field && host.Host != AnyHost && !pair.Covers(host.Host) {
				s.warn(finding.DoubtfulCertificate, field, fmt.Sprintf("the certificate in Secret %s is not for %s, so clients will refuse it", t.SecretName, host.Host), "request one whose subject alternative names have the host")
			}
		}
	}
}
