// Package pilot measures the real control plane with a real API server: bin/meshd and bin/meshbox.
package pilot

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/meshctl/meshctl/internal/api/v1alpha2"
	"github.com/meshctl/meshctl/internal/bench/load"
	"github.com/meshctl/meshctl/internal/envoy"
	"github.com/meshctl/meshctl/internal/testkit/apiserver"
)

// edits of each sort, and the pause between two: the first change after a quiet time is what people make.
const (
	edits = 10
	pause = 200 * time.Millisecond
)

func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }

// BenchmarkPilot fills an API server, lets proxies connect to Pilot all at once (Storm: until each has everything), and then changes one route or one
// endpoint again and again (from before the request to the API server until the last proxy has acknowledged; the median). It tells Pilot's processor time, its
// peak memory since before the storm, and the bytes of the responses to one proxy.
func BenchmarkPilot(b *testing.B) {
	program := find(b, "bin/meshd")
	cluster := newCluster(b)
	for _, run := range []struct {
		services int
		proxies  []int
	}{{100, []int{500}}, {1000, []int{1, 100, 500}}} {
		mesh := load.Mesh{Services: run.services, Instances: 10}
		cluster.fill(b, mesh)
		for _, proxies := range run.proxies {
			name := fmt.Sprintf("services=%d/proxies=%d", run.services, proxies)
			p := start(b, program, cluster.api.Kubeconfig)
			var clients *load.Proxies
			b.Run("Storm/"+name, func(sub *testing.B) {
				before := p.sample(sub, true)
				var took time.Duration
				var err error
				if clients, took, err = load.Connect(b.Context(), load.Options{Address: p.xds, Proxies: proxies, Node: mesh.Node}); err != nil {
					sub.Fatal(err)
				}
				sent := settle(sub, clients)
				after := p.sample(sub, false)
				sub.ReportMetric(0, "ns/op") // the clients' clock counts
				sub.ReportMetric(milliseconds(took), "ms")
				sub.ReportMetric(milliseconds(after.cpu-before.cpu), "cpu-ms")
				sub.ReportMetric(float64(after.peak)/(1<<20), "peak-MiB")
				sub.ReportMetric(float64(sent)/float64(proxies), "sent-B")
			})
			if clients == nil {
				b.Fatal("the proxies did not get their configuration")
			}
			edit := func(kind, url string, change func(b *testing.B, marker string)) {
				b.Run(kind+"/"+name, func(sub *testing.B) {
					var times []time.Duration
					var sent int64
					before := p.sample(sub, false)
					for i := range edits {
						settle(sub, clients)
						marker := cluster.marker(kind, i)
						wave := clients.Expect(url, marker)
						change(sub, marker)
						ctx, cancel := context.WithTimeout(b.Context(), 30*time.Second)
						took, err := wave.Wait(ctx)
						cancel()
						if err != nil {
							sub.Fatal(err)
						}
						times = append(times, took)
						sent += settle(sub, clients)
						<-time.After(pause)
					}
					after := p.sample(sub, false)
					slices.Sort(times)
					sub.ReportMetric(0, "ns/op")
					sub.ReportMetric(milliseconds(times[(edits-1)/2]), "ms")
					sub.ReportMetric(milliseconds(times[edits-1]), "max-ms")
					sub.ReportMetric(milliseconds(after.cpu-before.cpu)/edits, "cpu-ms")
					sub.ReportMetric(float64(sent)/float64(proxies)/edits, "sent-B")
				})
			}
			edit("RouteEdit", envoy.RouteType, cluster.editRoute)
			edit("EndpointEdit", envoy.EndpointType, cluster.editEndpoint)
			clients.Close()
			p.stop()
		}
	}
}

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

func settle(b *testing.B, p *load.Proxies) int64 {
	b.Helper()
	sent, err := p.Settle(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return sent
}

// find looks for a file upwards from here.
func find(b *testing.B, name string) string {
	b.Helper()
	dir, err := os.Getwd()
	if err != nil {
		b.Fatal(err)
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err == nil {
			return path
		} else if !errors.Is(err, fs.ErrNotExist) {
			b.Fatal(err)
		}
	}
	b.Fatalf("%s is missing: make it with `make build`", name)
	return ""
}

// process is a running Pilot.
type process struct {
	cmd  *exec.Cmd
	xds  string
	done chan struct{}
	log  string
}

func start(b *testing.B, program, kubeconfig string) *process {
	b.Helper()
	health := freeAddress(b)
	p := &process{xds: freeAddress(b), done: make(chan struct{}), log: filepath.Join(b.TempDir(), "log")}
	log, err := os.Create(p.log)
	if err != nil {
		b.Fatal(err)
	}
	defer log.Close()
	p.cmd = exec.Command(program, "pilot", "--kubeconfig", kubeconfig, "--debug-xds-address", p.xds, "--health-address", health,
		"--xds-address", "127.0.0.1:0", "--debug-address", "127.0.0.1:0", "--name", "bench", "--log-level", "warn")
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := p.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait()
		close(p.done)
	}()
	b.Cleanup(p.stop)
	deadline := time.After(time.Minute)
	for {
		if resp, err := http.Get("http://" + health + "/ready"); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return p
			}
		}
		select {
		case <-p.done:
			b.Fatalf("Pilot ended: %s", p.tail())
		case <-deadline:
			b.Fatalf("Pilot is not ready after a minute: %s", p.tail())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (p *process) tail() string {
	text, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	return string(text[max(0, len(text)-2000):])
}

func (p *process) stop() {
	_ = p.cmd.Process.Kill() // it may have ended
	<-p.done
}

func freeAddress(b *testing.B) string {
	b.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

type sample struct {
	cpu  time.Duration
	peak int64
}

// sample reads what the kernel accounts to the process; reset makes the peak count from now.
func (p *process) sample(b *testing.B, reset bool) sample {
	b.Helper()
	proc := "/proc/" + strconv.Itoa(p.cmd.Process.Pid) + "/"
	if reset {
		if err := os.WriteFile(proc+"clear_refs", []byte("5"), 0); err != nil {
			b.Fatal(err)
		}
	}
	stat, err := os.ReadFile(proc + "stat")
	if err != nil {
		b.Fatal(err)
	}
	// After the command's name, which is in brackets: utime and stime are the 12th and 13th, in hundredths of a second.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	var s sample
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			b.Fatal(err)
		}
		s.cpu += time.Duration(n) * 10 * time.Millisecond
	}
	status, err := os.ReadFile(proc + "status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "VmHWM:" {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			s.peak = n << 10
		}
	}
	return s
}

// editRoute changes the rule for svc-0.
func (c *cluster) editRoute(b *testing.B, marker string) {
	b.Helper()
	patch := fmt.Sprintf(`{"spec":{"match":{"request":{"headers":{"x-bench":{"exact":%q}}}}}}`, marker)
	_, err := c.dynamic.Resource(v1alpha2.GroupVersion.WithResource("routerules")).Namespace(load.Namespace(0)).
		Patch(b.Context(), "bench-route", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
}

// editEndpoint changes the address of the first instance of svc-0.
func (c *cluster) editEndpoint(b *testing.B, marker string) {
	b.Helper()
	patch, err := json.Marshal([]map[string]any{{"op": "replace", "path": "/endpoints/0/addresses", "value": []string{marker}}})
	if err != nil {
		b.Fatal(err)
	}
	_, err = c.kube.DiscoveryV1().EndpointSlices(load.Namespace(0)).Patch(b.Context(), "svc-0-0", types.JSONPatchType, patch, metav1.PatchOptions{})
	if err != nil {
		b.Fatal(err)
	}
}
