package kubeinject

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

func TestWriteFile(t *testing.T) {
	t.Run("an existing file keeps its permissions", func(t *testing.T) {
		name := filepath.Join(t.TempDir(), "out.yaml")
		if err := os.WriteFile(name, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(name, []byte("new")); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(name)
		if err != nil || string(text) != "new" || info.Mode().Perm() != 0o600 {
			t.Errorf("got %q with mode %v, %v", text, info.Mode(), err)
		}
	})
	t.Run("a failure leaves nothing behind", func(t *testing.T) {
		dir := t.TempDir()
		target := filepath.Join(dir, "out.yaml")
		if err := os.MkdirAll(filepath.Join(target, "in-the-way"), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := writeFile(target, []byte("new")); err == nil {
			t.Fatal("wrote over a directory")
		}
		entries, err := os.ReadDir(dir)
		if err != nil || len(entries) != 1 {
			t.Errorf("left behind: %v, %v", entries, err)
		}
	})
	t.Run("a pipe is written to, not replaced", func(t *testing.T) {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		defer w.Close()
		if err := writeFile(fmt.Sprintf("/dev/fd/%d", w.Fd()), []byte("text")); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 8)
		if n, err := r.Read(buf); err != nil || string(buf[:n]) != "text" {
			t.Errorf("got %q, %v", buf[:n], err)
		}
	})
}
