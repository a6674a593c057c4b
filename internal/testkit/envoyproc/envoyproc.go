// Package envoyproc runs the real Envoy for tests: it validates configurations and starts proxies.
//
// The binary is the one MESHCTL_ENVOY names, else .cache/tools/envoy of the repository, which `make tools` brings. Without it a test is skipped,
// and fails where CI is set.
package envoyproc

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Path of the Envoy binary.
func Path(t testing.TB) string {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED, nothing was tested with Envoy: it is not for -short")
	}
	path, err := find()
	if err != nil {
		if os.Getenv("CI") != "" {
			t.Fatal(err)
		}
		t.Skipf("SKIPPED, nothing was tested with Envoy: %v", err)
	}
	return path
}

func find() (string, error) {
	if path := os.Getenv("MESHCTL_ENVOY"); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("finding Envoy as MESHCTL_ENVOY says: %w", err)
		}
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("finding Envoy: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			path := filepath.Join(dir, ".cache", "tools", "envoy")
			if _, err := os.Stat(path); err != nil {
				return "", fmt.Errorf("finding Envoy: %w", err)
			}
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("finding Envoy: not inside the repository, and MESHCTL_ENVOY is not set")
		}
		dir = parent
	}
}

// Validate lets Envoy judge a bootstrap as it would at its start, and fails t with Envoy's words when it refuses it or calls anything in it
// deprecated.
func Validate(t testing.TB, bootstrap []byte) {
	t.Helper()
	file := write(t, bootstrap)
	cmd := exec.CommandContext(t.Context(), Path(t), "--mode", "validate", "-c", file, "-l", "warning", "--concurrency", "1", "--disable-hot-restart")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("Envoy refuses the configuration: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "deprecated") || strings.Contains(line, "Unknown field") {
			t.Errorf("Envoy warns: %s", line)
		}
	}
}

// Options of a proxy.
type Options struct {
	// Start starts the command in its own way, for instance in another network namespace.
	Start func(*exec.Cmd) error
	// UID and GID are the proxy's when not 0.
	UID, GID uint32
	// Admin is the address of the admin interface as the bootstrap has it. It is asked for readiness by Client.
	Admin string
	// Client reaches Admin; the default client when nil.
	Client *http.Client
}

// Proc is a running Envoy. It stops with the test.
type Proc struct {
	opt  Options
	cmd  *exec.Cmd
	log  *buffer
	done chan struct{}
}

// Start runs Envoy with the bootstrap and waits until it is live.
func Start(t testing.TB, bootstrap []byte, opt Options) *Proc {
	t.Helper()
	cmd := exec.Command(Path(t), "-c", write(t, bootstrap), "-l", "warning", "--concurrency", "1", "--disable-hot-restart", "--file-flush-interval-msec", "50")
	p := &Proc{opt: opt, cmd: cmd, log: &buffer{}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.log, p.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if opt.UID != 0 {
		cmd.SysProcAttr.Credential = &syscall.Credential{Uid: opt.UID, Gid: opt.GID}
	}
	launch := opt.Start
	if launch == nil {
		launch = (*exec.Cmd).Start
	}
	if err := launch(cmd); err != nil {
		t.Fatalf("starting Envoy: %v", err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("Envoy said:\n%s", p.log)
		}
	})
	p.waitLive(t)
	return p
}

// Stop ends the proxy at once and waits for it.
func (p *Proc) Stop() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// Log is what the proxy has written so far.
func (p *Proc) Log() string { return p.log.String() }

// PID of the process.
func (p *Proc) PID() int { return p.cmd.Process.Pid }

// Admin asks the admin interface for path.
func (p *Proc) Admin(ctx context.Context, path string) (status int, body string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.opt.Admin+path, nil)
	if err != nil {
		return 0, "", err
	}
	client := p.opt.Client
	if client == nil {
		client = http.DefaultClient
	}
	resp, err := client.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func (p *Proc) waitLive(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		if status, _, err := p.Admin(ctx, "/ready"); err == nil && status == http.StatusOK {
			return
		}
		select {
		case <-p.done:
			t.Fatalf("Envoy ended: %v\n%s", p.cmd.ProcessState, p.log)
		case <-ctx.Done():
			t.Fatalf("Envoy is not live after 20 s:\n%s", p.log)
		case <-tick.C:
		}
	}
}

func write(t testing.TB, bootstrap []byte) string {
	t.Helper()
	dir := t.TempDir()
	// A proxy with a user of its own reads it, too.
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatalf("opening %s: %v", d, err)
		}
	}
	file := filepath.Join(dir, "envoy.json")
	if err := os.WriteFile(file, bootstrap, 0o644); err != nil {
		t.Fatalf("writing the bootstrap: %v", err)
	}
	return file
}

// buffer may be read while the process writes.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
