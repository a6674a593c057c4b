package status

import (
	"fmt"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/model"
	"github.com/meshctl/meshctl/internal/objects"
)

// index is a view by object, made once for all of them.
type index struct {
	*View
	// besides are the findings that the report lacks.
	besides map[finding.Object][]finding.Finding
	// rejected are the proxies' words about an object, shared what it suffers from words about others.
	rejected map[model.Ref][]string
	shared   map[model.Ref]string
}

func (v *View) index() *index {
	x := &index{View: v, besides: map[finding.Object][]finding.Finding{}, rejected: map[model.Ref][]string{}, shared: map[model.Ref]string{}}
	for _, f := range v.Findings {
		x.besides[f.Object] = append(x.besides[f.Object], f)
	}
	// Many proxies say the same of the same resource.
	type saying struct {
		kind, resource, text string
		first                *model.Ref
		n                    int
	}
	heard := map[saying]bool{}
	for _, r := range v.Rejections {
		if len(r.Refs) == 0 {
			continue
		}
		s := saying{r.Type, r.Resource, r.Text, &r.Refs[0], len(r.Refs)}
		if !heard[s] {
			heard[s] = true
			x.blame(r)
		}
	}
	return x
}

// blame finds out which of the objects that a refused resource was made from are meant. A resource such as a route configuration is made from
// the rules of many services, and its refusal says little about each.
func (x *index) blame(r Rejection) {
	var makers []model.Ref
	for _, ref := range r.Refs {
		if groupOf(ref.Kind) != "" {
			makers = append(makers, ref)
		}
	}
	meant := makers
	if len(makers) > 1 {
		meant = x.named(makers, r.Text)
		if len(meant) == len(makers) {
			meant = nil
		}
	}
	for _, ref := range meant {
		words := "proxy " + r.Proxy + ": " + r.Text
		if !slices.ContainsFunc(x.rejected[ref], func(said string) bool { return strings.HasSuffix(said, ": "+r.Text) }) {
			x.rejected[ref] = append(x.rejected[ref], words)
		}
	}
	if len(meant) == len(makers) {
		return
	}
	suspicion := "its words single out none of them"
	if len(meant) > 0 {
		suspicion = "its words point at " + meant[0].Kind + " " + meant[0].Namespace + "/" + meant[0].Name
		if len(meant) > 1 {
			suspicion += fmt.Sprintf(" and %d more", len(meant)-1)
		}
	}
	message := fmt.Sprintf("proxy %s refused the %s %q, which is made from this and %d other objects; %s: %s",
		r.Proxy, typeName(r.Type), r.Resource, len(makers)-1, suspicion, r.Text)
	for _, ref := range makers {
		if x.shared[ref] == "" && !slices.Contains(meant, ref) {
			x.shared[ref] = message
		}
	}
}

// named are those of refs whose objects' own words occur in text. What several of them say, such as the name of a service, tells less than what
// one alone does.
func (x *index) named(refs []model.Ref, text string) []model.Ref {
	if x.Set == nil {
		return nil
	}
	saidBy := map[string][]model.Ref{}
	for _, ref := range refs {
		o := x.Set.Get(objects.Key{Group: groupOf(ref.Kind), Kind: ref.Kind, Namespace: ref.Namespace, Name: ref.Name})
		if o == nil {
			continue
		}
		u, err := o.Unstructured()
		if err != nil {
			continue
		}
		words := map[string]bool{}
		quoted(u.Object["spec"], text, words)
		for word := range words {
			saidBy[word] = append(saidBy[word], ref)
		}
	}
	fewest := len(refs)
	for _, by := range saidBy {
		fewest = min(fewest, len(by))
	}
	meant := map[model.Ref]bool{}
	for _, by := range saidBy {
		for _, ref := range by {
			meant[ref] = meant[ref] || len(by) == fewest
		}
	}
	var out []model.Ref
	for _, ref := range refs {
		if meant[ref] {
			out = append(out, ref)
		}
	}
	return out
}

// minWord is the shortest value of an object that says something where it occurs.
const minWord = 4

// quoted adds the strings in value that occur in text to words.
func quoted(value any, text string, words map[string]bool) {
	switch v := value.(type) {
	case string:
		if len(v) >= minWord && strings.Contains(text, v) {
			words[v] = true
		}
	case map[string]any:
		for _, each := range v {
			quoted(each, text, words)
		}
	case []any:
		for _, each := range v {
			quoted(each, text, words)
		}
	}
}

// groupOf is the API group of the kinds a user configures the mesh with; empty for others.
func groupOf(kind string) string {
	switch kind {
	case v1alpha2.KindRouteRule, v1alpha2.KindDestinationPolicy, v1alpha2.KindEgressRule:
		return v1alpha2.GroupVersion.Group
	case "Ingress":
		return networkingv1.GroupName
	}
	return ""
}

// typeName is what people call a resource type.
func typeName(short string) string {
	switch short {
	case "cds":
		return "cluster"
	case "eds":
		return "endpoint set"
	case "lds":
		return "listener"
	case "rds":
		return "route configuration"
	case "vhds":
		return "virtual host"
	case "sds":
		return "secret"
	}
	return "configuration"
}
