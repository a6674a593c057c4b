package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
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
	ours, err := owned(dir)
	if err != nil && !errors.Is(err, ErrForeign) {
		return false, err
	}
	if !ours {
		// The directory may have been removed by hand while the sandbox ran, and whatever is there now is not its.
		was, left := clearCgroups(cgroupName(dir), time.Now().Add(killTimeout))
		return was, errors.Join(err, left)
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
	return true, removeDir(dir)
}

// removeDir removes the state directory from which all but the lock was removed. What somebody else put there stays, and the directory with
// it, which is no sandbox's any more.
func removeDir(dir string) error {
	if err := os.Remove(state(dir).lock()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("removing the sandbox's files: %w", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("removing the sandbox's files: %w", err)
	}
	if len(left) > 0 {
		return fmt.Errorf("the sandbox is gone, but %s stays: %s in it was not the sandbox's", dir, left[0].Name())
	}
	return os.Remove(dir)
}

// kill ends the supervisor, and with it, by the kernel's doing, everything in the sandbox. It returns when nothing of it runs.
func kill(dir string) error {
	deadline := time.Now().Add(killTimeout)
	for {
		lock, err := takeLock(dir)
		if err == nil {
			// Nobody brings another one up before this one's cgroups are gone.
			defer lock.Close()
			_, err := clearCgroups(cgroupName(dir), deadline)
			return err
		}
		if !errors.Is(err, errLocked) {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the sandbox in %s does not end: another command may be at work on it", dir)
		}
		// Whoever holds the lock is the supervisor, once it is in the cgroup; before that, it soon will be.
		if _, err := killCgroups(cgroupName(dir), deadline); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// clearCgroups ends what is in the sandbox's cgroups and removes them. It says whether there was anything to end.
func clearCgroups(name string, deadline time.Time) (bool, error) {
	was, err := killCgroups(name, deadline)
	if err != nil {
		return was, err
	}
	return was, removeCgroups(name, time.Until(deadline))
}

// killCgroups ends the processes in the sandbox's cgroups, and only those, and waits for their end. It says whether there were any.
func killCgroups(name string, deadline time.Time) (bool, error) {
	was := false
	for {
		pids, err := processesIn(name)
		if err != nil || len(pids) == 0 {
			return was, err
		}
		was = true
		if err := killAndWait(pids, name, deadline); err != nil {
			return was, err
		}
		if time.Now().After(deadline) {
			return was, fmt.Errorf("the sandbox's processes do not end: %v", pids)
		}
		// Some may have begun others meanwhile.
		time.Sleep(10 * time.Millisecond)
	}
}

// processesIn lists the processes in the cgroup of that name and those below it, in every hierarchy.
func processesIn(name string) ([]int, error) {
	hierarchies, err := findCgroups()
	if err != nil {
		return nil, err
	}
	found := map[int]bool{}
	for _, h := range hierarchies {
		err := filepath.WalkDir(filepath.Join(h.Mount, name), func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.Name() == "cgroup.procs" {
				var data []byte
				data, err = os.ReadFile(path)
				for field := range strings.FieldsSeq(string(data)) {
					// 0 is a process of another PID namespace, which this one cannot name.
					if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
						found[pid] = true
					}
				}
			}
			// A cgroup may be removed while we look, and one of threads lists none.
			if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) {
				return nil
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("finding the sandbox's processes: %w", err)
		}
	}
	return slices.Sorted(maps.Keys(found)), nil
}

// killAndWait ends all of pids that are in the cgroup, and returns when they have ended.
func killAndWait(pids []int, cgroup string, deadline time.Time) error {
	dying := map[int]int{}
	defer func() {
		for _, fd := range dying {
			unix.Close(fd)
		}
	}()
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		if err != nil {
			return fmt.Errorf("finding process %d of the sandbox: %w", pid, err)
		}
		dying[pid] = fd
		// The number may have been that of a process that is gone, and another may bear it now: ours are in our cgroup.
		cgroups, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", pid))
		if err != nil || !strings.Contains(string(cgroups), "/"+cgroup) {
			unix.Close(fd)
			delete(dying, pid)
			continue
		}
		if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("ending process %d of the sandbox: %w", pid, err)
		}
	}
	for pid, fd := range dying {
		// Readable when the process has ended, and PID 1 of a namespace ends after everyone else in it.
		for {
			n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(max(0, time.Until(deadline)).Milliseconds()))
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return fmt.Errorf("waiting for the sandbox's end: %w", err)
			}
			if n == 0 {
				return fmt.Errorf("process %d of the sandbox does not end", pid)
			}
			break
		}
	}
	return nil
}

// removeRemains removes what outlives the supervisor: files, cgroups, and processes that had lost it. The caller holds the lock, and the
// lock file stays.
func removeRemains(dir string) error {
	if _, err := clearCgroups(cgroupName(dir), time.Now().Add(killTimeout)); err != nil {
		return err
	}
	for _, name := range contents {
		if err := os.RemoveAll(state(dir).path(name)); err != nil {
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
	ours, err := owned(dir)
	if err != nil && !errors.Is(err, ErrForeign) {
		return "", err
	}
	if !ours {
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
