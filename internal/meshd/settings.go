package meshd

import (
	"fmt"
	"log/slog"
	"os"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/ingest"
	"github.com/meshctl/meshctl/internal/meshconfig"
)

// settings is the mesh configuration: fixed by a file, or followed in the ConfigMap, where a faulty one changes nothing.
type settings struct {
	options *pilotOptions
	log     *slog.Logger
	mesh    meshconfig.Mesh
	// text is what was read last, "" for none.
	text string
}

func newSettings(o *pilotOptions, log *slog.Logger) (*settings, error) {
	s := &settings{options: o, log: log, mesh: meshconfig.Default(o.namespace)}
	if o.meshConfig == "" {
		return s, nil
	}
	text, err := os.ReadFile(o.meshConfig)
	if err != nil {
		return nil, fmt.Errorf("reading the mesh configuration: %w", err)
	}
	mesh, fs := meshconfig.Parse(o.meshConfig, text, o.namespace)
	for _, f := range fs {
		if f.Severity == finding.Error {
			return nil, fmt.Errorf("reading the mesh configuration: %s", f)
		}
		log.Warn("mesh configuration", "finding", f.String())
	}
	s.mesh = mesh
	return s, nil
}

// configMap is the ConfigMap to follow; empty for none.
func (s *settings) configMap() string {
	if s.options.meshConfig != "" {
		return ""
	}
	return meshconfig.ConfigMap
}

// follow takes up the ConfigMap's data.
func (s *settings) follow(data map[string]string) {
	text := data[meshconfig.Key]
	if s.options.meshConfig != "" || text == s.text {
		return
	}
	s.text = text
	mesh, fs := meshconfig.Parse("ConfigMap "+s.options.namespace+"/"+meshconfig.ConfigMap, []byte(text), s.options.namespace)
	for _, f := range fs {
		s.log.Warn("mesh configuration", "finding", f.String())
	}
	if finding.HasErrors(fs) {
		s.log.Error("the mesh configuration has errors, the one before stays in force")
		return
	}
	s.mesh = mesh
}

func (s *settings) ingest() ingest.Config {
	detection := s.mesh.ProtocolDetectionTimeout
	if detection == 0 {
		detection = -1 // none, where the ingest room would take its default
	}
	return ingest.Config{
		Domain: s.options.domain, ConnectTimeout: s.mesh.ConnectTimeout, AccessLog: s.mesh.AccessLogFile,
		DetectionTimeout: detection,
		IngressClass:     s.mesh.IngressClass, IngressMode: s.mesh.IngressControllerMode,
		Closed: s.mesh.OutboundTrafficPolicy == meshconfig.OutboundRegistryOnly,
	}
}
