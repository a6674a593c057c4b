// Package apply is the verb that merges the objects of files into the cluster on the server's side.
package apply

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/cli/write"
	"github.com/meshctl/meshctl/internal/store"
)

// New is the command.
func New(f *factory.Factory) *cobra.Command {
	o := write.NewOptions()
	force := false
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create or change objects so that they hold what the files say",
		Long: `Create or change objects so that they hold what files, directories, URLs or standard input say.

The server merges (server-side apply, field manager "meshctl"): fields that others manage stay as
they are. A field that another manager set to something else is a conflict; it is named, and
--force-conflicts takes it over. Everything is read and judged before the first object is written.`,
		Example: `  # Create the rule, or change it to what the file says
  meshctl apply -f rules/bookinfo/route-user-jason-v2.yaml

  # And go on only when every connected proxy has it
  meshctl apply --wait -f rules/bookinfo/route-user-jason-v2.yaml

  # Take over fields that someone else manages
  meshctl apply --force-conflicts -f rules/bookinfo/route-all-v2.yaml`,
		Args: factory.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.Run(cmd.Context(), f, write.Verb{
				Name: "apply",
				Past: "applied",
				Write: func(ctx context.Context, s *store.Store, i *write.Item, dry bool) (*unstructured.Unstructured, string, error) {
					out, outcome, err := s.Apply(ctx, i.Target, i.Sent, force, dry)
					return out, string(outcome), err
				},
				Refusal: refusal,
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	o.AddFlags(cmd)
	cmd.Flags().BoolVar(&force, "force-conflicts", false, "take over fields that other managers set")
	return cmd
}

func refusal(i *write.Item, err error) (message, hint string) {
	var status apierrors.APIStatus
	if !apierrors.IsConflict(err) || !errors.As(err, &status) || status.Status().Details == nil {
		return "", ""
	}
	var fields []string
	for _, c := range status.Status().Details.Causes {
		if c.Type == metav1.CauseTypeFieldManagerConflict {
			fields = append(fields, fmt.Sprintf("%s (%s)", c.Field, c.Message))
		}
	}
	if len(fields) == 0 {
		return "", ""
	}
	return fmt.Sprintf("%s has fields that others manage: %s", i.Name(), strings.Join(fields, ", ")),
		"leave them out of the file, or take them over with --force-conflicts"
}
