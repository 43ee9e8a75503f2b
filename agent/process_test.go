package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/blob"
	"servent/driver"
	"servent/driver/process"
	"servent/system"
)

// TestMain is also the program that the test below runs: an HTTP server that says what is in its
// environment and its files, and keeps a line per start in its data folder.
func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_PROGRAM") == "" {
		os.Exit(m.Run())
	}
	f, err := os.OpenFile(filepath.Join(os.Getenv("SERVENT_DATA"), "starts"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, os.Getenv("AGENT_TEST_PROGRAM"))
	}
	if err == nil {
		err = http.ListenAndServe(net.JoinHostPort(os.Getenv("HOST"), os.Getenv("PORT")), http.HandlerFunc(answer))
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func answer(w http.ResponseWriter, r *http.Request) {
	value := os.Getenv(r.FormValue("env"))
	if file := r.FormValue("file"); file != "" {
		b, err := os.ReadFile(filepath.Join(value, file))
		value = string(b)
		if err != nil {
			value = err.Error()
		}
	}
	io.WriteString(w, value)
}

// TestAgentRunsProcesses takes a real program through its life: bundle, environment, secret, health, a new
// version on the same data, a crash, the end.
func TestAgentRunsProcesses(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	store := &blob.Store{Dir: filepath.Join(dir, "store")}
	t.Cleanup(func() { blob.RemoveAll(store.Dir) })
	write(t, filepath.Join(dir, "src", "page"))
	var archive bytes.Buffer
	packErr := blob.Pack(&archive, filepath.Join(dir, "src"), []string{"."})
	bundle, putErr := store.Put(&archive)
	secret, err := store.Put(strings.NewReader("s3cret"))
	if err := errors.Join(packErr, putErr, err); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := ln.Addr().(*net.TCPAddr).Port
	ln.Close()

	engine := process.New(process.Options{StateDir: filepath.Join(dir, "state"), Self: self})
	defer engine.Close()
	a := New(Options{Node: "node-1", Host: "127.0.0.1", PortBase: port - 12, Dir: filepath.Join(dir, "node"),
		Drivers: map[system.SoftwareKind]driver.Driver{system.Process: engine}, BaseEnv: process.BaseEnv(os.Environ()),
		Bundle: func(_ context.Context, d system.Digest) (string, error) { return store.Bundle(d) },
		Blob:   func(_ context.Context, d system.Digest) (io.ReadCloser, error) { return store.Open(d) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()

	plan := func(generation int64, version string) *system.Plan {
		p := planOf(generation, system.Assignment{Instance: "db/1", Spec: system.Digest(version)})
		s := &p.Services[0].Service
		s.Software = system.Software{Kind: system.Process, Run: []string{"servent"}, Digest: bundle}
		s.Data.Kind = system.DataHard
		s.Health.HTTP = "/"
		s.Environment = map[string]string{"AGENT_TEST_PROGRAM": version}
		s.Files = []system.MountedFile{{Kind: "secret", Name: "key", Digest: secret}}
		return p
	}
	ask := func(query string) string {
		res, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/?%s", port, query))
		if err != nil {
			t.Error(err)
			return ""
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Error(err)
		}
		return string(b)
	}
	ready := func(spec system.Digest, restarts int) system.InstanceSeen {
		return await(t, a, func(s system.InstanceSeen) bool {
			return s.State == system.StateReady && s.Spec == spec && s.Restarts == restarts
		})
	}

	a.Follow(plan(1, "one"))
	first := ready("one", 0)
	for query, want := range map[string]string{
		"env=SERVENT_INSTANCE":            "db/1",
		"env=SERVENT_BUNDLE&file=page":    "x",
		"env=SERVENT_SECRET_KEY&file=.":   "s3cret",
		"env=SERVENT_DATA&file=starts":    "one\n",
		"env=SERVENT_SELF":                fmt.Sprintf("http://127.0.0.1:%d", port),
		"env=SERVENT_NOTHING_OF_THE_SORT": "",
	} {
		if got := ask(query); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	a.Follow(plan(2, "two"))
	second := ready("two", 0)
	if got, want := ask("env=SERVENT_DATA&file=starts"), "one\ntwo\n"; got != want {
		t.Errorf("data after an update: %q, want %q", got, want)
	}
	if first.Pid == second.Pid || first.Endpoint != second.Endpoint {
		t.Errorf("from %d at %s to %d at %s, want another process at one place", first.Pid, first.Endpoint, second.Pid, second.Endpoint)
	}
	p, err := os.FindProcess(second.Pid)
	if err = errors.Join(err, p.Kill()); err != nil {
		t.Fatal(err)
	}
	ready("two", 1)
	if got, want := ask("env=SERVENT_DATA&file=starts"), "one\ntwo\ntwo\n"; got != want {
		t.Errorf("data after a crash: %q, want %q", got, want)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if c, err := net.DialTimeout("tcp", fmt.Sprintf("127.0.0.1:%d", port), time.Second); err == nil {
		c.Close()
		t.Error("the program answers after the end")
	}
	if exists(filepath.Join(dir, "node", "instances", "db", "1", mounts)) {
		t.Error("the secret is still on the disk")
	}
}

// await returns the first instance seen of which it is true.
func await(t *testing.T, a *Agent, is func(system.InstanceSeen) bool) system.InstanceSeen {
	t.Helper()
	limit := time.After(20 * time.Second)
	for {
		changed, seen := a.Changed(), a.Seen()
		if i := slices.IndexFunc(seen, is); i >= 0 {
			return seen[i]
		}
		select {
		case <-changed:
		case <-limit:
			t.Fatalf("seen at last: %+v", seen)
		}
	}
}
