package check_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/check"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
	"github.com/meshctl/meshctl/internal/testkit/golden"
	"github.com/meshctl/meshctl/rules"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

// laxer are objects of the corpus that check refuses and the API server takes, with the reason.
var laxer = map[string]string{
	"label-characters":   "map values of plain strings cannot be given a pattern in a CRD without a bound on their length",
	"regex-beyond-bytes": "the API server reads characters where proxies read bytes",
	"regex-too-large":    "a CRD has no word for the size of a regular expression's program",
}

// The verdict of the API server, which has only the CRDs to go by, is that of check.
func TestTheAPIServerAgreesWithCheck(t *testing.T) {
	client := dynamicClient(t)
	installCRDs(t, client)
	plurals := map[string]string{
		v1alpha2.KindRouteRule: "routerules", v1alpha2.KindDestinationPolicy: "destinationpolicies", v1alpha2.KindEgressRule: "egressrules",
	}
	judged := map[bool]int{}
	for _, path := range append(golden.Cases(t, "testdata/*/in.yaml"), golden.Cases(t, "testdata/corpus/*.yaml")...) {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, doc := range bytes.Split(data, []byte("\n---\n")) {
			object := map[string]any{}
			if err := yaml.Unmarshal(doc, &object); err != nil {
				t.Fatalf("%s: %v\n%s", path, err, doc)
			}
			u := &unstructured.Unstructured{Object: object}
			plural := plurals[u.GetKind()]
			if plural == "" {
				continue
			}
			t.Run(filepath.Base(filepath.Dir(path))+"/"+u.GetName(), func(t *testing.T) {
				ours := verdict(path, doc)
				if u.GetNamespace() == "" {
					u.SetNamespace("default")
				}
				_, err := client.Resource(v1alpha2.GroupVersion.WithResource(plural)).Namespace("default").Create(
					context.Background(), inDefault(u), metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict, DryRun: []string{metav1.DryRunAll}})
				good := !finding.HasErrors(ours)
				judged[good]++
				if reason, known := laxer[u.GetName()]; known {
					if good || err != nil {
						t.Errorf("it is listed as taken by the API server alone (%s), but check says %v and the API server %v", reason, ours, err)
					}
					return
				}
				if good != (err == nil) {
					t.Errorf("check says %v\nthe API server says %v", ours, err)
				}
			})
		}
	}
	if judged[true] < 20 || judged[false] < 40 {
		t.Errorf("%d good and %d bad objects were compared", judged[true], judged[false])
	}
}

// verdict is what reading and judging one document finds.
func verdict(path string, doc []byte) []finding.Finding {
	objs, fs := manifest.Decode(path, doc, manifest.Options{DefaultNamespace: "default"})
	for _, o := range objs {
		fs = append(fs, check.Object(o)...)
	}
	return fs
}

// inDefault keeps every object in the one namespace that is there.
func inDefault(u *unstructured.Unstructured) *unstructured.Unstructured {
	u = u.DeepCopy()
	u.SetNamespace("default")
	return u
}

func dynamicClient(t *testing.T) dynamic.Interface {
	t.Helper()
	client, err := dynamic.NewForConfig(apiserver.Shared(t).Config(t))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func installCRDs(t *testing.T, client dynamic.Interface) {
	t.Helper()
	crds := client.Resource(schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"})
	entries, err := rules.FS.ReadDir("crds")
	if err != nil || len(entries) == 0 {
		t.Fatalf("%d CRDs, %v", len(entries), err)
	}
	for _, e := range entries {
		data, err := rules.FS.ReadFile("crds/" + e.Name())
		if err != nil {
			t.Fatal(err)
		}
		crd := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(data, &crd.Object); err != nil {
			t.Fatal(err)
		}
		if _, err := crds.Create(context.Background(), crd, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatalf("creating the CRD of %s: %v", e.Name(), err)
		}
		err = wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, time.Minute, true, func(ctx context.Context) (bool, error) {
			got, err := crds.Get(ctx, crd.GetName(), metav1.GetOptions{})
			if err != nil {
				return false, err
			}
			// Before the first one is there, the list is null.
			conditions, _, _ := unstructured.NestedFieldNoCopy(got.Object, "status", "conditions")
			list, _ := conditions.([]any)
			return slices.ContainsFunc(list, func(c any) bool {
				m, _ := c.(map[string]any)
				return m["type"] == "Established" && m["status"] == "True"
			}), nil
		})
		if err != nil {
			t.Fatalf("waiting for the CRD of %s: %v", e.Name(), err)
		}
	}
}

// What kubectl prints of a rule comes from the server.
func TestKubectlSeesARulesColumns(t *testing.T) {
	client := dynamicClient(t)
	installCRDs(t, client)
	ns := apiserver.Shared(t).Namespace(t)
	data, err := rules.FS.ReadFile("bookinfo/route-user-jason-v2.yaml")
	if err != nil {
		t.Fatal(err)
	}
	rule := &unstructured.Unstructured{}
	if err := yaml.Unmarshal(data, &rule.Object); err != nil {
		t.Fatal(err)
	}
	if _, err := client.Resource(v1alpha2.GroupVersion.WithResource("routerules")).Namespace(ns).Create(context.Background(), rule, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	text, err := apiserver.Shared(t).Client(t).Discovery().RESTClient().Get().
		AbsPath("/apis/config.istio.io/v1alpha2/namespaces/"+ns+"/routerules").
		SetHeader("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io").DoRaw(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	var table metav1.Table
	if err := yaml.Unmarshal(text, &table); err != nil {
		t.Fatal(err)
	}
	got := map[string]any{}
	for i, column := range table.ColumnDefinitions {
		if column.Priority == 0 && column.Name != "Age" {
			got[column.Name] = table.Rows[0].Cells[i]
		}
	}
	want := map[string]any{
		"Name":        "reviews-test-v2",
		"Destination": "reviews",
		"Precedence":  float64(2),
		"Match":       `{"request":{"headers":{"cookie":{"regex":"^(.*?;)?(user=jason)(;.*)?$"}}}}`,
		"Route":       `[{"labels":{"version":"v2"},"weight":100}]`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("columns (-want +got):\n%s", diff)
	}
}
