package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/image"
	"github.com/meshctl/meshctl/internal/tour"
)

const (
	// root is the repository.
	root = "../.."
	// echoTag is the image of the suite's own server.
	echoTag = "docker.io/meshctl/echo:test"
)

// patience is how long anything may take to become so. Changes take far less; the rest is for a busy machine.
const patience = 90 * time.Second

// lab is the one sandbox of a test run, with the mesh installed.
type lab struct {
	dir  string
	tour *tour.Tour
	err  error
}

var (
	theLab  lab
	labOnce sync.Once
)

func TestMain(m *testing.M) {
	code := m.Run()
	if theLab.tour != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
		if s, err := theLab.tour.Type(ctx, ".", "meshctl sandbox down"); err != nil || s.Exit != 0 {
			fmt.Fprintf(os.Stderr, "taking the sandbox down: %v: %s\n", err, s.Stderr)
			code = max(code, 1)
		}
		cancel()
	}
	if err := os.RemoveAll(theLab.dir); err != nil {
		fmt.Fprintln(os.Stderr, "removing the laboratory:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// open brings the sandbox up, loads the suite's own image and installs the mesh, at the first test that asks.
func open(t *testing.T) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED, NOT PASSED: the sandbox is not for -short")
	}
	if os.Getuid() != 0 {
		const missing = "the sandbox needs root"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED, NOT PASSED: " + missing)
	}
	labOnce.Do(func() { theLab.err = theLab.start() })
	if theLab.err != nil {
		t.Fatalf("opening the laboratory: %v", theLab.err)
	}
	return &theLab
}

func (l *lab) start() error {
	dir, err := os.MkdirTemp("", "meshctl-e2e")
	if err != nil {
		return err
	}
	l.dir = dir
	t, err := tour.New(tour.Config{Root: root, Out: os.Stdout, Environ: append(os.Environ(), "MESHCTL_SANDBOX_DIR="+filepath.Join(dir, "sandbox"))})
	if err != nil {
		return err
	}
	l.tour = t
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for _, s := range t.Steps()[:2] {
		if err := t.Take(ctx, s); err != nil {
			return err
		}
	}
	return l.loadEcho(ctx, dir)
}

// loadEcho makes the suite's own server, and the image it runs in.
func (l *lab) loadEcho(ctx context.Context, dir string) error {
	binary := filepath.Join(dir, "echo")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "./echo")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("building echo: %w: %s", err, out)
	}
	archive := filepath.Join(dir, "echo.tar")
	if err := image.BuildProgram(archive, echoTag, binary); err != nil {
		return fmt.Errorf("making echo's image: %w", err)
	}
	if s, err := l.tour.Type(ctx, ".", "meshctl sandbox load "+archive); err != nil || s.Exit != 0 {
		return fmt.Errorf("loading echo's image: %w: %s", err, s.Stderr)
	}
	return nil
}

// run types a line into bash with the namespace in $NS, and fails the test if it does not succeed.
func (l *lab) run(t *testing.T, ns, line string) string {
	t.Helper()
	s := l.try(t, ns, line)
	if s.Exit != 0 {
		t.Fatalf("%s\nexit status %d\n%s%s", line, s.Exit, s.Stdout, s.Stderr)
	}
	return s.Stdout
}

// try types a line and gives what came of it.
func (l *lab) try(t *testing.T, ns, line string) tour.Said {
	t.Helper()
	// A test's own context is over by the time it tidies up.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 5*time.Minute)
	defer cancel()
	s, err := l.tour.Type(ctx, "rules/bookinfo", "NS="+ns+"\n"+line)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// namespace makes a namespace that goes when the test does. What it holds is shown if the test failed.
func (l *lab) namespace(t *testing.T) string {
	t.Helper()
	name := strings.ToLower(strings.Trim(strings.NewReplacer("/", "-", "_", "-").Replace(strings.TrimPrefix(t.Name(), "Test")), "-"))
	// An earlier run of the same test may still be going.
	name = fmt.Sprintf("%.40s-%04x", name, rand.IntN(1<<16))
	l.run(t, name, "kubectl create namespace $NS")
	t.Cleanup(func() {
		if t.Failed() {
			l.show(t, name)
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if s, err := l.tour.Type(ctx, ".", "kubectl delete namespace --wait=false "+name); err != nil || s.Exit != 0 {
			t.Errorf("deleting namespace %s: %v %s", name, err, s.Stderr)
		}
	})
	return name
}

// show puts into the test's log what one needs to know to understand a failure.
func (l *lab) show(t *testing.T, ns string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for _, line := range []string{
		"kubectl -n " + ns + " get pod -o wide",
		"kubectl -n " + ns + " get events --sort-by=.lastTimestamp | tail -n 20",
		"kubectl -n " + ns + " get routerules,ingresses -o yaml",
		"meshctl proxy-status",
		"kubectl -n istio-system get pod",
		"kubectl -n istio-system logs -l istio=pilot --tail=30",
		"for p in $(kubectl -n " + ns + " get pod -o name); do echo \"# $p\"; kubectl -n " + ns + " logs $p -c istio-proxy --tail=15; done",
	} {
		s, err := l.tour.Type(ctx, ".", line)
		t.Logf("$ %s\n%s%s%v", line, s.Stdout, s.Stderr, err)
	}
}

// workload is one Deployment of the echo server.
type workload struct {
	Name     string // of the Deployment, and label app unless App is set
	App      string
	Version  string
	Replicas int
	// Bare leaves the sidecar out.
	Bare bool
}

// services are the names that the echo servers are called by; each has all three protocols.
func (l *lab) services(t *testing.T, ns string, apps ...string) {
	t.Helper()
	var b strings.Builder
	for _, app := range apps {
		fmt.Fprintf(&b, `apiVersion: v1
kind: Service
metadata: {name: %[1]s}
spec:
  selector: {app: %[1]s}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: grpc, port: 9090}
  - {name: tcp, port: 9000}
---
`, app)
	}
	l.apply(t, ns, b.String())
}

// apply types `kubectl apply` with a text on its standard input.
func (l *lab) apply(t *testing.T, ns, text string) {
	t.Helper()
	l.run(t, ns, "kubectl apply -n $NS -f - <<'END_OF_FILE'\n"+text+"\nEND_OF_FILE")
}

// deploy starts workloads and, unless told otherwise, waits until they are ready.
func (l *lab) deploy(t *testing.T, ns string, ws ...workload) {
	t.Helper()
	names := l.launch(t, ns, ws...)
	l.run(t, ns, "kubectl -n $NS wait --for=condition=Available --timeout=120s "+names)
}

func (l *lab) launch(t *testing.T, ns string, ws ...workload) string {
	t.Helper()
	var meshed, bare, names strings.Builder
	for _, w := range ws {
		if w.App == "" {
			w.App = w.Name
		}
		if w.Version == "" {
			w.Version = "v1"
		}
		if w.Replicas == 0 {
			w.Replicas = 1
		}
		b := &meshed
		if w.Bare {
			b = &bare
		}
		fmt.Fprintf(&names, " deployment/%s", w.Name)
		fmt.Fprintf(b, `apiVersion: apps/v1
kind: Deployment
metadata: {name: %[1]s}
spec:
  replicas: %[4]d
  selector: {matchLabels: {app: %[2]s, version: %[3]s}}
  template:
    metadata: {labels: {app: %[2]s, version: %[3]s}}
    spec:
      terminationGracePeriodSeconds: 5
      containers:
      - name: echo
        image: %[5]s
        imagePullPolicy: IfNotPresent
        args: [serve]
        env: [{name: VERSION, value: %[3]s}]
        ports: [{containerPort: 8080}, {containerPort: 9090}, {containerPort: 9000}]
        readinessProbe: {httpGet: {path: /ready, port: 8080}, periodSeconds: 1}
---
`, w.Name, w.App, w.Version, w.Replicas, echoTag)
	}
	if meshed.Len() > 0 {
		l.run(t, ns, "meshctl kube-inject -f - <<'END_OF_FILE' | kubectl apply -n $NS -f -\n"+meshed.String()+"\nEND_OF_FILE")
	}
	if bare.Len() > 0 {
		l.apply(t, ns, bare.String())
	}
	return names.String()
}

// tally is what `echo call` prints.
type tally struct {
	Calls    int            `json:"calls"`
	Codes    map[string]int `json:"codes"`
	Pods     map[string]int `json:"pods"`
	Versions map[string]int `json:"versions"`
	Failures []string       `json:"failures"`
	Last     struct {
		Pod     string              `json:"pod"`
		Version string              `json:"version"`
		Path    string              `json:"path"`
		Host    string              `json:"host"`
		Header  map[string][]string `json:"header"`
		Peer    string              `json:"peer"`
	} `json:"last"`
	Header  map[string][]string `json:"header"`
	Seconds float64             `json:"seconds"`
}

// only wants every call to have ended in one way.
func (c tally) only(code string) error {
	if c.Calls == 0 || c.Codes[code] != c.Calls {
		return fmt.Errorf("%d calls ended in %v, want %s alone: %s", c.Calls, c.Codes, code, strings.Join(c.Failures, "; "))
	}
	return nil
}

// call makes calls from inside a workload's pod, as its application would: past its sidecar.
func (l *lab) call(t *testing.T, ns, from, args string) tally {
	t.Helper()
	c, err := l.tryCall(t, ns, from, args)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (l *lab) tryCall(t *testing.T, ns, from, args string) (tally, error) {
	t.Helper()
	s := l.try(t, ns, "kubectl -n $NS exec deployment/"+from+" -c echo -- /echo call "+args)
	if s.Exit != 0 {
		return tally{}, fmt.Errorf("calling %s from %s: %s", args, from, s.Stderr)
	}
	return parseTally([]byte(s.Stdout))
}

func parseTally(data []byte) (c tally, err error) {
	if err = json.Unmarshal(data, &c); err != nil {
		err = fmt.Errorf("reading the tally %q: %w", data, err)
	}
	return c, err
}

// until polls until look has nothing to complain about.
func until(t *testing.T, what string, look func() error) {
	t.Helper()
	deadline := time.Now().Add(patience)
	tick := time.NewTicker(150 * time.Millisecond)
	defer tick.Stop()
	for {
		err := look()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %s until %s: %v", patience, what, err)
		}
		<-tick.C
	}
}

// load is a stream of calls from inside a pod that goes on until it is stopped.
type load struct {
	cmd    *exec.Cmd
	stdin  interface{ Close() error }
	stdout bytes.Buffer
	stderr bytes.Buffer
}

// startLoad begins calling; the first answer has come when it returns.
func (l *lab) startLoad(t *testing.T, ns, from, args string) *load {
	t.Helper()
	ld := &load{cmd: exec.Command("kubectl", "-n", ns, "exec", "-i", "deployment/"+from, "-c", "echo", "--", "/echo")}
	ld.cmd.Args = append(ld.cmd.Args, append([]string{"call", "-load"}, strings.Fields(args)...)...)
	ld.cmd.Env = l.tour.Environ()
	path, err := lookPath("kubectl", ld.cmd.Env)
	if err != nil {
		t.Fatal(err)
	}
	ld.cmd.Path, ld.cmd.Err = path, nil
	ld.cmd.Stdout, ld.cmd.Stderr = &ld.stdout, &ld.stderr
	if ld.stdin, err = ld.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	if err := ld.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if ld.cmd.ProcessState == nil {
			_ = ld.cmd.Process.Kill()
			_ = ld.cmd.Wait()
		}
	})
	return ld
}

// stop ends the load and gives what it met.
func (ld *load) stop(t *testing.T) tally {
	t.Helper()
	if err := ld.stdin.Close(); err != nil {
		t.Fatal(err)
	}
	if err := ld.cmd.Wait(); err != nil {
		t.Fatalf("calling under load: %v: %s", err, ld.stderr.String())
	}
	c, err := parseTally(ld.stdout.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// lookPath finds a program on the PATH of env.
func lookPath(name string, env []string) (string, error) {
	for _, e := range env {
		dirs, ok := strings.CutPrefix(e, "PATH=")
		if !ok {
			continue
		}
		for _, dir := range filepath.SplitList(dirs) {
			if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return path, nil
			}
		}
	}
	return "", errors.New("no " + name + " on the sandbox's PATH")
}

// site is where the ingress answers.
func (l *lab) site(t *testing.T) string {
	t.Helper()
	site, err := l.tour.FindSite(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return site
}
