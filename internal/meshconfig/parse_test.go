package meshconfig

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/meshctl/meshctl/internal/finding"
)

func TestParse(t *testing.T) {
	t.Run("what the text does not say keeps its default, also inside defaultConfig", func(t *testing.T) {
		got, fs := Parse("mesh.yaml", []byte("mixerAddress: istio-mixer.istio-system:9091\ndefaultConfig:\n  connectTimeout: 3s\n  parentShutdownDuration: 1m0s\n"), "istio-system")
		want := Default("istio-system")
		want.MixerAddress = "istio-mixer.istio-system:9091"
		want.DefaultConfig.ConnectTimeout = 3 * time.Second
		if len(fs) != 0 {
			t.Errorf("findings: %v", fs)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("every field is read", func(t *testing.T) {
		text := `
egressProxyAddress: istio-egress.istio-system:80
mixerAddress: istio-mixer.istio-system:9091
disablePolicyChecks: true
proxyListenPort: 15101
proxyHttpPort: 8888
connectTimeout: 2s
ingressClass: other
ingressService: door
ingressControllerMode: DEFAULT
authPolicy: MUTUAL_TLS
rdsRefreshDelay: 4s
enableTracing: false
accessLogFile: ""
protocolDetectionTimeout: 2s
outboundTrafficPolicy: {mode: REGISTRY_ONLY}
defaultConfig: {configPath: /c, binaryPath: /b, serviceCluster: s, drainDuration: 5s, parentShutdownDuration: 6s, discoveryAddress: "[::1]:15012",
  discoveryRefreshDelay: 7s, zipkinAddress: "z:9411", connectTimeout: 8s, statsdUdpAddress: "s:9125", proxyAdminPort: 15100, availabilityZone: az}
`
		got, fs := Parse("mesh.yaml", []byte(text), "istio-system")
		want := Mesh{EgressProxyAddress: "istio-egress.istio-system:80", MixerAddress: "istio-mixer.istio-system:9091", DisablePolicyChecks: true, ProxyListenPort: 15101,
			ProxyHTTPPort: 8888, ConnectTimeout: 2 * time.Second, IngressClass: "other", IngressService: "door", IngressControllerMode: IngressDefault,
			AuthPolicy: AuthMutualTLS, OutboundTrafficPolicy: OutboundRegistryOnly, RDSRefreshDelay: 4 * time.Second, ProtocolDetectionTimeout: 2 * time.Second,
			DefaultConfig: Proxy{ConfigPath: "/c", BinaryPath: "/b", ServiceCluster: "s", DrainDuration: 5 * time.Second, ParentShutdownDuration: 6 * time.Second,
				DiscoveryAddress: "[::1]:15012", DiscoveryRefreshDelay: 7 * time.Second, ZipkinAddress: "z:9411", ConnectTimeout: 8 * time.Second,
				StatsdUDPAddress: "s:9125", ProxyAdminPort: 15100, AvailabilityZone: "az"}}
		if len(fs) != 0 {
			t.Errorf("findings: %v", fs)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
	})
	t.Run("an empty text is the default", func(t *testing.T) {
		for _, text := range []string{"", "# nothing\n", "---\n", "null\n", "defaultConfig:\n"} {
			got, fs := Parse("m", []byte(text), "elsewhere")
			if d := cmp.Diff(Default("elsewhere"), got); d != "" || len(fs) != 0 {
				t.Errorf("%q: %v %s", text, fs, d)
			}
		}
	})
}

func TestParseFindings(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"an unknown field is named with the nearest known one", "mixerAdress: a:1\n", "mesh.yaml:1:1: error M0002: mixerAdress: is not a field of the mesh configuration (did you mean mixerAddress?)"},
		{"an unknown nested field carries its path", "defaultConfig:\n  drainTime: 1s\n", "mesh.yaml:2:3: error M0002: defaultConfig.drainTime:"},
		{"a field given twice", "authPolicy: NONE\nauthPolicy: NONE\n", "mesh.yaml:2:1: error M0008: authPolicy: is there twice, first in line 1"},
		{"a duration that is none", "connectTimeout: 5\n", `mesh.yaml:1:17: error M0003: connectTimeout: "5" is not a duration`},
		{"a number that is none", "proxyListenPort: many\n", `mesh.yaml:1:18: error M0003: proxyListenPort: "many" is not a whole number`},
		{"a bool that is none", "enableTracing: maybe\n", "error M0003: enableTracing:"},
		{"a list in place of a value", "mixerAddress: [a]\n", "error M0003: mixerAddress: is not a single value"},
		{"a list in place of the whole", "- a\n", "error M0003: is not a mapping"},
		{"a timeout outside its range", "connectTimeout: 31s\n", "connectTimeout: 31s is not between 1ms and 30s"},
		{"an address without a port", "mixerAddress: mixer\n", `mixerAddress: "mixer" is not host:port`},
		{"an unknown policy", "authPolicy: MAYBE\n", `authPolicy: "MAYBE" is not a policy (one of NONE, MUTUAL_TLS)`},
		{"an unknown mode for what nobody knows", "outboundTrafficPolicy: {mode: SOME}\n", `mesh.yaml:1:31: error M0102: outboundTrafficPolicy.mode: "SOME" is not a mode (one of ALLOW_ANY, REGISTRY_ONLY)`},
		{"a log where proxies cannot write", "accessLogFile: /var/log/mesh.log\n", `mesh.yaml:1:16: error M0102: accessLogFile: "/var/log/mesh.log" is no file that proxies can write`},
		{"a log that leaves the directory of the proxy", "accessLogFile: /etc/istio/proxy/../x\n", `"/etc/istio/proxy/../x" is no file`},
		{"a detection that never ends", "protocolDetectionTimeout: 1m\n", "protocolDetectionTimeout: 1m0s is not between 10ms and 10s"},
		{"a log that is the directory of the proxy", "accessLogFile: /etc/istio/proxy/\n", "is no file"},
		{"a log in a directory of its own", "accessLogFile: /etc/istio/proxy/logs/access.log\n", "is no file"},
		{"a log in place of what the proxy keeps", "accessLogFile: /etc/istio/proxy/envoy.json\n", "is no file"},
		{"draining longer than the shutdown", "defaultConfig: {drainDuration: 2m}\n", "1m0s is not longer than drainDuration (2m0s)"},
		{"a duration of broken seconds", "defaultConfig: {drainDuration: 1500ms}\n", "1.5s is not a number of whole seconds"},
		{"an empty required field", "defaultConfig: {configPath: ''}\n", "defaultConfig.configPath: is empty"},
		{"the discovery port of 0.2", "defaultConfig: {discoveryAddress: 'istio-pilot:8080'}\n", "warning M0102: defaultConfig.discoveryAddress: port 8080"},
		{"not YAML", "a: [\n", "error M0001:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, fs := Parse("mesh.yaml", []byte(tt.text), "istio-system")
			if len(fs) != 1 || !strings.Contains(fs[0].String(), tt.want) {
				t.Errorf("got %v, want one with %q", fs, tt.want)
			}
		})
	}
	for _, file := range []string{"", "/dev/stdout", "/dev/stderr", "/etc/istio/proxy/access.log"} {
		t.Run("requests may be logged to "+file, func(t *testing.T) {
			got, fs := Parse("mesh.yaml", []byte("accessLogFile: "+strconv.Quote(file)+"\n"), "istio-system")
			if len(fs) != 0 || got.AccessLogFile != file {
				t.Errorf("got %q, %v", got.AccessLogFile, fs)
			}
		})
	}
	t.Run("all findings, not the first", func(t *testing.T) {
		_, fs := Parse("mesh.yaml", []byte("a: 1\nb: 2\nproxyListenPort: x\n"), "istio-system")
		if len(fs) != 3 {
			t.Errorf("got %v", fs)
		}
	})
	t.Run("a huge file is refused unread", func(t *testing.T) {
		_, fs := Parse("big", make([]byte, maxSize+1), "istio-system")
		if len(fs) != 1 || fs[0].Code != finding.TooLarge {
			t.Errorf("got %v", fs)
		}
	})
}
