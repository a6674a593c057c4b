package kube

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/cli-runtime/pkg/genericclioptions"
)

func TestExplain(t *testing.T) {
	for name, tc := range map[string]struct {
		serve   func() *httptest.Server
		timeout string
		want    string
	}{
		"a server that does not answer in time": {
			func() *httptest.Server {
				return httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
			},
			"300ms", "no answer in time (--request-timeout)",
		},
		"a server whose certificate nobody vouches for": {
			func() *httptest.Server { return httptest.NewTLSServer(http.NotFoundHandler()) },
			"20s", "its certificate is not the one the kubeconfig trusts",
		},
		"a server that wants other credentials": {
			func() *httptest.Server {
				return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }))
			},
			"20s", "does not accept the credentials",
		},
		"a server that has gone": {
			func() *httptest.Server {
				s := httptest.NewServer(http.NotFoundHandler())
				s.Close()
				return s
			},
			"20s", "connection refused; check that it runs",
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := tc.serve()
			defer server.Close()
			flags := genericclioptions.NewConfigFlags(true)
			*flags.APIServer, *flags.Timeout, *flags.CacheDir = server.URL, tc.timeout, t.TempDir()
			client, err := Connect(flags)
			if err != nil {
				t.Fatal(err)
			}
			_, err = client.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"}).List(t.Context(), metav1.ListOptions{})
			got := client.Explain(err)
			if got == nil || !strings.Contains(got.Error(), tc.want) || !strings.Contains(got.Error(), server.URL) || strings.Contains(got.Error(), "\n") {
				t.Errorf("got %v, want one line with %q and the address", got, tc.want)
			}
		})
	}
}
