package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"servent/admin"
	"servent/system"
)

func made(t *testing.T) Folder {
	t.Helper()
	f := FolderOf(t.TempDir())
	if err := f.Make(); err != nil {
		t.Fatal(err)
	}
	return f
}

func TestLock(t *testing.T) {
	f := made(t)
	if !f.Free() {
		t.Error("a new folder is not free")
	}
	unlock, err := f.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Free() {
		t.Error("a locked folder is free")
	}
	if _, err := f.lock(t.Context()); !errors.Is(err, ErrRunning) || system.Next(err) != "servent ps" {
		t.Errorf("second lock = %v, want ErrRunning and what to try", err)
	}
	unlock()
	if !f.Free() {
		t.Error("an unlocked folder is not free")
	}
}

// A run.json alone is no running system: its process was killed, or the folder is a copy.
func TestClientNeedsTheLock(t *testing.T) {
	f := made(t)
	if _, err := f.Client(); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("Client of nothing = %v, want ErrNotRunning", err)
	}
	if err := f.write(runName, Info{Pid: 1, URL: "http://127.0.0.1:1"}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Client(); !errors.Is(err, admin.ErrNotRunning) {
		t.Errorf("Client of what was left = %v, want ErrNotRunning", err)
	}
	unlock, err := f.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer unlock()
	if _, err := f.Client(); err != nil {
		t.Errorf("Client of what runs = %v", err)
	}
}

func TestOpenKeeps(t *testing.T) {
	f := made(t)
	first, _, err := f.open("laptop")
	if err != nil {
		t.Fatal(err)
	}
	second, ca, err := f.open("laptop")
	if err != nil || second.Cluster != first.Cluster || ca == nil {
		t.Errorf("second open: cluster %v %v, want %s", second, err, first.Cluster)
	}
	info, err := os.Stat(f.path(keptName))
	if err != nil || info.Mode().Perm()&0o077 != 0 {
		t.Errorf("%s: %v %v, want it private: it holds the cluster's key", keptName, info.Mode(), err)
	}
}

func TestOpenUnreadable(t *testing.T) {
	for name, text := range map[string]string{"half": `{"cluster": "lap`, "empty": "", "no cluster": "{}", "no authority": `{"cluster": "laptop-x", "authority": "AAAA"}`} {
		t.Run(name, func(t *testing.T) {
			f := made(t)
			if err := os.WriteFile(f.path(keptName), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, _, err := f.open("laptop")
			if err == nil || !strings.Contains(err.Error(), keptName) || !strings.Contains(system.Next(err), "mv "+string(f)) {
				t.Errorf("open = %v (next: %s), want the file's name and how to begin anew", err, system.Next(err))
			}
			if b, err := os.ReadFile(f.path(keptName)); err != nil || string(b) != text {
				t.Errorf("the file was touched: %q %v", b, err)
			}
		})
	}
}

func TestRemove(t *testing.T) {
	f := made(t)
	if err := os.MkdirAll(filepath.Join(f.node("node-1"), "volumes"), 0o700); err != nil {
		t.Fatal(err)
	}
	unlock, err := f.lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Remove(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("Remove of what runs = %v, want ErrRunning", err)
	}
	unlock()
	if err := f.Remove(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(f.nodes()); !os.IsNotExist(err) {
		t.Errorf("data is still there: %v", err)
	}
	if err := FolderOf(t.TempDir()).Remove(t.Context()); err != nil {
		t.Errorf("Remove of nothing = %v", err)
	}
}

func TestFolderNotWritable(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file") // a folder cannot be made in a file, whoever asks
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := FolderOf(file).Make(); err == nil || !strings.Contains(err.Error(), "make the state folder") {
		t.Errorf("Make = %v", err)
	}
	err := Folder("/x/.servent").hint(&os.PathError{Op: "mkdir", Path: "/x/.servent", Err: os.ErrPermission})
	if !strings.HasPrefix(system.Next(err), "ls -ld") {
		t.Errorf("no permission: next %q, want a look at the folder", system.Next(err))
	}
}

func TestLastWords(t *testing.T) {
	for _, tt := range []struct{ name, text, want, next string }{
		{"nothing", "", "", ""},
		{"no word of ours", "panic: no\n", "", ""},
		{"an error", "note: x\nservent: it failed\n", "it failed", ""},
		{"and what to try", "servent: old\nservent: it failed\r\nnext: servent ps\n", "it failed", "servent ps"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err, got := lastWords(tt.text), ""
			if err != nil {
				got = err.Error()
			}
			if got != tt.want || system.Next(err) != tt.next {
				t.Errorf("lastWords = %q (next: %q), want %q (next: %q)", got, system.Next(err), tt.want, tt.next)
			}
		})
	}
}
