package bootstrap_test

import (
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/meshctl/meshctl/internal/envoy/bootstrap"
	"github.com/meshctl/meshctl/internal/testkit/envoyproc"
	"github.com/meshctl/meshctl/internal/testkit/golden"
)

func cases() map[string]bootstrap.Config {
	return map[string]bootstrap.Config{
		"sidecar": {
			NodeID: "sidecar~10.1.2.3~a-1.default~default.svc.cluster.local", ServiceCluster: "a", AdminPort: 15000, XDSSocket: "/etc/istio/proxy/xds.sock",
			MaxConnections: bootstrap.MaxConnections, Metadata: map[string]any{"version": "0.0.0"},
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
			got, err := bootstrap.JSON(c)
			if err != nil {
				t.Fatal(err)
			}
			golden.Compare(t, filepath.Join("testdata", name+".json"), got)
		})
	}
}

func TestEnvoyAcceptsIt(t *testing.T) {
	for name, c := range cases() {
		t.Run(name, func(t *testing.T) {
			got, err := bootstrap.JSON(c)
			if err != nil {
				t.Fatal(err)
			}
			envoyproc.Validate(t, got)
		})
	}
}
