package kubeinject

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/cli-runtime/pkg/genericiooptions"

	"github.com/meshctl/meshctl/internal/cli/factory"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

const onePod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a}\nspec:\n  containers:\n  - name: a\n"

// kubeInject runs the command against the cluster of kubeconfig.
func kubeInject(t *testing.T, kubeconfig, meshNamespace string, args ...string) (out, errs string, code int) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	f := factory.New(genericiooptions.IOStreams{In: strings.NewReader(onePod), Out: &stdout, ErrOut: &stderr}, func(string) string { return "" })
	f.Config.KubeConfig = &kubeconfig
	f.MeshNamespace = &meshNamespace
	cmd := New(f)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	cmd.SetArgs(append([]string{"-f", "-"}, args...))
	err := cmd.ExecuteContext(t.Context())
	if err != nil {
		stderr.WriteString(err.Error())
	}
	return stdout.String(), stderr.String(), factory.Code(err)
}

func TestTheMeshConfigurationComesFromTheCluster(t *testing.T) {
	server := apiserver.Shared(t)
	namespace := server.Namespace(t)
	for name, data := range map[string]map[string]string{
		"istio":   {"mesh": "defaultConfig:\n  discoveryAddress: pilot.of.this.cluster:15012\n"},
		"other":   {"mesh": "defaultConfig: {discoveryAddress: pilot.of.another:15012}\n"},
		"empty":   {"else": ""},
		"invalid": {"mesh": "authPolicy: SOMETIMES\n"},
	} {
		cm := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: data}
		if _, err := server.Client(t).CoreV1().ConfigMaps(namespace).Create(t.Context(), cm, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(t.TempDir(), "mesh.yaml")
	if err := os.WriteFile(file, []byte("defaultConfig: {discoveryAddress: pilot.of.a.file:15012}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name      string
		namespace string
		args      []string
		code      int
		want      string
	}{
		{"the ConfigMap istio", namespace, nil, 0, "- pilot.of.this.cluster:15012"},
		{"the one that is named", namespace, []string{"--meshConfigMapName", "other"}, 0, "- pilot.of.another:15012"},
		{"a file goes before the cluster", namespace, []string{"--meshConfigFile", file}, 0, "- pilot.of.a.file:15012"},
		{"a file and the cluster's version", namespace, []string{"--meshConfigFile", file, "--sidecar-mode", "auto"}, 0, "restartPolicy: Always"},
		{"none in the namespace", "elsewhere", nil, 1, `there is no ConfigMap "istio" in namespace "elsewhere"; name the mesh's namespace with -i <istioSystemNamespace>`},
		{"a key that is missing", namespace, []string{"--meshConfigMapName", "empty"}, 1, `has no key "mesh"`},
		{"a configuration that is wrong", namespace, []string{"--meshConfigMapName", "invalid"}, 1, `configmap/invalid:1:13: error M0102: authPolicy: "SOMETIMES" is not a policy`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out, errs, code := kubeInject(t, server.Kubeconfig, tt.namespace, tt.args...)
			text := out
			if tt.code != 0 {
				text = errs
				if out != "" {
					t.Errorf("wrote\n%s", out)
				}
			}
			if code != tt.code || !strings.Contains(text, tt.want) {
				t.Errorf("exit %d\n%s\n%s\nwant %q", code, out, errs, tt.want)
			}
		})
	}
}
