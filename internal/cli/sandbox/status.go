package sandbox

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/sandbox"
)

func newStatus(f *factory.Factory, dir func() string) *cobra.Command {
	output := "text"
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the sandbox: components, addresses, memory, images",
		Long: `Show the sandbox: whether it runs, where it is reached, its components with their processes and memory, the
node ports that are open on this machine, and the images pods can use. Exit code 1 says that it is not running.`,
		Example: `  sudo meshctl sandbox status
  sudo meshctl sandbox status -o json`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := factory.OneOf("output", output, "text", "json", "yaml"); err != nil {
				return err
			}
			st, err := sandbox.GetStatus(cmd.Context(), dir())
			if err != nil {
				return err
			}
			if err := printStatus(f.Out, st, output); err != nil {
				return err
			}
			if st.State != sandbox.StateRunning {
				return factory.Silent(factory.ExitNo)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", output, "text, json or yaml")
	factory.Values(cmd, "output", "text", "json", "yaml")
	return cmd
}

func printStatus(w io.Writer, st sandbox.Status, output string) error {
	switch output {
	case "json":
		encoder := json.NewEncoder(w)
		encoder.SetIndent("", "  ")
		return encoder.Encode(st)
	case "yaml":
		data, err := yaml.Marshal(st)
		if err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 3, ' ', 0)
	fmt.Fprintf(t, "state\t%s\ndirectory\t%s\n", st.State, st.Dir)
	if st.State == sandbox.StateDown {
		return t.Flush()
	}
	fmt.Fprintf(t, "since\t%s\nprocess\t%d\nAPI\t%s\nkubeconfig\t%s\nnode\t%s\nmemory\t%s\n",
		st.Since.Format(time.RFC3339), st.PID, st.API, st.Kubeconfig, st.NodeIP, mebibytes(st.Memory))
	fmt.Fprint(t, "\nCOMPONENT\tPROCESS\tMEMORY\tRESTARTS\tLAST END\n")
	for _, c := range st.Components {
		end := c.LastEnd
		if end == "" {
			end = "-"
		}
		fmt.Fprintf(t, "%s\t%d\t%s\t%d\t%s\n", c.Name, c.PID, mebibytes(c.Memory), c.Restarts, end)
	}
	if len(st.NodePorts) > 0 {
		fmt.Fprint(t, "\nNODE PORT\tADDRESS\n")
		for _, p := range st.NodePorts {
			fmt.Fprintf(t, "%s/%s:%s\t%s\n", p.Namespace, p.Service, p.Port, p.Address)
		}
	}
	if len(st.Images) > 0 {
		fmt.Fprint(t, "\nIMAGE\tDIGEST\n")
		for _, i := range st.Images {
			fmt.Fprintf(t, "%s\t%.19s\n", i.Name, i.Digest)
		}
	}
	return t.Flush()
}

func mebibytes(n int64) string { return fmt.Sprintf("%d MiB", n>>20) }

func newEnv(f *factory.Factory, dir func() string) *cobra.Command {
	return &cobra.Command{
		Use:   "env",
		Short: "Print the settings by which a shell uses the sandbox",
		Long: `Print the settings by which a shell uses the sandbox: KUBECONFIG; a PATH with kubectl and meshctl; and, when
the mesh is installed, BOOKINFO_URL, the address of its ingress on this machine.`,
		Example:           `  eval "$(sudo meshctl sandbox env)"`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return env(cmd.Context(), f, dir())
		},
	}
}

func env(ctx context.Context, f *factory.Factory, dir string) error {
	st, err := sandbox.GetStatus(ctx, dir)
	if err != nil {
		return err
	}
	if st.State != sandbox.StateRunning {
		return notRunning(sandbox.ErrNotRunning)
	}
	path := filepath.Join(st.Dir, "path")
	if err := linkPrograms(path); err != nil {
		return err
	}
	fmt.Fprintf(f.Out, "export KUBECONFIG=%s\n", quote(st.Kubeconfig))
	fmt.Fprintf(f.Out, "export MESHCTL_SANDBOX_DIR=%s\n", quote(st.Dir))
	fmt.Fprintf(f.Out, "case \":$PATH:\" in *:%s:*) ;; *) export PATH=%s:\"$PATH\" ;; esac\n", quote(path), quote(path))
	for _, p := range st.NodePorts {
		if p.Service == "istio-ingress" && p.Port == "http" {
			fmt.Fprintf(f.Out, "export BOOKINFO_URL=%s\n", quote(p.Address))
		}
	}
	return nil
}

// linkPrograms makes a directory in which kubectl and meshctl are found.
func linkPrograms(dir string) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	found, err := programs()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, target := range map[string]string{"kubectl": found.Meshbox, "meshctl": self} {
		link := filepath.Join(dir, name)
		if current, err := os.Readlink(link); err == nil && current == target {
			continue
		}
		if err := os.RemoveAll(link); err != nil {
			return err
		}
		if err := os.Symlink(target, link); err != nil {
			return err
		}
	}
	return nil
}

// quote makes a word of a shell of any string.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }
