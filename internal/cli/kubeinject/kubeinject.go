// Package kubeinject is the verb kube-inject: it puts the sidecar into the workloads of a file of manifests.
package kubeinject

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/inject"
	"github.com/meshctl/meshctl/internal/kube"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/meshconfig"
	"github.com/meshctl/meshctl/internal/version"
)

// clusterTimeout bounds reading the mesh configuration when --request-timeout does not.
const clusterTimeout = 15 * time.Second

// auto is the value of --sidecar-mode that leaves the choice to what the cluster can run.
const auto = "auto"

type options struct {
	f *factory.Factory

	filename, output              string
	meshConfigFile, meshConfigMap string
	injectConfigFile              string
	keepAPIVersions               bool
	mode                          string
	hub, tag                      string
	flagged                       inject.Params
	changed                       func(flag string) bool
}

func modes() []string { return []string{string(inject.Native), string(inject.Classic), auto} }

// New makes the command.
func New(f *factory.Factory) *cobra.Command {
	o := &options{f: f}
	d := inject.DefaultConfig().Params
	cmd := &cobra.Command{
		Use:   "kube-inject -f FILE [-o OUT]",
		Short: "Add the sidecar to the workloads of a manifest",
		Long: `Add the sidecar to the workloads of a manifest, YAML or JSON, and print the result.

Deployments, ReplicaSets, ReplicationControllers, DaemonSets, StatefulSets, Jobs, CronJobs, Pods and Lists of them get a sidecar, unless their
annotation sidecar.istio.io/inject says no. Documents that are not changed come out byte for byte. A sidecar that is already there is replaced, so
running the command twice equals running it once. What was decided about each object, and why, is said on standard error.

The mesh configuration is read from --meshConfigFile, else from the cluster (ConfigMap "istio" in the mesh's namespace), else, when no cluster is
configured, the built-in defaults are used.`,
		Example: `  # Create an application with sidecars
  kubectl apply -f <(meshctl kube-inject -f bookinfo-v1.yaml)

  # Keep the result in a file
  meshctl kube-inject -f deployment.yaml -o deployment-injected.yaml

  # Read standard input, use no cluster
  cat deployment.yaml | meshctl kube-inject -f - --meshConfigFile mesh.yaml`,
		Args:              factory.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			o.changed = cmd.Flags().Changed
			return o.run(cmd.Context())
		},
	}
	fl := cmd.Flags()
	fl.StringVarP(&o.filename, "filename", "f", "", "file with the manifests; - is standard input")
	fl.StringVarP(&o.output, "output", "o", "", "file to write, whole or not at all; standard output when not given")
	fl.StringVar(&o.meshConfigFile, "meshConfigFile", "", "file with the mesh configuration; no cluster is asked")
	fl.StringVar(&o.meshConfigMap, "meshConfigMapName", meshconfig.ConfigMap, "ConfigMap with the mesh configuration under the key "+strconv.Quote(meshconfig.Key))
	fl.StringVar(&o.injectConfigFile, "injectConfigFile", "", "file with the injection configuration: policy, namespaces, params")
	fl.BoolVar(&o.keepAPIVersions, "keep-api-versions", false, "leave API versions that Kubernetes no longer serves as they are")
	fl.StringVar(&o.mode, "sidecar-mode", string(d.Mode), "how the proxy runs: native (a restartable init container), classic, or auto (ask the cluster)")
	fl.StringVar(&o.hub, "hub", inject.DefaultHub, "registry prefix of the images")
	fl.StringVar(&o.tag, "tag", version.Version, "tag of the images")
	fl.IntVar(&o.flagged.Verbosity, "verbosity", d.Verbosity, "log verbosity of the sidecar")
	fl.Int64Var(&o.flagged.SidecarProxyUID, "sidecarProxyUID", d.SidecarProxyUID, "user id of the proxy, whose own traffic is not captured")
	fl.StringVar(&o.flagged.Version, "setVersionString", d.Version, "version to record in the status annotation")
	fl.BoolVar(&o.flagged.EnableCoreDump, "coreDump", d.EnableCoreDump, "add a privileged init container that lets the proxy dump core")
	fl.BoolVar(&o.flagged.DebugMode, "debug", d.DebugMode, "make the root file system of the sidecar writable")
	fl.StringVar(&o.flagged.ImagePullPolicy, "imagePullPolicy", d.ImagePullPolicy, "pull policy of the images: Always, IfNotPresent or Never")
	fl.StringVar(&o.flagged.IncludeIPRanges, "includeIPRanges", "", "outbound IP ranges to capture, separated by commas; all when not given")
	fl.StringVar(&o.flagged.ExcludeIPRanges, "excludeIPRanges", "", "outbound IP ranges not to capture, separated by commas")
	fl.StringVar(&o.flagged.ExcludeInboundPorts, "excludeInboundPorts", "", "inbound ports not to capture, separated by commas")
	fl.StringVar(&o.flagged.ExcludeOutboundPorts, "excludeOutboundPorts", "", "outbound ports not to capture, separated by commas")
	fl.StringVar(&o.flagged.CPU, "proxyCPU", d.CPU, "CPU the sidecar requests")
	fl.StringVar(&o.flagged.CPULimit, "proxyCPULimit", "", "CPU the sidecar is limited to; unlimited when not given")
	fl.StringVar(&o.flagged.Memory, "proxyMemory", d.Memory, "memory the sidecar requests")
	fl.StringVar(&o.flagged.MemoryLimit, "proxyMemoryLimit", "", "memory the sidecar is limited to; unlimited when not given")
	factory.Values(cmd, "sidecar-mode", modes()...)
	factory.Values(cmd, "imagePullPolicy", "Always", "IfNotPresent", "Never")
	return cmd
}

func (o *options) run(ctx context.Context) error {
	if o.filename == "" {
		return factory.Usage("filename not specified (see --filename or -f)")
	}
	if err := factory.OneOf("sidecar-mode", o.mode, modes()...); err != nil {
		return err
	}
	text, err := o.read()
	if err != nil {
		return err
	}
	injector, err := o.injector(ctx)
	if err != nil {
		return err
	}
	out, err := o.inject(injector, text)
	if err != nil {
		return err
	}
	return o.write(out)
}

func (o *options) read() ([]byte, error) {
	if o.filename == "-" {
		text, err := io.ReadAll(o.f.In)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return text, nil
	}
	text, err := os.ReadFile(o.filename)
	if err != nil {
		return nil, fmt.Errorf("reading the manifests: %w", err)
	}
	return text, nil
}

// injector joins the mesh configuration, the injection configuration, and the flags, which have the last word.
func (o *options) injector(ctx context.Context) (inject.Injector, error) {
	in := inject.Injector{Config: inject.DefaultConfig(), MeshNamespace: o.meshNamespace(), Namespace: "default"}
	if ns := o.f.Config.Namespace; ns != nil && *ns != "" {
		in.Namespace = *ns
	}
	if o.injectConfigFile != "" {
		text, err := os.ReadFile(o.injectConfigFile)
		if err != nil {
			return in, fmt.Errorf("reading the injection configuration: %w", err)
		}
		config, fs := inject.ParseConfig(o.injectConfigFile, text)
		if err := o.say(fs, "the injection configuration has errors"); err != nil {
			return in, err
		}
		in.Config = config
	}
	p := &in.Config.Params
	if o.changed("hub") || o.changed("tag") {
		p.Images(o.hub, o.tag)
	}
	for flag, set := range map[string]func(){
		"verbosity":            func() { p.Verbosity = o.flagged.Verbosity },
		"sidecarProxyUID":      func() { p.SidecarProxyUID = o.flagged.SidecarProxyUID },
		"setVersionString":     func() { p.Version = o.flagged.Version },
		"coreDump":             func() { p.EnableCoreDump = o.flagged.EnableCoreDump },
		"debug":                func() { p.DebugMode = o.flagged.DebugMode },
		"imagePullPolicy":      func() { p.ImagePullPolicy = inject.PullPolicy(o.flagged.ImagePullPolicy) },
		"includeIPRanges":      func() { p.IncludeIPRanges = o.flagged.IncludeIPRanges },
		"excludeIPRanges":      func() { p.ExcludeIPRanges = o.flagged.ExcludeIPRanges },
		"excludeInboundPorts":  func() { p.ExcludeInboundPorts = o.flagged.ExcludeInboundPorts },
		"excludeOutboundPorts": func() { p.ExcludeOutboundPorts = o.flagged.ExcludeOutboundPorts },
		"proxyCPU":             func() { p.CPU = o.flagged.CPU },
		"proxyCPULimit":        func() { p.CPULimit = o.flagged.CPULimit },
		"proxyMemory":          func() { p.Memory = o.flagged.Memory },
		"proxyMemoryLimit":     func() { p.MemoryLimit = o.flagged.MemoryLimit },
		"sidecar-mode":         func() { p.Mode = inject.Mode(o.mode) },
	} {
		if o.changed(flag) {
			set()
		}
	}
	if p.SidecarProxyUID <= 0 {
		return in, factory.Usage("--sidecarProxyUID %d is not the id of an ordinary user; the usual one is 1337", p.SidecarProxyUID)
	}
	return in, o.fromCluster(ctx, &in)
}

func (o *options) meshNamespace() string { return *o.f.MeshNamespace }

// fromCluster fills in what a file did not say: the mesh configuration, and the mode that the cluster can run.
func (o *options) fromCluster(ctx context.Context, in *inject.Injector) error {
	if o.meshConfigFile != "" {
		text, err := os.ReadFile(o.meshConfigFile)
		if err != nil {
			return fmt.Errorf("reading the mesh configuration: %w", err)
		}
		mesh, fs := meshconfig.Parse(o.meshConfigFile, text, o.meshNamespace())
		if err := o.say(fs, "the mesh configuration has errors"); err != nil {
			return err
		}
		in.Mesh = mesh
		if in.Config.Params.Mode != auto {
			return nil
		}
	}

	client, err := o.f.Connect()
	if errors.Is(err, kube.ErrNoCluster) {
		if o.meshConfigFile == "" {
			in.Mesh = meshconfig.Default(o.meshNamespace())
			fmt.Fprintln(o.f.ErrOut, "no cluster configured: using the built-in mesh configuration (--meshConfigFile names another)")
		}
		if in.Config.Params.Mode == auto {
			in.Config.Params.Mode = inject.Native
		}
		return nil
	}
	if err != nil {
		without := "--meshConfigFile FILE"
		if o.meshConfigFile != "" {
			without = "--sidecar-mode native or classic"
		}
		return fmt.Errorf("%w; %s asks no cluster", err, without)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterTimeout)
	defer cancel()
	if in.Config.Params.Mode == auto {
		if in.Config.Params.Mode, err = modeOf(client); err != nil {
			return fmt.Errorf("asking the cluster's version for --sidecar-mode auto: %w", err)
		}
	}
	if o.meshConfigFile != "" {
		return nil
	}
	in.Mesh, err = o.meshOf(ctx, client)
	return err
}

func (o *options) meshOf(ctx context.Context, client *kube.Client) (meshconfig.Mesh, error) {
	where := fmt.Sprintf("ConfigMap %q in namespace %q", o.meshConfigMap, o.meshNamespace())
	cm, err := client.Dynamic.Resource(schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}).
		Namespace(o.meshNamespace()).Get(ctx, o.meshConfigMap, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return meshconfig.Mesh{}, factory.No("reading the mesh configuration: there is no %s; name the mesh's namespace with -i <istioSystemNamespace>, "+
			"or a file with --meshConfigFile", where)
	}
	if err != nil {
		return meshconfig.Mesh{}, fmt.Errorf("reading the mesh configuration, %s: %w; use -i <istioSystemNamespace> for another namespace, "+
			"or --meshConfigFile FILE to ask no cluster", where, client.Explain(err))
	}
	text, ok, err := unstructured.NestedString(cm.Object, "data", meshconfig.Key)
	if err != nil || !ok {
		return meshconfig.Mesh{}, factory.No("reading the mesh configuration: %s has no key %q; name another with --meshConfigMapName", where, meshconfig.Key)
	}
	mesh, fs := meshconfig.Parse("configmap/"+o.meshConfigMap, []byte(text), o.meshNamespace())
	return mesh, o.say(fs, "the mesh configuration has errors")
}

// modeOf is native from Kubernetes 1.29 on, where restartable init containers are there without a feature gate.
func modeOf(client *kube.Client) (inject.Mode, error) {
	v, err := client.Discovery.ServerVersion()
	if err != nil {
		return "", client.Explain(err)
	}
	major, _ := strconv.Atoi(v.Major)
	minor, _ := strconv.Atoi(strings.TrimRight(v.Minor, "+"))
	if major == 1 && minor < 29 {
		return inject.Classic, nil
	}
	return inject.Native, nil
}

func (o *options) inject(in inject.Injector, text []byte) ([]byte, error) {
	var reports []inject.Report
	out, fs := inject.Rewrite(o.filename, text, func(obj map[string]any) (map[string]any, bool) {
		changed := false
		if !o.keepAPIVersions {
			changed = o.upgrade(obj)
		}
		obj, rs := in.Object(obj)
		for _, r := range rs {
			changed = changed || r.Changed
		}
		reports = append(reports, rs...)
		return obj, changed
	})
	if err := o.say(fs, "nothing was written"); err != nil {
		return nil, err
	}
	refused := 0
	for _, r := range reports {
		fmt.Fprintln(o.f.ErrOut, r)
		if r.Refused() {
			refused++
		}
	}
	if refused > 0 {
		return nil, factory.No("nothing was written: %d of %d objects cannot have the sidecar they are to have", refused, len(reports))
	}
	return out, nil
}

// upgrade rewrites obj, or the items of a List, to API versions that Kubernetes serves.
func (o *options) upgrade(obj map[string]any) bool {
	changed := false
	if items, ok := obj["items"].([]any); ok {
		for _, item := range items {
			if m, ok := item.(map[string]any); ok && o.upgrade(m) {
				changed = true
			}
		}
	}
	from, to, yes := manifest.Upgrade(obj)
	if !yes {
		return changed
	}
	kind, _ := obj["kind"].(string)
	name, _, _ := unstructured.NestedString(obj, "metadata", "name")
	fmt.Fprintf(o.f.ErrOut, "%s/%s: %s is retired, written as %s (--keep-api-versions leaves it)\n", strings.ToLower(kind), name, from, to)
	return true
}

// say prints findings, and is the answer no when one of them is an error.
func (o *options) say(fs []finding.Finding, so string) error {
	o.f.WriteFindings(o.f.ErrOut, fs)
	if finding.HasErrors(fs) {
		return factory.No("%s", so)
	}
	return nil
}

func (o *options) write(text []byte) error {
	if o.output == "" || o.output == "-" {
		_, err := o.f.Out.Write(text)
		if err != nil {
			return fmt.Errorf("writing the result: %w", err)
		}
		return nil
	}
	if err := writeFile(o.output, text); err != nil {
		return fmt.Errorf("writing the result: %w", err)
	}
	return nil
}

// writeFile replaces the file called name in one step. Pipes and devices are written to instead.
func writeFile(name string, text []byte) (err error) {
	mode := fs.FileMode(0o644)
	switch info, err := os.Stat(name); {
	case err == nil && !info.Mode().IsRegular():
		return os.WriteFile(name, text, mode)
	case err == nil:
		mode = info.Mode().Perm()
	}
	tmp, err := os.CreateTemp(filepath.Dir(name), ".kube-inject-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(tmp.Name()))
		}
	}()
	if _, err = tmp.Write(text); err == nil {
		err = tmp.Chmod(mode)
	}
	if err = errors.Join(err, tmp.Close()); err != nil {
		return err
	}
	return os.Rename(tmp.Name(), name)
}
