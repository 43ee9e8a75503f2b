package link

import (
	"math/rand/v2"
	"time"

	"servent/system"
)

// Fault is trouble on the way from here to a node or a site. It works on what this node sends; a way
// that is broken in both directions has a fault at both ends. The zero Fault is none: setting it heals.
//
// A cut is silence, as of a cable that is pulled: nobody is told. Bytes of open connections are held, so
// their readers wait; dials wait for as long as their ctx lets them; datagrams are lost. When it heals,
// what was held goes on, in order, as TCP's next retransmission would have it, only without the up to two
// minutes that a real one may wait for it.
type Fault struct {
	Cut    bool          `json:"cut,omitempty"`
	Slow   time.Duration `json:"slow,omitempty"`   // more delay, one way
	Jitter time.Duration `json:"jitter,omitempty"` // the delay is Slow ± up to this, evenly, never below 0, drawn for each write; connections keep their order, datagrams do not
	Rate   int64         `json:"rate,omitempty"`   // bits a second, beside the path's own rate; 0: no bound
}

// Faults are the troubles on the ways to all other nodes. The way to a node that is not named is well.
type Faults map[system.NodeID]Fault

// And is both troubles at once: cut if one is, the delays added up, the lower rate.
func (f Fault) And(g Fault) Fault {
	f.Cut = f.Cut || g.Cut
	f.Slow += g.Slow
	f.Jitter += g.Jitter
	if f.Rate <= 0 || g.Rate > 0 && g.Rate < f.Rate {
		f.Rate = g.Rate
	}
	return f
}

// delay draws what one write is late.
func (f Fault) delay() time.Duration {
	if f.Jitter <= 0 {
		return f.Slow
	}
	return max(0, f.Slow-f.Jitter+rand.N(2*f.Jitter+1))
}

// Fault sets the trouble on the way to a node, on open connections and new ones. It replaces the one
// before; the site's trouble comes on top.
func (r *roads) Fault(to system.NodeID, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place(r.nodes, to, f) {
		r.tell(func(d destination) bool { return d.node == to })
	}
}

// FaultSite sets the trouble on the way to all nodes of a site.
func (r *roads) FaultSite(to system.Site, f Fault) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if place(r.sites, to, f) {
		r.tell(func(d destination) bool { return d.site == to })
	}
}

// SetFaults replaces the troubles on the ways to all nodes, at once. When it returns, all that is sent
// meets the new ones.
func (r *roads) SetFaults(fs Faults) {
	r.mu.Lock()
	defer r.mu.Unlock()
	changed := map[system.NodeID]bool{}
	for to := range r.nodes {
		if _, stays := fs[to]; !stays && place(r.nodes, to, Fault{}) {
			changed[to] = true
		}
	}
	for to, f := range fs {
		if place(r.nodes, to, f) {
			changed[to] = true
		}
	}
	r.tell(func(d destination) bool { return changed[d.node] })
}

// place puts a fault on a stretch, and says whether that is news.
func place[K comparable](m map[K]*stretch, k K, f Fault) bool {
	if m[k] == nil {
		m[k] = &stretch{}
	}
	if m[k].fault == f {
		return false
	}
	m[k].fault, m[k].line = f, time.Time{} // what waited for the old rate waits anew
	return true
}

// tell says to those who wait on some ways that a fault has changed; mu is held.
func (r *roads) tell(hit func(destination) bool) {
	now := time.Now()
	for to, w := range r.ways {
		if hit(to) {
			w.weigh()
			close(w.changed)
			w.changed = make(chan struct{})
			w.turn++
			w.turned = now
		}
	}
}

// again is when n bytes arrive that were on their way or waited when the fault changed: they are bound by
// the new one alone. The path's own rate has let them on already.
func (w *way) again(n int) time.Time {
	w.roads.mu.Lock()
	defer w.roads.mu.Unlock()
	node, site, path := w.stretches()
	at := pass(w.turned, &site.line, n, site.fault.Rate)
	at = pass(at, &node.line, n, node.fault.Rate)
	return at.Add(path.Delay + site.fault.delay() + node.fault.delay())
}

// retime gives what waits on the wire its new times after a fault has changed, never later ones: a rate
// that is healed holds nothing back any more.
func (w *wire) retime(way *way, turn int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.way != way || w.turn == turn {
		return
	}
	w.turn, w.last = turn, time.Time{}
	for i := range w.queue {
		p := &w.queue[i]
		if p.turn < turn {
			if own := way.again(len(p.bytes)); own.Before(p.own) {
				p.own = own
			}
			p.turn = turn
		}
		if p.own.After(w.last) {
			w.last = p.own
		}
		p.due = w.last
	}
}

// queueMost is how long a datagram may wait for a slow stretch before there is no room for it.
const queueMost = time.Second

// datagram says when a datagram of n bytes that leaves now arrives, and whether it is lost on the way: a
// cut loses all, a rate those that would wait longer than queueMost. For datagrams are no wires; who
// sends them asks here, each time, and waits. Those of a nil way, or one that is well, arrive at once.
func (w *way) datagram(now time.Time, n int) (due time.Time, lost bool) {
	if w == nil || !w.active.Load() {
		return now, false
	}
	w.roads.mu.Lock()
	node, site, path := w.stretches()
	full := now.Add(queueMost)
	lost = node.fault.Cut || site.fault.Cut ||
		path.Rate > 0 && site.free.After(full) ||
		site.fault.Rate > 0 && site.line.After(full) ||
		node.fault.Rate > 0 && node.line.After(full)
	w.roads.mu.Unlock()
	if lost {
		return time.Time{}, true
	}
	due, _ = w.reserve(now, n)
	return due, false
}
