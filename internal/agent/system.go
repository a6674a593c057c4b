package agent

import (
	"context"
	"io/fs"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
)

// concurrency is the number of CPUs the container may use, rounded up; without a limit two, or one on a machine that has only one. root is the
// file system that has the kernel's control groups.
func concurrency(root fs.FS) int {
	limit := min(2, runtime.NumCPU())
	read := func(name string) []string {
		text, err := fs.ReadFile(root, name)
		if err != nil {
			return nil
		}
		return strings.Fields(string(text))
	}
	words := read("sys/fs/cgroup/cpu.max")
	if words == nil {
		words = append(read("sys/fs/cgroup/cpu/cpu.cfs_quota_us"), read("sys/fs/cgroup/cpu/cpu.cfs_period_us")...)
	}
	if len(words) != 2 {
		return limit
	}
	quota, err1 := strconv.Atoi(words[0])
	period, err2 := strconv.Atoi(words[1])
	if err1 != nil || err2 != nil || quota <= 0 || period <= 0 {
		return limit
	}
	return min((quota+period-1)/period, runtime.NumCPU())
}

// forward hands SIGUSR1 on to Envoy, which opens its log files anew then.
func forward(ctx context.Context, to func(os.Signal)) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1)
	defer signal.Stop(signals)
	for {
		select {
		case <-ctx.Done():
			return
		case s := <-signals:
			to(s)
		}
	}
}

// reap takes away the processes that nobody waits for, as the first process of a container must. envoy is the one that is waited for.
func reap(ctx context.Context, envoy func() int) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
		entries, err := os.ReadDir("/proc")
		if err != nil {
			continue
		}
		for _, e := range entries {
			pid, err := strconv.Atoi(e.Name())
			if err != nil || pid == envoy() || !isOurZombie(pid) {
				continue
			}
			var status syscall.WaitStatus
			_, _ = syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		}
	}
}

// isOurZombie reads state and parent, which follow the name in parentheses.
func isOurZombie(pid int) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return false
	}
	rest := string(text[strings.LastIndexByte(string(text), ')')+1:])
	fields := strings.Fields(rest)
	return len(fields) > 1 && fields[0] == "Z" && fields[1] == strconv.Itoa(os.Getpid())
}
