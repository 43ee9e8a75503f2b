package etcd_test

import (
	"context"
	"crypto/tls"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"servent/control"
	"servent/control/controltest"
	"servent/control/etcd"
)

// TestMain makes the test's program a server when its first argument says so, as the servent program's
// hidden verb does.
func TestMain(m *testing.M) {
	var err error
	switch word(1) {
	case "child":
		err = etcd.ServeChild(context.Background(), os.Stdin, os.Stdout, os.Stderr)
	case "stock":
		err = serveStock(os.Stdin, os.Stdout)
	case "parent":
		err = parent(word(2))
	case "broken":
		err = errors.New("the disk is on fire")
	default:
		flag.Parse()
		flag.Set("test.parallel", "16") // the tests wait more than they work
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func word(i int) string {
	if i < len(os.Args) {
		return os.Args[i]
	}
	return ""
}

func program(t *testing.T) string {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return program
}

// start runs a child until the test ends; died gets what it says when it dies.
func start(t *testing.T, dir string) (child *etcd.Child, died <-chan error) {
	t.Helper()
	deaths := make(chan error, 16)
	child = etcd.NewChild(etcd.ChildOptions{Argv: []string{program(t), "child"}, Dir: dir, Log: t.Output(), Died: func(err error) {
		select {
		case deaths <- err:
		default:
		}
	}})
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- child.Run(ctx) }()
	t.Cleanup(func() {
		stop()
		if err := <-done; err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	return child, deaths
}

var prefixes atomic.Int64

// open returns an empty store in the child.
func open(t *testing.T, child *etcd.Child) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	s, err := child.Open(ctx, fmt.Sprintf("/servent/test-%d/", prefixes.Add(1)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func put(t *testing.T, s control.Store, key, value string) control.Rev {
	t.Helper()
	rev, ok, err := s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: key, Value: []byte(value)}}})
	if err != nil || !ok {
		t.Fatalf("Commit = %v, %v, want true", ok, err)
	}
	return rev
}

// soon waits for what must come.
func soon(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick, late := time.NewTicker(20*time.Millisecond), time.After(30*time.Second)
	defer tick.Stop()
	for !is() {
		select {
		case <-tick.C:
		case <-late:
			t.Fatalf("waited 30s until %s", what)
		}
	}
}

// TestSuite runs on both kinds of door.
func TestSuite(t *testing.T) {
	t.Parallel()
	for name, dir := range map[string]string{
		"socket":   t.TempDir(),
		"loopback": filepath.Join(t.TempDir(), strings.Repeat("long/", 20)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			child, _ := start(t, dir)
			controltest.Run(t, func(t *testing.T) (control.Store, controltest.Features) {
				s := open(t, child)
				return s, controltest.Features{Compact: s.Compact}
			})
			if runtime.GOOS == "windows" {
				return
			}
			if doors, _ := filepath.Glob(filepath.Join(dir, "door-*.sock")); (len(doors) == 1) != (name == "socket") {
				t.Errorf("sockets in the folder: %q", doors)
			}
		})
	}
}

// TestOnlyOurs: no other user of the machine comes in.
func TestOnlyOurs(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows guards files by other means than their mode")
	}
	dir := filepath.Join(t.TempDir(), strings.Repeat("long/", 20))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	child, _ := start(t, dir)
	open(t, child)
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && (path == dir || strings.Contains(filepath.Base(path), "door")) && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want nothing for others", path, info.Mode())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, config := range map[string]*tls.Config{
		"plain text":            nil,
		"without a certificate": {InsecureSkipVerify: true},
	} {
		stranger, err := etcd.Open(etcd.StoreOptions{Endpoints: []string{child.Door()}, TLS: config, Timeout: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		defer stranger.Close()
		if kvs, _, err := stranger.Range(t.Context(), ""); err == nil {
			t.Errorf("a client %s read %v", name, kvs)
		}
	}
}

// TestKilled: a server that is killed comes back with all that it acknowledged; leases and watches go on.
func TestKilled(t *testing.T) {
	t.Parallel()
	child, died := start(t, t.TempDir())
	s := open(t, child)
	ctx := t.Context()
	lease, err := s.Grant(ctx, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "leased", Lease: lease}}}); err != nil {
		t.Fatal(err)
	}
	from := put(t, s, "n", "0")
	seen := make(chan string, 100)
	watched := make(chan error, 1)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		watched <- s.Watch(watching, "n", from, func(b control.Batch) error {
			for _, c := range b.Changes {
				seen <- string(c.KV.Value)
			}
			return nil
		})
	}()
	for i := range 3 {
		if i > 0 {
			// It waits for the server by itself, but a connection may break under a call: then nobody
			// knows, and here nothing was done.
			soon(t, "the server takes a change", func() bool {
				_, ok, err := s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "n", Value: fmt.Append(nil, i)}}})
				if err != nil && !errors.Is(err, control.ErrUnavailable) {
					t.Fatalf("Commit = %v, %v, want true", ok, err)
				}
				return ok
			})
		}
		if got := <-seen; got != fmt.Sprint(i) {
			t.Fatalf("the watch gave %s, want %d: nothing twice, nothing left out", got, i)
		}
		kill(t, child)
		if err := <-died; err == nil || !strings.Contains(err.Error(), "etcd") {
			t.Errorf("the child died of %v", err)
		}
	}
	if err := s.Renew(ctx, lease); err != nil {
		t.Errorf("Renew after a restart = %v, want a lease that goes on", err)
	}
	kvs, _, err := s.Range(ctx, "")
	if err != nil || len(kvs) != 2 || string(kvs[1].Value) != "2" {
		t.Errorf("after three kills: %+v, %v, want both keys", kvs, err)
	}
	stop()
	if err := <-watched; err != nil {
		t.Errorf("Watch = %v, want nil", err)
	}
}

func kill(t *testing.T, child *etcd.Child) {
	t.Helper()
	soon(t, "the child runs", func() bool { return child.Pid() != 0 })
	p, err := os.FindProcess(child.Pid())
	if err == nil {
		err = p.Kill()
	}
	if err != nil && !errors.Is(err, os.ErrProcessDone) {
		t.Fatal(err)
	}
}

// TestLinearizable: compare-and-set stays right and loses nothing while the server is killed.
func TestLinearizable(t *testing.T) {
	t.Parallel()
	during, every := 10*time.Second, 2500*time.Millisecond
	if testing.Short() {
		during, every = 3*time.Second, 1500*time.Millisecond
	}
	child, died := start(t, t.TempDir())
	prefix := fmt.Sprintf("/servent/test-%d/", prefixes.Add(1))
	var stores []control.Store
	for range 4 {
		s, err := child.Open(t.Context(), prefix)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		stores = append(stores, s)
	}
	ctx, cancel := context.WithTimeout(t.Context(), during)
	defer cancel()
	recorded := make(chan *controltest.History, 1)
	go func() { recorded <- controltest.Record(ctx, stores, 8*time.Second, 4000) }()
	kills := 0
	for tick := time.NewTicker(every); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
			tick.Stop()
		case <-tick.C:
			kill(t, child)
			<-died
			kills++
		}
	}
	h := <-recorded
	t.Logf("%d kills; writes: %d acknowledged, %d refused, %d unknown; %d reads failed", kills, h.Acked, h.Refused, h.Unknown, h.Failed)
	if kills == 0 || h.Acked < 50 {
		t.Errorf("%d kills and %d writes are too few to show anything", kills, h.Acked)
	}
	if err := h.Check(30 * time.Second); err != nil {
		t.Error(err)
	}
}

// TestNeverAnswers: a server that cannot start is an error with its own last word.
func TestNeverAnswers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	deaths := 0
	child := etcd.NewChild(etcd.ChildOptions{
		Argv: []string{program(t), "broken"},
		Dir:  dir,
		Died: func(error) { deaths++ },
	})
	err := child.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "the disk is on fire") || deaths != 2 {
		t.Errorf("Run = %v after %d deaths, want the server's last word after 2", err, deaths)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := child.Open(ctx, ""); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "on fire") {
		t.Errorf("Open = %v, want ctx's error and the reason", err)
	}
	if err := etcd.NewChild(etcd.ChildOptions{Argv: []string{filepath.Join(dir, "absent")}, Dir: dir}).Run(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Run of an absent program = %v, want that it does not exist", err)
	}
}

// TestUnavailable: a server that is not there is no endless wait.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	s, err := etcd.Open(etcd.StoreOptions{Endpoints: []string{addr}, Timeout: 300 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx := t.Context()
	for name, call := range map[string]func() error{
		"Range":  func() error { _, _, err := s.Range(ctx, ""); return err },
		"Commit": func() error { _, _, err := s.Commit(ctx, control.Txn{}); return err },
		"Grant":  func() error { _, err := s.Grant(ctx, control.MinTTL); return err },
		"Renew":  func() error { return s.Renew(ctx, 1) },
		"Revoke": func() error { return s.Revoke(ctx, 1) },
		"Watch":  func() error { return s.Watch(ctx, "", 0, func(control.Batch) error { return nil }) },
		"Watch from 5": func() error {
			return s.Watch(ctx, "", 5, func(control.Batch) error { return nil })
		},
	} {
		if err := call(); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("%s = %v, want ErrUnavailable", name, err)
		} else if name == "Range" && !strings.Contains(err.Error(), "refused") && runtime.GOOS != "windows" {
			t.Errorf("%s = %v, want the reason in it", name, err)
		}
	}
}

// parent is a process that starts a child and is killed by its test.
func parent(dir string) error {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	child := etcd.NewChild(etcd.ChildOptions{Argv: []string{program, "child"}, Dir: dir})
	go child.Run(context.Background())
	if _, err := child.Open(context.Background(), ""); err != nil {
		return err
	}
	fmt.Println(child.Door())
	select {}
}
