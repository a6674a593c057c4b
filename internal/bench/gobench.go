package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// results are the metrics of every benchmark by name, without Benchmark and the number of cores; of several runs that with the least processor time.
type results map[string]map[string]float64

var line = regexp.MustCompile(`^Benchmark(\S+?)(?:-\d+)?\s+\d+\s+(.*)$`)

// read takes over what `go test -bench` wrote.
func (r results) read(output []byte) error {
	for text := range strings.Lines(string(output)) {
		m := line.FindStringSubmatch(strings.TrimSpace(text))
		if m == nil {
			continue
		}
		metrics := map[string]float64{}
		fields := strings.Fields(m[2])
		for i := 0; i+1 < len(fields); i += 2 {
			v, err := strconv.ParseFloat(fields[i], 64)
			if err != nil {
				return fmt.Errorf("reading %q: %w", text, err)
			}
			metrics[fields[i+1]] = v
		}
		if best, seen := r[m[1]]; !seen || metrics["cpu-ns/op"] < best["cpu-ns/op"] {
			r[m[1]] = metrics
		}
	}
	return nil
}

// get is a metric that a benchmark must have told.
func (r results) get(name, unit string) (float64, error) {
	v, ok := r[name][unit]
	if !ok {
		return 0, fmt.Errorf("no benchmark %s told %s", name, unit)
	}
	return v, nil
}

// run runs benchmarks and takes over what they tell. What they write goes to progress as well.
func (r results) run(ctx context.Context, progress io.Writer, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"test", "-run", "^$", "-p", "1", "-timeout", "20m"}, args...)...)
	var out bytes.Buffer
	cmd.Stdout = io.MultiWriter(&out, progress)
	cmd.Stderr = os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("running go test %s: %w", strings.Join(args, " "), err)
	}
	return r.read(out.Bytes())
}
