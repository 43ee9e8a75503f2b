package node

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"servent/control"
	"servent/route"
	"servent/store"
	"servent/system"
)

// leaseFor is the time T of a store's lease.
const leaseFor = 4 * time.Second

// terms is the [store.Lease] of one instance: whether its store orders the requests of a partition now.
//
// Control decides, and nobody writes anything there for it: at each of its revisions, a partition's leader is the first
// of its owners that is ready, by the service's part of the plan and by the reports of the owners' nodes. What the
// watch shows may be old, so a store asks control, every eighth of T, whether these keys stand as it has them: a
// transaction of conditions alone. Yes is a confirmation: at its revision, which came after it was asked for, this store
// led. Then it may act for T/2 from when it asked.
//
// The fence is the revision of the first confirmation since it leads, and a number for when it takes another one at the
// same revision. One revision has one leader, so no two stores have the same fence, and who leads later has a greater one. As long as a partition's owners are the same, any two of
// their quorums meet and fences alone keep two who believe that they lead from contradicting one another (as ballots do:
// Lamport, Paxos Made Simple, 2001): who takes over waits for nobody. When the owners change, quorums may not meet:
// then a store waits for T from its first confirmation of the new ones, within which everybody has stopped who was
// confirmed under the old ones. T is twice what they may act: clocks may differ by a factor of two in their speed.
type terms struct {
	control  control.Store
	service  system.ServiceName
	instance system.InstanceID
	node     system.NodeID
	life     time.Time     // when this node's process started: a report of an earlier life is not its own
	time     time.Duration // T

	heard chan struct{} // of capacity 1: the world changed

	mu    sync.Mutex    // guards what follows
	world *world        // as the watch shows it; nil: it cannot be told
	moved chan struct{} // closed, and made anew, with every change of the below
	whole bool          // since the last confirmation every change of the owners was seen, and there was none
	sure  time.Time     // when the last confirmation of this world or an earlier one was asked for
	from  time.Time     // it may act, because whoever led under other owners has stopped
	fence []uint64      // by partition; 0: it does not lead, or that is not confirmed
	last  []uint64      // by partition, the greatest that this node gave out
}

// perRev is how many fences of one partition a revision has.
const perRev = 1 << 20

// world is what one view says of a service's keys.
type world struct {
	conds  []control.Cond // that it is so
	plan   control.Rev    // of the service's part of the plan
	reads  int            // see [control.View]
	owners [][]string     // by partition
	first  []system.InstanceID
	leads  []bool // this store, by partition
}

func newTerms(s control.Store, service system.ServiceName, instance system.InstanceID, node system.NodeID, life time.Time, t time.Duration) *terms {
	return &terms{last: make([]uint64, system.Partitions),
		control: s, service: service, instance: instance, node: node, life: life, time: t,
		heard: make(chan struct{}, 1), moved: make(chan struct{}), fence: make([]uint64, system.Partitions)}
}

// worldOf reads a view, which has the table's plan and reports. It is nil where nothing divides the service's keys.
func (t *terms) worldOf(v *control.View, table *route.Table, old *world) *world {
	var d *system.Deployment
	if v.Plan != nil {
		d = v.Plan.Deployment(t.service)
	}
	svc := table.Services[t.service]
	if d == nil || svc == nil {
		return nil
	}
	at, ok := svc.Locator.(*route.Partitioned)
	if !ok {
		return nil
	}
	w := &world{plan: v.At[control.PlanKey(t.service)], reads: v.Reads, conds: []control.Cond{v.As(control.PlanKey(t.service))}}
	var nodes []system.NodeID
	for _, a := range d.Assignments {
		if !slices.Contains(nodes, a.Node) {
			nodes = append(nodes, a.Node)
			w.conds = append(w.conds, v.As(control.SeenKey(a.Node)))
		}
	}
	if old != nil && slices.Equal(old.conds, w.conds) {
		return old
	}
	if old != nil && old.plan == w.plan {
		w.owners = old.owners
	} else {
		w.owners = make([][]string, system.Partitions)
		for p := range w.owners {
			for _, id := range at.Owners(p) {
				w.owners[p] = append(w.owners[p], string(id))
			}
		}
	}
	own := v.Node(t.node)
	here := own != nil && own.Started.Equal(t.life) && (at.Copies <= 1 || at.Ready[t.instance])
	w.first, w.leads = make([]system.InstanceID, system.Partitions), make([]bool, system.Partitions)
	for p := range w.leads {
		w.first[p] = at.First(p)
		w.leads[p] = here && w.first[p] == t.instance
	}
	return w
}

// follow takes in every view, in their order.
func (t *terms) follow(v *control.View, table *route.Table) {
	t.mu.Lock()
	old := t.world
	t.mu.Unlock()
	w := t.worldOf(v, table, old) // this method alone and run's end change the world
	if w == old {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.become(w)
	select {
	case t.heard <- struct{}{}:
	default:
	}
}

// become makes a world this store's. t.mu is held.
func (t *terms) become(w *world) {
	old := t.world
	t.world = w
	if w == nil || old == nil || old.plan != w.plan && (old.reads != w.reads || !slices.EqualFunc(old.owners, w.owners, slices.Equal)) {
		t.whole = false
	}
	for p := range t.fence {
		if w == nil || !w.leads[p] {
			t.fence[p] = 0
		}
	}
	t.tell()
}

// tell wakes who waits for a change. t.mu is held.
func (t *terms) tell() {
	close(t.moved)
	t.moved = make(chan struct{})
}

// run asks control until ctx ends; then this store leads nothing.
func (t *terms) run(ctx context.Context) {
	defer func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.become(nil)
	}()
	tick := time.NewTicker(t.time / 8)
	defer tick.Stop()
	for {
		t.mu.Lock()
		w := t.world
		t.mu.Unlock()
		if w != nil {
			asked := time.Now()
			call, cancel := context.WithTimeout(ctx, t.time/2) // later, the answer is worth nothing
			rev, yes, err := t.control.Commit(call, control.Txn{Conds: w.conds})
			cancel()
			if err == nil && yes {
				t.confirmed(w, rev, asked, time.Now())
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-t.heard:
		}
	}
}

// confirmed says that the world stood at a revision that came after it was asked for.
func (t *terms) confirmed(w *world, rev control.Rev, asked, answered time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if w != t.world {
		return // the watch was quicker
	}
	if !t.whole {
		t.whole, t.from = true, answered.Add(t.time)
		clear(t.fence)
	}
	t.sure = asked
	for p, leads := range w.leads {
		if next := max(uint64(rev)*perRev, t.last[p]+1); leads && t.fence[p] == 0 && next < uint64(rev+1)*perRev {
			t.fence[p], t.last[p] = next, next
		}
	}
	t.tell()
}

// Held implements [store.Lease]. While this store is the first owner by the newest view and may not act yet, it
// waits, at most for T and a quarter.
func (t *terms) Held(ctx context.Context, partition int) (store.Term, error) {
	var late <-chan time.Time
	for {
		term, soon, moved, err := t.look(partition)
		if err == nil || soon == 0 {
			return term, err
		}
		if late == nil {
			timer := time.NewTimer(t.time + t.time/4)
			defer timer.Stop()
			late = timer.C
		}
		again := time.NewTimer(soon)
		select {
		case <-ctx.Done():
			again.Stop()
			return term, err
		case <-late:
			again.Stop()
			return term, err
		case <-moved:
		case <-again.C:
		}
		again.Stop()
	}
}

var errUnconfirmed = errors.New("control has not confirmed lately that this store orders the key")

// look is Held as it is now. soon is when it is worth looking again, at the latest; 0: it is not.
func (t *terms) look(p int) (term store.Term, soon time.Duration, moved <-chan struct{}, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	now, w := time.Now(), t.world
	switch {
	case w == nil:
		return term, 0, nil, errors.New("the plan divides no keys here")
	case !w.leads[p] && w.first[p] == t.instance:
		return term, t.time, t.moved, errors.New("this store is not known to be ready yet")
	case !w.leads[p]:
		return term, 0, nil, fmt.Errorf("%s orders it now", w.first[p])
	case t.fence[p] == 0 || !now.Before(t.sure.Add(t.time/2)):
		return term, t.time, t.moved, errUnconfirmed
	case now.Before(t.from):
		return term, t.from.Sub(now), t.moved, fmt.Errorf("the key's owners have changed; whoever ordered it before has stopped in %v at the latest", t.from.Sub(now).Round(time.Millisecond))
	}
	return store.Term{Fence: t.fence[p], Until: t.sure.Add(t.time / 2), Owners: w.owners[p]}, 0, nil, nil
}

// Settled implements [store.Lease].
func (t *terms) Settled() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.whole && !time.Now().Before(t.from)
}

// Spent implements [store.Lease]. The next confirmation gives a greater fence.
func (t *terms) Spent(partition int, fence uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.fence[partition] == fence {
		t.fence[partition] = 0
		select {
		case t.heard <- struct{}{}:
		default:
		}
	}
}
