// Package browser looks at Bookinfo as a person does: with a real Chromium that loads the page, signs in by its form and sees stars.
//
// In go the address of a shop, whether it stands behind an ingress or alone; out come what the page shows and pictures of it. Tests only.
package browser

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long the browser may take for one thing it is asked, be it to start.
const patience = 30 * time.Second

// Browser is one running Chromium with one tab and no past.
type Browser struct {
	ctx context.Context

	mu         sync.Mutex
	complaints []string
}

// Start runs a Chromium until the test ends. Without one the test is skipped, or fails where CI=true. A complaint on the browser's
// console, as of a style the page's own policy forbids, fails the test.
func Start(t testing.TB) *Browser {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED, NOT PASSED: a browser is not for -short")
	}
	path := find()
	if path == "" {
		const missing = "no Chromium found: install it (apt-get install chromium) or name it in CHROMIUM"
		if os.Getenv("CI") == "true" {
			t.Fatal(missing)
		}
		t.Skip("SKIPPED, NOT PASSED: " + missing)
	}
	ctx, cancelProcess := chromedp.NewExecAllocator(context.Background(),
		chromedp.ExecPath(path),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true),
		chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.Flag("hide-scrollbars", true),
		chromedp.Flag("no-proxy-server", true),
		// Names under .test lead here. Chromium treats 127.0.0.1 as if it had TLS; a site by name it treats as users' sites over HTTP.
		chromedp.Flag("host-resolver-rules", "MAP *.test 127.0.0.1"),
	)
	b := &Browser{}
	ctx, cancelTab := chromedp.NewContext(ctx, chromedp.WithListener(b.listen))
	b.ctx = ctx
	t.Cleanup(func() {
		limited, cancel := context.WithTimeout(ctx, patience)
		if err := chromedp.Cancel(limited); err != nil {
			t.Logf("closing Chromium: %v", err)
		}
		cancel()
		cancelTab()
		cancelProcess()
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.complaints) > 0 {
			t.Errorf("Chromium complained:\n%s", strings.Join(b.complaints, "\n"))
		}
	})
	// The first call's context decides how long Chromium lives, so its limit cannot be a context's.
	late := time.AfterFunc(patience, cancelProcess)
	err := chromedp.Do(ctx)
	late.Stop()
	if err != nil {
		t.Fatalf("starting Chromium: %v", err)
	}
	return b
}

// find is the path of a Chromium, or "".
func find() string {
	for _, name := range []string{os.Getenv("CHROMIUM"), "chromium", "chromium-browser", "google-chrome", "chrome-headless-shell"} {
		if name == "" {
			continue
		}
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

func (b *Browser) listen(event any) {
	complaint := ""
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Level == log.EntryLevelError || e.Entry.Level == log.EntryLevelWarning {
			complaint = e.Entry.Text + " " + e.Entry.URL
		}
	case *runtime.EventExceptionThrown:
		complaint = e.ExceptionDetails.Text
	}
	if complaint != "" {
		b.mu.Lock()
		b.complaints = append(b.complaints, complaint)
		b.mu.Unlock()
	}
}

func (b *Browser) do(t testing.TB, doing string, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	ask(t, b, doing, chromedp.Steps(steps...))
}

// ask is what the browser answers to action.
func ask[T any](t testing.TB, b *Browser, doing string, action chromedp.Action[T]) T {
	t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	answer, err := chromedp.Run(ctx, action)
	if err != nil {
		t.Fatalf("%s: %v", doing, err)
	}
	return answer
}

// Page is what the product page shows, read from the page as Chromium has drawn it.
type Page struct {
	Title    string   `json:"title"`
	User     string   `json:"user"`     // who is signed in, or ""
	Stars    string   `json:"stars"`    // black, red or none
	Version  string   `json:"version"`  // of the reviews, by their own word
	Pod      string   `json:"pod"`      // likewise
	Reviews  int      `json:"reviews"`  // how many there are
	Rated    []string `json:"rated"`    // what a screen reader says of each rating
	Glyphs   []string `json:"glyphs"`   // the full stars drawn for each rating
	Colours  []string `json:"colours"`  // their colours, as computed
	Problems []string `json:"problems"` // the texts of failure boxes
	Overflow bool     `json:"overflow"` // the page is wider than its window
}

const readPage = `(() => {
	const all = (s) => [...document.querySelectorAll(s)];
	const text = (s) => document.querySelector(s)?.textContent ?? "";
	const reviews = document.querySelector("#reviews")?.dataset ?? {};
	const stars = all(".review .stars");
	return {
		title: document.title,
		user: text("#signed-in-user"),
		stars: reviews.stars ?? "",
		version: reviews.version ?? "",
		pod: reviews.pod ?? "",
		reviews: all(".review").length,
		rated: stars.map(e => e.getAttribute("aria-label")),
		glyphs: stars.map(e => getComputedStyle(e, "::before").content.replaceAll('"', "")),
		colours: stars.map(e => getComputedStyle(e, "::before").color),
		problems: all(".sorry").map(e => e.textContent),
		overflow: document.documentElement.scrollWidth > window.innerWidth,
	};
})()`

// Open loads the product page of the shop at site ("http://127.0.0.1:9080").
func (b *Browser) Open(t testing.TB, site string) Page {
	t.Helper()
	url := strings.TrimSuffix(site, "/") + "/productpage"
	b.do(t, "opening "+url, chromedp.Navigate(url), chromedp.WaitVisible(chromedp.ID("reviews")))
	return b.Read(t)
}

// Read is what the page that is open shows.
func (b *Browser) Read(t testing.TB) Page {
	t.Helper()
	return ask(t, b, "reading the page", chromedp.Evaluate[Page](readPage))
}

// LogIn signs in by the form of the page that is open.
func (b *Browser) LogIn(t testing.TB, user string) Page {
	t.Helper()
	b.do(t, "signing in as "+user,
		chromedp.Click(chromedp.ID("login-open")),
		chromedp.WaitVisible(chromedp.ID("login-user")),
		chromedp.SendKeys(chromedp.ID("login-user"), user),
		chromedp.Click(chromedp.ID("login-submit")),
		chromedp.WaitVisible(chromedp.ID("signed-in-user")),
	)
	return b.Read(t)
}

// LogOut signs out by the button of the page that is open.
func (b *Browser) LogOut(t testing.TB) Page {
	t.Helper()
	b.do(t, "signing out",
		chromedp.Click(chromedp.ID("logout")),
		chromedp.WaitVisible(chromedp.ID("login-open")),
	)
	return b.Read(t)
}

// Resize makes the window width by height points.
func (b *Browser) Resize(t testing.TB, width, height int64) {
	t.Helper()
	b.do(t, "resizing the window", chromedp.EmulateViewport(width, height))
}

// Screenshot writes the whole page that is open, as PNG, to file.
func (b *Browser) Screenshot(t testing.TB, file string) {
	t.Helper()
	png := ask(t, b, "taking a picture", chromedp.FullScreenshot(100))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, png, 0o644); err != nil {
		t.Fatal(err)
	}
}
