// Package meshd is the control plane's command tree: a wiring table for each role, nothing else.
//
// In: flags. Out: a running role. The pilot role wires watch to ingest to envoy to xds and back to the objects' status.
package meshd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"github.com/spf13/cobra"
	"k8s.io/klog/v2"

	"github.com/meshctl/meshctl/internal/version"
)

// Exit codes of the program.
const (
	exitOK    = 0
	exitUsage = 2
	exitFail  = 3
)

// usageError is a wrong flag or argument.
type usageError struct{ error }

// Main runs the command line and returns the exit status.
func Main(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		_, _ = fmt.Fprintf(stderr, "meshd: %v\nSee 'meshd --help'.\n", err)
		return exitUsage
	default:
		_, _ = fmt.Fprintf(stderr, "meshd: %v\n", err)
		return exitFail
	}
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "meshd",
		Short:         "The control plane of the mesh, one role per command",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return cmd.Help()
		},
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.AddCommand(newPilotCommand(), newVersionCommand())
	for _, c := range append(root.Commands(), root) {
		args := c.Args
		c.Args = func(cmd *cobra.Command, a []string) error {
			if err := args(cmd, a); err != nil {
				return usageError{err}
			}
			return nil
		}
	}
	return root
}

func newVersionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			v := version.Get()
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Version: %s\nGitRevision: %s\nGolangVersion: %s\n", v.Version, v.GitRevision, v.GoVersion)
			return err
		},
	}
}

// newLogger writes JSON to w, and makes the Kubernetes libraries do so too.
func newLogger(w io.Writer, level string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{fmt.Errorf("log level %q is none of debug, info, warn, error", level)}
	}
	// The libraries' own debugging would drown ours.
	klog.SetSlogLogger(slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: max(l, slog.LevelInfo)})).With("component", "kubernetes"))
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: l})), nil
}
