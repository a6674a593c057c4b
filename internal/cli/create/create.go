// Package create is the verb that makes new objects from files and refuses those that exist.
package create

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
		Use:   "create -f FILE",
		Short: "Create objects from files or standard input",
		Long: `Create objects from files, directories, URLs or standard input.

Everything is read and judged before the first object is written: fields, values, references to
services, and the server's own rules. An object that exists already is refused, and with it the
whole input; replace and apply change existing objects.

Kinds of other groups (Services, Deployments, Ingresses ...) may be in the files too. API versions
that Kubernetes no longer serves are upgraded, with a word on standard error.`,
		Example: `  # Send all traffic for reviews to version 1
  meshctl create -f rules/bookinfo/route-default-v1.yaml

  # And go on only when every connected proxy has it
  meshctl create --wait -f rules/bookinfo/route-default-v1.yaml

  # The same from standard input, in another namespace
  meshctl create -n bookinfo -f - < rules/bookinfo/route-default-v1.yaml

  # Several files; -R -f DIRECTORY takes a whole tree
  meshctl create -f rules/bookinfo/bookinfo-v1.yaml -f rules/bookinfo/ingress.yaml

  # Let the server judge, write nothing
  meshctl create --dry-run=server -f rules/bookinfo/ingress.yaml`,
		Args: factory.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.Run(cmd.Context(), f, write.Verb{
				Name: "create",
				Past: "created",
				Write: func(ctx context.Context, s *store.Store, i *write.Item, dry bool) (*unstructured.Unstructured, string, error) {
					out, err := s.Create(ctx, i.Target, i.Sent, dry)
					return out, "created", err
				},
				Line: func(key, revision string) string {
					if revision == "" {
						return "Created config " + key
					}
					return fmt.Sprintf("Created config %s at revision %s", key, revision)
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
	if !apierrors.IsAlreadyExists(err) {
		return "", ""
	}
	files := i.Files(f)
	return i.Name() + " exists already", fmt.Sprintf("to replace it: meshctl replace %s; to merge the file into it: meshctl apply %s", files, files)
}
