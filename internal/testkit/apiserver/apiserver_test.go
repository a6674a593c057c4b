package apiserver_test

import (
	"context"
	"os"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

func TestNamespacesKeepTestsApart(t *testing.T) {
	server := apiserver.Shared(t)
	one, two := server.Namespace(t), server.Namespace(t)
	client := server.Client(t)
	ctx := context.Background()
	object := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "x"}}
	if _, err := client.CoreV1().ConfigMaps(one).Create(ctx, object, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	list, err := client.CoreV1().ConfigMaps(two).List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Items) != 0 {
		t.Errorf("namespace %s sees %d config maps of %s", two, len(list.Items), one)
	}
}

func TestKubeconfigForNamesItsNamespaceAndWorks(t *testing.T) {
	server := apiserver.Shared(t)
	ns := server.Namespace(t)
	config := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
		&clientcmd.ClientConfigLoadingRules{ExplicitPath: server.KubeconfigFor(t, ns)}, nil)
	if got, _, err := config.Namespace(); err != nil || got != ns {
		t.Fatalf("the kubeconfig's namespace is %q (%v), want %q", got, err, ns)
	}
	rest, err := config.ClientConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(rest)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Namespaces().Get(context.Background(), ns, metav1.GetOptions{}); err != nil {
		t.Error(err)
	}
}
