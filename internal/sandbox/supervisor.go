package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// File descriptors that the supervisor inherits from `up`.
const (
	lockFD = 3 + iota
	eventsFD
	machineNetFD
)

// event is a line of progress on its way from the supervisor to `up`.
type event struct {
	// Phase was reached.
	Phase string `json:"phase,omitempty"`
	// Error says why there will be no sandbox.
	Error string `json:"error,omitempty"`
}

// Phases, in the order in which they usually come.
const (
	PhaseNamespaces = "namespaces"
	PhaseContainers = "containerd"
	PhaseAPI        = "API server"
	PhaseNode       = "node"
	PhaseNames      = "names"
	PhaseImages     = "images"
	PhaseReady      = "ready"
)

// Supervise is the process that holds a sandbox together. `up` starts it in the machine's namespaces, where it enters the sandbox's cgroup
// and starts itself anew as PID 1 of the new namespaces. That one returns only when it is told to end, and everything ends with it.
func Supervise() error {
	if os.Getpid() != 1 {
		return enterNamespaces()
	}
	for _, fd := range []int{lockFD, eventsFD, machineNetFD} {
		unix.CloseOnExec(fd)
	}
	events := os.NewFile(eventsFD, "events")
	s := &supervisor{reaper: newReaper(), events: json.NewEncoder(events), started: time.Now()}
	err := json.NewDecoder(os.Stdin).Decode(&s.settings)
	if err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, syscall.SIGINT)
	failed := make(chan error, 1)
	go func() {
		err := s.bringUp()
		if err != nil {
			failed <- err
			return
		}
		s.tell(event{Phase: PhaseReady})
		events.Close()
	}()
	select {
	case <-stop:
		return nil
	case err := <-failed:
		s.tell(event{Error: err.Error()})
		return err
	}
}

// enterNamespaces starts this program again as PID 1 of new namespaces, in the sandbox's cgroup, and returns.
func enterNamespaces() error {
	input, err := io.ReadAll(os.Stdin)
	if err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	var s settings
	if err := json.Unmarshal(input, &s); err != nil {
		return fmt.Errorf("reading settings: %w", err)
	}
	if err := joinCgroups(cgroupName(s.Dir)); err != nil {
		return err
	}
	machineNet, err := os.Open("/proc/self/ns/net")
	if err != nil {
		return err
	}
	// The settings fit into the pipe's buffer, so nobody needs to stay behind to feed it.
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	if _, err := unix.FcntlInt(w.Fd(), unix.F_SETPIPE_SZ, len(input)+1); err != nil {
		return fmt.Errorf("passing settings: %w", err)
	}
	if _, err := w.Write(input); err != nil {
		return fmt.Errorf("passing settings: %w", err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("passing settings: %w", err)
	}
	process, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   os.Environ(),
		Files: []*os.File{r, os.Stdout, os.Stderr, os.NewFile(lockFD, "lock"), os.NewFile(eventsFD, "events"), machineNet},
		Sys: &syscall.SysProcAttr{
			Setsid: true,
			Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC |
				unix.CLONE_NEWCGROUP,
		},
	})
	if err != nil {
		return fmt.Errorf("making namespaces: %w", err)
	}
	return process.Release()
}

// supervisor is PID 1 of a sandbox.
type supervisor struct {
	settings settings
	reaper   *reaper
	forwards *forwarder
	client   kubernetes.Interface
	started  time.Time
	// ready is closed when the cluster is; the control socket tells.
	ready     chan struct{}
	nodePorts nodePorts

	mu         sync.Mutex
	events     *json.Encoder
	components []*component
}

// tell sends progress to `up`, if it still listens: a sandbox comes up without it as well.
func (s *supervisor) tell(e event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.events.Encode(e)
}

// bringUp makes everything, in order, and returns when the cluster is ready for use.
func (s *supervisor) bringUp() error {
	s.ready = make(chan struct{})
	// This /proc is still the machine's: what it calls us is what others can kill us by.
	self, err := os.Readlink("/proc/self")
	if err != nil {
		return err
	}
	if err := os.WriteFile(state(s.settings.Dir).pid(), []byte(self+"\n"), 0o644); err != nil {
		return err
	}
	if err := unix.Sethostname([]byte(nodeName)); err != nil {
		return fmt.Errorf("naming the node: %w", err)
	}
	if err := setUpNetwork(s.settings); err != nil {
		return err
	}
	if err := setUpMounts(&s.settings); err != nil {
		return err
	}
	if s.forwards, err = newForwarder(machineNetFD); err != nil {
		return err
	}
	api, err := s.forwards.open("127.0.0.1:0", "127.0.0.1:"+apiPort)
	if err != nil {
		return err
	}
	if err := writeIdentities(s.settings, "https://"+api.address); err != nil {
		return err
	}
	if err := writeConfigs(s.settings); err != nil {
		return err
	}
	program, err := s.pickIPTables()
	if err != nil {
		return err
	}
	if err := linkIPTables(program); err != nil {
		return err
	}
	if err := s.serveControl(); err != nil {
		return err
	}
	s.tell(event{Phase: PhaseNamespaces})

	// A virtual machine's first start reads 200 MB of program from disk; nothing here is given up before `up` gives up.
	ctx := context.Background()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := s.startContainerd(ctx); err != nil {
			return err
		}
		s.tell(event{Phase: PhaseContainers})
		return nil
	})
	group.Go(func() error {
		s.keep("etcd", etcdArgs()...)
		s.keep("kube-apiserver", s.settings.apiserverArgs()...)
		if err := s.waitAPI(ctx); err != nil {
			return err
		}
		s.tell(event{Phase: PhaseAPI})
		s.keep("kube-controller-manager", s.settings.controllerArgs()...)
		s.keep("kube-scheduler", schedulerArgs()...)
		s.keep("kube-proxy", s.settings.proxyArgs()...)
		return applyClusterObjects(ctx, s.client, s.settings)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	s.keep("kubelet", s.settings.kubeletArgs()...)
	s.keep("coredns", corednsArgs()...)
	go s.forwardNodePorts(context.Background())

	group, ctx = errgroup.WithContext(context.Background())
	group.Go(func() error {
		defer s.tell(event{Phase: PhaseNode})
		return s.waitNode(ctx)
	})
	group.Go(func() error {
		defer s.tell(event{Phase: PhaseNames})
		return waitNames(ctx)
	})
	if err := group.Wait(); err != nil {
		return err
	}
	close(s.ready)
	return nil
}

// pickIPTables finds the flavour that the kernel has. To list a table says too little: a kernel with nf_tables may lack what takes the
// extensions that kube-proxy and the mesh use. So each flavour writes a rule into the sandbox's own, still empty table and takes it back.
func (s *supervisor) pickIPTables() (string, error) {
	var errs []error
	for _, program := range s.settings.Programs.IPTables {
		err := s.tryRule(program)
		if err == nil {
			return program, nil
		}
		errs = append(errs, err)
	}
	return "", fmt.Errorf("finding out how the kernel translates addresses (modprobe -a nf_tables nft_compat): %w", errors.Join(errs...))
}

func (s *supervisor) tryRule(program string) error {
	for _, change := range []string{"-A", "-D"} {
		_, err := s.output(nil, program, "iptables", "-t", "nat", change, "POSTROUTING", "-m", "comment", "--comment", "probe", "-j", "MASQUERADE")
		if err != nil {
			return err
		}
	}
	return nil
}

// startContainerd starts containerd and waits until it answers.
func (s *supervisor) startContainerd(ctx context.Context) error {
	path := s.settings.Programs.find("containerd")
	s.keepProgram("containerd", []string{path, "--config", at("containerd.toml")})
	return poll(ctx, "waiting for containerd", func() error {
		conn, err := net.Dial("unix", containerdSocket)
		if err != nil {
			return err
		}
		return conn.Close()
	})
}

// waitAPI waits until the API server is ready and connects to it.
func (s *supervisor) waitAPI(ctx context.Context) error {
	config, err := clientcmd.BuildConfigFromFlags("", at("pki/admin.kubeconfig"))
	if err != nil {
		return err
	}
	config.QPS = -1
	s.client, err = kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	return poll(ctx, "waiting for the API server", func() error {
		status := 0
		err := s.client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status).Error()
		if err == nil && status != http.StatusOK {
			return fmt.Errorf("/readyz answers %d", status)
		}
		return err
	})
}

// waitNode waits until pods can be run: the node is ready and the first service account is there.
func (s *supervisor) waitNode(ctx context.Context) error {
	return poll(ctx, "waiting for the node", func() error {
		node, err := s.client.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if _, err := s.client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{}); err != nil {
			return err
		}
		for _, taint := range node.Spec.Taints {
			if taint.Key == corev1.TaintNodeNotReady {
				return errors.New("the node is still marked not ready")
			}
		}
		for _, c := range node.Status.Conditions {
			if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
				return nil
			} else if c.Type == corev1.NodeReady {
				return errors.New(c.Message)
			}
		}
		return errors.New("the node does not report yet")
	})
}

// waitNames waits until a name is resolved by way of the service address: CoreDNS and kube-proxy both work then.
func waitNames(ctx context.Context) error {
	resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{Timeout: time.Second}).DialContext(ctx, network, dnsServiceIP+":53")
	}}
	return poll(ctx, "waiting for names", func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := resolver.LookupHost(ctx, "kubernetes.default.svc."+clusterDomain+".")
		return err
	})
}

// poll tries until it succeeds or ctx ends.
func poll(ctx context.Context, doing string, try func() error) error {
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		err := try()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s: %w (last: %w)", doing, ctx.Err(), err)
		case <-ticker.C:
		}
	}
}

// component is a program that is kept running.
type component struct {
	name string
	argv []string

	mu       sync.Mutex
	pid      int
	restarts int
	lastEnd  string
}

// keep keeps one of meshbox's components running.
func (s *supervisor) keep(name string, args ...string) {
	s.keepProgram(name, append([]string{s.settings.Programs.Meshbox, name}, args...))
}

// keepProgram starts a program and starts it again whenever it ends, each time a little later if it keeps ending. Its end is on record
// in its log and in the status.
func (s *supervisor) keepProgram(name string, argv []string) {
	c := &component{name: name, argv: argv}
	s.mu.Lock()
	s.components = append(s.components, c)
	s.mu.Unlock()
	go func() {
		const shortest, longest = 200 * time.Millisecond, 5 * time.Second
		for pause := shortest; ; pause = min(2*pause, longest) {
			began := time.Now()
			end := s.runOnce(c)
			fmt.Fprintf(os.Stderr, "%s %s ended after %s: %s\n",
				time.Now().UTC().Format(time.RFC3339), c.name, time.Since(began).Round(time.Millisecond), end)
			if time.Since(began) > time.Minute {
				pause = shortest
			}
			time.Sleep(pause)
		}
	}()
}

// runOnce runs a component until it ends and says how.
func (s *supervisor) runOnce(c *component) string {
	end := func(why string) string {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.pid, c.lastEnd = 0, why
		c.restarts++
		return why
	}
	log, err := os.OpenFile(state(inside).log(c.name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return end(err.Error())
	}
	defer log.Close()
	pid, ended, err := s.reaper.start(c.argv, s.settings.Programs.environment(), nil, log)
	if err != nil {
		return end(err.Error())
	}
	c.mu.Lock()
	c.pid = pid
	c.mu.Unlock()
	return end(describe(<-ended))
}

func describe(status syscall.WaitStatus) string {
	if status.Signaled() {
		return "killed by signal " + strconv.Itoa(int(status.Signal()))
	}
	return "exit status " + strconv.Itoa(status.ExitStatus())
}
