package pilot

import (
	"context"
	"fmt"
	"io/fs"
	"testing"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
	"github.com/meshctl/meshctl/rules"
)

// cluster is an API server that nothing but the benchmark writes to: no kubelet, no controllers.
type cluster struct {
	api     *apiserver.Server
	kube    kubernetes.Interface
	dynamic dynamic.Interface
	filled  int
	edits   int
}

func newCluster(b *testing.B) *cluster {
	b.Helper()
	c := &cluster{api: apiserver.Shared(b)}
	config := c.api.Config(b)
	var err error
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	if c.kube, err = kubernetes.NewForConfig(config); err != nil {
		b.Fatal(err)
	}
	names := []string{"istio-system"}
	for i := range load.Namespaces {
		names = append(names, load.Namespace(i))
	}
	for _, name := range names {
		if _, err := c.kube.CoreV1().Namespaces().Create(b.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	files, err := fs.Glob(rules.FS, "crds/*.yaml")
	if err != nil || len(files) == 0 {
		b.Fatalf("finding the resource definitions: %d, %v", len(files), err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(rules.FS, file)
		if err != nil {
			b.Fatal(err)
		}
		u := &unstructured.Unstructured{}
		if err := yaml.Unmarshal(text, u); err != nil {
			b.Fatal(err)
		}
		crds := schema.GroupVersionResource{Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"}
		if _, err := c.dynamic.Resource(crds).Create(b.Context(), u, metav1.CreateOptions{}); err != nil {
			b.Fatal(err)
		}
	}
	content, err := runtime.DefaultUnstructuredConverter.ToUnstructured(load.Rule("first"))
	if err != nil {
		b.Fatal(err)
	}
	// The kind is served a moment after its definition was accepted.
	for {
		_, err := c.dynamic.Resource(v1alpha2.GroupVersion.WithResource("routerules")).Namespace(load.Namespace(0)).
			Create(b.Context(), &unstructured.Unstructured{Object: content}, metav1.CreateOptions{})
		if err == nil {
			return c
		}
		if !apierrors.IsNotFound(err) {
			b.Fatal(err)
		}
	}
}

// fill brings the cluster to the mesh's size: pods first, as a cluster would have it.
func (c *cluster) fill(b *testing.B, m load.Mesh) {
	b.Helper()
	g, ctx := errgroup.WithContext(b.Context())
	g.SetLimit(16)
	for i := c.filled; i < m.Services; i++ {
		g.Go(func() error { return c.service(ctx, m, i) })
	}
	if err := g.Wait(); err != nil {
		b.Fatal(err)
	}
	c.filled = m.Services
}

func (c *cluster) service(ctx context.Context, m load.Mesh, i int) error {
	for _, p := range m.Pods(i) {
		made, err := c.kube.CoreV1().Pods(p.Namespace).Create(ctx, p, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		made.Status = p.Status
		if _, err := c.kube.CoreV1().Pods(p.Namespace).UpdateStatus(ctx, made, metav1.UpdateOptions{}); err != nil {
			return err
		}
	}
	if _, err := c.kube.CoreV1().Services(load.Namespace(i)).Create(ctx, m.Service(i), metav1.CreateOptions{}); err != nil {
		return err
	}
	_, err := c.kube.DiscoveryV1().EndpointSlices(load.Namespace(i)).Create(ctx, m.Slice(i), metav1.CreateOptions{})
	return err
}

// marker is a word, or an address, that no response had before.
func (c *cluster) marker(kind string, i int) string {
	c.edits++
	if kind == "EndpointEdit" {
		return fmt.Sprintf("10.250.%d.%d", 100+c.edits/100, 100+c.edits%100)
	}
	return fmt.Sprintf("edit-%05d-%d", c.edits, i)
}
