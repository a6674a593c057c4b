// Package version is the verb that says which release each part of the mesh is: this program, the control plane, the proxies.
package version

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/proxystatus"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/version"
)

// patience bounds the questions to the cluster: the client's own version must not wait for a cluster that does not answer.
const patience = 5 * time.Second

type options struct {
	client bool
	output string
}

// answer is what -o json prints.
type answer struct {
	Client       version.Info `json:"clientVersion"`
	ControlPlane []component  `json:"controlPlane,omitempty"`
	Proxies      []proxies    `json:"dataPlane,omitempty"`
}

type component struct {
	Name    string `json:"name"`
	Version string `json:"version"`
}

type proxies struct {
	Version string `json:"version"`
	Count   int    `json:"count"`
}

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{output: "text"}
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Show the versions of meshctl, the control plane and the proxies",
		Long: `Show the version of meshctl and, where a cluster is configured and answers, those of the control
plane and of the proxies. A cluster that does not answer is said on standard error and is no failure.`,
		Example: `  # All versions
  meshctl version

  # Only this program's, without asking a cluster
  meshctl version --client -o short`,
		Args:              factory.NoArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Context(), f) },
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().BoolVar(&o.client, "client", false, "only this program's version; asks no cluster")
	cmd.Flags().StringVarP(&o.output, "output", "o", o.output, "text, short, json or yaml")
	factory.Values(cmd, "output", "text", "short", "json", "yaml")
	return cmd
}

func (o *options) run(ctx context.Context, f *factory.Factory) error {
	if err := factory.OneOf("output", o.output, "text", "short", "json", "yaml"); err != nil {
		return err
	}
	a := answer{Client: version.Get()}
	if !o.client {
		if err := a.ask(ctx, f); err != nil {
			fmt.Fprintf(f.ErrOut, "control plane: %s\n", err)
		}
	}
	return o.print(f.Out, a)
}

// ask fills in what the cluster knows.
func (a *answer) ask(ctx context.Context, f *factory.Factory) error {
	client, err := f.Connect()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if a.ControlPlane, err = deployed(ctx, client, *f.MeshNamespace); err != nil {
		return client.Explain(err)
	}
	if len(a.ControlPlane) == 0 {
		return fmt.Errorf("the mesh is not installed in namespace %s", *f.MeshNamespace)
	}
	connected, errs := proxystatus.Fetch(ctx, client, *f.MeshNamespace)
	count := map[string]int{}
	for _, p := range connected {
		count[p.Version]++
	}
	for v, n := range count {
		if v == "" {
			v = "unknown"
		}
		a.Proxies = append(a.Proxies, proxies{Version: v, Count: n})
	}
	slices.SortFunc(a.Proxies, func(x, y proxies) int { return strings.Compare(x.Version, y.Version) })
	return errors.Join(errs...)
}

// deployed reads the versions of the control plane's Deployments from the tags of their images.
func deployed(ctx context.Context, client *kube.Client, namespace string) ([]component, error) {
	var found []component
	for _, name := range []string{"istio-pilot", "istio-ingress"} {
		u, err := client.Dynamic.Resource(appsv1.SchemeGroupVersion.WithResource("deployments")).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var d appsv1.Deployment
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &d); err != nil {
			return nil, fmt.Errorf("reading deployment %s: %w", name, err)
		}
		if containers := d.Spec.Template.Spec.Containers; len(containers) > 0 {
			found = append(found, component{Name: name, Version: tag(containers[0].Image)})
		}
	}
	return found, nil
}

// tag of an image reference; a digest stands for itself.
func tag(image string) string {
	if at := strings.LastIndex(image, "@"); at >= 0 {
		return image[at+1:]
	}
	if colon := strings.LastIndex(image, ":"); colon > strings.LastIndex(image, "/") {
		return image[colon+1:]
	}
	return "latest"
}

func (o *options) print(w io.Writer, a answer) error {
	switch o.output {
	case "short":
		fmt.Fprintln(w, a.Client.Version)
		return nil
	case "text":
		a.text(w)
		return nil
	}
	data, err := json.MarshalIndent(a, "", "  ")
	if err == nil && o.output == "yaml" {
		data, err = yaml.JSONToYAML(data)
	}
	if err != nil {
		return fmt.Errorf("encoding the versions: %w", err)
	}
	fmt.Fprintln(w, strings.TrimRight(string(data), "\n"))
	return nil
}

// text begins with 0.2's five lines, which scripts search. Branch and user of a build are no longer recorded: they made builds differ.
func (a answer) text(w io.Writer) {
	fmt.Fprintf(w, "Version: %s\nGitRevision: %s\nGitBranch: unknown\nUser: unknown\nGolangVersion: %s\n", a.Client.Version, a.Client.GitRevision, a.Client.GoVersion)
	if len(a.ControlPlane) > 0 {
		fmt.Fprintln(w)
	}
	for _, c := range a.ControlPlane {
		fmt.Fprintf(w, "%s: %s\n", c.Name, c.Version)
	}
	for _, p := range a.Proxies {
		fmt.Fprintf(w, "proxies: %s (%d)\n", p.Version, p.Count)
	}
}
