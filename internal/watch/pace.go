package watch

import (
	"context"
	"time"
)

// pacer lets the first of several changes through at once and merges those that follow: there is a gap after each run, and never more than
// half of the time is spent running.
type pacer struct {
	gap   time.Duration
	ready time.Time
}

// maxGap bounds the pause after a very long run.
const maxGap = 2 * time.Second

func newPacer(gap time.Duration) *pacer { return &pacer{gap: gap} }

func (p *pacer) run(f func()) {
	start := time.Now()
	f()
	took := time.Since(start)
	p.ready = start.Add(took + min(max(took, p.gap), maxGap))
}

// wait returns when the gap is over; false when ctx ended.
func (p *pacer) wait(ctx context.Context) bool {
	d := time.Until(p.ready)
	if d <= 0 {
		return ctx.Err() == nil
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
