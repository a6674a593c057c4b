package tour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// shop answers with pages whose reviews come from what version says of the request's number.
func shop(t *testing.T, version func(n int64, user string) string) *visitor {
	t.Helper()
	var n atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		user := ""
		if c, err := r.Cookie("user"); err == nil {
			user = c.Value
		}
		switch v := version(n.Add(1), user); v {
		case "":
			w.WriteHeader(http.StatusServiceUnavailable)
		case "sorry":
			fmt.Fprint(w, `<section class="card" id="reviews" data-stars="none"><p class="sorry">no reviews</p></section>`)
		default:
			fmt.Fprintf(w, `<section class="card" id="reviews" data-stars="none" data-version="%s" data-pod="p">`, v)
		}
	}))
	t.Cleanup(srv.Close)
	return newVisitor(srv.URL)
}

func TestPagesAreCountedByTheirReviews(t *testing.T) {
	v := shop(t, func(n int64, user string) string {
		switch {
		case user == "jason":
			return "v2"
		case n%10 == 0:
			return ""
		case n%10 == 5:
			return "sorry"
		}
		return "v1"
	})
	c := v.count(t.Context(), 100, "")
	if c.Versions["v1"] != 80 || c.Failed != 20 || c.First == nil || c.Total() != 80 {
		t.Errorf("counted %+v, want 80 good pages and 20 failures", c)
	}
	if err := sees(t.Context(), v, "jason", 10, "v2"); err != nil {
		t.Errorf("jason: %v", err)
	}
	if err := sees(t.Context(), v, "", 1, "v2"); err == nil {
		t.Error("another version was taken for v2")
	}
}

func TestAFailureDuringAChangeIsSeen(t *testing.T) {
	var broken atomic.Bool
	var failures atomic.Int64
	v := shop(t, func(int64, string) string {
		if broken.Load() {
			failures.Add(1)
			return ""
		}
		return "v1"
	})
	c, err := v.during(t.Context(), func() error { return sees(t.Context(), v, "", 10, "v1") })
	if err != nil || c.Failed != 0 {
		t.Errorf("all was well, but %v, %+v", err, c)
	}
	c, err = v.during(t.Context(), func() error {
		broken.Store(true)
		defer broken.Store(false)
		return until(t.Context(), "the load has met it", func(context.Context) error {
			if failures.Load() == 0 {
				return errors.New("not yet")
			}
			return nil
		})
	})
	if err != nil || c.Failed == 0 {
		t.Errorf("an outage went unseen: %v, %+v", err, c)
	}
}

func TestTheBoundsOfAShareAreFourStandardDeviations(t *testing.T) {
	if low, high := within(1000, 0.10); low != 63 || high != 137 {
		t.Errorf("1,000 at 10 %%: %d to %d, want 63 to 137", low, high)
	}
}

func TestAPodRunsOnlyWhenAllItsContainersDo(t *testing.T) {
	const table = `NAME                            READY   STATUS             RESTARTS   AGE
istio-ingress-6d4c9d8b7c-2xkqz   1/1     Running            0          9s
istio-pilot-7f5c6d9f8-abcde      0/1     Running            0          9s
istio-mixer-7f5c6d9f8-abcde      1/2     CrashLoopBackOff   3          9s
`
	for prefix, want := range map[string]bool{"istio-ingress-": true, "istio-pilot-": false, "istio-mixer-": false, "istio-ca-": false} {
		if got := podRuns(table, prefix); got != want {
			t.Errorf("%s… runs: %v, want %v", prefix, got, want)
		}
	}
}

// repository is a folder in which meshctl says what it was called with.
func repository(t *testing.T, meshctl string) (*Tour, *bytes.Buffer) {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"bin/meshctl": "#!/bin/bash\n" + meshctl, "bin/meshbox": "", "rules/install/istio.yaml": "", "rules/bookinfo/bookinfo-v1.yaml": "",
	} {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	tour, err := New(Config{Root: root, Out: &out, Environ: []string{"PATH=" + os.Getenv("PATH")}})
	if err != nil {
		t.Fatal(err)
	}
	return tour, &out
}

func TestALineIsShownWithItsAnswerAndItsExitStatusIsJudged(t *testing.T) {
	tour, out := repository(t, `echo "got $*"; echo complaint >&2; exit 1`)
	if _, err := tour.shell(t.Context(), ".", "meshctl create -f <(echo x)", 1); err != nil {
		t.Errorf("an expected exit status: %v", err)
	}
	for _, want := range []string{"$ meshctl create -f <(echo x)\n", "  got create -f /dev/fd/", "  complaint\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the transcript lacks %q:\n%s", want, out)
		}
	}
	_, err := tour.shell(t.Context(), ".", "meshctl create", 0)
	if err == nil || !strings.Contains(err.Error(), "exit status 1, want 0: complaint") {
		t.Errorf("an unexpected exit status: %v", err)
	}
}

func TestTheSandboxsEnvironmentIsTakenOver(t *testing.T) {
	tour, _ := repository(t, `
		case "$*" in
		"sandbox env") echo "export KUBECONFIG='/a b/config' PATH=$(dirname "$0")/tools:\$PATH" ;;
		esac
		mkdir -p "$(dirname "$0")/tools"
		printf '#!/bin/bash\necho "kubectl $* with $KUBECONFIG"\n' > "$(dirname "$0")/tools/kubectl"
		chmod +x "$(dirname "$0")/tools/kubectl"`)
	if err := tour.sandbox(t.Context()); err != nil {
		t.Fatal(err)
	}
	s, err := tour.Type(t.Context(), ".", "kubectl get pod")
	if err != nil || s.Stdout != "kubectl get pod with /a b/config\n" {
		t.Errorf("kubectl said %q, %v", s.Stdout, err)
	}
}

func TestADemoThatFailsStillTidiesUp(t *testing.T) {
	tour, _ := repository(t, `
		echo "$*" >> "$(dirname "$0")/calls"
		[ "$*" = "sandbox status -o json" ] && echo '{"state": "down"}' && exit 1
		[ "$*" != "sandbox env" ]`)
	t.Chdir(tour.root)
	var stdout, stderr bytes.Buffer
	if code := Main(t.Context(), []string{"PATH=" + os.Getenv("PATH"), "DEMO_ONCE=1"}, &stdout, &stderr); code != 3 {
		t.Errorf("ended with %d, want 3", code)
	}
	calls, err := os.ReadFile("bin/calls")
	if err != nil {
		t.Fatal(err)
	}
	if got := string(calls); got != "sandbox status -o json\nsandbox down\nsandbox up\nsandbox env\nsandbox down\n" {
		t.Errorf("the commands were\n%s", got)
	}
	if !strings.Contains(stderr.String(), "demo: a kubernetes of our own: asking for the sandbox's environment") {
		t.Errorf("said %q", stderr.String())
	}
}

func TestADemoLeavesTheSandboxOfAnotherAlone(t *testing.T) {
	for name, c := range map[string]struct{ status, want string }{
		"one that runs": {`{"state": "running", "dir": "/there/.cache/demo", "pid": 42}`,
			"demo: a demo's sandbox is running (process 42, /there/.cache/demo): end it with Ctrl-C where the demo runs, or: bin/meshctl sandbox down --dir .cache/demo\n"},
		"one that starts": {`{"state": "starting", "dir": "/there/.cache/demo"}`,
			"demo: a demo's sandbox is starting (/there/.cache/demo): end it with"},
		"one that says nothing": {"", "demo: looking for another demo: "},
	} {
		t.Run(name, func(t *testing.T) {
			tour, _ := repository(t, `echo "$*" >> "$(dirname "$0")/calls"; echo '`+c.status+`'`)
			t.Chdir(tour.root)
			var stdout, stderr bytes.Buffer
			if code := Main(t.Context(), []string{"PATH=" + os.Getenv("PATH"), "DEMO_ONCE=1"}, &stdout, &stderr); code != 3 {
				t.Errorf("ended with %d, want 3", code)
			}
			if !strings.HasPrefix(stderr.String(), c.want) {
				t.Errorf("said %q, want %q", stderr.String(), c.want)
			}
			if calls, err := os.ReadFile("bin/calls"); err != nil || string(calls) != "sandbox status -o json\n" {
				t.Errorf("the commands were\n%s(%v)", calls, err)
			}
		})
	}
}
