package sandbox

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A state directory is removed as root with all that is in it, and its name comes from a flag or the environment: a slip of the finger must
// not cost anybody's files. A directory is a sandbox's only when its lock file begins with the line below, which is written into nothing but
// a new or empty directory; and in it only names of our own are removed.

// ErrForeign says that a directory holds what no sandbox put there, so that none is made in it or removed with it.
var ErrForeign = errors.New("it is not the state directory of a sandbox")

// lockName is the lock file's name.
const lockName = "meshbox.sandbox"

// marker is the first line of the lock file.
const marker = "The state directory of a meshctl sandbox: `meshctl sandbox down` removes it.\n"

// contents are the names that a sandbox makes in its state directory, besides the lock.
var contents = [...]string{
	"bin", "cni", "containerd", "containerd.toml", "control.sock", "Corefile", "etcd", "kube-proxy.yaml", "kubeconfig", "kubelet",
	"kubelet.yaml", "logs", "path", "pki", "resolv.conf", "root", "supervisor.pid", "sysctl",
}

// CheckDir refuses, with ErrForeign, a directory that a sandbox cannot be made in, as it is somebody's.
func CheckDir(dir string) error {
	dir, err := resolve(dir)
	if err != nil {
		return err
	}
	_, err = owned(dir)
	return err
}

// owned says whether a directory is a sandbox's. One that is not, and is neither missing nor empty, is ErrForeign too.
func owned(dir string) (bool, error) {
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return false, fmt.Errorf("%s is no directory: %w", dir, ErrForeign)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false, fmt.Errorf("looking at the state directory: %w", err)
	}
	if len(entries) == 0 {
		return false, nil
	}
	said, err := readMarker(dir)
	if err != nil {
		return false, fmt.Errorf("looking at the state directory: %w", err)
	}
	// One that is being made, or whose making was cut short, has an empty lock and nothing else.
	if said == marker || said == "" && len(entries) == 1 && entries[0].Name() == lockName {
		return true, nil
	}
	return false, fmt.Errorf("%s holds other files, such as %s: %w; it stays as it is", dir, entries[0].Name(), ErrForeign)
}

// readMarker reads the beginning of the lock file. Of what is no such file it returns something else than a marker.
func readMarker(dir string) (string, error) {
	f, err := os.OpenFile(state(dir).lock(), os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
		return "none", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.Mode().IsRegular() {
		return "none", err
	}
	said, err := io.ReadAll(io.LimitReader(f, int64(len(marker))))
	return string(said), err
}

// mark writes the marker into a lock that was just made.
func mark(lock *os.File) error {
	info, err := lock.Stat()
	if err != nil || info.Size() > 0 {
		return err
	}
	if _, err := io.Copy(lock, strings.NewReader(marker)); err != nil {
		// A part of it would not be recognized; nothing at all is.
		return errors.Join(err, lock.Truncate(0))
	}
	return nil
}
