package sandbox

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A sandbox has a cgroup of its own at the top of every hierarchy the machine has mounted, and sees only that: its processes are started in
// it and then enter a cgroup namespace, so runc and the kubelet find a machine whose root is this subtree. Both layouts work: version 1, one
// hierarchy per controller, with or without version 2 at the side; and version 2 alone.

// hierarchy is one mounted cgroup hierarchy.
type hierarchy struct {
	// Mount is where the machine has it mounted, e.g. /sys/fs/cgroup/memory.
	Mount string
	// Options mount the same hierarchy again, e.g. "memory" or "none,name=systemd"; empty for version 2.
	Options string
}

func (h hierarchy) unified() bool { return h.Options == "" }

// cgroupRoot is where both the machine and the sandbox have their hierarchies.
const cgroupRoot = "/sys/fs/cgroup"

// neededControllers are those without which no container starts, and usedControllers those that the kubelet and runc use where they are.
// No others are shared out on the machine. Memory comes first: a cgroup that holds processes refuses it and stays as it is, while it would
// take cpu and pids, become the root of a tree of threads by that, and take no more processes below it.
var (
	neededControllers = [...]string{"cpu", "memory", "pids"}
	usedControllers   = [...]string{"memory", "io", "hugetlb", "cpu", "pids", "cpuset"}
)

// findCgroups lists the hierarchies below /sys/fs/cgroup.
func findCgroups() ([]hierarchy, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var found []hierarchy
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// 36 35 98:0 /root /mount options - type source superoptions
		before, after, ok := strings.Cut(lines.Text(), " - ")
		left, right := strings.Fields(before), strings.Fields(after)
		if !ok || len(left) < 5 || len(right) < 3 {
			continue
		}
		mount := left[4]
		if mount != cgroupRoot && filepath.Dir(mount) != cgroupRoot {
			continue
		}
		switch right[0] {
		case "cgroup2":
			found = append(found, hierarchy{Mount: mount})
		case "cgroup":
			var options []string
			for o := range strings.SplitSeq(right[2], ",") {
				if o == "rw" || o == "ro" || o == "clone_children" || strings.HasPrefix(o, "release_agent=") {
					continue
				}
				if strings.HasPrefix(o, "name=") {
					options = append(options, "none")
				}
				options = append(options, o)
			}
			found = append(found, hierarchy{Mount: mount, Options: strings.Join(options, ",")})
		}
	}
	if err := lines.Err(); err != nil {
		return nil, fmt.Errorf("reading mounts: %w", err)
	}
	if len(found) == 0 {
		return nil, errors.New("no cgroups are mounted: mount -t cgroup2 cgroup2 /sys/fs/cgroup")
	}
	var have []string
	for _, h := range found {
		have = append(have, strings.Split(h.Options, ",")...)
		if h.unified() && h.Mount == cgroupRoot {
			controllers, err := os.ReadFile(filepath.Join(h.Mount, "cgroup.controllers"))
			if err != nil {
				return nil, fmt.Errorf("reading cgroup controllers: %w", err)
			}
			have = append(have, strings.Fields(string(controllers))...)
		}
	}
	for _, controller := range neededControllers {
		if !slices.Contains(have, controller) {
			return nil, fmt.Errorf("cgroup controller %s is missing from %s: the kubelet cannot run on this machine", controller, cgroupRoot)
		}
	}
	return found, nil
}

// cgroupName is the name of the sandbox's cgroup: that of its state directory, so that sandboxes do not meet and a later command finds it.
func cgroupName(dir string) string {
	sum := sha256.Sum256([]byte(dir))
	return "meshbox-" + hex.EncodeToString(sum[:6])
}

// joinCgroups makes the sandbox's cgroup in every hierarchy and moves the calling process there. What it starts next begins there.
func joinCgroups(name string) error {
	hierarchies, err := findCgroups()
	if err != nil {
		return err
	}
	for _, h := range hierarchies {
		dir := filepath.Join(h.Mount, name)
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("making cgroup: %w", err)
		}
		if slices.Contains(strings.Split(h.Options, ","), "cpuset") {
			// A new cpuset is empty, and a process cannot enter it before it has what its parent has.
			for _, file := range []string{"cpuset.cpus", "cpuset.mems"} {
				value, err := os.ReadFile(filepath.Join(h.Mount, file))
				if err != nil {
					return fmt.Errorf("reading cgroup: %w", err)
				}
				if err := os.WriteFile(filepath.Join(dir, file), value, 0); err != nil {
					return fmt.Errorf("filling cgroup: %w", err)
				}
			}
		}
		if h.unified() && h.Mount == cgroupRoot {
			if err := enableControllers(h.Mount); err != nil {
				return err
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("entering cgroup: %w", err)
		}
	}
	return nil
}

// enableControllers gives the children of a version 2 cgroup those of the used controllers that it has itself.
func enableControllers(dir string) error {
	controllers, err := os.ReadFile(filepath.Join(dir, "cgroup.controllers"))
	if err != nil {
		return fmt.Errorf("reading cgroup controllers: %w", err)
	}
	enabled, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
	if err != nil {
		return fmt.Errorf("reading cgroup controllers: %w", err)
	}
	for _, controller := range usedControllers {
		if !slices.Contains(strings.Fields(string(controllers)), controller) || slices.Contains(strings.Fields(string(enabled)), controller) {
			continue
		}
		// One at a time: a controller that cannot be had (rt processes hold cpu, for instance) must not cost the others.
		err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		// The process that started this one is still on its way out of the cgroup.
		for tries := 0; errors.Is(err, syscall.EBUSY) && tries < 50; tries++ {
			time.Sleep(10 * time.Millisecond)
			err = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+controller), 0)
		}
		if errors.Is(err, syscall.EBUSY) && slices.Contains(neededControllers[:], controller) {
			// Only the machine's own root may do both: keep processes and share out controllers. The root that a container sees is not it.
			return fmt.Errorf("%[1]s cannot share out %[2]s as it holds processes: mkdir -p %[1]s/init && "+
				"for p in $(cat %[1]s/cgroup.procs); do echo $p > %[1]s/init/cgroup.procs; done", dir, controller)
		}
		if err != nil && slices.Contains(neededControllers[:], controller) {
			return fmt.Errorf("enabling cgroup controller %s in %s: %w", controller, dir, err)
		}
	}
	return nil
}

// mountCgroups gives the sandbox its own view, from inside its mount and cgroup namespaces, after /sys was mounted anew.
func mountCgroups(hierarchies []hierarchy) error {
	const flags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC
	// Beside version 2 at the root, some programs mount a hierarchy of version 1 for themselves: it is nothing to the kubelet.
	if slices.ContainsFunc(hierarchies, func(h hierarchy) bool { return h.unified() && h.Mount == cgroupRoot }) {
		if err := unix.Mount("cgroup2", cgroupRoot, "cgroup2", flags, ""); err != nil {
			return fmt.Errorf("mounting cgroups: %w", err)
		}
		// Version 2 lets no process stay in a cgroup that shares out controllers.
		leaf := filepath.Join(cgroupRoot, "supervisor")
		if err := os.Mkdir(leaf, 0o755); err != nil {
			return fmt.Errorf("making cgroup: %w", err)
		}
		if err := os.WriteFile(filepath.Join(leaf, "cgroup.procs"), []byte("0"), 0); err != nil {
			return fmt.Errorf("entering cgroup: %w", err)
		}
		return enableControllers(cgroupRoot)
	}
	if err := unix.Mount("tmpfs", cgroupRoot, "tmpfs", flags, "mode=755"); err != nil {
		return fmt.Errorf("mounting cgroups: %w", err)
	}
	for _, h := range hierarchies {
		if err := os.MkdirAll(h.Mount, 0o755); err != nil {
			return fmt.Errorf("mounting cgroups: %w", err)
		}
		kind := "cgroup"
		if h.unified() {
			kind = "cgroup2"
		}
		if err := unix.Mount(kind, h.Mount, kind, flags, h.Options); err != nil {
			return fmt.Errorf("mounting cgroup hierarchy %s: %w", h.Mount, err)
		}
		// Hierarchies with two controllers are also found by either name.
		if names := strings.Split(h.Options, ","); len(names) > 1 && names[0] != "none" {
			for _, name := range names {
				err := os.Symlink(filepath.Base(h.Mount), filepath.Join(cgroupRoot, name))
				if err != nil && !errors.Is(err, fs.ErrExist) {
					return fmt.Errorf("mounting cgroups: %w", err)
				}
			}
		}
	}
	return nil
}

// removeCgroups removes the sandbox's cgroups. Its processes are dead or dying: the kernel may need a moment to empty them.
func removeCgroups(name string, timeout time.Duration) error {
	hierarchies, err := findCgroups()
	if err != nil {
		return err
	}
	deadline := time.Now().Add(timeout)
	for _, h := range hierarchies {
		top := filepath.Join(h.Mount, name)
		for {
			err := removeCgroup(top)
			if err == nil {
				break
			}
			if !errors.Is(err, syscall.EBUSY) || time.Now().After(deadline) {
				return fmt.Errorf("removing cgroup: %w", err)
			}
			time.Sleep(20 * time.Millisecond)
		}
	}
	return nil
}

// removeCgroup removes a cgroup and those below it, the deepest first.
func removeCgroup(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := removeCgroup(filepath.Join(dir, e.Name())); err != nil {
				return err
			}
		}
	}
	if err := syscall.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return &fs.PathError{Op: "rmdir", Path: dir, Err: err}
	}
	return nil
}

// memoryOf is the anonymous memory of everything in the sandbox, in bytes.
func memoryOf(name string) int64 {
	hierarchies, err := findCgroups()
	if err != nil {
		return 0
	}
	for _, h := range hierarchies {
		data, err := os.ReadFile(filepath.Join(h.Mount, name, "memory.stat"))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(data)) {
			var n int64
			if _, err := fmt.Sscanf(line, "total_rss %d", &n); err == nil {
				return n
			}
			if _, err := fmt.Sscanf(line, "anon %d", &n); err == nil && h.unified() {
				return n
			}
		}
	}
	return 0
}
