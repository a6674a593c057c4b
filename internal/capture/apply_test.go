package capture

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// The pod and a peer are two network namespaces with a cable between them. Everything listens and says who it is:
// the proxy's two ports, the application, the health port, and the peer.
const (
	podV4, peerV4 = "10.77.0.2", "10.77.0.1"
	podV6, peerV6 = "fd77::2", "fd77::1"
)

type lab struct {
	t         *testing.T
	pod, peer netns.NsHandle
}

func newLab(t *testing.T, v6 bool) *lab {
	t.Helper()
	if testing.Short() {
		t.Skip("SKIPPED, nothing was captured: network namespaces are not for -short")
	}
	if os.Geteuid() != 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("network namespaces need root")
		}
		t.Skip("SKIPPED, nothing was captured: network namespaces need root")
	}
	l := &lab{t: t}
	l.onThread(func() error {
		var err error
		if l.peer, err = netns.New(); err != nil {
			return err
		}
		if l.pod, err = netns.New(); err != nil {
			return err
		}
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0", PeerNamespace: netlink.NsFd(l.peer)}
		if err := netlink.LinkAdd(veth); err != nil {
			return err
		}
		if !v6 {
			if err := os.WriteFile("/proc/sys/net/ipv6/conf/all/disable_ipv6", []byte("1"), 0o644); err != nil {
				return err
			}
		}
		return errors.Join(up("eth0", v6, podV4+"/24", podV6+"/64"), route(net.IPv4zero, 0, 32, peerV4), routeIf(v6, net.IPv6zero, 0, 128, peerV6))
	})
	l.in(l.peer, func() error { return up("peer0", v6, peerV4+"/24", peerV6+"/64") })
	t.Cleanup(func() { _ = errors.Join(l.pod.Close(), l.peer.Close()) })
	return l
}

func up(name string, v6 bool, addresses ...string) error {
	for _, n := range []string{"lo", name} {
		link, err := netlink.LinkByName(n)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(link); err != nil {
			return err
		}
		if n == "lo" {
			continue
		}
		for _, a := range addresses {
			addr, err := netlink.ParseAddr(a)
			if err != nil {
				return err
			}
			if addr.IP.To4() == nil {
				if !v6 {
					continue
				}
				addr.Flags = unix.IFA_F_NODAD
			}
			if err := netlink.AddrAdd(link, addr); err != nil {
				return err
			}
		}
	}
	return nil
}

// route sends everything that nothing else is said about to gateway.
func route(ip net.IP, ones, bits int, gateway string) error {
	return netlink.RouteAdd(&netlink.Route{Dst: &net.IPNet{IP: ip, Mask: net.CIDRMask(ones, bits)}, Gw: net.ParseIP(gateway)})
}

func routeIf(yes bool, ip net.IP, ones, bits int, gateway string) error {
	if !yes {
		return nil
	}
	return route(ip, ones, bits, gateway)
}

// onThread runs f on a thread of its own, which ends with it: nothing it did to the thread survives.
func (l *lab) onThread(f func() error) {
	l.t.Helper()
	done := make(chan error)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	if err := <-done; err != nil {
		l.t.Fatal(err)
	}
}

func (l *lab) in(ns netns.NsHandle, f func() error) {
	l.t.Helper()
	l.onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		return f()
	})
}

// listen answers every connection with name.
func (l *lab) listen(ns netns.NsHandle, name, address string) {
	l.t.Helper()
	l.in(ns, func() error {
		network := "tcp4"
		if strings.HasPrefix(address, "[") {
			network = "tcp6" // alone: without this it would take IPv4 too
		}
		listener, err := net.Listen(network, address)
		if err != nil {
			return err
		}
		l.t.Cleanup(func() { _ = listener.Close() })
		go func() {
			for {
				c, err := listener.Accept()
				if err != nil {
					return
				}
				_, _ = io.WriteString(c, name)
				_ = c.Close()
			}
		}()
		return nil
	})
}

// dial connects as a user and says who answered.
func (l *lab) dial(ns netns.NsHandle, uid, gid int, from, to string) string {
	l.t.Helper()
	var answer string
	l.in(ns, func() error {
		// The rules match the user of the socket, which is the one its thread has for files.
		for call, id := range map[uintptr]int{unix.SYS_SETFSGID: gid, unix.SYS_SETFSUID: uid} {
			if _, _, errno := syscall.RawSyscall(call, uintptr(id), 0, 0); errno != 0 {
				return errno
			}
		}
		d := net.Dialer{Timeout: 5 * time.Second}
		if from != "" {
			d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
		}
		c, err := d.Dial("tcp", to)
		if err != nil {
			answer = err.Error()
			return nil
		}
		defer c.Close()
		text, err := io.ReadAll(c)
		answer = string(text)
		return err
	})
	return answer
}

func (l *lab) listenAll(v6 bool) {
	hosts := []string{"0.0.0.0"}
	if v6 {
		hosts = append(hosts, "::")
	}
	for _, h := range hosts {
		for port, name := range map[string]string{"15001": "outbound", "15006": "inbound", "8080": "app", "2222": "ssh", "15020": "merged", "15021": "health", "15090": "stats"} {
			l.listen(l.pod, name, net.JoinHostPort(h, port))
		}
		for port, name := range map[string]string{"9000": "peer", "9001": "other peer"} {
			l.listen(l.peer, name, net.JoinHostPort(h, port))
		}
	}
}

func (l *lab) check(v6 bool) {
	l.t.Helper()
	const app, proxy = 1000, 1337
	type world struct{ pod, peer, loopback, source, unknown string }
	worlds := []world{{podV4, peerV4, "127.0.0.1", "127.0.0.6", "10.99.9.9"}}
	if v6 {
		worlds = append(worlds, world{podV6, peerV6, "::1", "::6", "fd99::9"})
	}
	for _, w := range worlds {
		tests := []struct {
			name     string
			ns       netns.NsHandle
			uid, gid int
			from, to string
			want     string
		}{
			{"the application's calls go to the proxy", l.pod, app, app, "", net.JoinHostPort(w.peer, "9000"), "outbound"},
			{"root's too", l.pod, 0, 0, "", net.JoinHostPort(w.peer, "9000"), "outbound"},
			{"an address that exists nowhere too", l.pod, app, app, "", net.JoinHostPort(w.unknown, "80"), "outbound"},
			{"the proxy's own calls do not", l.pod, proxy, proxy, "", net.JoinHostPort(w.peer, "9000"), "peer"},
			{"nor those of its group", l.pod, app, proxy, "", net.JoinHostPort(w.peer, "9000"), "peer"},
			{"calls to the pod go to the proxy", l.peer, app, app, "", net.JoinHostPort(w.pod, "8080"), "inbound"},
			{"to a port nobody serves too", l.peer, app, app, "", net.JoinHostPort(w.pod, "7777"), "inbound"},
			{"probes reach the agent", l.peer, app, app, "", net.JoinHostPort(w.pod, "15021"), "health"},
			{"15020 is left alone", l.peer, app, app, "", net.JoinHostPort(w.pod, "15020"), "merged"},
			{"statistics too", l.peer, app, app, "", net.JoinHostPort(w.pod, "15090"), "stats"},
			{"the application reaches itself by loopback", l.pod, app, app, "", net.JoinHostPort(w.loopback, "8080"), "app"},
			{"and by the pod's address", l.pod, app, app, "", net.JoinHostPort(w.pod, "8080"), "app"},
			{"the proxy reaches the application by loopback", l.pod, proxy, proxy, "", net.JoinHostPort(w.loopback, "8080"), "app"},
			{"the proxy calling its own pod takes the inbound side", l.pod, proxy, proxy, "", net.JoinHostPort(w.pod, "8080"), "inbound"},
			{"what it hands on unchanged does not", l.pod, proxy, proxy, w.source, net.JoinHostPort(w.pod, "8080"), "app"},
		}
		for _, tt := range tests {
			if got := l.dial(tt.ns, tt.uid, tt.gid, tt.from, tt.to); got != tt.want {
				l.t.Errorf("%s: %s answered %q, want %q", tt.name, tt.to, got, tt.want)
			}
		}
	}
}

var counters = regexp.MustCompile(`\[\d+:\d+\]`)

// saved are the rules without counters and comments.
func saved(ctx context.Context, b backend) (string, error) {
	out, err := run(ctx, "", b.save, "-t", "nat")
	var kept strings.Builder
	for line := range strings.Lines(out) {
		if !strings.HasPrefix(line, "#") {
			kept.WriteString(counters.ReplaceAllString(line, ""))
		}
	}
	return kept.String(), err
}

func TestApplyInANamespace(t *testing.T) {
	names := map[string]bool{}
	for i, b4 := range backends(IPv4()) {
		b6 := backends(IPv6())[i]
		if _, err := exec.LookPath(b4.restore[0]); err != nil || names[b4.name] {
			continue
		}
		names[b4.name] = true
		t.Run(b4.name, func(t *testing.T) {
			l := newLab(t, true)
			l.listenAll(true)
			if got := l.dial(l.pod, 1000, 1000, "", net.JoinHostPort(peerV6, "9000")); got != "peer" {
				t.Fatalf("without rules: %q", got)
			}
			apply := func() error {
				return errors.Join(b4.apply(t.Context(), standard(), IPv4()), b6.apply(t.Context(), standard(), IPv6()), addSource(IPv6()))
			}
			var once, twice string
			l.in(l.pod, func() error {
				if err := apply(); err != nil {
					return err
				}
				v4, err4 := saved(t.Context(), b4)
				v6, err6 := saved(t.Context(), b6)
				once = v4 + v6
				return errors.Join(err4, err6)
			})
			l.check(true)
			l.in(l.pod, func() error {
				if err := apply(); err != nil {
					return err
				}
				v4, err4 := saved(t.Context(), b4)
				v6, err6 := saved(t.Context(), b6)
				twice = v4 + v6
				return errors.Join(err4, err6)
			})
			if once == "" || once != twice {
				t.Errorf("applying twice differs from once:\n%s", cmp.Diff(once, twice))
			}
			l.check(true)
		})
	}
	if len(names) == 0 {
		if os.Getenv("CI") != "" {
			t.Fatal("no iptables-restore is installed")
		}
		t.Skip("SKIPPED, nothing was captured: no iptables-restore is installed")
	}
}

func TestApplyChoosesWhatWorks(t *testing.T) {
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	t.Run("both families", func(t *testing.T) {
		l := newLab(t, true)
		l.listenAll(true)
		l.in(l.pod, func() error { return Apply(t.Context(), standard(), log) })
		l.check(true)
	})
	t.Run("a pod without IPv6", func(t *testing.T) {
		l := newLab(t, false)
		l.listenAll(false)
		l.in(l.pod, func() error { return Apply(t.Context(), standard(), log) })
		l.check(false)
	})
	t.Run("another's rules stay, ours are replaced", func(t *testing.T) {
		l := newLab(t, true)
		l.listenAll(true)
		c := standard()
		c.ExcludeInboundPorts, c.ExcludeOutboundPorts = []int{2222}, []int{9001}
		l.in(l.pod, func() error {
			if _, err := run(t.Context(), "*nat\n-A PREROUTING -p tcp -m tcp --dport 4444 -j REDIRECT --to-ports 2222\nCOMMIT\n", []string{"iptables-nft-restore"}, "--noflush"); err != nil {
				return fmt.Errorf("preparing: %w", err)
			}
			return errors.Join(Apply(t.Context(), standard(), log), Apply(t.Context(), c, log))
		})
		for _, tt := range []struct {
			ns       netns.NsHandle
			to, want string
		}{
			{l.peer, podV4 + ":4444", "ssh"}, {l.peer, podV4 + ":2222", "ssh"}, {l.peer, podV4 + ":8080", "inbound"},
			{l.pod, peerV4 + ":9001", "other peer"}, {l.pod, peerV4 + ":9000", "outbound"},
		} {
			if got := l.dial(tt.ns, 1000, 1000, "", tt.to); got != tt.want {
				t.Errorf("%s answered %q, want %q", tt.to, got, tt.want)
			}
		}
	})
	t.Run("ranges", func(t *testing.T) {
		l := newLab(t, true)
		l.listenAll(true)
		c := standard()
		c.IncludeRanges, c.ExcludeRanges = prefixes("10.0.0.0/8", "fd99::/16"), prefixes("10.99.0.0/16")
		l.listen(l.peer, "peer by a range not included", net.JoinHostPort(peerV6, "9002"))
		l.in(l.pod, func() error { return Apply(t.Context(), c, log) })
		for to, want := range map[string]string{
			peerV4 + ":9000": "outbound", net.JoinHostPort(peerV6, "9000"): "peer", "[fd99::1]:80": "outbound",
		} {
			if got := l.dial(l.pod, 1000, 1000, "", to); got != want {
				t.Errorf("%s answered %q, want %q", to, got, want)
			}
		}
		if got := l.dial(l.pod, 1000, 1000, "", "10.99.1.1:80"); got == "outbound" {
			t.Error("an excluded range is captured")
		}
	})
}

func TestApplySaysWhatIsMissing(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := Apply(t.Context(), standard(), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "no iptables-restore is installed") {
		t.Errorf("got %v", err)
	}
}
