package get

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/jsonpath"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/cli/factory"
)

// sort orders objects as --sort-by asks. Without it RouteRules come in the order they are tried, everything else as the server gave it.
func (o *options) sort(found []*unstructured.Unstructured) error {
	switch o.sortBy {
	case "":
		rank := map[string]int{}
		for _, u := range found {
			if _, known := rank[group(u)]; !known {
				rank[group(u)] = len(rank)
			}
		}
		slices.SortStableFunc(found, func(a, b *unstructured.Unstructured) int {
			return cmp.Or(cmp.Compare(rank[group(a)], rank[group(b)]), byTrial(a, b))
		})
	case "name":
		slices.SortStableFunc(found, func(a, b *unstructured.Unstructured) int { return cmp.Compare(a.GetName(), b.GetName()) })
	case "age":
		slices.SortStableFunc(found, func(a, b *unstructured.Unstructured) int {
			return a.GetCreationTimestamp().Compare(b.GetCreationTimestamp().Time)
		})
	case "precedence":
		slices.SortStableFunc(found, func(a, b *unstructured.Unstructured) int {
			return cmp.Or(cmp.Compare(precedence(b), precedence(a)), byTrial(a, b))
		})
	default:
		path, err := parsePath(o.sortBy)
		if err != nil {
			return factory.Usage("--sort-by %s: %w", o.sortBy, err)
		}
		slices.SortStableFunc(found, func(a, b *unstructured.Unstructured) int { return compareValues(value(path, a), value(path, b)) })
	}
	return nil
}

// byTrial is the order in which a proxy tries RouteRules; objects of other kinds stay as they are.
func byTrial(a, b *unstructured.Unstructured) int {
	if group(a) != group(b) || a.GetKind() != v1alpha2.KindRouteRule || !isMesh(a) {
		return 0
	}
	return cmp.Or(
		cmp.Compare(a.GetNamespace(), b.GetNamespace()),
		cmp.Compare(destination(a), destination(b)),
		cmp.Compare(precedence(b), precedence(a)),
		cmp.Compare(a.GetName(), b.GetName()),
	)
}

func precedence(u *unstructured.Unstructured) int64 {
	n, _, _ := unstructured.NestedInt64(u.Object, "spec", "precedence")
	return n
}

func destination(u *unstructured.Unstructured) string {
	m, _, _ := unstructured.NestedStringMap(u.Object, "spec", "destination")
	return m["name"] + m["service"] + "." + m["namespace"]
}

// parsePath reads .spec.x, spec.x or {.spec.x}.
func parsePath(text string) (*jsonpath.JSONPath, error) {
	text = strings.TrimSuffix(strings.TrimPrefix(text, "{"), "}")
	if !strings.HasPrefix(text, ".") && !strings.HasPrefix(text, "[") {
		text = "." + text
	}
	path := jsonpath.New("path").AllowMissingKeys(true)
	return path, path.Parse("{" + text + "}")
}

// value is what path finds in u, as text; several finds are joined by commas.
func value(path *jsonpath.JSONPath, u *unstructured.Unstructured) string {
	results, err := path.FindResults(u.Object)
	if err != nil {
		return ""
	}
	var out []string
	for _, set := range results {
		for _, v := range set {
			if v.CanInterface() {
				out = append(out, fmt.Sprint(v.Interface()))
			}
		}
	}
	return strings.Join(out, ",")
}

// compareValues orders numbers as numbers and everything else as text.
func compareValues(a, b string) int {
	x, errA := strconv.ParseFloat(a, 64)
	y, errB := strconv.ParseFloat(b, 64)
	if errA == nil && errB == nil {
		return cmp.Compare(x, y)
	}
	return cmp.Compare(a, b)
}
