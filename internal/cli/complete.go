package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// completeGlobals completes the values of the global flags.
func completeGlobals(root *cobra.Command, f *factory.Factory) {
	factory.Values(root, "color", "auto", "always", "never")
	for flag, complete := range map[string]cobra.CompletionFunc{
		"namespace":      f.CompleteNamespaces,
		"mesh-namespace": f.CompleteNamespaces,
		"context":        among(func() []string { return f.KubeconfigNames().Contexts }),
		"cluster":        among(func() []string { return f.KubeconfigNames().Clusters }),
		"user":           among(func() []string { return f.KubeconfigNames().Users }),
	} {
		if err := root.RegisterFlagCompletionFunc(flag, complete); err != nil {
			panic("completing a flag that was not defined: " + err.Error())
		}
	}
}

func among(names func() []string) cobra.CompletionFunc {
	return func(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
		var out []string
		for _, n := range names() {
			if strings.HasPrefix(n, prefix) {
				out = append(out, n)
			}
		}
		return out, cobra.ShellCompDirectiveNoFileComp
	}
}
