package check

import (
	"strings"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
)

// DefaultDomain is the mesh's domain suffix unless it is configured otherwise.
const DefaultDomain = "cluster.local"

// Hostname is the full host name that svc stands for in a rule of ruleNamespace: Service verbatim, else the name, its namespace (the rule's
// when it has none) and its domain (svc.<domain> when it has none). An empty namespace or domain is left out. It is the only place where
// names are resolved; ingest uses it too.
func Hostname(svc v1alpha2.IstioService, ruleNamespace, domain string) string {
	if svc.Service != "" {
		return svc.Service
	}
	parts := []string{svc.Name}
	if svc.Namespace != "" {
		parts = append(parts, svc.Namespace)
	} else if ruleNamespace != "" {
		parts = append(parts, ruleNamespace)
	}
	if svc.Domain != "" {
		parts = append(parts, svc.Domain)
	} else if domain != "" {
		parts = append(parts, "svc", domain)
	}
	return strings.Join(parts, ".")
}
