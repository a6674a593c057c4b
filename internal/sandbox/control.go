package sandbox

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The supervisor answers on a socket in the state directory, which only root can enter:
//
//	GET /status   Status
//	GET /images   []Image
//	PUT /images   an OCI archive; it is imported

// Status is what a sandbox says of itself.
type Status struct {
	// State is running, starting or down.
	State string `json:"state"`
	Dir   string `json:"dir"`
	// The fields below are empty when the sandbox is down.
	Since      time.Time   `json:"since,omitzero"`
	PID        int         `json:"pid,omitempty"`
	API        string      `json:"api,omitempty"`
	Kubeconfig string      `json:"kubeconfig,omitempty"`
	NodeIP     string      `json:"nodeIP,omitempty"`
	Memory     int64       `json:"memory,omitempty"` // bytes of anonymous memory of all processes, pods too
	Components []Component `json:"components,omitempty"`
	NodePorts  []NodePort  `json:"nodePorts,omitempty"`
	Images     []Image     `json:"images,omitempty"`
}

// States of a sandbox.
const (
	StateRunning  = "running"
	StateStarting = "starting"
	StateDown     = "down"
)

// Component is the state of one program.
type Component struct {
	Name     string `json:"name"`
	PID      int    `json:"pid,omitempty"` // as the machine sees it
	Memory   int64  `json:"memory,omitempty"`
	Restarts int    `json:"restarts"`
	LastEnd  string `json:"lastEnd,omitempty"`
	Log      string `json:"log"`
}

// Image is an image that pods can use.
type Image struct {
	Name   string `json:"name"`
	Digest string `json:"digest"`
}

func (s *supervisor) serveControl() error {
	listener, err := net.Listen("unix", state(inside).socket())
	if err != nil {
		return fmt.Errorf("opening the control socket: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /status", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.status(), nil) })
	mux.HandleFunc("GET /images", func(w http.ResponseWriter, r *http.Request) {
		images, err := s.images(r.Context())
		answer(w, images, err)
	})
	mux.HandleFunc("PUT /images", func(w http.ResponseWriter, r *http.Request) {
		out, err := s.ctr(r.Body, "images", "import", "--snapshotter", s.settings.Snapshotter, "-")
		answer(w, out, err)
	})
	go func() {
		err := (&http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}).Serve(listener)
		fmt.Fprintln(os.Stderr, "control socket:", err)
	}()
	return nil
}

func answer(w http.ResponseWriter, value any, err error) {
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(value) // the other side went away
}

func (s *supervisor) status() Status {
	st := Status{State: StateStarting, Dir: s.settings.Dir, Since: s.started.UTC(), NodeIP: s.settings.NodeIP}
	select {
	case <-s.ready:
		st.State = StateRunning
	default:
	}
	s.mu.Lock()
	components := slices.Clone(s.components)
	s.mu.Unlock()
	for _, c := range components {
		c.mu.Lock()
		st.Components = append(st.Components, Component{
			Name: c.name, PID: c.pid, Memory: residentMemory(c.pid), Restarts: c.restarts, LastEnd: c.lastEnd,
			Log: state(s.settings.Dir).log(c.name),
		})
		c.mu.Unlock()
	}
	s.nodePorts.mu.Lock()
	defer s.nodePorts.mu.Unlock()
	for _, p := range s.nodePorts.open {
		st.NodePorts = append(st.NodePorts, p.NodePort)
	}
	slices.SortFunc(st.NodePorts, func(a, b NodePort) int {
		return strings.Compare(a.Namespace+"/"+a.Service+"/"+a.Port, b.Namespace+"/"+b.Service+"/"+b.Port)
	})
	return st
}

// residentMemory reads a process's memory where its number is ours; 0 where it has gone.
func residentMemory(pid int) int64 {
	if pid == 0 {
		return 0
	}
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(data)) {
		var kb int64
		if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &kb); err == nil {
			return kb << 10
		}
	}
	return 0
}

// images lists what containerd has under names of their own; its entries by digest are only for the kubelet.
func (s *supervisor) images(_ context.Context) ([]Image, error) {
	out, err := s.ctr(nil, "images", "list")
	if err != nil {
		return nil, err
	}
	var images []Image
	lines := bufio.NewScanner(strings.NewReader(out))
	lines.Scan() // REF TYPE DIGEST SIZE PLATFORMS LABELS
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) < 3 || strings.HasPrefix(fields[0], "sha256:") || strings.Contains(fields[0], "@") {
			continue
		}
		images = append(images, Image{Name: fields[0], Digest: fields[2]})
	}
	return images, lines.Err()
}

// ctr runs containerd's own client and returns what it says.
func (s *supervisor) ctr(input io.Reader, args ...string) (string, error) {
	argv := append([]string{s.settings.Programs.find("ctr"), "--address", containerdSocket, "--namespace", "k8s.io"}, args...)
	return s.output(input, argv...)
}

// output runs a program to its end and returns what it says.
func (s *supervisor) output(input io.Reader, argv ...string) (string, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return "", err
	}
	defer outR.Close()
	var stdin *os.File
	var fed sync.WaitGroup
	var feeding error
	if input != nil {
		inR, inW, err := os.Pipe()
		if err != nil {
			outW.Close()
			return "", err
		}
		stdin = inR
		fed.Go(func() {
			defer inW.Close()
			_, feeding = io.Copy(inW, input)
		})
	}
	_, ended, err := s.reaper.start(argv, s.settings.Programs.environment(), stdin, outW)
	outW.Close()
	if stdin != nil {
		stdin.Close()
	}
	if err != nil {
		return "", err
	}
	var out bytes.Buffer
	if _, err := out.ReadFrom(outR); err != nil {
		return "", err
	}
	status := <-ended
	fed.Wait()
	if status.ExitStatus() != 0 {
		return "", fmt.Errorf("%s: %s: %s", strings.Join(argv, " "), describe(status), strings.TrimSpace(out.String()))
	}
	if feeding != nil {
		return "", fmt.Errorf("feeding %s: %w", argv[0], feeding)
	}
	return out.String(), nil
}

// control is the other end of the socket.
type control struct{ http.Client }

func dialControl(dir string) *control {
	return &control{http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			// A socket's path may have 108 bytes at most, a state directory may be deeper than that.
			fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
			if err != nil {
				return nil, err
			}
			defer unix.Close(fd)
			return (&net.Dialer{}).DialContext(ctx, "unix", state(fmt.Sprintf("/proc/self/fd/%d", fd)).socket())
		},
	}}}
}

func (c *control) get(ctx context.Context, path string, into any) error {
	return c.do(ctx, http.MethodGet, path, nil, into)
}

func (c *control) do(ctx context.Context, method, path string, body io.Reader, into any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://sandbox"+path, body)
	if err != nil {
		return err
	}
	response, err := c.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, err := io.ReadAll(io.LimitReader(response.Body, 1<<16))
		return errors.Join(errors.New(strings.TrimSpace(string(text))), err)
	}
	return json.NewDecoder(response.Body).Decode(into)
}
