// Command bookinfo runs one of the four services of the Bookinfo sample.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/meshctl/meshctl/internal/bookinfo"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	code := bookinfo.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}
