package bookinfo

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strconv"
	"sync"
	"time"
)

//go:embed page
var pageFiles embed.FS

const (
	callTimeout = 3 * time.Second
	reviewTries = 2
	maxForm     = 4 << 10

	detailsUnavailable = "Sorry, product details are currently unavailable for this book."
	reviewsUnavailable = "Sorry, product reviews are currently unavailable for this book."
	unknownBookRatings = "Sorry, product ratings are currently unavailable for this book."
)

type product struct {
	ID          int    `json:"id"`
	Title       string `json:"title"`
	Description string `json:"descriptionHtml"`
}

// productpage puts what the other services know together, for people as HTML and for programs as JSON.
type productpage struct {
	details, reviews, ratings upstream
	version, pod              string
	products                  []product
	templates                 *template.Template
	css                       template.CSS
	policy                    string
}

func newProductpage(details, reviews, ratings upstream, version, pod string) (*productpage, error) {
	templates, err := template.New("").Funcs(template.FuncMap{"clamp": clampStars}).ParseFS(pageFiles, "page/*.html")
	if err != nil {
		return nil, fmt.Errorf("reading the page's templates: %w", err)
	}
	css, err := pageFiles.ReadFile("page/style.css")
	if err != nil {
		return nil, fmt.Errorf("reading the page's style: %w", err)
	}
	// The style travels inside the page, because the sample's Ingress lets through the paths of pages and no others. Its digest makes
	// it the only style, and nothing at all a script, that a browser accepts of us.
	digest := sha256.Sum256(css)
	return &productpage{
		details: details, reviews: reviews, ratings: ratings, version: version, pod: pod,
		products: []product{{
			ID:    0,
			Title: "The Comedy of Errors",
			Description: "Two pairs of twins, parted by a shipwreck, are in Ephesus on the same day and nobody knows it. " +
				"Shakespeare's shortest play turns one wrong greeting into a locked door, an arrest and a madman who is not one.",
		}},
		templates: templates,
		css:       template.CSS(css),
		policy: "default-src 'none'; img-src data:; style-src 'sha256-" + base64.StdEncoding.EncodeToString(digest[:]) +
			"'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
	}, nil
}

func (p *productpage) routes(mux *http.ServeMux) {
	// A form on another site must not log anyone in or out here.
	sameOrigin := http.NewCrossOriginProtection()
	mux.HandleFunc("GET /health", health("Product page"))
	mux.HandleFunc("GET /{$}", p.index)
	mux.HandleFunc("GET /index.html", p.index)
	mux.HandleFunc("GET /productpage", p.productPage)
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) { p.loginForm(w, r, http.StatusOK, "") })
	mux.Handle("POST /login", sameOrigin.Handler(http.HandlerFunc(p.login)))
	mux.HandleFunc("GET /logout", p.logout)
	mux.Handle("POST /logout", sameOrigin.Handler(http.HandlerFunc(p.logout)))
	mux.HandleFunc("GET /api/v1/products", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, p.products) })
	mux.HandleFunc("GET /api/v1/products/{id}", p.apiDetails)
	mux.HandleFunc("GET /api/v1/products/{id}/reviews", p.apiReviews)
	mux.HandleFunc("GET /api/v1/products/{id}/ratings", p.apiRatings)
}

// page is what the templates show.
type page struct {
	CSS          template.CSS
	Version, Pod string
	User         string
	LoginPage    bool // the form is in the page, not in its header
	LoginError   string

	Product      product
	Details      *bookDetails // nil when they could not be had
	Reviews      *bookReviews // likewise
	DetailsError string
	ReviewsError string
	RatingsError string
	StarColor    string // black, red, or none
}

func (p *productpage) render(w http.ResponseWriter, name string, status int, pg page) {
	pg.CSS, pg.Version, pg.Pod = p.css, p.version, p.pod
	var out bytes.Buffer
	if err := p.templates.ExecuteTemplate(&out, name, pg); err != nil {
		http.Error(w, "the page could not be made", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", p.policy)
	// Not "no-referrer": that would make browsers send "Origin: null" with our own forms.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	_, _ = out.WriteTo(w) // fails only for a browser that left
}

func (p *productpage) index(w http.ResponseWriter, r *http.Request) {
	p.render(w, "index.html", http.StatusOK, page{User: userOf(r), Product: p.products[0]})
}

func (p *productpage) productPage(w http.ResponseWriter, r *http.Request) {
	pg := page{User: userOf(r), Product: p.products[0], StarColor: "none"}
	var wait sync.WaitGroup
	wait.Go(func() {
		if d, _, err := p.fetchDetails(r, pg.Product.ID); err == nil {
			pg.Details = d
		} else {
			pg.DetailsError = detailsUnavailable
		}
	})
	wait.Go(func() {
		if rs, _, err := p.fetchReviews(r, pg.Product.ID); err == nil {
			pg.Reviews = rs
		} else {
			pg.ReviewsError = reviewsUnavailable
		}
	})
	wait.Wait()
	if pg.Reviews != nil {
		for _, rv := range pg.Reviews.Reviews {
			switch {
			case rv.Rating == nil:
			case rv.Rating.Error != "":
				pg.RatingsError = rv.Rating.Error
			case rv.Rating.Color == "red":
				pg.StarColor = "red"
			default:
				pg.StarColor = "black"
			}
		}
	}
	p.render(w, "productpage.html", http.StatusOK, pg)
}

func (p *productpage) loginForm(w http.ResponseWriter, r *http.Request, status int, problem string) {
	p.render(w, "login.html", status, page{User: userOf(r), LoginPage: true, LoginError: problem, Product: p.products[0]})
}

// login makes whoever asks the user they say they are: the sample has users so that rules can tell them apart, not to keep anyone out.
func (p *productpage) login(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, maxForm)
	if err := r.ParseForm(); err != nil {
		status := http.StatusBadRequest
		if tooLarge := (*http.MaxBytesError)(nil); errors.As(err, &tooLarge) {
			status = http.StatusRequestEntityTooLarge
		}
		p.loginForm(w, r, status, "The form could not be read.")
		return
	}
	name := r.PostForm.Get("username")
	if !validUser(name) {
		p.loginForm(w, r, http.StatusBadRequest, "A user name has 1 to 40 letters (a to z), digits, dots, dashes, underscores or @ signs, and begins with a letter or digit.")
		return
	}
	c := sessionCookie(r)
	c.Value = name
	http.SetCookie(w, c)
	backToPage(w, r)
}

func (p *productpage) logout(w http.ResponseWriter, r *http.Request) {
	c := sessionCookie(r)
	c.MaxAge = -1
	http.SetCookie(w, c)
	backToPage(w, r)
}

func sessionCookie(r *http.Request) *http.Cookie {
	return &http.Cookie{
		Name: userCookie, Path: "/", HttpOnly: true, SameSite: http.SameSiteLaxMode,
		Secure: r.TLS != nil || r.Header.Get("X-Forwarded-Proto") == "https",
	}
}

// backToPage always leads to the same page: a target taken from the request could be anyone's.
func backToPage(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	http.Redirect(w, r, "/productpage", http.StatusSeeOther)
}

func (p *productpage) fetchDetails(r *http.Request, id int) (*bookDetails, int, error) {
	var d bookDetails
	status, err := p.details.get(r, "/details/"+strconv.Itoa(id), callTimeout, &d)
	return &d, status, err
}

// fetchReviews tries again once, whatever went wrong the first time.
func (p *productpage) fetchReviews(r *http.Request, id int) (*bookReviews, int, error) {
	var status int
	var err error
	for range reviewTries {
		var rs bookReviews
		if status, err = p.reviews.get(r, "/reviews/"+strconv.Itoa(id), callTimeout, &rs); err == nil {
			return &rs, status, nil
		}
	}
	return nil, status, err
}

// knownProduct is the id of the product in the path; it has answered the request when it returns false.
func (p *productpage) knownProduct(w http.ResponseWriter, r *http.Request) (int, bool) {
	id, ok := numericID(w, r)
	if ok && id >= len(p.products) {
		writeJSON(w, http.StatusNotFound, failure{fmt.Sprintf("there is no product %d", id)})
		return 0, false
	}
	return id, ok
}

func (p *productpage) apiDetails(w http.ResponseWriter, r *http.Request) {
	if id, ok := p.knownProduct(w, r); ok {
		d, status, err := p.fetchDetails(r, id)
		answer(w, d, status, err, detailsUnavailable)
	}
}

func (p *productpage) apiReviews(w http.ResponseWriter, r *http.Request) {
	if id, ok := p.knownProduct(w, r); ok {
		rs, status, err := p.fetchReviews(r, id)
		answer(w, rs, status, err, reviewsUnavailable)
	}
}

func (p *productpage) apiRatings(w http.ResponseWriter, r *http.Request) {
	if id, ok := p.knownProduct(w, r); ok {
		var rt bookRatings
		status, err := p.ratings.get(r, "/ratings/"+strconv.Itoa(id), callTimeout, &rt)
		answer(w, rt, status, err, unknownBookRatings)
	}
}

// answer passes on what a service said, or that it did not: its own error status, and 500 when there was none.
func answer(w http.ResponseWriter, v any, status int, err error, sorry string) {
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, v)
	case status >= http.StatusBadRequest:
		writeJSON(w, status, failure{sorry})
	default:
		writeJSON(w, http.StatusInternalServerError, failure{sorry})
	}
}

// clampStars keeps a number from another service within the row of stars.
func clampStars(n int) int { return min(max(n, 0), 5) }
