package conductor

import (
	"context"
	"slices"
	"sync"
	"time"

	"servent/control"
	"servent/placement"
	"servent/system"
)

// leader is a conductor in its seat. All of it belongs to the goroutine of [leader.run].
type leader struct {
	Options
	fence   control.Fence
	since   time.Time       // that it leads
	started *sync.WaitGroup // of what must have ended before the next term

	view    *control.View          // the newest
	wrote   int64                  // generation of the last plan that it wrote; older views are not acted on
	met     map[system.NodeID]bool // nodes seen in this term: they have no grace
	told    *control.View          // up to which what happened is in pending, or written
	pending []system.Event         // told, not yet written; at most keep
	last    time.Time              // of the newest event: no two have the same

	watched map[system.NodeID]watch
	deaths  chan death
}

// watch is a watcher of one life of a node.
type watch struct {
	life time.Time // when the node's process started
	stop context.CancelFunc
}

type death struct {
	node system.NodeID
	life time.Time
}

// run acts on views until ctx ends or another leads.
func (l *leader) run(ctx context.Context, views <-chan *control.View) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case d := <-l.deaths:
			l.bury(ctx, d)
			continue
		case l.view = <-views:
			l.gather(ctx, views)
		case <-tick.C:
		}
		if err := l.step(ctx); err != nil {
			return err
		}
	}
}

// gather lets a burst of changes come in together.
func (l *leader) gather(ctx context.Context, views <-chan *control.View) {
	select {
	case <-ctx.Done():
	case <-time.After(batch):
	}
	select {
	case l.view = <-views:
	default:
	}
}

// step folds the newest view into a plan and writes it if it is another. It fails only when another leads;
// what cannot be written now is tried again at the next tick.
func (l *leader) step(ctx context.Context) error {
	v := l.view
	if v == nil || l.wrote > 0 && (v.Plan == nil || v.Plan.Generation < l.wrote) {
		return nil // what it wrote itself is still on its way back
	}
	now := time.Now()
	l.watch(ctx, v)
	l.tell(news(l.told, v), now)
	l.told = v
	d := placement.Next(placement.Input{
		System: v.Wanted, Plan: v.Plan, Nodes: v.Seen, Away: l.away(v, now),
		Holders: v.Holders, Fence: int64(l.fence.Rev), Now: now,
	})
	if d.Plan == nil || !d.Changed && len(l.pending) == 0 {
		return nil // before the first plan, what happens is kept to be told with it
	}
	l.tell(d.Events, now)
	write, cancel := context.WithTimeout(ctx, l.Lease)
	defer cancel()
	ok, err := l.Cluster.WritePlan(write, l.fence, v, d.Plan, d.Holders, l.pending)
	switch {
	case err != nil:
		l.Log.Warn("plan not written; trying again", "node", l.Self, "err", err)
		l.pending = l.pending[:len(l.pending)-min(len(d.Events), len(l.pending))] // the next decision tells them again
		return nil
	case !ok:
		return errDeposed
	}
	if d.Changed {
		l.Log.Info("plan written", "node", l.Self, "rev", d.Plan.Generation)
	}
	l.wrote = d.Plan.Generation
	told := len(l.pending)
	l.pending = nil
	if len(v.Events)+told > keep+keepSlack {
		if err := l.Cluster.TrimEvents(write, l.fence, keep); err != nil {
			l.Log.Warn("old events not deleted", "node", l.Self, "err", err)
		}
	}
	return nil
}

// away are the nodes of the plan that this leader has not seen yet and still waits for.
func (l *leader) away(v *control.View, now time.Time) []system.NodeID {
	for _, n := range v.Seen {
		l.met[n.Node] = true
	}
	if v.Plan == nil || now.Sub(l.since) >= l.Grace {
		return nil
	}
	var out []system.NodeID
	for _, d := range v.Plan.Services {
		for _, a := range d.Assignments {
			if !l.met[a.Node] && !slices.Contains(out, a.Node) {
				out = append(out, a.Node)
			}
		}
	}
	return out
}

// watch keeps one watcher for the present life of each node that is seen.
func (l *leader) watch(ctx context.Context, v *control.View) {
	if l.Dead == nil {
		return
	}
	for node, w := range l.watched {
		if n := v.Node(node); n == nil || !n.Started.Equal(w.life) {
			w.stop()
			delete(l.watched, node)
		}
	}
	for _, n := range v.Seen {
		if _, ok := l.watched[n.Node]; ok || n.Node == l.Self {
			continue
		}
		own, stop := context.WithCancel(ctx)
		l.watched[n.Node] = watch{n.Started, stop}
		l.started.Go(func() {
			defer stop()
			l.await(own, death{n.Node, n.Started})
		})
	}
}

// await reports a node's death, and does so again should the report have had no effect.
func (l *leader) await(ctx context.Context, d death) {
	for {
		if err := l.Dead(ctx, d.node); err == nil && ctx.Err() == nil {
			select {
			case <-ctx.Done():
			case l.deaths <- d:
			}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(retry):
		}
	}
}

// bury deletes a dead node's report before its lease ends, unless the node lives again by now.
func (l *leader) bury(ctx context.Context, d death) {
	ctx, cancel := context.WithTimeout(ctx, l.Lease)
	defer cancel()
	v, err := l.Cluster.Read(ctx)
	if err == nil {
		if n := v.Node(d.node); n == nil || !n.Started.Equal(d.life) {
			return
		}
		err = l.Cluster.Bury(ctx, l.fence, d.node)
	}
	if err != nil {
		l.Log.Warn("dead node's report not deleted", "node", d.node, "err", err)
		return
	}
	l.Log.Info("node is dead", "node", d.node)
}

// tell takes events in, to be written with the next plan. Each gets a time of its own, since events are
// kept in the order of their times. Of more than can be kept the oldest are forgotten.
func (l *leader) tell(events []system.Event, now time.Time) {
	if old := l.view.Events; l.last.IsZero() && len(old) > 0 {
		l.last = old[len(old)-1].Time
	}
	for _, e := range events {
		e.Time = now
		if !e.Time.After(l.last) {
			e.Time = l.last.Add(1)
		}
		l.last = e.Time
		l.pending = append(l.pending, e)
	}
	l.pending = l.pending[max(0, len(l.pending)-keep):]
}
