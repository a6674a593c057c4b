package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strconv"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"

	"golang.org/x/sys/unix"
)

// forwarder offers ports of the sandbox on the machine. A socket belongs to the network namespace in which it was made, for good: a thread
// visits the machine's to listen, and connections are made from here.
type forwarder struct {
	machine, own int
}

func newForwarder(machine int) (*forwarder, error) {
	own, err := unix.Open("/proc/self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("opening the network namespace: %w", err)
	}
	return &forwarder{machine: machine, own: own}, nil
}

// forward is one open port.
type forward struct {
	address  string // on the machine
	target   string // inside
	listener net.Listener
}

// open listens on an address of the machine and carries each connection to target.
func (f *forwarder) open(address, target string) (*forward, error) {
	listener, err := f.listen(address)
	if err != nil {
		return nil, err
	}
	fw := &forward{address: listener.Addr().String(), target: target, listener: listener}
	go fw.serve()
	return fw, nil
}

func (f *forwarder) listen(address string) (net.Listener, error) {
	runtime.LockOSThread()
	if err := unix.Setns(f.machine, unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("visiting the machine's network: %w", err)
	}
	listener, err := net.Listen("tcp", address)
	if back := unix.Setns(f.own, unix.CLONE_NEWNET); back != nil {
		// This thread must never run anything else: it stays locked and ends with its goroutine.
		return nil, errors.Join(err, fmt.Errorf("returning from the machine's network: %w", back))
	}
	runtime.UnlockOSThread()
	if err != nil {
		return nil, fmt.Errorf("opening a port: %w", err)
	}
	return listener, nil
}

func (fw *forward) serve() {
	for {
		conn, err := fw.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			// Out of file descriptors, most likely: others will be closed.
			time.Sleep(50 * time.Millisecond)
			continue
		}
		if !fromThisMachine(conn) {
			conn.Close()
			continue
		}
		go carry(conn, fw.target)
	}
}

// fromThisMachine keeps the sandbox off the network: an address of the machine can be reached from elsewhere, but then the peer is another.
func fromThisMachine(conn net.Conn) bool {
	peer, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return false
	}
	local, err := netip.ParseAddrPort(conn.LocalAddr().String())
	return err == nil && (peer.Addr().IsLoopback() || peer.Addr() == local.Addr())
}

// carry copies between the connection and the target until both directions have ended.
func carry(conn net.Conn, target string) {
	defer conn.Close()
	upstream, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		return
	}
	defer upstream.Close()
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{conn, upstream}, {upstream, conn}} {
		both.Go(func() {
			_, err := io.Copy(pair[1], pair[0])
			if err != nil {
				// One side broke off: the other must hear of it at once.
				conn.Close()
				upstream.Close()
				return
			}
			if half, ok := pair[1].(*net.TCPConn); ok {
				_ = half.CloseWrite() // it may be closed already
			}
		})
	}
	both.Wait()
}

// NodePort is a port of a Service that is open on the machine.
type NodePort struct {
	Namespace string `json:"namespace"`
	Service   string `json:"service"`
	Port      string `json:"port"` // its name, or its number where it has none
	NodePort  int32  `json:"nodePort"`
	// Address is where the machine reaches it: 127.0.0.1 and the same number, unless that was taken.
	Address string `json:"address"`
}

// nodePorts are the forwards of Services, kept in step with them.
type nodePorts struct {
	mu   sync.Mutex
	open map[string]openPort // by namespace/service/port
}

type openPort struct {
	NodePort
	forwards []*forward
}

func (p openPort) close() {
	for _, f := range p.forwards {
		f.listener.Close()
	}
}

// forwardNodePorts follows the Services and offers each node port on the machine.
func (s *supervisor) forwardNodePorts(ctx context.Context) {
	for ctx.Err() == nil {
		if err := s.followServices(ctx); err != nil {
			fmt.Fprintf(os.Stderr, "following services: %v\n", err)
		}
		time.Sleep(200 * time.Millisecond)
	}
}

func (s *supervisor) followServices(ctx context.Context) error {
	services := s.client.CoreV1().Services(metav1.NamespaceAll)
	list, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	current := map[string]*corev1.Service{}
	for i := range list.Items {
		current[list.Items[i].Namespace+"/"+list.Items[i].Name] = &list.Items[i]
	}
	s.syncNodePorts(current)
	w, err := services.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	if err != nil {
		return err
	}
	defer w.Stop()
	for e := range w.ResultChan() {
		service, ok := e.Object.(*corev1.Service)
		if !ok {
			return nil // too old, or an error: list again
		}
		key := service.Namespace + "/" + service.Name
		if e.Type == watch.Deleted {
			delete(current, key)
		} else {
			current[key] = service
		}
		s.syncNodePorts(current)
	}
	return nil
}

func (s *supervisor) syncNodePorts(services map[string]*corev1.Service) {
	s.nodePorts.mu.Lock()
	defer s.nodePorts.mu.Unlock()
	if s.nodePorts.open == nil {
		s.nodePorts.open = map[string]openPort{}
	}
	wanted := map[string]NodePort{}
	for key, service := range services {
		for _, port := range service.Spec.Ports {
			if port.NodePort == 0 || port.Protocol == corev1.ProtocolUDP || port.Protocol == corev1.ProtocolSCTP {
				continue
			}
			name := port.Name
			if name == "" {
				name = strconv.Itoa(int(port.Port))
			}
			wanted[key+"/"+name] = NodePort{Namespace: service.Namespace, Service: service.Name, Port: name, NodePort: port.NodePort}
		}
	}
	for key, have := range s.nodePorts.open {
		if want, ok := wanted[key]; !ok || want.NodePort != have.NodePort.NodePort {
			have.close()
			delete(s.nodePorts.open, key)
		}
	}
	for key, want := range wanted {
		if _, ok := s.nodePorts.open[key]; ok {
			continue
		}
		number := strconv.Itoa(int(want.NodePort))
		target := net.JoinHostPort(s.settings.NodeIP, number)
		main, err := s.forwards.open("127.0.0.1:"+number, target)
		if err != nil {
			main, err = s.forwards.open("127.0.0.1:0", target)
		}
		if err != nil {
			fmt.Fprintf(os.Stderr, "offering node port %s: %v\n", number, err)
			continue
		}
		want.Address = main.address
		opened := openPort{NodePort: want, forwards: []*forward{main}}
		if s.settings.LocalNodeIP {
			// The node's address is the machine's too, so that HOSTIP:NODEPORT works as on any cluster. Another sandbox may be there already.
			if f, err := s.forwards.open(target, target); err == nil {
				opened.forwards = append(opened.forwards, f)
			}
		}
		s.nodePorts.open[key] = opened
	}
}
