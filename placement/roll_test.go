package placement

import (
	"slices"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// rolled is a world in which three of api run in version 1.
func rolled(t *testing.T, change ...func(*system.Service)) *world {
	w := newWorld(t, sys(service("api", 3, append(change, version1("1"))...)), fleetOf(3)...)
	w.settle()
	return w
}

// versions says how many active instances have the file's version and how many an older one.
func (w *world) versions(name system.ServiceName) (next, old int) {
	for _, a := range w.in.Plan.Deployment(name).Assignments {
		switch {
		case a.Goal == system.GoalDrain:
		case a.Made != nil:
			old++
		default:
			next++
		}
	}
	return next, old
}

func TestRollStartFirst(t *testing.T) {
	for _, tt := range []struct {
		name     string
		parallel int
	}{{"one at a time", 0}, {"two at a time", 2}, {"all at once", 9}} {
		t.Run(tt.name, func(t *testing.T) {
			parallel := func(s *system.Service) { s.Update.Parallelism = tt.parallel }
			w := rolled(t, parallel)
			w.in.System = sys(service("api", 3, parallel, version1("2")))
			most := 0
			for range 40 {
				w.decide()
				if got := w.ready("api"); got < 3 {
					t.Fatalf("%d are ready, want 3 at all times:\n%s", got, show(w.in.Plan))
				}
				most = max(most, len(w.in.Plan.Services[0].Assignments))
				w.obey()
			}
			if next, old := w.versions("api"); next != 3 || old != 0 || len(w.in.Plan.Services[0].Assignments) != 3 {
				t.Errorf("%d new and %d old, want 3 and 0:\n%s", next, old, show(w.in.Plan))
			}
			if want := 3 + min(3, max(1, tt.parallel)); most != want {
				t.Errorf("at most %d instances at a time, want %d", most, want)
			}
			on := map[system.NodeID]int{}
			for _, a := range w.in.Plan.Services[0].Assignments {
				on[a.Node]++
			}
			if len(on) != 3 {
				t.Errorf("not spread after the update: %v", on)
			}
			told := strings.Join(w.told(), "\n")
			for _, want := range []string{"api: begins: environment VERSION: 1 → 2; 3 new instances first, then the old stop", "api: done: 3 instances of the new version"} {
				if strings.Count(told, want) != 1 {
					t.Errorf("events tell %d times, want once: %s\n%s", strings.Count(told, want), want, told)
				}
			}
		})
	}
}

func TestRollStopsFirst(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*system.Service)
	}{{"tied", tied}, {"asked for", func(s *system.Service) { s.Update.Order = "stop-first" }}} {
		t.Run(tt.name, func(t *testing.T) {
			w := rolled(t, tt.change)
			before := w.in.Plan.Services[0].Assignments
			w.in.System = sys(service("api", 3, tt.change, version1("2")))
			for range 40 {
				w.decide()
				if got := w.ready("api"); got < 2 {
					t.Fatalf("%d are ready, want no more than one to be missing:\n%s", got, show(w.in.Plan))
				}
				w.obey()
			}
			after := w.in.Plan.Services[0].Assignments
			for i, a := range after {
				b := before[i]
				if a.Instance != b.Instance || a.Node != b.Node || a.Port != b.Port || a.Folder != b.Folder || a.Spec == b.Spec {
					t.Errorf("%+v became %+v, want the same place and another version", b, a)
				}
			}
			if len(after) != 3 || w.ready("api") != 3 {
				t.Errorf("after the update:\n%s", show(w.in.Plan))
			}
		})
	}
}

func TestRollPausesAndGoesOn(t *testing.T) {
	w := rolled(t)
	bad := system.StateFailed
	w.broken = func(a *system.Assignment) system.State {
		if a.Instance == "api/4" {
			return bad
		}
		return ""
	}
	w.in.System = sys(service("api", 3, version1("2")))
	p := w.settle()
	if next, old := w.versions("api"); next != 1 || old != 3 || w.ready("api") != 3 {
		t.Errorf("%d new, %d old, %d ready; want 1, 3, 3:\n%s", next, old, w.ready("api"), show(p))
	}
	want := "update paused: api/4 failed: exit 1; the version before runs on; correct the file, or set it back, and run: servent up"
	if len(p.Refused) != 1 || p.Refused[0].Reason != want || p.Refused[0].Missing != 0 {
		t.Errorf("refused %+v, want %q", p.Refused, want)
	}

	t.Run("a node dies meanwhile", func(t *testing.T) {
		w.dead["node-2"] = true
		w.settle()
		if next, old := w.versions("api"); next != 1 || old != 3 || w.ready("api") != 3 {
			t.Errorf("%d new, %d old, %d ready; want 1, 3, 3: what moves keeps the version that works:\n%s", next, old, w.ready("api"), show(w.in.Plan))
		}
		delete(w.dead, "node-2")
	})
	t.Run("corrected", func(t *testing.T) {
		bad = ""
		w.in.System = sys(service("api", 3, version1("3")))
		for range 40 {
			w.decide()
			if got := w.ready("api"); got < 3 {
				t.Fatalf("%d are ready:\n%s", got, show(w.in.Plan))
			}
			w.obey()
		}
		if next, old := w.versions("api"); next != 3 || old != 0 || len(w.in.Plan.Refused) != 0 {
			t.Errorf("%d new, %d old:\n%s", next, old, show(w.in.Plan))
		}
	})
}

func TestRollSetBack(t *testing.T) {
	w := rolled(t)
	ids := brief(w.in.Plan)
	w.broken = func(a *system.Assignment) system.State {
		if a.Instance == "api/4" {
			return system.StateFailed
		}
		return ""
	}
	file := w.in.System
	w.in.System = sys(service("api", 3, version1("2")))
	w.settle()
	w.in.System = file
	wantBrief(t, w.settle(), ids...)
}

func TestPausedWordsStay(t *testing.T) {
	w := rolled(t)
	w.broken = func(a *system.Assignment) system.State {
		if a.Made == nil && a.Instance == "api/4" {
			return system.StateBackoff
		}
		return ""
	}
	w.in.System = sys(service("api", 3, version1("2")))
	for range 20 {
		w.decide()
		w.obey()
	}
	before := w.in.Plan
	for range 10 { // between back-off and starting, again and again
		w.decide()
		w.obey()
	}
	if w.in.Plan.Generation != before.Generation || !strings.HasPrefix(before.Refused[0].Reason, "update paused: api/4 keeps ending") {
		t.Errorf("generation %d → %d, refused %+v; want no change", before.Generation, w.in.Plan.Generation, before.Refused)
	}
}

func TestRollBack(t *testing.T) {
	rollback := func(s *system.Service) { s.Update.Failure = "rollback" }
	w := rolled(t, rollback)
	ids := brief(w.in.Plan)
	file1 := w.in.System
	bad := true
	w.broken = func(a *system.Assignment) system.State {
		if a.Made == nil && bad {
			return system.StateFailed
		}
		return ""
	}
	w.in.System = sys(service("api", 3, rollback, version1("2")))
	p := w.settle()
	wantBrief(t, p, ids...)
	if next, old := w.versions("api"); next != 0 || old != 3 || w.ready("api") != 3 {
		t.Errorf("%d new, %d old; want all back:\n%s", next, old, show(p))
	}
	if len(p.Refused) != 1 || p.Refused[0].Reason != "rolled back: api/4 failed: exit 1; the version before runs on" {
		t.Errorf("refused %+v", p.Refused)
	}
	w.in.System = sys(service("api", 4, rollback, version1("2"))) // one more, still of the version that works
	w.settle()
	if next, old := w.versions("api"); next != 0 || old != 4 || w.ready("api") != 4 {
		t.Errorf("%d new, %d old; want 4 of the version before:\n%s", next, old, show(w.in.Plan))
	}
	w.in.System = file1
	w.settle()
	if next, old := w.versions("api"); next != 3 || old != 0 || len(w.in.Plan.Refused) != 0 {
		t.Errorf("%d new, %d old after the file was set back:\n%s", next, old, show(w.in.Plan))
	}
	bad = false
	w.in.System = sys(service("api", 3, rollback, version1("2")))
	w.settle()
	if next, old := w.versions("api"); next != 3 || old != 0 {
		t.Errorf("%d new, %d old after a second try:\n%s", next, old, show(w.in.Plan))
	}
}

func TestRollContinues(t *testing.T) {
	on := func(s *system.Service) { s.Update.Failure = "continue" }
	w := rolled(t, on)
	w.broken = func(a *system.Assignment) system.State {
		if a.Instance == "api/4" {
			return system.StateFailed
		}
		return ""
	}
	w.in.System = sys(service("api", 3, on, version1("2")))
	w.settle()
	if next, old := w.versions("api"); next != 3 || old != 0 {
		t.Errorf("%d new, %d old, want the update to go on:\n%s", next, old, show(w.in.Plan))
	}
}

func TestRollWithoutRoomBeside(t *testing.T) {
	big := func(s *system.Service) { s.Reserve.Memory = 3 << 20 }
	w := newWorld(t, sys(service("api", 3, big, version1("1"))), fleetOf(3)...)
	for _, n := range w.nodes {
		n.Resources.Memory = 4 << 20
	}
	w.settle()
	w.in.System = sys(service("api", 3, big, version1("2")))
	for range 60 {
		w.decide()
		if got := w.ready("api"); got < 2 {
			t.Fatalf("%d are ready, want no more than one to be missing:\n%s", got, show(w.in.Plan))
		}
		w.obey()
	}
	if next, old := w.versions("api"); next != 3 || old != 0 || w.ready("api") != 3 {
		t.Errorf("%d new, %d old:\n%s", next, old, show(w.in.Plan))
	}
	if told := strings.Join(w.told(), "\n"); !strings.Contains(told, "stops: there is no room for the new version beside it") {
		t.Errorf("events do not say why one stops first:\n%s", told)
	} else if strings.Contains(told, "no place") {
		t.Errorf("events complain of room that is being made:\n%s", told)
	}
}

func TestRollDelayAndMonitor(t *testing.T) {
	slow := func(s *system.Service) { s.Update.Delay, s.Update.Monitor = 30*time.Second, 10*time.Second }
	w := rolled(t, slow)
	begin := w.in.Now
	w.in.System = sys(service("api", 3, slow, version1("2")))
	var readyAt []time.Duration // when each new one got ready
	for range 200 {
		w.decide()
		next := 0
		for _, a := range w.in.Plan.Services[0].Assignments {
			for _, s := range w.nodes[a.Node].Instances {
				if a.Made == nil && s.Instance == a.Instance && s.State == system.StateReady && s.Spec == a.Spec {
					next++
					if w.in.Now.Sub(s.Since) < 10*time.Second && len(w.in.Plan.Services[0].Assignments) < 4 {
						t.Fatalf("an old one went before the new one was monitored for 10s:\n%s", show(w.in.Plan))
					}
				}
			}
		}
		for len(readyAt) < next {
			readyAt = append(readyAt, w.in.Now.Sub(begin))
		}
		w.obey()
	}
	if len(readyAt) != 3 || readyAt[1]-readyAt[0] < 30*time.Second || readyAt[2]-readyAt[1] < 30*time.Second {
		t.Errorf("new ones were ready at %v, want three, 30s apart at least", readyAt)
	}
}

func TestRollMeetsScaling(t *testing.T) {
	for _, tt := range []struct{ from, to int }{{3, 1}, {3, 5}, {1, 4}, {4, 2}} {
		w := newWorld(t, sys(service("api", tt.from, version1("1"))), fleetOf(3)...)
		w.settle()
		w.in.System = sys(service("api", tt.to, version1("2")))
		for range 60 {
			w.decide()
			if got, want := w.ready("api"), min(tt.from, tt.to); got < want {
				t.Fatalf("%d → %d: %d are ready, want %d:\n%s", tt.from, tt.to, got, want, show(w.in.Plan))
			}
			w.obey()
		}
		if next, old := w.versions("api"); next != tt.to || old != 0 || len(brief(w.in.Plan)) != tt.to {
			t.Errorf("%d → %d:\n%s", tt.from, tt.to, show(w.in.Plan))
		}
	}
}

func TestTiedRollLeavesWaitingOnesBe(t *testing.T) {
	w := rolled(t, tied)
	w.dead["node-1"] = true
	w.settle()
	w.in.System = sys(service("api", 3, tied, version1("2")))
	wantBrief(t, w.settle(), "api/1@node-1(wait)", "api/2@node-2", "api/3@node-3")
	if next, old := w.versions("api"); next != 3 || old != 0 {
		t.Errorf("%d new, %d old, want the update to go on without node-1:\n%s", next, old, show(w.in.Plan))
	}
	delete(w.dead, "node-1")
	wantBrief(t, w.settle(), "api/1@node-1", "api/2@node-2", "api/3@node-3")
}

func TestTiedThatWaitsKeepsTheVersionThatWorks(t *testing.T) {
	w := rolled(t, tied)
	w.broken = func(a *system.Assignment) system.State {
		if a.Instance == "api/1" {
			return system.StateFailed
		}
		return ""
	}
	w.in.System = sys(service("api", 3, tied, version1("2")))
	w.settle()
	w.dead["node-3"] = true
	w.settle()
	wantBrief(t, w.in.Plan, "api/1@node-1", "api/2@node-2", "api/3@node-3(wait)")
	if next, old := w.versions("api"); next != 1 || old != 2 {
		t.Errorf("%d new, %d old, want the one that waits not to take a version that fails:\n%s", next, old, show(w.in.Plan))
	}
}

func TestBecomesTiedInPlace(t *testing.T) {
	w := rolled(t)
	before := brief(w.in.Plan)
	w.in.System = sys(service("api", 3, tied, version1("1")))
	wantBrief(t, w.settle(), before...)
	if len(w.in.Holders) != 3 {
		t.Errorf("%d holders, want 3", len(w.in.Holders))
	}
	w.in.System = sys(service("api", 3, version1("1")))
	wantBrief(t, w.settle(), before...)
}

func TestDataFollowsItsHolder(t *testing.T) {
	w := newWorld(t, sys(service("db", 1, tied)), fleetOf(3)...)
	w.settle()
	w.in.Holders[0].Node = "node-3"
	w.in.Plan = Next(w.input()).Plan
	wantBrief(t, w.in.Plan, "db/1@node-1(drain)")
	w.obey()
	wantBrief(t, w.settle(), "db/1@node-3")
}

func TestEnvironmentSecretsAreNotTold(t *testing.T) {
	w := newWorld(t, sys(service("api", 1, func(s *system.Service) { s.Environment = map[string]string{"DB_PASSWORD": "old-one"} })), fleetOf(1)...)
	w.settle()
	w.in.System = sys(service("api", 1, func(s *system.Service) { s.Environment = map[string]string{"DB_PASSWORD": "new-one"} }))
	w.settle()
	told := strings.Join(w.told(), "\n")
	if strings.Contains(told, "-one") || !strings.Contains(told, "environment DB_PASSWORD: changed") {
		t.Errorf("events tell a password, or nothing of it:\n%s", told)
	}
}

func TestRemovedServiceDrains(t *testing.T) {
	w := newWorld(t, sys(service("api", 2), service("web", 1)), fleetOf(2)...)
	w.settle()
	w.in.System = sys(service("web", 1))
	w.decide()
	wantBrief(t, w.in.Plan, "api/1@node-1(drain)", "api/2@node-2(drain)", "web/1@node-1")
	p := w.settle()
	wantBrief(t, p, "web/1@node-1")
	if _, ok := p.Door("api"); ok || !slices.ContainsFunc(w.told(), func(s string) bool { return s == "api: all of it has stopped" }) {
		t.Errorf("api's door is still there, or its end was not told: %v", w.told())
	}
}
