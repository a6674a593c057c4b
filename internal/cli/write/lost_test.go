package write_test

import (
	"bytes"
	"context"
	"io"
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

// until passes requests on to the API server until the n-th write, which it gives to last.
func until(t *testing.T, server *apiserver.Server, n int32, last http.HandlerFunc) string {
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
			last(w, r)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// createThree creates three ConfigMaps by way of url.
func createThree(ctx context.Context, t *testing.T, ns, url string) (code int, out, stderr string) {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "maps.yaml")
	var content strings.Builder
	for _, name := range []string{"one", "two", "three"} {
		content.WriteString("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: " + name + "}\n")
	}
	if err := os.WriteFile(file, []byte(content.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, errout bytes.Buffer
	f := factory.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: &stdout, ErrOut: &errout}, func(string) string { return "" })
	code = cli.Main(ctx, []string{"create", "-n", ns, "-f", file, "--server", url, "--cache-dir", dir}, f)
	return code, stdout.String(), errout.String()
}

func TestTroubleHalfwayTellsWhatWasWritten(t *testing.T) {
	server := apiserver.Shared(t)
	for name, tc := range map[string]struct {
		last func(interrupt func()) http.HandlerFunc
		code int
		want []string
	}{
		"a lost connection": {
			func(func()) http.HandlerFunc {
				return func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
			},
			factory.ExitError,
			[]string{"two: reaching the Kubernetes API server at "},
		},
		"Ctrl-C": {
			func(interrupt func()) http.HandlerFunc {
				return func(_ http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body) // only then does the server notice that the client went away
					interrupt()
					<-r.Context().Done()
				}
			},
			factory.ExitInterrupted,
			[]string{"two: interrupted\n", "\ninterrupted\n"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := server.Namespace(t)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			code, out, stderr := createThree(ctx, t, ns, until(t, server, 2, tc.last(cancel)))
			if code != tc.code {
				t.Errorf("exit code %d, want %d", code, tc.code)
			}
			if want := "configmap/one created\n"; out != want {
				t.Errorf("stdout %q, want %q", out, want)
			}
			for _, want := range append(tc.want,
				"error: 1 of 3 objects were written\n",
				"  written:     ConfigMap "+ns+"/one\n",
				"  unknown:     ConfigMap "+ns+"/two\n",
				"  not written: ConfigMap "+ns+"/three\n",
			) {
				if !strings.Contains(stderr, want) {
					t.Errorf("stderr lacks %q:\n%s", want, stderr)
				}
			}
		})
	}
}
