package browser_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/meshctl/meshctl/internal/bookinfo"
	"github.com/meshctl/meshctl/internal/e2e/browser"
	"github.com/meshctl/meshctl/internal/testkit/bookinfoproc"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"bookinfo": func() {
		ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
		defer stop()
		os.Exit(bookinfo.Main(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
	}})
}

// pictures is where screenshots go: SCREENSHOTS, for who wants to look at them, or a place that goes away.
func pictures(t *testing.T) string {
	if dir := os.Getenv("SCREENSHOTS"); dir != "" {
		return dir
	}
	return t.TempDir()
}

func start(t *testing.T, args ...string) string {
	t.Helper()
	return bookinfoproc.Start(t, nil, append(args, "--drain-delay", "0s")...).Addr
}

// byCookie sends jason to one version of reviews and everyone else to another, by the expression of the tour's rule.
func byCookie(t *testing.T, jason, others string) string {
	t.Helper()
	rule := regexp.MustCompile(`^(.*?;)?(user=jason)(;.*)?$`)
	srv := httptest.NewServer(&httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) {
		to := others
		if rule.MatchString(r.In.Header.Get("Cookie")) {
			to = jason
		}
		r.SetURL(&url.URL{Scheme: "http", Host: to})
	}})
	t.Cleanup(srv.Close)
	return srv.Listener.Addr().String()
}

func TestJasonSeesStars(t *testing.T) {
	details, ratings := start(t, "details"), start(t, "ratings")
	v1 := start(t, "reviews", "--version", "v1")
	v2 := start(t, "reviews", "--version", "v2", "--ratings", ratings)
	shop := start(t, "productpage", "--details", details, "--reviews", byCookie(t, v2, v1), "--ratings", ratings)
	_, port, err := net.SplitHostPort(shop)
	if err != nil {
		t.Fatal(err)
	}
	browser.JasonSeesStars(t, "http://bookinfo.test:"+port, pictures(t))
}

func TestRedStars(t *testing.T) {
	ratings := start(t, "ratings")
	shop := start(t, "productpage", "--details", start(t, "details"), "--reviews", start(t, "reviews", "--version", "v3", "--ratings", ratings))
	b := browser.Start(t)
	b.Resize(t, 1280, 800)
	p := b.Open(t, "http://"+shop)
	if p.Stars != "red" || len(p.Colours) != 2 || p.Colours[0] != "rgb(196, 18, 47)" {
		t.Errorf("the page shows %s stars in %q, want red ones", p.Stars, p.Colours)
	}
	b.Screenshot(t, filepath.Join(pictures(t), "red.png"))
}

func TestAPageWithoutItsServicesIsStillAPage(t *testing.T) {
	down := httptest.NewServer(http.NotFoundHandler())
	down.Close()
	nobody := down.Listener.Addr().String()
	shop := start(t, "productpage", "--details", nobody, "--reviews", nobody)
	b := browser.Start(t)
	b.Resize(t, 375, 800)
	p := b.Open(t, "http://"+shop)
	if got := strings.Join(p.Problems, " "); got != "Sorry, product details are currently unavailable for this book. Sorry, product reviews are currently unavailable for this book." {
		t.Errorf("the page says %q", got)
	}
	if p.Overflow {
		t.Error("the page is wider than its window")
	}
	b.Screenshot(t, filepath.Join(pictures(t), "down-narrow.png"))
}
