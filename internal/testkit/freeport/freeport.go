// Package freeport gives tests ports that stay theirs: for programs that take a port number and cannot be handed a listener.
//
// A port that the kernel chose and that was closed again may be taken by any outgoing connection before the program listens on it. These come from
// below the kernel's range for such connections and below the node ports of a cluster, and a locked file keeps other test programs off.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
)

// The range, its end not included.
const (
	first = 15200
	end   = 29900
)

// For is a port of the loopback interface on which nothing listens, kept for t until t ends.
func For(t testing.TB) int {
	t.Helper()
	port, release, err := Take()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(release)
	return port
}

// Take is For for what outlives a test; release gives the port back.
func Take() (port int, release func(), err error) {
	dir := filepath.Join(os.TempDir(), "meshctl-test-ports")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return 0, nil, fmt.Errorf("keeping ports: %w", err)
	}
	for range 200 {
		port = first + rand.IntN(end-first)
		if release, err = take(dir, port); err == nil {
			return port, release, nil
		}
	}
	return 0, nil, fmt.Errorf("finding a free port: %w", err)
}

func take(dir string, port int) (release func(), err error) {
	// The file stays: removing it would let two programs lock two files of one name.
	f, err := os.OpenFile(filepath.Join(dir, strconv.Itoa(port)), os.O_CREATE|os.O_RDWR|syscall.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if err := l.Close(); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return func() { _ = f.Close() }, nil
}
