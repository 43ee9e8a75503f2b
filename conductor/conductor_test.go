package conductor

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"servent/control"
	"servent/system"
)

func service(name system.ServiceName, replicas int, version string, change ...func(*system.Service)) system.Service {
	s := system.Service{
		Name: name, Architecture: system.Replicated, Replicas: replicas,
		Software:    system.Software{Kind: system.Process, Run: []string{"./" + string(name)}},
		Environment: map[string]string{"VERSION": version},
	}
	for _, f := range change {
		f(&s)
	}
	return s
}

func tied(s *system.Service) { s.Data.Kind = system.DataHard }

func file(services ...system.Service) *system.System {
	return &system.System{Name: "shop", Services: services}
}

// inBubble runs a test on virtual time with a fleet of nodes and one conductor.
func inBubble(t *testing.T, nodes []system.NodeID, test func(t *testing.T, f *fleet, stopConductor func())) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context(), nodes...)
		defer func() {
			f.end()
			if f.wrong != "" {
				t.Error(f.wrong)
			}
		}()
		f.watchInvariants()
		test(t, f, f.conduct("control", newWire(f.store)))
	})
}

var three = []system.NodeID{"node-1", "node-2", "node-3"}

func on(v *control.View, node system.NodeID) (n int) {
	for _, d := range v.Plan.Services {
		for _, a := range d.Assignments {
			if a.Node == node && a.Goal != system.GoalWait {
				n++
			}
		}
	}
	return n
}

func TestLostNodeIsReplacedInTime(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lose  func(*fleet)
		limit time.Duration
	}{
		{"killed", func(f *fleet) { f.kill("node-2") }, 2 * time.Second},
		{"silent", func(f *fleet) { f.nodes["node-2"].wire.cut() }, 6 * time.Second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
				f.want(file(service("api", 3, "1")))
				f.untilReady(t, "api", 3)
				tt.lose(f)
				took := f.until(t, tt.limit, "three ready without node-2", func(v *control.View) bool {
					return on(v, "node-2") == 0 && ready(v, "api") == 3
				})
				t.Logf("replaced after %v", took)
				f.nodes["node-2"].wire.heal()
				time.Sleep(10 * time.Second)
				if v := f.view(); v.Plan.Deployment("api") == nil || ready(v, "api") != 3 {
					t.Errorf("after its return:\n%s", show(v))
				}
			})
		})
	}
}

func TestNodeKilledAndBackAtOnceKeepsItsInstances(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		f.want(file(service("db", 3, "1", tied)))
		f.untilReady(t, "db", 3)
		f.kill("node-2")
		f.boot("node-2")
		time.Sleep(10 * time.Second)
		f.untilReady(t, "db", 3)
	})
}

func TestTiedWaitsAndComesBack(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		f.want(file(service("api", 2, "1", func(s *system.Service) {
			s.DependsOn = []system.Dependency{{Service: "db", Condition: "healthy"}}
		}), service("db", 1, "1", tied)))
		f.untilReady(t, "api", 2)
		home := f.view().Plan.Deployment("db").Assignments[0].Node
		f.kill(home)
		f.until(t, 2*time.Second, "db waits for its node", func(v *control.View) bool {
			a := v.Plan.Deployment("db").Assignments[0]
			return a.Goal == system.GoalWait && a.Waits == "waiting for "+string(home)+", which holds its data"
		})
		time.Sleep(2 * time.Minute)
		if a := f.view().Plan.Deployment("db").Assignments[0]; a.Node != home {
			t.Fatalf("db moved to %s, its data is on %s", a.Node, home)
		}
		f.boot(home)
		f.untilReady(t, "db", 1)
	})
}

func TestNewConductorLeavesThePlanBe(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, stop func()) {
		f.want(file(service("api", 3, "1"), service("db", 2, "1", tied)))
		f.untilReady(t, "api", 3)
		f.untilReady(t, "db", 2)
		before := f.view().Plan
		stop()
		for _, id := range three {
			f.nodes[id].wire.cut()
		}
		time.Sleep(time.Minute) // all leases end: control was down, requests went on
		if got := len(f.view().Seen); got != 0 {
			t.Fatalf("%d nodes are seen, want none", got)
		}
		f.conduct("next", newWire(f.store))
		for _, id := range three { // they find their way back one by one
			time.Sleep(1800 * time.Millisecond)
			f.nodes[id].wire.heal()
		}
		time.Sleep(time.Minute)
		if got := f.view().Plan; got.Generation != before.Generation || got.Fence != before.Fence {
			t.Errorf("plan %d became %d:\n%s", before.Generation, got.Generation, show(f.view()))
		}
	})
}

func TestGraceEnds(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, stop func()) {
		f.want(file(service("api", 3, "1")))
		f.untilReady(t, "api", 3)
		stop()
		f.kill("node-2")
		time.Sleep(time.Minute)
		f.conduct("next", newWire(f.store))
		begin := time.Now()
		f.until(t, 10*time.Second, "node-2 given up", func(v *control.View) bool { return on(v, "node-2") == 0 })
		if took := time.Since(begin); took < 6*time.Second {
			t.Errorf("given up after %v, want its grace of 6s to pass", took)
		}
	})
}

func TestDeposedConductorCannotWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context(), three...)
		defer f.end()
		first, second := newWire(f.store), newWire(f.store)
		f.conduct("first", first)
		f.want(file(service("api", 3, "1")))
		f.untilReady(t, "api", 3)
		was := f.view().Plan.Fence
		stopSecond := f.conduct("second", second)
		time.Sleep(10 * time.Second)
		if got := f.view().Plan.Fence; got != was {
			t.Fatalf("fence %d became %d while the first leads", was, got)
		}
		first.cut()
		f.want(file(service("api", 2, "1")))
		f.until(t, 10*time.Second, "the second leads", func(v *control.View) bool { return v.Plan.Fence > was })
		f.untilReady(t, "api", 2)

		// What the first would still write under its fence is refused.
		v := f.view()
		stale := *v.Plan
		stale.Generation, stale.Fence, stale.Services = 99, was, nil
		ok, err := f.cluster().WritePlan(t.Context(), control.Fence{Key: control.Seat, Rev: control.Rev(was)}, v, &stale, nil, nil)
		if ok || err != nil {
			t.Errorf("WritePlan under the old fence = %v, %v, want false, nil", ok, err)
		}
		fence := v.Plan.Fence
		first.heal()
		f.want(file(service("api", 4, "1")))
		f.untilReady(t, "api", 4)
		if got := f.view().Plan.Fence; got != fence {
			t.Errorf("fence is %d, want the second's %d", got, fence)
		}
		stopSecond()
		f.want(file(service("api", 5, "1")))
		f.until(t, 2*time.Second, "the first leads again at once", func(v *control.View) bool {
			return v.Plan.Fence > fence && len(v.Plan.Deployment("api").Assignments) == 5
		})
	})
}

func TestRollingUpdate(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		f.want(file(service("api", 3, "0"), service("db", 1, "0", tied)))
		f.untilReady(t, "api", 3)
		low := 3
		ctx, stop := context.WithCancel(f.ctx)
		f.all.Go(func() {
			_ = f.cluster().Follow(ctx, nil, func(v *control.View) error {
				low = min(low, ready(v, "api"))
				return nil
			})
		})
		for version := 1; version <= 20; version++ {
			f.want(file(service("api", 3, fmt.Sprint(version)), service("db", 1, fmt.Sprint(version%2), tied)))
			if version%3 == 0 {
				continue // the next edit comes before this one is done
			}
			f.until(t, time.Minute, "updated", func(v *control.View) bool {
				d := v.Plan.Deployment("api")
				return ready(v, "api") == 3 && len(d.Assignments) == 3 && d.Service.Environment["VERSION"] == fmt.Sprint(version) &&
					!slices.ContainsFunc(d.Assignments, func(a system.Assignment) bool { return a.Made != nil })
			})
		}
		stop()
		synctest.Wait()
		if low < 3 {
			t.Errorf("only %d were ready at some time, want 3 always", low)
		}
		f.untilReady(t, "db", 1)
	})
}

func TestFailedUpdatePauses(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		f.broken = func(version string) bool { return version == "2" }
		f.want(file(service("api", 3, "1")))
		f.untilReady(t, "api", 3)
		f.want(file(service("api", 3, "2")))
		f.until(t, 10*time.Second, "paused", func(v *control.View) bool {
			return len(v.Plan.Refused) == 1 && strings.HasPrefix(v.Plan.Refused[0].Reason, "update paused: api/4 failed")
		})
		time.Sleep(2 * time.Minute)
		if got := ready(f.view(), "api"); got != 3 {
			t.Errorf("%d are ready, want 3", got)
		}
	})
}

func TestEventsAreToldOnce(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		time.Sleep(time.Second)
		f.want(file(service("api", 3, "1")))
		f.untilReady(t, "api", 3)
		time.Sleep(time.Second) // a burst is seen as one change
		f.kill("node-2")
		time.Sleep(5 * time.Second)
		f.boot("node-2")
		time.Sleep(5 * time.Second)
		count := map[string]int{}
		last := time.Time{}
		for _, e := range f.view().Events {
			text, _, _ := strings.Cut(e.Text, " after ") // how long it took depends on the order of goroutines
			count[fmt.Sprintf("%s %s %s: %s", e.Kind, e.Node, e.Instance, text)]++
			if !e.Time.After(last) {
				t.Errorf("%v: not after the event before it: %+v", e.Time, e)
			}
			last = e.Time
		}
		for what, want := range map[string]int{
			"node node-1 : joined at site eu": 1,
			"node node-2 : joined at site ap": 2,
			"node node-2 : gone":              1,
			"plan node-2 api/2: placed on node-2: spread: fewest instances of api (0) in site ap": 0,
			"instance node-2 api/2: ready": 1,
			"instance node-1 api/2: ready": 1,
		} {
			if got := count[what]; got != want && want > 0 {
				t.Errorf("told %d times, want %d: %s\n%v", got, want, what, count)
			}
		}
	})
}

func TestEventsAreTrimmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context(), three...)
		defer f.end()
		lease, err := f.store.Grant(t.Context(), 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		fence, err := control.Campaign(t.Context(), f.store, control.Seat, "before", lease)
		if err != nil {
			t.Fatal(err)
		}
		events := make([]system.Event, keep+2*keepSlack)
		for i := range events {
			events[i] = system.Event{Time: time.Now().Add(time.Duration(i)), Text: fmt.Sprint(i)}
		}
		if ok, err := f.cluster().WritePlan(t.Context(), fence, &control.View{}, &system.Plan{System: "shop", Generation: 1}, nil, events); !ok || err != nil {
			t.Fatal(ok, err)
		}
		f.conduct("control", newWire(f.store)) // the seat is free when the lease ends
		f.want(file(service("api", 1, "1")))
		f.untilReady(t, "api", 1)
		time.Sleep(time.Second)
		got := f.view().Events
		if len(got) < keep || len(got) > keep+keepSlack || got[0].Text == "0" || got[len(got)-1].Text == events[len(events)-1].Text {
			t.Errorf("%d events are kept, from %q to %q; want about the newest %d", len(got), got[0].Text, got[len(got)-1].Text, keep)
		}
	})
}

func TestNoPlanIsWrittenWithoutNeed(t *testing.T) {
	inBubble(t, three, func(t *testing.T, f *fleet, _ func()) {
		time.Sleep(time.Minute)
		if v := f.view(); v.Plan != nil || len(v.Events) != 0 {
			t.Errorf("nothing is wanted, yet there is %+v, %v", v.Plan, v.Events)
		}
		f.want(file(service("api", 3, "1")))
		f.untilReady(t, "api", 3)
		rev := f.view().Plan.Generation
		time.Sleep(2 * time.Minute)
		if got := f.view().Plan.Generation; got != rev {
			t.Errorf("plan %d became %d, though nothing happened", rev, got)
		}
	})
}

func TestOnlyTheDeadLifeIsBuried(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFleet(t.Context())
		defer f.end()
		lease, err := f.store.Grant(t.Context(), time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		fence, err := control.Campaign(t.Context(), f.store, control.Seat, "me", lease)
		if err != nil {
			t.Fatal(err)
		}
		first, second := time.Now(), time.Now().Add(time.Second)
		if _, err := f.cluster().Report(t.Context(), nil, &system.Seen{Node: "node-1", Started: second}, lease); err != nil {
			t.Fatal(err)
		}
		l := &leader{Options: New(Options{Cluster: f.cluster()}).o, fence: fence}
		l.bury(t.Context(), death{"node-1", first})
		if f.view().Node("node-1") == nil {
			t.Error("the report of the node's new life is gone")
		}
		l.bury(t.Context(), death{"node-1", second})
		if f.view().Node("node-1") != nil {
			t.Error("the dead node's report is still there")
		}
	})
}

// fault is one thing that happens to a fleet, and how long nothing else does.
type fault struct {
	what      string
	node      system.NodeID
	conductor int
	file      *system.System
	wait      time.Duration
}

var faults = rapid.Custom(func(t *rapid.T) fault {
	version := rapid.SampledFrom([]string{"1", "2"})
	return fault{
		what:      rapid.SampledFrom([]string{"edit", "kill", "boot", "cut", "heal", "cut conductor", "replace conductor"}).Draw(t, "what"),
		node:      rapid.SampledFrom(three).Draw(t, "node"),
		conductor: rapid.IntRange(0, 1).Draw(t, "conductor"),
		file: file(service("api", rapid.IntRange(1, 4).Draw(t, "api"), version.Draw(t, "version")),
			service("db", rapid.IntRange(1, 3).Draw(t, "db"), version.Draw(t, "db version"), tied)),
		wait: time.Duration(rapid.IntRange(0, 5000).Draw(t, "ms")) * time.Millisecond,
	}
})

// TestAnyFaults cuts, heals, kills and boots nodes and conductors and edits the file at random times. The
// fleet checks throughout that data never moves and is never served twice; at the end all of it runs.
func TestAnyFaults(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		schedule := rapid.SliceOfN(faults, 1, 12).Draw(r, "schedule")
		wrong := ""
		synctest.Test(t, func(t *testing.T) { wrong = survive(t.Context(), schedule) })
		if wrong != "" {
			r.Fatal(wrong)
		}
	})
}

// survive plays a schedule and says what went wrong, if anything did.
func survive(ctx context.Context, schedule []fault) string {
	f := newFleet(ctx, three...)
	defer f.end()
	f.watchInvariants()
	wires := []*wire{newWire(f.store), newWire(f.store)}
	for _, w := range wires {
		w.lag = 50 * time.Millisecond // a leader sees what it wrote later than what it reads of nodes
	}
	var stops []func()
	for i, w := range wires {
		stops = append(stops, f.conduct(system.NodeID(fmt.Sprint("c", i)), w))
	}
	f.want(schedule[0].file)
	for _, x := range schedule {
		switch up := f.up(x.node); {
		case x.what == "edit":
			f.want(x.file)
		case x.what == "kill" && up:
			f.kill(x.node)
		case x.what == "boot" && !up:
			f.boot(x.node)
		case x.what == "cut":
			f.nodes[x.node].wire.cut()
		case x.what == "heal":
			f.nodes[x.node].wire.heal()
			wires[x.conductor].heal()
		case x.what == "cut conductor":
			wires[x.conductor].cut()
		case x.what == "replace conductor":
			wires[x.conductor].heal()
			stops[x.conductor]()
			stops[x.conductor] = f.conduct(system.NodeID(fmt.Sprint("c", x.conductor)), wires[x.conductor])
		}
		time.Sleep(x.wait)
	}
	for _, id := range three {
		f.nodes[id].wire.heal()
		if !f.up(id) {
			f.boot(id)
		}
	}
	for _, w := range wires {
		w.heal()
	}
	settled := func(v *control.View) bool {
		for _, s := range v.Wanted.Services {
			if v.Plan == nil || ready(v, s.Name) != s.Replicas || len(v.Plan.Deployment(s.Name).Assignments) != s.Replicas {
				return false
			}
		}
		return true
	}
	for deadline := time.Now().Add(2 * time.Minute); !settled(f.view()); time.Sleep(200 * time.Millisecond) {
		if time.Now().After(deadline) {
			return "not all of it runs in the end:\n" + show(f.view())
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.wrong
}
