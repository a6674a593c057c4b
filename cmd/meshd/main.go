// Command meshd is the control plane of the mesh.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/meshctl/meshctl/internal/meshd"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := meshd.Main(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
