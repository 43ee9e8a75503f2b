package conductor

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/system"
)

// fleet is a store, conductors and nodes whose fake agents obey the plan, in one bubble.
type fleet struct {
	ctx   context.Context
	stop  context.CancelFunc
	all   sync.WaitGroup
	store *memory.Store

	mu      sync.Mutex
	nodes   map[system.NodeID]*fakeNode
	running map[system.InstanceID]map[system.NodeID]bool // that exist, whatever control knows
	broken  func(version string) bool                    // such an instance fails
	wrong   string                                       // the first invariant that did not hold
}

func newFleet(ctx context.Context, nodes ...system.NodeID) *fleet {
	f := &fleet{store: memory.New(), nodes: map[system.NodeID]*fakeNode{}, running: map[system.InstanceID]map[system.NodeID]bool{}}
	f.ctx, f.stop = context.WithCancel(ctx)
	for i, id := range nodes {
		f.nodes[id] = &fakeNode{fleet: f, id: id, site: system.Site([]string{"eu", "ap"}[i%2])}
		f.boot(id)
	}
	return f
}

// end stops everything and waits for it.
func (f *fleet) end() {
	f.stop()
	f.all.Wait()
}

func (f *fleet) cluster() control.Cluster { return control.Cluster{Store: f.store} }

// conduct starts a conductor over its own wire and returns what stops it and waits.
func (f *fleet) conduct(self system.NodeID, w *wire) (stop func()) {
	ctx, cancel := context.WithCancel(f.ctx)
	done := make(chan struct{})
	c := New(Options{Cluster: control.Cluster{Store: w}, Self: self, Dead: f.dead})
	f.all.Go(func() {
		defer close(done)
		if err := c.Run(ctx); err != nil {
			f.fail("Run = " + err.Error())
		}
	})
	return func() { cancel(); <-done }
}

func (f *fleet) fail(why string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.wrong = cmp.Or(f.wrong, why)
}

// dead returns when the node's process has ended, as a broken stream and a refused dial would tell.
func (f *fleet) dead(ctx context.Context, id system.NodeID) error {
	f.mu.Lock()
	ended := f.nodes[id].ended
	f.mu.Unlock()
	select {
	case <-ended:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// boot starts a node's process.
func (f *fleet) boot(id system.NodeID) {
	n := f.nodes[id]
	ctx, kill := context.WithCancel(f.ctx)
	f.mu.Lock()
	n.wire, n.ended, n.kill = newWire(f.store), make(chan struct{}), kill
	w, ended := n.wire, n.ended
	f.mu.Unlock()
	f.all.Go(func() { n.run(ctx, w, ended) })
}

// kill ends a node's process, as kill -9 does: nothing is said, its instances die with it.
func (f *fleet) kill(id system.NodeID) {
	f.nodes[id].kill()
	<-f.nodes[id].ended
}

func (f *fleet) up(id system.NodeID) bool {
	select {
	case <-f.nodes[id].ended:
		return false
	default:
		return true
	}
}

func (f *fleet) want(sys *system.System) {
	if _, err := f.cluster().Want(f.ctx, sys); err != nil {
		f.fail(err.Error())
	}
}

func (f *fleet) view() *control.View {
	v, err := f.cluster().Read(f.ctx)
	if err != nil {
		f.fail(err.Error())
		return &control.View{}
	}
	return v
}

// ready counts the instances of a service that are planned to run and seen ready.
func ready(v *control.View, name system.ServiceName) (n int) {
	if v.Plan == nil || v.Plan.Deployment(name) == nil {
		return 0
	}
	for _, a := range v.Plan.Deployment(name).Assignments {
		if s := v.Instance(a.Node, a.Instance); a.Goal == system.GoalRun && s != nil && s.State == system.StateReady {
			n++
		}
	}
	return n
}

// until waits for a view that is ok, and returns how long it took.
func (f *fleet) until(t testing.TB, limit time.Duration, what string, ok func(*control.View) bool) time.Duration {
	t.Helper()
	begin, met := time.Now(), errors.New("met")
	ctx, cancel := context.WithTimeout(f.ctx, limit)
	defer cancel()
	err := f.cluster().Follow(ctx, nil, func(v *control.View) error {
		if v.Plan != nil && ok(v) {
			return met
		}
		return nil
	})
	if !errors.Is(err, met) {
		t.Fatalf("after %v not yet: %s\n%s", limit, what, show(f.view()))
	}
	return time.Since(begin)
}

func (f *fleet) untilReady(t testing.TB, name system.ServiceName, n int) {
	t.Helper()
	f.until(t, 30*time.Second, fmt.Sprintf("%d ready of %s", n, name), func(v *control.View) bool {
		return ready(v, name) == n && len(v.Plan.Deployment(name).Assignments) == n
	})
}

func show(v *control.View) (out string) {
	for _, n := range v.Seen {
		out += fmt.Sprintf("%s %v\n", n.Node, n.Instances)
	}
	if v.Plan != nil {
		for _, d := range v.Plan.Services {
			for _, a := range d.Assignments {
				out += fmt.Sprintf("%s on %s %s old=%v %s %s\n", a.Instance, a.Node, a.Goal, a.Made != nil, a.Reason, a.Waits)
			}
		}
		out += fmt.Sprintln(v.Plan.Refused)
	}
	return out
}

// watchInvariants checks every view until the fleet ends: no tied instance off its holder or on
// two nodes, and no two plans of one generation.
func (f *fleet) watchInvariants() {
	f.all.Go(func() {
		texts, last := map[int64]string{}, int64(0)
		err := f.cluster().Follow(f.ctx, nil, func(v *control.View) error {
			if v.Plan == nil {
				return nil
			}
			text, _ := json.Marshal(v.Plan.Services)
			if was, ok := texts[v.Plan.Generation]; v.Plan.Generation < last || ok && was != string(text) {
				f.fail(fmt.Sprintf("plan %d after %d: a generation is one plan", v.Plan.Generation, last))
			}
			last, texts[v.Plan.Generation] = v.Plan.Generation, string(text)
			holder := map[system.InstanceID]system.NodeID{}
			for _, h := range v.Holders {
				holder[h.Instance] = h.Node
			}
			for _, d := range v.Plan.Services {
				ids := map[system.InstanceID]bool{}
				for _, a := range d.Assignments {
					if ids[a.Instance] {
						f.fail(string(a.Instance) + " stands twice in the plan")
					}
					ids[a.Instance] = true
					if d.Service.Tied() && a.Made == nil && holder[a.Instance] != a.Node {
						f.fail(fmt.Sprintf("%s is on %s, its data on %q", a.Instance, a.Node, holder[a.Instance]))
					}
				}
			}
			return nil
		})
		if err != nil {
			f.fail("follow: " + err.Error())
		}
	})
}

// fakeNode obeys the plan: an instance takes 200ms to get ready and 300ms to drain.
type fakeNode struct {
	fleet *fleet
	id    system.NodeID
	site  system.Site
	wire  *wire
	ended chan struct{}
	kill  context.CancelFunc
}

func (n *fakeNode) run(ctx context.Context, w *wire, ended chan struct{}) {
	seen := system.Seen{Node: n.id, Site: n.site, Role: "node", Drivers: map[string]string{"process": ""}, Started: time.Now()}
	var parts sync.WaitGroup
	plans := make(chan *system.Plan, 1)
	cluster := control.Cluster{Store: w}
	parts.Go(func() {
		_ = cluster.Follow(ctx, nil, func(v *control.View) error {
			select {
			case <-plans:
			default:
			}
			plans <- v.Plan
			return nil
		})
	})
	defer func() {
		n.fleet.mu.Lock()
		for _, at := range n.fleet.running {
			delete(at, n.id)
		}
		n.fleet.mu.Unlock()
		close(ended)
		parts.Wait()
	}()
	leases := make(chan control.LeaseID)
	parts.Go(func() {
		for ctx.Err() == nil {
			lease, err := w.Grant(ctx, 3*time.Second)
			if err != nil {
				continue
			}
			select {
			case leases <- lease:
			case <-ctx.Done():
				return
			}
			_ = control.KeepAlive(ctx, w, lease, time.Second)
		}
	})
	var plan *system.Plan
	var lease control.LeaseID
	const step = 100 * time.Millisecond
	reported, tick := "", time.NewTimer(step)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case lease = <-leases:
			reported = ""
		case plan = <-plans:
		case <-tick.C:
		}
		n.obey(&seen, plan)
		calm := !slices.ContainsFunc(seen.Instances, func(s system.InstanceSeen) bool {
			return s.State == system.StateStarting || s.State == system.StateDraining
		})
		if now := fmt.Sprint(seen); lease != 0 && now != reported {
			try, cancel := context.WithTimeout(ctx, 50*time.Millisecond)
			copied := seen
			copied.Instances = slices.Clone(seen.Instances)
			if _, err := cluster.Report(try, nil, &copied, lease); err == nil {
				reported = now
			}
			cancel()
			calm = calm && now == reported
		}
		if !calm {
			tick.Reset(step)
		}
	}
}

func (n *fakeNode) obey(seen *system.Seen, plan *system.Plan) {
	if plan == nil {
		return
	}
	seen.Plan = plan.Generation
	have := map[system.InstanceID]system.InstanceSeen{}
	for _, s := range seen.Instances {
		have[s.Instance] = s
	}
	next := map[system.InstanceID]system.InstanceSeen{}
	for _, d := range plan.Services {
		for _, a := range d.Assignments {
			if a.Node != n.id || a.Goal == system.GoalWait {
				continue
			}
			made := cmp.Or(a.Made, &d.Service)
			s, ok := have[a.Instance]
			if !ok && a.Goal == system.GoalDrain {
				continue
			}
			if !ok || s.Spec != a.Spec {
				s = system.InstanceSeen{Instance: a.Instance, Spec: a.Spec, State: system.StateStarting, Since: time.Now(), Started: time.Now()}
			}
			aged := func(d time.Duration) bool { return time.Since(s.Since) >= d }
			to := s.State
			switch {
			case a.Goal == system.GoalDrain && s.State != system.StateDraining:
				to = system.StateDraining
			case a.Goal == system.GoalDrain && aged(300*time.Millisecond):
				continue
			case a.Goal == system.GoalRun && s.State == system.StateStarting && aged(200*time.Millisecond):
				to = system.StateReady
				if n.fleet.broken != nil && n.fleet.broken(made.Environment["VERSION"]) {
					to = system.StateFailed
				}
			}
			if to != s.State {
				s.State, s.Since = to, time.Now()
			}
			next[a.Instance] = s
		}
	}
	seen.Instances = slices.SortedFunc(maps.Values(next), func(a, b system.InstanceSeen) int { return cmp.Compare(a.Instance, b.Instance) })
	n.account(plan, next)
}

// account keeps the truth of what exists, and checks that no data is served twice.
func (n *fakeNode) account(plan *system.Plan, next map[system.InstanceID]system.InstanceSeen) {
	n.fleet.mu.Lock()
	defer n.fleet.mu.Unlock()
	for _, at := range n.fleet.running {
		delete(at, n.id)
	}
	for id, s := range next {
		if s.State == system.StateFailed {
			continue
		}
		at := n.fleet.running[id]
		if at == nil {
			at = map[system.NodeID]bool{}
			n.fleet.running[id] = at
		}
		at[n.id] = true
		name, _, _ := id.Split()
		if d := plan.Deployment(name); d.Service.Tied() && len(at) > 1 {
			n.fleet.wrong = cmp.Or(n.fleet.wrong, fmt.Sprintf("%s runs on %v at once", id, slices.Sorted(maps.Keys(at))))
		}
	}
}

// wire is a store that can be cut off: every call then hangs until it is healed or given up. What is
// watched through it comes lag late.
type wire struct {
	control.Store
	lag    time.Duration
	mu     sync.Mutex
	healed chan struct{} // nil: not cut
}

func newWire(s control.Store) *wire { return &wire{Store: s} }

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.healed == nil {
		w.healed = make(chan struct{})
	}
}

func (w *wire) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.healed != nil {
		close(w.healed)
		w.healed = nil
	}
}

func (w *wire) pass(ctx context.Context) error {
	w.mu.Lock()
	healed := w.healed
	w.mu.Unlock()
	if healed == nil {
		return ctx.Err()
	}
	select {
	case <-healed:
		return nil
	case <-ctx.Done():
		return errors.Join(control.ErrUnavailable, ctx.Err())
	}
}

func (w *wire) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	if err := w.pass(ctx); err != nil {
		return nil, 0, err
	}
	return w.Store.Range(ctx, prefix)
}

func (w *wire) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	if err := w.pass(ctx); err != nil {
		return 0, false, err
	}
	return w.Store.Commit(ctx, txn)
}

func (w *wire) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	return w.Store.Watch(ctx, prefix, from, func(b control.Batch) error {
		time.Sleep(w.lag)
		if err := w.pass(ctx); err != nil {
			return err
		}
		return each(b)
	})
}

func (w *wire) Grant(ctx context.Context, ttl time.Duration) (control.LeaseID, error) {
	if err := w.pass(ctx); err != nil {
		return 0, err
	}
	return w.Store.Grant(ctx, ttl)
}

func (w *wire) Renew(ctx context.Context, id control.LeaseID) error {
	if err := w.pass(ctx); err != nil {
		return err
	}
	return w.Store.Renew(ctx, id)
}

func (w *wire) Revoke(ctx context.Context, id control.LeaseID) error {
	if err := w.pass(ctx); err != nil {
		return err
	}
	return w.Store.Revoke(ctx, id)
}
