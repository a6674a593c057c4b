// Command bench runs the project's benchmarks and writes docs/benchmarks.md.
//
// In: the repository, built, as the working directory. Out: the tables, on standard output and in that file. Each figure stands against a peer's
// published one, a goal, or what cannot be done without, measured in the same run; a goal that is missed is called so.
package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/bench/files"
)

const page = "docs/benchmarks.md"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	text, err := measure(ctx, os.Stderr)
	stop()
	if err == nil {
		err = os.WriteFile(page, []byte(text), 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
	fmt.Fprint(os.Stdout, text)
}

// measure takes all figures and writes the page. Programs come first, on a machine that is quiet.
func measure(ctx context.Context, progress io.Writer) (string, error) {
	begun := time.Now()
	facts, err := machine()
	if err != nil {
		return "", err
	}
	load, err := busy()
	if err != nil {
		return "", err
	}
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		return "", err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	rules := filepath.Join(dir, "rules.yaml")
	if err := os.WriteFile(rules, files.Rules(1000), 0o644); err != nil {
		return "", err
	}
	version, err := costOf(ctx, 21, "bin/meshctl", "version", "--client")
	if err != nil {
		return "", err
	}
	validate, err := costOf(ctx, 7, "bin/meshctl", "validate", "-f", rules)
	if err != nil {
		return "", err
	}
	r := &report{results: results{}}
	if err := r.results.run(ctx, progress, "-bench", "^Benchmark(Rules|Check|Deployments|Ingest|Envoy|ADS)$", "-benchtime", "2x", "-count", "2",
		"./internal/manifest", "./internal/check", "./internal/inject", "./internal/ingest", "./internal/envoy", "./internal/xds"); err != nil {
		return "", err
	}
	if err := r.results.run(ctx, progress, "-bench", "^Benchmark(Pilot|Sidecars)$", "-benchtime", "1x", "./internal/bench/sidecars", "./internal/bench/pilot"); err != nil {
		return "", err
	}
	r.files()
	r.programs(version, validate)
	r.translation()
	r.server()
	r.pilot()
	r.sidecars()
	if r.err != nil {
		return "", r.err
	}
	var head strings.Builder
	fmt.Fprintf(&head, "# Benchmarks\n\nWritten by `make bench`, never by hand.\n\n- %s UTC; took %s\n- %s; load average at the beginning %.1f\n",
		begun.UTC().Format("2006-01-02 15:04"), time.Since(begun).Round(time.Second), facts, load)
	if load > float64(runtime.NumCPU())/2 {
		fmt.Fprint(&head, "- the machine was busy with other things: processor times, sizes and ratios count, times by the clock hardly do\n")
	}
	fmt.Fprintf(&head, "- single parts: `go test -run '^$' -bench . ./internal/envoy`, or another of `manifest`, `check`, `inject`, `ingest`, `xds`, `bench/pilot`, `bench/sidecars`\n")
	if len(r.missed) == 0 {
		fmt.Fprintf(&head, "\nAll %d goals are met.\n", r.goals)
	} else {
		fmt.Fprintf(&head, "\n%d of %d goals are met. Missed:\n\n- %s\n", r.goals-len(r.missed), r.goals, strings.Join(r.missed, "\n- "))
	}
	text := strings.ReplaceAll(head.String()+r.text.String(), "\n\n\n", "\n\n")
	return strings.TrimRight(text, "\n") + "\n", nil
}
