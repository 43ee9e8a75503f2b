package route

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func instances(n int) []Instance {
	var among []Instance
	for i := range n {
		among = append(among, Instance{ID: system.Instance("api", i+1), Node: system.NodeID(fmt.Sprintf("node-%d", i+1))})
	}
	return among
}

func TestNext(t *testing.T) {
	some := func(ns ...int) (among []Instance) {
		for _, n := range ns {
			among = append(among, Instance{ID: system.Instance("api", n)})
		}
		return among
	}
	for _, tt := range []struct {
		name  string
		among []Instance
		of    system.InstanceID
		want  system.InstanceID
	}{
		{"the next", some(1, 2, 3), "api/1", "api/2"},
		{"past a gap", some(1, 4, 9), "api/4", "api/9"},
		{"by number, not by name", some(1, 2, 10), "api/2", "api/10"},
		{"round the end", some(1, 2, 10), "api/10", "api/1"},
		{"one that is not ready itself", some(1, 3), "api/2", "api/3"},
		{"order does not matter", some(3, 1, 2), "api/3", "api/1"},
		{"the only one", some(2), "api/2", "api/2"},
		{"nobody", nil, "api/1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Next(tt.among, tt.of)
			if got.ID != tt.want || ok != (tt.want != "") {
				t.Errorf("Next() = %q, %v, want %q", got.ID, ok, tt.want)
			}
		})
	}
}

func TestTableFindsInstances(t *testing.T) {
	table := &Table{Services: map[system.ServiceName]*Service{"api": {Instances: instances(3)}}}
	if in, ok := table.Next("api/3"); !ok || in.ID != "api/1" {
		t.Errorf("Next(api/3) = %v, %v, want api/1", in.ID, ok)
	}
	if in, ok := table.Instance("api/2"); !ok || in.Node != "node-2" {
		t.Errorf("Instance(api/2) = %+v, %v, want node-2", in, ok)
	}
	for _, id := range []system.InstanceID{"api/4", "db/1", "", "api"} {
		if in, ok := table.Instance(id); ok || in.ID != id {
			t.Errorf("Instance(%q) = %+v, %v, want its ID alone", id, in, ok)
		}
	}
	if in, ok := table.Next("db/1"); ok || in.ID != "db/1" {
		t.Errorf("Next(db/1) = %+v, %v, want its ID alone", in, ok)
	}
}

func TestChoose(t *testing.T) {
	among := instances(4)
	suspects := func(bad ...system.InstanceID) func(system.InstanceID) Load {
		return func(id system.InstanceID) Load { return Load{Suspect: slices.Contains(bad, id)} }
	}
	not := func(bad ...system.InstanceID) func(Instance) bool {
		return func(in Instance) bool { return slices.Contains(bad, in.ID) }
	}
	for _, tt := range []struct {
		name  string
		load  func(system.InstanceID) Load
		avoid func(Instance) bool
		want  []system.InstanceID
	}{
		{"all", suspects(), nil, []system.InstanceID{"api/1", "api/2", "api/3", "api/4"}},
		{"no suspects", suspects("api/1", "api/4"), nil, []system.InstanceID{"api/2", "api/3"}},
		{"not those avoided", suspects(), not("api/1", "api/2"), []system.InstanceID{"api/3", "api/4"}},
		{"suspects when nobody else is left", suspects("api/3", "api/4"), not("api/1", "api/2"), []system.InstanceID{"api/3", "api/4"}},
		{"all suspect: fail open", suspects("api/1", "api/2", "api/3", "api/4"), nil, []system.InstanceID{"api/1", "api/2", "api/3", "api/4"}},
		{"all avoided", suspects(), not("api/1", "api/2", "api/3", "api/4"), nil},
	} {
		for _, policy := range append([]string{"", "unknown"}, Policies...) {
			t.Run(tt.name+"/"+policy, func(t *testing.T) {
				p, rnd := NewPicker(policy), rand.New(rand.NewPCG(1, 2))
				got := map[system.InstanceID]bool{}
				for range 400 {
					if in, ok := Choose(p, Ask{Now: epoch, Rnd: rnd.Uint64(), Among: among, Load: tt.load}, tt.avoid); ok {
						got[in.ID] = true
					}
				}
				if len(got) > len(tt.want) || slices.ContainsFunc(tt.want, func(id system.InstanceID) bool { return !got[id] && policy != "leastconn" }) {
					t.Errorf("chose %v, want %v", got, tt.want)
				}
			})
		}
	}
	if among[0].ID != "api/1" || len(among) != 4 {
		t.Error("Choose changed its argument")
	}
}

func TestPolicies(t *testing.T) {
	loads := map[system.InstanceID]Load{"api/1": {Inflight: 9}, "api/2": {Inflight: 1}, "api/3": {Inflight: 5}}
	load := func(id system.InstanceID) Load { return loads[id] }
	rnd := rand.New(rand.NewPCG(3, 4))
	count := func(policy string, n int) [3]int {
		var got [3]int
		p := NewPicker(policy)
		for range n {
			got[p.Pick(Ask{Now: epoch, Rnd: rnd.Uint64(), Among: instances(3), Load: load})]++
		}
		return got
	}
	if got := count("roundrobin", 300); got != [3]int{100, 100, 100} {
		t.Errorf("roundrobin = %v, want 100 each", got)
	}
	if got := count("leastconn", 300); got != [3]int{0, 300, 0} {
		t.Errorf("leastconn = %v, want all to the second", got)
	}
	if got := count("random", 3000); slices.Min(got[:]) < 850 {
		t.Errorf("random = %v, want about 1000 each", got)
	}
	// Two of three at random: the worst is never taken, the best in two pairs of three.
	if got := count("p2c", 3000); got[0] != 0 || got[1] < 1850 || got[1] > 2150 {
		t.Errorf("p2c = %v, want none, about 2000, about 1000", got)
	}
	loads = map[system.InstanceID]Load{}
	if got := count("p2c", 3000); slices.Min(got[:]) < 850 {
		t.Errorf("p2c among equals = %v, want about 1000 each", got)
	}
}

func TestP2CWeighsLatency(t *testing.T) {
	for _, tt := range []struct {
		name string
		a, b Load
		want int
	}{
		{"slower but emptier", Load{Inflight: 1, Latency: 100 * time.Millisecond}, Load{Inflight: 3, Latency: 10 * time.Millisecond}, 1},
		{"unknown latency: by inflight", Load{Inflight: 0}, Load{Inflight: 3, Latency: time.Millisecond}, 0},
		{"latencies near each other: by inflight", Load{Inflight: 1, Latency: 19 * time.Millisecond}, Load{Inflight: 2, Latency: 10 * time.Millisecond}, 0},
		{"equal latency", Load{Inflight: 5, Latency: time.Millisecond}, Load{Inflight: 4, Latency: time.Millisecond}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			load := func(id system.InstanceID) Load {
				if id == "api/1" {
					return tt.a
				}
				return tt.b
			}
			for rnd := range uint64(64) {
				if got := (p2c{}).Pick(Ask{Now: epoch, Rnd: rnd<<32 | rnd, Among: instances(2), Load: load}); got != tt.want {
					t.Fatalf("Pick(rnd %d) = %d, want %d", rnd, got, tt.want)
				}
			}
		})
	}
}

// Nothing in flight and latencies near each other: both get their share.
func TestP2CSharesWhenIdle(t *testing.T) {
	var got [2]int
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		got[(p2c{}).Pick(Ask{Now: epoch, Rnd: rnd.Uint64(), Among: instances(2), Load: func(id system.InstanceID) Load {
			if id == "api/1" {
				return Load{Latency: 10 * time.Millisecond}
			}
			return Load{Latency: 18 * time.Millisecond}
		}})]++
	}
	if got[0] < 400 || got[1] < 400 {
		t.Errorf("picked %v of 1000, want about half each", got)
	}
}

func TestLoads(t *testing.T) {
	var l Loads
	one, two := &Table{}, &Table{}
	at := func(d time.Duration) time.Time { return epoch.Add(d) }
	if got := l.Of("api/1", epoch, one); got != (Load{}) {
		t.Errorf("of a stranger: %+v, want nothing", got)
	}
	l.Begin("api/1")
	l.Begin("api/1")
	l.End("api/1")
	if got := l.Of("api/1", epoch, one).Inflight; got != 1 {
		t.Errorf("Inflight = %d, want 1", got)
	}

	if !l.Suspect("api/1", epoch, one) || l.Suspect("api/1", at(time.Second), one) {
		t.Error("Suspect() is news once")
	}
	for _, tt := range []struct {
		name  string
		at    time.Duration
		under *Table
		want  bool
	}{
		{"at once", time.Second, one, true},
		{"just before the end", time.Second + SuspectFor - 1, one, true},
		{"at the end", time.Second + SuspectFor, one, false},
		{"under a new table", time.Second, two, false},
	} {
		if got := l.Of("api/1", at(tt.at), tt.under).Suspect; got != tt.want {
			t.Errorf("%s: Suspect = %v, want %v", tt.name, got, tt.want)
		}
	}
	if !l.Suspect("api/1", at(time.Minute), one) {
		t.Error("Suspect() after the last one ended is news")
	}
	l.Answered("api/1", at(time.Minute), 10*time.Millisecond)
	if l.Of("api/1", at(time.Minute), one).Suspect {
		t.Error("suspect after an answer")
	}

	near := func(got, want time.Duration) bool { return (got - want).Abs() < want/50+time.Microsecond }
	l.Answered("api/2", epoch, 10*time.Millisecond)
	l.Answered("api/2", epoch, 100*time.Millisecond)
	if got := l.Of("api/2", epoch, one).Latency; !near(got, 100*time.Millisecond) {
		t.Errorf("after a peak: %v, want it at once, 100ms", got)
	}
	l.Answered("api/2", at(forget), 10*time.Millisecond)
	if got := l.Of("api/2", at(forget), one).Latency; !near(got, 43*time.Millisecond) { // 100/e + 10(1-1/e)
		t.Errorf("one time constant later: %v, want 43ms", got)
	}
	if got := l.Of("api/2", at(10*forget), one).Latency; got > time.Millisecond {
		t.Errorf("long after the last answer: %v, want it forgotten, so that it is asked again", got)
	}
}

func TestFullView(t *testing.T) {
	ctx := t.Context()
	if _, err := (FullView{}).Locate(ctx, "k"); !errors.Is(err, ErrNoInstance) {
		t.Errorf("nobody: %v, want ErrNoInstance", err)
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, err := (FullView{Instances: instances(1)}).Locate(ended, "k"); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v, want Canceled", err)
	}
	share := map[system.InstanceID]int{}
	for i := range 4000 {
		l, err := FullView{Instances: instances(4), Epoch: 3}.Locate(ctx, Key(fmt.Sprint("key-", i)))
		if err != nil || l.Hops != 0 || l.Epoch != 3 {
			t.Fatalf("Locate() = %+v, %v", l, err)
		}
		share[l.Instance]++
	}
	for id, n := range share {
		if n < 850 || n > 1150 {
			t.Errorf("%s owns %d of 4000 keys, want about 1000", id, n)
		}
	}
}

// Losing an instance moves its keys alone, and order does not matter.
// FullView checks ownership by the same view.
func TestFullViewOwns(t *testing.T) {
	v := FullView{Instances: instances(3)}
	l, err := v.Locate(context.Background(), "k")
	if err != nil {
		t.Fatal(err)
	}
	for _, in := range v.Instances {
		if err := v.Owns("k", in.ID, 0); (err == nil) != (in.ID == l.Instance) {
			t.Errorf("Owns(%s) = %v, the owner is %s", in.ID, err, l.Instance)
		}
	}
}

func TestFullViewMovesLittle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		among := instances(rapid.IntRange(2, 8).Draw(t, "n"))
		key := Key(rapid.String().Draw(t, "key"))
		lost := rapid.IntRange(0, len(among)-1).Draw(t, "lost")
		before, _ := FullView{Instances: among}.Locate(context.Background(), key)
		left := slices.Delete(slices.Clone(among), lost, lost+1)
		slices.Reverse(left)
		after, _ := FullView{Instances: left}.Locate(context.Background(), key)
		if before.Instance != among[lost].ID && after != before {
			t.Fatalf("key moved from %s to %s though %s was lost", before.Instance, after.Instance, among[lost].ID)
		}
	})
}

func BenchmarkChoose(b *testing.B) {
	var l Loads
	table, among, p := &Table{}, instances(8), NewPicker("p2c")
	for _, in := range among {
		l.Answered(in.ID, epoch, time.Millisecond)
	}
	load := func(id system.InstanceID) Load { return l.Of(id, epoch, table) }
	rnd := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		Choose(p, Ask{Now: epoch, Rnd: rnd.Uint64(), Among: among, Load: load}, nil)
	}
}
