package route

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"servent/system"
)

// world is a plan of one service and what is seen of it, written short.
type world struct {
	tied    bool
	assign  []system.Assignment
	refused []system.Refusal
	seen    []system.Seen
}

func (w world) plan() *system.Plan {
	s := system.Service{Name: "api"}
	if w.tied {
		s.Data.Kind = system.DataHard
	}
	return &system.Plan{Generation: 7, Doors: []system.Door{{Service: "api", Offset: 4}}, Refused: w.refused,
		Services: []system.Deployment{{Service: s, Spec: "new", Assignments: w.assign}}}
}

func run(n int, node system.NodeID) system.Assignment {
	return system.Assignment{Instance: system.Instance("api", n), Node: node, Spec: "new", Goal: system.GoalRun}
}

func node(id system.NodeID, site system.Site, instances ...system.InstanceSeen) system.Seen {
	return system.Seen{Node: id, Site: site, Instances: instances}
}

func in(n int, state system.State) system.InstanceSeen {
	return system.InstanceSeen{Instance: system.Instance("api", n), Spec: "new", State: state, Endpoint: fmt.Sprintf("host:%d", n)}
}

func TestBuildTakesReadyInstances(t *testing.T) {
	w := world{
		assign: []system.Assignment{run(10, "node-1"), run(2, "node-2"), run(3, "node-3")},
		seen:   []system.Seen{node("node-2", "eu", in(2, system.StateReady)), node("node-1", "eu", in(10, system.StateReady)), node("node-3", "ap", in(3, system.StateReady))},
	}
	table := Build(w.plan(), w.seen, "node-1")
	want := []Instance{
		{ID: "api/2", Node: "node-2", Site: "eu", Address: "host:2", SameSite: true},
		{ID: "api/3", Node: "node-3", Site: "ap", Address: "host:3"},
		{ID: "api/10", Node: "node-1", Site: "eu", Address: "host:10", Local: true, SameSite: true},
	}
	s := table.Services["api"]
	if diff := cmp.Diff(want, s.Instances); diff != "" {
		t.Errorf("instances (-want +got):\n%s", diff)
	}
	if s.Coming || s.Why != "" || s.Door != 4 || table.Generation != 7 {
		t.Errorf("got coming %v, why %q, door %d, generation %d, want false, none, 4, 7", s.Coming, s.Why, s.Door, table.Generation)
	}
	if got, want := table.Nodes, []system.NodeID{"node-1", "node-2", "node-3"}; !slices.Equal(got, want) {
		t.Errorf("Nodes = %v, want %v", got, want)
	}
}

func TestBuildSaysWhyNobodyAnswers(t *testing.T) {
	failed, older, backoff := in(1, system.StateFailed), in(1, system.StateReady), in(1, system.StateBackoff)
	failed.Why, older.Spec, backoff.Exit = "exit 1 after 0.1s, 4 times", "old", "signal killed"
	drain, drainOld, wait := run(1, "node-1"), run(1, "node-1"), run(1, "node-1")
	drain.Goal, drainOld.Goal, drainOld.Spec, wait.Goal = system.GoalDrain, system.GoalDrain, "old", system.GoalWait
	wait.Waits = "waiting for node-1, which holds its data"
	for _, tt := range []struct {
		name   string
		w      world
		coming bool
		why    string
	}{
		{"nothing planned", world{}, false, "no instance is planned"},
		{"no room", world{refused: []system.Refusal{{Service: "api", Missing: 2, Reason: "node-1: label disk is hdd, want ssd"}}}, false, "2 without a place: node-1: label disk is hdd, want ssd"},
		{"not started", world{assign: []system.Assignment{run(1, "node-1")}, seen: []system.Seen{node("node-1", "eu")}}, true, "api/1 on node-1 has not started yet"},
		{"starting", world{assign: []system.Assignment{run(1, "node-1")}, seen: []system.Seen{node("node-1", "eu", in(1, system.StateStarting))}}, true, "api/1 on node-1 is starting"},
		{"the older version", world{assign: []system.Assignment{run(1, "node-1")}, seen: []system.Seen{node("node-1", "eu", older)}}, true, "api/1 on node-1 has not started yet"},
		{"backs off", world{assign: []system.Assignment{run(1, "node-1")}, seen: []system.Seen{node("node-1", "eu", backoff)}}, true, "api/1 on node-1 ended and starts again soon: signal killed"},
		{"failed", world{assign: []system.Assignment{run(1, "node-1")}, seen: []system.Seen{node("node-1", "eu", failed)}}, false, "api/1 on node-1 is failed: exit 1 after 0.1s, 4 times"},
		{"node lost", world{assign: []system.Assignment{run(1, "node-1")}}, true, "api/1 on node-1 is lost: its node is not seen"},
		{"node lost with data", world{tied: true, assign: []system.Assignment{run(1, "node-1")}}, false, "api/1 on node-1 is lost: its node is not seen"},
		{"data away", world{tied: true, assign: []system.Assignment{wait}}, false, "api/1 is waiting for node-1, which holds its data"},
		{"waits for another service", world{assign: []system.Assignment{wait}, seen: []system.Seen{node("node-1", "eu")}}, true, "api/1 is waiting for node-1, which holds its data"},
		{"removed", world{assign: []system.Assignment{drain}, seen: []system.Seen{node("node-1", "eu", in(1, system.StateReady))}}, false, "api/1 on node-1 is draining"},
		{"stopped first", world{assign: []system.Assignment{drainOld}, seen: []system.Seen{node("node-1", "eu", older)}}, true, "api/1 on node-1 is draining"},
		{"many", world{assign: []system.Assignment{run(1, "a"), run(2, "b"), run(3, "c"), run(4, "d"), run(5, "e")}}, true,
			"api/1 on a is lost: its node is not seen; api/2 on b is lost: its node is not seen; api/3 on c is lost: its node is not seen; and 2 more"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := Build(tt.w.plan(), tt.w.seen, "node-9").Services["api"]
			if len(s.Instances) != 0 || s.Coming != tt.coming || s.Why != tt.why {
				t.Errorf("got %d instances, coming %v, why %q\nwant none, %v, %q", len(s.Instances), s.Coming, s.Why, tt.coming, tt.why)
			}
		})
	}
}

// A function without an instance is coming, unless there is no place for one or the one that was made has failed.
func TestBuildOfFunction(t *testing.T) {
	drain := run(1, "node-1")
	drain.Goal = system.GoalDrain
	one := func(state system.State) []system.Seen { return []system.Seen{node("node-1", "eu", in(1, state))} }
	for _, tt := range []struct {
		name   string
		w      world
		ready  int
		coming bool
		why    string
	}{
		{"none", world{}, 0, true, "no instance runs, and the first call makes one"},
		{"no place", world{refused: []system.Refusal{{Service: "api", Missing: 1, Reason: "no node is there"}}}, 0, false, "1 without a place: no node is there"},
		{"starting", world{assign: []system.Assignment{run(1, "node-1")}, seen: one(system.StateStarting)}, 0, true, "api/1 on node-1 is starting"},
		{"failed", world{assign: []system.Assignment{run(1, "node-1")}, seen: one(system.StateFailed)}, 0, false, "api/1 on node-1 is failed"},
		{"the last one goes", world{assign: []system.Assignment{drain}, seen: one(system.StateReady)}, 0, true, "api/1 on node-1 is draining"},
		{"warm", world{assign: []system.Assignment{run(1, "node-1")}, seen: one(system.StateReady)}, 1, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := tt.w.plan()
			plan.Services[0].Service.Architecture = system.Function
			plan.Services[0].Service.Scale.Inflight = 3
			table := Build(plan, tt.w.seen, "node-1")
			s, to := table.Services["api"], table.Door("api")
			if len(s.Instances) != tt.ready || s.Coming != tt.coming || s.Why != tt.why {
				t.Errorf("%d instances, coming %v, why %q; want %d, %v, %q", len(s.Instances), s.Coming, s.Why, tt.ready, tt.coming, tt.why)
			}
			if !to.Called || to.Each != 6 || to.Coming != tt.coming {
				t.Errorf("its door: %+v, want it called, 6 requests at a time to each", to)
			}
		})
	}
}

func TestBuildWithoutPlan(t *testing.T) {
	table := Build(nil, nil, "node-1")
	if len(table.Services) != 0 || !table.Alive("node-1") || table.Alive("node-2") {
		t.Errorf("got %d services, self alive %v, node-2 alive %v, want 0, true, false", len(table.Services), table.Alive("node-1"), table.Alive("node-2"))
	}
}

func TestWebIsSorted(t *testing.T) {
	plan := &system.Plan{Services: []system.Deployment{
		{Service: system.Service{Name: "a", Routes: []system.Route{{Path: "/*"}, {Host: "*.example.org", Path: "/*"}, {Host: "Shop.Example.org", Path: "/*"}}}},
		{Service: system.Service{Name: "b", Routes: []system.Route{{Host: "shop.example.org", Path: "/api/*"}, {Host: "shop.example.org", Path: "/a"}, {Host: "*.eu.example.org", Path: "/*"}, {Path: "/long/path/*"}}}},
	}}
	var got []string
	for _, w := range Build(plan, nil, "n").Web {
		got = append(got, w.String()+" "+string(w.Service))
	}
	want := []string{"shop.example.org/a b", "shop.example.org/api/* b", "shop.example.org/* a", "*.eu.example.org/* b", "*.example.org/* a", "/long/path/* b", "/* a"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("routes (-want +got):\n%s", diff)
	}
}

func TestMatch(t *testing.T) {
	table := &Table{}
	for _, r := range strings.Fields("shop.example.org/api/*=api shop.example.org/*=web shop.example.org/api=root *.example.org/img/*=thumbs app.localhost/*=app /status=status /only/here/*=only other.org/api/*=other") {
		name, service, _ := strings.Cut(r, "=")
		host, path, _ := strings.Cut(name, "/")
		path, prefix := strings.CutSuffix("/"+path, "*")
		table.Web = append(table.Web, Web{host, path, prefix, system.ServiceName(service)})
	}
	slices.SortFunc(table.Web, compareWeb)
	for _, tt := range []struct {
		host, path string
		want       system.ServiceName
	}{
		{"shop.example.org", "/api/x", "api"},
		{"SHOP.example.org.:8080", "/api/x", "api"},
		{"shop.example.org", "/api", "root"},
		{"shop.example.org", "/apix", "web"},
		{"shop.example.org", "/api/../x", "web"},
		{"shop.example.org", "/x/./../api/y", "api"},
		{"shop.example.org", "", "web"},
		{"cdn.example.org", "/img/1", "thumbs"},
		{"a.b.example.org", "/img", "thumbs"},
		{"example.org", "/img/1", ""},
		{"cdn.example.org", "/", ""},
		{"nobody.net", "/status", "status"},
		{"nobody.net", "/only/here/../there", ""},
		{"nobody.net", "/api/", ""},
		{"", "/status", "status"},
		{"localhost:8080", "/img/1", "thumbs"},
		{"127.77.0.3:9", "/api/x", "api"}, // as specific as other.org's: the first by service name
		{"[::1]:80", "/elsewhere", "app"}, // likewise: app before web
		{"::1", "/status", "status"},
		{"app.localhost", "/api/x", "app"}, // named exactly: stays there
		{"x.localhost", "/only/here/", "only"},
		{"127.0.0.1.example.org", "/img/1", "thumbs"},
		{"192.168.1.1", "/api/x", ""},
	} {
		got, ok := table.Match(tt.host, tt.path)
		if got.Service != tt.want || ok != (tt.want != "") {
			t.Errorf("Match(%q, %q) = %q, %v, want %q", tt.host, tt.path, got.Service, ok, tt.want)
		}
	}
}

// Whatever is matched opens the path that was asked for, once dot segments are gone.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{"/api/../x", "/api/..", "/api/./", "//..", "/..api/*", "/.", ""} {
		f.Add("shop.example.org", s)
	}
	table := &Table{Web: []Web{{"shop.example.org", "/api/", true, "api"}}}
	f.Fuzz(func(t *testing.T, host, p string) {
		w, ok := table.Match(host, p)
		if ok && w.Service != "api" {
			t.Fatalf("Match(%q, %q) = %v", host, p, w)
		}
		depth := 0
		for _, segment := range strings.Split(strings.TrimPrefix(p, "/"), "/")[:] {
			switch segment {
			case "..":
				depth = max(0, depth-1)
			case ".", "":
			default:
				depth++
			}
		}
		if ok && depth == 0 {
			t.Errorf("Match(%q, %q) opens the root", host, p)
		}
	})
}

// A table names only what the plan runs and the node calls ready, whatever the two say of one another.
func TestBuildProperty(t *testing.T) {
	states := []system.State{system.StateReady, system.StateStarting, system.StateUnhealthy, system.StateDraining, system.StateFailed}
	goals := []system.Goal{system.GoalRun, system.GoalRun, system.GoalDrain, system.GoalWait}
	specs := []system.Digest{"new", "old"}
	rapid.Check(t, func(t *rapid.T) {
		var w world
		alive := map[system.NodeID]*system.Seen{}
		for i := range rapid.IntRange(0, 4).Draw(t, "nodes") {
			id := system.NodeID(fmt.Sprintf("node-%d", i))
			if rapid.Bool().Draw(t, "seen") {
				w.seen = append(w.seen, node(id, "eu"))
			}
		}
		for i := range w.seen {
			alive[w.seen[i].Node] = &w.seen[i]
		}
		want := map[system.InstanceID]bool{}
		for n := range rapid.IntRange(0, 6).Draw(t, "instances") {
			a := run(n+1, system.NodeID(fmt.Sprintf("node-%d", rapid.IntRange(0, 4).Draw(t, "on"))))
			a.Goal, a.Spec = rapid.SampledFrom(goals).Draw(t, "goal"), rapid.SampledFrom(specs).Draw(t, "spec")
			w.assign = append(w.assign, a)
			if at := alive[a.Node]; at != nil && rapid.Bool().Draw(t, "named") {
				is := in(n+1, rapid.SampledFrom(states).Draw(t, "state"))
				is.Spec = rapid.SampledFrom(specs).Draw(t, "seen spec")
				at.Instances = append(at.Instances, is)
				if a.Goal == system.GoalRun && is.State == system.StateReady && is.Spec == a.Spec {
					want[a.Instance] = true
				}
			}
		}
		table := Build(w.plan(), w.seen, "node-0")
		s := table.Services["api"]
		if len(s.Instances) != len(want) {
			t.Fatalf("%d instances, want %d", len(s.Instances), len(want))
		}
		for _, got := range s.Instances {
			if !want[got.ID] || !table.Alive(got.Node) || got.Local != (got.Node == "node-0") {
				t.Fatalf("%+v is not ready by plan and report", got)
			}
		}
		if (s.Why == "") != (len(s.Instances) > 0) {
			t.Fatalf("%d instances, why %q", len(s.Instances), s.Why)
		}
	})
}
