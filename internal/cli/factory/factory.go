// Package factory carries what every command shares: the streams, the lazily made connection to the cluster, and the exit codes.
//
// A command's constructor takes a *Factory and uses only what it needs, so a command that needs no cluster never reads a kubeconfig.
package factory

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/mattn/go-isatty"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/cli-runtime/pkg/genericiooptions"
)

// Exit codes of every command, for every output format.
const (
	ExitOK    = 0 // done, or the answer is yes
	ExitNo    = 1 // the answer is no: findings, differences, not found, refused by a check
	ExitUsage = 2 // wrong usage
	ExitError = 3 // could not do it: unreachable, I/O, refused by the server

	ExitInterrupted = 130 // ended by Ctrl-C, as the shell counts it
)

// ExitErr is an error that says which exit code it stands for. An error without one is ExitError.
type ExitErr struct {
	Code int
	Err  error
	// Quiet is set when everything there is to say was already written.
	Quiet bool
}

func (e *ExitErr) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit status %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitErr) Unwrap() error { return e.Err }

// Usage is an error in how the command was called (exit 2).
func Usage(format string, args ...any) error {
	return &ExitErr{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// No is the answer no, with its reason (exit 1).
func No(format string, args ...any) error {
	return &ExitErr{Code: ExitNo, Err: fmt.Errorf(format, args...)}
}

// Silent ends the command with code, everything having been said already.
func Silent(code int) error { return &ExitErr{Code: code, Quiet: true} }

// Code is the exit code that err stands for.
func Code(err error) int {
	if err == nil {
		return ExitOK
	}
	var e *ExitErr
	if errors.As(err, &e) {
		return e.Code
	}
	return ExitError
}

// Factory is handed to every command's constructor.
type Factory struct {
	genericiooptions.IOStreams
	// Config is the kubectl set of connection flags, bound to the root command. Nothing is read before it is used.
	Config *genericclioptions.ConfigFlags
	// MeshNamespace is the control plane's namespace (--mesh-namespace, -i of 0.2).
	MeshNamespace *string
	// Color is --color: auto, always or never.
	Color *string
	// Getenv is os.Getenv, replaceable in tests.
	Getenv func(string) string
}

// New is a factory with every flag at its default.
func New(streams genericiooptions.IOStreams, getenv func(string) string) *Factory {
	namespace, color := DefaultMeshNamespace, "auto"
	return &Factory{
		IOStreams:     streams,
		Config:        genericclioptions.NewConfigFlags(true),
		MeshNamespace: &namespace,
		Color:         &color,
		Getenv:        getenv,
	}
}

// DefaultMeshNamespace is where the control plane lives unless --mesh-namespace says otherwise.
const DefaultMeshNamespace = "istio-system"

// Warn tells the user something that does not stop the command.
func (f *Factory) Warn(format string, args ...any) {
	fmt.Fprintf(f.ErrOut, "%s %s\n", f.Paint(f.ErrOut, Yellow, "warning:"), fmt.Sprintf(format, args...))
}

// IsTerminal says whether w is a terminal: progress and colour are shown only there.
func IsTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
