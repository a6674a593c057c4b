package main

import (
	"strings"
	"testing"
)

func TestTheBestOfSeveralRunsCounts(t *testing.T) {
	r := results{}
	err := r.read([]byte(`goos: linux
BenchmarkEnvoy/Whole/services=100-4   2  33664425 ns/op  200 cpu-ns/op  108307 made-B
BenchmarkEnvoy/Whole/services=100-4   2  16777376 ns/op  100 cpu-ns/op  108308 made-B
BenchmarkEnvoy/Whole/services=100-4   2  16777376 ns/op  300 cpu-ns/op  108309 made-B
PASS
`))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := r.get("Envoy/Whole/services=100", "made-B"); err != nil || got != 108308 {
		t.Errorf("made-B is %v, %v", got, err)
	}
	if _, err := r.get("Envoy/Whole/services=100", "moved-B"); err == nil {
		t.Error("a metric that nobody told was found")
	}
}

func TestAFigureThatIsMissingEndsTheReport(t *testing.T) {
	r := &report{results: results{}}
	r.server()
	if r.err == nil || !strings.Contains(r.err.Error(), "ADS/Storm/proxies=1 told sent-B") {
		t.Errorf("got %v", r.err)
	}
}

func TestAGoalThatIsMissedIsSaid(t *testing.T) {
	r := &report{}
	if got := r.goal("soon", 50, 100); got != "met" {
		t.Errorf("half of the bound is %s", got)
	}
	if got := r.goal("late", 250, 100); got != "missed, 2.50×" {
		t.Errorf("two and a half bounds are %s", got)
	}
	if r.goals != 2 || len(r.missed) != 1 || r.missed[0] != "late (2.50× of the goal)" {
		t.Errorf("%d goals, missed %q", r.goals, r.missed)
	}
}

func TestNumbersHaveThreeDigits(t *testing.T) {
	for want, got := range map[string]string{
		"12.3 ms": duration(12.34), "1.23 s": duration(1234), "0 B": size(0), "555 B": size(555), "1.50 KiB": size(1536), "838×": times(838.1), "0.074×": times(0.0744),
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
