// Package cpu measures a benchmark by the processor time of its process, which other programs on the machine disturb less than the clock.
//
// In: a benchmark's loop. Out: the metric cpu-ns/op, of all threads, garbage collection included.
package cpu

import (
	"syscall"
	"testing"
	"time"
)

// Meter adds up the processor time between Start and Stop.
type Meter struct{ before, spent time.Duration }

// Start begins, or begins again.
func (m *Meter) Start(b *testing.B) { m.before = used(b) }

// Stop ends what Start began.
func (m *Meter) Stop(b *testing.B) { m.spent += used(b) - m.before }

// Report tells the time that each of the loop's b.N rounds took.
func (m *Meter) Report(b *testing.B) { b.ReportMetric(float64(m.spent)/float64(b.N), "cpu-ns/op") }

// Loop runs round again and again and reports.
func Loop(b *testing.B, round func()) {
	b.Helper()
	var m Meter
	m.Start(b)
	for b.Loop() {
		round()
	}
	m.Stop(b)
	m.Report(b)
}

func used(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
