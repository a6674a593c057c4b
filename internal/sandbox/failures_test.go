package sandbox

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestWhatIsMissingIsSaidWithTheCommandThatMendsIt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	bin := filepath.Join(t.TempDir(), "bin")
	_, err := FindPrograms(filepath.Join(bin, "meshctl"))
	if err == nil {
		t.Fatal("nothing is missing")
	}
	for _, want := range []string{
		filepath.Join(bin, "meshbox") + " is missing: make it with `make build`",
		"containerd is missing: apt-get install containerd",
		"ctr is missing: apt-get install containerd",
	} {
		if !strings.Contains(err.Error()+"\n", want+"\n") {
			t.Errorf("%q is not a line of\n%v", want, err)
		}
	}
}

func TestInARepositoryTheCommandIsItsOwn(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	repository := t.TempDir()
	if err := os.MkdirAll(filepath.Join(repository, ".ci"), 0o755); err != nil {
		t.Fatal(err)
	}
	deps := filepath.Join(repository, ".ci", "deps")
	if err := os.WriteFile(deps, nil, 0o755); err != nil {
		t.Fatal(err)
	}
	_, err := FindPrograms(filepath.Join(repository, "bin", "meshctl"))
	if want := "containerd is missing: " + deps + " sandbox"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%q is not in\n%v", want, err)
	}
}

func TestAnUpThatIsInterruptedLeavesNothing(t *testing.T) {
	l := newLab(t)
	before := lookAtMachine(t, l.config.Programs)
	ctx, interrupt := context.WithCancel(t.Context())
	defer interrupt()
	var had []process
	l.config.Progress = func(phase string, _ time.Duration) {
		if phase == PhaseContainers {
			had = processesOf(t, l.dir)
			interrupt()
		}
	}
	if _, err := Up(ctx, l.config); !errors.Is(err, context.Canceled) {
		t.Errorf("up says %v", err)
	}
	if len(had) < 2 {
		t.Errorf("when it was interrupted its processes were %v", had)
	}
	gone(t, l.dir, had)
	before.compare(t, lookAtMachine(t, l.config.Programs))
}

func TestAnUpThatGetsNowhereSaysWhichComponentEndsAndWhatItSaid(t *testing.T) {
	l := newLab(t)
	// The first containerd on the path is one that fails.
	broken := t.TempDir()
	if err := os.WriteFile(filepath.Join(broken, "containerd"), []byte("#!/bin/sh\necho out of luck >&2\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	l.config.Programs.Path = append([]string{broken}, l.config.Programs.Path...)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	_, err := Up(ctx, l.config)
	if !errors.Is(err, ErrTimeout) || !strings.Contains(err.Error(), "containerd ended") ||
		!strings.Contains(err.Error(), "exit status 7") || !strings.Contains(err.Error(), "out of luck") {
		t.Errorf("up says %v", err)
	}
	if left := processesOf(t, l.dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
}

func TestTheStateDirectoryIsRootsBelowDirectoriesOfTheCaller(t *testing.T) {
	needsMachine(t)
	top := t.TempDir()
	dir := filepath.Join(top, "a", "b", "sandbox")
	if err := makeDir(dir, Owner{UID: 1234, GID: 1235}); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]uint32{top: 0, filepath.Join(top, "a"): 1234, filepath.Join(top, "a", "b"): 1234, dir: 0} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if uid := info.Sys().(*syscall.Stat_t).Uid; uid != want {
			t.Errorf("%s belongs to %d, want %d", path, uid, want)
		}
	}
	if err := makeDir(dir, Owner{}); err != nil {
		t.Errorf("making it again: %v", err)
	}
}
