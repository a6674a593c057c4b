package sandbox

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/image"
	"github.com/meshctl/meshctl/internal/sandbox"
)

func newUp(f *factory.Factory, dir func() string) *cobra.Command {
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Bring the sandbox up, or find it up",
		Long: `Bring the sandbox up and return when pods can be run. Where it is up already, only images that changed
since are imported. What a crash left of an earlier one is cleared away first. The state directory must be
new, empty, or an earlier sandbox's: one that holds other files is refused.

The programs are looked for beside meshctl (bin/meshbox, bin/images) and, for containerd, runc, the CNI
plugins and iptables, in .cache/tools of the repository and then on the PATH. What is missing is said,
with the command that mends it.`,
		Example: `  # The sandbox
  sudo meshctl sandbox up

  # A second one beside it
  sudo meshctl sandbox up --dir /tmp/other`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, cancel := within(cmd.Context(), timeout)
			defer cancel()
			return up(ctx, f, dir())
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 3*time.Minute, "how long to wait until it is ready; 0 waits for ever")
	return cmd
}

func up(ctx context.Context, f *factory.Factory, dir string) error {
	if err := sandbox.CheckMachine(); err != nil {
		return err
	}
	if err := sandbox.CheckDir(dir); err != nil {
		return refused(err)
	}
	found, err := programs()
	if err != nil {
		return err
	}
	// Images follow the programs: nobody should have to remember a step between building and running.
	images, err := buildImages(f)
	if err != nil {
		return err
	}
	found.Images = images
	already, err := sandbox.Up(ctx, sandbox.Config{
		Dir:        dir,
		Programs:   found,
		Owner:      owner(f.Getenv),
		Supervisor: []string{"meshctl", "sandbox", "supervise"},
		Progress: func(phase string, since time.Duration) {
			fmt.Fprintf(f.ErrOut, "%6.1fs  %s\n", since.Seconds(), phase)
		},
	})
	if err != nil {
		return refused(err)
	}
	if already {
		fmt.Fprintln(f.ErrOut, "the sandbox is up already")
	}
	fmt.Fprintf(f.ErrOut, "next: eval \"$(meshctl sandbox env%s)\"\n", dirFlag(f, dir))
	return nil
}

// owner is who called sudo, or root.
func owner(getenv func(string) string) sandbox.Owner {
	uid, err1 := strconv.Atoi(getenv("SUDO_UID"))
	gid, err2 := strconv.Atoi(getenv("SUDO_GID"))
	if err1 != nil || err2 != nil {
		return sandbox.Owner{}
	}
	return sandbox.Owner{UID: uid, GID: gid}
}

// dirFlag is what must be added to a command so that it means the same sandbox.
func dirFlag(f *factory.Factory, dir string) string {
	if dir == sandbox.DefaultDir(f.Getenv) {
		return ""
	}
	return " --dir " + dir
}

// buildImages makes the images of the programs that stand beside meshctl. A program that was not built leaves its image out, with a word.
func buildImages(f *factory.Factory) ([]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if self, err = filepath.EvalSymlinks(self); err != nil {
		return nil, err
	}
	bin := filepath.Dir(self)
	paths, err := image.BuildAll(image.FindSources(bin), filepath.Join(bin, "images"))
	if len(paths) == 0 && err != nil {
		return nil, err
	}
	if err != nil {
		fmt.Fprintf(f.ErrOut, "warning: %v\n", err)
	}
	// Archives that others put there are imported too.
	all, err := filepath.Glob(filepath.Join(bin, "images", "*.tar"))
	return all, err
}

func newImages(f *factory.Factory) *cobra.Command {
	return &cobra.Command{
		Use:     "images",
		Aliases: []string{"build-images"},
		Short:   "Make the OCI images of our programs in bin/images",
		Hidden:  true,
		Args:    factory.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			paths, err := buildImages(f)
			if err != nil {
				return err
			}
			for _, path := range paths {
				fmt.Fprintln(f.Out, path)
			}
			return nil
		},
	}
}

func newDown(f *factory.Factory, dir func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Take the sandbox down",
		Long: `Take the sandbox down: end every process and container, and remove its state directory with all that was
in it. Programs and built images stay, so that the next 'up' is fast. Where there is no sandbox, or only what a
crash left of one, it does the same and succeeds. A directory that is not a sandbox's is refused and stays as it is.`,
		Example:           `  sudo meshctl sandbox down`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(*cobra.Command, []string) error {
			was, err := sandbox.Down(dir())
			if err != nil {
				return refused(err)
			}
			if !was {
				fmt.Fprintln(f.ErrOut, "there is no sandbox in "+dir())
				return nil
			}
			fmt.Fprintln(f.ErrOut, "the sandbox is gone")
			return nil
		},
	}
}

func newLoad(dir func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "load ARCHIVE...",
		Short: "Import images into the sandbox",
		Long: `Import image archives, as 'docker save', 'podman save' or 'crane pull --format=oci' write them, into the
sandbox. Pods then use the images by name; with a tag other than latest, or imagePullPolicy IfNotPresent, they
do not try to pull.`,
		Example: `  docker save example/app:1 -o app.tar
  sudo meshctl sandbox load app.tar`,
		Args: cobra.ArbitraryArgs,
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
			return []string{"tar"}, cobra.ShellCompDirectiveFilterFileExt
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return factory.Usage("which archive? load takes the names of image archives")
			}
			return notRunning(sandbox.Load(cmd.Context(), dir(), args))
		},
	}
}

func newExec(dir func() string) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec -- COMMAND [ARG...]",
		Short: "Run a command in the sandbox's network",
		Long: `Run a command of this machine in the sandbox's network, where pods, services and the node have their
addresses. Its files and programs are the machine's, its exit code is the command's.`,
		Example:           `  sudo meshctl sandbox exec -- curl --insecure https://10.96.0.1/version`,
		Args:              cobra.ArbitraryArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return factory.Usage("which command? exec takes one after --")
			}
			return notRunning(sandbox.Exec(dir(), args, os.Environ()))
		},
	}
	// What follows the command's name is the command's.
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// refused is wrong usage, where the directory is not a sandbox's.
func refused(err error) error {
	if errors.Is(err, sandbox.ErrForeign) {
		return factory.Usage("%w: name another with --dir or MESHCTL_SANDBOX_DIR", err)
	}
	return err
}

// notRunning is the answer no, where the question was about a sandbox that is not there.
func notRunning(err error) error {
	if errors.Is(err, sandbox.ErrNotRunning) {
		return factory.No("%w", err)
	}
	return err
}
