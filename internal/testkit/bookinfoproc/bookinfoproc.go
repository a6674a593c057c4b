// Package bookinfoproc runs Bookinfo's services as the processes they are, for tests.
//
// It starts the program called "bookinfo" on the PATH, which a test package puts there with testscript.Main.
package bookinfoproc

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	startTimeout = 20 * time.Second
	stopTimeout  = 20 * time.Second
)

// Proc is one running service.
type Proc struct {
	// Addr is where it listens, host:port on loopback.
	Addr string

	cmd    *exec.Cmd
	done   chan struct{} // closed once it ended and err is set
	err    error
	killed bool

	mu  sync.Mutex
	log strings.Builder
}

// Start runs "bookinfo args..." on a free port and returns once it listens. The test's end stops it and expects a clean exit.
func Start(t testing.TB, env []string, args ...string) *Proc {
	t.Helper()
	p := &Proc{cmd: exec.Command("bookinfo", append(args, "--port", "0")...), done: make(chan struct{})}
	// A program under the race detector sleeps a second before it ends, unless told not to.
	p.cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatalf("starting bookinfo %v: %v", args, err)
	}
	address := make(chan string, 1)
	go func() {
		lines := bufio.NewScanner(stderr)
		for lines.Scan() {
			p.mu.Lock()
			p.log.WriteString(lines.Text() + "\n")
			p.mu.Unlock()
			var line struct{ Msg, Address string }
			if json.Unmarshal(lines.Bytes(), &line) == nil && line.Msg == "listening" {
				address <- line.Address
			}
		}
		p.err = p.cmd.Wait()
		close(p.done)
	}()
	t.Cleanup(func() {
		p.Terminate(t)
		if err := p.Wait(t); err != nil && !p.killed {
			t.Errorf("bookinfo %v ended with %v", args, err)
		}
		if t.Failed() {
			t.Logf("log of bookinfo %v:\n%s", args, p.Log())
		}
	})
	select {
	case a := <-address:
		p.Addr = "127.0.0.1" + a[strings.LastIndexByte(a, ':'):]
	case <-p.done:
		t.Fatalf("bookinfo %v ended at once: %v\n%s", args, p.err, p.Log())
	case <-time.After(startTimeout):
		t.Fatalf("bookinfo %v does not listen after %s", args, startTimeout)
	}
	return p
}

// Terminate asks the process to stop, as a kubelet would.
func (p *Proc) Terminate(t testing.TB) {
	t.Helper()
	select {
	case <-p.done:
	default:
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Logf("signalling bookinfo: %v", err)
		}
	}
}

// Kill ends the process at once, which then counts as a clean end.
func (p *Proc) Kill() {
	p.killed = true
	_ = p.cmd.Process.Kill() // fails only if it has ended already
	<-p.done
}

// Wait is how the process ended.
func (p *Proc) Wait(t testing.TB) error {
	t.Helper()
	select {
	case <-p.done:
	case <-time.After(stopTimeout):
		t.Errorf("bookinfo still runs %s after it was asked to stop", stopTimeout)
		_ = p.cmd.Process.Kill() // it may have ended meanwhile
		<-p.done
	}
	return p.err
}

// Log is what the process wrote to stderr so far.
func (p *Proc) Log() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.String()
}
