// Package input brings what the user named with -f into memory and through the one reader and the one validator.
//
// In: file names, directories, globs, URLs and "-". Out: the objects in the order they were written, and findings about all of them.
package input

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// MaxSize bounds what is read from one file, URL or standard input. Real manifests are far smaller; the largest object etcd takes is 1.5 MB.
const MaxSize = 64 << 20

// Flags are -f and -R.
type Flags struct {
	Filenames []string
	Recursive bool
}

// Add binds the flags to cmd; verb completes the sentence "files ... to <verb>".
func (o *Flags) Add(cmd *cobra.Command, verb string) {
	fs := cmd.Flags()
	fs.StringSliceVarP(&o.Filenames, "filename", "f", nil, "files, directories or URLs to "+verb+"; - is standard input")
	fs.BoolVarP(&o.Recursive, "recursive", "R", false, "descend into the directories named with -f")
	// 0.2's spelling
	fs.VarPF(alias{fs.Lookup("filename")}, "file", "", "").Hidden = true
	if err := cmd.RegisterFlagCompletionFunc("filename", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return []string{"yaml", "yml", "json"}, cobra.ShellCompDirectiveFilterFileExt
	}); err != nil {
		panic(err) // the flag was defined four lines up
	}
}

// alias is a flag that stands for another one.
type alias struct{ of *pflag.Flag }

func (a alias) String() string { return "" }
func (a alias) Type() string   { return "strings" }
func (a alias) Set(s string) error {
	a.of.Changed = true
	return a.of.Value.Set(s)
}

// Source is one file, URL or standard input, read whole.
type Source struct {
	// Name is as the user gave it, or the path below the directory given.
	Name string
	Data []byte
}

// Check refuses flags that name nothing to read.
func (o *Flags) Check() error {
	if len(o.Filenames) == 0 {
		return factory.Usage("no input: name files, directories or URLs with -f; -f - reads standard input")
	}
	if n := count(o.Filenames, "-"); n > 1 {
		return factory.Usage("-f - was given %d times, and standard input can be read once", n)
	}
	return nil
}

// Read reads all that the flags name, in the order named, directories sorted by name. Nothing named is wrong usage; what cannot be read is an
// error about that name. All names that cannot be read are told, not the first.
func (o *Flags) Read(ctx context.Context, stdin io.Reader) ([]Source, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	var sources []Source
	var errs []error
	for _, name := range o.Filenames {
		found, err := o.read(ctx, name, stdin)
		if err != nil {
			errs = append(errs, err)
		}
		sources = append(sources, found...)
	}
	if len(errs) > 0 {
		return nil, &factory.ExitErr{Code: factory.ExitError, Err: errors.Join(errs...)}
	}
	return sources, nil
}

func count(names []string, name string) (n int) {
	for _, f := range names {
		if f == name {
			n++
		}
	}
	return n
}

func (o *Flags) read(ctx context.Context, name string, stdin io.Reader) ([]Source, error) {
	switch {
	case name == "-":
		data, err := readAll(stdin)
		if err != nil {
			return nil, fmt.Errorf("reading standard input: %w", err)
		}
		return []Source{{Name: name, Data: data}}, nil
	case strings.HasPrefix(name, "http://"), strings.HasPrefix(name, "https://"):
		data, err := download(ctx, name)
		if err != nil {
			return nil, err
		}
		return []Source{{Name: name, Data: data}}, nil
	}
	info, err := os.Stat(name)
	if errors.Is(err, fs.ErrNotExist) {
		// A pattern the shell left alone, as in -f 'rules/*.yaml'.
		if matches, globErr := filepath.Glob(name); globErr == nil && len(matches) > 0 {
			return readFiles(matches)
		}
		return nil, fmt.Errorf("reading %s: no such file or directory", name)
	}
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, reason(err))
	}
	if !info.IsDir() {
		return readFiles([]string{name})
	}
	files, err := o.list(name)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		hint := ""
		if !o.Recursive {
			hint = " (-R descends into its directories)"
		}
		return nil, fmt.Errorf("reading %s: it holds no .yaml, .yml or .json file%s", name, hint)
	}
	return readFiles(files)
}

// list is the manifest files of a directory, and with -R of those below it.
func (o *Flags) list(dir string) ([]string, error) {
	var files []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return fmt.Errorf("reading %s: %w", path, reason(err))
		}
		if d.IsDir() {
			if path != dir && !o.Recursive {
				return filepath.SkipDir
			}
			return nil
		}
		if slices.Contains([]string{".yaml", ".yml", ".json"}, filepath.Ext(path)) {
			files = append(files, path)
		}
		return nil
	})
	return files, err
}

func readFiles(names []string) ([]Source, error) {
	var sources []Source
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, reason(err))
		}
		data, err := readAll(f)
		_ = f.Close() // it was only read
		if err != nil {
			return nil, fmt.Errorf("reading %s: %w", name, reason(err))
		}
		sources = append(sources, Source{Name: name, Data: data})
	}
	return sources, nil
}

func readAll(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, MaxSize+1))
	if err == nil && len(data) > MaxSize {
		return nil, fmt.Errorf("more than %d MiB, which no manifest is", MaxSize>>20)
	}
	return data, err
}

// downloadTimeout bounds one try at a URL.
const downloadTimeout = 30 * time.Second

// download fetches a URL, trying again when the server is the one in trouble.
func download(ctx context.Context, url string) ([]byte, error) {
	var err error
	for try := range 3 {
		if try > 0 {
			select {
			case <-time.After(time.Second):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		var data []byte
		var again bool
		if data, again, err = get(ctx, url); err == nil || !again {
			return data, err
		}
	}
	return nil, err
}

func get(ctx context.Context, url string) (data []byte, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, downloadTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", url, err)
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", url, errors.Unwrap(err))
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, response.StatusCode >= 500, fmt.Errorf("reading %s: the server answered %s", url, response.Status)
	}
	data, err = readAll(response.Body)
	if err != nil {
		return nil, false, fmt.Errorf("reading %s: %w", url, err)
	}
	return data, false, nil
}

// reason drops the operation and the path from a file error: the message names the file already.
func reason(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
