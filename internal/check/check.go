// Package check judges objects: it is the only place where object rules live.
//
// In: one object (Object), or a set of objects and the ones to speak about (Set). Out: findings. The command line, admission and the control
// plane call the same two functions, so they give the same verdict. Everything is pure. What 0.2 refused although its documents show it is
// accepted; what it accepted but can have no effect here is accepted with a warning; what it always refused is refused with the reason.
package check

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/objects"
)

// MeshNamespace is the control plane's namespace, whose rules act on the whole mesh.
const MeshNamespace = "istio-system"

// Object judges o by itself. Objects of other kinds than the mesh's own are left to the API server.
func Object(o *objects.Object) []finding.Finding {
	s := &subject{object: o}
	switch v := o.Value.(type) {
	case *v1alpha2.RouteRule:
		s.identity()
		s.routeRule(&v.Spec)
	case *v1alpha2.DestinationPolicy:
		s.identity()
		s.destinationPolicy(&v.Spec)
	case *v1alpha2.EgressRule:
		s.identity()
		s.egressRule(&v.Spec)
	case *networkingv1.Ingress:
		if class, _ := IngressClassOf(v); class == DefaultIngressClass {
			s.findings = Ingress(o)
		}
	}
	return slices.DeleteFunc(s.findings, func(f finding.Finding) bool { return follows(f, o.Unread) })
}

// follows says whether f is there only because fields could not be read, about which there is a finding already: it speaks of such a field, or
// misses something in what holds one.
func follows(f finding.Finding, unread []string) bool {
	inside := func(path, of string) bool {
		rest, ok := strings.CutPrefix(path, of)
		return ok && (rest == "" || rest[0] == '.' || rest[0] == '[')
	}
	misses := f.Code == finding.Required || f.Code == finding.WeightSum
	return slices.ContainsFunc(unread, func(path string) bool { return inside(f.Field, path) || misses && inside(path, f.Field) })
}

// subject is the object being judged and what was found so far.
type subject struct {
	object   *objects.Object
	findings []finding.Finding
	// read is told what is looked at of other objects.
	read func(input)
}

func (s *subject) error(code finding.Code, field, message, hint string) {
	s.findings = append(s.findings, s.object.Find(code, finding.Error, field, message, hint))
}

func (s *subject) warn(code finding.Code, field, message, hint string) {
	s.findings = append(s.findings, s.object.Find(code, finding.Warning, field, message, hint))
}

// ignored is said about a field that 0.2 accepted and that has no effect.
func (s *subject) ignored(field, why string) {
	s.warn(finding.NotInForce, field, "the field has no effect: "+why, "remove it")
}

func (s *subject) identity() {
	name, namespace := s.object.Value.GetName(), s.object.Value.GetNamespace()
	if name == "" {
		s.error(finding.MissingIdentity, "metadata.name", "the object has no name", "add metadata.name")
	} else if len(validation.IsDNS1123Subdomain(name)) > 0 {
		s.error(finding.InvalidValue, "metadata.name", fmt.Sprintf("%q is no object name", name), "use lower-case letters, digits, dashes and dots")
	}
	if namespace != "" && !isLabel(namespace) {
		s.error(finding.InvalidValue, "metadata.namespace", fmt.Sprintf("%q is no namespace", namespace), "use lower-case letters, digits and dashes")
	}
}
