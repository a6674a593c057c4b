package meshd

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// meshctl runs a command line in a namespace and returns its exit code and what it wrote. It is a process of its own, as Pilot and it both have the one
// logger of the Kubernetes client.
func (l *lab) meshctl(namespace string, args ...string) (code int, stdout, stderr string) {
	l.t.Helper()
	if l.binary == "" {
		l.binary = filepath.Join(l.t.TempDir(), "meshctl")
		if out, err := exec.CommandContext(l.t.Context(), "go", "build", "-o", l.binary, "../../cmd/meshctl").CombinedOutput(); err != nil {
			l.t.Fatalf("building meshctl: %v\n%s", err, out)
		}
	}
	var out, errOut bytes.Buffer
	cmd := exec.CommandContext(l.t.Context(), l.binary, append(args, "--kubeconfig", l.server.KubeconfigFor(l.t, namespace))...)
	cmd.Env = append(os.Environ(), "HOME="+l.t.TempDir())
	cmd.Stdout, cmd.Stderr = &out, &errOut
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		l.t.Fatal(err)
	}
	code = cmd.ProcessState.ExitCode()
	l.t.Logf("meshctl %s: %d\n%s%s", strings.Join(args, " "), code, out.String(), errOut.String())
	return code, out.String(), errOut.String()
}

// file writes a manifest for meshctl.
func (l *lab) file(text string) string {
	l.t.Helper()
	path := filepath.Join(l.t.TempDir(), "file.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		l.t.Fatal(err)
	}
	return path
}

func TestWaitingForDistributionEndsWithTheAnswerOfTheLastProxy(t *testing.T) {
	l := emptyLab(t)
	l.createNamespace("istio-system")
	l.installKinds()
	p := l.pilot(l.server.KubeconfigFor(t, "default"))
	p.ready()
	ns := l.server.Namespace(t)
	l.account(ns, "reviews")
	l.apply(ns, reviews)
	expect := func(want int, pattern string, args ...string) {
		t.Helper()
		code, stdout, stderr := l.meshctl(ns, args...)
		if code != want || !regexp.MustCompile(pattern).MatchString(stdout+stderr) {
			t.Errorf("meshctl %s: exit code %d, want %d, and %q in\n%s%s", strings.Join(args, " "), code, want, pattern, stdout, stderr)
		}
	}
	file := l.file(routeTo("to-v1", "v1"))
	expect(3, `RouteRule .*/to-v1 is not distributed after 1s: no proxy is connected`, "create", "--wait", "--timeout", "1s", "-f", file)

	proxy := p.connect("sidecar~10.1.0.1~reviews-v1."+ns+"~"+ns+".svc.cluster.local", "", ns)
	expect(0, `(?m)^routerule.config.istio.io/to-v1 distributed$`, "wait", "--for=distribution", "routerule", "to-v1")

	for n := range 5 { // what an earlier generation achieved is never taken for the new one's
		before := proxy.everything()
		file = l.file(routeTo("to-v1", fmt.Sprint("v", (n+1)%2+1)))
		expect(0, `Every connected proxy has it after`, "replace", "--wait", "-f", file)
		if proxy.everything() == before {
			t.Error("the wait was over before the proxy had the change")
		}
	}

	// A proxy refuses it: the answer is no, in the proxy's words; once corrected, the old refusal says nothing about the correction.
	proxy.be(func(r *discoveryv3.DeltaDiscoveryResponse) (string, bool) {
		if strings.Contains(r.TypeUrl, ".route.") {
			return "the proxy does not like this", false
		}
		return "", false
	})
	file = l.file(routeTo("to-v1", "v1"))
	expect(1, `RouteRule .*/to-v1 is not distributed: M0301: proxy `+ns+`/reviews-v1: the proxy does not like this`, "replace", "--wait", "-f", file)
	proxy.be(nil)
	for _, version := range []string{"v2", "v1"} {
		expect(0, `Every connected proxy has it`, "replace", "--wait", "-f", l.file(routeTo("to-v1", version)))
	}

	// The control plane makes nothing of it.
	l.apply(ns, "apiVersion: v1\nkind: Service\nmetadata: {name: raw}\nspec: {ports: [{name: tcp, port: 99}]}")
	expect(1, `RouteRule .*/nothing is not distributed: M`, "create", "--wait", "-f", l.file(strings.ReplaceAll(routeTo("nothing", "v1"), "name: reviews", "name: raw")))

	// A proxy does not answer: that is not distributed, however long it takes.
	mute := p.connect("sidecar~10.1.0.2~reviews-v2."+ns+"~"+ns+".svc.cluster.local", "", ns)
	expect(0, `distributed`, "wait", "--for=distribution", "routerule", "to-v1")
	mute.be(func(*discoveryv3.DeltaDiscoveryResponse) (string, bool) { return "", true })
	expect(3, `(?s)RouteRule .*to-v1 is not distributed after 2s: not every connected proxy has it yet`, "replace", "--wait", "--timeout", "2s", "-f", l.file(routeTo("to-v1", "v2")))
}

// everything the proxy holds, on one line.
func (x *testProxy) everything() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	return fmt.Sprint(x.held)
}

// be changes the proxy's mood.
func (x *testProxy) be(moody func(*discoveryv3.DeltaDiscoveryResponse) (string, bool)) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.moody = moody
}
