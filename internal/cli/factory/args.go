package factory

import (
	"strings"

	"github.com/spf13/cobra"
)

// NoArgs refuses arguments, naming the command and, where it has one, the flag that was probably forgotten.
func NoArgs(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := ""
	if cmd.Flags().Lookup("filename") != nil {
		hint = "; name files with -f " + strings.Join(args, ",")
	}
	return Usage("%s takes no arguments, but got %q%s", cmd.Name(), strings.Join(args, " "), hint)
}

// OneOf refuses a value that is not among allowed.
func OneOf(flag, value string, allowed ...string) error {
	for _, a := range allowed {
		if value == a {
			return nil
		}
	}
	return Usage("--%s=%s: the values are %s", flag, value, strings.Join(allowed, ", "))
}
