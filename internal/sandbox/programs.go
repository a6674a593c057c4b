package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// Programs says where everything is that a sandbox runs.
type Programs struct {
	// Meshbox is our binary with Kubernetes, etcd, kubectl and CoreDNS in it.
	Meshbox string
	// Images are the OCI archives that `up` imports.
	Images []string
	// Path and Libraries are directories for PATH and LD_LIBRARY_PATH of the distribution's programs.
	Path      []string
	Libraries []string
	// CNI is the directory of the CNI plugins.
	CNI string
	// IPTables are the multi-call programs behind iptables and ip6tables, the preferred one first: which one the kernel takes shows inside.
	IPTables []string
}

// cniDirs is where distributions put the CNI plugins.
var cniDirs = [...]string{"/usr/lib/cni", "/opt/cni/bin", "/usr/libexec/cni"}

// FindPrograms looks beside self, the running meshctl, for meshbox and image archives, and for the distribution's programs first in the
// repository's .cache/tools, where .ci/deps unpacks them, and then on the PATH. What is missing comes back as one error a line, each with
// the command that mends it.
func FindPrograms(self string) (Programs, error) {
	if resolved, err := filepath.EvalSymlinks(self); err == nil {
		self = resolved
	}
	bin := filepath.Dir(self)
	repository := filepath.Dir(bin)
	p := Programs{Meshbox: filepath.Join(bin, "meshbox")}
	var missing []error
	if !isFile(p.Meshbox) {
		missing = append(missing, fmt.Errorf("%s is missing: make it with `make build`", p.Meshbox))
	}
	images, err := filepath.Glob(filepath.Join(bin, "images", "*.tar"))
	if err != nil {
		return p, err
	}
	p.Images = images

	root := filepath.Join(repository, ".cache", "tools", "root")
	cni := cniDirs[:]
	search := filepath.SplitList(os.Getenv("PATH"))
	if isDir(root) {
		for _, dir := range []string{"usr/bin", "usr/sbin", "bin", "sbin"} {
			if dir = filepath.Join(root, dir); isDir(dir) {
				p.Path = append(p.Path, dir)
			}
		}
		for _, pattern := range []string{"usr/lib/*-linux-gnu", "lib/*-linux-gnu"} {
			dirs, err := filepath.Glob(filepath.Join(root, pattern))
			if err != nil {
				return p, err
			}
			p.Libraries = append(p.Libraries, dirs...)
		}
		cni = append([]string{filepath.Join(root, "usr/lib/cni")}, cni...)
	}
	p.Path = append(p.Path, search...)
	p.Path = append(p.Path, "/usr/sbin", "/sbin") // not on every user's PATH

	mend := "apt-get install "
	if isFile(filepath.Join(repository, ".ci", "deps")) {
		mend = filepath.Join(repository, ".ci", "deps") + " sandbox # or: apt-get install "
	}
	for program, debian := range map[string]string{
		"containerd": "containerd", "containerd-shim-runc-v2": "containerd", "ctr": "containerd", "runc": "runc",
	} {
		if p.find(program) == "" {
			missing = append(missing, fmt.Errorf("%s is missing: %s%s", program, mend, debian))
		}
	}
	for _, dir := range cni {
		if isFile(filepath.Join(dir, "ptp")) && isFile(filepath.Join(dir, "host-local")) {
			p.CNI = dir
			break
		}
	}
	if p.CNI == "" {
		missing = append(missing, fmt.Errorf("the CNI plugins ptp and host-local are missing: %scontainernetworking-plugins", mend))
	}
	for _, name := range []string{"xtables-nft-multi", "xtables-legacy-multi"} {
		if path := p.find(name); path != "" {
			p.IPTables = append(p.IPTables, path)
		}
	}
	if len(p.IPTables) == 0 {
		missing = append(missing, fmt.Errorf("iptables is missing: %siptables", mend))
	}
	return p, errors.Join(missing...)
}

// CheckMachine says, one line each, what of this machine stands in a sandbox's way.
func CheckMachine() error {
	var problems []error
	if os.Geteuid() != 0 {
		return errors.New("a sandbox needs root, as every local Kubernetes does: run it with sudo")
	}
	caps := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&caps, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for name, bit := range map[string]uint{"SYS_ADMIN": unix.CAP_SYS_ADMIN, "NET_ADMIN": unix.CAP_NET_ADMIN} {
		if data[bit/32].Effective&(1<<(bit%32)) == 0 {
			problems = append(problems, fmt.Errorf("capability %s is missing: run on the machine itself or in a privileged container", name))
		}
	}
	filesystems, err := os.ReadFile("/proc/filesystems")
	if err != nil {
		return fmt.Errorf("reading the kernel's features: %w", err)
	}
	if !strings.Contains(string(filesystems), "\toverlay\n") {
		// The kernel loads it when it is first mounted, so a machine with the module has it too; only the absence of both is a problem.
		if err := exec.Command("modprobe", "overlay").Run(); err != nil {
			problems = append(problems, errors.New("the kernel has no overlay filesystem: modprobe overlay"))
		}
	}
	for _, ns := range []string{"pid", "net", "mnt", "uts", "ipc", "cgroup"} {
		if _, err := os.Stat("/proc/self/ns/" + ns); err != nil {
			problems = append(problems, fmt.Errorf("the kernel has no %s namespaces: the kubelet cannot run on this machine", ns))
		}
	}
	if _, err := findCgroups(); err != nil {
		problems = append(problems, err)
	}
	return errors.Join(problems...)
}

// find is the path of a program, or empty.
func (p *Programs) find(name string) string {
	for _, dir := range p.Path {
		path := filepath.Join(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0 {
			return path
		}
	}
	return ""
}

// environment is what components are started with.
func (p *Programs) environment(extra ...string) []string {
	env := []string{
		"PATH=" + strings.Join(append([]string{inside + "/bin"}, p.Path...), ":"),
		"HOME=/root", "TMPDIR=/tmp",
	}
	if len(p.Libraries) > 0 {
		env = append(env, "LD_LIBRARY_PATH="+strings.Join(p.Libraries, ":"))
	}
	// iptables finds its extensions by a path of its own.
	for _, dir := range p.Libraries {
		if xtables := filepath.Join(dir, "xtables"); isDir(xtables) {
			env = append(env, "XTABLES_LIBDIR="+xtables)
			break
		}
	}
	return append(env, extra...)
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func isDir(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}
