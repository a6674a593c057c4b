package write_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"k8s.io/cli-runtime/pkg/genericiooptions"
	"k8s.io/client-go/rest"

	"github.com/meshctl/meshctl/internal/cli"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

// cutting passes requests on to the API server until the n-th write, whose connection it cuts without an answer.
func cutting(t *testing.T, server *apiserver.Server, n int32) string {
	t.Helper()
	target, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport, err := rest.TransportFor(server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(target)
	proxy.Transport = transport
	var writes atomic.Int32
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && r.URL.Query().Get("dryRun") == "" && writes.Add(1) >= n {
			panic(http.ErrAbortHandler)
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

func TestALostConnectionTellsWhatWasWritten(t *testing.T) {
	server := apiserver.Shared(t)
	ns := server.Namespace(t)
	dir := t.TempDir()
	file := filepath.Join(dir, "maps.yaml")
	var content strings.Builder
	for _, name := range []string{"one", "two", "three"} {
		content.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")
	}
	if err := os.WriteFile(file, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var out, stderr bytes.Buffer
	f := factory.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &out, ErrOut: &stderr}, func(string) string { return "" })
	code := cli.Main(t.Context(), []string{"create", "-n", ns, "-f", file, "--server", cutting(t, server, 2), "--cache-dir", dir}, f)
	if code != factory.ExitError {
		t.Errorf("exit code %d, want %d", code, factory.ExitError)
	}
	if got, want := out.String(), "configmap/one created\n"; got != want {
		t.Errorf("stdout %q, want %q", got, want)
	}
	for _, want := range []string{
		"create ConfigMap " + ns + "/two: reaching the Kubernetes API server at ",
		"error: 1 of 3 objects were written\n",
		"  written:     ConfigMap " + ns + "/one\n",
		"  unknown:     ConfigMap " + ns + "/two\n",
		"  not written: ConfigMap " + ns + "/three\n",
	} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q:\n%s", want, stderr.String())
		}
	}
}
