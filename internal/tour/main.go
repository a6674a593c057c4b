package tour

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
)

// Main is the demo: the whole tour, then the addresses to open until interrupted. With DEMO_ONCE=1 it ends after the tour. Either way it
// takes the sandbox down again. The exit status is 0 when every claim held, and 3 otherwise.
func Main(ctx context.Context, environ []string, stdout, stderr io.Writer) int {
	once := slices.Contains(environ, "DEMO_ONCE=1")
	plain := slices.ContainsFunc(environ, func(e string) bool { value, ok := strings.CutPrefix(e, "NO_COLOR="); return ok && value != "" })
	// A sandbox of its own: one that somebody works in must neither be in the way nor be taken down.
	dir, err := filepath.Abs(".cache/demo")
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 3
	}
	t, err := New(Config{
		Root: ".", Out: stdout, Bold: isTerminal(stdout) && !plain,
		Environ: append(slices.Clone(environ), "MESHCTL_SANDBOX_DIR="+dir),
	})
	if err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 3
	}
	if err := t.alone(ctx); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 3
	}
	// What a demo that was killed has left would not be as the walk-through expects it.
	if s, err := t.Type(ctx, ".", "meshctl sandbox down"); err != nil || s.Exit != 0 {
		fmt.Fprintf(stderr, "demo: clearing away an earlier demo: %v%s\n", err, s.Stderr)
		return 3
	}
	err = t.Run(ctx)
	if err == nil {
		t.farewell(once)
	}
	if err == nil && !once {
		<-ctx.Done()
	}
	// The interrupt that ended the tour must not end the tidying as well.
	tidying, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Minute)
	defer cancel()
	_, down := t.shell(tidying, ".", "meshctl sandbox down", 0)
	if err = errors.Join(err, down); err != nil {
		fmt.Fprintln(stderr, "demo:", err)
		return 3
	}
	return 0
}

// alone is an error while another demo's sandbox is up: somebody may be looking at it.
func (t *Tour) alone(ctx context.Context) error {
	s, err := t.Type(ctx, ".", "meshctl sandbox status -o json")
	if err != nil {
		return fmt.Errorf("looking for another demo: %w", err)
	}
	var status struct {
		State, Dir string
		PID        int
	}
	if err := json.Unmarshal([]byte(s.Stdout), &status); err != nil {
		return fmt.Errorf("looking for another demo: %w: %s", err, s.Stderr)
	}
	if status.State == "down" {
		return nil
	}
	where := status.Dir
	if status.PID != 0 {
		where = fmt.Sprintf("process %d, %s", status.PID, where)
	}
	return fmt.Errorf("a demo's sandbox is %s (%s): end it with Ctrl-C where the demo runs, or: bin/meshctl sandbox down --dir .cache/demo",
		status.State, where)
}

func (t *Tour) farewell(once bool) {
	fmt.Fprintf(t.out, "\n%s\n\n", t.strong(fmt.Sprintf("Every claim held, %.0f s after the beginning.", time.Since(t.began).Seconds())))
	if once {
		return
	}
	fmt.Fprintf(t.out, "  The shop:     %s/productpage   (sign in as jason)\n", t.site)
	fmt.Fprintf(t.out, "  The cluster:  eval \"$(bin/meshctl sandbox env --dir .cache/demo)\"   then kubectl and meshctl as anywhere\n\n")
	fmt.Fprintf(t.out, "  Ctrl-C takes it all down.\n")
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && isatty.IsTerminal(f.Fd())
}
