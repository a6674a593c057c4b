// Package replace is the verb that puts the objects of files in place of the stored ones.
package replace

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/write"
	"github.com/meshctl/meshctl/internal/store"
)

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := write.NewOptions()
	cmd := &cobra.Command{
		Use:   "replace -f FILE",
		Short: "Replace existing objects by those of files or standard input",
		Long: `Replace existing objects by those of files, directories, URLs or standard input.

Everything is read and judged before the first object is written. An object that does not exist is
refused, and with it the whole input. When the file names a resourceVersion, only that revision is
replaced; without one, whatever is stored.`,
		Example: `  # Let version 2 have 10 % of the traffic, version 1 the rest
  meshctl replace -f rules/bookinfo/route-v1-90-v2-10.yaml

  # And go on only when every connected proxy has it
  meshctl replace --wait -f rules/bookinfo/route-v1-90-v2-10.yaml

  # Everything to version 2, from standard input
  meshctl replace -f - < rules/bookinfo/route-all-v2.yaml`,
		Args: factory.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.Run(cmd.Context(), f, write.Verb{
				Name: "replace",
				Past: "replaced",
				Write: func(ctx context.Context, s *store.Store, i *write.Item, dry bool) (*unstructured.Unstructured, string, error) {
					out, err := s.Replace(ctx, i.Target, i.Sent, dry)
					return out, "replaced", err
				},
				Line: func(key, revision string) string {
					if revision == "" {
						return "Updated config " + key
					}
					return fmt.Sprintf("Updated config %s to revision %s", key, revision)
				},
				Refusal: func(i *write.Item, err error) (message, hint string) { return refusal(f, i, err) },
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.AddFlags(cmd)
	return cmd
}

func refusal(f *factory.Factory, i *write.Item, err error) (message, hint string) {
	switch {
	case apierrors.IsNotFound(err):
		return i.Name() + " does not exist", "to create it: meshctl create " + i.Files(f)
	case apierrors.IsConflict(err):
		return i.Name() + " was changed since the file's resourceVersion " + i.Sent.GetResourceVersion(), "remove resourceVersion to replace whatever is stored"
	}
	return "", ""
}
