package tour

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Said is what a command answered.
type Said struct {
	Stdout, Stderr string
	Exit           int
}

// bookinfoDir is where the tour's files are, and where its commands are typed.
const bookinfoDir = "rules/bookinfo"

// shell types one line into bash, in dir of the repository, and shows it with what came back. A line that does not exit as expected fails.
func (t *Tour) shell(ctx context.Context, dir, line string, wantExit int) (Said, error) {
	fmt.Fprintf(t.out, "%s\n", t.strong("$ "+line))
	s, err := t.Type(ctx, dir, line)
	for l := range strings.Lines(s.Stdout + s.Stderr) {
		fmt.Fprintf(t.out, "  %s\n", strings.TrimRight(l, "\n"))
	}
	if err != nil {
		return s, err
	}
	if s.Exit != wantExit {
		return s, fmt.Errorf("%q ended with exit status %d, want %d: %s", line, s.Exit, wantExit, strings.TrimSpace(s.Stderr))
	}
	return s, nil
}

// Type types a line into bash, in dir of the repository, without showing it.
func (t *Tour) Type(ctx context.Context, dir, line string) (Said, error) {
	cmd := exec.CommandContext(ctx, "bash", "-c", line)
	cmd.Dir = filepath.Join(t.root, dir)
	cmd.Env = t.env
	// An interrupt is for the tour, which then tidies up; its commands are told by the context.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	s := Said{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || ctx.Err() != nil) {
		return s, fmt.Errorf("running %q: %w", line, errors.Join(err, ctx.Err()))
	}
	return s, nil
}

// do types a line that must succeed, where the tour's files are.
func (t *Tour) do(ctx context.Context, line string) error {
	_, err := t.shell(ctx, bookinfoDir, line, 0)
	return err
}

// FindSite asks where the ingress answers, as the walk-through does: its node's address and its Service's first nodePort.
func (t *Tour) FindSite(ctx context.Context) (string, error) {
	host, err := t.shell(ctx, bookinfoDir, `kubectl get po -n istio-system -l istio=ingress -o jsonpath={.items[0].status.hostIP}`, 0)
	if err != nil {
		return "", err
	}
	port, err := t.shell(ctx, bookinfoDir, `kubectl get svc -n istio-system istio-ingress -o jsonpath={.spec.ports[0].nodePort}`, 0)
	if err != nil {
		return "", err
	}
	return "http://" + net.JoinHostPort(host.Stdout, port.Stdout), nil
}
