package sandbox

import (
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
)

// inside is where the state directory appears within the sandbox: one short path in every sandbox, whatever the directory's own is.
const inside = "/run/meshbox"

// The sandbox's network. It is nobody else's: every sandbox has the same addresses.
const (
	nodeName       = "meshbox"
	fallbackNodeIP = "10.99.0.1"
	nodeIPv6       = "fd00:99::1"
	podCIDR        = "10.244.0.0/24"
	podCIDRv6      = "fd00:244::/64"
	serviceCIDR    = "10.96.0.0/16"
	serviceCIDRv6  = "fd00:96::/112"
	apiServiceIP   = "10.96.0.1"
	dnsServiceIP   = "10.96.0.10"
	apiPort        = "6443"
	clusterDomain  = "cluster.local"
)

// settings is what `up` hands to the supervisor.
type settings struct {
	Dir      string   // the state directory, as the machine sees it
	Programs Programs // where everything is
	NodeIP   string
	IPv6     bool
	// LocalNodeIP is set when NodeIP is also an address of the machine, so that ports can be offered there too.
	LocalNodeIP bool
	// ShareOOM is set when scores of the out-of-memory killer cannot be lowered here.
	ShareOOM    bool
	Snapshotter string
	Hierarchies []hierarchy
	// Owner is who may read the kubeconfig.
	Owner Owner
}

// Owner is the user for whom root runs the sandbox; the zero value is root.
type Owner struct{ UID, GID int }

// state names the files of a state directory.
type state string

func (s state) path(elem ...string) string {
	return filepath.Join(append([]string{string(s)}, elem...)...)
}

func (s state) lock() string       { return s.path(lockName) }
func (s state) pid() string        { return s.path("supervisor.pid") }
func (s state) socket() string     { return s.path("control.sock") }
func (s state) kubeconfig() string { return s.path("kubeconfig") }
func (s state) log(component string) string {
	return s.path("logs", component+".log")
}

// DefaultDir is the state directory where none is named. Under sudo it is that of the user who called it, whose kubectl must get there.
func DefaultDir(getenv func(string) string) string {
	if dir := getenv("MESHCTL_SANDBOX_DIR"); dir != "" {
		return dir
	}
	if dir := getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, "meshctl", "sandbox")
	}
	home := getenv("HOME")
	if name := getenv("SUDO_USER"); name != "" {
		if u, err := user.Lookup(name); err == nil {
			home = u.HomeDir
		}
	}
	if home == "" {
		home = "/root"
	}
	return filepath.Join(home, ".local", "state", "meshctl", "sandbox")
}

// ipv6Works says whether the kernel has IPv6 and lets it be used.
func ipv6Works() bool {
	disabled, err := os.ReadFile("/proc/sys/net/ipv6/conf/all/disable_ipv6")
	return err == nil && len(disabled) > 0 && disabled[0] == '0'
}

// inSandboxRanges says whether addr would be mistaken for a pod, a service or the node inside.
func inSandboxRanges(addr netip.Addr) bool {
	for _, cidr := range []string{"10.244.0.0/16", serviceCIDR} {
		if netip.MustParsePrefix(cidr).Contains(addr) {
			return true
		}
	}
	return false
}
