package sandbox

import (
	"os"
	"path/filepath"
	"testing"
)

func TestOnlyControllersThatAreUsedAreSharedOut(t *testing.T) {
	for name, test := range map[string]struct{ has, shares, want string }{
		"the one that is used and missing is asked for":     {"cpuset cpu io memory hugetlb pids rdma misc", "cpu memory pids cpuset io", "+hugetlb"},
		"memory, which may be refused, comes before others": {"cpu memory", "", "+cpu"},
		"what nobody uses stays off":                        {"cpu memory pids rdma misc", "cpu memory pids", "cpu memory pids"},
		"what the machine has not got is not asked for":     {"cpu memory pids", "cpu memory", "+pids"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			for file, content := range map[string]string{"cgroup.controllers": test.has, "cgroup.subtree_control": test.shares} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := enableControllers(dir); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(filepath.Join(dir, "cgroup.subtree_control"))
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != test.want {
				t.Errorf("%q was written", got)
			}
		})
	}
}
