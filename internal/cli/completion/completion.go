// Package completion is the verb that writes the shell scripts that complete meshctl's commands, flags, kinds and live names.
package completion

import (
	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	return &cobra.Command{
		Use:   "completion [bash|zsh|fish|powershell]",
		Short: "Write the completion script of a shell",
		Long: `Write the script that makes a shell complete meshctl's commands, flags, kinds and, from the cluster,
names, namespaces and contexts. Without a shell named it is bash's, as it was in 0.2.`,
		Example: `  # bash, now
  source <(meshctl completion bash)

  # bash, for good
  meshctl completion bash > /etc/bash_completion.d/meshctl

  # zsh, for good
  meshctl completion zsh > "${fpath[1]}/_meshctl"

  # fish, now
  meshctl completion fish | source

  # powershell, now
  meshctl completion powershell | Out-String | Invoke-Expression`,
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 1 {
				return factory.Usage("completion takes one shell, but got %d", len(args))
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			shell := "bash"
			if len(args) == 1 {
				shell = args[0]
			}
			root := cmd.Root()
			switch shell {
			case "bash":
				return root.GenBashCompletionV2(f.Out, true)
			case "zsh":
				return root.GenZshCompletion(f.Out)
			case "fish":
				return root.GenFishCompletion(f.Out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(f.Out)
			default:
				return factory.Usage("no completion for shell %q: there is bash, zsh, fish and powershell", shell)
			}
		},
	}
}
