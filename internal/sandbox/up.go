package sandbox

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// Config is what Up needs.
type Config struct {
	// Dir is the state directory.
	Dir string
	// Programs is the result of FindPrograms.
	Programs Programs
	// Owner is who may use it besides root.
	Owner Owner
	// Supervisor is the command line that ends up in Supervise; its first element is ignored: the running program starts itself.
	Supervisor []string
	// Progress hears of each phase when it is reached, from several goroutines. It may be nil.
	Progress func(phase string, since time.Duration)
}

// ErrTimeout is in the error of an Up that was given too little time. What it started was taken down again.
var ErrTimeout = errors.New("the sandbox was not ready in time")

// Up brings the sandbox up, or finds it running (then already is true), imports the image archives that are new or changed, and returns
// when pods can be run. What it started it takes down again if it does not get that far.
func Up(ctx context.Context, c Config) (already bool, err error) {
	if err := CheckMachine(); err != nil {
		return false, err
	}
	c.Dir, err = resolve(c.Dir)
	if err != nil {
		return false, err
	}
	began := time.Now()
	progress := func(phase string) {
		if c.Progress != nil {
			c.Progress(phase, time.Since(began))
		}
	}
	if _, err := owned(c.Dir); err != nil {
		return false, err
	}
	if err := makeDir(c.Dir, c.Owner); err != nil {
		return false, fmt.Errorf("making the state directory: %w", err)
	}
	lock, err := takeLock(c.Dir)
	if errors.Is(err, errLocked) {
		if err := waitRunning(ctx, c.Dir); err != nil {
			return true, err
		}
		return true, importImages(ctx, c.Dir, c.Programs.Images)
	}
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := removeRemains(c.Dir); err != nil {
		return false, fmt.Errorf("clearing what an earlier sandbox left: %w", err)
	}
	s, err := newSettings(c)
	if err != nil {
		return false, err
	}
	events, err := startSupervisor(s, c.Supervisor, lock)
	if err != nil {
		return false, errors.Join(err, removeRemains(c.Dir))
	}
	// Reading ends when the supervisor says it is ready or is no more; a context that ends closes the pipe.
	defer events.Close()
	stop := context.AfterFunc(ctx, func() { events.Close() })
	defer stop()
	err = awaitReady(ctx, events, c, progress)
	if err == nil {
		return false, nil
	}
	// From here on the supervisor alone holds the lock, and gives it back by ending.
	lock.Close()
	if errors.Is(ctx.Err(), context.Canceled) {
		_, down := Down(c.Dir)
		return false, errors.Join(ctx.Err(), down)
	}
	if ctx.Err() != nil {
		err = fmt.Errorf("%w%s", ErrTimeout, troubled(c.Dir))
	}
	// The logs say what happened, and Down would remove them.
	return false, errors.Join(err, kill(c.Dir))
}

// awaitReady follows the supervisor's events, and imports images as soon as that can be done.
func awaitReady(ctx context.Context, events io.Reader, c Config, progress func(string)) error {
	group, ctx := errgroup.WithContext(ctx)
	defer func() { _ = group.Wait() }() // its error is the first one's, returned below
	decoder := json.NewDecoder(events)
	for {
		var e event
		if err := decoder.Decode(&e); err != nil {
			return fmt.Errorf("the supervisor ended: %s", tail(state(c.Dir).log("supervisor")))
		}
		if e.Error != "" {
			return errors.New(e.Error)
		}
		switch e.Phase {
		case PhaseReady:
			if err := group.Wait(); err != nil {
				return err
			}
			progress(PhaseReady)
			return nil
		case PhaseContainers:
			group.Go(func() error {
				err := importImages(ctx, c.Dir, c.Programs.Images)
				if err == nil {
					progress(PhaseImages)
				}
				return err
			})
		}
		progress(e.Phase)
	}
}

func newSettings(c Config) (settings, error) {
	s := settings{Owner: c.Owner, Dir: c.Dir, Programs: c.Programs, NodeIP: fallbackNodeIP, IPv6: ipv6Works(), Snapshotter: "overlayfs"}
	if addr, ok := machineIP(); ok {
		s.NodeIP, s.LocalNodeIP = addr.String(), true
	}
	var err error
	if s.Hierarchies, err = findCgroups(); err != nil {
		return s, err
	}
	// Lowering a process's out-of-memory score takes a capability that some machines keep from root.
	caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&caps, &data[0]); err != nil {
		return s, fmt.Errorf("reading capabilities: %w", err)
	}
	s.ShareOOM = data[0].Effective&(1<<unix.CAP_SYS_RESOURCE) == 0
	// An overlay cannot lie on an overlay, which is what a container's own disk is.
	var fs unix.Statfs_t
	if err := unix.Statfs(c.Dir, &fs); err != nil {
		return s, fmt.Errorf("looking at the state directory: %w", err)
	}
	if fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		s.Snapshotter = "native"
	}
	return s, nil
}

// startSupervisor starts the supervisor, which inherits the lock, and returns its events.
func startSupervisor(s settings, argv []string, lock *os.File) (*os.File, error) {
	logs := filepath.Dir(state(s.Dir).log("supervisor"))
	if err := os.MkdirAll(logs, 0o755); err != nil {
		return nil, err
	}
	log, err := os.Create(state(s.Dir).log("supervisor"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	input, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = argv
	cmd.Stdin = bytes.NewReader(input)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{lock, w}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	// This one makes the namespaces, starts itself in them and is done.
	if err := cmd.Run(); err != nil {
		r.Close()
		if said := strings.TrimPrefix(tail(log.Name()), "error: "); said != "" {
			err = errors.New(said)
		}
		return nil, fmt.Errorf("starting the supervisor: %w", err)
	}
	return r, nil
}

// waitRunning waits for a sandbox that someone else is bringing up, or that is up.
func waitRunning(ctx context.Context, dir string) error {
	c := dialControl(dir)
	return poll(ctx, "waiting for the sandbox in "+dir, func() error {
		var st Status
		if err := c.get(ctx, "/status", &st); err != nil {
			return err
		}
		if st.State != StateRunning {
			return fmt.Errorf("it is %s", st.State)
		}
		return nil
	})
}

// Load imports image archives into the running sandbox.
func Load(ctx context.Context, dir string, archives []string) error {
	dir, err := running(dir)
	if err != nil {
		return err
	}
	return importImages(ctx, dir, archives)
}

// importImages imports the archives whose images are not there yet with the same content.
func importImages(ctx context.Context, dir string, archives []string) error {
	if len(archives) == 0 {
		return nil
	}
	c := dialControl(dir)
	var have []Image
	if err := c.get(ctx, "/images", &have); err != nil {
		return fmt.Errorf("listing images: %w", err)
	}
	// Small ones first: without pause no pod starts.
	size := map[string]int64{}
	for _, archive := range archives {
		info, err := os.Stat(archive)
		if err != nil {
			return err
		}
		size[archive] = info.Size()
	}
	archives = slices.SortedFunc(slices.Values(archives), func(a, b string) int { return int(size[a] - size[b]) })
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.NumCPU())
	for _, archive := range archives {
		images, err := archiveImages(archive)
		if err != nil {
			return err
		}
		if len(images) > 0 && !slices.ContainsFunc(images, func(i Image) bool { return !slices.Contains(have, i) }) {
			continue
		}
		group.Go(func() error {
			f, err := os.Open(archive)
			if err != nil {
				return err
			}
			defer f.Close()
			var said string
			if err := c.do(ctx, "PUT", "/images", f, &said); err != nil {
				return fmt.Errorf("importing %s: %w", archive, err)
			}
			return nil
		})
	}
	return group.Wait()
}

// archiveImages reads from an archive's index which images are in it. An archive in another format than OCI's has none that we can name.
func archiveImages(path string) ([]Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	archive := tar.NewReader(f)
	for {
		header, err := archive.Next()
		if err == io.EOF {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading image archive %s: %w", path, err)
		}
		if filepath.Clean(header.Name) != "index.json" {
			continue
		}
		var index struct {
			Manifests []struct {
				Digest      string            `json:"digest"`
				Annotations map[string]string `json:"annotations"`
			} `json:"manifests"`
		}
		if err := json.NewDecoder(archive).Decode(&index); err != nil {
			return nil, fmt.Errorf("reading image archive %s: %w", path, err)
		}
		var images []Image
		for _, m := range index.Manifests {
			if name := m.Annotations["io.containerd.image.name"]; name != "" {
				images = append(images, Image{Name: name, Digest: m.Digest})
			}
		}
		return images, nil
	}
}

// makeDir makes the state directory, which is root's and whose secrets have modes of their own, and what is missing above it, which is the
// owner's.
func makeDir(dir string, owner Owner) error {
	err := os.Mkdir(dir, 0o711)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	parent := filepath.Dir(dir)
	_, err = os.Stat(parent)
	if err := makeDir(parent, owner); err != nil {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		if err := os.Chown(parent, owner.UID, owner.GID); err != nil {
			return err
		}
	}
	return os.Mkdir(dir, 0o711)
}

// resolve makes dir absolute and free of symbolic links, so that it has one name for everybody.
func resolve(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	resolved, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		// A link whose target was removed still has its target's name.
		if target, err := os.Readlink(dir); err == nil {
			if !filepath.IsAbs(target) {
				target = filepath.Join(filepath.Dir(dir), target)
			}
			return resolve(target)
		}
		parent, err := resolveParent(filepath.Dir(dir))
		return filepath.Join(parent, filepath.Base(dir)), err
	}
	return resolved, err
}

func resolveParent(dir string) (string, error) {
	if dir == filepath.Dir(dir) {
		return dir, nil
	}
	return resolve(dir)
}

// errLocked says that a supervisor holds the lock, or an `up` or `down` at work.
var errLocked = errors.New("the sandbox is in use")

// takeLock takes the state directory's lock. The supervisor inherits it and so holds it as long as it lives.
func takeLock(dir string) (*os.File, error) {
	for {
		lock, err := os.OpenFile(state(dir).lock(), os.O_CREATE|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("locking: %w", err)
		}
		err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			lock.Close()
			return nil, errLocked
		}
		if err != nil {
			lock.Close()
			return nil, fmt.Errorf("locking: %w", err)
		}
		// A `down` may have removed the file in between.
		mine, err := lock.Stat()
		if err != nil {
			lock.Close()
			return nil, err
		}
		if current, err := os.Stat(lock.Name()); err == nil && os.SameFile(mine, current) {
			if err := mark(lock); err != nil {
				lock.Close()
				return nil, fmt.Errorf("marking the state directory: %w", err)
			}
			return lock, nil
		}
		lock.Close()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, err
		}
	}
}

// troubled names the components that keep ending, with the end of their logs.
func troubled(dir string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	var st Status
	if err := dialControl(dir).get(ctx, "/status", &st); err != nil {
		return ""
	}
	var b strings.Builder
	for _, c := range st.Components {
		if c.Restarts > 0 {
			fmt.Fprintf(&b, "\n%s ended %d times (%s):\n%s", c.Name, c.Restarts, c.LastEnd, tail(c.Log))
		}
	}
	return b.String()
}

// tail is the end of a log.
func tail(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(data[max(0, len(data)-1500):]))
}
