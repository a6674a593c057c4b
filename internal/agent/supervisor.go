package agent

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// An Envoy that crashes is started again after a pause that doubles, and given up after so many crashes in a row; the kubelet then starts the
// whole container anew. One that ran for a while begins a new row.
const (
	firstPause = 200 * time.Millisecond
	lastPause  = 10 * time.Second
	maxCrashes = 10
	stable     = time.Minute
)

// supervisor keeps one Envoy running.
type supervisor struct {
	binary   string
	args     []string
	out, err io.Writer
	log      *slog.Logger
	restarts *atomic.Uint64
	// pause waits between crashes, and says whether to go on.
	pause func(context.Context, time.Duration) bool

	mu       sync.Mutex
	process  *os.Process
	gone     chan struct{} // closed when process has ended
	stopping bool
}

// run starts Envoy, again and again, until it is stopped; ending ctx kills it.
func (s *supervisor) run(ctx context.Context) error {
	pause, crashes := firstPause, 0
	for {
		began := time.Now()
		err := s.once(ctx)
		if ctx.Err() != nil || s.isStopping() {
			return nil //nolint:nilerr // it ended because it was to
		}
		if time.Since(began) > stable {
			pause, crashes = firstPause, 0
		}
		crashes++
		s.restarts.Add(1)
		if crashes >= maxCrashes {
			return fmt.Errorf("it ended %d times in a row, at last so: %w", crashes, err)
		}
		s.log.Error("Envoy ended by itself and is started again", "reason", err, "times", crashes, "after", pause)
		if !s.pause(ctx, pause) {
			return nil
		}
		pause = min(2*pause, lastPause)
	}
}

// once runs Envoy until it ends, and says how it did.
func (s *supervisor) once(ctx context.Context) error {
	cmd := exec.Command(s.binary, s.args...)
	cmd.Stdout, cmd.Stderr = s.out, s.err
	// Envoy does not outlive the agent, and gets its signals from the agent alone: it must drain before it stops.
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	s.mu.Lock()
	if s.stopping {
		s.mu.Unlock()
		return nil
	}
	if err := cmd.Start(); err != nil {
		s.mu.Unlock()
		return err
	}
	gone := make(chan struct{})
	s.process, s.gone = cmd.Process, gone
	s.mu.Unlock()
	s.log.Info("Envoy started", "pid", cmd.Process.Pid)

	kill := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err := cmd.Wait()
	kill()
	s.mu.Lock()
	s.process = nil
	s.mu.Unlock()
	close(gone)
	if err == nil {
		err = fmt.Errorf("exit status 0")
	}
	return err
}

// sleep is the usual pause.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (s *supervisor) isStopping() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stopping
}

// pid of the running Envoy; 0 for none.
func (s *supervisor) pid() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process == nil {
		return 0
	}
	return s.process.Pid
}

// signal is handed on to Envoy.
func (s *supervisor) signal(sig os.Signal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.process != nil {
		_ = s.process.Signal(sig)
	}
}

// stop asks Envoy to end, and after patience makes it.
func (s *supervisor) stop(patience time.Duration) {
	s.mu.Lock()
	s.stopping = true
	process, gone := s.process, s.gone
	s.mu.Unlock()
	if process == nil {
		return
	}
	_ = process.Signal(syscall.SIGTERM)
	select {
	case <-gone:
	case <-time.After(patience):
		s.log.Warn("Envoy does not end and is killed")
		_ = process.Kill()
		<-gone
	}
}
