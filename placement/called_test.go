package placement

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

// function is a service whose instances follow its calls: up to 5, two requests at a time each, 30s idle.
func function(change ...func(*system.Service)) *system.System {
	of := func(s *system.Service) {
		s.Architecture = system.Function
		s.Scale = system.Scale{Max: 5, Inflight: 2, Idle: 30 * time.Second}
	}
	return sys(service("fn", 0, append([]func(*system.Service){of}, change...)...))
}

// ask sets what a node's doors are asked.
func (w *world) ask(node system.NodeID, inflight float64) {
	w.nodes[node].Demand = nil
	if inflight > 0 {
		w.nodes[node].Demand = []system.Demand{{Service: "fn", Inflight: inflight}}
	}
}

func (w *world) want() int { return w.in.Plan.Deployment("fn").Called.Want }

func TestCallsMakeInstances(t *testing.T) {
	for _, tt := range []struct {
		name string
		min  int
		ask  map[system.NodeID]float64
		want []string
	}{
		{"nobody calls", 0, nil, nil},
		{"nobody calls, one is kept", 1, nil, []string{"fn/1@node-1"}},
		{"where it is called", 0, map[system.NodeID]float64{"node-2": 0.125}, []string{"fn/1@node-2"}},
		{"as many as it takes, where most call first", 0, map[system.NodeID]float64{"node-2": 1, "node-3": 2.5}, []string{"fn/1@node-3", "fn/2@node-2"}},
		{"the others are spread", 0, map[system.NodeID]float64{"node-2": 6}, []string{"fn/1@node-2", "fn/2@node-1", "fn/3@node-3"}},
		{"small demands add up to one", 0, map[system.NodeID]float64{"node-1": 0.5, "node-2": 0.5, "node-3": 1}, []string{"fn/1@node-3"}},
		{"no more than max", 0, map[system.NodeID]float64{"node-1": 1e300, "node-2": 1e300}, []string{"fn/1@node-1", "fn/2@node-2", "fn/3@node-3", "fn/4@node-2", "fn/5@node-1"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, function(func(s *system.Service) { s.Scale.Min = tt.min }), fleetOf(3)...)
			for n, x := range tt.ask {
				w.ask(n, x)
			}
			got := brief(w.settle())
			if len(tt.want) == 5 { // where the last ones go is the search's affair
				got, tt.want = got[:3], tt.want[:3]
			}
			slices.Sort(got)
			slices.Sort(tt.want)
			if !slices.Equal(got, tt.want) {
				t.Errorf("plan is %v, want %v", got, tt.want)
			}
		})
	}
}

func TestNoInstanceWhereNoneMayRun(t *testing.T) {
	w := newWorld(t, function(func(s *system.Service) {
		s.Placement.Constraints = []system.Constraint{{Attribute: "node.id", Not: true, Value: "node-2"}}
	}), fleetOf(3)...)
	w.ask("node-2", 1)
	if got := brief(w.settle()); len(got) != 1 || strings.HasSuffix(got[0], "node-2") {
		t.Errorf("plan is %v, want one instance, not on node-2", got)
	}
}

// Instances come at once and go late: only when fewer have done for half the idle time, the other half being
// the nodes' affair.
func TestInstancesGoLate(t *testing.T) {
	w := newWorld(t, function(), fleetOf(3)...)
	w.ask("node-1", 6)
	w.settle()
	w.ask("node-1", 2)
	began := w.in.Now
	for w.want() == 3 {
		if w.in.Now.Sub(began) > time.Minute {
			t.Fatal("they never go")
		}
		w.decide()
		w.obey()
	}
	if took := w.in.Now.Sub(began); took < 15*time.Second || took > 17*time.Second {
		t.Errorf("they go after %v, want 15s", took)
	}
	if got := w.want(); got != 1 {
		t.Errorf("%d are left, want 1", got)
	}
	p := w.settle()
	wantBrief(t, p, "fn/1@node-1") // where it is called
	w.ask("node-1", 0)
	for range 40 {
		w.decide()
		w.obey()
	}
	wantBrief(t, w.settle())
	if c := w.in.Plan.Deployment("fn").Called; c.Want != 0 || c.Wakes != 1 {
		t.Errorf("%+v, want none, woken once", c)
	}
	w.ask("node-3", 1)
	wantBrief(t, w.settle(), "fn/1@node-3")
	if c := w.in.Plan.Deployment("fn").Called; c.Wakes != 2 {
		t.Errorf("woken %d times, want 2", c.Wakes)
	}
}

// What is on its way out is taken back when it is called again.
func TestCalledAgain(t *testing.T) {
	w := newWorld(t, function(), fleetOf(2)...)
	w.ask("node-1", 1)
	w.settle()
	w.ask("node-1", 0)
	for len(brief(w.in.Plan)) == 0 || !strings.HasSuffix(brief(w.in.Plan)[0], "(drain)") {
		w.obey()
		w.decide()
	}
	w.ask("node-2", 1)
	w.decide()
	wantBrief(t, w.in.Plan, "fn/1@node-1")
}

// While a conductor that has just begun waits for nodes, it does not know what they are asked.
func TestSilentNodesKeepInstances(t *testing.T) {
	w := newWorld(t, function(), fleetOf(3)...)
	w.ask("node-1", 6)
	w.settle()
	w.dead["node-1"] = true
	w.in.Away = []system.NodeID{"node-1"}
	for range 60 {
		w.decide()
		w.obey()
	}
	if got := w.want(); got != 3 {
		t.Errorf("%d are wanted, want 3: node-1 has not spoken", got)
	}
}

func TestBecomesAFunction(t *testing.T) {
	w := newWorld(t, sys(service("fn", 3)), fleetOf(3)...)
	w.settle()
	w.in.System = function()
	w.decide()
	if got := w.ready("fn"); got != 3 {
		t.Errorf("%d are ready, want all 3: they go when nobody calls", got)
	}
	for range 60 {
		w.decide()
		w.obey()
	}
	wantBrief(t, w.settle())
	w.in.System = sys(service("fn", 2))
	if p := w.settle(); len(p.Deployment("fn").Assignments) != 2 || p.Deployment("fn").Called != nil {
		t.Errorf("replicated again:\n%s", show(p))
	}
}

func TestWhySoMany(t *testing.T) {
	w := newWorld(t, function(), fleetOf(3)...)
	w.settle()
	for _, tt := range []struct {
		ask  float64
		want string
	}{
		{0, "0 instances: nobody calls; the first call makes one; woken 0 times"},
		{5, "3 instances: requests at a time of late: 5 on node-2; 2 for each instance; woken 1 time"},
		{1, "3 instances: requests at a time of late: 1 on node-2; 2 for each instance; 1 would do, what is more goes when that has been so for a while; woken 1 time"},
		{20, "5 instances: requests at a time of late: 20 on node-2; 2 for each instance; scale.max is 5; woken 1 time"},
	} {
		w.ask("node-2", tt.ask)
		if got := Why(w.input(), "fn"); got != tt.want {
			t.Errorf("asked %v: %q\nwant %q", tt.ask, got, tt.want)
		}
		w.settle()
	}
	if got := Why(w.input(), "api"); got != "" {
		t.Errorf("of a service that there is not: %q", got)
	}
}

// Whatever is asked, the number stays in its bounds; what is needed is planned at once; and under a demand that
// is steady the plan comes to rest and is left alone.
func TestAnyCalls(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		low, high := rapid.IntRange(0, 3).Draw(t, "min"), rapid.IntRange(3, 8).Draw(t, "max")
		each := rapid.IntRange(1, 4).Draw(t, "inflight")
		w := newWorld(t, function(func(s *system.Service) { s.Scale.Min, s.Scale.Max, s.Scale.Inflight = low, high, each }), fleetOf(3)...)
		var sum float64
		for range rapid.IntRange(1, 12).Draw(t, "changes") {
			sum = 0
			for i := range 3 {
				x := rapid.Float64Range(0, 12).Draw(t, "asked")
				sum += x
				w.ask(system.NodeID(fmt.Sprint("node-", i+1)), x)
			}
			for range rapid.IntRange(1, 20).Draw(t, "seconds") {
				w.decide()
				got := w.want()
				if got < low || got > high {
					t.Fatalf("%d instances, want %d to %d", got, low, high)
				}
				if float64(got*each) < sum-1e-6 && got < high {
					t.Fatalf("%d instances for %v at a time", got, sum)
				}
				w.obey()
			}
		}
		for range 40 { // idle time and drains pass
			w.decide()
			w.obey()
		}
		w.settle()
		rest := w.in.Plan.Generation
		for range 60 {
			w.decide()
			w.obey()
		}
		if w.in.Plan.Generation != rest {
			t.Fatalf("plan %d became %d under a steady demand", rest, w.in.Plan.Generation)
		}
		if got := w.want(); got > low && float64((got-1)*each) >= sum+1e-6 {
			t.Fatalf("%d instances are left for %v at a time", got, sum)
		}
	})
}

// Processor time is a goal as requests are: so many instances that each uses its share; of two goals the one that needs more counts.
func TestProcessorTimeMakesInstances(t *testing.T) {
	of := func(inflight int) *system.System {
		return sys(service("fn", 1, func(s *system.Service) {
			s.Scale = system.Scale{Min: 1, Max: 6, CPU: 0.5, Inflight: inflight, Idle: 30 * time.Second}
			s.Limits.CPUs = 0.5
		}))
	}
	w := newWorld(t, of(0), fleetOf(3)...)
	w.settle()
	use := func(node system.NodeID, cpu, inflight float64) {
		w.nodes[node].Demand = []system.Demand{{Service: "fn", CPU: cpu, Inflight: inflight}}
	}
	use("node-1", 0.4, 100) // requests are no goal
	use("node-2", 0.3, 0)
	if w.settle(); w.want() != 3 { // 0.7 processors, 0.25 for each
		t.Errorf("%d instances, want 3", w.want())
	}
	if why := Why(w.input(), "fn"); !strings.Contains(why, "3 instances: processors used of late: 0.40 on node-1, 0.30 on node-2; 0.25 for each instance") {
		t.Errorf("why: %s", why)
	}
	w.in.System = of(25)
	if w.settle(); w.want() != 4 { // 100 requests, 25 for each
		t.Errorf("with two goals %d instances, want 4", w.want())
	}
}
