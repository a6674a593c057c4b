package e2e_test

import (
	"os"
	"strings"
	"testing"

	"github.com/meshctl/meshctl/internal/e2e/browser"
)

// The first two steps, the sandbox and the mesh, are the laboratory every test works in.
func TestTheWalkThrough(t *testing.T) {
	l := open(t)
	t.Cleanup(func() {
		if t.Failed() {
			l.show(t, "default")
		}
		l.cleanDefault(t)
	})
	for _, s := range l.tour.Steps()[2:] {
		if !t.Run(s.Name, func(t *testing.T) {
			if err := l.tour.Take(t.Context(), s); err != nil {
				t.Fatal(err)
			}
		}) {
			return // the steps build on each other
		}
		if strings.HasPrefix(s.Name, "7.") {
			t.Run("a browser sees what jason sees", func(t *testing.T) {
				dir := os.Getenv("SCREENSHOTS")
				if dir == "" {
					dir = t.TempDir()
				}
				browser.JasonSeesStars(t, l.tour.Site(), dir)
			})
		}
	}
}

// cleanDefault takes away what the walk-through made.
func (l *lab) cleanDefault(t *testing.T) {
	for _, line := range []string{
		"meshctl delete -f route-default-v1.yaml -f route-user-jason-v2.yaml",
		"kubectl delete ingress bookinfo",
		"kubectl delete deployment productpage-v1 details-v1 reviews-v1 reviews-v2 ratings-v1",
		"kubectl delete service productpage details reviews ratings",
	} {
		if s := l.try(t, "default", line); s.Exit != 0 {
			t.Logf("%s: %s", line, s.Stderr)
		}
	}
}
