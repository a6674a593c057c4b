package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/vishvananda/netlink"
)

// machine is what a sandbox must not change.
type machine struct {
	links, routes, mounts, firewall string
	directories                     map[string]bool
}

func lookAtMachine(t *testing.T, p Programs) machine {
	t.Helper()
	m := machine{directories: map[string]bool{}}
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		m.links += l.Attrs().Name + " " + l.Type() + "\n"
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		m.routes += r.String() + "\n"
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	m.mounts = string(mounts)
	for _, flavour := range []string{"xtables-nft-multi", "xtables-legacy-multi"} {
		program := p.find(flavour)
		if program == "" {
			continue
		}
		for _, save := range []string{"iptables-save", "ip6tables-save"} {
			cmd := exec.Command(program, save)
			cmd.Env = p.environment()
			out, err := cmd.Output()
			if err != nil {
				t.Fatalf("%s %s: %v", flavour, save, err)
			}
			for line := range strings.Lines(string(out)) {
				if !strings.HasPrefix(line, "#") && !strings.HasPrefix(line, ":") { // times and counters
					m.firewall += line
				}
			}
		}
	}
	for _, dir := range []string{
		"/var/lib/cni", "/var/lib/kubelet", "/var/lib/containerd", "/run/containerd", "/run/cni-ipam", "/var/log/pods", "/var/log/containers",
		"/etc/cni", "/run/meshbox", "/run/netns", "/run/xtables.lock",
	} {
		_, err := os.Lstat(dir)
		m.directories[dir] = err == nil
	}
	return m
}

func (m machine) compare(t *testing.T, now machine) {
	t.Helper()
	for what, pair := range map[string][2]string{
		"links": {m.links, now.links}, "routes": {m.routes, now.routes}, "mounts": {m.mounts, now.mounts}, "firewall": {m.firewall, now.firewall},
	} {
		if pair[0] != pair[1] {
			t.Errorf("the machine's %s changed from\n%s\nto\n%s", what, pair[0], pair[1])
		}
	}
	for dir, was := range m.directories {
		if now.directories[dir] != was {
			t.Errorf("%s: there before: %v, now: %v", dir, was, now.directories[dir])
		}
	}
}

// process is one process, for ever: its number may be another's later, with another start.
type process struct{ pid, start string }

// processesOf lists the processes of a sandbox: they are in its cgroup.
func processesOf(t *testing.T, dir string) []process {
	t.Helper()
	cgroups, err := filepath.Glob("/proc/[0-9]*/cgroup")
	if err != nil {
		t.Fatal(err)
	}
	var found []process
	for _, path := range cgroups {
		// Those that end while we look are not there.
		if data, err := os.ReadFile(path); err == nil && strings.Contains(string(data), "/"+cgroupName(dir)) {
			pid := filepath.Base(filepath.Dir(path))
			if start := startOf(pid); start != "" {
				found = append(found, process{pid, start})
			}
		}
	}
	return found
}

// startOf is when a process started, in the kernel's count; empty where there is none, or only the entry of a dead one that the machine's
// own PID 1 has not collected yet.
func startOf(pid string) string {
	data, err := os.ReadFile("/proc/" + pid + "/stat")
	if err != nil {
		return ""
	}
	// The name in parentheses may contain anything; the 20th field after it is the start.
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	if fields[0] == "Z" || fields[0] == "X" {
		return ""
	}
	return fields[19]
}

// isolated fails for every namespace that the sandbox shares with the machine. When its processes are gone, so are they.
func isolated(t *testing.T, pid int) {
	t.Helper()
	for _, kind := range []string{"pid", "net", "mnt", "uts", "ipc", "cgroup"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if err != nil {
			t.Fatal(err)
		}
		ours, err := os.Readlink("/proc/self/ns/" + kind)
		if err != nil {
			t.Fatal(err)
		}
		if ours == theirs {
			t.Errorf("the sandbox shares the machine's %s namespace", kind)
		}
	}
}

// gone fails for everything that is left of a sandbox.
func gone(t *testing.T, dir string, had []process) {
	t.Helper()
	for _, p := range had {
		if startOf(p.pid) == p.start {
			t.Errorf("process %s is left", p.pid)
		}
	}
	if left := processesOf(t, dir); len(left) > 0 {
		t.Errorf("processes are left: %v", left)
	}
	cgroups, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range cgroups {
		if _, err := os.Stat(filepath.Join(h.Mount, cgroupName(dir))); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("a cgroup is left in %s (%v)", h.Mount, err)
		}
	}
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the state directory is left (%v)", err)
	}
}

func TestDownLeavesNothingEvenAfterAKill(t *testing.T) {
	for name, strike := range map[string]func(t *testing.T, st Status){
		"a sandbox that runs": func(*testing.T, Status) {},
		"a supervisor that was killed": func(t *testing.T, st Status) {
			if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
		},
		"a state directory that was removed by hand": func(t *testing.T, st Status) {
			if err := os.RemoveAll(st.Dir); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			before := lookAtMachine(t, l.config.Programs)
			l.up(t)
			l.start(t)
			before.compare(t, lookAtMachine(t, l.config.Programs))
			st := l.status(t)
			isolated(t, st.PID)
			had := processesOf(t, st.Dir)
			if len(had) < len(st.Components)+4 { // the supervisor, two pods, and what keeps them
				t.Fatalf("the sandbox's processes are not found: %v", had)
			}
			strike(t, st)
			was, err := Down(l.dir)
			if err != nil || !was {
				t.Fatalf("down says %v, %v", was, err)
			}
			gone(t, st.Dir, had)
			before.compare(t, lookAtMachine(t, l.config.Programs))
			if _, port, err := net.SplitHostPort(strings.TrimPrefix(st.API, "https://")); err != nil {
				t.Error(err)
			} else if conn, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
				conn.Close()
				t.Error("the API server's port still answers")
			}
			if was, err := Down(l.dir); err != nil || was {
				t.Errorf("a second down says %v, %v", was, err)
			}
		})
	}
}

func TestUpClearsAwayWhatAKillLeft(t *testing.T) {
	l := newLab(t)
	l.up(t)
	l.kubectl(t, "", "create", "configmap", "old")
	st := l.status(t)
	if err := syscall.Kill(st.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "waiting for the sandbox's end", func() error {
		now, err := GetStatus(t.Context(), l.dir)
		if err == nil && now.State != StateDown {
			err = fmt.Errorf("it is %s", now.State)
		}
		return err
	})
	if l.up(t) {
		t.Error("up says that it was up already")
	}
	if maps := l.kubectl(t, "", "get", "configmaps", "-o", "name"); strings.Contains(maps, "/old") {
		t.Errorf("the new sandbox has the old one's objects: %s", maps)
	}
}

func TestTwoSandboxesRunAtOnce(t *testing.T) {
	one, two := newLab(t), newLab(t)
	one.up(t)
	two.up(t)
	first, second := one.start(t), two.start(t)
	if first == second {
		t.Fatalf("both have their node port at %s", first)
	}
	pods := two.kubectl(t, "", "get", "pods", "-o", "jsonpath={.items[*].metadata.name}")
	name, err := ask(second, "/hostname", nil)
	if err != nil || !strings.Contains(pods, name) {
		t.Errorf("at the second's node port answers %q (%v), its pods are %s", name, err, pods)
	}
	if _, err := Down(two.dir); err != nil {
		t.Fatal(err)
	}
	if _, err := ask(first, "/hostname", nil); err != nil {
		t.Errorf("the first does not answer after the second went down: %v", err)
	}
}

func TestADirectoryThatIsNotASandboxesIsRefusedAndKept(t *testing.T) {
	needsMachine(t)
	for name, files := range map[string]map[string]string{
		"somebody's files":                          {"thesis.txt": "x", "src/a": "y"},
		"an empty file of an unlucky name":          {"lock": "", "status": "x"},
		"nothing but a lock":                        {"lock": ""},
		"a part of what a sandbox writes":           {lockName: marker[:20]},
		"somebody's file of our name":               {lockName: "mine", "status": "x"},
		"a file of our name that says nothing":      {lockName: "", "kubeconfig": "mine"},
		"a directory of our name":                   {lockName + "/a": "", "kubeconfig": "mine"},
		"what a sandbox has, but not that it is so": {"lock": "", "supervisor.pid": "1", "kubeconfig": "mine", "logs/a.log": "x"},
	} {
		for _, way := range []string{"named", "behind a link", "where we are"} {
			t.Run(name+", "+way, func(t *testing.T) {
				dir := t.TempDir()
				for file, text := range files {
					path := filepath.Join(dir, file)
					if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
						t.Fatal(err)
					}
					if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				given := dir
				switch way {
				case "behind a link":
					given = filepath.Join(t.TempDir(), "link")
					if err := os.Symlink(dir, given); err != nil {
						t.Fatal(err)
					}
				case "where we are":
					t.Chdir(dir)
					given = "."
				}
				_, up := Up(t.Context(), Config{Dir: given, Supervisor: []string{"meshbox", "-test.run=^$"}})
				_, down := Down(given)
				for command, err := range map[string]error{"up": up, "down": down} {
					if !errors.Is(err, ErrForeign) || !strings.Contains(err.Error(), dir) {
						t.Errorf("%s says %v", command, err)
					}
				}
				kept := map[string]string{}
				err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
					if err != nil || d.IsDir() {
						return err
					}
					data, err := os.ReadFile(path)
					file, _ := filepath.Rel(dir, path)
					kept[file] = string(data)
					return err
				})
				if err != nil || !maps.Equal(kept, files) {
					t.Errorf("of %v there is still %v (%v)", files, kept, err)
				}
			})
		}
	}
}

func TestAFileThatSomebodyPutIntoTheStateDirectoryIsKept(t *testing.T) {
	needsMachine(t)
	dir := t.TempDir()
	// The supervisor is a program that ends at once.
	_, err := Up(t.Context(), Config{Dir: dir, Supervisor: []string{"meshbox", "-test.run=^$"}})
	if err == nil || !isFile(state(dir).lock()) {
		t.Fatalf("up says %v", err)
	}
	precious := filepath.Join(dir, "precious")
	if err := os.WriteFile(precious, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if was, err := Down(dir); !was || err == nil || !strings.Contains(err.Error(), "precious") {
		t.Errorf("down says %v, %v", was, err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || !isFile(precious) {
		t.Errorf("left are %v (%v)", entries, err)
	}
}

func TestOnlyProcessesInTheSandboxsOwnCgroupAreEnded(t *testing.T) {
	needsMachine(t)
	dir, other := t.TempDir(), t.TempDir()
	// In one hierarchy, as a process may have left the others.
	hierarchies, err := findCgroups()
	if err != nil {
		t.Fatal(err)
	}
	start := func(dir, below string) *exec.Cmd {
		cmd := exec.Command("sleep", "600")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cgroup := filepath.Join(hierarchies[len(hierarchies)-1].Mount, cgroupName(dir))
		t.Cleanup(func() {
			_ = cmd.Process.Kill() // it may have ended already, which is the point
			_ = cmd.Wait()
			if err := removeCgroups(cgroupName(dir), patience); err != nil {
				t.Error(err)
			}
		})
		if err := os.MkdirAll(filepath.Join(cgroup, below), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(cgroup, below, "cgroup.procs"), []byte(strconv.Itoa(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
		return cmd
	}
	ours, theirs := start(dir, "a/b"), start(other, "")
	if err := removeRemains(dir); err != nil {
		t.Fatal(err)
	}
	if err := ours.Wait(); err == nil || ours.ProcessState.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the sandbox's process ended with %v", err)
	}
	if startOf(strconv.Itoa(theirs.Process.Pid)) == "" {
		t.Error("a process of another sandbox's was ended")
	}
}
