package factory

import (
	"errors"
	"fmt"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"

	"github.com/meshctl/meshctl/internal/kube"
)

// Error tells the user about one thing of several that went wrong; the command goes on and ends with an exit code of its own.
func (f *Factory) Error(format string, args ...any) {
	fmt.Fprintf(f.ErrOut, "%s %s\n", f.Paint(f.ErrOut, Red, "error:"), fmt.Sprintf(format, args...))
}

// ResourceError words an error of resolving TYPE and NAME arguments or of reading what they name.
func (f *Factory) ResourceError(client *kube.Client, args []string, err error) error {
	switch {
	case kube.Unreachable(err):
		return f.Explain(client, err)
	case meta.IsNoMatchError(err) || strings.Contains(err.Error(), "the server doesn't have a resource type"):
		for _, name := range strings.Split(args[0], ",") {
			name, _, _ = strings.Cut(name, "/")
			if k, ok := MeshKind(name); ok || name == "all" || name == "mesh" {
				if !ok {
					k = MeshKinds()[0]
				}
				return No("the mesh is not installed in this cluster: it does not know %s", k.GVR().GroupResource())
			}
		}
		return No("%s; the mesh's types are %s", err, meshTypes())
	case apierrors.IsNotFound(err):
		return &ExitErr{Code: ExitNo, Err: err}
	}
	var status apierrors.APIStatus
	if !errors.As(err, &status) && !apierrors.IsForbidden(err) {
		return &ExitErr{Code: ExitUsage, Err: err} // the builder did not understand the arguments
	}
	return f.Explain(client, err)
}

func meshTypes() string {
	var out []string
	for _, k := range MeshKinds() {
		out = append(out, k.Resource)
	}
	return strings.Join(out, ", ")
}
