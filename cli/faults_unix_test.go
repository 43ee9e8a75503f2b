//go:build unix

package cli

import (
	"slices"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/system"
)

// others are ready on other nodes than one.
func others(s admin.State, not system.NodeID, n int) bool {
	ready := 0
	for _, in := range s.Instances {
		if in.Healthy && in.Node != not {
			ready++
		}
	}
	return ready >= n
}

// victim is a node that runs an instance and does not answer for control.
func victim(s admin.State) admin.InstanceState {
	i := slices.IndexFunc(s.Instances, func(in admin.InstanceState) bool { return in.Node != "node-1" })
	return s.Instances[i]
}

// survivor is a node that will not be hurt: neither control's nor the victim's.
func survivor(s admin.State, hurt system.NodeID) system.NodeID {
	for _, n := range s.Nodes {
		if n.Node != "node-1" && n.Node != hurt {
			return n.Node
		}
	}
	return ""
}

func kill(t *testing.T, pid int, sig syscall.Signal) {
	t.Helper()
	if pid <= 1 {
		t.Fatalf("no process to signal: %d", pid)
	}
	if err := syscall.Kill(pid, sig); err != nil {
		t.Fatal(err)
	}
}

// Protocol times are asserted at three times their design value: a kill is made good within 2 s, a
// pause within 6 s.
func TestNoRequestFailsWhenSomethingDies(t *testing.T) {
	w := start(t, three)
	hurt := victim(w.state())
	at := survivor(w.state(), hurt.Node)
	url := "http://" + w.door(at, "hits") + "/c/a"

	t.Run("an instance is killed", func(t *testing.T) {
		l := offer(url, 200)
		<-time.After(time.Second)
		kill(t, hurt.Pid, syscall.SIGKILL)
		took := w.until("three ready again", 3*2*time.Second, func(s admin.State) bool {
			i := slices.IndexFunc(s.Instances, func(in admin.InstanceState) bool { return in.Instance == hurt.Instance })
			return i >= 0 && s.Instances[i].Pid != hurt.Pid && others(s, "", 3)
		})
		<-time.After(time.Second)
		l.end(t)
		t.Logf("made good %v after the kill", took)
	})
	t.Run("a node is killed", func(t *testing.T) {
		l := offer(url, 200)
		<-time.After(time.Second)
		kill(t, w.node(hurt.Node).Pid, syscall.SIGKILL)
		took := w.until("three ready elsewhere", 3*2*time.Second, func(s admin.State) bool { return others(s, hurt.Node, 3) })
		<-time.After(time.Second)
		l.end(t)
		t.Logf("made good %v after the kill", took)
		w.until("settled with all nodes", 30*time.Second, func(s admin.State) bool {
			return s.Settled && !slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool { return n.State != "up" })
		})
	})
	t.Run("a node is paused", func(t *testing.T) {
		paused := victim(w.state()).Node
		pid := w.node(paused).Pid
		at := survivor(w.state(), paused)
		l := offer("http://"+w.door(at, "hits")+"/c/a", 200)
		<-time.After(time.Second)
		kill(t, pid, syscall.SIGSTOP)
		took := w.until("three ready elsewhere", 3*6*time.Second, func(s admin.State) bool { return others(s, paused, 3) })
		<-time.After(time.Second)
		kill(t, pid, syscall.SIGCONT)
		<-time.After(2 * time.Second)
		l.end(t)
		t.Logf("made good %v after the pause", took)
		w.until("settled again", 20*time.Second, func(s admin.State) bool { return s.Settled })
	})
	t.Run("the control node is killed", func(t *testing.T) {
		before, pid := w.ps(), w.node("node-1").Pid
		l := offer("http://"+w.door(survivor(w.state(), ""), "hits")+"/c/a", 200)
		<-time.After(time.Second)
		kill(t, pid, syscall.SIGKILL)
		is := func(state string) func(s admin.State) bool {
			return func(s admin.State) bool {
				i := slices.IndexFunc(s.Nodes, func(n admin.NodeState) bool { return n.Node == "node-1" })
				return s.Nodes[i].State == state && s.Nodes[i].Pid != pid
			}
		}
		w.until("node-1 is gone", 5*time.Second, is("gone"))
		w.until("node-1 is back", 30*time.Second, is("up"))
		w.until("settled again", 40*time.Second, func(s admin.State) bool { return s.Control == "" && s.Settled })
		l.end(t)
		same(t, before, w.ps())
	})
	t.Run("a node is restarted in good order", func(t *testing.T) {
		at := w.ps()[0].Node
		pid := w.node(at).Pid
		l := offer("http://"+w.door(survivor(w.state(), at), "hits")+"/c/a", 200)
		<-time.After(time.Second)
		if out, err := w.run("restart", string(at)); err != nil {
			t.Errorf("restart %s: %v\n%s", at, err, out)
		}
		w.until("another process", 30*time.Second, func(s admin.State) bool { return w.node(at).Pid != pid && s.Settled })
		l.end(t)
	})
	t.Run("a node is killed again and again", func(t *testing.T) {
		at := victim(w.state()).Node
		l := offer("http://"+w.door(survivor(w.state(), at), "hits")+"/c/a", 100)
		for range 3 {
			kill(t, w.node(at).Pid, syscall.SIGKILL)
			w.until("gone", 5*time.Second, func(admin.State) bool { return w.node(at).State == "gone" })
			if out, err := w.run("restart", string(at)); err != nil { // it need not wait for its turn
				t.Errorf("restart %s: %v\n%s", at, err, out)
			}
			w.until("back", 20*time.Second, func(admin.State) bool { return w.node(at).State == "up" })
		}
		w.until("settled", 20*time.Second, func(s admin.State) bool { return s.Settled })
		<-time.After(2 * time.Second)
		l.end(t)
	})
}
