package chord

import (
	"servent/peer"
	"servent/peer/keyspace"
)

// Settle gives every slot the neighbours and fingers that it would have if all had been one ring for long; see
// [servent/overlay/ring.Ring.Settle].
func (c *Chord) Settle(dir peer.Directory) {
	c.Ring.Settle(dir)
	n := len(c.nodes)
	order := make([]peer.Peer, n)
	slots := peer.Sorted(dir, n)
	for i, s := range slots {
		order[i] = dir.Self(s)
		c.nodes[s] = node{settled: true}
		clearAll(c.Far(s))
	}
	for f := range c.o.Fingers {
		// Owners of places come in the order of those who have the fingers, so one walk round finds all.
		ahead, some := 1, false
		for i, s := range slots {
			next := c.Successors(s)
			if len(next) == 0 {
				return // it is alone
			}
			id := dir.ID(order[i])
			at := place(id, f)
			if keyspace.Between(at, id, dir.ID(next[len(next)-1])) {
				continue // it is among the successors
			}
			some = true
			for ahead = max(ahead-1, 1); ahead < n && !keyspace.Between(at, id, dir.ID(order[(i+ahead)%n])); ahead++ {
			}
			if ahead < n {
				c.Far(s)[f] = order[(i+ahead)%n]
			}
		}
		if !some {
			return // nor do nearer ones lie farther
		}
	}
}

// Reset makes a slot forget all, as a process that ends does.
func (c *Chord) Reset(self peer.Slot) {
	c.Ring.Reset(self)
	clearAll(c.Far(self))
	c.nodes[self] = node{}
}
