package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"

	"k8s.io/client-go/tools/clientcmd"

	"golang.org/x/sys/unix"
)

// Exec replaces this program by a command that runs in the sandbox's network, where pods and services have their addresses. Files are
// the machine's. It returns only an error.
func Exec(dir string, argv, env []string) error {
	dir, err := running(dir)
	if err != nil {
		return err
	}
	pid, err := os.ReadFile(state(dir).pid())
	if err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return fmt.Errorf("running %s: %w", argv[0], err)
	}
	net, err := unix.Open("/proc/"+strings.TrimSpace(string(pid))+"/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("finding the sandbox's network: %w", err)
	}
	// Entering concerns this thread, and the thread that calls exec is the one that goes on.
	runtime.LockOSThread()
	if err := unix.Setns(net, unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering the sandbox's network: %w", err)
	}
	return fmt.Errorf("running %s: %w", path, syscall.Exec(path, argv, env))
}

// apiAddress is the URL in a kubeconfig.
func apiAddress(kubeconfig string) (string, error) {
	config, err := clientcmd.LoadFromFile(kubeconfig)
	if err != nil {
		return "", fmt.Errorf("reading the sandbox's kubeconfig: %w", err)
	}
	for _, cluster := range config.Clusters {
		return cluster.Server, nil
	}
	return "", errors.New("the sandbox's kubeconfig names no cluster")
}

// machinePIDs maps process numbers inside the PID namespace of process pid to those of the machine.
func machinePIDs(pid int) (map[int]int, error) {
	namespace, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return nil, fmt.Errorf("finding the sandbox's processes: %w", err)
	}
	processes, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	found := map[int]int{}
	for _, process := range processes {
		// A process may end while we look: it is left out.
		if ns, err := os.Readlink(process + "/ns/pid"); err != nil || ns != namespace {
			continue
		}
		status, err := os.ReadFile(process + "/status")
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(status)) {
			numbers, ok := strings.CutPrefix(line, "NSpid:")
			if !ok {
				continue
			}
			fields := strings.Fields(numbers)
			outer, err1 := strconv.Atoi(filepath.Base(process))
			inner, err2 := strconv.Atoi(fields[len(fields)-1])
			if err1 == nil && err2 == nil {
				found[inner] = outer
			}
		}
	}
	return found, nil
}
