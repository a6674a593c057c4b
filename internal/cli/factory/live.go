package factory

import (
	"context"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/metadata"

	"github.com/meshctl/meshctl/internal/kube"
)

// patience is how long a completion may take; a shell that hangs on Tab is worse than one that offers nothing.
const patience = 200 * time.Millisecond

// names bounds what is offered: nobody picks from more.
const names = 500

// live runs ask with a connection and gives up, silently, after patience.
func (f *Factory) live(ask func(ctx context.Context, client *kube.Client) []string) []string {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	answer := make(chan []string, 1)
	go func() {
		client, err := kube.Connect(f.Config)
		if err != nil {
			answer <- nil
			return
		}
		answer <- ask(ctx, client)
	}()
	select {
	case out := <-answer:
		return out
	case <-ctx.Done():
		return nil
	}
}

// list names the objects of a resource that begin with prefix.
func list(ctx context.Context, client *kube.Client, resource schema.GroupVersionResource, namespace, prefix string) []string {
	c, err := metadata.NewForConfig(client.Config)
	if err != nil {
		return nil
	}
	found, err := c.Resource(resource).Namespace(namespace).List(ctx, metav1.ListOptions{Limit: names})
	if err != nil {
		return nil
	}
	var out []string
	for i := range found.Items {
		if name := found.Items[i].Name; strings.HasPrefix(name, prefix) {
			out = append(out, name)
		}
	}
	return out
}

// CompleteNamespaces completes the name of a namespace.
func (f *Factory) CompleteNamespaces(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return f.live(func(ctx context.Context, client *kube.Client) []string {
		return list(ctx, client, schema.GroupVersionResource{Version: "v1", Resource: "namespaces"}, "", prefix)
	}), cobra.ShellCompDirectiveNoFileComp
}

// CompletePods completes the name of a pod of the client's namespace.
func (f *Factory) CompletePods(_ *cobra.Command, _ []string, prefix string) ([]string, cobra.ShellCompDirective) {
	return f.live(func(ctx context.Context, client *kube.Client) []string {
		return list(ctx, client, schema.GroupVersionResource{Version: "v1", Resource: "pods"}, client.Namespace, prefix)
	}), cobra.ShellCompDirectiveNoFileComp
}

// CompleteResources completes TYPE and then NAME arguments; mesh kinds are offered first, other types only once a letter was typed.
func (f *Factory) CompleteResources(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return f.completeType(prefix), cobra.ShellCompDirectiveNoFileComp
	}
	return f.live(func(ctx context.Context, client *kube.Client) []string {
		resource, err := client.Mapper.ResourceFor(schema.ParseGroupResource(Types(args[0])[0]).WithVersion(""))
		if err != nil {
			return nil
		}
		out := list(ctx, client, resource, client.Namespace, prefix)
		return slices.DeleteFunc(out, func(name string) bool { return slices.Contains(args[1:], name) })
	}), cobra.ShellCompDirectiveNoFileComp
}

func (f *Factory) completeType(prefix string) []string {
	done, last := "", prefix
	if i := strings.LastIndex(prefix, ","); i >= 0 {
		done, last = prefix[:i+1], prefix[i+1:]
	}
	var out []string
	for _, k := range MeshKinds() {
		if strings.HasPrefix(k.Resource, last) {
			out = append(out, done+k.Resource)
		}
	}
	if len(out) > 0 || last == "" {
		return out
	}
	return f.live(func(_ context.Context, client *kube.Client) []string {
		lists, _ := client.Discovery.ServerPreferredResources() // a broken group hides only its own kinds
		var found []string
		for _, l := range lists {
			for _, r := range l.APIResources {
				if strings.HasPrefix(r.Name, last) && slices.Contains(r.Verbs, "list") {
					found = append(found, done+r.Name)
				}
			}
		}
		return found
	})
}

// KubeconfigNames lists what the kubeconfig has; nothing when it cannot be read.
func (f *Factory) KubeconfigNames() (n struct{ Contexts, Clusters, Users []string }) {
	raw, err := f.Config.ToRawKubeConfigLoader().RawConfig()
	if err != nil {
		return n
	}
	for name := range raw.Contexts {
		n.Contexts = append(n.Contexts, name)
	}
	for name := range raw.Clusters {
		n.Clusters = append(n.Clusters, name)
	}
	for name := range raw.AuthInfos {
		n.Users = append(n.Users, name)
	}
	slices.Sort(n.Contexts)
	slices.Sort(n.Clusters)
	slices.Sort(n.Users)
	return n
}
