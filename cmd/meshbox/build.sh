#!/bin/sh
# Builds meshbox and its pause program: build.sh DIR
# The version comes from go.mod: without it Kubernetes calls itself v0.0.0-master and clients take it for older than everything.
set -eu
out=$(mkdir -p "$1" && cd "$1" && pwd)
cd "$(dirname "$0")"
version=$(sed -n 's|^.*k8s.io/kubernetes \(v[0-9.]*\)$|\1|p' go.mod)
minor=${version#v1.}
minor=${minor%%.*}
v=k8s.io/component-base/version
flags="-s -w -X $v.gitVersion=$version -X $v.gitMajor=1 -X $v.gitMinor=$minor -X $v.gitTreeState=clean -X $v.gitCommit=release -X $v.buildDate=1970-01-01T00:00:00Z"
# A new file takes the old one's place, so that a running sandbox keeps the program it started with.
CGO_ENABLED=0 go build -trimpath -ldflags "$flags" -o "$out/.meshbox.new" .
mv "$out/.meshbox.new" "$out/meshbox"
CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$out/.pause.new" ./pause
mv "$out/.pause.new" "$out/pause"
