package inject

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/version"
)

// Policy is what happens to workloads that say nothing.
type Policy string

// The policies.
const (
	Enabled  Policy = "enabled"
	Disabled Policy = "disabled"
)

// Mode is how the proxy runs in the pod.
type Mode string

// The modes: an init container that restarts (Kubernetes 1.29 and later), or an ordinary container.
const (
	Native  Mode = "native"
	Classic Mode = "classic"
)

// DefaultHub is where images come from when nothing else is said.
const DefaultHub = "docker.io/meshctl"

// Config says who gets a sidecar, and which.
type Config struct {
	Policy Policy
	// Namespaces that get sidecars; an empty name among them stands for all.
	Namespaces        []string
	ExcludeNamespaces []string
	Params            Params
}

// Params is the sidecar.
type Params struct {
	InitImage  string `yaml:"initImage"`
	ProxyImage string `yaml:"proxyImage"`
	// Verbosity of the agent's and Envoy's log; written only above 0.
	Verbosity       int    `yaml:"verbosity"`
	SidecarProxyUID int64  `yaml:"sidecarProxyUID"`
	Version         string `yaml:"version"`
	EnableCoreDump  bool   `yaml:"enableCoreDump"`
	// DebugMode makes the sidecar's root file system writable.
	DebugMode       bool   `yaml:"debugMode"`
	ImagePullPolicy string `yaml:"imagePullPolicy"`
	// IncludeIPRanges are the outbound destinations that are captured, separated by commas; empty for all.
	IncludeIPRanges      string `yaml:"includeIPRanges"`
	ExcludeIPRanges      string `yaml:"excludeIPRanges"`
	ExcludeInboundPorts  string `yaml:"excludeInboundPorts"`
	ExcludeOutboundPorts string `yaml:"excludeOutboundPorts"`
	Mode                 Mode   `yaml:"sidecarMode"`
	// CPU and Memory are requested for the proxy; the limits are empty for none.
	CPU         string `yaml:"proxyCPU"`
	CPULimit    string `yaml:"proxyCPULimit"`
	Memory      string `yaml:"proxyMemory"`
	MemoryLimit string `yaml:"proxyMemoryLimit"`
}

// Images sets both images to those of a registry prefix and a tag.
func (p *Params) Images(hub, tag string) {
	p.ProxyImage = hub + "/proxy:" + tag
	p.InitImage = p.ProxyImage
}

// PullPolicy is policy when Kubernetes knows it, and IfNotPresent otherwise.
func PullPolicy(policy string) string {
	if slices.Contains([]string{"Always", "IfNotPresent", "Never"}, policy) {
		return policy
	}
	return "IfNotPresent"
}

// DefaultConfig injects everywhere, with this release's images.
func DefaultConfig() Config {
	p := Params{
		Verbosity: 2, SidecarProxyUID: 1337, Version: version.Version, ImagePullPolicy: "IfNotPresent",
		Mode: Native, CPU: "10m", Memory: "64Mi",
	}
	p.Images(DefaultHub, version.Version)
	return Config{Policy: Enabled, Namespaces: []string{""}, Params: p}
}

// ParseConfig reads text, the content of the file called name, over the defaults. The configuration is to be used only when no finding is an error.
func ParseConfig(name string, text []byte) (Config, []finding.Finding) {
	c := DefaultConfig()
	file := struct {
		Policy            string   `yaml:"policy"`
		Namespaces        []string `yaml:"namespaces"`
		ExcludeNamespaces []string `yaml:"excludeNamespaces"`
		// InitializerName belongs to Kubernetes' initializers, which are gone.
		InitializerName string `yaml:"initializerName"`
		Params          Params `yaml:"params"`
	}{Policy: string(c.Policy), Params: c.Params}

	dec := yaml.NewDecoder(bytes.NewReader(text))
	dec.KnownFields(true)
	if err := dec.Decode(&file); err != nil && !errors.Is(err, io.EOF) {
		return c, decodeFindings(name, err)
	}
	var fs []finding.Finding
	bad := func(code finding.Code, severity finding.Severity, field, message, hint string) {
		fs = append(fs, finding.Finding{Code: code, Severity: severity, Field: field, Position: finding.Position{File: name}, Message: message, Hint: hint})
	}
	c.Params = file.Params
	c.Params.ImagePullPolicy = PullPolicy(file.Params.ImagePullPolicy)
	c.Policy = Policy(file.Policy)
	if c.Policy != Enabled && c.Policy != Disabled {
		bad(finding.InvalidValue, finding.Warning, "policy", fmt.Sprintf("%q is not a policy; taken as enabled", file.Policy), "one of enabled, disabled")
		c.Policy = Enabled
	}
	if len(file.Namespaces) > 0 && len(file.ExcludeNamespaces) > 0 {
		bad(finding.Conflict, finding.Error, "excludeNamespaces", "is given together with namespaces", "keep one of the two lists")
	}
	if slices.Contains(file.ExcludeNamespaces, "") {
		bad(finding.InvalidValue, finding.Error, "excludeNamespaces", "excludes the empty name, which stands for all namespaces", "use policy: disabled")
	}
	if len(file.Namespaces) > 0 {
		c.Namespaces = file.Namespaces
	}
	c.ExcludeNamespaces = file.ExcludeNamespaces
	if m := c.Params.Mode; m != Native && m != Classic {
		bad(finding.InvalidValue, finding.Error, "params.sidecarMode", fmt.Sprintf("%q is not a mode", m), "one of native, classic")
	}
	if c.Params.SidecarProxyUID <= 0 {
		bad(finding.InvalidValue, finding.Error, "params.sidecarProxyUID", fmt.Sprintf("%d is not the id of an ordinary user", c.Params.SidecarProxyUID), "the usual one is 1337")
	}
	for field, list := range map[string]string{"params.includeIPRanges": c.Params.IncludeIPRanges, "params.excludeIPRanges": c.Params.ExcludeIPRanges} {
		if list != "" && checkRanges(list) != nil {
			bad(finding.InvalidValue, finding.Error, field, checkRanges(list).Error(), "")
		}
	}
	for field, list := range map[string]string{"params.excludeInboundPorts": c.Params.ExcludeInboundPorts, "params.excludeOutboundPorts": c.Params.ExcludeOutboundPorts} {
		if list != "" && checkPorts(list) != nil {
			bad(finding.InvalidValue, finding.Error, field, checkPorts(list).Error(), "")
		}
	}
	finding.Sort(fs)
	return c, fs
}

var (
	atLine       = regexp.MustCompile(`line (\d+): `)
	unknownField = regexp.MustCompile(`field (\S+) not found in type .*`)
)

func decodeFindings(name string, err error) []finding.Finding {
	texts, code := []string{err.Error()}, finding.YAMLSyntax
	var types *yaml.TypeError
	if errors.As(err, &types) {
		texts, code = types.Errors, finding.WrongType
	}
	var fs []finding.Finding
	for _, text := range texts {
		f := finding.Finding{Code: code, Severity: finding.Error, Position: finding.Position{File: name}, Message: strings.TrimPrefix(text, "yaml: ")}
		if m := atLine.FindStringSubmatch(f.Message); m != nil {
			f.Position.Line, _ = strconv.Atoi(m[1])
			f.Message = strings.Replace(f.Message, m[0], "", 1)
		}
		if m := unknownField.FindStringSubmatch(f.Message); m != nil {
			f.Code, f.Field, f.Message = finding.UnknownField, m[1], "is not a field of the injection configuration"
		}
		fs = append(fs, f)
	}
	return fs
}
