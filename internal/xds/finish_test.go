package xds_test

import (
	"testing"
	"time"
)

// A rollout does not wait for ever, but going on without an answer is not having it.
func TestAProxyThatDoesNotAnswerStaysBehindUntilItDoes(t *testing.T) {
	f := start(t, stepTimeout)
	f.publish(base())
	c := connect(t, f, "p")
	next := base()
	next.lds["90"] = 1
	f.publish(next)
	unanswered := c.hear(lds, "90")
	behind := func() bool {
		_, n := f.server.Progress(f.generation)
		return n == 1 && f.server.Proxies()[0].Behind
	}
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(10 * time.Millisecond) { //nolint:forbidigo // that something does not happen is seen by waiting: ten times what all steps take
		if !behind() {
			t.Fatal("it counts as having what it has not answered")
		}
	}
	c.ack(unanswered)
	f.await("it has answered", func() bool { return !behind() })
}
