package sim

import (
	"container/heap"
	"math"

	"servent/peer"
)

// Mortal machines forget all of a slot, as a process that ends does.
type Mortal interface {
	peer.Protocol
	Reset(peer.Slot)
}

// Down says whether a node is.
func (s *Sim) Down(slot peer.Slot) bool { return s.nodes[slot].down }

// Kill has a node hear and do nothing from now on; nobody is told.
func (s *Sim) Kill(slot peer.Slot) { s.nodes[slot].down = true }

// Restart begins a new life of a node: its machine, which must be [Mortal], has forgotten all, and timers and
// commands of the life before do not reach it. Messages on their way do.
func (s *Sim) Restart(slot peer.Slot) {
	s.o.Machine.(Mortal).Reset(slot)
	n := &s.nodes[slot]
	n.down, n.life = false, (n.life+1)%lives
}

// Cut parts the network from now on: nodes of different sides do not hear each other. Side has an entry for
// each slot and stays the Sim's; nil mends all.
func (s *Sim) Cut(side []uint8) { s.side = side }

// Churn has nodes die silently and come again, after times that are distributed exponentially.
type Churn struct {
	sim      *Sim
	up, down float64 // means, ns
	due      changes
	count    []uint32 // of each slot's draws
	seed     uint64
}

type change struct {
	at   int64
	slot peer.Slot
}

type changes []change

func (c changes) Len() int { return len(c) }
func (c changes) Less(i, j int) bool {
	return c[i].at < c[j].at || c[i].at == c[j].at && c[i].slot < c[j].slot
}
func (c changes) Swap(i, j int) { c[i], c[j] = c[j], c[i] }
func (c *changes) Push(x any)   { *c = append(*c, x.(change)) }
func (c *changes) Pop() any {
	last := len(*c) - 1
	x := (*c)[last]
	*c = (*c)[:last]
	return x
}

// NewChurn begins now: every node is up or down for an exponential time with these means, in nanoseconds.
// Since such a time has no memory, those that are up have been for a while.
func NewChurn(s *Sim, up, down int64) *Churn {
	c := &Churn{sim: s, up: float64(up), down: float64(down), count: make([]uint32, len(s.nodes)), seed: mix(s.seed + 1)}
	for slot := range s.nodes {
		c.due = append(c.due, c.later(s.Now(), peer.Slot(slot)))
	}
	heap.Init(&c.due)
	return c
}

func (c *Churn) later(now int64, slot peer.Slot) change {
	mean := c.up
	if c.sim.Down(slot) {
		mean = c.down
	}
	c.count[slot]++
	draw := share(mix(mix(c.seed+uint64(slot)*golden) + uint64(c.count[slot])*golden))
	return change{now + 1 + int64(min(-math.Log(1-draw)*mean, 1e18)), slot}
}

// Step makes the changes that are due by now, and tells of each: who comes again must be told to join. How
// often it is called says how finely time is cut.
func (c *Churn) Step(told func(slot peer.Slot, up bool)) {
	for now := c.sim.Now(); len(c.due) > 0 && c.due[0].at <= now; {
		next := c.due[0]
		if c.sim.Down(next.slot) {
			c.sim.Restart(next.slot)
		} else {
			c.sim.Kill(next.slot)
		}
		told(next.slot, !c.sim.Down(next.slot))
		c.due[0] = c.later(next.at, next.slot)
		heap.Fix(&c.due, 0)
	}
}
