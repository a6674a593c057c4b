package image

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// program writes a file that stands for a program.
func program(t *testing.T, dir, name, content string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(content), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func build(t *testing.T, path, app string) {
	t.Helper()
	if err := BuildProgram(path, "docker.io/meshctl/app:1", app); err != nil {
		t.Fatal(err)
	}
}

func TestAnArchiveIsTheSameToTheByteWhateverTheTimesAndPlacesOfItsParts(t *testing.T) {
	one, two := t.TempDir(), t.TempDir()
	a, b := program(t, one, "app", "same"), program(t, two, "app", "same")
	if err := os.Chtimes(b, time.Unix(1, 0), time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(b, 0o700); err != nil {
		t.Fatal(err)
	}
	build(t, filepath.Join(one, "app.tar"), a)
	build(t, filepath.Join(two, "app.tar"), b)
	if read(t, filepath.Join(one, "app.tar")) != read(t, filepath.Join(two, "app.tar")) {
		t.Error("two builds of the same program differ")
	}
	program(t, one, "app", "other")
	build(t, filepath.Join(one, "other.tar"), a)
	if read(t, filepath.Join(one, "other.tar")) == read(t, filepath.Join(two, "app.tar")) {
		t.Error("another program gives the same archive")
	}
}

// contents reads an OCI archive and checks every blob against its name.
func contents(t *testing.T, path string) map[string][]byte {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	files := map[string][]byte{}
	for r := tar.NewReader(f); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return files
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		if _, twice := files[header.Name]; twice {
			t.Errorf("%s is in the archive twice", header.Name)
		}
		files[header.Name] = data
		if hash, ok := strings.CutPrefix(header.Name, "blobs/sha256/"); ok && hash != fmt.Sprintf("%x", sha256.Sum256(data)) {
			t.Errorf("blob %s has another digest", hash)
		}
	}
}

func decode(t *testing.T, data []byte, into any) {
	t.Helper()
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%v in %s", err, data)
	}
}

func TestEveryImageOfAnArchiveIsWhole(t *testing.T) {
	dir := t.TempDir()
	a := archive{
		files: append(users(), file{path: "/usr/local/bin/app", source: program(t, dir, "app", "app"), mode: 0o755}),
		images: []tagged{
			{name: "docker.io/meshctl/app:1", entrypoint: []string{"/usr/local/bin/app"}, user: appUser},
			{name: "docker.io/istio/alias:0.2.3", entrypoint: []string{"/usr/local/bin/app"}, args: []string{"--as", "alias"}, user: proxyUser},
		},
	}
	path := filepath.Join(dir, "app.tar")
	if err := a.build(path); err != nil {
		t.Fatal(err)
	}
	files := contents(t, path)
	var index v1.IndexManifest
	decode(t, files["index.json"], &index)
	if len(index.Manifests) != len(a.images) {
		t.Fatalf("the index has %d images, want %d", len(index.Manifests), len(a.images))
	}
	blob := func(h v1.Hash) []byte {
		data, ok := files["blobs/sha256/"+h.Hex]
		if !ok {
			t.Fatalf("blob %s is missing", h)
		}
		return data
	}
	for i, want := range a.images {
		if got := index.Manifests[i].Annotations["io.containerd.image.name"]; got != want.name {
			t.Errorf("image %d is called %q, want %q", i, got, want.name)
		}
		var manifest v1.Manifest
		decode(t, blob(index.Manifests[i].Digest), &manifest)
		var config v1.ConfigFile
		decode(t, blob(manifest.Config.Digest), &config)
		if !slices.Equal(config.Config.Entrypoint, want.entrypoint) || !slices.Equal(config.Config.Cmd, want.args) || config.Config.User != want.user {
			t.Errorf("%s runs %v %v as %s", want.name, config.Config.Entrypoint, config.Config.Cmd, config.Config.User)
		}
		if len(manifest.Layers) != 1 || config.RootFS.DiffIDs[0] != manifest.Layers[0].Digest {
			t.Errorf("%s has layers %v", want.name, manifest.Layers)
		}
		if got := int64(len(blob(manifest.Layers[0].Digest))); got != manifest.Layers[0].Size {
			t.Errorf("%s: the layer has %d bytes, the manifest says %d", want.name, got, manifest.Layers[0].Size)
		}
	}
}

func TestAnArchiveIsBuiltAgainOnlyWhenAPartIsNewer(t *testing.T) {
	dir := t.TempDir()
	app, path := program(t, dir, "app", "1"), filepath.Join(dir, "app.tar")
	build(t, path, app)
	// A time that no build would give it tells whether it was written.
	mark := time.Now().Add(time.Hour).Truncate(time.Second)
	if err := os.Chtimes(path, mark, mark); err != nil {
		t.Fatal(err)
	}
	written := func() bool {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return !info.ModTime().Equal(mark)
	}
	build(t, path, app)
	if written() {
		t.Error("it was built again though nothing changed")
	}
	if err := os.Chtimes(app, mark.Add(time.Hour), mark.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	build(t, path, app)
	if !written() {
		t.Error("it was not built again though the program changed")
	}
}

func TestAMissingProgramIsNamedWithTheCommandThatMakesIt(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "app.tar")
	err := BuildProgram(path, "docker.io/meshctl/app:1", filepath.Join(dir, "app"))
	if err == nil || !strings.Contains(err.Error(), "app is missing: make it with `make build`") {
		t.Errorf("the error is %v", err)
	}
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// Libraries are looked up on this machine: what a program names must come with it, and what that names in turn.
func TestAProgramBringsTheLibrariesItLoads(t *testing.T) {
	const shell = "/bin/bash"
	l := libraries{root: "/", found: map[string]string{}}
	if err := l.add(shell); err != nil {
		t.Fatal(err)
	}
	var libc, loader bool
	for path, source := range l.found {
		libc = libc || strings.HasSuffix(path, "/libc.so.6")
		loader = loader || strings.Contains(path, "/ld-linux")
		if _, err := os.Stat(source); err != nil {
			t.Error(err)
		}
	}
	if !libc || !loader {
		t.Errorf("libc: %v, loader: %v in %v", libc, loader, l.found)
	}
}

func TestTheAuthoritiesTrustedAreThoseOfTheDistribution(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "usr/share/ca-certificates/mozilla")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"b.crt": "two\n\n", "a.crt": "one", "README": "no certificate"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := publicRoots(root)
	if err != nil || string(got) != "one\ntwo\n" {
		t.Errorf("got %q, %v", got, err)
	}
}
