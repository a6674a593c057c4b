package meshconfig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
)

// maxSize is far beyond any mesh configuration and keeps hostile input cheap.
const maxSize = 1 << 20

// Parse reads text, the content of the file called name, over the defaults of a control plane in namespace. The configuration is to be used only
// when no finding is an error.
func Parse(name string, text []byte, namespace string) (Mesh, []finding.Finding) {
	mesh := Default(namespace)
	if len(text) > maxSize {
		return mesh, []finding.Finding{{Code: finding.TooLarge, Severity: finding.Error, Position: finding.Position{File: name},
			Message: fmt.Sprintf("a mesh configuration of %d bytes, more than %d", len(text), maxSize), Hint: "check that this is the right file"}}
	}
	r := reader{file: name, seen: map[string]*yaml.Node{}}
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(text)))
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		return mesh, nil
	case err != nil:
		return mesh, []finding.Finding{{Code: finding.YAMLSyntax, Severity: finding.Error, Position: position(name, err), Message: strings.TrimPrefix(err.Error(), "yaml: ")}}
	}
	r.mapping("", doc.Content[0], fields(&mesh))
	if !finding.HasErrors(r.findings) {
		r.judge(&mesh)
	}
	finding.Sort(r.findings)
	return mesh, r.findings
}

var lineOf = regexp.MustCompile(`line (\d+)`)

func position(name string, err error) finding.Position {
	p := finding.Position{File: name}
	if m := lineOf.FindStringSubmatch(err.Error()); m != nil {
		p.Line, _ = strconv.Atoi(m[1])
	}
	return p
}

// fields maps each name to where its value goes: *string, *bool, *int, *time.Duration, or a nested set.
func fields(m *Mesh) map[string]any {
	p := &m.DefaultConfig
	return map[string]any{
		"egressProxyAddress": &m.EgressProxyAddress, "mixerAddress": &m.MixerAddress, "disablePolicyChecks": &m.DisablePolicyChecks,
		"proxyListenPort": &m.ProxyListenPort, "proxyHttpPort": &m.ProxyHTTPPort, "connectTimeout": &m.ConnectTimeout,
		"ingressClass": &m.IngressClass, "ingressService": &m.IngressService, "ingressControllerMode": (*string)(&m.IngressControllerMode),
		"authPolicy": (*string)(&m.AuthPolicy), "rdsRefreshDelay": &m.RDSRefreshDelay, "enableTracing": &m.EnableTracing,
		"accessLogFile": &m.AccessLogFile, "protocolDetectionTimeout": &m.ProtocolDetectionTimeout,
		"outboundTrafficPolicy": map[string]any{"mode": (*string)(&m.OutboundTrafficPolicy)},
		"defaultConfig": map[string]any{
			"configPath": &p.ConfigPath, "binaryPath": &p.BinaryPath, "serviceCluster": &p.ServiceCluster, "drainDuration": &p.DrainDuration,
			"parentShutdownDuration": &p.ParentShutdownDuration, "discoveryAddress": &p.DiscoveryAddress,
			"discoveryRefreshDelay": &p.DiscoveryRefreshDelay, "zipkinAddress": &p.ZipkinAddress, "connectTimeout": &p.ConnectTimeout,
			"statsdUdpAddress": &p.StatsdUDPAddress, "proxyAdminPort": &p.ProxyAdminPort, "availabilityZone": &p.AvailabilityZone,
		},
	}
}

type reader struct {
	file     string
	seen     map[string]*yaml.Node
	findings []finding.Finding
}

func (r *reader) find(n *yaml.Node, code finding.Code, severity finding.Severity, field, message, hint string) {
	pos := finding.Position{File: r.file}
	if n != nil {
		pos.Line, pos.Column = n.Line, n.Column
	}
	r.findings = append(r.findings, finding.Finding{Code: code, Severity: severity, Field: field, Position: pos, Message: message, Hint: hint})
}

func (r *reader) mapping(path string, n *yaml.Node, targets map[string]any) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.find(n, finding.WrongType, finding.Error, path, "is not a mapping of fields", "write it as name: value, one a line")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		field := key.Value
		if path != "" {
			field = path + "." + field
		}
		target, ok := targets[key.Value]
		switch {
		case !ok:
			r.find(key, finding.UnknownField, finding.Error, field, "is not a field of the mesh configuration", nearest(key.Value, targets))
		case r.seen[field] != nil:
			r.find(key, finding.DuplicateKey, finding.Error, field, fmt.Sprintf("is there twice, first in line %d", r.seen[field].Line), "keep one of them")
		default:
			r.seen[field] = value
			if nested, ok := target.(map[string]any); ok {
				r.mapping(field, value, nested)
			} else {
				r.scalar(field, value, target)
			}
		}
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

func (r *reader) scalar(field string, n *yaml.Node, target any) {
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if isNull(n) {
		return
	}
	if n.Kind != yaml.ScalarNode {
		r.find(n, finding.WrongType, finding.Error, field, "is not a single value", "")
		return
	}
	var err error
	switch t := target.(type) {
	case *string:
		*t = n.Value
	case *bool:
		if err = n.Decode(t); err != nil {
			r.find(n, finding.WrongType, finding.Error, field, fmt.Sprintf("%q is neither true nor false", n.Value), "")
		}
	case *int:
		if *t, err = strconv.Atoi(n.Value); err != nil {
			r.find(n, finding.WrongType, finding.Error, field, fmt.Sprintf("%q is not a whole number", n.Value), "")
		}
	case *time.Duration:
		if *t, err = time.ParseDuration(n.Value); err != nil {
			r.find(n, finding.WrongType, finding.Error, field, fmt.Sprintf("%q is not a duration", n.Value), "write it as in 500ms, 10s or 1m0s")
		}
	}
}

// judge finds what the values must not be.
func (r *reader) judge(m *Mesh) {
	p := &m.DefaultConfig
	bad := func(field, message, hint string) {
		r.find(r.seen[field], finding.InvalidValue, finding.Error, field, message, hint)
	}
	between := func(field string, d, low, high time.Duration) {
		if d < low || d > high {
			bad(field, fmt.Sprintf("%s is not between %s and %s", d, low, high), "")
		}
	}
	address := func(field, value string, required bool) {
		if value == "" && !required {
			return
		}
		if err := checkAddress(value); err != nil {
			bad(field, err.Error(), "write it as host:port")
		}
	}
	port := func(field string, value, low int) {
		if value < low || value > 65535 {
			bad(field, fmt.Sprintf("%d is not a port", value), fmt.Sprintf("a port is a number from %d to 65535", low))
		}
	}
	nonEmpty := func(field, value string) {
		if value == "" {
			bad(field, "is empty", "leave it out to have the default")
		}
	}

	address("egressProxyAddress", m.EgressProxyAddress, false)
	address("mixerAddress", m.MixerAddress, false)
	port("proxyListenPort", m.ProxyListenPort, 1)
	port("proxyHttpPort", m.ProxyHTTPPort, 0)
	between("connectTimeout", m.ConnectTimeout, time.Millisecond, 30*time.Second)
	if m.ProtocolDetectionTimeout != 0 {
		between("protocolDetectionTimeout", m.ProtocolDetectionTimeout, 10*time.Millisecond, 10*time.Second)
	}
	between("rdsRefreshDelay", m.RDSRefreshDelay, time.Second, 10*time.Minute)
	if !slices.Contains([]IngressMode{IngressOff, IngressDefault, IngressStrict}, m.IngressControllerMode) {
		bad("ingressControllerMode", fmt.Sprintf("%q is not a mode", m.IngressControllerMode), "one of OFF, DEFAULT, STRICT")
	}
	if !slices.Contains([]AuthPolicy{AuthNone, AuthMutualTLS}, m.AuthPolicy) {
		bad("authPolicy", fmt.Sprintf("%q is not a policy", m.AuthPolicy), "one of NONE, MUTUAL_TLS")
	}

	if !slices.Contains([]OutboundMode{OutboundAllowAny, OutboundRegistryOnly}, m.OutboundTrafficPolicy) {
		bad("outboundTrafficPolicy.mode", fmt.Sprintf("%q is not a mode", m.OutboundTrafficPolicy), "one of ALLOW_ANY, REGISTRY_ONLY")
	}

	if !writable(m.AccessLogFile, p.ConfigPath) {
		bad("accessLogFile", fmt.Sprintf("%q is no file that proxies can write, and a proxy that cannot open it takes no configuration at all", m.AccessLogFile),
			fmt.Sprintf("/dev/stdout, /dev/stderr, a .log file right in %s, or empty for no log", p.ConfigPath))
	}

	nonEmpty("defaultConfig.configPath", p.ConfigPath)
	nonEmpty("defaultConfig.binaryPath", p.BinaryPath)
	nonEmpty("defaultConfig.serviceCluster", p.ServiceCluster)
	for field, d := range map[string]time.Duration{"defaultConfig.drainDuration": p.DrainDuration, "defaultConfig.parentShutdownDuration": p.ParentShutdownDuration} {
		if d < time.Second || d > time.Hour || d%time.Second != 0 {
			bad(field, fmt.Sprintf("%s is not a number of whole seconds up to an hour", d), "")
		}
	}
	if p.ParentShutdownDuration <= p.DrainDuration {
		bad("defaultConfig.parentShutdownDuration", fmt.Sprintf("%s is not longer than drainDuration (%s)", p.ParentShutdownDuration, p.DrainDuration),
			"a proxy is stopped only after it has drained")
	}
	address("defaultConfig.discoveryAddress", p.DiscoveryAddress, true)
	if _, port, _ := net.SplitHostPort(p.DiscoveryAddress); port == "8080" {
		r.find(r.seen["defaultConfig.discoveryAddress"], finding.InvalidValue, finding.Warning, "defaultConfig.discoveryAddress",
			"port 8080 was Pilot's in version 0.2, in plain text; this version serves proxies on 15012", "change the port to 15012")
	}
	between("defaultConfig.discoveryRefreshDelay", p.DiscoveryRefreshDelay, time.Second, 10*time.Minute)
	address("defaultConfig.zipkinAddress", p.ZipkinAddress, false)
	between("defaultConfig.connectTimeout", p.ConnectTimeout, time.Millisecond, 30*time.Second)
	address("defaultConfig.statsdUdpAddress", p.StatsdUDPAddress, false)
	port("defaultConfig.proxyAdminPort", p.ProxyAdminPort, 1)
}

// writable says whether a proxy can log to file: to one of its streams, or to a file in the only directory that is writable in its container, where
// it must not take the place of what the agent keeps there.
func writable(file, configPath string) bool {
	switch file {
	case "", "/dev/stdout", "/dev/stderr":
		return true
	}
	return strings.HasSuffix(file, ".log") && file == path.Join(configPath, path.Base(file))
}

var hostName = regexp.MustCompile(`^[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?(\.[a-zA-Z0-9]([-a-zA-Z0-9_]*[a-zA-Z0-9])?)*\.?$`)

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q is not host:port", s)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return fmt.Errorf("%q has no valid port", s)
	}
	if _, err := netip.ParseAddr(host); err != nil && !hostName.MatchString(host) {
		return fmt.Errorf("%q has no valid host name", s)
	}
	return nil
}

// nearest is the known name that differs least, as a hint.
func nearest(name string, targets map[string]any) string {
	names := make([]string, 0, len(targets))
	for n := range targets {
		names = append(names, n)
	}
	slices.Sort(names)
	best, least := "", len(name)/2+1
	for _, n := range names {
		if d := distance(strings.ToLower(name), strings.ToLower(n)); d < least {
			best, least = n, d
		}
	}
	if best == "" {
		return "the fields are " + strings.Join(names, ", ")
	}
	return fmt.Sprintf("did you mean %s?", best)
}

// distance counts the single-letter edits between a and b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			diagonal, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, diagonal+cost)
		}
	}
	return row[len(b)]
}
