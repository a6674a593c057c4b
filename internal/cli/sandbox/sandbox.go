// Package sandbox is the verb for a whole Kubernetes on this machine, for people and tests without a cluster.
//
// In: a state directory and the programs beside meshctl; out: a running sandbox, its state, or nothing left of it.
package sandbox

import (
	"context"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/sandbox"
)

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "sandbox",
		Short: "Run a Kubernetes of one node on this machine",
		Long: `Run a Kubernetes of one node on this machine, to see and test a mesh without a cluster. It is
Kubernetes itself, with a real kubelet and real containers, in namespaces of its own: the machine's
network, firewall and container runtime stay as they are, and 'down' leaves nothing behind.

It is a laboratory: it has no way out to the Internet, pulls no images (see 'load'), keeps nothing
when it goes down, and whoever is root on this machine is its administrator. It needs root.`,
		Example: `  # Bring it up and use it
  sudo meshctl sandbox up
  eval "$(sudo meshctl sandbox env)"
  kubectl get pods --all-namespaces

  # Take it down
  sudo meshctl sandbox down`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	named := cmd.PersistentFlags().String("dir", "", "state directory; each has a sandbox of its own (env MESHCTL_SANDBOX_DIR, else $XDG_STATE_HOME/meshctl/sandbox, else ~/.local/state/meshctl/sandbox)")
	dir := func() string {
		if *named != "" {
			return *named
		}
		return sandbox.DefaultDir(f.Getenv)
	}
	cmd.AddCommand(newUp(f, dir), newStatus(f, dir), newDown(f, dir), newEnv(f, dir), newLoad(dir), newExec(dir), newImages(f), newSupervise())
	return cmd
}

// newSupervise is what `up` runs in the background.
func newSupervise() *cobra.Command {
	return &cobra.Command{
		Use:    "supervise",
		Short:  "Be the process that holds a sandbox together",
		Hidden: true,
		Args:   factory.NoArgs,
		RunE:   func(*cobra.Command, []string) error { return sandbox.Supervise() },
	}
}

// within bounds ctx, unless the time is 0.
func within(ctx context.Context, timeout time.Duration) (context.Context, context.CancelFunc) {
	if timeout == 0 {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, timeout)
}

// programs finds everything that a sandbox runs.
func programs() (sandbox.Programs, error) {
	self, err := os.Executable()
	if err != nil {
		return sandbox.Programs{}, err
	}
	return sandbox.FindPrograms(self)
}
