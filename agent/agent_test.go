package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"servent/control"
	"servent/driver"
	"servent/system"
)

// node is an agent that runs in a bubble.
type node struct {
	*Agent
	t    *testing.T
	fake *fake
	open atomic.Int64 // requests in flight to every instance
	end  func() error
}

func begin(t *testing.T, o Options) *node {
	n := &node{t: t, fake: newFake()}
	o.Node, o.Host, o.PortBase = "node-1", "127.0.0.1", 20000
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	o.Drivers = map[system.SoftwareKind]driver.Driver{"fake": n.fake}
	o.Inflight = func(system.InstanceID) int { return int(n.open.Load()) }
	n.Agent = New(o)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	n.end = func() error {
		cancel()
		err := <-done
		done <- nil
		return err
	}
	return n
}

// follow hands in a plan and waits until nothing more happens without time.
func (n *node) follow(p *system.Plan) {
	n.Follow(p)
	synctest.Wait()
}

// states is what is seen, in words.
func (n *node) states() []string {
	var out []string
	for _, s := range n.Seen() {
		out = append(out, string(s.Instance)+" "+string(s.State))
	}
	return out
}

func (n *node) want(what string, got []string, want ...string) {
	n.t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		n.t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func instance1(id system.InstanceID) system.Assignment { return system.Assignment{Instance: id} }

func TestAgentFollowsThePlan(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		before := n.Changed()
		n.Follow(nil)
		n.want("before the first plan", n.states())
		n.follow(planOf(3, instance1("api/2"), instance1("api/10"), system.Assignment{Instance: "web/1", Node: "node-2"}))
		n.want("seen", n.states(), "api/2 ready", "api/10 ready")
		select {
		case <-before:
		default:
			t.Error("Changed() was not closed")
		}
		if got := n.Generation(); got != 3 {
			t.Errorf("Generation() = %d, want 3", got)
		}
		s := n.Seen()[0]
		if s.Endpoint != "inside" || s.Spec != "new" || s.Started.IsZero() || s.Restarts != 0 {
			t.Errorf("seen %+v", s)
		}
		if e, ok := n.Endpoint("api/2"); !ok || e.Handler == nil {
			t.Errorf("Endpoint() = %v, %v", e, ok)
		}
		if st := n.Stats(t.Context()); len(st) != 2 || st["api/10"].Pids != 1 {
			t.Errorf("Stats() = %v, want two", st)
		}
		n.fake.told()

		older, deposed := planOf(2), planOf(9)
		deposed.Fence = 0
		for _, p := range []*system.Plan{older, deposed, planOf(3), nil} {
			n.follow(p)
			n.want("after an old plan", n.states(), "api/2 ready", "api/10 ready")
		}
		n.follow(planOf(4, instance1("api/2")))
		n.want("seen", n.states(), "api/2 ready")
		n.want("happened", n.fake.told(), "stop api/10")
		if _, ok := n.Endpoint("api/10"); ok {
			t.Error("an instance that is gone has an endpoint")
		}
		quiet := n.Changed()
		n.follow(planOf(5, instance1("api/2")))
		if n.Generation() != 5 {
			t.Errorf("Generation() = %d, want 5", n.Generation())
		}
		select {
		case <-quiet:
		default:
			t.Error("a newer generation is no news: its node would never report it")
		}
		anew := planOf(2, instance1("api/2"), instance1("api/3"))
		anew.Fence = int64(control.Rev(1).NextEpoch())
		n.follow(anew)
		n.want("control began anew", n.states(), "api/2 ready", "api/3 ready")
		n.follow(planOf(6, instance1("api/2")))
		n.want("a plan of before", n.states(), "api/2 ready", "api/3 ready")
		next := planOf(3, instance1("api/2"))
		next.Fence = anew.Fence
		n.follow(next)
		if err := n.end(); err != nil {
			t.Error(err)
		}
		n.want("after the end", n.states())
		n.want("happened", n.fake.told(), "start api/3", "stop api/3", "stop api/2")
	})
}

func TestAgentReplacesTheOldVersionInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		n.fake.stopIn = 3 * time.Second
		n.follow(planOf(1, system.Assignment{Instance: "db/1", Spec: "old", Made: &system.Service{Name: "db", Software: system.Software{Kind: "fake"}}}))
		if got := n.Seen()[0]; got.Spec != "old" {
			t.Errorf("seen %+v, want the older version", got)
		}
		n.follow(planOf(2, instance1("db/1")))
		n.want("happened", n.fake.told(), "start db/1")
		n.want("seen", n.states(), "db/1 draining")
		n.follow(planOf(3, instance1("db/1"))) // plans that come meanwhile change nothing
		time.Sleep(3 * time.Second)
		synctest.Wait()
		n.want("happened", n.fake.told(), "stop db/1", "start db/1")
		n.want("seen", n.states(), "db/1 ready")
		n.want("clashes", n.fake.clashes)
		if got := n.Seen()[0].Spec; got != "new" {
			t.Errorf("spec %s, want new", got)
		}
	})
}

func TestAgentDrains(t *testing.T) {
	drain := func(generation int64, grace time.Duration) *system.Plan {
		p := planOf(generation, system.Assignment{Instance: "api/1", Goal: system.GoalDrain})
		p.Services[0].Service.Stop.Grace = grace
		return p
	}
	up := func(grace time.Duration) *system.Plan {
		p := planOf(1, instance1("api/1"))
		p.Services[0].Service.Stop.Grace = grace
		return p
	}
	for _, tt := range []struct {
		name  string
		grace time.Duration
		open  time.Duration // until the last request has ended
		want  time.Duration // until it is stopped
	}{
		{"nothing open", 0, 0, settle},
		{"one open", 0, 4 * time.Second, 4 * time.Second},
		{"one open for ever", 0, time.Hour, defaultGrace},
		{"longer than its grace", 3 * time.Second, time.Hour, 3 * time.Second},
		{"every table needs its time", time.Millisecond, time.Hour, settle},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := begin(t, Options{})
				defer n.end()
				n.follow(up(tt.grace))
				n.open.Store(1)
				n.fake.told()
				n.follow(drain(2, tt.grace))
				n.want("seen", n.states(), "api/1 draining")
				if _, ok := n.Endpoint("api/1"); !ok {
					t.Error("a draining instance has no endpoint for its open requests")
				}
				begun := time.Now()
				for ; n.fake.running("api/1") != nil; synctest.Wait() {
					if time.Since(begun) >= tt.open {
						n.open.Store(0)
					}
					time.Sleep(look / 5)
				}
				if took := time.Since(begun); took < tt.want || took > tt.want+2*look {
					t.Errorf("stopped after %v, want %v", took, tt.want)
				}
				n.want("seen", n.states(), "api/1 stopped")
				n.follow(drain(3, tt.grace))
				n.want("still named", n.states(), "api/1 stopped")
				n.follow(planOf(4))
				n.want("named no more", n.states())
				n.want("happened", n.fake.told(), "stop api/1")
			})
		})
	}
}

func TestAgentDrainsWhatDoesNotRunAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		n.open.Store(1)
		n.fake.refuse["bad"] = fmt.Errorf("%w: it is empty", driver.ErrArtifact)
		p := planOf(1, instance1("bad/1"))
		p.Services[0].Service.Software.From = "bad"
		n.follow(p)
		n.want("seen", n.states(), "bad/1 failed")
		n.follow(planOf(2, system.Assignment{Instance: "bad/1", Goal: system.GoalDrain}))
		n.want("seen", n.states(), "bad/1 stopped")
	})
}

func TestAgentResumes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		n.follow(planOf(1, instance1("api/1")))
		n.follow(planOf(2, system.Assignment{Instance: "api/1", Goal: system.GoalDrain}))
		n.follow(planOf(3, instance1("api/1")))
		time.Sleep(time.Minute)
		n.want("seen", n.states(), "api/1 ready")
		n.want("happened", n.fake.told(), "start api/1")
		// Wanted again after it was drained: it starts again.
		n.follow(planOf(4, system.Assignment{Instance: "api/1", Goal: system.GoalDrain}))
		time.Sleep(time.Minute)
		n.want("seen", n.states(), "api/1 stopped")
		n.follow(planOf(5, instance1("api/1")))
		n.want("seen", n.states(), "api/1 ready")
		n.want("happened", n.fake.told(), "stop api/1", "start api/1")
	})
}

func TestAgentWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		wait := system.Assignment{Instance: "api/1", Goal: system.GoalWait, Waits: "db is not healthy yet"}
		n.follow(planOf(1, wait))
		since := time.Now()
		time.Sleep(time.Minute)
		n.follow(planOf(2, wait, instance1("db/1")))
		n.want("seen", n.states(), "api/1 waiting", "db/1 ready")
		if got := n.Seen()[0]; got.Why != wait.Waits || !got.Since.Equal(since) {
			t.Errorf("waits since %v, %q, want %v, %q", got.Since, got.Why, since, wait.Waits)
		}
		n.follow(planOf(3, instance1("api/1"), instance1("db/1")))
		n.want("seen", n.states(), "api/1 ready", "db/1 ready")
		n.follow(planOf(4, wait))
		n.want("seen", n.states(), "api/1 waiting")
		n.follow(planOf(5))
		n.want("seen", n.states())
	})
}

func TestAgentTroublesStayWithTheirInstance(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var fetched atomic.Bool
		n := begin(t, Options{Bundle: func(_ context.Context, d system.Digest) (string, error) {
			if !fetched.Load() {
				return "", fmt.Errorf("blob %s: no node has it", d)
			}
			return "/bundles/1", nil
		}})
		defer n.end()
		// The folder of one service cannot be made: a file stands there.
		write(t, filepath.Join(n.opts.Dir, "instances", "broken"))
		n.fake.refuse["bad"] = fmt.Errorf("%w: it is empty", driver.ErrArtifact)
		p := planOf(1, instance1("bad/1"), instance1("broken/1"), instance1("late/1"), instance1("strange/1"), instance1("well/1"))
		p.Deployment("bad").Service.Software.From = "bad"
		p.Deployment("late").Service.Software.Digest = "sha256:1"
		p.Deployment("strange").Service.Software.Kind = system.VM
		n.follow(p)
		n.want("seen", n.states(), "bad/1 failed", "broken/1 backoff", "late/1 backoff", "strange/1 failed", "well/1 ready")
		for i, want := range []string{"it is empty", "make private folder", "fetch the bundle: blob sha256:1: no node has it", "node-1 has no driver for vm", ""} {
			if got := n.Seen()[i]; !strings.Contains(got.Why, want) {
				t.Errorf("%s: why %q, want %q", got.Instance, got.Why, want)
			}
		}
		fetched.Store(true)
		if err := os.Remove(filepath.Join(n.opts.Dir, "instances", "broken")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		n.want("seen", n.states(), "bad/1 failed", "broken/1 ready", "late/1 ready", "strange/1 failed", "well/1 ready")
		if got := env(n.fake.running("late/1").spec.Env, "SERVENT_BUNDLE"); got != "/bundles/1" {
			t.Errorf("SERVENT_BUNDLE = %q", got)
		}
		n.follow(planOf(2))
		n.want("seen", n.states())
	})
}

// env returns a variable's value.
func env(list []string, name string) string {
	for _, kv := range list {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

func TestAgentRestartsInPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{BaseEnv: []string{"PATH=/bin"}})
		defer n.end()
		p := planOf(1, instance1("api/1"))
		n.follow(p)
		first := n.fake.running("api/1").spec
		write(t, filepath.Join(env(first.Env, "SERVENT_DATA"), "kept"))
		n.follow(planOf(2, instance1("api/1"), system.Assignment{Instance: "api/2", Node: "node-2"}))
		n.fake.running("api/1").end(driver.Exit{Code: 1}, "crash ")
		time.Sleep(time.Second)
		synctest.Wait()
		n.want("happened", n.fake.told(), "start api/1", "crash api/1", "start api/1")
		again := n.fake.running("api/1").spec
		if first.Port != again.Port || first.Port != 20012 || first.Dir != again.Dir {
			t.Errorf("started at %d in %s, then at %d in %s; want 20012 and one folder", first.Port, first.Dir, again.Port, again.Dir)
		}
		if !exists(filepath.Join(first.Dir, "data", "kept")) {
			t.Error("an instance that starts again lost its files")
		}
		if got, want := env(again.Env, "SERVENT_PEERS"), "http://127.0.0.1:20012,http://127.0.0.1:20014"; got != want {
			t.Errorf("SERVENT_PEERS = %s, want the present ones, %s", got, want)
		}
		if got := env(again.Env, "PATH"); got != "/bin" {
			t.Errorf("PATH = %q", got)
		}
		if s := n.Seen()[0]; s.State != system.StateReady || s.Restarts != 1 || s.Exit != "exit 1" {
			t.Errorf("seen %+v", s)
		}
	})
}

func TestAgentWaitsForAPort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		n.fake.stopIn = 5 * time.Second
		n.follow(planOf(1, system.Assignment{Instance: "old/1", Port: 50}))
		n.follow(planOf(2, system.Assignment{Instance: "new/1", Port: 50}))
		n.want("seen", n.states(), "old/1 draining")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		n.want("seen", n.states(), "new/1 ready")
		n.want("clashes", n.fake.clashes)
	})
}

func TestAgentEndsAllAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		n.fake.stopIn = 5 * time.Second
		n.follow(planOf(1, instance1("a/1"), instance1("a/2"), instance1("a/3"), system.Assignment{Instance: "a/4", Goal: system.GoalDrain}))
		begun := time.Now()
		if err := n.end(); err != nil {
			t.Error(err)
		}
		if took := time.Since(begun); took != n.fake.stopIn {
			t.Errorf("three stops of %v took %v, want them side by side", n.fake.stopIn, took)
		}
		if len(n.fake.alive) > 0 {
			t.Errorf("left running: %v", n.fake.alive)
		}
	})
}

func TestAgentNeverReplacesWhatItCannotStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		n.fake.stuck = errors.New("it does not die")
		n.follow(planOf(1, instance1("db/1")))
		dir := n.fake.running("db/1").spec.Dir
		n.follow(planOf(2, system.Assignment{Instance: "db/1", Port: 60}))
		time.Sleep(time.Hour)
		n.want("happened", n.fake.told(), "start db/1")
		n.want("seen", n.states(), "db/1 unhealthy")
		if got := n.Seen()[0].Why; !strings.Contains(got, "it does not die") {
			t.Errorf("why %q", got)
		}
		if _, err := lock(dir + ".lock"); !errors.Is(err, errHeld) {
			t.Errorf("lock() = %v, want the folder held", err)
		}
		if err := n.end(); err == nil || !strings.Contains(err.Error(), "db/1: cannot be stopped: it does not die") {
			t.Errorf("Run() = %v, want what could not be stopped", err)
		}
	})
}

func TestAgentRefusesAFolderInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		defer n.end()
		other, err := lock(filepath.Join(mkdir(t, n.opts.Dir, "instances", "db"), "1.lock"))
		if err != nil {
			t.Fatal(err)
		}
		n.follow(planOf(1, instance1("db/1"), instance1("db/2")))
		n.want("seen", n.states(), "db/1 backoff", "db/2 ready")
		if got := n.Seen()[0].Why; !strings.Contains(got, fmt.Sprintf("in use by process %d", os.Getpid())) {
			t.Errorf("why %q, want who holds it", got)
		}
		other.Close()
		time.Sleep(time.Minute)
		synctest.Wait()
		n.want("seen", n.states(), "db/1 ready", "db/2 ready")
	})
}

func mkdir(t *testing.T, parts ...string) string {
	t.Helper()
	dir := filepath.Join(parts...)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestAgentKeepsOutput(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := begin(t, Options{})
		n.follow(planOf(1, instance1("api/1"), instance1("order-db.v2/11")))
		n.follow(planOf(2, instance1("api/1")))
		says := func(a *Agent, id system.InstanceID) bool {
			l, ok := a.Log(id)
			return ok && slices.ContainsFunc(l.Tail(-1), func(line driver.Line) bool {
				return line.Stream == driver.Stdout && line.Text == "hello from "+string(id)
			})
		}
		check := func(a *Agent) {
			ids, err := a.Logs()
			if want := []system.InstanceID{"api/1", "order-db.v2/11"}; err != nil || !slices.Equal(ids, want) {
				t.Errorf("Logs() = %v, %v, want %v", ids, err, want)
			}
			for _, id := range ids {
				if !says(a, id) {
					t.Errorf("the log of %s lacks its line", id)
				}
			}
			for _, id := range []system.InstanceID{"api/2", "api", "../x/1", "../1"} {
				if l, ok := a.Log(id); ok {
					t.Errorf("Log(%s) = %v, want none", id, l)
				}
			}
		}
		check(n.Agent)
		n.end()
		later := begin(t, Options{Dir: n.opts.Dir}) // another life of the node
		check(later.Agent)
		later.end()
		if _, ok := later.Log("api/1"); ok {
			t.Error("a log is open after the end")
		}
	})
}

// TestAgentAnyPlans follows random plans and checks, whatever they say: no two copies of one name or on one
// port or folder ever run together, and in the end exactly what the last plan wants runs, as it wants it.
func TestAgentAnyPlans(t *testing.T) {
	type step struct {
		plan  *system.Plan
		pause time.Duration
	}
	rapid.Check(t, func(rt *rapid.T) {
		var steps []step
		for g := range rapid.IntRange(1, 8).Draw(rt, "plans") {
			var as []system.Assignment
			for _, id := range []system.InstanceID{"a/1", "a/2", "b/1"} {
				goal := rapid.SampledFrom([]system.Goal{"", system.GoalRun, system.GoalDrain, system.GoalWait}).Draw(rt, "goal")
				if goal == "" {
					continue
				}
				as = append(as, system.Assignment{Instance: id, Goal: goal,
					Node: rapid.SampledFrom([]system.NodeID{"node-1", "node-1", "node-2"}).Draw(rt, "node"),
					Spec: rapid.SampledFrom([]system.Digest{"old", "new"}).Draw(rt, "spec")})
			}
			if len(as) > 1 && rapid.Bool().Draw(rt, "other ports") { // that another had before, or has
				as[0].Port, as[len(as)-1].Port = 24, 12
			}
			steps = append(steps, step{planOf(int64(g+1), as...), time.Duration(rapid.IntRange(0, 3000).Draw(rt, "pause")) * time.Millisecond})
		}
		stops := time.Duration(rapid.IntRange(0, 2000).Draw(rt, "stop")) * time.Millisecond
		dir, err := os.MkdirTemp("", "plans")
		if err != nil {
			rt.Fatal(err)
		}
		defer os.RemoveAll(dir)
		var wrong []string
		synctest.Test(t, func(t *testing.T) {
			n := begin(t, Options{Dir: dir})
			n.fake.stopIn = stops
			for _, s := range steps {
				n.Follow(s.plan)
				time.Sleep(s.pause)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			wrong = append(wrong, n.fake.clashes...)
			want := map[string]bool{}
			last := steps[len(steps)-1].plan
			for _, d := range last.Services {
				for _, as := range d.Assignments {
					if as.Node == "node-1" && as.Goal == system.GoalRun {
						want[fmt.Sprint(as.Instance, as.Spec, 20000+as.Port)] = true
					}
				}
			}
			got := map[string]bool{}
			for _, s := range n.Seen() {
				if s.State == system.StateReady {
					got[fmt.Sprint(s.Instance, s.Spec, n.fake.running(s.Instance).spec.Port)] = true
				}
			}
			if diff := cmp.Diff(want, got); diff != "" || len(got) != len(n.fake.alive) {
				wrong = append(wrong, fmt.Sprintf("%d run; (-want +got)\n%s", len(n.fake.alive), diff))
			}
			n.end()
		})
		for _, w := range wrong {
			rt.Error(w)
		}
	})
}
