// Package tour is the walk-through as a program: it types what a user would type, looks at what a user would look at, and fails where the
// two do not agree.
//
// In: the repository's folder with its programs built, and a sandbox to use. Out: a transcript, and an error at the first claim that does
// not hold. The demo prints it; the end-to-end suite runs the same steps as tests.
package tour

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// Config is where a tour happens.
type Config struct {
	// Root is the repository: bin/ holds the programs and rules/ the files.
	Root string
	// Out takes the transcript.
	Out io.Writer
	// Bold marks the commands, for a terminal.
	Bold bool
	// Environ is the environment that commands begin with.
	Environ []string
}

// Tour is one walk-through. Its steps build on each other.
type Tour struct {
	root  string
	out   io.Writer
	bold  bool
	env   []string
	began time.Time
	// site is where the ingress answers, once it does.
	site string
}

// Step is one numbered line of the walk-through.
type Step struct {
	Name string
	Do   func(context.Context) error
}

// New prepares a tour; nothing happens before its first step.
func New(c Config) (*Tour, error) {
	root, err := filepath.Abs(c.Root)
	if err != nil {
		return nil, fmt.Errorf("finding the repository: %w", err)
	}
	for _, needed := range []string{"bin/meshctl", "bin/meshbox", "rules/install/istio.yaml", "rules/bookinfo/bookinfo-v1.yaml"} {
		if _, err := os.Stat(filepath.Join(root, needed)); err != nil {
			return nil, fmt.Errorf("looking for what the tour needs (make build): %w", err)
		}
	}
	env := withPath(c.Environ, filepath.Join(root, "bin"))
	return &Tour{root: root, out: c.Out, bold: c.Bold, env: env, began: time.Now()}, nil
}

// Site is the address of the shop, as http://host:port, once a step has found it.
func (t *Tour) Site() string { return t.site }

// Steps are the walk-through's, in order.
func (t *Tour) Steps() []Step {
	return []Step{
		{"A Kubernetes of our own", t.sandbox},
		{"1. Install the mesh", t.install},
		{"3. Deploy Bookinfo with sidecars", t.bookinfo},
		{"4. Open it to the world", t.ingress},
		{"5. Add ratings and reviews v2, send everyone to v1", t.everyoneToV1},
		{"6. Canary: 10 % to v2", t.canary},
		{"7. Only jason sees v2", t.jason},
		{"8. Everyone to v2", t.everyoneToV2},
	}
}

// Run takes every step, with its name and time in the transcript.
func (t *Tour) Run(ctx context.Context) error {
	for _, s := range t.Steps() {
		if err := t.Take(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// Take takes one step.
func (t *Tour) Take(ctx context.Context, s Step) error {
	begin := time.Now()
	fmt.Fprintf(t.out, "\n%s\n", t.strong("== "+s.Name))
	if err := s.Do(ctx); err != nil {
		return fmt.Errorf("%s: %w", strings.ToLower(s.Name), err)
	}
	fmt.Fprintf(t.out, "   (%.1f s, %.1f s since the beginning)\n", time.Since(begin).Seconds(), time.Since(t.began).Seconds())
	return nil
}

func (t *Tour) strong(s string) string {
	if t.bold {
		return "\x1b[1m" + s + "\x1b[0m"
	}
	return s
}

// holds writes a claim that was checked and held.
func (t *Tour) holds(format string, args ...any) {
	fmt.Fprintf(t.out, "   ok: "+format+"\n", args...)
}

// withPath puts dir in front of the PATH of env.
func withPath(env []string, dir string) []string {
	path := dir
	var rest []string
	for _, e := range env {
		if value, ok := strings.CutPrefix(e, "PATH="); ok {
			path = dir + string(os.PathListSeparator) + value
			continue
		}
		rest = append(rest, e)
	}
	return append(rest, "PATH="+path)
}

// Environ is the environment that commands run with: the sandbox's, once it is up.
func (t *Tour) Environ() []string { return append([]string(nil), t.env...) }
