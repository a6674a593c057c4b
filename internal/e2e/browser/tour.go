package browser

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// Widths of a desk's window and of a phone's.
const (
	wide   = 1280
	narrow = 375
)

// JasonSeesStars walks the tour's seventh step at the shop at site: everyone gets reviews without stars, jason gets black ones, and
// once he has signed out he is everyone again. Routes must already be so. It leaves pictures in dir.
func JasonSeesStars(t testing.TB, site, dir string) {
	t.Helper()
	b := Start(t)
	b.Resize(t, wide, 800)

	starless(t, "before anyone signs in", b.Open(t, site))
	b.Screenshot(t, filepath.Join(dir, "everyone.png"))

	p := b.LogIn(t, "jason")
	if p.User != "jason" {
		t.Errorf("signed in as %q, want jason", p.User)
	}
	if p.Stars != "black" || p.Version != "v2" {
		t.Errorf("jason sees %s stars from reviews %s, want black ones from v2", p.Stars, p.Version)
	}
	if want := []string{"5 out of 5 stars", "4 out of 5 stars"}; !slices.Equal(p.Rated, want) {
		t.Errorf("jason's ratings read %q, want %q", p.Rated, want)
	}
	if want := []string{"★★★★★", "★★★★"}; !slices.Equal(p.Glyphs, want) {
		t.Errorf("jason's ratings are drawn %q, want %q", p.Glyphs, want)
	}
	for _, c := range p.Colours {
		if c != "rgb(17, 17, 17)" {
			t.Errorf("jason's stars are drawn in %s", c)
		}
	}
	sound(t, "with jason signed in", p)
	b.Screenshot(t, filepath.Join(dir, "jason.png"))
	b.Resize(t, narrow, 800)
	sound(t, "with jason signed in on a phone", b.Read(t))
	b.Screenshot(t, filepath.Join(dir, "jason-narrow.png"))

	starless(t, "after jason signed out", b.LogOut(t))
	b.Screenshot(t, filepath.Join(dir, "everyone-narrow.png"))
	starless(t, "when the page is loaded again", b.Open(t, site))
}

// starless expects the page of someone who is not signed in and gets reviews v1.
func starless(t testing.TB, when string, p Page) {
	t.Helper()
	if p.User != "" {
		t.Errorf("%s %q is signed in", when, p.User)
	}
	if p.Stars != "none" || len(p.Rated) != 0 || p.Version != "v1" {
		t.Errorf("%s the page shows %s stars (%q) from reviews %q, want none from v1", when, p.Stars, p.Rated, p.Version)
	}
	sound(t, when, p)
}

// sound expects what every good page has.
func sound(t testing.TB, when string, p Page) {
	t.Helper()
	if p.Title != "Simple Bookstore App" {
		t.Errorf("%s the page's title is %q", when, p.Title)
	}
	if p.Reviews != 2 {
		t.Errorf("%s the page has %d reviews, want 2", when, p.Reviews)
	}
	if len(p.Problems) > 0 {
		t.Errorf("%s the page says %s", when, strings.Join(p.Problems, "; "))
	}
	if p.Overflow {
		t.Errorf("%s the page is wider than its window", when)
	}
}
