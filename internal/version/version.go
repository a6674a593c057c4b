// Package version holds the build facts: which release this is and what it was built from.
package version

import "runtime/debug"

// Version is the release; it is also the tag of every image built from this tree.
const Version = "0.3.0"

// Info is what `version` commands print.
type Info struct {
	Version     string `json:"version"`
	GitRevision string `json:"gitRevision"`
	GoVersion   string `json:"goVersion"`
}

// Get reads the facts the Go toolchain stamped into the running binary; GitRevision is "unknown" when it stamped none.
func Get() Info {
	info := Info{Version: Version, GitRevision: "unknown"}
	if b, ok := debug.ReadBuildInfo(); ok {
		info.GoVersion = b.GoVersion
		for _, s := range b.Settings {
			if s.Key == "vcs.revision" {
				info.GitRevision = s.Value
			}
		}
	}
	return info
}
