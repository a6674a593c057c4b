package agent

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/fstest"
	"time"

	"github.com/meshctl/meshctl/internal/resource"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
	"github.com/meshctl/meshctl/internal/testkit/pilot"
)

// The test binary plays the program, so that signals and exit codes are real.
func TestMain(m *testing.M) {
	if os.Getenv("MESHAGENT_TEST_MAIN") != "" {
		// As cmd/meshagent does.
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Exit(Main(ctx, os.Args[1:], Streams{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv}))
	}
	os.Exit(m.Run())
}

// pod is one agent with its Envoy.
type pod struct {
	t      *testing.T
	dir    string
	pilot  *pilot.Pilot
	mesh   *pilot.Mesh
	status int
	cmd    *exec.Cmd
	log    *safeBuffer
	exit   chan error
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *safeBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func newPod(t *testing.T) *pod {
	t.Helper()
	if testing.Short() {
		t.Skip("starts Envoy")
	}
	envoyproc.Path(t)
	dir, err := os.MkdirTemp("", "agent") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	p := &pod{t: t, dir: dir, pilot: pilot.New(t), mesh: pilot.NewMesh(t), status: freeport.For(t)}
	p.pilot.Cert.Store(p.pilot.CA.Issue(t, "127.0.0.1"))
	p.write("root.pem", p.pilot.CA.PEM)
	p.write("token", []byte(pilot.Token))
	return p
}

func (p *pod) write(name string, text []byte) {
	p.t.Helper()
	if err := os.WriteFile(filepath.Join(p.dir, name), text, 0o600); err != nil {
		p.t.Fatal(err)
	}
}

func (p *pod) start(more ...string) {
	p.t.Helper()
	args := append([]string{"proxy", "sidecar", "-v", "2", "--configPath", p.dir, "--binaryPath", envoyproc.Path(p.t), "--serviceCluster", "a",
		"--drainDuration", "5s", "--parentShutdownDuration", "10s", "--discoveryAddress", p.pilot.Addr, "--zipkinAddress", "", "--connectTimeout", "10s",
		"--statsdUdpAddress", "", "--proxyAdminPort", fmt.Sprint(p.mesh.Admin), "--statusPort", fmt.Sprint(p.status), "--concurrency", "1",
		"--rootCert", filepath.Join(p.dir, "root.pem"), "--token", filepath.Join(p.dir, "token")}, more...)
	p.cmd = exec.Command(os.Args[0], args...)
	p.cmd.Env = append(os.Environ(), "MESHAGENT_TEST_MAIN=1", "POD_NAME=a-1", "POD_NAMESPACE=default", "INSTANCE_IP=127.0.0.1")
	p.log = &safeBuffer{}
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	exit := make(chan error, 1)
	p.exit = exit
	done := make(chan struct{})
	go func(cmd *exec.Cmd) {
		exit <- cmd.Wait()
		close(done)
	}(p.cmd)
	log, process := p.log, p.cmd.Process
	p.t.Cleanup(func() {
		_ = process.Kill()
		<-done
		if p.t.Failed() {
			p.t.Logf("the agent said:\n%s", log)
		}
	})
}

// ready asks as the kubelet does.
func (p *pod) ready() (int, string) {
	return p.ask("/healthz/ready")
}

func (p *pod) ask(path string) (int, string) {
	resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d%s", p.status, path))
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return 0, err.Error()
	}
	return resp.StatusCode, string(text)
}

func (p *pod) awaitReady() {
	p.t.Helper()
	pilot.Eventually(p.t, "ready", func() error {
		if code, text := p.ready(); code != http.StatusOK {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
}

func (p *pod) awaitNotReady(why string) {
	p.t.Helper()
	pilot.Eventually(p.t, "not ready because "+why, func() error {
		if code, text := p.ready(); code != http.StatusServiceUnavailable || !strings.Contains(text, why) {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
}

func (p *pod) awaitLog(text string) {
	p.t.Helper()
	pilot.Eventually(p.t, "the log says "+text, func() error {
		if !strings.Contains(p.log.String(), text) {
			return os.ErrNotExist
		}
		return nil
	})
}

func (p *pod) awaitExit() error {
	p.t.Helper()
	select {
	case err := <-p.exit:
		return err
	case <-time.After(pilot.Patience):
		p.t.Fatal("the agent does not end")
		return nil
	}
}

// envoys are the process ids of this pod's Envoy.
func (p *pod) envoys() []int {
	p.t.Helper()
	entries, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		p.t.Fatal(err)
	}
	var out []int
	for _, e := range entries {
		text, err := os.ReadFile(e)
		if err == nil && bytes.Contains(text, []byte("\x00-c\x00"+p.dir+"/envoy.json")) {
			var pid int
			if _, err := fmt.Sscanf(e, "/proc/%d/", &pid); err != nil {
				p.t.Fatal(err)
			}
			out = append(out, pid)
		}
	}
	return out
}

func (p *pod) killEnvoy() {
	p.t.Helper()
	for _, pid := range p.envoys() {
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			p.t.Fatal(err)
		}
	}
}

func TestReadyTellsTheTruth(t *testing.T) {
	p := newPod(t)
	token := filepath.Join(p.dir, "token")
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	p.start()
	p.awaitNotReady("no connection from Envoy yet") // and is not started before its files are there
	p.awaitLog("waiting for a file")
	if n := p.envoys(); len(n) != 0 {
		t.Errorf("Envoy runs: %v", n)
	}
	p.write("token", []byte(pilot.Token))
	p.awaitNotReady("no configuration yet; Pilot: ")

	begin := time.Now()
	if code, text := p.ask("/healthz/ready?wait=300ms"); code != http.StatusServiceUnavailable || time.Since(begin) < 300*time.Millisecond {
		t.Errorf("waited %v: %d %s", time.Since(begin), code, text)
	}
	if code, _ := p.ask("/healthz/ready?wait=long"); code != http.StatusServiceUnavailable {
		t.Errorf("a wait that is none: %d", code)
	}
	waited := make(chan int, 1)
	go func() { code, _ := p.ask("/healthz/ready?wait=5s"); waited <- code }()

	p.pilot.Publish(p.mesh.Snapshot("1"))
	p.pilot.Start()
	if code := <-waited; code != http.StatusOK {
		t.Errorf("waiting ended with %d", code)
	}
	p.awaitReady()
	p.mesh.Answers("1")

	p.pilot.Kill()
	p.awaitLog("Pilot is away")
	if code, text := p.ready(); code != http.StatusOK {
		t.Errorf("not ready while Pilot is away: %s", text)
	}
	if code, text := p.ask("/metrics"); code != http.StatusOK || !strings.Contains(text, `meshagent_xds_resources{type="Listener"} 1`) || !strings.Contains(text, "meshagent_ready 1") {
		t.Errorf("metrics: %d\n%s", code, text)
	}
	if code, _ := p.ask("/else"); code != http.StatusNotFound {
		t.Errorf("unknown path: %d", code)
	}
}

func TestEnvoyThatCrashesIsStartedAgain(t *testing.T) {
	p := newPod(t)
	p.pilot.Publish(p.mesh.Snapshot("1"))
	p.pilot.Start()
	p.start()
	p.awaitReady()
	// Pilot being away makes no difference: the configuration is recorded.
	p.pilot.Kill()
	p.awaitLog("Pilot is away")
	p.killEnvoy()
	p.awaitLog("Envoy ended by itself and is started again")
	p.awaitReady()
	p.mesh.Answers("1")
	if _, text := p.ask("/metrics"); !strings.Contains(text, "meshagent_envoy_restarts_total 1\n") {
		t.Errorf("the restart is not counted:\n%s", text)
	}
}

func TestEnvoyThatKeepsCrashingEndsTheAgent(t *testing.T) {
	p := newPod(t)
	p.start("--binaryPath", "/bin/false")
	p.awaitLog("times=3")
	p.cmd.Process.Kill()
	_ = p.awaitExit()

	// The bound itself, without the pauses that lead to it.
	s := &supervisor{binary: "/does/not/exist", log: newLog(io.Discard, 0)}
	s.restarts = &new(health).restarts
	s.pause = func(context.Context, time.Duration) bool { return true }
	if err := s.run(t.Context()); err == nil || !strings.Contains(err.Error(), "10 times in a row") {
		t.Errorf("got %v", err)
	}
}

func TestDraining(t *testing.T) {
	release := make(chan struct{})
	slow := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		<-release
		_, _ = io.WriteString(w, "hello")
	})}
	addr := listenAndServe(t, slow)

	t.Run("a request under way is answered, then Envoy and the agent end", func(t *testing.T) {
		p := newPod(t)
		p.mesh.App = addr
		p.pilot.Publish(p.mesh.Snapshot("1"))
		p.pilot.Start()
		p.start()
		p.awaitReady()
		answer := make(chan error, 1)
		go func() { _, err := p.mesh.Get(t.Context()); answer <- err }()
		pilot.Eventually(t, "the request under way", func() error {
			if n, err := (admin{port: p.mesh.Admin}).busy(t.Context()); err != nil || n != 1 {
				return fmt.Errorf("%d %w", n, err)
			}
			return nil
		})
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		p.awaitNotReady("draining")
		select {
		case err := <-answer:
			t.Fatalf("answered early: %v", err)
		case err := <-p.exit:
			t.Fatalf("ended early: %v", err)
		case <-time.After(1500 * time.Millisecond): // longer than the least drain
		}
		close(release)
		if err := <-answer; err != nil {
			t.Errorf("the request under way: %v", err)
		}
		if err := p.awaitExit(); err != nil {
			t.Errorf("exit: %v", err)
		}
		if n := p.envoys(); len(n) != 0 {
			t.Errorf("Envoy still runs: %v", n)
		}
		if !strings.Contains(p.log.String(), "drained=true") {
			t.Error("not drained")
		}
	})
	t.Run("a request that does not end is not waited for longer than told", func(t *testing.T) {
		p := newPod(t)
		stuck := make(chan struct{})
		defer close(stuck)
		p.mesh.App = listenAndServe(t, &http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-stuck })})
		p.pilot.Publish(p.mesh.Snapshot("1"))
		p.pilot.Start()
		p.start("--drainDuration", "2s", "--parentShutdownDuration", "4s")
		p.awaitReady()
		go func() { _, _ = p.mesh.Get(t.Context()) }()
		pilot.Eventually(t, "the request under way", func() error {
			if n, err := (admin{port: p.mesh.Admin}).busy(t.Context()); err != nil || n != 1 {
				return fmt.Errorf("%d %w", n, err)
			}
			return nil
		})
		begin := time.Now()
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if err := p.awaitExit(); err != nil {
			t.Errorf("exit: %v", err)
		}
		if took := time.Since(begin); took < 2*time.Second || took > 6*time.Second {
			t.Errorf("took %v, want 2s and a little", took)
		}
	})
}

func listenAndServe(t *testing.T, s *http.Server) string {
	t.Helper()
	s.Addr = fmt.Sprint("127.0.0.1:", freeport.For(t))
	go func() { _ = s.ListenAndServe() }()
	t.Cleanup(func() { _ = s.Close() })
	return s.Addr
}

func TestAConfigurationWithoutListenersIsOne(t *testing.T) {
	p := newPod(t)
	empty := p.mesh.Snapshot("1")
	empty.Listeners, empty.Routes = resource.Group{resource.NewSet()}, resource.Group{resource.NewSet()}
	p.pilot.Publish(empty)
	p.pilot.Start()
	p.start()
	p.awaitReady()
}

func TestWrongUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		env  map[string]string
		want string
	}{
		{"an unknown role", []string{"proxy", "sidekick"}, nil, `"sidekick" is not one of sidecar, ingress, egress`},
		{"an unknown flag", []string{"proxy", "--nonsense"}, nil, "unknown flag: --nonsense"},
		{"no identity", []string{"proxy"}, nil, "set POD_NAME and POD_NAMESPACE"},
		{"an address that is none", []string{"proxy"}, map[string]string{"POD_NAME": "a", "POD_NAMESPACE": "b", "INSTANCE_IP": "here"}, `"here" is not the pod's address`},
		{"Pilot without a port", []string{"proxy", "--id", "a", "--ip", "10.0.0.1", "--discoveryAddress", "pilot"}, nil, `"pilot" is not host:port`},
		{"draining longer than allowed", []string{"proxy", "--id", "a", "--ip", "10.0.0.1", "--drainDuration", "2m"}, nil, "is not longer than"},
		{"a range that is none", []string{"init", "-i", "10.0.0.0"}, nil, `"10.0.0.0" is not an IP range`},
		{"a port that is none", []string{"init", "-d", "22,x"}, nil, `"x" is not a port`},
		{"the proxy as root", []string{"init", "-u", "0"}, nil, "cannot be told from root's"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out, errs bytes.Buffer
			code := Main(t.Context(), tt.args, Streams{Out: &out, Err: &errs, Getenv: func(k string) string { return tt.env[k] }})
			if code != exitUsage || !strings.Contains(errs.String(), tt.want) {
				t.Errorf("exit %d, %s", code, errs.String())
			}
		})
	}
}

func TestInitPrintsItsRules(t *testing.T) {
	var out, errs bytes.Buffer
	// The flags of 0.2's script, and an empty list as its container had.
	code := Main(t.Context(), []string{"init", "-p", "15001", "-u", "1337", "-i", "10.0.0.0/8,fd00::/8", "-x", "", "--dry-run"}, Streams{Out: &out, Err: &errs})
	for _, want := range []string{"# IPv4", "-A MESH_OUTPUT -d 10.0.0.0/8 -j MESH_REDIRECT", "# IPv6", "-A MESH_OUTPUT -d fd00::/8 -j MESH_REDIRECT", "--to-ports 15001"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
	if code != exitOK || errs.Len() > 0 {
		t.Errorf("exit %d, %s", code, errs.String())
	}
}

func TestServerName(t *testing.T) {
	for address, want := range map[string]string{
		"istio-pilot.istio-system:15012":                   "istio-pilot.istio-system.svc",
		"istio-pilot.istio-system.svc:15012":               "istio-pilot.istio-system.svc",
		"istio-pilot.istio-system.svc.cluster.local:15012": "istio-pilot.istio-system.svc",
		"istio-pilot:15012":                                "istio-pilot.here.svc",
		"pilot.example.com:15012":                          "pilot.example.com",
		"127.0.0.1:15012":                                  "127.0.0.1",
		"[fd00::1]:15012":                                  "fd00::1",
		"localhost:15012":                                  "localhost",
	} {
		if got := serverName(address, "here"); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}

func TestConcurrency(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	tests := []struct {
		name string
		root fstest.MapFS
		want int
	}{
		{"one CPU", fstest.MapFS{"sys/fs/cgroup/cpu.max": file("100000 100000\n")}, 1},
		{"part of a CPU", fstest.MapFS{"sys/fs/cgroup/cpu.max": file("20000 100000\n")}, 1},
		{"one CPU of version 1", fstest.MapFS{"sys/fs/cgroup/cpu/cpu.cfs_quota_us": file("100000\n"), "sys/fs/cgroup/cpu/cpu.cfs_period_us": file("100000\n")}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := concurrency(tt.root); got != tt.want {
				t.Errorf("got %d, want %d", got, tt.want)
			}
		})
	}
	for name, root := range map[string]fstest.MapFS{
		"no limit":              {"sys/fs/cgroup/cpu.max": file("max 100000\n")},
		"no limit of version 1": {"sys/fs/cgroup/cpu/cpu.cfs_quota_us": file("-1\n"), "sys/fs/cgroup/cpu/cpu.cfs_period_us": file("100000\n")},
		"no control groups":     {},
	} {
		if got := concurrency(root); got < 1 || got > 2 {
			t.Errorf("%s: %d", name, got)
		}
	}
}
