// Package validate is the verb that judges files without a cluster.
package validate

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/input"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/objects"
)

type options struct {
	input  input.Flags
	output string
	failOn string
}

// report is the machine-readable answer.
type report struct {
	Objects  int               `json:"objects"`
	Errors   int               `json:"errors"`
	Warnings int               `json:"warnings"`
	Findings []finding.Finding `json:"findings"`
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{output: "text", failOn: "error"}
	cmd := &cobra.Command{
		Use:   "validate -f FILE",
		Short: "Judge files without a cluster",
		Long: `Judge files, directories, URLs or standard input without a cluster.

Every finding is told, not the first, with its file, line and column, the field, what is wrong and
what to do. The exit code is 0 when nothing was found that --fail-on asks for, 1 when something was,
2 for wrong usage, 3 when a file could not be read.`,
		Example: `  # One file
  meshctl validate -f rules/bookinfo/route-v1-90-v2-10.yaml

  # A directory and those below it, warnings count too
  meshctl validate -R -f rules --fail-on warning

  # For a program
  meshctl validate -f rules/bookinfo -o json`,
		Args:              factory.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd, f) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.input.Add(cmd, "validate")
	cmd.Flags().StringVarP(&o.output, "output", "o", o.output, "text, json or yaml")
	cmd.Flags().StringVar(&o.failOn, "fail-on", o.failOn, "the mildest finding that makes the exit code 1: error, warning or never")
	factory.Values(cmd, "output", "text", "json", "yaml")
	factory.Values(cmd, "fail-on", "error", "warning", "never")
	return cmd
}

func (o *options) run(cmd *cobra.Command, f *factory.Factory) error {
	if err := factory.OneOf("output", o.output, "text", "json", "yaml"); err != nil {
		return err
	}
	if err := factory.OneOf("fail-on", o.failOn, "error", "warning", "never"); err != nil {
		return err
	}
	sources, err := o.input.Read(cmd.Context(), f.In)
	if err != nil {
		return err
	}
	// No kubeconfig is read, so an object without namespace is taken to be in the one every kubeconfig begins with.
	objs, fs := input.Decode(sources, manifest.Options{Namespace: *f.Config.Namespace, DefaultNamespace: "default"})
	fs = append(fs, input.Check(objs)...)
	fs = append(fs, input.Among(objects.NewSet(objs...), objs)...)
	if err := o.print(f, len(objs), len(sources), fs); err != nil {
		return err
	}
	if worst, any := finding.Max(fs); any && (o.failOn == "error" && worst >= finding.Error || o.failOn == "warning" && worst >= finding.Warning) {
		return factory.Silent(factory.ExitNo)
	}
	return nil
}

func (o *options) print(f *factory.Factory, count, files int, fs []finding.Finding) error {
	if o.output == "text" {
		f.WriteFindings(f.Out, fs)
		read := plural(files, "file")
		if !finding.HasErrors(fs) { // with errors, some objects could not be counted
			read += ", " + plural(count, "object")
		}
		fmt.Fprintf(f.ErrOut, "%s: %s\n", read, factory.Count(fs))
		return nil
	}
	finding.Sort(fs)
	r := report{Objects: count, Findings: append([]finding.Finding{}, fs...)}
	for _, d := range fs {
		switch d.Severity {
		case finding.Error:
			r.Errors++
		case finding.Warning:
			r.Warnings++
		}
	}
	data, err := json.MarshalIndent(r, "", "  ")
	if err == nil && o.output == "yaml" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return fmt.Errorf("encoding the findings: %w", err)
	}
	fmt.Fprintln(f.Out, strings.TrimRight(string(data), "\n"))
	return nil
}

func plural(n int, thing string) string {
	if n == 1 {
		return "1 " + thing
	}
	return fmt.Sprintf("%d %ss", n, thing)
}
