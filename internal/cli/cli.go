// Package cli is the command line of meshctl: the command tree, its global flags, streams and exit codes.
//
// In: arguments, streams and environment. Out: an exit code. A verb is a package of its own below this one; what they share is in factory.
package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-logr/logr"
	"github.com/spf13/cobra"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"github.com/meshctl/meshctl/internal/cli/apply"
	"github.com/meshctl/meshctl/internal/cli/completion"
	"github.com/meshctl/meshctl/internal/cli/create"
	deletecmd "github.com/meshctl/meshctl/internal/cli/delete"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/get"
	"github.com/meshctl/meshctl/internal/cli/kubeinject"
	"github.com/meshctl/meshctl/internal/cli/proxyconfig"
	"github.com/meshctl/meshctl/internal/cli/proxystatus"
	"github.com/meshctl/meshctl/internal/cli/replace"
	"github.com/meshctl/meshctl/internal/cli/sandbox"
	"github.com/meshctl/meshctl/internal/cli/validate"
	"github.com/meshctl/meshctl/internal/cli/version"
	"github.com/meshctl/meshctl/internal/cli/wait"
)

// Main runs one command line and returns its exit code. What went wrong is on f.ErrOut.
func Main(ctx context.Context, args []string, f *factory.Factory) int {
	// The Kubernetes libraries log what they return as errors anyway; said twice, it hides the one line that matters.
	klog.SetLogger(logr.Discard())
	root := New(f)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	if err == nil {
		return factory.ExitOK
	}
	var exit *factory.ExitErr
	if !errors.Is(err, context.Canceled) && (!errors.As(err, &exit) || !exit.Quiet) {
		tell(f, strings.TrimSpace(err.Error()))
	}
	if ctx.Err() != nil {
		fmt.Fprintln(f.ErrOut, "interrupted")
		return factory.ExitInterrupted
	}
	code := factory.Code(err)
	if code == factory.ExitUsage {
		fmt.Fprintf(f.ErrOut, "Run '%s --help' for usage.\n", cmd.CommandPath())
	}
	return code
}

// tell writes an error. Joined errors are lines, each told by itself; an indented line belongs to the one before.
func tell(f *factory.Factory, text string) {
	for _, line := range strings.Split(text, "\n") {
		if strings.HasPrefix(line, " ") {
			fmt.Fprintln(f.ErrOut, line)
			continue
		}
		f.Error("%s", line)
	}
}

// The groups of the help text.
const (
	groupObjects  = "objects"
	groupMesh     = "mesh"
	groupSettings = "settings"
)

// New is the command tree.
func New(f *factory.Factory) *cobra.Command {
	root := &cobra.Command{
		Use:   "meshctl",
		Short: "Steer a service mesh",
		Long: `meshctl steers a service mesh: which version of a service gets which requests, how calls are
retried and bounded, what may leave the mesh, and what its proxies are doing about it.

Exit codes, the same for every command and output format:
  0  done, or the answer is yes
  1  the answer is no: findings, not found, refused by a check
  2  wrong usage
  3  could not do it: unreachable, unreadable, refused by the server`,
		Example: `  # A Kubernetes with a mesh on this machine
  meshctl sandbox up

  # Judge a rule without any cluster
  meshctl validate -f rules/bookinfo/route-v1-90-v2-10.yaml

  # Send all traffic for reviews to version 1, and see it
  meshctl create -f rules/bookinfo/route-default-v1.yaml
  meshctl get routerules`,
		Args:              cobra.ArbitraryArgs,
		SilenceErrors:     true,
		SilenceUsage:      true,
		RunE:              unknownCommand,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetIn(f.In)
	root.SetOut(f.Out)
	root.SetErr(f.ErrOut)
	verbosity := globalFlags(root, f)
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := precedence(cmd, f); err != nil {
			return err
		}
		f.Config.WithWrapConfigFn(func(c *rest.Config) *rest.Config { return wire(c, f, *verbosity) })
		return nil
	}
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	root.AddGroup(
		&cobra.Group{ID: groupObjects, Title: "Rules and objects:"},
		&cobra.Group{ID: groupMesh, Title: "The mesh:"},
		&cobra.Group{ID: groupSettings, Title: "Settings and help:"},
	)
	add := func(group string, commands ...*cobra.Command) {
		for _, c := range commands {
			c.GroupID = group
			root.AddCommand(c)
		}
	}
	add(groupObjects, validate.New(f), create.New(f), replace.New(f), apply.New(f), get.New(f), deletecmd.New(f), wait.New(f))
	add(groupMesh, kubeinject.New(f), proxystatus.New(f), proxyconfig.New(f), sandbox.New(f))
	add(groupSettings, version.New(f), completion.New(f), options())
	root.SetHelpCommandGroupID(groupSettings)
	root.InitDefaultHelpCmd()
	completeGlobals(root, f)
	return root
}

// unknownCommand runs when the first argument is no command, or when there is none.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return cmd.Help()
	}
	hint := ""
	if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
		hint = "; did you mean " + strings.Join(near, " or ") + "?"
	}
	return factory.Usage("unknown command %q%s", args[0], hint)
}

// options lists the flags that every command takes, kept out of each command's own help.
func options() *cobra.Command {
	cmd := &cobra.Command{
		Use:               "options",
		Short:             "List the flags that every command takes",
		Long:              "List the flags that every command takes, and the environment variables and settings that stand for them.",
		Example:           "  meshctl options",
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		out := cmd.OutOrStdout()
		fmt.Fprintf(out, "The following flags can be passed to any command:\n\n%s\n", cmd.InheritedFlags().FlagUsagesWrapped(100))
		fmt.Fprint(out, settingsHelp)
		return nil
	}
	return cmd
}

const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if (or .IsAvailableCommand (eq .Name "help"))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if and .HasParent .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsagesWrapped 100 | trimTrailingWhitespaces}}{{end}}

{{if .HasAvailableSubCommands}}Use "{{.CommandPath}} [command] --help" for more about a command.
{{end}}Use "{{.Root.CommandPath}} options" for the flags that every command takes.
`
