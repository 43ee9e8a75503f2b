package cli

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// signal sends a signal to all that the join started.
func (j *joined) signal(t *testing.T, sig syscall.Signal) {
	for pid := range family(t, j.cmd.Process.Pid) {
		_ = syscall.Kill(pid, sig) // it may have ended
	}
}

// Five machines, a service on each. Each of the four that joined is drained, killed, paused and cut off in turn, while requests come in at the first:
// none fails on a drain; after the others they fail for no longer than it takes to notice.
func TestFleetOfFive(t *testing.T) {
	if os.Getenv("SERVENT_LONG") == "" {
		t.Skip("takes minutes; make long runs it")
	}
	ms := fleetOf(t, 5)
	a := ms[0]
	a.write("compose.yaml", fleetFile)
	t.Cleanup(a.end)
	if out, err := a.run("up", "-d", "--listen", a.host, "--as", "a"); err != nil {
		t.Fatalf("up: %v\n%s\n%s", err, out, a.logs())
	}
	joins := map[system.NodeID]*joined{}
	for i, m := range ms[1:] {
		id := system.NodeID(rune('b' + i))
		joins[id] = m.join(append(a.token(), "--as", string(id))...)
		a.until(string(id)+" joined", time.Minute, nodeUp(id))
	}
	url := ""
	for _, p := range a.state().Published {
		if p.Service == "front" {
			url = p.URL + "/c/x"
		}
	}
	well := func(what string) {
		t.Helper()
		a.until(what, 2*time.Minute, func(s admin.State) bool {
			return s.Settled && !slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool { return n.State != "up" })
		})
		for _, n := range []string{"front=1", "front=10"} { // new ones go where the fewest are
			if out, err := a.run("scale", n); err != nil {
				t.Fatalf("%s: scale %s: %v\n%s", what, n, err, out)
			}
		}
	}
	// under sends requests, one after the other, while trouble is made and for a while after, and says how long after its beginning the last one failed.
	under := func(what string, watch, bound time.Duration, trouble func()) {
		t.Helper()
		began, made := time.Now(), make(chan struct{})
		go func() {
			defer close(made)
			trouble()
		}()
		var last, slowest time.Duration
		sent, failed := 0, 0
		for over := false; !over || time.Since(began) < watch; {
			select {
			case <-made:
				over = true
			default:
			}
			at := time.Now()
			sent++
			if out, err := a.curl(url); err != nil {
				failed++
				last = time.Since(began)
				t.Logf("%s: after %v: %v %s", what, at.Sub(began).Round(time.Millisecond), err, out)
			}
			slowest = max(slowest, time.Since(at))
		}
		t.Logf("%-10s %4d requests, %d failed, the last after %v; the slowest took %v", what, sent, failed, last.Round(time.Millisecond), slowest.Round(time.Millisecond))
		if last > 3*bound || slowest > 3*max(bound, 5*time.Second) {
			t.Errorf("%s: requests failed for %v, the slowest took %v; want three times %v at most", what, last, slowest, bound)
		}
	}
	for i, m := range ms[1:] {
		id := system.NodeID(rune('b' + i))
		well("all well before " + string(id))
		under("drain "+string(id), 5*time.Second, 0, func() {
			if out, err := m.run("drain", string(id)); err != nil || !strings.Contains(out, "is empty") {
				t.Errorf("drain %s: %v: %s", id, err, out)
			}
		})
		if out, err := a.run("uncordon", string(id)); err != nil {
			t.Errorf("uncordon %s: %v: %s", id, err, out)
		}
		well(string(id) + " uncordoned")
		under("kill "+string(id), 8*time.Second, 2*time.Second, func() { joins[id].signal(t, syscall.SIGKILL) })
		joins[id].ended(t)
		joins[id] = m.join()
		well(string(id) + " back")
		under("pause "+string(id), 12*time.Second, 6*time.Second, func() { joins[id].signal(t, syscall.SIGSTOP) })
		joins[id].signal(t, syscall.SIGCONT)
		well(string(id) + " goes on")
		under("cut "+string(id), 12*time.Second, 6*time.Second, func() { m.cable("down") })
		m.cable("up")
	}
	well("all well at the end")
}
