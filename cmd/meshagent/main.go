// Command meshagent runs beside each proxy of the mesh.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/meshctl/meshctl/internal/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := agent.Main(ctx, os.Args[1:], agent.Streams{Out: os.Stdout, Err: os.Stderr, Getenv: os.Getenv})
	stop()
	os.Exit(code)
}
