// Command app is what the sandbox's tests run in pods.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

func main() {
	command := "serve"
	if len(os.Args) > 1 {
		command = os.Args[1]
	}
	switch command {
	case "serve":
		serve()
	case "work": // a job: ends well if its sidecar answers
		if _, err := get(os.Args[2]); err != nil {
			log.Fatal(err)
		}
	case "echo":
		fmt.Println(strings.Join(os.Args[2:], " "))
	default:
		log.Fatalf("unknown command %s", command)
	}
}

func serve() {
	go func() {
		signals := make(chan os.Signal, 1)
		signal.Notify(signals, syscall.SIGTERM)
		<-signals
		os.Exit(0)
	}()
	answer := func(f func(r *http.Request) (string, error)) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			text, err := f(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusBadGateway)
				return
			}
			fmt.Fprint(w, text)
		}
	}
	http.HandleFunc("/hostname", answer(func(*http.Request) (string, error) { return os.Hostname() }))
	http.HandleFunc("/get", answer(func(r *http.Request) (string, error) { return get(r.FormValue("url")) }))
	http.HandleFunc("/file", answer(func(r *http.Request) (string, error) {
		data, err := os.ReadFile(r.FormValue("path"))
		return string(data), err
	}))
	http.HandleFunc("/lookup", answer(func(r *http.Request) (string, error) {
		addrs, err := net.LookupHost(r.FormValue("name"))
		return strings.Join(addrs, " "), err
	}))
	log.Println("serving")
	log.Fatal(http.ListenAndServe(":8080", nil))
}

func get(url string) (string, error) {
	// A connection of its own each time, so that a service may pick another pod.
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get(url)
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", response.Status, data)
	}
	return string(data), err
}
