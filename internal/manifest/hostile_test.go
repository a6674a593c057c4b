package manifest_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/yaml"

	"github.com/meshctl/meshctl/internal/finding"
	"github.com/meshctl/meshctl/internal/manifest"
	"github.com/meshctl/meshctl/internal/testkit/golden"
	"github.com/meshctl/meshctl/rules"
)

// repeat fills n bytes with unit.
func repeat(unit string, n int) []byte { return bytes.Repeat([]byte(unit), n/len(unit)) }

func TestGarbageGetsOneFindingQuickly(t *testing.T) {
	const size = 1 << 20
	random := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, size)
	printable := make([]byte, size)
	for i := range noise {
		noise[i] = byte(random.Uint32())
		printable[i] = byte(' ' + random.Uint32()%95)
	}
	for name, data := range map[string][]byte{
		"ten megabytes of anything are too large": repeat("a", 10<<20),
		"noise is no text":                        noise,
		"printable noise":                         printable,
		"one long word":                           repeat("a", size),
		"opening brackets":                        repeat("[", size),
		"opening braces":                          repeat("{", size),
		"opening braces with keys":                repeat(`{"a":`, size),
		"dashes":                                  repeat("- ", size),
		"question marks":                          repeat("? ", size),
		"colons":                                  repeat(": ", size),
		"quotes":                                  repeat(`"a" `, size),
		"one quote":                               append([]byte(`a: "`), repeat("b\n", size)...),
		"a broken line at the very end":           append(repeat("a: [b]\nc: {d: e}\n---\n", 1<<12), "a: b: c"...),
		"a broken line after many fields":         append(append([]byte("kind: ConfigMap\nb:\n"), repeat("- x\n", size)...), "  c: d: e"...),
		"a broken line after a long mapping":      append(append([]byte("kind: ConfigMap\nb:\n"), repeat("  - x: y\n", size)...), " c: d\n"...),
	} {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			objs, fs := manifest.Decode("x", data, manifest.Options{})
			// Generous, for machines that are slow and busy; what matters is that nothing here grows with the square of the input.
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("it took %s", took)
			}
			if len(objs) > 0 {
				t.Errorf("%d objects", len(objs))
			}
			if strings.HasPrefix(name, "a broken line at") {
				if last := fs[len(fs)-1]; last.Code != finding.TooLarge {
					t.Errorf("last finding is %s, want the rest counted", last)
				}
				return
			}
			if len(fs) != 1 || !finding.HasErrors(fs) {
				t.Errorf("findings: %d, first %v", len(fs), fs[:min(3, len(fs))])
			}
		})
	}
}

func TestManyDocumentsAreRefused(t *testing.T) {
	doc := "apiVersion: v1\nkind: ServiceAccount\nmetadata: {generateName: a}\n---\n"
	objs, fs := manifest.Decode("x", repeat(doc, len(doc)*(manifest.MaxDocuments+5)), manifest.Options{})
	if len(objs) != manifest.MaxDocuments || len(fs) != 1 || fs[0].Code != finding.TooLarge {
		t.Errorf("%d objects, findings %v", len(objs), fs)
	}
}

func TestNoticesRefuseNothing(t *testing.T) {
	const retired = "apiVersion: extensions/v1beta1\nkind: Deployment\nmetadata: {generateName: a}\nspec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}}}\n---\n"
	t.Run("however many there are, every document is read", func(t *testing.T) {
		const n = 11 * manifest.MaxFindings
		objs, fs := manifest.Decode("x", repeat(retired, len(retired)*n), manifest.Options{})
		if len(objs) != n || finding.HasErrors(fs) || len(fs) != manifest.MaxFindings+1 {
			t.Fatalf("%d objects, %d findings, last %v", len(objs), len(fs), fs[len(fs)-1])
		}
		if last := fs[len(fs)-1]; last.Severity != finding.Info || !strings.Contains(last.Message, "1000 more findings") {
			t.Errorf("last finding is %s", last)
		}
	})
	t.Run("they do not crowd out the error", func(t *testing.T) {
		text := append(repeat(retired, len(retired)*2*manifest.MaxFindings), "kind: Service\nmetadata: {name: a}\n"...)
		_, fs := manifest.Decode("x", text, manifest.Options{})
		if !slices.ContainsFunc(fs, func(f finding.Finding) bool { return f.Code == finding.MissingIdentity }) {
			t.Errorf("the error is not among %d findings", len(fs))
		}
		if last := fs[len(fs)-1]; last.Severity != finding.Info {
			t.Errorf("last finding is %s", last)
		}
	})
	t.Run("an error that is not shown still refuses", func(t *testing.T) {
		_, fs := manifest.Decode("x", repeat("kind: Service\n---\n", len("kind: Service\n---\n")*(manifest.MaxFindings+5)), manifest.Options{})
		if last := fs[len(fs)-1]; len(fs) != manifest.MaxFindings+1 || last.Severity != finding.Error {
			t.Errorf("%d findings, last %s", len(fs), last)
		}
	})
}

func TestDepthIsBounded(t *testing.T) {
	for _, data := range []string{
		"a: " + strings.Repeat("[", 300) + strings.Repeat("]", 300),
		`{"a": ` + strings.Repeat("[", 300) + strings.Repeat("]", 300) + "}",
	} {
		_, fs := manifest.Decode("x", []byte(data), manifest.Options{})
		if len(fs) != 1 || fs[0].Code != finding.TooLarge {
			t.Errorf("findings %v", fs)
		}
	}
}

func TestShippedFilesAreReadWithoutAnError(t *testing.T) {
	for _, dir := range []string{"bookinfo"} {
		entries, err := rules.FS.ReadDir(dir)
		if err != nil || len(entries) == 0 {
			t.Fatalf("%d files, %v", len(entries), err)
		}
		for _, e := range entries {
			data, err := rules.FS.ReadFile(dir + "/" + e.Name())
			if err != nil {
				t.Fatal(err)
			}
			objs, fs := manifest.Decode(e.Name(), data, manifest.Options{})
			if strings.HasPrefix(e.Name(), "quota-") {
				if len(fs) == 0 || fs[0].Code != finding.UnknownKind {
					t.Errorf("%s: findings %v, want kinds not served", e.Name(), fs)
				}
				continue
			}
			if severity, any := finding.Max(fs); any && severity > finding.Info || len(objs) == 0 {
				t.Errorf("%s: %d objects, findings %v", e.Name(), len(objs), fs)
			}
		}
	}
}

// What was read and written back reads as the same, with nothing left to say.
func FuzzDecode(f *testing.F) {
	for _, path := range golden.Cases(f, "testdata/*/in.*") {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		objs, fs := manifest.Decode("fuzz", data, manifest.Options{DefaultNamespace: "default"})
		for _, found := range fs {
			if found.Message == "" || found.Position.File == "" {
				t.Errorf("a finding without message or file: %#v", found)
			}
		}
		for _, o := range objs {
			u, err := o.Unstructured()
			if err != nil {
				t.Fatalf("writing %s: %v", o.Ref(), err)
			}
			text, err := yaml.Marshal(u.Object)
			if err != nil {
				t.Fatalf("writing %s: %v", o.Ref(), err)
			}
			again, fs := manifest.Decode("again", text, manifest.Options{DefaultNamespace: "default"})
			if finding.HasErrors(fs) || len(again) != 1 {
				t.Fatalf("reading what was written: %d objects, %v\n%s", len(again), fs, text)
			}
			if diff := cmp.Diff(o.Content, again[0].Content); diff != "" {
				t.Errorf("read again (-first +second):\n%s", diff)
			}
		}
	})
}
