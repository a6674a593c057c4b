package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"syscall"
	"time"
)

// cost is what one run of a program took: processor time of user and system, and peak memory.
type cost struct {
	cpu  time.Duration
	peak int64
}

// costOf runs a program n times and gives the medians. A child's peak memory begins with that of the process which starts it, so this one is kept small.
func costOf(ctx context.Context, n int, args ...string) (cost, error) {
	var runs []cost
	for range n {
		cmd := exec.CommandContext(ctx, args[0], args[1:]...)
		if out, err := cmd.CombinedOutput(); err != nil {
			return cost{}, fmt.Errorf("running %v: %w: %s", args, err, out)
		}
		usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
		if !ok {
			return cost{}, errors.New("this system does not tell what a process used")
		}
		runs = append(runs, cost{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), usage.Maxrss << 10})
	}
	cpu := slices.SortedFunc(slices.Values(runs), func(a, b cost) int { return cmp.Compare(a.cpu, b.cpu) })
	peak := slices.SortedFunc(slices.Values(runs), func(a, b cost) int { return cmp.Compare(a.peak, b.peak) })
	return cost{cpu[n/2].cpu, peak[n/2].peak}, nil
}
