package tour

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

// FindSite is where this machine reaches the ingress: the sandbox offers each node port on loopback, under another number where another
// sandbox has taken it already.
func (t *Tour) FindSite(ctx context.Context) (string, error) {
	var site string
	err := until(ctx, "the ingress has a port", func(ctx context.Context) error {
		s, err := t.Type(ctx, ".", "meshctl sandbox status -o json")
		if err != nil {
			return err
		}
		var status struct {
			NodePorts []struct{ Namespace, Service, Port, Address string }
		}
		if err := json.Unmarshal([]byte(s.Stdout), &status); err != nil {
			return fmt.Errorf("reading the sandbox's state: %w: %s", err, s.Stderr)
		}
		for _, p := range status.NodePorts {
			if p.Namespace == "istio-system" && p.Service == "istio-ingress" && p.Port == "http" {
				site = "http://" + p.Address
				return nil
			}
		}
		return errors.New("the Service istio-ingress has no open node port named http")
	})
	return site, err
}
