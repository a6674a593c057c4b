package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that there is no sandbox in the state directory.
var ErrNotRunning = errors.New("no sandbox is running: meshctl sandbox up")

// deadline for what the kernel does at once and a loaded machine a little later.
const killTimeout = 30 * time.Second

// Down takes the sandbox down and removes its state directory. It says whether there was anything to take down, and may be repeated:
// whatever an `up`, a crash or a kill left is gone after it.
func Down(dir string) (bool, error) {
	if os.Geteuid() != 0 {
		return false, errors.New("a sandbox needs root: run it with sudo")
	}
	dir, err := resolve(dir)
	if err != nil {
		return false, err
	}
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		// The directory may have been removed by hand while cgroups remained.
		return false, removeCgroups(cgroupName(dir), killTimeout)
	}
	if !isFile(state(dir).lock()) {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return false, err
		}
		if len(entries) > 0 {
			return false, fmt.Errorf("%s is not the state directory of a sandbox", dir)
		}
	}
	if err := kill(dir); err != nil {
		return false, err
	}
	lock, err := takeLock(dir)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := removeRemains(dir); err != nil {
		return true, err
	}
	return true, os.RemoveAll(dir)
}

// kill ends the supervisor, and with it, by the kernel's doing, everything in the sandbox. It returns when nothing of it runs.
func kill(dir string) error {
	deadline := time.Now().Add(killTimeout)
	for {
		lock, err := takeLock(dir)
		if err == nil {
			lock.Close()
			break
		}
		if !errors.Is(err, errLocked) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sandbox in %s does not end: another command may be at work on it", dir)
		}
		// Whoever holds the lock is the supervisor, once it wrote its number; before that, it soon will.
		data, err := os.ReadFile(state(dir).pid())
		if errors.Is(err, fs.ErrNotExist) {
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if err != nil {
			return err
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(data)))
		if err != nil {
			return fmt.Errorf("reading %s: %w", state(dir).pid(), err)
		}
		if err := killAndWait(pid, cgroupName(dir), deadline); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	return removeCgroups(cgroupName(dir), time.Until(deadline))
}

func killAndWait(pid int, cgroup string, deadline time.Time) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("finding the supervisor: %w", err)
	}
	defer unix.Close(fd)
	// The number may be that of a supervisor long gone, and another process may bear it now: ours are in our cgroup.
	cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
	if err != nil || !strings.Contains(string(cgroups), "/"+cgroup) {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("ending the supervisor: %w", err)
	}
	for {
		// Readable when the process has ended, and PID 1 of a namespace ends after everyone else in it.
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(time.Until(deadline).Milliseconds()))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("waiting for the supervisor's end: %w", err)
		}
		if n == 0 {
			return fmt.Errorf("the supervisor (process %d) does not end", pid)
		}
		return nil
	}
}

// removeRemains removes what outlives processes and namespaces: cgroups and files. The caller holds the lock, and the lock file stays.
func removeRemains(dir string) error {
	if err := removeCgroups(cgroupName(dir), killTimeout); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.Name() == "lock" {
			continue
		}
		if err := os.RemoveAll(state(dir).path(e.Name())); err != nil {
			return fmt.Errorf("removing the sandbox's files: %w", err)
		}
	}
	return nil
}

// running is the resolved directory of a sandbox that answers, or ErrNotRunning.
func running(dir string) (string, error) {
	dir, err := resolve(dir)
	if err != nil {
		return "", err
	}
	if !isFile(state(dir).lock()) {
		return "", ErrNotRunning
	}
	lock, err := takeLock(dir)
	if err == nil {
		lock.Close()
		return "", ErrNotRunning
	}
	if !errors.Is(err, errLocked) {
		return "", err
	}
	return dir, nil
}

// GetStatus asks the sandbox how it is. One that is not there is Down, which is no error.
func GetStatus(ctx context.Context, dir string) (Status, error) {
	resolved, err := running(dir)
	if errors.Is(err, ErrNotRunning) {
		return Status{State: StateDown, Dir: dir}, nil
	}
	if err != nil {
		return Status{}, err
	}
	c := dialControl(resolved)
	var st Status
	err = c.get(ctx, "/status", &st)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		// The supervisor lives and its socket is not there yet.
		return Status{State: StateStarting, Dir: resolved}, nil
	}
	if err != nil {
		return Status{}, fmt.Errorf("asking the supervisor: %w", err)
	}
	if st.State == StateRunning {
		if err := c.get(ctx, "/images", &st.Images); err != nil {
			return st, fmt.Errorf("listing images: %w", err)
		}
	}
	st.Kubeconfig = state(resolved).kubeconfig()
	st.Memory = memoryOf(cgroupName(resolved))
	if st.API, err = apiAddress(st.Kubeconfig); err != nil {
		return st, err
	}
	data, err := os.ReadFile(state(resolved).pid())
	if err != nil {
		return st, err
	}
	if st.PID, err = strconv.Atoi(strings.TrimSpace(string(data))); err != nil {
		return st, fmt.Errorf("reading %s: %w", state(resolved).pid(), err)
	}
	// Inside, processes have other numbers than out here.
	outer, err := machinePIDs(st.PID)
	if err != nil {
		return st, err
	}
	for i := range st.Components {
		st.Components[i].PID = outer[st.Components[i].PID]
	}
	return st, nil
}
