// Package overlay is the table of overlays: what a driver and a study must know of each beside its machine.
// It holds no protocol; those are the packages below it. Start at [Protocols].
package overlay

import (
	"math"

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
	Upkeep   float64              // events a node and second without lookups, about
	Join     func(n int) float64  // events for n nodes to join one after the other, about
	Longest  func(p Plan) int64   // what a lookup takes at most if nothing is lost, about, ns
	Law      func(n int) Law      // theory, nothing lost and nobody dead
	Most     int                  // nodes among which lookups still work; 0: any number
	Limit    string               // why no more
}

// Plan is what a machine is made for.
type Plan struct {
	Nodes int
	Delay int64   // of a link, mean, ns
	Rate  float64 // lookups a second, of all nodes together
}

// Law is what theory says of lookups from random nodes for random keys.
type Law struct {
	Mean, SD, P99 float64 // hops: messages until the owner is reached
	Messages      float64 // until the asker knows
	Source        string
}

// Protocols returns the table.
func Protocols() []Protocol {
	return []Protocol{{
		Name: "ring", Means: "each node knows its neighbours; a lookup goes from one to the next",
		New: func(p Plan) Machine {
			// Askers wait as long as the way round takes, and a node has as many open questions as that makes.
			questions := 4
			for float64(questions) < 4+8*p.Rate/float64(p.Nodes)*float64(ringLongest(p))/1e9 && questions < 4096 {
				questions *= 2
			}
			return ring.New(p.Nodes, ring.Options{Wait: ringLongest(p), Questions: questions, Hops: math.MaxUint16})
		},
		OfLookup: ring.OfLookup, Upkeep: 8.5, Longest: ringLongest,
		Join: func(n int) float64 { return float64(n) * float64(n) / 3 }, // each walks back from the nearest of eight members
		Law: func(n int) Law {
			// The owner lies 0, 1, … N−1 members ahead, each with the chance 1/N.
			x := float64(n)
			return Law{Mean: (x - 1) / 2, SD: math.Sqrt((x*x - 1) / 12), P99: math.Ceil(0.99*x) - 1, Messages: (x-1)/2 + (x-1)/x,
				Source: "uniform over 0 … N−1"}
		},
		Most: math.MaxUint16, Limit: "a datagram counts its hops to 65535, and a lookup on a ring needs up to N−1",
	}}
}

// ringLongest is N links, and some more in case many are slow.
func ringLongest(p Plan) int64 {
	n := float64(p.Nodes + 2)
	return int64((n + 3*math.Sqrt(n)) * float64(p.Delay))
}
