package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"servent/system"
)

func TestPlacesAndReasons(t *testing.T) {
	labelled := func(id system.NodeID, site system.Site, disk string) system.Seen {
		n := node(id, site)
		n.Labels = map[string]string{"disk": disk}
		return n
	}
	atEdge := func(id system.NodeID) system.Seen {
		n := node(id, "eu")
		n.Role = system.RoleEdge
		return n
	}
	on := func(attribute, value string) func(*system.Service) {
		return func(s *system.Service) {
			s.Placement.Constraints = append(s.Placement.Constraints, system.Constraint{Attribute: attribute, Value: value})
		}
	}
	after := func(name system.ServiceName) func(*system.Service) {
		return func(s *system.Service) { s.DependsOn = append(s.DependsOn, system.Dependency{Service: name}) }
	}
	single := func(s *system.Service) { s.Architecture = system.Single }
	needs := func(memory int64) func(*system.Service) {
		return func(s *system.Service) { s.Reserve.Memory = memory }
	}
	sized := func(id system.NodeID, memory int64) system.Seen {
		n := node(id, "eu")
		n.Resources.Memory = memory
		return n
	}
	const gib = 1 << 30
	for _, tt := range []struct {
		name     string
		services []system.Service
		nodes    []system.Seen
		want     []string
		reasons  []string // of all assignments, in order
		refused  string
	}{
		{"one on one", []system.Service{service("api", 1)}, fleetOf(1), []string{"api/1@node-1"}, []string{"the only node"}, ""},
		{"alike", []system.Service{service("api", 1)}, []system.Seen{node("b", "eu"), node("a", "eu")}, []string{"api/1@a"}, []string{"first of 2 nodes that are alike"}, ""},
		{"sites before nodes", []system.Service{service("api", 2)}, []system.Seen{node("a", "eu"), node("b", "eu"), node("c", "ap")},
			[]string{"api/1@a", "api/2@c"}, []string{"spread: fewest instances of api (0) in site eu", "spread: fewest instances of api (0) in site ap"}, ""},
		{"constraint", []system.Service{service("db", 1, on("node.labels.disk", "ssd"))}, []system.Seen{labelled("a", "eu", "hdd"), labelled("b", "eu", "ssd")},
			[]string{"db/1@b"}, []string{"only node with label disk=ssd"}, ""},
		{"no such label", []system.Service{service("db", 1, on("node.labels.disk", "ssd"))}, []system.Seen{labelled("a", "eu", "hdd"), node("b", "eu")},
			nil, nil, "a: label disk is hdd, want ssd; b: has no label disk, want ssd"},
		{"no such attribute", []system.Service{service("db", 1, on("node.hostname", "x"))}, fleetOf(1), nil, nil,
			"node-1: knows no node.hostname; want node.id, node.site, node.group, node.role or node.labels.NAME"},
		{"no driver", []system.Service{service("api", 1, func(s *system.Service) { s.Software.Kind = system.Image })},
			[]system.Seen{node("a", "eu"), {Node: "b", Drivers: map[string]string{"image": "no container engine here"}}}, nil, nil,
			"a: has no driver for image; b: cannot run image: no container engine here"},
		{"an edge gets what names it", []system.Service{service("api", 2), service("kiosk", 1, on("node.role", "edge"))}, []system.Seen{atEdge("e"), node("n", "eu")},
			[]string{"api/1@n", "api/2@n", "kiosk/1@e"}, []string{"only node that fits", "only node that fits", "only node with role=edge"}, ""},
		{"one of two edges", []system.Service{service("kiosk", 1, on("node.role", "edge"), on("node.id", "f"))}, []system.Seen{atEdge("e"), atEdge("f")}, []string{"kiosk/1@f"}, nil, ""},
		{"an edge that took a node's name", []system.Service{service("vault", 1, on("node.id", "e"))}, []system.Seen{atEdge("e")}, nil, nil,
			"e: is an edge; want the constraint node.role == edge"},
		{"an edge alone", []system.Service{service("api", 1, on("node.labels.disk", ""))}, []system.Seen{atEdge("e")}, nil, nil,
			"e: is an edge; want the constraint node.role == edge"},
		{"no overlay at an edge", []system.Service{service("api", 0, on("node.role", "edge"), func(s *system.Service) { s.Architecture = system.Partitioned; s.Replicas = 2 })},
			[]system.Seen{atEdge("e")}, nil, nil, "e: is an edge, which runs single and replicated services alone"},
		{"no node", []system.Service{service("api", 1)}, nil, nil, nil, "no node is there"},
		{"no room", []system.Service{service("api", 3, needs(2*gib))}, []system.Seen{sized("a", 3*gib+gib/5), sized("b", gib)},
			[]string{"api/1@a"}, []string{"only node that fits"}, "a: needs 2 GiB, 1.2 GiB free; b: needs 2 GiB, 1 GiB free"},
		{"big ones get their room", []system.Service{service("a", 1, needs(gib)), service("b", 1, needs(2*gib))}, []system.Seen{sized("m", 2*gib), sized("n", gib)},
			[]string{"a/1@n", "b/1@m"}, []string{"only node that fits", "only node that fits"}, ""},
		{"beside what it depends on", []system.Service{service("api", 1, after("db")), service("db", 1, on("node.id", "c"), single)},
			[]system.Seen{node("a", "eu"), node("c", "ap"), node("d", "ap")}, []string{"api/1@d(wait)", "db/1@c"},
			[]string{"fewest instances in all (0); in site ap, like db, which it depends on", "only node with id=c"}, ""},
		{"near beats even load", []system.Service{service("api", 1, func(s *system.Service) { s.Near = "db" }), service("db", 1, on("node.id", "b"))},
			[]system.Seen{node("a", "eu"), node("b", "ap")}, []string{"api/1@b", "db/1@b"}, []string{"beside db, as the file asks", "only node with id=b"}, ""},
		{"at most one on a node", []system.Service{service("api", 3, func(s *system.Service) { s.Placement.MaxPerNode = 1 })}, fleetOf(2),
			[]string{"api/1@node-1", "api/2@node-2"}, nil, "node-1, node-2: has 1 of api and may have no more"},
		{"spread over racks", []system.Service{service("api", 2, func(s *system.Service) { s.Placement.Spread = []string{"node.labels.disk"} })},
			[]system.Seen{labelled("a", "eu", "x"), labelled("b", "eu", "x"), labelled("c", "eu", "y")}, []string{"api/1@a", "api/2@c"},
			[]string{"spread: fewest instances of api (0) where label disk is x", "spread: fewest instances of api (0) where label disk is y"}, ""},
		{"every node", []system.Service{service("api", 0, func(s *system.Service) { s.Architecture = system.Ring })}, fleetOf(3),
			[]string{"api/1@node-1", "api/2@node-2", "api/3@node-3"}, nil, ""},
		{"no instance until called", []system.Service{service("fn", 0, func(s *system.Service) { s.Architecture = system.Function })}, fleetOf(3), nil, nil, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t, sys(tt.services...), tt.nodes...)
			p := w.decide().Plan
			wantBrief(t, p, tt.want...)
			var reasons, refused []string
			for _, d := range p.Services {
				for _, a := range d.Assignments {
					reasons = append(reasons, a.Reason)
				}
			}
			for _, r := range p.Refused {
				refused = append(refused, r.Reason)
			}
			if tt.reasons != nil && !slices.Equal(reasons, tt.reasons) {
				t.Errorf("reasons are\n%s\nwant\n%s", strings.Join(reasons, "\n"), strings.Join(tt.reasons, "\n"))
			}
			if got := strings.Join(refused, "\n"); got != tt.refused {
				t.Errorf("refused:\n%s\nwant\n%s", got, tt.refused)
			}
		})
	}
}

func TestNothingWantedIsNothing(t *testing.T) {
	if d := Next(Input{}); d.Changed || d.Plan != nil {
		t.Errorf("Next of nothing = %+v, want nothing", d)
	}
}

// TestGoesOnFromALaterPlan: control that was begun anew from a backup has an older plan than nodes follow, and goes on from theirs. An edge's word does not count.
func TestGoesOnFromALaterPlan(t *testing.T) {
	w := newWorld(t, sys(service("api", 2)), fleetOf(2)...)
	w.settle()
	stood := w.in.Plan.Generation
	e := node("e", "eu")
	e.Role, e.Plan = system.RoleEdge, 1000
	w.nodes["e"] = &e
	if d := w.decide(); d.Changed {
		t.Errorf("an edge says that it follows plan 1000: plan %d after %d", d.Plan.Generation, stood)
	}
	w.nodes["node-2"].Plan = stood + 40
	w.in.Fence++
	if d := w.decide(); !d.Changed || d.Plan.Generation != stood+41 || d.Plan.Fence != w.in.Fence {
		t.Errorf("a node follows plan %d: plan %d, fence %d, want %d, %d", stood+40, d.Plan.Generation, d.Plan.Fence, stood+41, w.in.Fence)
	}
	wantBrief(t, w.settle(), "api/1@node-1", "api/2@node-2")
}

func TestCordonedGetsNothingNewAndKeepsWhatItHas(t *testing.T) {
	w := newWorld(t, sys(service("api", 2)), fleetOf(2)...)
	w.settle()
	w.nodes["node-1"].Cordoned = true
	wantBrief(t, w.settle(), "api/1@node-1", "api/2@node-2")
	w.in.System = sys(service("api", 3))
	wantBrief(t, w.settle(), "api/1@node-1", "api/2@node-2", "api/3@node-2")
}

// A node that is to be emptied keeps what is tied, and each of the others until its successor is ready.
func TestDrainedNodeIsEmptied(t *testing.T) {
	tiedOne := service("db", 1, func(s *system.Service) { s.Data.Kind = system.DataHard }, func(s *system.Service) {
		s.Placement.Constraints = []system.Constraint{{Attribute: "node.id", Value: "node-1"}}
	})
	w := newWorld(t, sys(service("api", 2), tiedOne), fleetOf(2)...)
	w.settle()
	w.nodes["node-1"].Cordoned, w.nodes["node-1"].Draining = true, true
	first := w.decide().Plan
	ready := 0
	for _, a := range first.Deployment("api").Assignments {
		if a.Goal == system.GoalRun {
			ready++
		}
	}
	if ready != 3 {
		t.Errorf("first step: %s; want one more beside the old ones", show(first))
	}
	plan := w.settle()
	for _, a := range plan.Deployment("api").Assignments {
		if a.Node != "node-2" {
			t.Errorf("after it: %s", show(plan))
		}
	}
	if a := plan.Deployment("db").Assignments; len(a) != 1 || a[0].Node != "node-1" || a[0].Goal != system.GoalRun {
		t.Errorf("what is tied: %s", show(plan))
	}
	w.nodes["node-1"].Cordoned, w.nodes["node-1"].Draining = false, false
	if d := w.decide(); d.Changed {
		t.Errorf("taken back, it moves instances:\n%s", show(d.Plan))
	}
	w.nodes["node-1"].Cordoned, w.nodes["node-1"].Draining, w.nodes["node-2"].Cordoned = true, true, true
	if d := w.decide(); d.Plan.Deployment("api") == nil || len(d.Plan.Deployment("api").Assignments) != 2 {
		t.Errorf("with nowhere to go:\n%s", show(d.Plan))
	}
}

// Of an architecture that has an instance on every node, a drained node loses its own.
func TestDrainedEverywhere(t *testing.T) {
	w := newWorld(t, sys(service("api", 0, func(s *system.Service) { s.Architecture = system.Ring })), fleetOf(3)...)
	w.settle()
	w.nodes["node-2"].Cordoned, w.nodes["node-2"].Draining = true, true
	wantBrief(t, w.settle(), "api/1@node-1", "api/3@node-3")
}

func TestDeadNodeStateless(t *testing.T) {
	w := newWorld(t, sys(service("api", 3)), fleetOf(3)...)
	before := w.settle()
	w.dead["node-2"] = true
	after := w.decide().Plan
	wantBrief(t, after, "api/1@node-1", "api/2@node-1", "api/3@node-3")
	was, is := before.Services[0].Assignments[1], after.Services[0].Assignments[1]
	if was.Port != is.Port {
		t.Errorf("port is %d, want it kept at %d", is.Port, was.Port)
	}
	if want := "moved from node-2, which is gone: first of 2 nodes that are alike"; !strings.HasPrefix(is.Reason, want) {
		t.Errorf("reason is %q, want it to begin with %q", is.Reason, want)
	}
	if got := w.settle(); got.Generation != after.Generation {
		t.Errorf("generation %d after settling, want %d", got.Generation, after.Generation)
	}
	delete(w.dead, "node-2")
	w.nodes["node-2"].Instances = nil
	if d := w.decide(); d.Changed {
		t.Errorf("a returning node moves instances:\n%s", show(d.Plan))
	}
}

func TestAwayNodeIsLeftBe(t *testing.T) {
	w := newWorld(t, sys(service("api", 2), service("db", 1, tied)), fleetOf(2)...)
	w.settle()
	w.dead["node-1"], w.dead["node-2"] = true, true
	if d := w.decide(); d.Changed {
		t.Errorf("nobody is alive, yet the plan changes:\n%s", show(d.Plan))
	}
	delete(w.dead, "node-1")
	w.in.Away = []system.NodeID{"node-2"}
	if d := w.decide(); d.Changed {
		t.Errorf("node-2 is within its grace, yet the plan changes:\n%s", show(d.Plan))
	}
}

func TestNoOtherPlaceKeepsTheOld(t *testing.T) {
	pinned := func(s *system.Service) {
		s.Placement.Constraints = []system.Constraint{{Attribute: "node.id", Value: "node-2"}}
	}
	w := newWorld(t, sys(service("api", 1, pinned)), fleetOf(2)...)
	w.settle()
	w.dead["node-2"] = true
	p := w.settle()
	wantBrief(t, p, "api/1@node-2")
	if len(p.Refused) != 1 || p.Refused[0].Missing != 1 || p.Refused[0].Reason != "node-1: id is node-1, want node-2" {
		t.Errorf("refused %+v, want one instance, because of node-1's id", p.Refused)
	}
	delete(w.dead, "node-2")
	w.nodes["node-2"].Instances = nil
	if p := w.settle(); len(p.Refused) != 0 || w.ready("api") != 1 {
		t.Errorf("after its return:\n%s", show(p))
	}
}

func TestTiedWaitsForItsNode(t *testing.T) {
	w := newWorld(t, sys(service("db", 2, tied)), fleetOf(3)...)
	wantBrief(t, w.settle(), "db/1@node-1", "db/2@node-2")
	w.dead["node-2"] = true
	p := w.settle()
	wantBrief(t, p, "db/1@node-1", "db/2@node-2(wait)")
	if got, want := p.Services[0].Assignments[1].Waits, "waiting for node-2, which holds its data"; got != want {
		t.Errorf("waits: %q, want %q", got, want)
	}
	delete(w.dead, "node-2")
	w.nodes["node-2"].Instances = nil
	wantBrief(t, w.settle(), "db/1@node-1", "db/2@node-2")

	t.Run("gone from the file and back", func(t *testing.T) {
		file := w.in.System
		w.in.System = nil
		if p := w.settle(); len(p.Services) != 0 || len(p.Doors) != 0 {
			t.Fatalf("something is left:\n%s", show(p))
		}
		if len(w.in.Holders) != 2 {
			t.Fatalf("holders are %v, want both kept", w.in.Holders)
		}
		w.dead["node-1"] = true
		w.in.System = file
		wantBrief(t, w.settle(), "db/1@node-1(wait)", "db/2@node-2")
		delete(w.dead, "node-1")
		wantBrief(t, w.settle(), "db/1@node-1", "db/2@node-2")
	})
	t.Run("given up by the user", func(t *testing.T) {
		w.dead["node-2"] = true
		w.settle()
		w.in.Holders = slices.DeleteFunc(w.in.Holders, func(h system.Holder) bool { return h.Instance == "db/2" })
		wantBrief(t, w.settle(), "db/1@node-1", "db/2@node-3")
	})
}

func TestTiedNodeMustStillFit(t *testing.T) {
	w := newWorld(t, sys(service("db", 1, tied)), fleetOf(2)...)
	w.settle()
	w.in.System = nil
	w.settle()
	w.in.System = sys(service("db", 1, tied, func(s *system.Service) {
		s.Placement.Constraints = []system.Constraint{{Attribute: "site", Value: "ap"}}
	}))
	p := w.settle()
	wantBrief(t, p, "db/1@node-1(wait)")
	if got, want := p.Services[0].Assignments[0].Waits, "node-1 holds its data, but site is eu, want ap"; got != want {
		t.Errorf("waits: %q, want %q", got, want)
	}
}

func TestScaleDown(t *testing.T) {
	for _, tt := range []struct {
		name   string
		tied   bool
		breaks system.InstanceID
		want   []string
	}{
		{"highest first", false, "", []string{"api/1@node-1", "api/2@node-2"}},
		{"unready before highest", false, "api/2", []string{"api/1@node-1", "api/3@node-3"}},
		{"tied: the number decides", true, "api/2", []string{"api/1@node-1", "api/2@node-2"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			make3 := func(n int) *system.System {
				if tt.tied {
					return sys(service("api", n, tied))
				}
				return sys(service("api", n))
			}
			w := newWorld(t, make3(3), fleetOf(3)...)
			w.broken = func(a *system.Assignment) system.State {
				if a.Instance == tt.breaks {
					return system.StateFailed
				}
				return ""
			}
			w.settle()
			w.in.System = make3(2)
			wantBrief(t, w.settle(), tt.want...)
		})
	}
}

func TestConstraintAddedMovesStateless(t *testing.T) {
	w := newWorld(t, sys(service("api", 2)), fleetOf(4)...)
	wantBrief(t, w.settle(), "api/1@node-1", "api/2@node-2")
	w.in.System = sys(service("api", 2, func(s *system.Service) {
		s.Placement.Constraints = []system.Constraint{{Attribute: "site", Value: "ap"}}
	}))
	for range 20 {
		w.decide()
		w.obey()
		if got := w.ready("api"); got < 2 {
			t.Fatalf("%d are ready, want 2 at all times:\n%s", got, show(w.in.Plan))
		}
	}
	wantBrief(t, w.settle(), "api/2@node-2", "api/3@node-4")

	t.Run("no other place", func(t *testing.T) {
		w.in.System = sys(service("api", 2, func(s *system.Service) {
			s.Placement.Constraints = []system.Constraint{{Attribute: "site", Value: "us"}}
		}))
		p := w.settle()
		wantBrief(t, p, "api/2@node-2", "api/3@node-4")
		if len(p.Refused) != 1 || !strings.HasPrefix(p.Refused[0].Reason, "update waits for room") {
			t.Errorf("refused %v, want the update to wait", p.Refused)
		}
	})
}

func TestDependencies(t *testing.T) {
	on := func(name system.ServiceName, condition string) func(*system.Service) {
		return func(s *system.Service) {
			s.DependsOn = append(s.DependsOn, system.Dependency{Service: name, Condition: condition})
		}
	}
	w := newWorld(t, sys(service("api", 2, on("db", "healthy"), on("job", "completed")), service("db", 1, tied), service("job", 1)), fleetOf(2)...)
	job := system.StateBackoff
	w.broken = func(a *system.Assignment) system.State {
		if strings.HasPrefix(string(a.Instance), "job/") {
			return job
		}
		return ""
	}
	waits := func() string { return w.in.Plan.Deployment("api").Assignments[0].Waits }
	w.decide()
	if got, want := waits(), "db is not healthy yet"; got != want {
		t.Errorf("waits: %q, want %q", got, want)
	}
	for range 4 {
		w.obey()
		w.decide()
	}
	if got, want := waits(), "job has not completed yet"; got != want {
		t.Errorf("waits: %q, want %q", got, want)
	}
	job = system.StateDone
	w.settle()
	if w.ready("api") != 2 {
		t.Errorf("api does not run:\n%s", show(w.in.Plan))
	}

	// Once run, it never goes back to wait; and the job is not done again.
	w.dead[w.in.Plan.Deployment("db").Assignments[0].Node] = true
	at := w.in.Plan.Deployment("job").Assignments[0].Node
	w.dead["node-1"], w.dead["node-2"] = false, false
	w.dead[at] = true
	p := w.settle()
	if w.ready("api") != 2 {
		t.Errorf("api went back to wait:\n%s", show(p))
	}
	if a := p.Deployment("job").Assignments[0]; a.Node != at || a.Goal != system.GoalWait || a.Waits != "finished on "+string(at)+"; a job runs once" {
		t.Errorf("the finished job is %+v", a)
	}
	delete(w.dead, at)
	w.nodes[at].Instances = nil
	if a := w.settle().Deployment("job").Assignments[0]; a.Goal != system.GoalWait {
		t.Errorf("the finished job runs again: %+v", a)
	}
}

func TestOptionalDependency(t *testing.T) {
	w := newWorld(t, sys(
		service("api", 1, func(s *system.Service) {
			s.DependsOn = []system.Dependency{{Service: "cache", Condition: "healthy", Optional: true}, {Service: "absent", Condition: "healthy"}}
		}),
		service("cache", 1)), fleetOf(1)...)
	w.broken = func(a *system.Assignment) system.State {
		if a.Instance == "cache/1" {
			return system.StateFailed
		}
		return ""
	}
	w.decide()
	if a := w.in.Plan.Deployment("api").Assignments[0]; a.Goal != system.GoalWait {
		t.Errorf("api does not wait for its cache: %+v", a)
	}
	w.settle()
	if w.ready("api") != 1 {
		t.Errorf("api still waits for a cache that failed:\n%s", show(w.in.Plan))
	}
}

func TestDoorsStay(t *testing.T) {
	w := newWorld(t, sys(service("b", 1)), fleetOf(1)...)
	p := w.settle()
	b, _ := p.Door("b")
	w.in.System = sys(service("a", 2), service("b", 1), service("c", 1))
	p = w.settle()
	if got, _ := p.Door("b"); got != b {
		t.Errorf("door of b is %d, want %d as before", got, b)
	}
	if p.Generation < 2 || p.Fence != 7 {
		t.Errorf("generation %d, fence %d", p.Generation, p.Fence)
	}
}

func TestPatience(t *testing.T) {
	w := newWorld(t, sys(service("api", 1)), fleetOf(1)...)
	turn := begin(w.input())
	p, a := turn.parts[0], &system.Assignment{Instance: "api/1", Node: "node-1", Goal: system.GoalRun}
	for _, tt := range []struct {
		name string
		seen system.InstanceSeen
		ago  time.Duration
		want string
	}{
		{"starts", system.InstanceSeen{State: system.StateStarting}, patience, ""},
		{"starts for too long", system.InstanceSeen{State: system.StateStarting}, patience + 1, "is not healthy after 1m0s"},
		{"prepares for long", system.InstanceSeen{State: system.StatePreparing}, time.Hour, ""},
		{"ended twice", system.InstanceSeen{State: system.StateBackoff, Restarts: 2}, 0, ""},
		{"keeps ending", system.InstanceSeen{State: system.StateBackoff, Restarts: 3, Exit: "exit 3"}, 0, "keeps ending: exit 3"},
		{"starts once more", system.InstanceSeen{State: system.StateStarting, Restarts: 4}, 0, "keeps ending"},
		{"ready after all", system.InstanceSeen{State: system.StateReady, Restarts: 9}, 0, ""},
		{"failed", system.InstanceSeen{State: system.StateFailed, Why: "no such program"}, 0, "failed: no such program"},
	} {
		tt.seen.Since = turn.in.Now.Add(-tt.ago)
		turn.fleet.seen[spot{"node-1", "api/1"}] = &tt.seen
		if got := turn.failing(p, a); got != tt.want {
			t.Errorf("%s: failing = %q, want %q", tt.name, got, tt.want)
		}
	}
}

// The name server's port is given once, stays, and is nobody else's; without a service by name there is none.
func TestNamesPort(t *testing.T) {
	by := func(by system.By, names ...system.ServiceName) *system.Plan {
		p := &system.Plan{}
		for _, n := range names {
			p.Services = append(p.Services, system.Deployment{Service: system.Service{Name: n, Switch: system.Switch{By: by}},
				Assignments: []system.Assignment{{Instance: system.Instance(n, 1)}}})
		}
		return p
	}
	none, first := by(system.ByRequest, "a"), by(system.ByName, "a")
	givePorts(nil, none)
	givePorts(nil, first)
	if none.Names != 0 || first.Names != 3 || first.Services[0].Assignments[0].Port != 4 {
		t.Fatalf("none %+v, first %+v", none, first)
	}
	second := by(system.ByName, "a", "b")
	second.Services[0].Assignments[0].Port = first.Services[0].Assignments[0].Port
	givePorts(first, second)
	if second.Names != first.Names {
		t.Errorf("it moved from %d to %d", first.Names, second.Names)
	}
	taken := map[int]bool{second.Names: true}
	for _, o := range []int{second.Doors[0].Offset, second.Doors[1].Offset, 4, 5, second.Services[1].Assignments[0].Port, second.Services[1].Assignments[0].Port + 1} {
		if taken[o] {
			t.Errorf("offset %d is given twice: %+v", o, second)
		}
		taken[o] = true
	}
}
