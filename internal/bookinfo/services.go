package bookinfo

import (
	"net/http"
	"strconv"
	"time"
)

// numericID is the id in the request's path; it has answered the request when it returns false.
func numericID(w http.ResponseWriter, r *http.Request) (int, bool) {
	id, err := strconv.Atoi(r.PathValue("id"))
	if err != nil || id < 0 {
		writeJSON(w, http.StatusBadRequest, failure{"please provide a numeric product id"})
		return 0, false
	}
	return id, true
}

// details knows the facts of every book, which are the same for all.
type details struct{}

type bookDetails struct {
	ID        int    `json:"id"`
	Author    string `json:"author"`
	Year      int    `json:"year"`
	Type      string `json:"type"`
	Pages     int    `json:"pages"`
	Publisher string `json:"publisher"`
	Language  string `json:"language"`
	ISBN10    string `json:"ISBN-10"`
	ISBN13    string `json:"ISBN-13"`
}

func (d details) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", health("Details"))
	mux.HandleFunc("GET /details/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := numericID(w, r)
		if !ok {
			return
		}
		writeJSON(w, http.StatusOK, bookDetails{
			ID: id, Author: "William Shakespeare", Year: 1595, Type: "paperback", Pages: 200,
			Publisher: "PublisherA", Language: "English", ISBN10: "1234567890", ISBN13: "123-1234567890",
		})
	})
}

// ratings gives every book the same stars.
type ratings struct{}

type bookRatings struct {
	ID      int            `json:"id"`
	Ratings map[string]int `json:"ratings"`
}

func (ratings) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", health("Ratings"))
	mux.HandleFunc("GET /ratings/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := numericID(w, r)
		if !ok {
			return
		}
		writeJSON(w, http.StatusOK, bookRatings{ID: id, Ratings: map[string]int{"Reviewer1": 5, "Reviewer2": 4}})
	})
}

// reviews says what readers thought, with stars if it has a colour for them.
type reviews struct {
	stars   string // colour, or "" for none
	version string
	pod     string
	ratings upstream
}

const ratingsUnavailable = "Ratings service is currently unavailable"

type bookReviews struct {
	ID      string   `json:"id"`
	Pod     string   `json:"podname"`
	Version string   `json:"version"`
	Reviews []review `json:"reviews"`
}

type review struct {
	Reviewer string  `json:"reviewer"`
	Text     string  `json:"text"`
	Rating   *rating `json:"rating,omitempty"`
}

type rating struct {
	Stars int    `json:"stars,omitempty"`
	Color string `json:"color,omitempty"`
	Error string `json:"error,omitempty"`
}

// ratingsTimeout is how long reviews waits: the red version is the impatient one, and so survives where the black one makes the page wait.
func (s reviews) ratingsTimeout() time.Duration {
	if s.stars == "red" {
		return 2500 * time.Millisecond
	}
	return 10 * time.Second
}

func (s reviews) routes(mux *http.ServeMux) {
	mux.HandleFunc("GET /health", health("Reviews"))
	mux.HandleFunc("GET /reviews/{id}", func(w http.ResponseWriter, r *http.Request) {
		id, ok := numericID(w, r)
		if !ok {
			return
		}
		list := []review{
			{Reviewer: "Reviewer1", Text: "Mistaken identity twice over, and not a slow scene in it. I laughed out loud on the train."},
			{Reviewer: "Reviewer2", Text: "Great fun from the first mix-up to the last. Do not look for the depth of his later plays."},
		}
		if s.stars != "" {
			var given bookRatings
			_, err := s.ratings.get(r, "/ratings/"+strconv.Itoa(id), s.ratingsTimeout(), &given)
			for i := range list {
				list[i].Rating = &rating{Stars: given.Ratings[list[i].Reviewer], Color: s.stars}
				if err != nil {
					list[i].Rating = &rating{Error: ratingsUnavailable}
				}
			}
		}
		writeJSON(w, http.StatusOK, bookReviews{ID: strconv.Itoa(id), Pod: s.pod, Version: s.version, Reviews: list})
	})
}
