// Package overlay is the table of overlays: what a driver and a study must know of each beside its machine.
// It holds no protocol; those are the packages below it. Start at [Protocols].
package overlay

import (
	"fmt"
	"math"

	"servent/overlay/chord"
	"servent/overlay/ring"
	"servent/peer"
)

// Machine is a protocol that owns a range of keys on each node, and whose nodes may die and begin anew.
type Machine interface {
	peer.Protocol
	Reset(peer.Slot)                         // the slot forgets all
	Settle(peer.Directory)                   // all slots know what they would if all had been members for long; peer.Join then makes them so
	See(peer.Directory, peer.Slot) peer.View // a slot's place
}

// Protocol is a row of the table.
type Protocol struct {
	Name     string
	Means    string               // in a few words
	New      func(Plan) Machine   // of Plan.Nodes slots
	OfLookup func(peer.Kind) bool // the message is a lookup's, on its way or back; the others are upkeep
	Upkeep   float64              // events a node and second without lookups and with Plan.Period 0, about
	Usual    float64              // the machine's own Plan.Period, seconds
	Join     func(n int) float64  // events for n nodes to join one after the other, about
	Longest  func(p Plan) int64   // what a lookup takes at most if nothing is lost, about, ns
	Law      func(n int) Law      // theory, nothing lost and nobody dead
	About    func(n int) float64  // messages a lookup, where Law has none
	Owner    Owner                // whose a key is
	Most     int                  // nodes among which lookups still work; 0: any number
	Limit    string               // why no more
}

// Owner is the rule that says whose a key is.
type Owner uint8

const (
	Successor Owner = iota // the first node at or above it: what lies between the node before and itself
	XOR                    // the node nearest by XOR
	Closest                // the node numerically nearest, on either side
)

// Plan is what a machine is made for.
type Plan struct {
	Nodes  int
	Delay  int64   // of a link, mean, ns
	Rate   float64 // lookups a second, of all nodes together
	Period int64   // between a node's looks at its neighbours, ns; 0: the machine's own
}

// Law is what theory says of lookups from random nodes for random keys.
type Law struct {
	Mean, SD, P99 float64 // hops: messages until the owner is reached
	Messages      float64 // until the asker knows; 0: no law is known
	Source        string
}

// Protocols returns the table.
func Protocols() []Protocol {
	return []Protocol{{
		Name: "ring", Means: "each node knows its neighbours; a lookup goes from one to the next",
		New: func(p Plan) Machine {
			// Askers wait as long as the way round takes.
			return ring.New(p.Nodes, ring.Options{Wait: ringLongest(p), Questions: questions(p, ringLongest(p)), Hops: math.MaxUint16, Period: p.Period})
		},
		OfLookup: ring.OfLookup, Upkeep: 8.5, Usual: 0.5, Longest: ringLongest,
		Join: func(n int) float64 { return float64(n) * float64(n) / 3 }, // each walks back from the nearest of eight members
		Law: func(n int) Law {
			// The owner lies 0, 1, … N−1 members ahead, each with the chance 1/N.
			x := float64(n)
			return Law{Mean: (x - 1) / 2, SD: math.Sqrt((x*x - 1) / 12), P99: math.Ceil(0.99*x) - 1, Messages: (x-1)/2 + (x-1)/x,
				Source: "uniform over 0 … N−1"}
		},
		Most: math.MaxUint16, Limit: "a datagram counts its hops to 65535, and a lookup on a ring needs up to N−1",
	}, {
		Name: "chord", Means: "a ring whose nodes know some far away, too: a lookup halves what is left of the way",
		New: func(p Plan) Machine {
			return chord.New(p.Nodes, chord.Options{Fix: 2 * p.Period,
				Ring: ring.Options{Successors: chordSuccessors, Wait: chordLongest(p), Questions: questions(p, chordLongest(p)), Period: p.Period}})
		},
		OfLookup: ring.OfLookup, Upkeep: 12.5, Usual: 0.5, Longest: chordLongest,
		Join: func(n int) float64 { return float64(n) * (1000 + float64(n)/3) },
		Law:  chordLaw,
	}, kademliaRow(), pastryRow()}
}

// questions is how many open ones a node has, when each may take so long, at most.
func questions(p Plan, longest int64) int {
	n := 4
	for float64(n) < 4+8*p.Rate/float64(p.Nodes)*float64(longest)/1e9 && n < 4096 {
		n *= 2
	}
	return n
}

// chordSuccessors are known by each node of a simulated Chord: the paper has 20 (ToN §V.D), a ring at most 16.
const chordSuccessors = 16

// chordLongest is a hop for each bit of the way.
func chordLongest(p Plan) int64 {
	return int64((math.Log2(float64(p.Nodes)+1) + 4) * float64(p.Delay))
}

// chordLaw is that of Stoica et al., ToN 11(1), 2003, §V.C, with r successors known. At equal distances the owner lies
// d = 0 … N−1 members ahead. A finger clears the highest bit of the way, so a lookup takes one hop for each of the
// log2(N/r) high bits of d−1 that is set, each with the chance ½, and then one to the owner, which is among the
// successors; none if d = 0, which takes (1 + log2(N/r))/N off the mean (summed up to N, not N−1, for powers of two).
func chordLaw(n int) Law {
	x, r := float64(n), float64(chordSuccessors)
	if n <= chordSuccessors+1 { // all are known
		p := (x - 1) / x
		return Law{Mean: p, SD: math.Sqrt(p * (1 - p)), P99: math.Min(1, x-1), Messages: 2 * p, Source: "every node knows all: one hop, none to itself"}
	}
	bits := math.Log2(x / r)
	mean, sd := 1+bits/2-(1+bits)/x, math.Sqrt(bits)/2
	return Law{Mean: mean, SD: sd, P99: math.Round(mean + 2.326*sd), Messages: mean + (x-1)/x,
		Source: fmt.Sprintf("½·log2 N − ½·log2 r + 1 with r = %d successors, sd ½·√(log2 N − log2 r): Stoica et al., ToN 11(1), 2003, §V.C", chordSuccessors)}
}

// ringLongest is N links, and some more in case many are slow.
func ringLongest(p Plan) int64 {
	n := float64(p.Nodes + 2)
	return int64((n + 3*math.Sqrt(n)) * float64(p.Delay))
}
