package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"servent/control"
	"servent/control/etcd"
)

// life runs a server in dir while use does, with one store of all keys.
func life(t *testing.T, dir, name string, use func(*etcd.Store)) {
	t.Helper()
	child := etcd.NewChild(etcd.ChildOptions{Argv: []string{program(t), "child"}, Dir: dir, Name: name, Log: t.Output()})
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	done := make(chan error, 1)
	go func() { done <- child.Run(ctx) }()
	s, err := child.Open(ctx, "/servent/backup/")
	if err == nil {
		use(s)
		err = s.Close()
	}
	stop()
	if err := errors.Join(err, <-done); err != nil {
		t.Fatal(err)
	}
}

// TestBackup: what stood at a snapshot stands after it was restored, beyond every revision that was ever seen.
func TestBackup(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	was, file := filepath.Join(dir, "was"), filepath.Join(dir, "snapshot")
	var at, last control.Rev
	life(t, was, "a", func(s *etcd.Store) {
		for i := range 200 {
			put(t, s, fmt.Sprint("k", i%50), fmt.Sprint(i))
		}
		lease, err := s.Grant(t.Context(), 2*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		at, _, err = s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: "there", Value: []byte("for 2s"), Lease: lease}}})
		if err != nil {
			t.Fatal(err)
		}
		snapshot(t, s, file)
		last = put(t, s, "k0", "lost")
	})
	db, err := etcd.Kept(was)
	if err != nil {
		t.Fatal(err)
	}
	restored := func(how string, o etcd.RestoreOptions, k0 string, at control.Rev) {
		from, next, err := etcd.Restore(o)
		if err != nil || from != at || next.Epoch() != at.Epoch()+1 {
			t.Fatalf("%s: Restore = %d, %d (epoch %d), %v; want from %d into epoch %d", how, from, next, next.Epoch(), err, at, at.Epoch()+1)
		}
		life(t, o.Dir, o.Name, func(s *etcd.Store) {
			kvs, rev, err := s.Range(t.Context(), "k")
			if err != nil || len(kvs) != 50 || rev < next {
				t.Fatalf("%s: %d keys at %d, %v; want 50 from %d on", how, len(kvs), rev, err, next)
			}
			if got := string(kvs[0].Value); got != k0 {
				t.Errorf("%s: k0 = %q, want %q", how, got, k0)
			}
			if err := s.Watch(t.Context(), "", last+1, func(control.Batch) error { return nil }); !errors.Is(err, control.ErrCompacted) {
				t.Errorf("%s: a watch from before = %v, want that it is compacted", how, err)
			}
			if rev := put(t, s, "new", "1"); rev <= next {
				t.Errorf("%s: a change is revision %d, want more than %d", how, rev, next)
			}
			soon(t, "a lease of before ends", func() bool {
				kvs, _, err := s.Range(t.Context(), "there")
				return err == nil && len(kvs) == 0
			})
			if how == "snapshot" {
				at, _, err = s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: "k0", Value: []byte("150")}}})
				if err != nil {
					t.Fatal(err)
				}
				snapshot(t, s, file)
			}
		})
	}
	restored("snapshot", etcd.RestoreOptions{Snapshot: file, Dir: filepath.Join(dir, "one"), Name: "b"}, "150", at)
	restored("kept", etcd.RestoreOptions{Snapshot: db, Unsummed: true, Dir: filepath.Join(dir, "kept")}, "lost", last)
	rev, err := etcd.Look(file, false)
	if err != nil {
		t.Fatal(err)
	}
	restored("again", etcd.RestoreOptions{Snapshot: file, Dir: filepath.Join(dir, "two")}, "150", rev)
	if rev.Epoch() != 1 {
		t.Errorf("a snapshot of what was restored has epoch %d, want 1", rev.Epoch())
	}

	bad := func(what string, change func([]byte) []byte) {
		whole, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, "bad")
		if err := os.WriteFile(path, change(whole), 0o600); err != nil {
			t.Fatal(err)
		}
		to := filepath.Join(dir, "nowhere")
		if _, _, err := etcd.Restore(etcd.RestoreOptions{Snapshot: path, Dir: to}); err == nil {
			t.Errorf("%s: a bad snapshot is taken", what)
		}
		if _, err := os.Stat(to); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: a bad snapshot leaves %s", what, to)
		}
	}
	bad("a bit", func(b []byte) []byte { b[len(b)/2] ^= 1; return b })
	bad("half", func(b []byte) []byte { return b[:len(b)/2] })
	bad("nothing", func([]byte) []byte { return nil })
	if _, _, err := etcd.Restore(etcd.RestoreOptions{Snapshot: file, Dir: filepath.Join(dir, "two")}); err == nil {
		t.Error("a server's data are overwritten")
	}
	if _, err := etcd.Kept(filepath.Join(dir, "empty")); !errors.Is(err, etcd.ErrNoData) {
		t.Errorf("Kept of an empty folder = %v", err)
	}
}

func snapshot(t *testing.T, s *etcd.Store, path string) {
	t.Helper()
	f, err := os.Create(path)
	if err == nil {
		err = errors.Join(s.Snapshot(t.Context(), f), f.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
}
