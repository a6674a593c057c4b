package xds

import "github.com/meshctl/meshctl/internal/resource"

// group is the part of a snapshot that k is about.
func group(s *resource.Snapshot, k kind) resource.Group {
	if s == nil {
		return nil
	}
	switch k {
	case clusters:
		return s.Clusters
	case endpoints:
		return s.Endpoints
	case listeners:
		return s.Listeners
	case routes:
		return s.Routes
	case virtualHosts:
		return s.VirtualHosts
	case secrets:
		return s.Secrets
	}
	return nil
}
