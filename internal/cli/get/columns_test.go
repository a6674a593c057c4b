package get

import (
	"slices"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

func TestRouteRuleCells(t *testing.T) {
	for name, tc := range map[string]struct {
		spec string
		want []string
	}{
		"a rule that says nothing takes everything everywhere": {
			`{destination: {name: reviews}}`,
			[]string{"reviews", "0", "*", "*"},
		},
		"a lone version without weight has all": {
			`{destination: {name: reviews}, route: [{labels: {version: v1}}]}`,
			[]string{"reviews", "0", "*", "v1=100"},
		},
		"a weight of nothing among others stays nothing": {
			`{destination: {name: reviews}, route: [{labels: {version: v1}, weight: 100}, {labels: {version: v2}}]}`,
			[]string{"reviews", "0", "*", "v1=100,v2=0"},
		},
		"other labels and other destinations are spelled out": {
			`{destination: {name: reviews, namespace: shop}, precedence: 7, route: [{destination: {service: a.b.c}, labels: {app: x, version: v1}, weight: 100}]}`,
			[]string{"reviews.shop", "7", "*", "a.b.c/app:x&version:v1=100"},
		},
		"all conditions are shown, sorted": {
			`{destination: {name: r}, match: {source: {name: p, labels: {version: v2}}, tcp: {sourceSubnet: [10.0.0.0/8]}, request: {headers: {uri: {prefix: /api}, user: {exact: a b}}}}}`,
			[]string{"r", "0", `source:p/v2,tcp.from:10.0.0.0/8,uri=/api*,user=a\x20b`, "*"},
		},
		"what is done on the way is added": {
			`{destination: {name: r}, httpReqTimeout: {simpleTimeout: {timeout: 5s}}, httpReqRetries: {simpleRetry: {attempts: 3}}, httpFault: {abort: {percent: 12.5, httpStatus: 503}}}`,
			[]string{"r", "0", "*", "*+abort:503@12.5%+timeout:5s+retries:3"},
		},
		"a redirect is no route": {
			`{destination: {name: r}, redirect: {authority: other.example, uri: /x}}`,
			[]string{"r", "0", "*", "redirect:other.example/x"},
		},
		"an object of another shape is shown as unreadable": {
			`{destination: [1]}`,
			[]string{"?", "?", "?", "?"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			u := &unstructured.Unstructured{}
			if err := yaml.Unmarshal([]byte("metadata: {name: r, namespace: default}\nspec: "+tc.spec), &u.Object); err != nil {
				t.Fatal(err)
			}
			if got := routeRule(u, false); !slices.Equal(got, tc.want) {
				t.Errorf("got  %q\nwant %q", got, tc.want)
			}
		})
	}
}
