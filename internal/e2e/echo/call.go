package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// tally is what a number of calls met.
type tally struct {
	Calls    int            `json:"calls"`
	Codes    map[string]int `json:"codes"`
	Pods     map[string]int `json:"pods"`
	Versions map[string]int `json:"versions"`
	// Failures are the first answers that are no success, each with its time.
	Failures []string `json:"failures,omitempty"`
	// Last is the last answer in full, and Header its head.
	Last    who         `json:"last"`
	Header  http.Header `json:"header,omitempty"`
	Seconds float64     `json:"seconds"`
}

type answer struct {
	code   string
	ok     bool
	who    who
	header http.Header
	detail string
}

func call(ctx context.Context, args []string, stdin io.Reader, stdout io.Writer) error {
	flags := flag.NewFlagSet("call", flag.ContinueOnError)
	n := flags.Int("n", 1, "calls")
	width := flags.Int("c", 1, "calls at a time")
	load := flags.Bool("load", false, "call until standard input ends, instead of -n times")
	pause := flags.Duration("pause", 0, "wait between a worker's calls")
	method := flags.String("method", http.MethodGet, "HTTP method")
	fresh := flags.Bool("fresh", false, "a new connection for every call")
	timeout := flags.Duration("timeout", 15*time.Second, "how long one call may take")
	header := http.Header{}
	flags.Func("H", "header as name: value", func(s string) error {
		name, value, ok := strings.Cut(s, ":")
		if !ok {
			return errors.New("not name: value")
		}
		header.Add(name, strings.TrimSpace(value))
		return nil
	})
	if err := flags.Parse(args); err != nil {
		return err
	}
	target, err := url.Parse(flags.Arg(0))
	if err != nil {
		return err
	}
	var once func(context.Context) answer
	switch target.Scheme {
	case "http", "https":
		once = callHTTP(*method, target.String(), header, *fresh)
	case "grpc":
		conn, err := grpc.NewClient("dns:///"+target.Host, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return err
		}
		defer func() { _ = conn.Close() }()
		once = callGRPC(conn)
	case "tcp":
		once = callTCP(target.Host)
	default:
		return fmt.Errorf("%q is no URL this can call", flags.Arg(0))
	}

	calling, stop := context.WithCancel(ctx)
	defer stop()
	if *load {
		go func() {
			_, _ = io.Copy(io.Discard, stdin) // its end is all there is to know
			stop()
		}()
	}
	began := time.Now()
	sum := tally{Codes: map[string]int{}, Pods: map[string]int{}, Versions: map[string]int{}}
	var mu sync.Mutex
	var wait sync.WaitGroup
	var begun atomic.Int64
	for range *width {
		wait.Go(func() {
			for calling.Err() == nil && (*load || begun.Add(1) <= int64(*n)) {
				// A call that has begun is let finish, or the end of the load would count as a failure.
				one, cancel := context.WithTimeout(ctx, *timeout)
				a := once(one)
				cancel()
				mu.Lock()
				sum.add(a)
				mu.Unlock()
				if *pause > 0 {
					select {
					case <-time.After(*pause):
					case <-calling.Done():
					}
				}
			}
		})
	}
	wait.Wait()
	sum.Seconds = time.Since(began).Seconds()
	return json.NewEncoder(stdout).Encode(sum)
}

func (s *tally) add(a answer) {
	s.Calls++
	s.Codes[a.code]++
	if a.ok {
		s.Pods[a.who.Pod]++
		s.Versions[a.who.Version]++
	} else if len(s.Failures) < 5 {
		s.Failures = append(s.Failures, fmt.Sprintf("%s %s %.300s", time.Now().UTC().Format("15:04:05.000"), a.code, a.detail))
	}
	s.Last, s.Header = a.who, a.header
}

func callHTTP(method, target string, header http.Header, fresh bool) func(context.Context) answer {
	client := &http.Client{
		Transport: &http.Transport{
			MaxIdleConnsPerHost: 64, DisableKeepAlives: fresh,
			// What is called is a test's own server or the API server behind its own authority; who they are is not what is tested.
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return func(ctx context.Context) answer {
		req, err := http.NewRequestWithContext(ctx, method, target, nil)
		if err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		req.Header = header.Clone()
		if host := header.Get("Host"); host != "" {
			req.Host = host
		}
		res, err := client.Do(req)
		if err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		defer func() { _ = res.Body.Close() }()
		body, err := io.ReadAll(io.LimitReader(res.Body, 1<<20))
		if err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		a := answer{code: fmt.Sprint(res.StatusCode), ok: res.StatusCode < 300, header: res.Header, detail: string(body)}
		_ = json.Unmarshal(body, &a.who) // other bodies are not from our server
		return a
	}
}

func callGRPC(conn *grpc.ClientConn) func(context.Context) answer {
	return func(ctx context.Context) answer {
		var out wrapperspb.StringValue
		err := conn.Invoke(ctx, whoCall, wrapperspb.String("?"), &out)
		a := answer{code: status.Code(err).String(), ok: status.Code(err) == codes.OK}
		if err != nil {
			a.detail = err.Error()
		} else if err := json.Unmarshal([]byte(out.Value), &a.who); err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		return a
	}
}

func callTCP(address string) func(context.Context) answer {
	return func(ctx context.Context) answer {
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
		if err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		defer func() { _ = conn.Close() }()
		if deadline, ok := ctx.Deadline(); ok {
			_ = conn.SetDeadline(deadline) // a closed connection says so at the read
		}
		in := bufio.NewScanner(conn)
		if !in.Scan() { // the server speaks first
			return answer{code: "error", detail: fmt.Sprint("no greeting: ", in.Err())}
		}
		if _, err := fmt.Fprintln(conn, "?"); err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		if !in.Scan() {
			return answer{code: "error", detail: fmt.Sprint("no answer: ", in.Err())}
		}
		a := answer{code: "ok", ok: true}
		if err := json.Unmarshal(in.Bytes(), &a.who); err != nil {
			return answer{code: "error", detail: err.Error()}
		}
		return a
	}
}
