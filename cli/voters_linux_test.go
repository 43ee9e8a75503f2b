package cli

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// TestVoters: a fleet's servers agree. Two are a voter and a learner; three are three voters, any of which may die while requests go on and what is
// wanted can be changed; put one out, and it is a voter and a learner again.
func TestVoters(t *testing.T) {
	ms := fleetOf(t, 3)
	a, b, c := ms[0], ms[1], ms[2]
	a.write("compose.yaml", fleetFile)
	t.Cleanup(a.end)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("a:\n%s\nb:\n%s\nc:\n%s", a.logs(), b.logs(), c.logs())
		}
	})
	if out, err := a.run("up", "-d", "--listen", a.host, "--as", "a"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
	}
	a.votersAre("a", time.Minute)
	b.join(append(a.token("--role", "server"), "--as", "b")...)
	a.votersAre("a b?", time.Minute)
	if out, err := a.run("node", "ls"); err != nil || !strings.Contains(out, "1 voter (a), 1 learner (b); while a is away nothing can be changed") {
		t.Errorf("node ls of two: %v\n%s", err, out)
	}
	jc := c.join(append(a.token("--role", "server"), "--as", "c")...)
	a.votersAre("a b c", time.Minute)
	url := ""
	a.until("all runs", time.Minute, func(s admin.State) bool {
		for _, p := range s.Published {
			if p.Service == "front" {
				url = p.URL + "/c/x"
			}
		}
		return s.Settled && url != ""
	})
	changed := func(front int) {
		t.Helper()
		if out, err := a.run("scale", fmt.Sprintf("front=%d", front)); err != nil {
			said, _ := a.run("node", "ls")
			t.Errorf("scale front=%d: %v\n%s\n%s", front, err, out, said)
		}
		if out, err := a.curl(url); err != nil {
			t.Errorf("a request: %v %s", err, out)
		}
	}
	// c dies: two of three agree.
	jc.signal(t, syscall.SIGKILL)
	_ = jc.ended(t)
	changed(4)
	a.until("it is said", time.Minute, func(s admin.State) bool { return strings.Contains(s.Survives, "none may be lost") })
	jc = c.join()
	a.until("c is back", time.Minute, nodeUp("c"))
	changed(3)
	// The first machine's own engine dies with its node: its operator goes on through the others.
	for _, n := range a.state().Nodes {
		if n.Node == "a" {
			_ = syscall.Kill(n.Pid, syscall.SIGKILL)
		}
	}
	changed(5)
	a.until("a's node is back", time.Minute, nodeUp("a"))
	a.votersAre("a b c", time.Minute)
	// b is cut off: it has no majority, and says so to nobody as if it had; the others go on.
	b.cable("down")
	a.until("b is missed", time.Minute, func(s admin.State) bool { return !nodeUp("b")(s) })
	changed(2)
	b.cable("up")
	a.until("b is back", time.Minute, nodeUp(system.NodeID("b")))
	// c leaves: of the two that stay one votes.
	jc.signal(t, syscall.SIGTERM)
	if out, err := c.run("leave"); err != nil {
		t.Fatalf("leave: %v\n%s", err, out)
	}
	a.until("one of two votes", time.Minute, func(s admin.State) bool { return votersOf(s) == "a b?" || votersOf(s) == "a? b" })
	changed(1)
}

// votersAre waits, at most so long, until those who agree are these, by name; a learner's has a question mark.
func (m *machine) votersAre(want string, within time.Duration) {
	m.t.Helper()
	began := time.Now()
	m.until("voters "+want, within, func(s admin.State) bool { return votersOf(s) == want })
	m.t.Logf("%-6s after %v", want, time.Since(began).Round(100*time.Millisecond))
}

func votersOf(s admin.State) string {
	var have []string
	for _, v := range s.Voters {
		name := string(v.Node)
		if v.Learner {
			name += "?"
		}
		have = append(have, name)
	}
	slices.Sort(have)
	return strings.Join(have, " ")
}
