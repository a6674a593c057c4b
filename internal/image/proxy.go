package image

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// proxyFiles are Envoy and iptables with all that they load, and the authorities that Envoy trusts. The names by which iptables is called lead to its nft flavour, as on any
// distribution of today; the legacy flavour is there for kernels without nft.
func proxyFiles(s Sources) ([]file, error) {
	libraries := libraries{root: s.Root, found: map[string]string{}}
	files := []file{
		{path: "/usr/local/bin/envoy", source: s.Envoy, mode: 0o755},
		{path: "/run", mode: fs.ModeDir | 0o755}, // the legacy flavour keeps its lock there
	}
	if err := libraries.add(s.Envoy); err != nil {
		if _, missing := os.Stat(s.Envoy); missing != nil {
			return nil, fmt.Errorf("%s is missing: fetch it with `.ci/deps sandbox`", s.Envoy)
		}
		return nil, err
	}
	for _, flavour := range []string{"nft", "legacy"} {
		program := "xtables-" + flavour + "-multi"
		source, ok := firstFile(filepath.Join(s.Root, "usr/sbin", program), filepath.Join(s.Root, "sbin", program))
		if !ok {
			return nil, fmt.Errorf("%s is missing: fetch it with `.ci/deps sandbox`", program)
		}
		if err := libraries.add(source); err != nil {
			return nil, err
		}
		files = append(files, file{path: "/usr/sbin/" + program, source: source, mode: 0o755})
		for _, family := range []string{"iptables", "ip6tables"} {
			for _, tool := range []string{"", "-save", "-restore"} {
				files = append(files, file{path: "/usr/sbin/" + family + "-" + flavour + tool, link: program})
				if flavour == "nft" {
					files = append(files, file{path: "/usr/sbin/" + family + tool, link: program})
				}
			}
		}
	}
	extensions, err := filepath.Glob(filepath.Join(s.Root, "usr/lib/*-linux-gnu/xtables/*.so"))
	if err != nil {
		return nil, err
	}
	if len(extensions) == 0 {
		return nil, errors.New("the extensions of iptables are missing: fetch them with `.ci/deps sandbox`")
	}
	for _, source := range extensions {
		if err := libraries.add(source); err != nil {
			return nil, err
		}
		// xtables looks in the directory that was compiled in.
		triplet := filepath.Base(filepath.Dir(filepath.Dir(source)))
		files = append(files, file{path: "/usr/lib/" + triplet + "/xtables/" + filepath.Base(source), source: source, mode: 0o644})
	}
	roots, err := publicRoots(s.Root)
	if err != nil {
		return nil, err
	}
	files = append(files, file{path: "/etc/ssl/certs/ca-certificates.crt", content: roots, mode: 0o644})
	for path, source := range libraries.found {
		files = append(files, file{path: path, source: source, mode: 0o755})
	}
	return files, nil
}

// publicRoots are the certificates of the authorities that the distribution trusts, by which Envoy believes hosts outside of the mesh. Those
// that were added on this machine are its own affair.
func publicRoots(root string) ([]byte, error) {
	for _, root := range []string{root, "/"} {
		paths, err := filepath.Glob(filepath.Join(root, "usr/share/ca-certificates/mozilla/*.crt"))
		if err != nil {
			return nil, err
		}
		var out []byte
		for _, path := range paths {
			text, err := os.ReadFile(path)
			if err != nil {
				return nil, fmt.Errorf("reading a certificate: %w", err)
			}
			out = append(append(out, bytes.TrimSpace(text)...), '\n')
		}
		if len(out) > 0 {
			return out, nil
		}
	}
	return nil, errors.New("the certificates of the public authorities are missing: fetch them with `.ci/deps sandbox`")
}

// libraries collects what programs load: by the path in the image, the file on this machine.
type libraries struct {
	root  string
	found map[string]string
}

// add adds what the program or library at path needs, and what that needs in turn.
func (l *libraries) add(path string) error {
	binary, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("reading %s: %w", path, err)
	}
	defer binary.Close()
	for _, segment := range binary.Progs {
		if segment.Type != elf.PT_INTERP {
			continue
		}
		name, err := io.ReadAll(segment.Open())
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, err)
		}
		loader := strings.TrimRight(string(name), "\x00")
		l.found[loader] = loader
	}
	names, err := binary.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("reading what %s needs: %w", path, err)
	}
	for _, name := range names {
		// The loader is known by its own path, which is not where libraries are.
		if strings.HasPrefix(name, "ld-linux") {
			continue
		}
		source, ok := firstFile(l.candidates(name)...)
		if !ok {
			return fmt.Errorf("%s, which %s needs, is missing", name, path)
		}
		triplet := filepath.Base(filepath.Dir(source))
		place := "/lib/" + triplet + "/" + name
		if _, ok := l.found[place]; ok {
			continue
		}
		l.found[place] = source
		if err := l.add(source); err != nil {
			return err
		}
	}
	return nil
}

// candidates are the places where a library may be, in Debian's directories per architecture.
func (l *libraries) candidates(name string) []string {
	var found []string
	for _, root := range slices.Compact([]string{l.root, "/"}) {
		for _, dir := range []string{"usr/lib", "lib"} {
			// The pattern has no syntax error to report.
			matches, _ := filepath.Glob(filepath.Join(root, dir, "*-linux-gnu", name))
			found = append(found, matches...)
		}
	}
	return found
}

func firstFile(paths ...string) (string, bool) {
	for _, path := range paths {
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}
