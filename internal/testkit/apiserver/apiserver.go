// Package apiserver gives tests a real Kubernetes API: etcd and kube-apiserver of bin/meshbox on loopback, no root, no nodes.
//
// One server is shared by all tests of a package and every test takes a namespace of its own:
//
//	func TestMain(m *testing.M) { os.Exit(apiserver.Run(m)) }
//
//	func TestX(t *testing.T) {
//		server := apiserver.Shared(t)
//		ns := server.Namespace(t)
//		...
//	}
//
// There are no controllers: nothing makes service accounts, runs pods or finishes deleting a namespace.
package apiserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/meshctl/meshctl/internal/sandbox"
	"github.com/meshctl/meshctl/internal/testkit/freeport"
)

// startTimeout is generous: a loaded two-core machine takes several times the usual three seconds.
const startTimeout = 2 * time.Minute

// Server is a running API server.
type Server struct {
	// URL is https://127.0.0.1:PORT.
	URL string
	// Kubeconfig is the path of a kubeconfig with every right; its namespace is default.
	Kubeconfig string

	dir       string
	authority *sandbox.Authority
	processes []*process
	release   func() // gives the port back
}

// shared is what Run lends to the tests of its package.
var shared struct {
	sync.Mutex
	running bool
	server  *Server
	err     error
}

// Run runs the package's tests and then stops the server, if one of them started it. It returns the exit status for os.Exit.
func Run(m *testing.M) int {
	shared.Lock()
	shared.running = true
	shared.Unlock()
	code := m.Run()
	shared.Lock()
	defer shared.Unlock()
	if shared.server != nil {
		shared.server.Stop()
	}
	return code
}

// Shared is the package's server, started by the first test that asks. Where bin/meshbox is missing the test is skipped, but under CI it fails.
func Shared(t testing.TB) *Server {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED: an API server is not for -short")
	}
	shared.Lock()
	defer shared.Unlock()
	if !shared.running {
		t.Fatal("this package's TestMain must call apiserver.Run")
	}
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start()
	}
	if errors.Is(shared.err, errNoMeshbox) && os.Getenv("CI") != "true" {
		t.Skipf("SKIPPED: %v", shared.err)
	}
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.server
}

// errNoMeshbox is what Start says where nothing was built.
var errNoMeshbox = errors.New("bin/meshbox is missing: make it with `make build`")

// Start starts a server for the caller alone, who must Stop it.
func Start() (_ *Server, err error) {
	meshbox, err := findMeshbox()
	if err != nil {
		return nil, err
	}
	// Unix socket paths must stay short, hence not t.TempDir.
	dir, err := os.MkdirTemp("", "api")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir}
	defer func() {
		if err != nil {
			s.Stop()
		}
	}()
	port, release, err := freeport.Take()
	if err != nil {
		return nil, err
	}
	s.release = release
	s.URL = "https://127.0.0.1:" + strconv.Itoa(port)
	if err := s.issue(); err != nil {
		return nil, err
	}
	pki := filepath.Join(dir, "pki")
	client := "unix://" + filepath.Join(dir, "etcd.sock:0")
	peer := "unix://" + filepath.Join(dir, "peer.sock:0")
	etcd, err := s.start("etcd", meshbox, "etcd",
		"--name=default", "--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+client, "--advertise-client-urls="+client,
		"--listen-peer-urls="+peer, "--initial-advertise-peer-urls="+peer, "--initial-cluster=default="+peer)
	if err != nil {
		return nil, err
	}
	api, err := s.start("kube-apiserver", meshbox, "kube-apiserver",
		"--etcd-servers="+client,
		"--bind-address=127.0.0.1", "--endpoint-reconciler-type=none", "--secure-port="+strconv.Itoa(port),
		"--tls-cert-file="+filepath.Join(pki, "apiserver.crt"), "--tls-private-key-file="+filepath.Join(pki, "apiserver.key"),
		"--client-ca-file="+s.authority.CertFile(),
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-signing-key-file="+filepath.Join(pki, "sa.key"), "--service-account-key-file="+filepath.Join(pki, "sa.pub"),
		"--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=Node,RBAC",
		// No controller makes service accounts here, and pods must be creatable all the same.
		"--disable-admission-plugins=ServiceAccount")
	if err != nil {
		return nil, err
	}
	return s, s.waitReady(etcd, api)
}

// Stop ends the server and removes its files.
func (s *Server) Stop() {
	for _, p := range s.processes {
		p.stop()
	}
	if s.release != nil {
		s.release()
	}
	os.RemoveAll(s.dir)
}

// Config is a REST configuration with every right and without client-side throttling.
func (s *Server) Config(t testing.TB) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	config.QPS = -1
	return config
}

// Client is a client with every right.
func (s *Server) Client(t testing.TB) kubernetes.Interface {
	t.Helper()
	client, err := kubernetes.NewForConfig(s.Config(t))
	if err != nil {
		t.Fatal(err)
	}
	return client
}

// Namespace makes a namespace for this test alone and marks it for deletion when the test ends.
func (s *Server) Namespace(t testing.TB) string {
	t.Helper()
	namespaces := s.Client(t).CoreV1().Namespaces()
	ns, err := namespaces.Create(context.Background(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "test-"}}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := namespaces.Delete(context.Background(), ns.Name, metav1.DeleteOptions{}); err != nil {
			t.Error(err)
		}
	})
	return ns.Name
}

// KubeconfigFor writes a kubeconfig with every right whose namespace is ns.
func (s *Server) KubeconfigFor(t testing.TB, ns string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := s.authority.Kubeconfig(path, s.URL, "admin", ns); err != nil {
		t.Fatal(err)
	}
	return path
}

func (s *Server) issue() error {
	var err error
	if s.authority, err = sandbox.NewAuthority(filepath.Join(s.dir, "pki")); err != nil {
		return err
	}
	if err := s.authority.SigningKey("sa"); err != nil {
		return err
	}
	if err := s.authority.Issue("apiserver", sandbox.Identity{User: "kube-apiserver", Names: []string{"localhost"}, IPs: []string{"127.0.0.1", "10.96.0.1"}}); err != nil {
		return err
	}
	if err := s.authority.Issue("admin", sandbox.Identity{User: "admin", Groups: []string{"system:masters"}}); err != nil {
		return err
	}
	s.Kubeconfig = filepath.Join(s.dir, "kubeconfig")
	return s.authority.Kubeconfig(s.Kubeconfig, s.URL, "admin", "default")
}

// waitReady returns when the server says it is ready and the namespace default exists, or when a process ended before that.
func (s *Server) waitReady(processes ...*process) error {
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	config, err := clientcmd.BuildConfigFromFlags("", s.Kubeconfig)
	if err != nil {
		return err
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for {
		status := 0
		result := client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).StatusCode(&status)
		if result.Error() == nil && status == http.StatusOK {
			if _, err = client.CoreV1().Namespaces().Get(ctx, "default", metav1.GetOptions{}); err == nil {
				return nil
			}
		}
		for _, p := range processes {
			if p.ended() {
				return fmt.Errorf("starting %s: it ended: %s", p.name, p.tail())
			}
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for the API server: %w: %s", ctx.Err(), processes[len(processes)-1].tail())
		case <-ticker.C:
		}
	}
}

// process is one component. The kernel kills it when the test process dies, however that happens.
type process struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

func (s *Server) start(name, meshbox string, args ...string) (*process, error) {
	p := &process{name: name, log: filepath.Join(s.dir, name+".log"), cmd: exec.Command(meshbox, args...), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go func() {
		// The death signal is tied to the thread that started the process, so that thread must live as long.
		runtime.LockOSThread()
		defer log.Close()
		err := p.cmd.Start()
		started <- err
		if err == nil {
			// How it ended is told by its log; it is always ended by a signal or by an error of its own.
			_ = p.cmd.Wait()
		}
		close(p.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	s.processes = append(s.processes, p)
	return p, nil
}

func (p *process) ended() bool {
	select {
	case <-p.done:
		return true
	default:
		return false
	}
}

// stop kills: nothing here is worth a slow farewell, its files are removed next.
func (p *process) stop() {
	if !p.ended() {
		_ = p.cmd.Process.Kill() // it may have ended in between
	}
	<-p.done
}

// tail is the end of the process's log.
func (p *process) tail() string {
	f, err := os.Open(p.log)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	const keep = 2048
	if info, err := f.Stat(); err == nil && info.Size() > keep {
		if _, err := f.Seek(-keep, io.SeekEnd); err != nil {
			return err.Error()
		}
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return err.Error()
	}
	return string(data)
}

// findMeshbox looks for bin/meshbox in the repository that holds the working directory.
func findMeshbox() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for ; dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		path := filepath.Join(dir, "bin", "meshbox")
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", errNoMeshbox
}
