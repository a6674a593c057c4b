package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// file is one entry of a layer: a file of this machine, bytes, a directory or a symbolic link.
type file struct {
	path    string
	source  string
	content []byte
	link    string
	mode    fs.FileMode
}

// layer is a tar of files, not compressed: it is read from this machine's disk by this machine, and registries compress as they like.
// It is generated anew each time it is read, so that nothing of its size is held in memory or written twice.
type layer struct {
	files []file
	hash  v1.Hash
	size  int64
}

func newLayer(files []file) (*layer, error) {
	l := &layer{files: withDirectories(files)}
	sum := sha256.New()
	counter := &countingWriter{w: sum}
	if err := l.write(counter); err != nil {
		return nil, err
	}
	l.hash = v1.Hash{Algorithm: "sha256", Hex: fmt.Sprintf("%x", sum.Sum(nil))}
	l.size = counter.n
	return l, nil
}

func (l *layer) Digest() (v1.Hash, error)            { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)            { return l.hash, nil }
func (l *layer) Size() (int64, error)                { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error) { return types.OCIUncompressedLayer, nil }
func (l *layer) Compressed() (io.ReadCloser, error)  { return l.Uncompressed() }
func (l *layer) Uncompressed() (io.ReadCloser, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(l.write(w)) }()
	return r, nil
}

// withDirectories adds the directories above the files, and puts everything in the one order that does not depend on the caller.
func withDirectories(files []file) []file {
	all := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(f.path); dir != "/"; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = file{path: dir, mode: fs.ModeDir | 0o755}
			}
		}
		all[f.path] = f
	}
	sorted := make([]file, 0, len(all))
	for _, f := range all {
		sorted = append(sorted, f)
	}
	slices.SortFunc(sorted, func(a, b file) int { return strings.Compare(a.path, b.path) })
	return sorted
}

func (l *layer) write(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, f := range l.files {
		if err := f.write(archive); err != nil {
			return fmt.Errorf("adding %s: %w", f.path, err)
		}
	}
	return archive.Close()
}

func (f file) write(archive *tar.Writer) error {
	// No time, no owner: they would make every build another image.
	header := &tar.Header{Name: strings.TrimPrefix(f.path, "/"), Mode: int64(f.mode.Perm()), Format: tar.FormatPAX}
	switch {
	case f.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, header.Name+"/"
		if f.mode&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
		return archive.WriteHeader(header)
	case f.link != "":
		header.Typeflag, header.Linkname, header.Mode = tar.TypeSymlink, f.link, 0o777
		return archive.WriteHeader(header)
	}
	header.Typeflag = tar.TypeReg
	var content io.Reader = bytes.NewReader(f.content)
	header.Size = int64(len(f.content))
	if f.source != "" {
		source, err := os.Open(f.source)
		if err != nil {
			return err
		}
		defer source.Close()
		info, err := source.Stat()
		if err != nil {
			return err
		}
		content, header.Size = source, info.Size()
	}
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.CopyN(archive, content, header.Size)
	return err
}

// writeArchive writes an OCI layout in one tar: images under their names, shared blobs once.
func writeArchive(target string, order []string, images map[string]v1.Image) (err error) {
	// Half an archive must never stand under its name.
	out, err := os.Create(target + ".new")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, out.Close(), os.Remove(out.Name()))
		}
	}()
	archive := tar.NewWriter(out)
	entry := func(name string, size int64, content io.Reader) error {
		header := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: size, Mode: 0o644, Format: tar.FormatPAX}
		if err := archive.WriteHeader(header); err != nil {
			return err
		}
		_, err := io.CopyN(archive, content, size)
		return err
	}
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: types.OCIImageIndex}
	for _, name := range order {
		manifest, err := images[name].RawManifest()
		if err != nil {
			return err
		}
		hash, err := images[name].Digest()
		if err != nil {
			return err
		}
		_, tag, _ := strings.Cut(name[strings.LastIndex(name, "/"):], ":")
		index.Manifests = append(index.Manifests, v1.Descriptor{
			MediaType: types.OCIManifestSchema1, Digest: hash, Size: int64(len(manifest)),
			Annotations: map[string]string{"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
		})
	}
	// The index goes first: a reader that only wants to know what is in here can stop after it.
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := entry("index.json", int64(len(data)), bytes.NewReader(data)); err != nil {
		return err
	}
	const layout = `{"imageLayoutVersion":"1.0.0"}`
	if err := entry("oci-layout", int64(len(layout)), strings.NewReader(layout)); err != nil {
		return err
	}
	written := map[v1.Hash]bool{}
	blob := func(hash v1.Hash, size int64, content io.Reader) error {
		if written[hash] {
			return nil
		}
		written[hash] = true
		return entry("blobs/"+hash.Algorithm+"/"+hash.Hex, size, content)
	}
	for _, name := range order {
		if err := writeBlobs(images[name], blob); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	if err := out.Close(); err != nil {
		return err
	}
	return os.Rename(out.Name(), target)
}

func writeBlobs(img v1.Image, blob func(v1.Hash, int64, io.Reader) error) error {
	manifest, err := img.RawManifest()
	if err != nil {
		return err
	}
	digest, err := img.Digest()
	if err != nil {
		return err
	}
	if err := blob(digest, int64(len(manifest)), bytes.NewReader(manifest)); err != nil {
		return err
	}
	config, err := img.RawConfigFile()
	if err != nil {
		return err
	}
	name, err := img.ConfigName()
	if err != nil {
		return err
	}
	if err := blob(name, int64(len(config)), bytes.NewReader(config)); err != nil {
		return err
	}
	layers, err := img.Layers()
	if err != nil {
		return err
	}
	for _, l := range layers {
		hash, err := l.Digest()
		if err != nil {
			return err
		}
		size, err := l.Size()
		if err != nil {
			return err
		}
		content, err := l.Compressed()
		if err != nil {
			return err
		}
		err = blob(hash, size, content)
		if err := errors.Join(err, content.Close()); err != nil {
			return err
		}
	}
	return nil
}

// countingWriter counts what passes.
type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	return n, err
}
