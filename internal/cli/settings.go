package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/spf13/viper"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

const settingsHelp = `Each of them can also be set for good: by an environment variable (MESHCTL_NAMESPACE for
--namespace), or in the settings file $XDG_CONFIG_HOME/meshctl/config.yaml (~/.config when unset;
MESHCTL_CONFIG names another file), as in

  mesh-namespace: istio-system
  color: never

A flag wins over the environment, the environment over the file, the file over the default.
`

// precedence is the one place that decides where a global flag's value comes from: the command line, else MESHCTL_*, else the settings file,
// else the default.
func precedence(cmd *cobra.Command, f *factory.Factory) error {
	globals := cmd.Root().PersistentFlags()
	v := viper.New()
	if err := readSettings(v, globals, f.Getenv); err != nil {
		return err
	}
	var errs []error
	globals.VisitAll(func(flag *pflag.Flag) {
		if flag.Changed || flag.Hidden {
			return
		}
		variable := "MESHCTL_" + strings.ToUpper(strings.ReplaceAll(flag.Name, "-", "_"))
		origin, value := variable, f.Getenv(variable)
		if value == "" {
			origin, value = v.ConfigFileUsed(), v.GetString(flag.Name)
		}
		if value == "" {
			return
		}
		if err := flag.Value.Set(value); err != nil {
			errs = append(errs, factory.Usage("%s: %s=%s: %w", origin, flag.Name, value, err))
		}
	})
	return errors.Join(errs...)
}

// readSettings reads the settings file into v. One that was named must be there; the usual one need not.
func readSettings(v *viper.Viper, known *pflag.FlagSet, getenv func(string) string) error {
	path, named := settingsFile(getenv)
	if path == "" {
		return nil
	}
	v.SetConfigFile(path)
	v.SetConfigType("yaml")
	err := v.ReadInConfig()
	if errors.Is(err, fs.ErrNotExist) && !named {
		return nil
	}
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("reading the settings: MESHCTL_CONFIG names %s, which does not exist", path)
	}
	if err != nil {
		return factory.Usage("reading the settings in %s: %s", path, strings.Join(strings.Fields(err.Error()), " "))
	}
	for _, key := range v.AllKeys() {
		if flag := known.Lookup(key); flag == nil || flag.Hidden {
			return factory.Usage("reading the settings in %s: %q is no setting; those are: %s", path, key, strings.Join(settingNames(known), ", "))
		}
	}
	return nil
}

func settingNames(known *pflag.FlagSet) []string {
	var names []string
	known.VisitAll(func(flag *pflag.Flag) {
		if !flag.Hidden {
			names = append(names, flag.Name)
		}
	})
	slices.Sort(names)
	return names
}

func settingsFile(getenv func(string) string) (path string, named bool) {
	if path := getenv("MESHCTL_CONFIG"); path != "" {
		return path, true
	}
	dir := getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", false // no home, no settings
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "meshctl", "config.yaml"), false
}
