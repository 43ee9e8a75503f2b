//go:build unix

package cli

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"servent/admin"
	"servent/launch"
	"servent/system"
)

// pair is a service in two places, and one in one, on three nodes.
const pair = `name: pair
services:
  hits:
    deploy: {replicas: 2}
    x-servent:
      process: {run: [servent, example, counter]}
      architecture: replicated
      route: /*
      switch: {by: request}
  one:
    x-servent:
      process: {run: [servent, example, counter]}
      switch: {by: request}
x-servent:
  nodes:
    node: {count: 3}
`

// fault runs `servent fault … --json`.
func (w *world) fault(args ...string) admin.Fault {
	w.t.Helper()
	return ask[admin.Fault](w, append([]string{"fault"}, args...)...)
}

// well waits until no fault is there and the system is whole.
func (w *world) well(within time.Duration) {
	w.t.Helper()
	w.until("whole again", within, func(s admin.State) bool {
		return s.Settled && !slices.ContainsFunc(s.Nodes, func(n admin.NodeState) bool { return n.State != "up" || n.Why != "" })
	})
	if fs := ask[[]admin.Fault](w, "fault", "ls"); len(fs) > 0 {
		w.t.Errorf("there are faults yet: %+v", fs)
	}
}

// happened looks for events of faults.
func (w *world) happened(want ...string) {
	w.t.Helper()
	out, err := w.run("events")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, text := range want {
		if !strings.Contains(out, text) {
			w.t.Errorf("no event %q in\n%s", text, out)
		}
	}
}

func TestFault(t *testing.T) {
	w := start(t, pair)
	hurt := func() (victim, survivor system.NodeID) {
		s := w.state()
		i := slices.IndexFunc(s.Instances, func(in admin.InstanceState) bool { return in.Service == "hits" && in.Node != "node-1" })
		v := s.Instances[i].Node
		for _, n := range s.Nodes {
			if n.Node != v && n.Node != "node-1" {
				return v, n.Node
			}
		}
		return v, ""
	}
	elsewhere := func(not system.NodeID) func(admin.State) bool {
		return func(s admin.State) bool {
			ready := map[system.ServiceName]int{}
			for _, in := range s.Instances {
				if in.Healthy && in.Node != not {
					ready[in.Service]++
				}
			}
			return ready["hits"] == 2 && ready["one"] == 1
		}
	}

	sub := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			w.t = t
			f(t)
		})
		w.t = t
	}

	sub("words", func(t *testing.T) {
		for _, tt := range []struct {
			args []string
			want string
			code int
		}{
			{[]string{"kill", "nod-2"}, `no node "nod-2" (did you mean "node-2"?); the nodes are node-1, node-2, node-3`, 1},
			{[]string{"kil", "node-2"}, `want one of cut, heal, kill, ls, pause, slow, have "kil" (did you mean "kill"?)`, 2},
			{[]string{"kill"}, "accepts 1 arg(s), received 0", 2},
			{[]string{"cut", "node-1", "node-1"}, "node-1 cannot be parted from itself", 2},
			{[]string{"slow", "node-1"}, "want a latency or a rate", 2},
			{[]string{"slow", "node-1", "--rate", "fast"}, "--rate: want a link's rate like", 2},
			{[]string{"heal", "77"}, "no fault 77", 1},
			{[]string{"ls"}, "no fault", 0},
			{[]string{"heal"}, "there was no fault", 0},
		} {
			out, err := w.run(append([]string{"fault"}, tt.args...)...)
			code := 0
			if exit, ok := err.(interface{ ExitCode() int }); ok {
				code = exit.ExitCode()
			}
			if code != tt.code || !strings.Contains(out, tt.want) || code != 0 && !strings.Contains(out, "next: ") {
				t.Errorf("fault %v: exit %d, want %d, and %q\n%s", tt.args, code, tt.code, tt.want, out)
			}
		}
	})

	sub("slow", func(t *testing.T) {
		i := slices.IndexFunc(w.ps(), func(in admin.InstanceState) bool { return in.Service == "one" })
		on := w.ps()[i].Node
		var from system.NodeID = "node-3"
		if on == from {
			from = "node-2"
		}
		url := "http://" + w.door(from, "one") + "/c/a"
		took := func(least time.Duration) {
			t.Helper()
			began := time.Now()
			fetch(t, url)
			if got := time.Since(began); got < least {
				t.Errorf("a request over a slow way took %v, want at least %v", got, least)
			}
		}
		took(0)
		f := w.fault("slow", string(from), string(on), "--latency", "150ms", "--jitter", "20ms", "--for", "1m")
		took(2 * 130 * time.Millisecond)
		took(2 * 130 * time.Millisecond)
		w.fault("slow", string(on), string(from), "--latency", "300ms", "--one-way", "--for", "1m") // on top
		took(2*130*time.Millisecond + 300*time.Millisecond)
		fs := ask[[]admin.Fault](w, "fault", "ls")
		if len(fs) != 2 || fs[0] != f || f.Kind != admin.FaultSlow || f.Latency != 150*time.Millisecond || f.Ends.Sub(f.Begins) != time.Minute {
			t.Errorf("made %+v, then there are %+v", f, fs)
		}
		if out, err := w.run("fault", "heal"); err != nil || strings.Count(out, "healed") != 2 {
			t.Errorf("heal: %v\n%s", err, out)
		}
		w.well(5 * time.Second)
		w.fault("slow", string(from), "--rate", "100kbit", "--for", "1m")
		began := time.Now()
		resp, err := http.Post("http://"+w.door(from, "one")+"/c/a", "text/plain", strings.NewReader(strings.Repeat("x", 12_500)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := time.Since(began); got < time.Second {
			t.Errorf("100 kbit at 100 kbit/s took %v", got)
		}
		w.fault("slow", string(from), "--rate", "1kbit", "--for", "500ms") // ends by itself
		w.fault("slow", string(from), "--latency", "1s", "--after", "1h")
		if fs := ask[[]admin.Fault](w, "fault", "heal", string(from)); len(fs) < 2 {
			t.Errorf("healed %+v, want also what was to come", fs)
		}
		w.well(5 * time.Second)
	})

	// A cut is silence: the others are told within the lease, 6 s, asserted at three times that.
	sub("cut", func(t *testing.T) {
		v, at := hurt()
		l := offer("http://"+w.door(at, "hits")+"/c/a", 100)
		defer l.stop()
		<-time.After(500 * time.Millisecond)
		f := w.fault("cut", string(v), "--for", "2m")
		took := w.until("both elsewhere", 3*6*time.Second, elsewhere(v))
		t.Logf("made good %v after the cut", took)
		if n := w.node(v); n.State == "up" || !strings.Contains(n.Why, "fault ") {
			t.Errorf("%s is %s (%s), want it out of sight because of a fault", v, n.State, n.Why)
		}
		if pid := w.node(v).Pid; pid == 0 || syscall.Kill(pid, 0) != nil {
			t.Errorf("the process of %s is gone; a cut kills nobody", v)
		}
		if _, err := w.run("fault", "heal", string(v)); err != nil {
			t.Error(err)
		}
		w.well(3 * 6 * time.Second)
		l.end(t)
		w.happened("fault "+strconv.Itoa(f.ID)+", cut "+string(v)+" ↔ all others, begins, for 2m0s", "fault "+strconv.Itoa(f.ID)+", cut "+string(v)+" ↔ all others, is healed")
	})

	sub("cut of a pair", func(t *testing.T) {
		v, at := hurt()
		f := w.fault("cut", string(v), string(at), "--for", "1s")
		w.over()
		if took := time.Since(f.Begins); took < time.Second {
			t.Errorf("over after %v, want 1s", took)
		}
		w.well(20 * time.Second)
		w.happened("cut " + string(v) + " ↔ " + string(at) + ", is over")
	})

	sub("kill", func(t *testing.T) {
		v, at := hurt()
		pid := w.node(v).Pid
		l := offer("http://"+w.door(at, "hits")+"/c/a", 100)
		defer l.stop()
		<-time.After(500 * time.Millisecond)
		f := w.fault("kill", string(v), "--for", "8s")
		w.until("gone", 7*time.Second, func(admin.State) bool { return w.node(v).State == "gone" })
		if n := w.node(v); n.Pid != 0 || !strings.Contains(n.Why, "kill "+string(v)) {
			t.Errorf("%+v, want it gone, by a fault", n)
		}
		if out, err := w.run("fault", "kill", string(v)); err == nil || !strings.Contains(out, string(v)+" does not run: it is gone") {
			t.Errorf("killed twice: %v\n%s", err, out)
		}
		w.until("both elsewhere", 3*6*time.Second, elsewhere(v))
		w.until("back", 40*time.Second, func(admin.State) bool { n := w.node(v); return n.State == "up" && n.Pid != pid })
		if took := time.Since(f.Begins); took < 8*time.Second { // later than a node that dies by itself
			t.Errorf("%s was back after %v, want 8s", v, took)
		}
		w.well(20 * time.Second)
		l.end(t)
	})

	sub("kill until restarted, and later", func(t *testing.T) {
		v, _ := hurt()
		f := w.fault("kill", string(v), "--after", "500ms")
		if !f.Ends.IsZero() || f.After != 500*time.Millisecond {
			t.Errorf("%+v, want no end", f)
		}
		w.until("gone", 10*time.Second, func(admin.State) bool { return w.node(v).State == "gone" })
		if took := time.Since(f.Begins); took < 0 {
			t.Errorf("gone %v too early", -took)
		}
		if out, err := w.run("restart", string(v)); err != nil {
			t.Errorf("restart: %v\n%s", err, out)
		}
		w.well(20 * time.Second)
		w.happened("fault " + strconv.Itoa(f.ID) + ", kill " + string(v) + ", ends with a restart")
		w.fault("kill", string(v))
		w.until("gone", 10*time.Second, func(admin.State) bool { return w.node(v).State == "gone" })
		if out, err := w.run("up", "-d"); err != nil {
			t.Errorf("up: %v\n%s", err, out)
		}
		w.well(20 * time.Second)
	})

	sub("pause", func(t *testing.T) {
		v, at := hurt()
		pid := w.node(v).Pid
		l := offer("http://"+w.door(at, "hits")+"/c/a", 100)
		defer l.stop()
		<-time.After(500 * time.Millisecond)
		w.fault("pause", string(v), "--for", "2m")
		w.until("both elsewhere", 3*6*time.Second, elsewhere(v))
		if n := w.node(v); n.State != "paused" || n.Pid != pid || !strings.Contains(n.Why, "pause "+string(v)) {
			t.Errorf("%+v, want it paused, by a fault", n)
		}
		w.fault("slow", string(v), "--latency", "1ms", "--for", "1s") // who is paused is told later
		if _, err := w.run("fault", "heal", string(v)); err != nil {
			t.Error(err)
		}
		w.well(20 * time.Second)
		l.end(t)
		if w.node(v).Pid != pid {
			t.Error("a pause ended the process")
		}
		w.fault("pause", string(v), "--for", "1s")
		w.over()
		w.well(20 * time.Second)
		w.fault("pause", string(v), "--for", "1m") // is no hindrance to the end of all, nor to a restart
		if out, err := w.run("restart", string(v)); err != nil {
			t.Errorf("restart: %v\n%s", err, out)
		}
		w.well(20 * time.Second)
		w.fault("pause", string(v), "--for", "1m")
	})
	began := time.Now()
	w.down()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("down took %v with a paused node", took)
	}
}

// over waits until no fault is left.
func (w *world) over() {
	w.t.Helper()
	client, err := launch.FolderOf(w.dir).Client()
	if err != nil {
		w.t.Fatal(err)
	}
	for late := time.After(20 * time.Second); ; {
		fs, err := client.Faults(context.Background())
		if err != nil {
			w.t.Fatal(err)
		}
		if len(fs) == 0 {
			return
		}
		select {
		case <-late:
			w.t.Fatalf("there are faults yet: %+v", fs)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Who started a paused node is killed: the node does not stay for ever.
func TestPausedNodeEndsWithItsParent(t *testing.T) {
	w := start(t, pair)
	all := w.family()
	w.fault("pause", "node-2", "--for", "1h")
	info, err := launch.FolderOf(w.dir).Info()
	if err != nil {
		t.Fatal(err)
	}
	kill(t, info.Pid, syscall.SIGKILL)
	ends(t, all)
}
