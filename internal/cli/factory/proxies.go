package factory

import (
	"context"
	"strings"

	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"

	"github.com/meshctl/meshctl/internal/inject"
	"github.com/meshctl/meshctl/internal/kube"
)

// CompleteProxies completes the one argument of commands about a proxy: the pods that have one in the client's namespace, and the gateways.
func (f *Factory) CompleteProxies(_ *cobra.Command, args []string, prefix string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return f.live(func(ctx context.Context, client *kube.Client) []string {
		c, err := metadata.NewForConfig(client.Config)
		if err != nil {
			return nil
		}
		found, err := c.Resource(corev1.SchemeGroupVersion.WithResource("pods")).Namespace(client.Namespace).List(ctx, metav1.ListOptions{Limit: names})
		if err != nil {
			return nil
		}
		var out []string
		for i := range found.Items {
			pod := &found.Items[i]
			_, injected := pod.Annotations[inject.AnnotationStatus]
			gateway := pod.Labels["istio"] == "ingress" || pod.Labels["istio"] == "egress"
			if (injected || gateway) && strings.HasPrefix(pod.Name, prefix) {
				out = append(out, pod.Name)
			}
		}
		return out
	}), cobra.ShellCompDirectiveNoFileComp
}
