package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/client/clientset/clientset"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/cli-runtime/pkg/genericiooptions"
	"sigs.k8s.io/yaml"

	"github.com/spf13/cobra"

	"github.com/meshctl/meshctl/internal/cli"
	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
	"github.com/meshctl/meshctl/rules"
)

// withServer lets the API server that the scripts share end with them.
type withServer struct{ m *testing.M }

func (w withServer) Run() int { return apiserver.Run(w.m) }

// TestMain lets the test binary play meshctl: the scripts run what is compiled here, so nothing is built apart and coverage counts.
func TestMain(m *testing.M) {
	testscript.Main(withServer{m}, map[string]func(){"meshctl": main})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "script"),
		Setup: func(env *testscript.Env) error {
			env.Values["test"] = env.T()
			env.Setenv("HOME", env.WorkDir)
			env.Setenv("KUBECONFIG", "")
			env.Setenv("RULES", env.WorkDir+"/rules")
			return copyRules(filepath.Join(env.WorkDir, "rules"))
		},
		Condition: func(cond string) (bool, error) {
			if cond != "root" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			return os.Geteuid() == 0, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":   exits,
			"cluster": cluster,
			"big":     big,
			"await":   await,
			"offers":  offers,
		},
	})
}

// copyRules gives each script the shipped files, as a user has them.
func copyRules(to string) error {
	return fs.WalkDir(rules.FS, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := rules.FS.ReadFile(name)
		if err != nil {
			return err
		}
		if err := os.MkdirAll(filepath.Join(to, path.Dir(name)), 0o755); err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), data, 0o644)
	})
}

// exits runs a command and asserts its exit code: exits 1 meshctl get routerules x.
func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	var exit *exec.ExitError
	got := 0
	switch {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%v", err)
	}
	if got != want {
		ts.Fatalf("%s: exit code %d, want %d", strings.Join(args[1:], " "), got, want)
	}
}

// cluster points KUBECONFIG to the shared API server, where the mesh's kinds are defined, and to a namespace of the script's own: $NS.
func cluster(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) > 0 {
		ts.Fatalf("usage: cluster")
	}
	t, ok := ts.Value("test").(testing.TB)
	if !ok {
		ts.Fatalf("the script does not run under testing")
	}
	server := apiserver.Shared(t)
	define(t, server)
	ns := server.Namespace(t)
	ts.Setenv("NS", ns)
	ts.Setenv("KUBECONFIG", server.KubeconfigFor(t, ns))
}

// define makes the mesh's kinds known to the server and returns when it serves them.
func define(t testing.TB, server *apiserver.Server) {
	t.Helper()
	client, err := apiextensions.NewForConfig(server.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	files, err := fs.Glob(rules.FS, "crds/*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Fatal("rules/crds holds no file")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	crds := client.ApiextensionsV1().CustomResourceDefinitions()
	for _, file := range files {
		data, err := rules.FS.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var crd apiextensionsv1.CustomResourceDefinition
		if err := yaml.UnmarshalStrict(data, &crd); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		if _, err := crds.Create(ctx, &crd, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			t.Fatal(err)
		}
		err = wait.PollUntilContextCancel(ctx, 50*time.Millisecond, true, func(ctx context.Context) (bool, error) {
			list := client.RESTClient().Get().AbsPath("/apis", crd.Spec.Group, crd.Spec.Versions[0].Name, crd.Spec.Names.Plural).Do(ctx)
			return list.Error() == nil, nil
		})
		if err != nil {
			t.Fatalf("waiting for %s: %v", crd.Name, err)
		}
	}
}

// big writes a file of n bytes of a repeated text: big FILE N TEXT.
func big(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: big FILE BYTES TEXT")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	data := strings.Repeat(args[2], n/len(args[2])+1)[:n]
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(data), 0o644))
}

// await returns when a file that a command in the background writes has a line that matches: await FILE REGEXP.
func await(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	want, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	var last []byte
	err = wait.PollUntilContextTimeout(context.Background(), 20*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		var err error
		last, err = os.ReadFile(ts.MkAbs(args[0]))
		return err == nil && want.Match(last), nil
	})
	if err != nil {
		ts.Fatalf("%s has no match for %s: %s", args[0], args[1], last)
	}
}

// offers runs a completion until it offers a word: on a machine so busy that the cluster takes long to answer, it rightly offers nothing.
func offers(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: offers WORD COMMAND [ARG...]")
	}
	err := wait.PollUntilContextTimeout(context.Background(), 50*time.Millisecond, 30*time.Second, true, func(context.Context) (bool, error) {
		err := ts.Exec(args[1], args[2:]...)
		return slices.Contains(strings.Split(ts.ReadFile("stdout"), "\n"), args[0]), err
	})
	if err != nil {
		ts.Fatalf("%s does not offer %s: %v", strings.Join(args[1:], " "), args[0], err)
	}
}

// commands lists every command of the tree that a user can call.
func commands(root *cobra.Command) []*cobra.Command {
	var out []*cobra.Command
	for _, c := range root.Commands() {
		if c.IsAvailableCommand() && c.Name() != "help" {
			out = append(out, c)
			out = append(out, commands(c)...)
		}
	}
	return out
}

func TestEveryCommandHasScriptExampleAndCompletion(t *testing.T) {
	root := cli.New(factory.New(genericiooptions.NewTestIOStreamsDiscard(), func(string) string { return "" }))
	all := commands(root)
	if len(all) == 0 {
		t.Fatal("the tree has no commands")
	}
	for _, c := range all {
		words := strings.Fields(c.CommandPath())[1:]
		t.Run(strings.Join(words, " "), func(t *testing.T) {
			if c.Short == "" || c.Long == "" {
				t.Error("it has no description")
			}
			if !c.HasParent() || c.Parent() != root || !c.HasSubCommands() {
				if c.Example == "" {
					t.Error("it has no example")
				}
				if c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
					t.Error("its arguments have no completion; cobra.NoFileCompletions says that there are none")
				}
			}
			scripts, err := filepath.Glob(filepath.Join("testdata", "script", words[0]+"_*.txtar"))
			if err != nil {
				t.Fatal(err)
			}
			if len(scripts) == 0 {
				t.Errorf("there is no script testdata/script/%s_*.txtar", words[0])
			}
		})
	}
}

func TestExamplesAreTrue(t *testing.T) {
	root := func() *cobra.Command {
		return cli.New(factory.New(genericiooptions.NewTestIOStreamsDiscard(), func(string) string { return "" }))
	}
	call := regexp.MustCompile(`meshctl ([^|<>)"]*)`)
	file := regexp.MustCompile(`\brules(/[\w./-]+)?`)
	checked := 0
	for _, c := range append(commands(root()), root()) {
		for _, line := range strings.Split(c.Example, "\n") {
			if strings.HasPrefix(strings.TrimSpace(line), "#") {
				continue
			}
			for _, match := range call.FindAllStringSubmatch(line, -1) {
				checked++
				cmd, rest, err := root().Find(strings.Fields(match[1]))
				if err == nil {
					err = cmd.ParseFlags(rest)
				}
				if err != nil {
					t.Errorf("%s: %s: %v", c.CommandPath(), line, err)
				}
			}
			for _, name := range file.FindAllString(line, -1) {
				if _, err := os.Stat(filepath.Join("..", "..", name)); err != nil {
					t.Errorf("%s: %s: %v", c.CommandPath(), line, err)
				}
			}
		}
	}
	if checked < 10 {
		t.Errorf("only %d examples were found", checked)
	}
}

func TestEveryScriptIsAboutACommand(t *testing.T) {
	root := cli.New(factory.New(genericiooptions.NewTestIOStreamsDiscard(), func(string) string { return "" }))
	scripts, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil || len(scripts) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, s := range scripts {
		verb, _, ok := strings.Cut(strings.TrimSuffix(filepath.Base(s), ".txtar"), "_")
		if c, _, err := root.Find([]string{verb}); !ok || verb != "meshctl" && (err != nil || c == root) {
			t.Errorf("%s: its name does not begin with a command and an underscore", s)
		}
	}
}
