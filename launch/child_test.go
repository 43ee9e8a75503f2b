package launch

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"servent/admin"
	"servent/identity"
	"servent/node"
)

// raise runs a child of the given kind until the test ends, or stop is called.
func raise(t *testing.T, kind string, kill <-chan struct{}) (c *child, until func(what string, holds func(admin.NodeState) bool) admin.NodeState, stop func()) {
	t.Helper()
	t.Setenv("SERVENT_TEST_NODE", kind)
	cred := credential(t)
	changed := new(news)
	changed.init()
	c = &child{id: "node-1", command: []string{os.Args[0]}, logFile: filepath.Join(t.TempDir(), "node-1.log"), log: slog.New(slog.DiscardHandler),
		boot:  func() (node.Boot, error) { return node.Boot{ID: "node-1", Credential: cred}, nil },
		again: make(chan struct{}, 1), ways: make(chan struct{}, 1), creds: make(chan identity.Credential, 1), changed: changed.tell}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.Run(ctx, kill)
	}()
	stop = func() {
		cancel()
		<-ended
	}
	t.Cleanup(stop)
	return c, func(what string, holds func(admin.NodeState) bool) admin.NodeState {
		t.Helper()
		late := time.After(20 * time.Second)
		for {
			news := changed.wait()
			s := c.State()
			if holds(s) {
				return s
			}
			select {
			case <-news:
			case <-late:
				t.Fatalf("not %s: %+v", what, s)
			}
		}
	}, stop
}

func credential(t *testing.T) identity.Credential {
	t.Helper()
	ca, err := identity.NewAuthority("t")
	if err != nil {
		t.Fatal(err)
	}
	cred, err := ca.Issue(identity.ID{Cluster: "t", Role: identity.Node, Node: "node-1"}, nil, certLife)
	if err != nil {
		t.Fatal(err)
	}
	return cred
}

func isUp(s admin.NodeState) bool { return s.State == "up" && s.Pid != 0 }

func TestChildLives(t *testing.T) {
	c, until, stop := raise(t, "serves", nil)
	first := until("up", isUp)
	c.Restart()
	second := until("up again", func(s admin.NodeState) bool { return isUp(s) && s.Pid != first.Pid })
	p, err := os.FindProcess(second.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	gone := until("gone", func(s admin.NodeState) bool { return s.State == "gone" })
	if gone.Pid != 0 || !strings.Contains(gone.Why, "it comes back in 5s") || c.Failed() == nil {
		t.Errorf("killed: %+v, failed %v; want no pid, and when it comes back", gone, c.Failed())
	}
	c.Restart() // does not wait for the 5s
	until("up once more", isUp)
	if c.Failed() != nil {
		t.Errorf("Failed() = %v of one that runs", c.Failed())
	}
	stop()
	if s := c.State(); s.State != "stopped" || s.Pid != 0 {
		t.Errorf("after the end: %+v, want stopped and no pid", s)
	}
}

func TestChildSaysWhyItFails(t *testing.T) {
	for kind, want := range map[string]string{"fails": "the port of node-1 is taken", "dies": "exit status 3"} {
		t.Run(kind, func(t *testing.T) {
			c, until, _ := raise(t, kind, nil)
			until("gone", func(s admin.NodeState) bool { return s.State == "gone" })
			if err := c.Failed(); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("Failed() = %v, want %q", err, want)
			}
		})
	}
	c := &child{boot: func() (node.Boot, error) { return node.Boot{}, errors.New("no certificate") }, changed: func() {}}
	if _, err := c.life(t.Context(), nil); err == nil || err.Error() != "no certificate" {
		t.Errorf("life = %v, want the boot's error", err)
	}
}

// A node that does not end when it is asked is killed as soon as kill is closed, not after its grace.
func TestKillWaitsForNothing(t *testing.T) {
	kill := make(chan struct{})
	_, until, stop := raise(t, "stubborn", kill)
	until("up", isUp)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		stop()
	}()
	close(kill)
	select {
	case <-ended:
	case <-time.After(stopGrace / 2):
		t.Error("still there long after kill was closed")
		<-ended
	}
}

func TestRenewReachesTheNode(t *testing.T) {
	c, until, stop := raise(t, "serves", nil)
	until("up", isUp)
	for range 3 { // nobody waits for a node that does not read
		c.Renew(credential(t))
	}
	for late := time.After(10 * time.Second); len(c.creds) > 0; {
		select {
		case <-late:
			t.Fatal("the certificate was never sent")
		case <-time.After(time.Millisecond):
		}
	}
	stop() // its words are read before the end of its input
	if b, err := os.ReadFile(c.logFile); err != nil || !strings.Contains(string(b), "took a certificate") {
		t.Errorf("the node's log: %q %v, want that it took a certificate", b, err)
	}
}

func TestOpenLogSetsAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.WriteFile(path, make([]byte, maxNodeLog+1), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := OpenLog(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("the new log has %v bytes (%v), want 0", info.Size(), err)
	}
	if info, err := os.Stat(path + ".1"); err != nil || info.Size() != maxNodeLog+1 {
		t.Errorf("the old log: %v %v, want it whole", info, err)
	}
}
