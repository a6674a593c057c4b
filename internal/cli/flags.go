package cli

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// globalFlags binds the flags of every command to root: kubectl's connection flags in our words, our own, and hidden those of 0.2.
func globalFlags(root *cobra.Command, f *factory.Factory) (verbosity *int) {
	connection := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.Config.AddFlags(connection)
	usage := map[string]string{
		"kubeconfig":      "the kubeconfig file; $KUBECONFIG, else ~/.kube/config when not given",
		"context":         "the kubeconfig's context to use",
		"namespace":       "the namespace to work in; the context's when not given",
		"request-timeout": "how long one request to the server may take, as in 5s; 0 is without limit",
	}
	fs := root.PersistentFlags()
	connection.VisitAll(func(flag *pflag.Flag) {
		if flag.Name != "namespace" {
			flag.Shorthand = "" // -s and the like are left to the verbs
		}
		if words := usage[flag.Name]; words != "" {
			flag.Usage = words
		} else {
			flag.Usage = strings.ToLower(flag.Usage[:1]) + strings.TrimSuffix(flag.Usage[1:], ".")
		}
		fs.AddFlag(flag)
	})
	fs.StringVar(f.MeshNamespace, "mesh-namespace", *f.MeshNamespace, "the namespace of the control plane")
	fs.Var(&oneOf{f.Color, []string{"auto", "always", "never"}}, "color", "auto, always or never; auto colours on a terminal unless NO_COLOR is set")
	verbosity = fs.IntP("v", "v", 0, "1 writes each request to the server and its outcome to standard error, without their contents")

	old := func(name, shorthand string, value pflag.Value) {
		flag := fs.VarPF(value, name, shorthand, "")
		flag.Hidden = true
	}
	old("c", "c", &alias{of: fs.Lookup("kubeconfig")})
	old("istioNamespace", "i", &alias{of: fs.Lookup("mesh-namespace")})
	old("platform", "p", &ignored{warn: func(v string) { f.Warn("--platform %s has no effect: the platform is Kubernetes", v) }})
	return verbosity
}

// oneOf is a flag with a closed set of values.
type oneOf struct {
	value   *string
	allowed []string
}

func (o *oneOf) String() string { return *o.value }
func (*oneOf) Type() string     { return "string" }
func (o *oneOf) Set(s string) error {
	if !slices.Contains(o.allowed, s) {
		return fmt.Errorf("the values are %s", strings.Join(o.allowed, ", "))
	}
	*o.value = s
	return nil
}

// alias is a flag of 0.2 that stands for one of ours.
type alias struct{ of *pflag.Flag }

func (a *alias) String() string { return "" }
func (a *alias) Type() string   { return "string" }
func (a *alias) Set(s string) error {
	a.of.Changed = true
	return a.of.Value.Set(s)
}

// ignored is a flag of 0.2 that is taken and has no effect.
type ignored struct{ warn func(string) }

func (*ignored) String() string { return "" }
func (*ignored) Type() string   { return "string" }
func (i *ignored) Set(s string) error {
	i.warn(s)
	return nil
}

// wire is what every connection gets: the server's warnings on standard error, each once, and with -v a line a request.
func wire(c *rest.Config, f *factory.Factory, verbosity int) *rest.Config {
	c.WarningHandler = rest.NewWarningWriter(f.ErrOut, rest.WarningWriterOptions{Deduplicate: true, Color: false})
	if verbosity > 0 {
		c.Wrap(func(next http.RoundTripper) http.RoundTripper { return &trace{next: next, f: f} })
	}
	return c
}

// trace writes a line for each request: enough to see what happens, and neither headers nor bodies, which hold tokens and secrets.
type trace struct {
	next http.RoundTripper
	f    *factory.Factory
}

func (t *trace) RoundTrip(r *http.Request) (*http.Response, error) {
	start := time.Now()
	response, err := t.next.RoundTrip(r)
	outcome := "no answer"
	if response != nil {
		outcome = response.Status
	}
	fmt.Fprintf(t.f.ErrOut, "%s %s %s in %s\n", r.Method, r.URL, outcome, time.Since(start).Round(time.Millisecond))
	return response, err
}

// flagError words a wrong flag and names the nearest right one.
func flagError(cmd *cobra.Command, err error) error {
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "unknown flag: --"); ok {
		if near := nearestFlag(cmd, name); near != "" {
			return factory.Usage("unknown flag --%s; did you mean --%s?", name, near)
		}
	}
	return factory.Usage("%s", text)
}

func nearestFlag(cmd *cobra.Command, name string) string {
	best, distance := "", 3
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if flag.Hidden {
			return
		}
		if d := edits(name, flag.Name); d < distance {
			best, distance = flag.Name, d
		}
	})
	return best
}

// edits counts the letters to insert, remove or change to get from a to b.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			diagonal, row[j] = row[j], min(row[j]+1, row[j-1]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
