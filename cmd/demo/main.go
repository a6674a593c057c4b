// Command demo takes the walk-through in a sandbox and leaves it open to be looked at.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/meshctl/meshctl/internal/tour"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := tour.Main(ctx, os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
