// Package proxystate reads a live Envoy's admin state.
//
// In: a pod and the way to it, or a file with what such a proxy said. Out: its clusters, endpoints, listeners, routes, secrets and log levels, as
// people ask for them, and the same as Envoy wrote them with every secret masked. Envoy's JSON is read as it is, without its protocol types: those
// would cost every command of the users' program their registration at start, and could not read what a newer Envoy says.
package proxystate

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/meshctl/meshctl/internal/kube"
)

const (
	// adminPort is where Envoy's admin interface listens, on the pod's loopback.
	adminPort = 15000
	// answerTimeout bounds one answer, the forward included.
	answerTimeout = 20 * time.Second
	// maxAnswer bounds its size: the whole configuration of a mesh of ten thousand services takes less.
	maxAnswer = 1 << 30
)

// Admin is the admin interface of one proxy.
type Admin struct {
	client    *http.Client
	namespace string
	pod       string
}

// Open prepares to ask the proxy of a pod; nothing is sent yet.
func Open(client *kube.Client, namespace, pod string) *Admin {
	return &Admin{namespace: namespace, pod: pod, client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return client.DialPod(ctx, namespace, pod, adminPort)
		},
		DisableKeepAlives: true,
	}}}
}

// ask sends one request; a change is a POST.
func (a *Admin) ask(ctx context.Context, method, path string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	what := fmt.Sprintf("asking the proxy of pod %s/%s", a.namespace, a.pod)
	request, err := http.NewRequestWithContext(ctx, method, "http://proxy"+path, nil)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	response, err := a.client.Do(request)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", what, withoutURL(err))
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", what, err)
	case len(body) > maxAnswer:
		return nil, fmt.Errorf("%s: its answer to %s is longer than %d MiB", what, path, maxAnswer>>20)
	case response.StatusCode != http.StatusOK:
		return nil, fmt.Errorf("%s: it answered %s to %s: %s", what, response.Status, path, firstLine(body))
	}
	return body, nil
}

// withoutURL leaves the invented URL out.
func withoutURL(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func firstLine(b []byte) string {
	line, _, _ := bytes.Cut(bytes.TrimSpace(b), []byte("\n"))
	return string(line[:min(len(line), 200)])
}

// Dump asks for everything the proxy was configured with.
func (a *Admin) Dump(ctx context.Context) (*Dump, error) {
	data, err := a.ask(ctx, http.MethodGet, "/config_dump?include_eds")
	if err != nil {
		return nil, err
	}
	return Parse(data)
}

// Endpoints asks for the instances of all clusters as the proxy sees them now.
func (a *Admin) Endpoints(ctx context.Context) ([]Endpoint, error) {
	data, err := a.ask(ctx, http.MethodGet, "/clusters?format=json")
	if err != nil {
		return nil, err
	}
	return liveEndpoints(data)
}

// Level is the level of one of Envoy's loggers.
type Level struct {
	Logger string `json:"logger"`
	Level  string `json:"level"`
}

// Levels lists the levels, from chattiest to silent.
func Levels() []string {
	return []string{"trace", "debug", "info", "warning", "error", "critical", "off"}
}

// Loggers asks for the level of each logger, by name.
func (a *Admin) Loggers(ctx context.Context) ([]Level, error) {
	data, err := a.ask(ctx, http.MethodPost, "/logging")
	if err != nil {
		return nil, err
	}
	return levels(data), nil
}

func levels(data []byte) []Level {
	var out []Level
	for line := range strings.Lines(string(data)) {
		if name, level, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			out = append(out, Level{name, level})
		}
	}
	slices.SortFunc(out, func(a, b Level) int { return strings.Compare(a.Logger, b.Logger) })
	return out
}

// SetLevels sets the loggers named, in order; an empty name is all of them. Envoy changes nothing when it knows one of the names not.
func (a *Admin) SetLevels(ctx context.Context, set []Level) error {
	var some []string
	for _, l := range set {
		if l.Logger == "" {
			if _, err := a.ask(ctx, http.MethodPost, "/logging?level="+url.QueryEscape(l.Level)); err != nil {
				return err
			}
			continue
		}
		some = append(some, l.Logger+":"+l.Level)
	}
	if len(some) == 0 {
		return nil
	}
	_, err := a.ask(ctx, http.MethodPost, "/logging?paths="+url.QueryEscape(strings.Join(some, ",")))
	return err
}

// StartLevels asks with which levels the proxy was started.
func (a *Admin) StartLevels(ctx context.Context) ([]Level, error) {
	data, err := a.ask(ctx, http.MethodGet, "/server_info")
	if err != nil {
		return nil, err
	}
	info, err := decode(data)
	if err != nil {
		return nil, fmt.Errorf("reading what the proxy says of itself: %w", err)
	}
	out := []Level{{Level: text(info, "command_line_options", "log_level")}}
	for _, one := range strings.Split(text(info, "command_line_options", "component_log_level"), ",") {
		if name, level, ok := strings.Cut(one, ":"); ok {
			out = append(out, Level{name, level})
		}
	}
	return out, nil
}
