// Package agent is the program beside each Envoy: it starts, watches and drains it, carries its configuration from Pilot, and captures the pod's
// traffic for it.
//
// In: arguments and environment of the sidecar's containers. Out: an exit code; a running Envoy in between.
package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/version"
)

// Exit codes of the program.
const (
	exitOK    = 0
	exitError = 1
	exitUsage = 2
)

// Streams and environment of the process.
type Streams struct {
	Out, Err io.Writer
	Getenv   func(string) string
}

// errUsage marks an error in how the program was called.
var errUsage = errors.New("see --help")

// Main runs one command line until it is done, or until ctx is. A proxy first drains then.
func Main(ctx context.Context, args []string, s Streams) int {
	root := &cobra.Command{
		Use:               "meshagent",
		Short:             "Run the proxy of a pod",
		Long:              "The program beside each proxy of the mesh. It is run by the sidecar's containers, not by people.",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetArgs(args)
	root.SetOut(s.Out)
	root.SetErr(s.Err)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return fmt.Errorf("%w (%w)", err, errUsage) })
	root.AddCommand(newProxy(s), newInit(s), newVersion(s))
	err := root.ExecuteContext(ctx)
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errUsage):
		fmt.Fprintln(s.Err, "error:", err)
		return exitUsage
	default:
		fmt.Fprintln(s.Err, "error:", err)
		return exitError
	}
}

func newVersion(s Streams) *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			v := version.Get()
			_, err := fmt.Fprintf(s.Out, "%s %s %s\n", v.Version, v.GitRevision, v.GoVersion)
			return err
		},
	}
}

// newLog writes lines of key and value; verbosity above 2, the usual one, adds the details.
func newLog(w io.Writer, verbosity int) *slog.Logger {
	level := slog.LevelInfo
	if verbosity > 2 {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}
