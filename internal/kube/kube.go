// Package kube is the way to a Kubernetes API server: REST config, builders, port-forward.
//
// In: the connection flags of the command line, or nothing for a program inside the cluster. Out: a Client, made only when first asked for,
// and errors that say in one line what is missing.
package kube

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// ErrNoCluster is returned when nothing says which cluster to talk to.
var ErrNoCluster = errors.New("no Kubernetes cluster configured: set KUBECONFIG or pass --kubeconfig, or start one with: meshctl sandbox up")

// Client speaks to one API server in one default namespace.
type Client struct {
	Config    *rest.Config
	Dynamic   dynamic.Interface
	Discovery discovery.CachedDiscoveryInterface
	Mapper    meta.RESTMapper
	// Namespace is where objects without one go: the flag's, or the context's, or "default".
	Namespace string
	// Context names the kubeconfig's context, for messages; empty inside a cluster.
	Context string
}

// Connect prepares a client for the cluster that flags and kubeconfig name. It reads files but opens no connection.
func Connect(flags *genericclioptions.ConfigFlags) (*Client, error) {
	context, err := currentContext(flags)
	if err != nil {
		return nil, err
	}
	config, err := flags.ToRESTConfig()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	namespace, _, err := flags.ToRawKubeConfigLoader().Namespace()
	if err != nil {
		return nil, fmt.Errorf("reading the kubeconfig: %w", err)
	}
	// A command line is one user: the library's default of 5 requests a second only makes it wait.
	config.QPS, config.Burst = 50, 300
	c := &Client{Config: config, Namespace: namespace, Context: context}
	if c.Dynamic, err = dynamic.NewForConfig(config); err != nil {
		return nil, fmt.Errorf("preparing the connection to %s: %w", config.Host, err)
	}
	if c.Discovery, err = flags.ToDiscoveryClient(); err != nil {
		return nil, fmt.Errorf("preparing discovery at %s: %w", config.Host, err)
	}
	if c.Mapper, err = flags.ToRESTMapper(); err != nil {
		return nil, fmt.Errorf("preparing discovery at %s: %w", config.Host, err)
	}
	return c, nil
}

// currentContext reads the kubeconfig and refuses, in words, the ones that lead nowhere; the library would turn those into localhost:8080.
func currentContext(flags *genericclioptions.ConfigFlags) (string, error) {
	raw, err := flags.ToRawKubeConfigLoader().RawConfig()
	if errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the kubeconfig: %w", err)
	}
	if err != nil {
		return "", fmt.Errorf("reading the kubeconfig: %s", oneLine(err.Error()))
	}
	if given(flags.APIServer) {
		return raw.CurrentContext, nil
	}
	if len(raw.Clusters) == 0 && len(raw.Contexts) == 0 {
		if os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
			return "", nil
		}
		return "", ErrNoCluster
	}
	name := raw.CurrentContext
	if given(flags.Context) {
		name = *flags.Context
	}
	if given(flags.ClusterName) {
		return name, nil
	}
	if name == "" {
		return "", fmt.Errorf("the kubeconfig names no current context: choose one with --context (%s)", contexts(raw))
	}
	context := raw.Contexts[name]
	if context == nil {
		return "", fmt.Errorf("the kubeconfig has no context %q: choose one with --context (%s)", name, contexts(raw))
	}
	if raw.Clusters[context.Cluster] == nil {
		return "", fmt.Errorf("context %q names cluster %q, which the kubeconfig does not have", name, context.Cluster)
	}
	return name, nil
}

func contexts(raw clientcmdapi.Config) string {
	if len(raw.Contexts) == 0 {
		return "it has none"
	}
	names := make([]string, 0, len(raw.Contexts))
	for n := range raw.Contexts {
		names = append(names, n)
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}

func given(s *string) bool { return s != nil && *s != "" }

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
