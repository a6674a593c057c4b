// Package rules holds what users apply: the sample's files, the mesh's manifests and its custom resource definitions, one folder each.
//
// The folders are embedded whole, so a new file or folder needs no line of Go. Paths are slash-separated and begin with the folder
// ("bookinfo/ingress.yaml").
package rules

import "embed"

// FS is every shipped file.
//
//go:embed */*
var FS embed.FS
