package bookinfo

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// userCookie is the name of the cookie that says who is logged in. Rules of the mesh match on it.
const userCookie = "user"

// forwardedHeaders is what a service hands on unchanged so that the calls of one request make one trace.
func forwardedHeaders() []string {
	return []string{
		"X-Request-Id",
		"X-B3-Traceid", "X-B3-Spanid", "X-B3-Parentspanid", "X-B3-Sampled", "X-B3-Flags",
		"X-Ot-Span-Context",
		"Traceparent", "Tracestate",
	}
}

// maxUser is the length of the longest user name.
const maxUser = 40

// validUser says whether name can be a user. The letters are few, so that a name means the same in a cookie, a header and a rule.
func validUser(name string) bool {
	if name == "" || len(name) > maxUser {
		return false
	}
	for i, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("._@-", rune(c))) {
			return false
		}
	}
	return true
}

// userOf is who the request says it comes from, or "". A cookie proves nothing: it is only ever a name to show and to route by.
func userOf(r *http.Request) string {
	for _, c := range r.CookiesNamed(userCookie) {
		if validUser(c.Value) {
			return c.Value
		}
	}
	return ""
}

// upstream is a service that is called on behalf of a request.
type upstream struct {
	base   string
	client *http.Client
}

func newUpstream(base string) upstream {
	return upstream{
		base: base,
		client: &http.Client{
			Transport: &http.Transport{
				MaxIdleConnsPerHost: 64,
				IdleConnTimeout:     30 * time.Second,
				// Neither a proxy of the environment nor another host by redirect: what is called is what was configured.
				Proxy: nil,
			},
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// maxAnswer bounds what is read of another service's answer.
const maxAnswer = 1 << 20

// get fetches path into v within timeout, on behalf of r. The status is the upstream's, or 0 when there was no answer.
func (u upstream) get(r *http.Request, path string, timeout time.Duration, v any) (status int, err error) {
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.base+path, nil)
	if err != nil {
		return 0, fmt.Errorf("preparing the call to %s: %w", u.base, err)
	}
	for _, name := range forwardedHeaders() {
		if values := r.Header.Values(name); len(values) > 0 {
			req.Header[name] = values
		}
	}
	if user := userOf(r); user != "" {
		req.Header.Set("Cookie", userCookie+"="+user)
	}
	resp, err := u.client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("calling %s: %w", u.base, err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return 0, fmt.Errorf("reading the answer of %s: %w", u.base, err)
	}
	if resp.StatusCode != http.StatusOK {
		return resp.StatusCode, fmt.Errorf("calling %s: %s", u.base, resp.Status)
	}
	if err := json.Unmarshal(body, v); err != nil {
		return 0, fmt.Errorf("reading the answer of %s: %w", u.base, err)
	}
	return resp.StatusCode, nil
}
