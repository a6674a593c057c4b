package main

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/testkit/bookinfoproc"
)

func get(t *testing.T, c *http.Client, url string) (string, *http.Response) {
	t.Helper()
	resp, err := c.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(body), resp
}

func contains(t *testing.T, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
}

func TestEachVersionOfReviewsShowsItsStars(t *testing.T) {
	details := bookinfoproc.Start(t, nil, "details", "--drain-delay", "0s")
	ratings := bookinfoproc.Start(t, nil, "ratings", "--drain-delay", "0s")
	for name, tc := range map[string]struct {
		env   []string
		flags []string
		stars string
		count int
	}{
		"v1 by default has none":                {stars: "none"},
		"v2 by flag has black ones":             {flags: []string{"--version", "v2"}, stars: "black", count: 2},
		"v3 by environment has red ones":        {env: []string{"SERVICE_VERSION=v3"}, stars: "red", count: 2},
		"the flag wins over the environment":    {env: []string{"SERVICE_VERSION=v3", "ENABLE_RATINGS=true"}, flags: []string{"--version", "v1"}, stars: "none"},
		"the switches of 2017 still are obeyed": {env: []string{"ENABLE_RATINGS=true", "STAR_COLOR=red"}, stars: "red", count: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reviews := bookinfoproc.Start(t, tc.env, append([]string{"reviews", "--drain-delay", "0s", "--ratings", ratings.Addr}, tc.flags...)...)
			page := bookinfoproc.Start(t, []string{"DETAILS_HOSTNAME=" + details.Addr, "RATINGS_HOSTNAME=" + ratings.Addr}, "productpage", "--drain-delay", "0s", "--reviews", reviews.Addr)
			body, resp := get(t, http.DefaultClient, "http://"+page.Addr+"/productpage")
			if resp.StatusCode != http.StatusOK {
				t.Errorf("status %s", resp.Status)
			}
			contains(t, body, "<title>Simple Bookstore App</title>", "The Comedy of Errors", "William Shakespeare", "Book Details", "Book Reviews", `id="reviews" data-stars="`+tc.stars+`"`)
			if n := strings.Count(body, "out of 5 stars"); n != tc.count {
				t.Errorf("%d reviews have stars, want %d", n, tc.count)
			}
			if n := strings.Count(body, `class="review"`); n != 2 {
				t.Errorf("%d reviews, want 2", n)
			}
		})
	}
}

func TestAUserLogsInAndOut(t *testing.T) {
	details := bookinfoproc.Start(t, nil, "details", "--drain-delay", "0s")
	reviews := bookinfoproc.Start(t, nil, "reviews", "--drain-delay", "0s")
	page := bookinfoproc.Start(t, nil, "productpage", "--drain-delay", "0s", "--details", details.Addr, "--reviews", reviews.Addr)
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Jar: jar}
	site := "http://" + page.Addr

	body, _ := get(t, c, site+"/productpage")
	contains(t, body, `id="login-user"`)
	// The form as it was in 2017, password and all.
	resp, err := c.PostForm(site+"/login", url.Values{"username": {"jason"}, "passwd": {"anything"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got := resp.Request.URL.Path; got != "/productpage" {
		t.Errorf("login leads to %s", got)
	}
	body, _ = get(t, c, site+"/productpage")
	contains(t, body, `<strong id="signed-in-user">jason</strong>`, `id="logout"`)
	body, resp = get(t, c, site+"/logout")
	if got := resp.Request.URL.Path; got != "/productpage" {
		t.Errorf("logout leads to %s", got)
	}
	contains(t, body, `id="login-user"`)
	if strings.Contains(body, "jason</strong>") {
		t.Error("jason is still signed in")
	}
}

func TestImpatientReviewsAnswerThoughRatingsHang(t *testing.T) {
	t.Parallel()
	hung := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	t.Cleanup(hung.Close)
	details := bookinfoproc.Start(t, nil, "details", "--drain-delay", "0s")
	reviews := bookinfoproc.Start(t, nil, "reviews", "--version", "v3", "--drain-delay", "0s", "--ratings", hung.Listener.Addr().String())
	page := bookinfoproc.Start(t, nil, "productpage", "--drain-delay", "0s", "--details", details.Addr, "--reviews", reviews.Addr)
	start := time.Now()
	body, _ := get(t, http.DefaultClient, "http://"+page.Addr+"/productpage")
	contains(t, body, "Ratings service is currently unavailable", "Book Reviews", "Reviewer2")
	if took := time.Since(start); took < 2500*time.Millisecond {
		t.Errorf("the page came after %s, before reviews can have given up", took)
	}
}

func TestAskedToStopItFinishesWhatItHasBegun(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, `{"id":0,"ratings":{"Reviewer1":5,"Reviewer2":4}}`)
	}))
	t.Cleanup(slow.Close)
	reviews := bookinfoproc.Start(t, nil, "reviews", "--version", "v2", "--drain-delay", "30s", "--ratings", slow.Listener.Addr().String())
	quick := bookinfoproc.Start(t, nil, "reviews", "--version", "v2", "--drain-delay", "0s", "--ratings", slow.Listener.Addr().String())

	type result struct {
		body  string
		close bool
		err   error
	}
	results := make(chan result, 2)
	fetch := func(addr string) {
		resp, err := http.Get("http://" + addr + "/reviews/0")
		if err != nil {
			results <- result{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		results <- result{string(body), resp.Close, err}
	}

	// Without a delay the port closes at once, and the process waits for the request in hand.
	go fetch(quick.Addr)
	<-asked
	quick.Terminate(t)
	awaitLog(t, quick, `"msg":"draining"`)
	awaitRefusal(t, quick.Addr)
	answer <- struct{}{}
	if r := <-results; r.err != nil || !strings.Contains(r.body, `"stars":5`) {
		t.Errorf("the request under way got %q, %v", r.body, r.err)
	}
	if err := quick.Wait(t); err != nil {
		t.Errorf("ended with %v", err)
	}

	// During the delay new requests are answered, with the word to come back on another connection.
	reviews.Terminate(t)
	awaitLog(t, reviews, `"msg":"draining"`)
	go fetch(reviews.Addr)
	<-asked
	answer <- struct{}{}
	if r := <-results; r.err != nil || !strings.Contains(r.body, `"stars":5`) || !r.close {
		t.Errorf("a request during the delay got %q, close %t, %v", r.body, r.close, r.err)
	}
	reviews.Kill()
}

func awaitLog(t *testing.T, p *bookinfoproc.Proc, want string) {
	t.Helper()
	await(t, "the log to say "+want, func() bool { return strings.Contains(p.Log(), want) })
}

func awaitRefusal(t *testing.T, addr string) {
	t.Helper()
	await(t, "the port to close", func() bool {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
}

func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(15 * time.Second); !done(); <-tick.C {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

func TestAPortInUseIsSaidAndExitsWith3(t *testing.T) {
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("bookinfo", "details", "--port", port).CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Errorf("ended with %v, want exit status 3", err)
	}
	contains(t, string(out), "opening the port", "address already in use")
}
