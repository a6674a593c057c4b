package inject

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/api/resource"
)

// The names of what is added to a pod.
const (
	nameInit     = "istio-init"
	nameProxy    = "istio-proxy"
	nameCoreDump = "enable-core-dump"

	volumeEnvoy = "istio-envoy"
	volumeToken = "istio-token"
	volumeRoot  = "istio-ca-root-cert"
)

const (
	agentPath = "/usr/local/bin/meshagent"
	tokenDir  = "/var/run/secrets/tokens"
	rootDir   = "/etc/istio/root"
	readyPath = "/healthz/ready"
	readyPort = 15021
	// tokenSeconds is how long a token that proves the workload lives; the kubelet renews it well before.
	tokenSeconds = 43200
)

// parts is what one sidecar adds to a pod's spec.
type parts struct {
	initFirst, initLast, containers, volumes []map[string]any
}

// conflict names something of spec that has a name of p's, or nothing.
func (p parts) conflict(spec map[string]any) string {
	check := func(what, key string, with ...[]map[string]any) string {
		list, _ := spec[key].([]any)
		for _, item := range list {
			m, _ := item.(map[string]any)
			for _, add := range slices.Concat(with...) {
				if name, _ := m["name"].(string); name == add["name"] {
					return what + " " + name
				}
			}
		}
		return ""
	}
	return cmp.Or(
		check("an init container", "initContainers", p.initFirst, p.initLast, p.containers),
		check("a container", "containers", p.initFirst, p.initLast, p.containers),
		check("a volume", "volumes", p.volumes),
	)
}

// settings are the parameters after the annotations had their say.
type settings struct {
	Params
	owner map[string]string
	pod   map[string]string
}

// annotation is the template's, or else the workload's, or else what stands in the configuration.
func (s settings) annotation(key, otherwise string) string {
	if v, ok := s.pod[key]; ok {
		return v
	}
	if v, ok := s.owner[key]; ok {
		return v
	}
	return otherwise
}

func (in Injector) sidecar(template map[string]any, owner map[string]string) (parts, error) {
	s := settings{Params: in.Config.Params, owner: owner, pod: annotations(template)}
	labels, _ := template["metadata"].(map[string]any)
	labels, _ = labels["labels"].(map[string]any)
	app, _ := labels["app"].(string)

	resources, err := s.resources()
	if err != nil {
		return parts{}, err
	}
	initArgs, err := s.initArgs(in.Mesh.ProxyListenPort)
	if err != nil {
		return parts{}, err
	}
	init := map[string]any{
		"name":            nameInit,
		"image":           s.InitImage,
		"imagePullPolicy": s.ImagePullPolicy,
		"command":         []any{agentPath},
		"args":            initArgs,
		"resources":       map[string]any{"requests": map[string]any{"cpu": "10m", "memory": "16Mi"}},
		"securityContext": map[string]any{
			"allowPrivilegeEscalation": false,
			"capabilities":             map[string]any{"add": []any{"NET_ADMIN", "NET_RAW"}, "drop": []any{"ALL"}},
			"privileged":               false,
			"readOnlyRootFilesystem":   true,
			"runAsGroup":               0,
			"runAsNonRoot":             false,
			"runAsUser":                0,
		},
	}
	proxy := map[string]any{
		"name":            nameProxy,
		"image":           s.ProxyImage,
		"imagePullPolicy": s.ImagePullPolicy,
		"command":         []any{agentPath},
		"args":            in.proxyArgs(cmp.Or(app, in.Mesh.DefaultConfig.ServiceCluster)),
		"env": []any{
			fromField("POD_NAME", "metadata.name"),
			fromField("POD_NAMESPACE", "metadata.namespace"),
			fromField("INSTANCE_IP", "status.podIP"),
		},
		"resources": resources,
		"securityContext": map[string]any{
			"allowPrivilegeEscalation": false,
			"capabilities":             map[string]any{"drop": []any{"ALL"}},
			"privileged":               false,
			"readOnlyRootFilesystem":   !s.DebugMode,
			"runAsGroup":               int(s.SidecarProxyUID),
			"runAsNonRoot":             true,
			"runAsUser":                int(s.SidecarProxyUID),
		},
		"readinessProbe": readyProbe(readyPath, 5, 3),
		"volumeMounts": []any{
			map[string]any{"name": volumeEnvoy, "mountPath": in.Mesh.DefaultConfig.ConfigPath},
			map[string]any{"name": volumeToken, "mountPath": tokenDir, "readOnly": true},
			map[string]any{"name": volumeRoot, "mountPath": rootDir, "readOnly": true},
		},
	}
	p := parts{volumes: []map[string]any{
		{"name": volumeEnvoy, "emptyDir": map[string]any{"medium": "Memory"}},
		{"name": volumeToken, "projected": map[string]any{"sources": []any{
			map[string]any{"serviceAccountToken": map[string]any{"audience": "istio-pilot", "expirationSeconds": tokenSeconds, "path": "istio-token"}},
		}}},
		{"name": volumeRoot, "configMap": map[string]any{
			"name":  "istio-ca-root-cert",
			"items": []any{map[string]any{"key": "root-cert.pem", "path": "root-cert.pem"}},
		}},
	}}

	if s.Mode == Classic {
		// The application's own init containers run before traffic is captured: there is no proxy yet that could carry it.
		p.initLast = []map[string]any{init}
		p.containers = []map[string]any{proxy}
	} else {
		// A native sidecar is started, and waited for, before everything that is to use it, and ends after it. The agent answers the startup
		// probe the moment it is ready, so the pod does not wait for the next one.
		proxy["restartPolicy"] = "Always"
		proxy["startupProbe"] = readyProbe(readyPath+"?wait=2s", 1, 600)
		p.initFirst = []map[string]any{init, proxy}
	}
	if s.EnableCoreDump {
		dump := map[string]any{
			"name":            nameCoreDump,
			"image":           "alpine",
			"imagePullPolicy": s.ImagePullPolicy,
			"command":         []any{"/bin/sh"},
			"args":            []any{"-c", fmt.Sprintf("sysctl -w kernel.core_pattern=%s/core.%%e.%%p.%%t && ulimit -c unlimited", in.Mesh.DefaultConfig.ConfigPath)},
			"securityContext": map[string]any{"privileged": true, "runAsNonRoot": false, "runAsUser": 0},
		}
		if s.Mode == Classic {
			p.initLast = append(p.initLast, dump)
		} else {
			p.initFirst = append([]map[string]any{dump}, p.initFirst...)
		}
	}
	return p, nil
}

// proxyArgs are 0.2's, in 0.2's order; what has no meaning for the agent is not written.
func (in Injector) proxyArgs(cluster string) []any {
	p, d := in.Config.Params, in.Mesh.DefaultConfig
	args := []any{"proxy", "sidecar"}
	if p.Verbosity > 0 {
		args = append(args, "-v", strconv.Itoa(p.Verbosity))
	}
	args = append(args,
		"--configPath", d.ConfigPath,
		"--binaryPath", d.BinaryPath,
		"--serviceCluster", cluster,
		"--drainDuration", d.DrainDuration.String(),
		"--parentShutdownDuration", d.ParentShutdownDuration.String(),
		"--discoveryAddress", d.DiscoveryAddress,
		"--statsdUdpAddress", d.StatsdUDPAddress,
		"--proxyAdminPort", strconv.Itoa(d.ProxyAdminPort),
	)
	return args
}

func (s settings) initArgs(port int) ([]any, error) {
	uid := strconv.FormatInt(s.SidecarProxyUID, 10)
	args := []any{"init", "-p", strconv.Itoa(port), "-u", uid}
	if s.SidecarProxyUID != 1337 {
		args = append(args, "-g", uid)
	}
	for _, o := range []struct {
		flag, key, otherwise string
		check                func(string) error
	}{
		{"-i", annotationIncludeIPRanges, s.IncludeIPRanges, checkRanges},
		{"-x", annotationExcludeIPRanges, s.ExcludeIPRanges, checkRanges},
		{"-d", annotationExcludeInboundPorts, s.ExcludeInboundPorts, checkPorts},
		{"-o", annotationExcludeOutboundPorts, s.ExcludeOutboundPorts, checkPorts},
	} {
		value := s.annotation(o.key, o.otherwise)
		if value == "" {
			continue
		}
		if err := o.check(value); err != nil {
			return nil, fmt.Errorf("%s: %w", o.key, err)
		}
		args = append(args, o.flag, value)
	}
	return args, nil
}

func checkRanges(list string) error {
	if list == "*" {
		return nil
	}
	for r := range strings.SplitSeq(list, ",") {
		if _, err := netip.ParsePrefix(strings.TrimSpace(r)); err != nil {
			return fmt.Errorf("%q is not an IP range such as 10.0.0.0/8", r)
		}
	}
	return nil
}

func checkPorts(list string) error {
	for p := range strings.SplitSeq(list, ",") {
		if n, err := strconv.Atoi(strings.TrimSpace(p)); err != nil || n < 1 || n > 65535 {
			return fmt.Errorf("%q is not a port", p)
		}
	}
	return nil
}

func (s settings) resources() (map[string]any, error) {
	out := map[string]any{}
	for _, o := range []struct{ kind, of, key, otherwise string }{
		{"requests", "cpu", annotationCPU, s.CPU},
		{"requests", "memory", annotationMemory, s.Memory},
		{"limits", "cpu", annotationCPULimit, s.CPULimit},
		{"limits", "memory", annotationMemoryLimit, s.MemoryLimit},
	} {
		value := s.annotation(o.key, o.otherwise)
		if value == "" {
			continue
		}
		if q, err := resource.ParseQuantity(value); err != nil || q.Sign() < 0 {
			return nil, fmt.Errorf("%s: %q is not a quantity such as 100m or 64Mi", o.key, value)
		}
		m, ok := out[o.kind].(map[string]any)
		if !ok {
			m = map[string]any{}
			out[o.kind] = m
		}
		m[o.of] = value
	}
	return out, nil
}

func fromField(name, path string) map[string]any {
	return map[string]any{"name": name, "valueFrom": map[string]any{"fieldRef": map[string]any{"fieldPath": path}}}
}

func readyProbe(path string, period, failures int) map[string]any {
	return map[string]any{
		"httpGet":          map[string]any{"path": path, "port": readyPort},
		"periodSeconds":    period,
		"timeoutSeconds":   3,
		"failureThreshold": failures,
	}
}
