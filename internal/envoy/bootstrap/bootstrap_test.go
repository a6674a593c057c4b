package bootstrap

import (
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/meshctl/meshctl/internal/testkit/golden"
)

func cases() map[string]Config {
	return map[string]Config{
		"sidecar": {
			NodeID: "sidecar~10.1.2.3~a-1.default~default.svc.cluster.local", ServiceCluster: "a", AdminPort: 15000, XDSSocket: "/etc/istio/proxy/xds.sock",
			MaxConnections: MaxConnections, Metadata: map[string]any{"version": "0.0.0"},
		},
		"everything": {
			NodeID: "ingress~fd00::1~i-1.istio-system~istio-system.svc.cluster.local", ServiceCluster: "istio-ingress", AdminPort: 15001, XDSSocket: "/x.sock",
			MaxConnections: 10, Zone: "z1", StatsdUDP: netip.MustParseAddrPort("[fd00::2]:9125"),
		},
	}
}

func TestJSON(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			got, err := JSON(c)
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, filepath.Join("testdata", name+".json"), got)
		})
	}
}

func TestEnvoyAcceptsIt(t *testing.T) {
	envoy, err := filepath.Abs("../../../.cache/tools/envoy")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(envoy); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no Envoy in .cache/tools: run make build")
	}
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			got, err := JSON(c)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "envoy.json")
			if err := os.WriteFile(file, got, 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(envoy, "--mode", "validate", "-c", file, "--log-level", "warning").CombinedOutput(); err != nil || len(out) > len("configuration '' OK\n")+len(file) {
				t.Errorf("%v\n%s", err, out)
			}
		})
	}
}
