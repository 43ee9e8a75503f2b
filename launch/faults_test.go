package launch

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/admin"
	"servent/control"
	"servent/link"
	"servent/system"
)

func TestTroubles(t *testing.T) {
	nodes := []system.NodeID{"a", "b", "c"}
	cut, slow := link.Fault{Cut: true}, link.Fault{Slow: time.Second, Jitter: time.Millisecond, Rate: 5}
	for _, tt := range []struct {
		name   string
		faults []admin.Trouble
		to     map[system.NodeID]link.Faults
		down   []system.NodeID
		paused []system.NodeID
	}{
		{name: "none"},
		{name: "a pair", faults: []admin.Trouble{{Kind: admin.FaultCut, Node: "a", Peer: "b"}},
			to: map[system.NodeID]link.Faults{"a": {"b": cut}, "b": {"a": cut}}},
		{name: "one way", faults: []admin.Trouble{{Kind: admin.FaultCut, Node: "a", Peer: "b", OneWay: true}},
			to: map[system.NodeID]link.Faults{"a": {"b": cut}}},
		{name: "from all", faults: []admin.Trouble{{Kind: admin.FaultCut, Node: "b"}},
			to: map[system.NodeID]link.Faults{"b": {"a": cut, "c": cut}, "a": {"b": cut}, "c": {"b": cut}}},
		{name: "to all", faults: []admin.Trouble{{Kind: admin.FaultCut, Node: "b", OneWay: true}},
			to: map[system.NodeID]link.Faults{"b": {"a": cut, "c": cut}}},
		{name: "several", faults: []admin.Trouble{
			{Kind: admin.FaultSlow, Node: "a", Peer: "b", Latency: time.Second, Jitter: time.Millisecond, Rate: 5},
			{Kind: admin.FaultSlow, Node: "b", Peer: "a", OneWay: true, Latency: time.Second},
			{Kind: admin.FaultCut, Node: "c", Peer: "a"},
			{Kind: admin.FaultKill, Node: "b"}, {Kind: admin.FaultPause, Node: "c"}},
			to:   map[system.NodeID]link.Faults{"a": {"b": slow, "c": cut}, "b": {"a": slow.And(link.Fault{Slow: time.Second})}, "c": {"a": cut}},
			down: []system.NodeID{"b"}, paused: []system.NodeID{"c"}},
		{name: "of one that left", faults: []admin.Trouble{{Kind: admin.FaultCut, Node: "gone"}, {Kind: admin.FaultKill, Node: "gone"}, {Kind: admin.FaultCut, Node: "a", Peer: "gone"}}},
	} {
		list := []fault{{Fault: admin.Fault{Trouble: admin.Trouble{Kind: admin.FaultKill, Node: "a"}}}} // not yet begun
		for _, tr := range tt.faults {
			list = append(list, fault{admin.Fault{Trouble: tr}, true})
		}
		got := troubles(list, nodes, 7)
		for _, id := range nodes {
			g := got[id]
			want := tt.to[id]
			if want == nil {
				want = link.Faults{}
			}
			if diff := cmp.Diff(want, g.to); diff != "" || g.turn != 7 || g.down != slices.Contains(tt.down, id) || g.paused != slices.Contains(tt.paused, id) {
				t.Errorf("%s: %s gets %+v\n%s", tt.name, id, g, diff)
			}
			if (g.down || g.paused) != (g.why != "") && tt.name != "from all" && tt.name != "to all" {
				t.Errorf("%s: %s: why %q", tt.name, id, g.why)
			}
		}
		if len(got) != len(nodes) {
			t.Errorf("%s: %d nodes are in trouble, there are %d", tt.name, len(got), len(nodes))
		}
	}
}

func TestFaultsBeginAndEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var told []string
		fs := newFaults(&nodes{}, func(e system.Event) {
			told = append(told, fmt.Sprintf("%v %s %s %s", e.Time.Sub(began), e.Kind, e.Node, e.Text))
		})
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); fs.Run(ctx) }()
		ids := func() (out []int) {
			for _, f := range fs.List() {
				out = append(out, f.ID)
			}
			return out
		}
		add := func(tr admin.Trouble) admin.Fault {
			f, err := fs.Add(tr)
			if err != nil {
				t.Fatal(err)
			}
			return f
		}
		add(admin.Trouble{Kind: admin.FaultCut, Node: "a", For: 3 * time.Second})
		add(admin.Trouble{Kind: admin.FaultPause, Node: "b", After: time.Second, For: time.Second})
		add(admin.Trouble{Kind: admin.FaultKill, Node: "c"})
		add(admin.Trouble{Kind: admin.FaultKill, Node: "d", After: time.Hour})
		if f := fs.List()[1]; !f.Begins.Equal(began.Add(time.Second)) || !f.Ends.Equal(began.Add(2*time.Second)) {
			t.Errorf("%+v, want it from 1s to 2s", f)
		}
		time.Sleep(1500 * time.Millisecond)
		if got := ids(); !slices.Equal(got, []int{1, 2, 3, 4}) {
			t.Errorf("at 1.5s there are %v", got)
		}
		time.Sleep(2 * time.Second)
		if got := ids(); !slices.Equal(got, []int{3, 4}) {
			t.Errorf("at 3.5s there are %v", got)
		}
		if got := fs.End("is healed", func(admin.Fault) bool { return true }); len(got) != 2 || got[0].ID != 3 || got[1].ID != 4 {
			t.Errorf("ended %+v, want 3 and 4", got)
		}
		time.Sleep(2 * time.Hour) // 4 never begins
		if f := add(admin.Trouble{Kind: admin.FaultKill, Node: "a"}); f.ID != 5 {
			t.Errorf("the next one is %d, want 5", f.ID)
		}
		cancel()
		<-done
		want := []string{
			"0s fault a fault 1, cut a ↔ all others, begins, for 3s",
			"0s fault c fault 3, kill c, begins, until it is healed",
			"1s fault b fault 2, pause b, begins, for 1s",
			"2s fault b fault 2, pause b, is over",
			"3s fault a fault 1, cut a ↔ all others, is over",
			"3.5s fault c fault 3, kill c, is healed",
			"3.5s fault d fault 4, kill d, is healed",
			"2h0m3.5s fault a fault 5, kill a, begins, until it is healed",
		}
		if diff := cmp.Diff(want, told); diff != "" {
			t.Error(diff)
		}
	})
}

func TestFaultsHaveABound(t *testing.T) {
	fs := newFaults(&nodes{}, func(system.Event) {})
	for range mostFaults {
		if _, err := fs.Add(admin.Trouble{Kind: admin.FaultKill, Node: "a", After: time.Hour}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := fs.Add(admin.Trouble{Kind: admin.FaultKill, Node: "a"}); err == nil {
		t.Error("one more was taken")
	}
}

func TestFaultsAreAmongTheEvents(t *testing.T) {
	at := func(s int) system.Event { return system.Event{Time: time.Unix(int64(s), 0)} }
	bare := &control.View{Rev: 9, Events: []system.Event{at(1), at(3)}}
	if got := among(bare, nil); got != bare {
		t.Error("without faults the view is another")
	}
	got := among(bare, []system.Event{at(2), at(4)})
	if diff := cmp.Diff([]system.Event{at(1), at(2), at(3), at(4)}, got.Events); diff != "" || got.Rev != 9 || len(bare.Events) != 2 {
		t.Errorf("events are out of order, or the view was changed\n%s", diff)
	}
}

func TestChildSuffers(t *testing.T) {
	c, until, stop := raise(t, "serves", nil)
	first := until("up", isUp)
	c.suffer(trouble{turn: 1, down: true, why: "by a fault"})
	until("gone", func(s admin.NodeState) bool { return s.State == "gone" && s.Why == "by a fault" && s.Pid == 0 })
	if c.Failed() == nil {
		t.Error("nothing failed")
	}
	c.suffer(trouble{turn: 3, to: link.Faults{"node-2": {Cut: true}}})
	second := until("up again", isUp)
	if second.Pid == first.Pid {
		t.Error("the process was not killed")
	}
	c.suffer(trouble{turn: 2, down: true}) // is late: it is no longer so
	if c.down() {
		t.Error("what was before counts")
	}
	c.suffer(trouble{turn: 4, to: link.Faults{"node-2": {Slow: time.Second}}})
	until("told", func(admin.NodeState) bool { return !c.deaf() })
	if got := c.faults(); got.Turn != 4 || got.To["node-2"].Slow != time.Second {
		t.Errorf("its faults are %+v", got)
	}
	c.suffer(trouble{turn: 5, to: link.Faults{"node-2": {Slow: time.Second}}}) // nothing new: nothing to tell
	if c.deaf() {
		t.Error("it is to be told what it knows")
	}
	if runtime.GOOS == "windows" {
		return
	}
	c.suffer(trouble{turn: 6, paused: true, why: "by a fault"})
	if s := c.State(); s.State != "paused" || s.Why != "by a fault" || s.Pid != second.Pid {
		t.Errorf("paused: %+v", s)
	}
	if c.deaf() {
		t.Error("one that is paused is waited for")
	}
	c.suffer(trouble{turn: 7})
	until("up and told", func(s admin.NodeState) bool { return isUp(s) && !c.deaf() && s.Pid == second.Pid })
	c.suffer(trouble{turn: 8, paused: true, why: "by a fault"})
	began := time.Now()
	stop()
	if took := time.Since(began); took > stopGrace/2 {
		t.Errorf("a paused node ended after %v", took)
	}
}
