package factory

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"k8s.io/cli-runtime/pkg/genericiooptions"
)

func TestCompletionIsSilentWhenTheClusterIsSlow(t *testing.T) {
	held := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-held:
		case <-r.Context().Done():
		}
	}))
	defer server.Close()
	defer close(held)
	streams, _, out, stderr := genericiooptions.NewTestIOStreams()
	f := New(streams, func(string) string { return "" })
	*f.Config.APIServer = server.URL
	*f.Config.CacheDir = t.TempDir()
	start := time.Now()
	got, _ := f.CompleteNamespaces(nil, nil, "")
	if took := time.Since(start); took > 15*patience {
		t.Errorf("it took %s", took)
	}
	if len(got) > 0 || out.Len() > 0 || stderr.Len() > 0 {
		t.Errorf("it said %v %q %q", got, out, stderr)
	}
}
