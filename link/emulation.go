package link

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/system"
)

// Path is the emulated way from one site to another.
type Path struct {
	Delay time.Duration // one way
	Rate  int64         // bits a second, shared by all that one node sends that way; 0: no bound
}

// Emulation is how far other sites are, as one node feels it. The zero value emulates nothing.
type Emulation struct {
	To   map[system.Site]Path // what this node sends
	From map[system.Site]Path // what it gets; used for the time that a connection takes to set up
}

// Emulate reads the links of a node's group. A link given on one side only counts both ways; links of
// another group on the same site stand in where the node's own group says nothing.
func Emulate(group string, all []system.NodeGroup) Emulation {
	i := slices.IndexFunc(all, func(g system.NodeGroup) bool { return g.Name == group })
	if i < 0 {
		return Emulation{}
	}
	here := all[i].Site
	order := append([]system.NodeGroup{all[i]}, all...)
	said := func(from, to system.Site) (Path, bool) {
		for _, g := range order {
			for _, l := range g.Links {
				if g.Site == from && l.To == to {
					return Path{l.Latency, l.Rate}, true
				}
			}
		}
		return Path{}, false
	}
	em := Emulation{To: map[system.Site]Path{}, From: map[system.Site]Path{}}
	for _, g := range all {
		there := g.Site
		out, okOut := said(here, there)
		in, okIn := said(there, here)
		switch {
		case okOut && !okIn:
			in = out
		case okIn && !okOut:
			out = in
		case !okIn:
			continue
		}
		em.To[there], em.From[there] = out, in
	}
	return em
}

// roads are the ways from one node to all others.
type roads struct {
	em Emulation

	mu    sync.Mutex
	ways  map[destination]*way
	nodes map[system.NodeID]*stretch
	sites map[system.Site]*stretch
}

type destination struct {
	node system.NodeID
	site system.Site
}

// stretch is a part of a way that several connections share.
type stretch struct {
	fault Fault
	free  time.Time // when its rate next lets a byte on
	line  time.Time // the same, for the rate of a fault
}

// way leads to one node. A nil way is free: nothing is emulated on it, ever.
type way struct {
	roads   *roads
	to      destination
	active  atomic.Bool   // something delays, bounds or cuts
	changed chan struct{} // closed and replaced when a fault changes; guarded by roads.mu, as what follows
	turn    int64         // counts the changes
	turned  time.Time     // the last one
}

func newRoads(em Emulation) *roads {
	return &roads{em: em, ways: map[destination]*way{}, nodes: map[system.NodeID]*stretch{}, sites: map[system.Site]*stretch{}}
}

// way returns the one way to a node. All its connections share it.
func (r *roads) way(node system.NodeID, site system.Site) *way {
	r.mu.Lock()
	defer r.mu.Unlock()
	to := destination{node, site}
	w := r.ways[to]
	if w == nil {
		w = &way{roads: r, to: to, changed: make(chan struct{})}
		r.ways[to] = w
		w.weigh()
	}
	return w
}

// weigh says again whether anything is emulated here; roads.mu is held.
func (w *way) weigh() {
	node, site, path := w.stretches()
	w.active.Store(path != Path{} || node.fault != Fault{} || site.fault != Fault{})
}

// stretches returns what the way is made of; roads.mu is held.
func (w *way) stretches() (node, site *stretch, path Path) {
	node, site = w.roads.nodes[w.to.node], w.roads.sites[w.to.site]
	if node == nil {
		node = &stretch{}
		w.roads.nodes[w.to.node] = node
	}
	if site == nil {
		site = &stretch{}
		w.roads.sites[w.to.site] = site
	}
	return node, site, w.roads.em.To[w.to.site]
}

// reserve takes a place on the way for n bytes and returns when the last of them arrives,
// max(now, free) + size/rate + delay, as the faults stand after so many changes.
func (w *way) reserve(now time.Time, n int) (due time.Time, turn int64) {
	w.roads.mu.Lock()
	defer w.roads.mu.Unlock()
	node, site, path := w.stretches()
	at := pass(now, &site.free, n, path.Rate)
	at = pass(at, &site.line, n, site.fault.Rate)
	at = pass(at, &node.line, n, node.fault.Rate)
	return at.Add(path.Delay + site.fault.delay() + node.fault.delay()), w.turn
}

// pass is one bottleneck.
func pass(now time.Time, free *time.Time, n int, rate int64) time.Time {
	if rate <= 0 {
		return now
	}
	if now.After(*free) {
		*free = now
	}
	*free = free.Add(time.Duration(float64(n) * 8 / float64(rate) * float64(time.Second)))
	return *free
}

// cut says whether the way is silent, how often its faults have changed, and hands out a channel that is
// closed at the next change.
func (w *way) cut() (silent bool, turn int64, changed <-chan struct{}) {
	w.roads.mu.Lock()
	defer w.roads.mu.Unlock()
	node, site, _ := w.stretches()
	return node.fault.Cut || site.fault.Cut, w.turn, w.changed
}

// setUp waits as long as a TCP handshake would: until the way is not cut, then one time there and back.
func (w *way) setUp(ctx context.Context) error {
	if w == nil || !w.active.Load() && w.roads.em.From[w.to.site].Delay == 0 {
		return nil
	}
	var due time.Time
	for {
		cut, _, changed := w.cut()
		var come <-chan time.Time
		if cut {
			due = time.Time{} // the handshake begins anew
		} else {
			there, _ := w.reserve(time.Now(), 0)
			if back := there.Add(w.roads.em.From[w.to.site].Delay); due.IsZero() || back.Before(due) {
				due = back
			}
			come = time.After(time.Until(due))
		}
		select {
		case <-come:
			return nil
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// room is how many bytes a connection may have on the way before its writer waits: twice the
// bandwidth-delay product, within 256 KiB and 4 MiB.
func (w *way) room() int {
	w.roads.mu.Lock()
	defer w.roads.mu.Unlock()
	node, site, path := w.stretches()
	rate := int64(0)
	for _, r := range []int64{path.Rate, site.fault.Rate, node.fault.Rate} {
		if r > 0 && (rate == 0 || r < rate) {
			rate = r
		}
	}
	if rate == 0 {
		return maxRoom
	}
	delay := path.Delay + site.fault.Slow + site.fault.Jitter + node.fault.Slow + node.fault.Jitter
	return int(min(max(2*float64(rate)/8*delay.Seconds(), minRoom), maxRoom))
}

const (
	minRoom = 256 << 10
	maxRoom = 4 << 20
)
