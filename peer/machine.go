package peer

import (
	"bytes"
	"math/bits"
	"slices"
)

// What the machines of overlays share.

// RoundTrip is a smoothed round trip and its deviation, in nanoseconds (RFC 6298 §2). The zero value has seen none.
type RoundTrip struct{ mean, dev int64 }

// Add takes in one that was measured.
func (r *RoundTrip) Add(ns int64) {
	if !r.Seen() {
		r.mean, r.dev = ns, ns/2
		return
	}
	off := r.mean - ns
	if off < 0 {
		off = -off
	}
	r.dev += (off - r.dev) / 4
	r.mean += (ns - r.mean) / 8
}

// Seen says that one was measured.
func (r *RoundTrip) Seen() bool { return r.mean != 0 }

// Wait is how long an answer may take: few take longer than the mean and four deviations.
func (r *RoundTrip) Wait(least int64) int64 { return max(least, r.mean+4*r.dev) }

// Grave is a peer that is taken for dead until a time.
type Grave struct {
	Who   Peer
	Until int64
}

// Graves are one slot's; they hold a peer each, and the oldest is overwritten.
type Graves []Grave

// Empty forgets all.
func (g Graves) Empty() {
	for i := range g {
		g[i] = Grave{Who: Nobody}
	}
}

// Dead says that a peer is in one now.
func (g Graves) Dead(p Peer, now int64) bool {
	return slices.ContainsFunc(g, func(x Grave) bool { return x.Who == p && now < x.Until })
}

// Bury is the n-th burial of the slot.
func (g Graves) Bury(n int, p Peer, until int64) { g[n%len(g)] = Grave{p, until} }

// Rise takes a peer out that gave a sign of life.
func (g Graves) Rise(p Peer) {
	for i := range g {
		if g[i].Who == p {
			g[i].Who = Nobody
		}
	}
}

// Default sets an option that says nothing.
func Default[T int | int64](v *T, d T) {
	if *v <= 0 {
		*v = d
	}
}

// Within sets an option that says nothing, and bounds it.
func Within(v *int, d, most int) {
	Default(v, d)
	*v = min(*v, most)
}

// Sorted lists n slots by their places.
func Sorted(dir Directory, n int) []Slot {
	slots := make([]Slot, n)
	for s := range slots {
		slots[s] = Slot(s)
	}
	slices.SortFunc(slots, func(a, b Slot) int {
		x, y := dir.ID(dir.Self(a)), dir.ID(dir.Self(b))
		return bytes.Compare(x[:], y[:])
	})
	return slots
}

// Sample keeps as many of the members as there is room for in into, drawn evenly (reservoir sampling), without this node, and
// returns how many it kept.
func (e *Env) Sample(into, members []Peer) (kept int) {
	me, seen := e.Self(), uint64(0)
	id := e.ID(me)
	for _, p := range members {
		if p == me || e.ID(p) == id {
			continue
		}
		if seen++; kept < len(into) {
			into[kept] = p
			kept++
		} else if i := e.Rand() % seen; i < uint64(len(into)) {
			into[i] = p
		}
	}
	return kept
}

// Ticket is a tag drawn for the i-th of n, a power of two: the rest of its division by n is i, and it is never i alone.
func (e *Env) Ticket(i, n int) Tag {
	low := bits.Len(uint(n - 1))
	for {
		if tag := Tag(e.Rand())<<low | Tag(i); tag>>low != 0 {
			return tag
		}
	}
}

// Mix is a step of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): of numbers that are alike it makes numbers that are not.
func Mix(x uint64) uint64 { return mix(x + golden) }
