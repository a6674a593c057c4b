package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
)

// machine says what the figures depend on, and nothing by which the machine could be known.
func machine() (string, error) {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("reading the kernel's version: %w", err)
	}
	number, _, _ := strings.Cut(strings.TrimSpace(string(release)), "-")
	info, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return "", fmt.Errorf("reading the size of the memory: %w", err)
	}
	first := strings.Fields(string(info))
	if len(first) < 2 {
		return "", fmt.Errorf("reading the size of the memory: %q", info)
	}
	kib, err := strconv.ParseInt(first[1], 10, 64)
	if err != nil {
		return "", fmt.Errorf("reading the size of the memory: %w", err)
	}
	return fmt.Sprintf("%d cores, %d GiB, Linux %s, %s %s/%s", runtime.NumCPU(), (kib+1<<19)>>20, number, runtime.Version(), runtime.GOOS, runtime.GOARCH), nil
}

// busy is the load of the machine over the last minute: what else ran makes figures worse.
func busy() (float64, error) {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return 0, fmt.Errorf("reading the load: %w", err)
	}
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}
