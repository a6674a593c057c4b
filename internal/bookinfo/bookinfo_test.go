package bookinfo

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// roundTrip is a service played by a function, without a network.
type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func played(f roundTrip) upstream {
	return upstream{base: "http://played", client: &http.Client{Transport: f}}
}

// handled is a service played by one of our own handlers. As over a network, an answer after the caller gave up is none.
func handled(h http.Handler) upstream {
	return played(func(r *http.Request) (*http.Response, error) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result(), r.Context().Err()
	})
}

func saying(status int, body string) upstream {
	return handled(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}))
}

// silent never answers, and gives up only when its caller does.
func silent() upstream {
	return played(func(r *http.Request) (*http.Response, error) {
		<-r.Context().Done()
		return nil, r.Context().Err()
	})
}

func down() upstream {
	return played(func(*http.Request) (*http.Response, error) { return nil, errors.New("connection refused") })
}

func mux(routes func(*http.ServeMux)) http.Handler {
	m := http.NewServeMux()
	routes(m)
	return m
}

func reviewsWith(stars string, ratings upstream) http.Handler {
	return mux(reviews{stars: stars, version: "v2", pod: "reviews-v2-abc", ratings: ratings}.routes)
}

func goodDetails() upstream { return handled(mux(details{}.routes)) }
func goodRatings() upstream { return handled(mux(ratings{}.routes)) }

func pageWith(t *testing.T, details, reviews upstream) http.Handler {
	t.Helper()
	p, err := newProductpage(details, reviews, goodRatings(), "v1", "productpage-v1-xyz")
	if err != nil {
		t.Fatal(err)
	}
	return mux(p.routes)
}

func do(h http.Handler, r *http.Request) (*http.Response, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result(), w.Body.String()
}

func fetch(h http.Handler, path string) (*http.Response, string) {
	return do(h, httptest.NewRequest(http.MethodGet, path, nil))
}

func contains(t *testing.T, body string, wants ...string) {
	t.Helper()
	for _, want := range wants {
		if !strings.Contains(body, want) {
			t.Errorf("%q is not in\n%s", want, body)
		}
	}
}

func lacks(t *testing.T, body string, unwanted ...string) {
	t.Helper()
	for _, u := range unwanted {
		if strings.Contains(body, u) {
			t.Errorf("%q is in\n%s", u, body)
		}
	}
}

func TestEachServiceAnswersItsPaths(t *testing.T) {
	page := pageWith(t, goodDetails(), handled(reviewsWith("black", goodRatings())))
	broken := pageWith(t, down(), saying(http.StatusServiceUnavailable, "no healthy upstream"))
	for _, tc := range []struct {
		name   string
		from   http.Handler
		path   string
		status int
		want   string
	}{
		{"details are healthy", mux(details{}.routes), "/health", 200, `{"status":"Details is healthy"}`},
		{"ratings are healthy", mux(ratings{}.routes), "/health", 200, `{"status":"Ratings is healthy"}`},
		{"reviews are healthy", reviewsWith("", down()), "/health", 200, `{"status":"Reviews is healthy"}`},
		{"the page is healthy", page, "/health", 200, `{"status":"Product page is healthy"}`},
		{"details tell the book's facts", mux(details{}.routes), "/details/0", 200, `{"id":0,"author":"William Shakespeare","year":1595,"type":"paperback","pages":200,"publisher":"PublisherA","language":"English","ISBN-10":"1234567890","ISBN-13":"123-1234567890"}`},
		{"details want a number", mux(details{}.routes), "/details/moby", 400, `{"error":"please provide a numeric product id"}`},
		{"ratings are five and four", mux(ratings{}.routes), "/ratings/7", 200, `{"id":7,"ratings":{"Reviewer1":5,"Reviewer2":4}}`},
		{"ratings want a positive number", mux(ratings{}.routes), "/ratings/-1", 400, `{"error":"please provide a numeric product id"}`},
		{"reviews carry their stars", reviewsWith("red", goodRatings()), "/reviews/0", 200, `"rating":{"stars":5,"color":"red"}`},
		{"reviews say who they are", reviewsWith("red", goodRatings()), "/reviews/0", 200, `{"id":"0","podname":"reviews-v2-abc","version":"v2","reviews":[`},
		{"reviews want a number", reviewsWith("red", goodRatings()), "/reviews/x", 400, `{"error":"please provide a numeric product id"}`},
		{"an unknown path is not found", mux(details{}.routes), "/", 404, "404"},
		{"the shop has a front", page, "/", 200, "A bookshop of four services"},
		{"the shop's front has its old name", page, "/index.html", 200, `href="/productpage"`},
		{"the products are listed", page, "/api/v1/products", 200, `[{"id":0,"title":"The Comedy of Errors","descriptionHtml":"`},
		{"a product is its details", page, "/api/v1/products/0", 200, `"author":"William Shakespeare"`},
		{"a product has reviews", page, "/api/v1/products/0/reviews", 200, `"rating":{"stars":4,"color":"black"}`},
		{"a product has ratings", page, "/api/v1/products/0/ratings", 200, `"ratings":{"Reviewer1":5,"Reviewer2":4}`},
		{"a product that is not there", page, "/api/v1/products/1/reviews", 404, `{"error":"there is no product 1"}`},
		{"a product that is no number", page, "/api/v1/products/x", 400, `{"error":"please provide a numeric product id"}`},
		{"details that cannot be had", broken, "/api/v1/products/0", 500, `{"error":"Sorry, product details are currently unavailable for this book."}`},
		{"reviews pass on the status they failed with", broken, "/api/v1/products/0/reviews", 503, `{"error":"Sorry, product reviews are currently unavailable for this book."}`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			resp, body := fetch(tc.from, tc.path)
			if resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.status)
			}
			contains(t, body, tc.want)
		})
	}
}

func TestTraceHeadersAndUserReachRatings(t *testing.T) {
	// What the tour's rule asks of the header.
	jason := regexp.MustCompile(`^(.*?;)?(user=jason)(;.*)?$`)
	trace := map[string]string{
		"x-request-id": "r-1", "x-b3-traceid": "463ac35c9f6413ad", "x-b3-spanid": "a2fb4a1d1a96d312", "x-b3-parentspanid": "0020000000000001",
		"x-b3-sampled": "1", "x-b3-flags": "0", "x-ot-span-context": "a;b;c",
		"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "tracestate": "congo=t61rcWkgMzE",
	}
	met := map[string]http.Header{}
	meeting := func(name string, h http.Handler) upstream {
		return handled(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			met[name] = r.Header.Clone()
			h.ServeHTTP(w, r)
		}))
	}
	toRatings := meeting("ratings", mux(ratings{}.routes))
	toReviews := meeting("reviews", reviewsWith("black", toRatings))
	h := pageWith(t, goodDetails(), toReviews)

	r := httptest.NewRequest(http.MethodGet, "/productpage", nil)
	for k, v := range trace {
		r.Header.Set(k, v)
	}
	r.Header.Set("Cookie", "theme=dark; user=jason; other=1")
	r.Header.Set("Authorization", "Bearer secret")
	do(h, r)

	for _, service := range []string{"reviews", "ratings"} {
		got := met[service]
		for k, v := range trace {
			if got.Get(k) != v {
				t.Errorf("%s met %s %q, want %q", service, k, got.Get(k), v)
			}
		}
		if c := got.Get("Cookie"); c != "user=jason" || !jason.MatchString(c) {
			t.Errorf("%s met cookie %q", service, c)
		}
		if a := got.Get("Authorization"); a != "" {
			t.Errorf("%s met Authorization %q, which was not theirs", service, a)
		}
	}

	do(h, httptest.NewRequest(http.MethodGet, "/productpage", nil))
	if c, ok := met["reviews"]["Cookie"]; ok {
		t.Errorf("without a user reviews met cookie %q", c)
	}
}

func TestACookieIsBelievedOnlyAsFarAsItIsAName(t *testing.T) {
	for name, tc := range map[string]struct{ cookie, user string }{
		"a name":                          {"user=jason", "jason"},
		"a name with an address":          {"user=j.doe-1_x@example.org", "j.doe-1_x@example.org"},
		"a quoted name":                   {`user="jason"`, "jason"},
		"the first name that is one":      {"user=<b>; user=jason", "jason"},
		"nobody":                          {"user=", ""},
		"markup":                          {"user=<script>alert(1)</script>", ""},
		"markup after a letter":           {"user=a<b>", ""},
		"an encoded line break":           {"user=jason%0d%0aX-Evil:1", ""},
		"more than a name":                {"user=jason&admin=1", ""},
		"a leading dash":                  {"user=-rf", ""},
		"forty-one letters":               {"user=" + strings.Repeat("a", 41), ""},
		"letters of another alphabet":     {"user=jäson", ""},
		"another cookie that ends so":     {"superuser=jason", ""},
		"a cookie whose value looks like": {"x=user=jason", ""},
	} {
		t.Run(name, func(t *testing.T) {
			var sent []string
			reviews := played(func(r *http.Request) (*http.Response, error) {
				sent = r.Header["Cookie"]
				return nil, errors.New("connection refused")
			})
			r := httptest.NewRequest(http.MethodGet, "/productpage", nil)
			r.Header.Set("Cookie", tc.cookie)
			_, body := do(pageWith(t, goodDetails(), reviews), r)
			if tc.user == "" {
				lacks(t, body, "signed-in-user", "<script", "alert(1)")
				if sent != nil {
					t.Errorf("reviews were sent cookie %q", sent)
				}
				return
			}
			contains(t, body, `<strong id="signed-in-user">`+tc.user+`</strong>`)
			if len(sent) != 1 || sent[0] != "user="+tc.user {
				t.Errorf("reviews were sent cookie %q", sent)
			}
		})
	}
}

func FuzzACookieNeverCarriesMoreThanAName(f *testing.F) {
	f.Add("user=jason")
	f.Add("a=b; user=<script>; user=\"x\"")
	f.Add("user=a\r\nX-Evil: 1")
	name := regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,39}$`)
	f.Fuzz(func(t *testing.T, cookie string) {
		got := userOf(&http.Request{Header: http.Header{"Cookie": {cookie}}})
		if got != "" && !name.MatchString(got) {
			t.Errorf("cookie %q gives user %q", cookie, got)
		}
	})
}

func TestWhatOtherServicesSayIsEscaped(t *testing.T) {
	const evil = `\"><script>alert('x')</script><img src=x onerror=alert(1)>`
	details := saying(200, `{"id":0,"author":"`+evil+`","type":"`+evil+`","publisher":"`+evil+`"}`)
	reviews := saying(200, `{"id":"0","podname":"`+evil+`","version":"`+evil+`","reviews":[`+
		`{"reviewer":"`+evil+`","text":"`+evil+`","rating":{"stars":999999999,"color":"`+evil+`"}},`+
		`{"reviewer":"`+evil+`","text":"`+evil+`","rating":{"error":"`+evil+`"}}]}`)
	resp, body := fetch(pageWith(t, details, reviews), "/productpage")
	lacks(t, body, "<script", "<img", `alert('x')`)
	contains(t, body, "&lt;script&gt;alert(&#39;x&#39;)", `aria-label="5 out of 5 stars"`, `id="reviews" data-stars="black"`)

	// Should anything slip through one day, the browser is told to run nothing and to take no style but ours.
	_, rest, _ := strings.Cut(body, "<style>")
	css, _, _ := strings.Cut(rest, "</style>")
	digest := sha256.Sum256([]byte(css))
	policy := resp.Header.Get("Content-Security-Policy")
	contains(t, policy, "default-src 'none'", "style-src 'sha256-"+base64.StdEncoding.EncodeToString(digest[:])+"'")
	lacks(t, policy, "script-src", "unsafe")
}

func TestFailuresShowAsBoxesOnAPageThatStillComes(t *testing.T) {
	good := handled(reviewsWith("black", goodRatings()))
	for name, tc := range map[string]struct {
		details, reviews upstream
		want, unwanted   []string
	}{
		"details are down": {
			down(), good,
			[]string{"Error fetching product details!", detailsUnavailable, "Book Reviews", `id="reviews" data-stars="black"`}, []string{"Book Details"},
		},
		"details talk nonsense": {
			saying(200, "<html>"), good,
			[]string{"Error fetching product details!", "Book Reviews"}, []string{"Book Details"},
		},
		"reviews are down": {
			goodDetails(), down(),
			[]string{"Error fetching product reviews!", reviewsUnavailable, "Book Details", `id="reviews" data-stars="none"`}, []string{"Book Reviews", "Reviews served by"},
		},
		"reviews have no instance": {
			goodDetails(), saying(503, "no healthy upstream"),
			[]string{"Error fetching product reviews!", reviewsUnavailable}, []string{"no healthy upstream"},
		},
		"ratings are down": {
			goodDetails(), handled(reviewsWith("black", down())),
			[]string{ratingsUnavailable, "Book Reviews", "Reviewer1", `id="reviews" data-stars="none"`}, []string{"out of 5 stars"},
		},
		"ratings are limited": {
			goodDetails(), handled(reviewsWith("black", saying(429, "RESOURCE_EXHAUSTED"))),
			[]string{ratingsUnavailable, "Book Reviews"}, []string{"out of 5 stars", "RESOURCE_EXHAUSTED"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := fetch(pageWith(t, tc.details, tc.reviews), "/productpage")
			if resp.StatusCode != 200 {
				t.Errorf("status %d", resp.StatusCode)
			}
			contains(t, body, tc.want...)
			lacks(t, body, tc.unwanted...)
		})
	}
}

func TestPatience(t *testing.T) {
	for name, tc := range map[string]struct {
		handler func(t *testing.T) http.Handler
		path    string
		took    time.Duration
		want    string
	}{
		"black reviews wait ten seconds for ratings": {
			func(*testing.T) http.Handler { return reviewsWith("black", silent()) }, "/reviews/0", 10 * time.Second, ratingsUnavailable,
		},
		"red reviews wait two and a half": {
			func(*testing.T) http.Handler { return reviewsWith("red", silent()) }, "/reviews/0", 2500 * time.Millisecond, ratingsUnavailable,
		},
		"the page waits three seconds for details": {
			func(t *testing.T) http.Handler { return pageWith(t, silent(), handled(reviewsWith("", down()))) }, "/productpage", 3 * time.Second, detailsUnavailable,
		},
		"the page waits twice for reviews": {
			func(t *testing.T) http.Handler { return pageWith(t, goodDetails(), silent()) }, "/productpage", 6 * time.Second, reviewsUnavailable,
		},
		"black reviews with slow ratings cost the page its reviews": {
			func(t *testing.T) http.Handler {
				slow := played(func(r *http.Request) (*http.Response, error) {
					select {
					case <-time.After(7 * time.Second):
						return goodRatings().client.Transport.RoundTrip(r)
					case <-r.Context().Done():
						return nil, r.Context().Err()
					}
				})
				return pageWith(t, goodDetails(), handled(reviewsWith("black", slow)))
			}, "/productpage", 6 * time.Second, reviewsUnavailable,
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				_, body := fetch(tc.handler(t), tc.path)
				if took := time.Since(start); took != tc.took {
					t.Errorf("took %s, want %s", took, tc.took)
				}
				contains(t, body, tc.want)
			})
		})
	}
}

func TestReviewsAreTriedTwice(t *testing.T) {
	tries := 0
	flaky := played(func(r *http.Request) (*http.Response, error) {
		if tries++; tries == 1 {
			return nil, errors.New("connection reset")
		}
		return handled(reviewsWith("black", goodRatings())).client.Transport.RoundTrip(r)
	})
	_, body := fetch(pageWith(t, goodDetails(), flaky), "/productpage")
	contains(t, body, "Book Reviews", "out of 5 stars")
	if tries != 2 {
		t.Errorf("reviews were asked %d times", tries)
	}
}

func TestLogin(t *testing.T) {
	h := pageWith(t, goodDetails(), down())
	post := func(body string, headers ...string) *http.Request {
		r := httptest.NewRequest(http.MethodPost, "/login?next=//evil.example", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		for i := 0; i < len(headers); i += 2 {
			r.Header.Set(headers[i], headers[i+1])
		}
		return r
	}
	for name, tc := range map[string]struct {
		req    *http.Request
		status int
		cookie string
		want   string
	}{
		"a name is enough":                         {post("username=jason"), 303, "user=jason; Path=/; HttpOnly; SameSite=Lax", ""},
		"a referrer is no place to go":             {post("username=jason", "Referer", "https://evil.example/"), 303, "user=jason; Path=/; HttpOnly; SameSite=Lax", ""},
		"behind TLS the cookie stays there":        {post("username=jason", "X-Forwarded-Proto", "https"), 303, "user=jason; Path=/; HttpOnly; Secure; SameSite=Lax", ""},
		"our own form from a browser":              {post("username=jason", "Origin", "http://example.com"), 303, "user=jason; Path=/; HttpOnly; SameSite=Lax", ""},
		"a form on another site":                   {post("username=jason", "Origin", "http://evil.example"), 403, "", "cross-origin"},
		"a form on another site, said by Chromium": {post("username=jason", "Sec-Fetch-Site", "cross-site"), 403, "", "cross-origin"},
		"no name":                          {post(""), 400, "", `id="login-error"`},
		"a name that would be a header":    {post("username=jason%0d%0aSet-Cookie:x=1"), 400, "", `id="login-error"`},
		"a name that would be a script":    {post("username=%3Cscript%3Ealert(1)%3C/script%3E"), 400, "", `id="login-error"`},
		"a name that would be an element":  {post("username=a%3Cb%3E"), 400, "", `id="login-error"`},
		"a name that would be two cookies": {post("username=jason;admin=1"), 400, "", `id="login-error"`},
		"a novel":                          {post("username=" + strings.Repeat("a", 1<<20)), 413, "", `id="login-error"`},
		"a name in the address only":       {httptest.NewRequest(http.MethodPost, "/login?username=jason", nil), 400, "", `id="login-error"`},
		"asking for the form":              {httptest.NewRequest(http.MethodGet, "/login?username=jason", nil), 200, "", `id="login-user"`},
		"another method":                   {httptest.NewRequest(http.MethodPut, "/login", nil), 405, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := do(h, tc.req)
			if resp.StatusCode != tc.status {
				t.Errorf("status %d, want %d", resp.StatusCode, tc.status)
			}
			if got := strings.Join(resp.Header.Values("Set-Cookie"), ","); got != tc.cookie {
				t.Errorf("cookie %q, want %q", got, tc.cookie)
			}
			if got := resp.Header.Get("Location"); tc.status == 303 && got != "/productpage" {
				t.Errorf("leads to %q", got)
			}
			contains(t, body, tc.want)
			lacks(t, body, "<script", "evil")
			if n := strings.Count(body, `id="login-user"`); n > 1 {
				t.Errorf("%d forms on one page", n)
			}
		})
	}
}

func TestLogoutForgetsTheUser(t *testing.T) {
	h := pageWith(t, goodDetails(), down())
	for _, method := range []string{http.MethodGet, http.MethodPost} {
		r := httptest.NewRequest(method, "/logout", nil)
		r.Header.Set("Cookie", "user=jason")
		resp, _ := do(h, r)
		if resp.StatusCode != 303 || resp.Header.Get("Location") != "/productpage" {
			t.Errorf("%s: status %d, location %q", method, resp.StatusCode, resp.Header.Get("Location"))
		}
		if c := resp.Header.Get("Set-Cookie"); c != "user=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax" {
			t.Errorf("%s: cookie %q", method, c)
		}
	}
}

func TestServicesAreCalledWhereTheyAreSaidToBe(t *testing.T) {
	for name, tc := range map[string]struct {
		flag string
		env  map[string]string
		want string
	}{
		"by their names":                     {"", nil, "details:9080"},
		"in a domain":                        {"", map[string]string{"SERVICES_DOMAIN": "service.consul"}, "details.service.consul:9080"},
		"by a name of their own":             {"", map[string]string{"DETAILS_HOSTNAME": "facts", "SERVICES_DOMAIN": "x"}, "facts:9080"},
		"at a port of their own":             {"", map[string]string{"DETAILS_HOSTNAME": "facts:80"}, "facts:80"},
		"where the flag says":                {"127.0.0.1:1", map[string]string{"DETAILS_HOSTNAME": "facts"}, "127.0.0.1:1"},
		"at an address of the newer sort":    {"::1", nil, "[::1]:9080"},
		"at such an address, with its port":  {"[::1]:80", nil, "[::1]:80"},
		"at such an address, in its bracket": {"[::1]", nil, "[::1]:9080"},
	} {
		t.Run(name, func(t *testing.T) {
			args := []string{"productpage"}
			if tc.flag != "" {
				args = append(args, "--details", tc.flag)
			}
			o, err := parse(args, func(k string) string { return tc.env[k] }, io.Discard)
			if err != nil || o.details != tc.want {
				t.Errorf("details at %q, %v; want %q", o.details, err, tc.want)
			}
		})
	}
}

func TestARedirectIsNotFollowedElsewhere(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("the other host was called") }))
	defer other.Close()
	here := httptest.NewServer(http.RedirectHandler(other.URL, http.StatusFound))
	defer here.Close()
	var v any
	status, err := newUpstream(here.URL).get(httptest.NewRequest(http.MethodGet, "/", nil), "/", time.Minute, &v)
	if status != http.StatusFound || err == nil {
		t.Errorf("got %d, %v", status, err)
	}
}

func TestRequestsAreLoggedAndProbesAreNot(t *testing.T) {
	var out strings.Builder
	h, err := newHandler(options{role: "details"}, "pod", slog.New(slog.NewJSONHandler(&out, nil)))
	if err != nil {
		t.Fatal(err)
	}
	fetch(h, "/health")
	if out.Len() > 0 {
		t.Errorf("a probe was logged: %s", &out)
	}
	r := httptest.NewRequestWithContext(context.Background(), http.MethodGet, "/details/x%22%0A", nil)
	r.Header.Set("X-Request-Id", "r-1")
	do(h, r)
	contains(t, out.String(), `"method":"GET"`, `"path":"/details/x\"\n"`, `"status":400`, `"requestID":"r-1"`)
}
