package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/meshctl/meshctl/internal/image"
)

// supervise is the first argument by which the test binary plays the supervisor.
const supervise = "supervise-for-test"

// patience is how long anything may take on a machine that builds other things meanwhile.
const patience = 3 * time.Minute

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == supervise {
		if err := Supervise(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bin is the repository's bin directory.
func bin(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// needsMachine skips where a sandbox cannot run; CI must be able to.
func needsMachine(t *testing.T) Programs {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: not a short test")
	}
	programs, err := FindPrograms(filepath.Join(bin(t), "meshctl"))
	if err == nil {
		err = CheckMachine()
	}
	if err != nil && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return programs
}

// lab is a sandbox of a test.
type lab struct {
	dir    string
	config Config
}

// newLab prepares a sandbox in a directory of its own with the images of the tests; it is down again when the test ends.
func newLab(t *testing.T) *lab {
	t.Helper()
	programs := needsMachine(t)
	// Deeper than a socket's path may be: state directories are where users put them.
	dir := filepath.Join(t.TempDir(), strings.Repeat("deep/", 20), "sandbox")
	images := t.TempDir()
	app := filepath.Join(images, "app")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", app, "./testdata/app")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the tests' program: %v\n%s", err, out)
	}
	programs.Images = nil
	for name, program := range map[string]string{"docker.io/meshctl/test-app:1": app, image.Pause: filepath.Join(bin(t), "pause")} {
		archive := filepath.Join(images, filepath.Base(program)+".tar")
		if err := image.BuildProgram(archive, name, program); err != nil {
			t.Fatal(err)
		}
		programs.Images = append(programs.Images, archive)
	}
	l := &lab{dir: dir, config: Config{
		Dir: dir, Programs: programs, Supervisor: []string{"meshbox", supervise},
		Progress: func(phase string, since time.Duration) { t.Logf("%6.1fs %s", since.Seconds(), phase) },
	}}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("supervisor: %s\nkubelet: %s", tail(state(dir).log("supervisor")), tail(state(dir).log("kubelet")))
		}
		if _, err := Down(dir); err != nil {
			t.Errorf("taking it down: %v", err)
		}
	})
	return l
}

// up brings it up and says whether it was up already.
func (l *lab) up(t *testing.T) bool {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	already, err := Up(ctx, l.config)
	if err != nil {
		t.Fatal(err)
	}
	return already
}

func (l *lab) status(t *testing.T) Status {
	t.Helper()
	st, err := GetStatus(t.Context(), l.dir)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func (l *lab) kubectlCommand(args ...string) *exec.Cmd {
	cmd := exec.Command(l.config.Programs.Meshbox, append([]string{"kubectl"}, args...)...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+state(l.dir).kubeconfig())
	return cmd
}

// kubectl runs kubectl as a user would, from outside.
func (l *lab) kubectl(t *testing.T, input string, args ...string) string {
	t.Helper()
	cmd := l.kubectlCommand(args...)
	cmd.Stdin = strings.NewReader(input)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("kubectl %s: %v\n%s%s", strings.Join(args, " "), err, stdout.String(), stderr.String())
	}
	return stdout.String()
}

// eventually tries until it succeeds.
func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := poll(ctx, what, try); err != nil {
		t.Fatal(err)
	}
}

// ask calls the tests' program, by way of its node port, from outside.
func ask(address, path string, values url.Values) (string, error) {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Get("http://" + address + path + "?" + values.Encode())
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

const application = `
apiVersion: apps/v1
kind: Deployment
metadata: {name: app}
spec:
  replicas: 2
  selector: {matchLabels: {app: app}}
  template:
    metadata: {labels: {app: app}}
    spec:
      containers:
      - name: app
        image: meshctl/test-app:1
        readinessProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
        securityContext: {readOnlyRootFilesystem: true, allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts:
        - {name: token, mountPath: /token}
        - {name: memory, mountPath: /memory}
        - {name: podinfo, mountPath: /podinfo}
      volumes:
      - name: token
        projected: {sources: [{serviceAccountToken: {path: token, audience: istio-pilot, expirationSeconds: 600}}]}
      - name: memory
        emptyDir: {medium: Memory}
      - name: podinfo
        downwardAPI: {items: [{path: labels, fieldRef: {fieldPath: metadata.labels}}]}
---
apiVersion: v1
kind: Service
metadata: {name: app}
spec:
  type: LoadBalancer
  selector: {app: app}
  ports: [{name: http, port: 80, targetPort: 8080, nodePort: 31234}]
`

// start runs the application and returns the address of its node port.
func (l *lab) start(t *testing.T) string {
	t.Helper()
	l.kubectl(t, application, "apply", "-f", "-")
	l.kubectl(t, "", "rollout", "status", "deployment/app", "--timeout="+patience.String())
	address := ""
	eventually(t, "waiting for the node port", func() error {
		for _, p := range l.status(t).NodePorts {
			if p.Service == "app" && p.Port == "http" {
				address = p.Address
				_, err := ask(address, "/hostname", nil)
				return err
			}
		}
		return fmt.Errorf("the status does not show it")
	})
	return address
}

func TestASandboxIsAKubernetes(t *testing.T) {
	l := newLab(t)
	before := time.Now()
	if l.up(t) {
		t.Error("the first up says that it was up already")
	}
	t.Logf("ready in %s", time.Since(before).Round(100*time.Millisecond))
	address := l.start(t)

	t.Run("a second up changes nothing", func(t *testing.T) {
		pid := l.status(t).PID
		if !l.up(t) {
			t.Error("it does not say that it was up already")
		}
		if now := l.status(t).PID; now != pid {
			t.Errorf("the supervisor was process %d and is %d", pid, now)
		}
	})
	t.Run("its components run and never ended", func(t *testing.T) {
		st := l.status(t)
		want := []string{"containerd", "coredns", "etcd", "kube-apiserver", "kube-controller-manager", "kube-proxy", "kube-scheduler", "kubelet"}
		var got []string
		for _, c := range st.Components {
			got = append(got, c.Name)
			if c.Restarts != 0 {
				t.Errorf("%s ended: %s\n%s", c.Name, c.LastEnd, tail(c.Log))
			}
			if cmd, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", c.PID)); err != nil || !strings.Contains(string(cmd), c.Name) {
				t.Errorf("process %d is not %s: %q %v", c.PID, c.Name, cmd, err)
			}
		}
		slices.Sort(got)
		if st.State != StateRunning || !slices.Equal(got, want) || st.Memory < 50<<20 {
			t.Errorf("it is %s with %v and %d bytes", st.State, got, st.Memory)
		}
		if !slices.ContainsFunc(st.Images, func(i Image) bool { return i.Name == "docker.io/meshctl/test-app:1" }) {
			t.Errorf("the loaded image is not among %v", st.Images)
		}
	})
	t.Run("a pod finds a service by name, and both of its pods answer", func(t *testing.T) {
		seen := map[string]bool{}
		eventually(t, "waiting for both pods to answer", func() error {
			name, err := ask(address, "/get", url.Values{"url": {"http://app.default.svc.cluster.local/hostname"}})
			seen[name] = true
			if err == nil && len(seen) < 2 {
				err = fmt.Errorf("only %v answered", seen)
			}
			return err
		})
	})
	t.Run("names of the world are denied at once", func(t *testing.T) {
		began := time.Now()
		_, err := ask(address, "/lookup", url.Values{"name": {"example.com"}})
		if err == nil || !strings.Contains(err.Error(), "no such host") || time.Since(began) > 3*time.Second {
			t.Errorf("after %s: %v", time.Since(began), err)
		}
	})
	t.Run("a node port is open at the host's address in pod status, as on any cluster", func(t *testing.T) {
		host := l.kubectl(t, "", "get", "pods", "-l", "app=app", "-o", "jsonpath={.items[0].status.hostIP}")
		if _, ok := machineIP(); !ok {
			t.Skip("SKIPPED: this machine has no address but loopback")
		}
		_, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := ask(net.JoinHostPort(host, port), "/hostname", nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("kubectl logs, exec and port-forward work", func(t *testing.T) {
		if logs := l.kubectl(t, "", "logs", "deployment/app"); !strings.Contains(logs, "serving") {
			t.Errorf("the log is %q", logs)
		}
		if out := l.kubectl(t, "", "exec", "deployment/app", "--", "/app", "echo", "hello"); out != "hello\n" {
			t.Errorf("exec says %q", out)
		}
		l.portForward(t)
	})
	t.Run("volumes hold what they should", func(t *testing.T) {
		labels, err := ask(address, "/file", url.Values{"path": {"/podinfo/labels"}})
		if err != nil || !strings.Contains(labels, `app="app"`) {
			t.Errorf("the downward API says %q, %v", labels, err)
		}
		root, err := ask(address, "/file", url.Values{"path": {"/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"}})
		if err != nil || !strings.Contains(root, "BEGIN CERTIFICATE") {
			t.Errorf("the root certificate is %q, %v", root, err)
		}
	})
	t.Run("a projected token proves its pod, and only to its audience", func(t *testing.T) {
		token, err := ask(address, "/file", url.Values{"path": {"/token/token"}})
		if err != nil {
			t.Fatal(err)
		}
		for audience, want := range map[string]bool{"istio-pilot": true, "somebody-else": false} {
			review, err := json.Marshal(map[string]any{
				"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview",
				"spec": map[string]any{"token": token, "audiences": []string{audience}},
			})
			if err != nil {
				t.Fatal(err)
			}
			var answer struct {
				Status struct {
					Authenticated bool
					User          struct {
						Username string
						Extra    map[string][]string
					}
				}
			}
			if err := json.Unmarshal([]byte(l.kubectl(t, string(review), "create", "-f", "-", "-o", "json")), &answer); err != nil {
				t.Fatal(err)
			}
			if answer.Status.Authenticated != want {
				t.Errorf("for audience %s: authenticated is %v", audience, answer.Status.Authenticated)
			}
			if pod := answer.Status.User.Extra["authentication.kubernetes.io/pod-name"]; want && (len(pod) != 1 || !strings.HasPrefix(pod[0], "app-")) {
				t.Errorf("the token's pod is %v", pod)
			}
		}
	})
	t.Run("rights are checked", func(t *testing.T) {
		cmd := l.kubectlCommand("--as=system:serviceaccount:default:default", "get", "secrets")
		if out, err := cmd.CombinedOutput(); err == nil || !strings.Contains(string(out), "forbidden") {
			t.Errorf("a service account reads secrets: %v %s", err, out)
		}
	})
	t.Run("a job with a native sidecar ends", func(t *testing.T) {
		l.kubectl(t, `
apiVersion: batch/v1
kind: Job
metadata: {name: job}
spec:
  backoffLimit: 2
  template:
    spec:
      restartPolicy: Never
      initContainers:
      - name: sidecar
        image: meshctl/test-app:1
        restartPolicy: Always
        startupProbe: {httpGet: {path: /hostname, port: 8080}, periodSeconds: 1}
      containers:
      - {name: work, image: "meshctl/test-app:1", args: [work, "http://127.0.0.1:8080/hostname"]}
`, "apply", "-f", "-")
		l.kubectl(t, "", "wait", "job/job", "--for=condition=Complete", "--timeout="+patience.String())
	})
	t.Run("the pods of a stateful set have names, in both families of addresses", func(t *testing.T) {
		l.kubectl(t, `
apiVersion: v1
kind: Service
metadata: {name: set}
spec: {clusterIP: None, ipFamilyPolicy: PreferDualStack, selector: {app: set}, ports: [{port: 8080}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: set}
spec:
  serviceName: set
  replicas: 2
  selector: {matchLabels: {app: set}}
  template:
    metadata: {labels: {app: set}}
    spec: {containers: [{name: app, image: "meshctl/test-app:1"}]}
`, "apply", "-f", "-")
		l.kubectl(t, "", "rollout", "status", "statefulset/set", "--timeout="+patience.String())
		eventually(t, "asking set-1 by name", func() error {
			name, err := ask(address, "/get", url.Values{"url": {"http://set-1.set:8080/hostname"}})
			if err == nil && name != "set-1" {
				err = fmt.Errorf("%s answers", name)
			}
			return err
		})
		if !ipv6Works() {
			t.Skip("SKIPPED: no IPv6 on this machine")
		}
		var v6 string
		for ip := range strings.FieldsSeq(l.kubectl(t, "", "get", "pod", "set-0", "-o", "jsonpath={.status.podIPs[*].ip}")) {
			if strings.Contains(ip, ":") {
				v6 = ip
			}
		}
		if name, err := ask(address, "/get", url.Values{"url": {"http://[" + v6 + "]:8080/hostname"}}); err != nil || name != "set-0" {
			t.Errorf("at %q answers %q, %v", v6, name, err)
		}
	})
	t.Run("a component that dies is started again, and the status tells", func(t *testing.T) {
		find := func() Component {
			t.Helper()
			st := l.status(t)
			i := slices.IndexFunc(st.Components, func(c Component) bool { return c.Name == "kube-scheduler" })
			if i < 0 {
				t.Fatal("the scheduler is not in the status")
			}
			return st.Components[i]
		}
		killed := find().PID
		if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "waiting for the scheduler", func() error {
			if c := find(); c.Restarts != 1 || c.PID == 0 || c.PID == killed || c.LastEnd != "killed by signal 9" {
				return fmt.Errorf("it is %+v", c)
			}
			return nil
		})
	})
}

// portForward asks a pod through kubectl port-forward.
func (l *lab) portForward(t *testing.T) {
	t.Helper()
	cmd := l.kubectlCommand("port-forward", "deployment/app", ":8080")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // killed
	}()
	var port int
	// Forwarding from 127.0.0.1:34567 -> 8080
	if _, err := fmt.Fscanf(stdout, "Forwarding from 127.0.0.1:%d -> 8080", &port); err != nil {
		t.Fatal(err)
	}
	if _, err := ask("127.0.0.1:"+strconv.Itoa(port), "/hostname", nil); err != nil {
		t.Error(err)
	}
}
