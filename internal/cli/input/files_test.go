package input

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/meshctl/meshctl/internal/cli/factory"
)

// tree makes files with their own names as content and goes there.
func tree(t *testing.T, names ...string) {
	t.Helper()
	t.Chdir(t.TempDir())
	for _, name := range names {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRead(t *testing.T) {
	for name, tc := range map[string]struct {
		flags Flags
		want  string
		err   string
		code  int
	}{
		"files come in the order named":                        {Flags{Filenames: []string{"b.yaml", "a.yaml"}}, "b.yaml a.yaml", "", 0},
		"a directory gives its manifests by name":              {Flags{Filenames: []string{"d"}}, "d/x.json d/y.yml", "", 0},
		"-R goes below it":                                     {Flags{Filenames: []string{"d"}, Recursive: true}, "d/sub/z.yaml d/x.json d/y.yml", "", 0},
		"a pattern that the shell left alone is followed":      {Flags{Filenames: []string{"*.yaml"}}, "a.yaml b.yaml", "", 0},
		"a file named is read whatever its extension":          {Flags{Filenames: []string{"d/notes.txt"}}, "d/notes.txt", "", 0},
		"standard input stands among the files":                {Flags{Filenames: []string{"a.yaml", "-"}}, "a.yaml -", "", 0},
		"every file that is missing is told":                   {Flags{Filenames: []string{"p", "q"}}, "", "reading p: no such file or directory\nreading q: no such file or directory", factory.ExitError},
		"a directory without manifests is told, with a way on": {Flags{Filenames: []string{"e"}}, "", "-R descends", factory.ExitError},
		"no file is wrong usage":                               {Flags{}, "", "no input", factory.ExitUsage},
		"standard input twice is wrong usage":                  {Flags{Filenames: []string{"-", "-"}}, "", "once", factory.ExitUsage},
	} {
		t.Run(name, func(t *testing.T) {
			tree(t, "a.yaml", "b.yaml", "d/x.json", "d/y.yml", "d/notes.txt", "d/sub/z.yaml", "e/f/g.yaml")
			sources, err := tc.flags.Read(t.Context(), strings.NewReader("-"))
			if factory.Code(err) != tc.code || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Fatalf("got %v (code %d), want %q (code %d)", err, factory.Code(err), tc.err, tc.code)
			}
			var got []string
			for _, s := range sources {
				if s.Name != string(s.Data) {
					t.Errorf("%s holds %q", s.Name, s.Data)
				}
				got = append(got, s.Name)
			}
			if strings.Join(got, " ") != tc.want {
				t.Errorf("got %v, want %s", got, tc.want)
			}
		})
	}
}

func TestReadURL(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch n := asked.Add(1); {
		case r.URL.Path == "/gone":
			http.NotFound(w, r)
		case n == 1:
			http.Error(w, "later", http.StatusServiceUnavailable)
		default:
			_, _ = w.Write([]byte("kind: x"))
		}
	}))
	defer server.Close()
	sources, err := (&Flags{Filenames: []string{server.URL + "/rule.yaml"}}).Read(t.Context(), nil)
	if err != nil || len(sources) != 1 || string(sources[0].Data) != "kind: x" {
		t.Fatalf("a server in trouble is asked again: got %v, %v", sources, err)
	}
	asked.Store(0)
	_, err = (&Flags{Filenames: []string{server.URL + "/gone"}}).Read(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "the server answered 404") || asked.Load() != 1 {
		t.Fatalf("a server that says no is not asked again: got %v after %d", err, asked.Load())
	}
}

func TestReadRefusesWhatNoManifestIs(t *testing.T) {
	tree(t)
	f, err := os.Create("big.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(MaxSize + 1); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = (&Flags{Filenames: []string{"big.yaml"}}).Read(t.Context(), nil)
	if err == nil || !strings.Contains(err.Error(), "reading big.yaml: more than 64 MiB") {
		t.Fatalf("got %v", err)
	}
}
