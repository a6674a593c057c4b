// Command echo is the end-to-end suite's server and client in one: it says which pod answered, over HTTP, gRPC and TCP.
//
//	echo serve                           HTTP on 8080, gRPC on 9090, TCP on 9000
//	echo call [flags] URL                http://, https://, grpc:// or tcp://; prints what came back, counted, as JSON
//
// call ends after -n calls, or when its standard input does (-load).
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
	defer stop()
	var err error
	switch {
	case len(os.Args) > 1 && os.Args[1] == "serve":
		var p ports
		if p, err = listen(httpPort, grpcPort, tcpPort); err == nil {
			err = serve(ctx, p, os.Getenv)
		}
	case len(os.Args) > 1 && os.Args[1] == "call":
		err = call(ctx, os.Args[2:], os.Stdin, os.Stdout)
	default:
		err = fmt.Errorf("usage: echo serve | echo call [flags] URL")
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "echo:", err)
		os.Exit(1)
	}
}
