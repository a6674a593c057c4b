package agent

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/meshctl/meshctl/internal/testkit/freeport"
	"github.com/meshctl/meshctl/internal/testkit/pilot"
)

// As the first process of a container the agent inherits processes whose parents are gone; dead ones must not pile up.
func TestTheFirstProcessReapsOrphans(t *testing.T) {
	if testing.Short() || os.Geteuid() != 0 {
		if os.Getenv("CI") != "" && !testing.Short() {
			t.Fatal("process namespaces need root")
		}
		t.Skip("SKIPPED, nothing was reaped: process namespaces need root")
	}
	dir := t.TempDir()
	envoy := filepath.Join(dir, "envoy")
	script := fmt.Sprintf("#!/bin/sh\nsh -c '(sleep 0.2; echo $$; touch %s/ended) &'\nexec sleep 1000\n", dir)
	if err := os.WriteFile(envoy, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root.pem", "token"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("unshare", "--pid", "--fork", "--mount-proc", "--kill-child", os.Args[0], "proxy", "--id", "a", "--ip", "127.0.0.1",
		"--configPath", dir, "--binaryPath", envoy, "--rootCert", filepath.Join(dir, "root.pem"), "--token", filepath.Join(dir, "token"),
		"--statusPort", fmt.Sprint(freeport.For(t)), "--proxyAdminPort", fmt.Sprint(freeport.For(t)), "--discoveryAddress", "127.0.0.1:1")
	cmd.Env = append(os.Environ(), "MESHAGENT_TEST_MAIN=1")
	log := &safeBuffer{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("the agent said:\n%s", log)
		}
	})
	pilot.Eventually(t, "the orphan has ended", func() error {
		_, err := os.Stat(filepath.Join(dir, "ended"))
		return err
	})
	pilot.Eventually(t, "no zombie is left", func() error {
		agents := children(cmd.Process.Pid)
		if len(agents) != 1 {
			return fmt.Errorf("unshare has children %v", agents)
		}
		living := 0
		for _, pid := range children(agents[0]) {
			if state(pid) == "Z" {
				return fmt.Errorf("process %d is a zombie", pid)
			}
			living++
		}
		if living != 1 { // what stands for Envoy
			return fmt.Errorf("%d children live, want what stands for Envoy", living)
		}
		return nil
	})
}

// stat gives state and parent of a process.
func stat(pid int) (state string, parent int) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0
	}
	_, _ = fmt.Sscan(string(text[strings.LastIndexByte(string(text), ')')+1:]), &state, &parent)
	return state, parent
}

func state(pid int) string {
	s, _ := stat(pid)
	return s
}

func children(of int) []int {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		var pid int
		if _, err := fmt.Sscanf(e, "/proc/%d", &pid); err != nil {
			continue
		}
		if _, parent := stat(pid); parent == of {
			out = append(out, pid)
		}
	}
	return out
}
