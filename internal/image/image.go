// Package image makes OCI images of our own programs, without a container engine and the same to the byte every time.
//
// In go programs on disk; out come OCI archives, one per program, that a container runtime imports and that can be pushed to any registry
// (`crane push`, `skopeo copy`). An image holds what its program needs and nothing else: a static Go binary stands alone, Envoy and
// iptables bring the shared libraries they name.
package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/meshctl/meshctl/internal/version"
)

// Pause is the image that holds a pod's namespaces in the sandbox.
const Pause = "docker.io/meshctl/pause:1"

// The user that our programs run as, and the one that traffic capture recognises the proxy by.
const (
	appUser   = "65532:65532"
	proxyUser = "1337:1337"
)

// Sources says where the parts of the images are.
type Sources struct {
	// Bin holds meshd, meshagent, bookinfo and pause.
	Bin string
	// Envoy is the Envoy binary.
	Envoy string
	// Root is a directory with iptables below usr/sbin or sbin and its libraries below usr/lib or lib; / is the machine's own.
	Root string
}

// FindSources looks for the parts as the repository keeps them: programs in bin, and what .ci/deps brought in .cache/tools.
func FindSources(bin string) Sources {
	tools := filepath.Join(filepath.Dir(bin), ".cache", "tools")
	s := Sources{Bin: bin, Envoy: filepath.Join(tools, "envoy"), Root: filepath.Join(tools, "root")}
	if _, err := os.Stat(s.Root); err != nil {
		s.Root = "/"
	}
	return s
}

// bookinfoAliases are the images of 2017 that our one Bookinfo program stands in for, with the arguments that make it each of them.
var bookinfoAliases = [...]struct {
	name string
	args []string
}{
	{"productpage-v1", []string{"productpage", "--version", "v1"}},
	{"details-v1", []string{"details", "--version", "v1"}},
	{"ratings-v1", []string{"ratings", "--version", "v1"}},
	{"reviews-v1", []string{"reviews", "--version", "v1"}},
	{"reviews-v2", []string{"reviews", "--version", "v2"}},
	{"reviews-v3", []string{"reviews", "--version", "v3"}},
}

// archive is one file with the images in it, which may share layers.
type archive struct {
	file   string
	files  []file
	images []tagged
}

// tagged is an image under its name.
type tagged struct {
	name       string
	entrypoint []string
	args       []string
	user       string
}

// archives lists what is built from where.
func archives(s Sources) ([]archive, error) {
	program := func(name string) file {
		return file{path: "/usr/local/bin/" + name, source: filepath.Join(s.Bin, name), mode: 0o755}
	}
	ours := func(name string) string { return "docker.io/meshctl/" + name + ":" + version.Version }

	bookinfo := archive{file: "bookinfo.tar", files: append(users(), program("bookinfo"))}
	entrypoint := []string{"/usr/local/bin/bookinfo"}
	bookinfo.images = append(bookinfo.images, tagged{name: ours("bookinfo"), entrypoint: entrypoint, user: appUser})
	for _, alias := range bookinfoAliases {
		bookinfo.images = append(bookinfo.images, tagged{
			name:       "docker.io/istio/examples-bookinfo-" + alias.name + ":0.2.3",
			entrypoint: entrypoint, args: alias.args, user: appUser,
		})
	}
	proxy, err := proxyFiles(s)
	if err != nil {
		return nil, err
	}
	return []archive{
		{
			file:   "pause.tar",
			files:  []file{{path: "/pause", source: filepath.Join(s.Bin, "pause"), mode: 0o755}},
			images: []tagged{{name: Pause, entrypoint: []string{"/pause"}, user: appUser}},
		},
		bookinfo,
		{
			file:   "meshd.tar",
			files:  append(users(), program("meshd")),
			images: []tagged{{name: ours("meshd"), entrypoint: []string{"/usr/local/bin/meshd"}, user: appUser}},
		},
		{
			file:   "proxy.tar",
			files:  append(append(users(), proxy...), program("meshagent")),
			images: []tagged{{name: ours("proxy"), entrypoint: []string{"/usr/local/bin/meshagent"}, user: proxyUser}},
		},
	}, nil
}

// BuildAll writes every archive into dir and returns their paths. An archive newer than all that goes into it is left as it is. What is
// missing for one archive does not keep the others from being built: the error names each.
func BuildAll(s Sources, dir string) ([]string, error) {
	list, err := archives(s)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	var paths []string
	var errs []error
	for _, a := range list {
		path := filepath.Join(dir, a.file)
		if err := a.build(path); err != nil {
			errs = append(errs, fmt.Errorf("building image %s: %w", a.images[0].name, err))
			continue
		}
		paths = append(paths, path)
	}
	return paths, errors.Join(errs...)
}

// build writes the archive, unless it is up to date.
func (a archive) build(path string) error {
	fresh, err := a.fresh(path)
	if err != nil || fresh {
		return err
	}
	layer, err := newLayer(a.files)
	if err != nil {
		return err
	}
	images := map[string]v1.Image{}
	var order []string
	for _, t := range a.images {
		img, err := t.image(layer)
		if err != nil {
			return err
		}
		images[t.name] = img
		order = append(order, t.name)
	}
	return writeArchive(path, order, images)
}

// fresh says whether the archive at path is newer than this program and every file that goes into it. A file that is missing is an error.
func (a archive) fresh(path string) (bool, error) {
	newest := int64(0)
	for _, f := range a.files {
		if f.source == "" {
			continue
		}
		info, err := os.Stat(f.source)
		if errors.Is(err, fs.ErrNotExist) {
			return false, fmt.Errorf("%s is missing: make it with `make build`", f.source)
		}
		if err != nil {
			return false, err
		}
		newest = max(newest, info.ModTime().UnixNano())
	}
	self, err := os.Stat("/proc/self/exe")
	if err != nil {
		return false, err
	}
	newest = max(newest, self.ModTime().UnixNano())
	info, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return info.ModTime().UnixNano() >= newest, nil
}

// image is the image of one layer.
func (t tagged) image(layer v1.Layer) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.AppendLayers(img, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.Architecture, config.OS = runtime.GOARCH, "linux"
	config.Config = v1.Config{
		Entrypoint: t.entrypoint, Cmd: t.args, User: t.user, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	// A history line would only say when, and that must not change the image.
	config.History = nil
	return mutate.ConfigFile(img, config)
}

// users are the files that give our user numbers names, which some libraries insist on, and a place for temporary files.
func users() []file {
	return []file{
		{path: "/etc/passwd", mode: 0o644, content: []byte("root:x:0:0:root:/:/sbin/nologin\nproxy:x:1337:1337:proxy:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n")},
		{path: "/etc/group", mode: 0o644, content: []byte("root:x:0:\nproxy:x:1337:\nnonroot:x:65532:\n")},
		{path: "/etc/nsswitch.conf", mode: 0o644, content: []byte("hosts: files dns\n")},
		{path: "/tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
	}
}
