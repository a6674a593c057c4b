// Command gendocs writes what the command tree says of itself: docs/reference and completions.
//
// It is run by `make gen` from the top of the repository; a test fails when the files are not what it would write.
package main

import (
	"bytes"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/meshctl/meshctl/internal/cli"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/finding"
)

func main() {
	if err := write("."); err != nil {
		fmt.Fprintln(os.Stderr, "gendocs:", err)
		os.Exit(1)
	}
}

// write puts every generated file under dir, and removes those that nothing generates any more.
func write(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for _, folder := range []string{"docs/reference", "completions"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			return err
		}
		err := filepath.WalkDir(filepath.Join(dir, folder), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			name, err := filepath.Rel(dir, path)
			if err != nil || files[name] != nil {
				return err
			}
			return os.Remove(path)
		})
		if err != nil {
			return fmt.Errorf("clearing %s: %w", folder, err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate makes every file's content, by its path in the repository.
func generate() (map[string][]byte, error) {
	// Defaults that come from who runs this do not belong in a reference.
	f := factory.New(genericiooptions.IOStreams{In: strings.NewReader(""), Out: io.Discard, ErrOut: io.Discard}, func(string) string { return "" })
	root := cli.New(f)
	files := map[string][]byte{"docs/reference/findings.md": findings()}
	each(root, func(c *cobra.Command) {
		files["docs/reference/"+fileOf(c)] = reference(c)
	})
	for name, gen := range map[string]func(io.Writer) error{
		"meshctl.bash": func(w io.Writer) error { return root.GenBashCompletionV2(w, true) },
		"meshctl.zsh":  root.GenZshCompletion,
		"meshctl.fish": func(w io.Writer) error { return root.GenFishCompletion(w, true) },
		"meshctl.ps1":  root.GenPowerShellCompletionWithDesc,
	} {
		var b bytes.Buffer
		if err := gen(&b); err != nil {
			return nil, fmt.Errorf("generating %s: %w", name, err)
		}
		files["completions/"+name] = b.Bytes()
	}
	return files, nil
}

// each visits the commands that users see.
func each(c *cobra.Command, visit func(*cobra.Command)) {
	if c.Hidden || c.Name() == "help" {
		return
	}
	visit(c)
	for _, sub := range c.Commands() {
		each(sub, visit)
	}
}

func fileOf(c *cobra.Command) string { return strings.ReplaceAll(c.CommandPath(), " ", "_") + ".md" }

// reference is the page of one command.
func reference(c *cobra.Command) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "# %s\n\n", c.CommandPath())
	long := c.Long
	if long == "" {
		long = c.Short
	}
	// What is indented stays as it is; the rest are paragraphs.
	fmt.Fprintf(&b, "%s\n\n", paragraphs(long))
	if c.Runnable() {
		fmt.Fprintf(&b, "```\n%s\n```\n\n", c.UseLine())
	}
	if len(c.Aliases) > 0 {
		fmt.Fprintf(&b, "Also: `%s`.\n\n", strings.Join(c.Aliases, "`, `"))
	}
	if c.Example != "" {
		fmt.Fprintf(&b, "## Examples\n\n```sh\n%s\n```\n\n", dedent(c.Example))
	}
	var subs []*cobra.Command
	for _, sub := range c.Commands() {
		if !sub.Hidden && sub.Name() != "help" {
			subs = append(subs, sub)
		}
	}
	if len(subs) > 0 {
		fmt.Fprint(&b, "## Commands\n\n")
		for _, sub := range subs {
			fmt.Fprintf(&b, "- [%s](%s): %s\n", sub.CommandPath(), fileOf(sub), sub.Short)
		}
		fmt.Fprintln(&b)
	}
	flagTable(&b, "Flags", c.NonInheritedFlags())
	if c.HasParent() {
		fmt.Fprintf(&b, "The flags that every command takes are on the page of [%s](%s).\n", c.Root().Name(), fileOf(c.Root()))
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func flagTable(b *bytes.Buffer, title string, flags *pflag.FlagSet) {
	rows := &bytes.Buffer{}
	flags.VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden || flag.Name == "help" {
			return
		}
		name := "--" + flag.Name
		if flag.Shorthand != "" {
			name = "-" + flag.Shorthand + ", " + name
		}
		value, usage := pflag.UnquoteUsage(flag)
		if value != "" {
			name += " " + value
		}
		def := ""
		if flag.DefValue != "" && flag.DefValue != "false" && flag.DefValue != "[]" && flag.DefValue != "0" {
			def = "`" + flag.DefValue + "`"
			if home, err := os.UserHomeDir(); err == nil {
				def = strings.Replace(def, "`"+home+"/", "`~/", 1)
			}
		}
		fmt.Fprintf(rows, "| `%s` | %s | %s |\n", name, def, strings.ReplaceAll(usage, "|", "\\|"))
	})
	if rows.Len() > 0 {
		fmt.Fprintf(b, "## %s\n\n| flag | default | meaning |\n|---|---|---|\n%s\n", title, rows)
	}
}

// paragraphs turns help text into Markdown: indented blocks become code.
func paragraphs(text string) string {
	var out []string
	code := false
	for _, line := range strings.Split(strings.TrimSpace(text), "\n") {
		indented := strings.HasPrefix(line, "  ")
		if indented != code && line != "" {
			if !indented {
				out = append(out, "```")
			} else {
				if n := len(out); n > 0 && out[n-1] != "" {
					out = append(out, "")
				}
				out = append(out, "```")
			}
			code = indented
		}
		if code {
			line = strings.TrimPrefix(line, "  ")
		}
		out = append(out, strings.TrimRight(line, " "))
	}
	if code {
		out = append(out, "```")
	}
	return strings.Join(out, "\n")
}

func dedent(text string) string {
	var out []string
	for _, line := range strings.Split(strings.Trim(text, "\n"), "\n") {
		out = append(out, strings.TrimPrefix(line, "  "))
	}
	return strings.Join(out, "\n")
}

// findings is the page of every code.
func findings() []byte {
	var b bytes.Buffer
	fmt.Fprint(&b, "# Findings\n\nEverything that `meshctl validate`, the other commands, the control plane and an object's status can find, by its code. A code never changes its meaning.\n")
	for _, d := range finding.Registry() {
		fmt.Fprintf(&b, "\n## %s %s\n\nUsually: %s. %s\n\n%s\n", d.Code, d.Name, d.Severity, d.Meaning, d.Do)
	}
	return b.Bytes()
}
