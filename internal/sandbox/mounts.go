package sandbox

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// masked directories of the machine are replaced inside, so that nothing is written there and no socket of the machine's services is seen.
var masked = [...]string{"/run", "/var/lib", "/var/log"}

// setUpMounts arranges the filesystem, from inside the sandbox's mount namespace. It changes the settings' paths that are masked.
func setUpMounts(s *settings) error {
	// Nothing mounted here may reach the machine; within the sandbox, volumes with mount propagation need shared mounts.
	for _, flag := range []uintptr{unix.MS_PRIVATE, unix.MS_SHARED} {
		if err := unix.Mount("", "/", "", unix.MS_REC|flag, ""); err != nil {
			return fmt.Errorf("detaching mounts: %w", err)
		}
	}
	// The state directory and our programs may lie under what is masked next: hold on to them first.
	dir, err := cloneMount(s.Dir)
	if err != nil {
		return err
	}
	programs, err := holdMasked(s)
	if err != nil {
		return err
	}
	const flags = unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("tmpfs", "/run", "tmpfs", flags, "mode=755"); err != nil {
		return fmt.Errorf("mounting /run: %w", err)
	}
	if err := placeMount(dir, inside); err != nil {
		return err
	}
	for fd, target := range programs {
		if err := placeMount(fd, target); err != nil {
			return err
		}
	}
	for _, m := range masked[1:] {
		source := filepath.Join(inside, "root", m)
		if err := os.MkdirAll(source, 0o755); err != nil {
			return err
		}
		if err := bind(source, m); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", "/proc", "proc", flags|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /proc: %w", err)
	}
	if err := unix.Mount("sysfs", "/sys", "sysfs", flags|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mounting /sys: %w", err)
	}
	if err := mountCgroups(s.Hierarchies); err != nil {
		return err
	}
	// The kubelet sets these where they differ, and they are the whole machine's: it finds what it wants and writes nothing.
	for name, value := range map[string]string{
		"vm/overcommit_memory": "1", "vm/panic_on_oom": "0", "kernel/panic": "10", "kernel/panic_on_oops": "1",
		"kernel/keys/root_maxkeys": "1000000", "kernel/keys/root_maxbytes": "25000000",
	} {
		target := filepath.Join("/proc/sys", name)
		if !isFile(target) {
			continue
		}
		source := filepath.Join(inside, "sysctl", strings.ReplaceAll(name, "/", "."))
		if err := os.MkdirAll(filepath.Dir(source), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(source, []byte(value+"\n"), 0o644); err != nil {
			return err
		}
		if err := bind(source, target); err != nil {
			return err
		}
	}
	// Pods on the node's network resolve names as all others do.
	resolv := filepath.Join(inside, "resolv.conf")
	if err := os.WriteFile(resolv, []byte("search svc.cluster.local cluster.local\nnameserver "+dnsServiceIP+"\n"), 0o644); err != nil {
		return err
	}
	if isFile("/etc/resolv.conf") {
		return bind(resolv, "/etc/resolv.conf")
	}
	return nil
}

// holdMasked finds the program directories that a mask would hide and gives them a new place: by file descriptor, the place each gets.
func holdMasked(s *settings) (map[int]string, error) {
	held := map[int]string{}
	places := map[string]string{}
	move := func(dir *string) error {
		hidden := false
		for _, m := range masked {
			hidden = hidden || strings.HasPrefix(*dir+"/", m+"/")
		}
		if !hidden || !isDir(*dir) {
			return nil
		}
		place, ok := places[*dir]
		if !ok {
			fd, err := cloneMount(*dir)
			if err != nil {
				return err
			}
			place = fmt.Sprintf("/run/programs/%d", len(places))
			places[*dir], held[fd] = place, place
		}
		*dir = place
		return nil
	}
	dirs := []*string{&s.Programs.CNI}
	for i := range s.Programs.Path {
		dirs = append(dirs, &s.Programs.Path[i])
	}
	for i := range s.Programs.Libraries {
		dirs = append(dirs, &s.Programs.Libraries[i])
	}
	for _, dir := range dirs {
		if err := move(dir); err != nil {
			return nil, err
		}
	}
	files := []*string{&s.Programs.Meshbox}
	for i := range s.Programs.IPTables {
		files = append(files, &s.Programs.IPTables[i])
	}
	for _, file := range files {
		dir := filepath.Dir(*file)
		if err := move(&dir); err != nil {
			return nil, err
		}
		*file = filepath.Join(dir, filepath.Base(*file))
	}
	return held, nil
}

func cloneMount(dir string) (int, error) {
	fd, err := unix.OpenTree(unix.AT_FDCWD, dir, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("holding %s: %w", dir, err)
	}
	return fd, nil
}

func placeMount(fd int, target string) error {
	defer unix.Close(fd)
	if err := os.MkdirAll(target, 0o755); err != nil {
		return err
	}
	if err := unix.MoveMount(fd, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH); err != nil {
		return fmt.Errorf("placing %s: %w", target, err)
	}
	return nil
}

func bind(source, target string) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mounting %s: %w", target, err)
	}
	return nil
}
