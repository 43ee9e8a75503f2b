// Package chord is Chord as a state machine (Stoica et al., IEEE/ACM ToN 11(1), 2003): the ring of package ring,
// with its successor lists, its stabilisation and its way to ask, and fingers, which halve what is left of the way
// with every hop. It never reads a clock, sends or starts anything. Start at [Chord.Handle]; fingers are kept by
// [Chord.Located].
//
// Finger i of a node is the owner of the place 2^-i of the circle ahead of it, i = 1, 2, … for as long as that
// place lies beyond the node's successors: nearer ones are in their list. One after the other is looked at in the
// background (§IV.E, fix_fingers). Differs from it: a finger that is known is asked whether it still owns the place,
// which takes one datagram and an answer however many members there are; a lookup is made when it does not answer.
package chord

import (
	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
)

// Options of a [New] Chord.
type Options struct {
	Ring    ring.Options // of the neighbours; its Above is set here
	Fingers int          // most of each member, up to 64: enough for 2^Fingers members; 0 means 32
	Fix     int64        // nanoseconds between two looks at fingers; an eighth of it while they change; 0 means 1 s
}

const second = 1_000_000_000

// fix is the timer of the next look at a finger.
const fix = ring.Timers

// Chord is the machine.
type Chord struct {
	*ring.Ring
	o       Options
	nodes   []node
	fingers []peer.Peer // Fingers of each slot, the farthest first
}

// node is one slot's upkeep. It holds no pointer.
type node struct {
	timer   peer.Tag
	asked   peer.Tag // of the open question; 0: none
	count   peer.Tag // of questions
	turn    uint8    // the finger that is looked at
	changed bool     // a finger did, since the first one was looked at
	settled bool     // none did in the round before
}

// New makes the machine of n slots, all of them outside the ring.
func New(n int, o Options) *Chord {
	if o.Fingers <= 0 {
		o.Fingers = 32
	}
	if o.Fix <= 0 {
		o.Fix = second
	}
	o.Fingers = min(o.Fingers, 64)
	c := &Chord{o: o, nodes: make([]node, n), fingers: make([]peer.Peer, n*o.Fingers)}
	for i := range c.fingers {
		c.fingers[i] = peer.Nobody
	}
	o.Ring.Above = c
	c.Ring = ring.New(n, o.Ring)
	return c
}

// Handle implements [peer.Protocol].
func (c *Chord) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	n := &c.nodes[self]
	if ev.Kind == fix {
		if ev.Tag == n.timer && c.Member(self) {
			c.look(env, self, ev.At)
		}
		return
	}
	was := c.Member(self)
	c.Ring.Handle(env, self, ev)
	switch is := c.Member(self); {
	case is && !was:
		*n = node{count: n.count}
		c.arm(env, self)
	case was && !is:
		clearAll(c.Far(self))
		n.timer, n.asked = 0, 0
	}
}

// Drop implements [peer.Protocol].
func (c *Chord) Drop(p peer.Peer) {
	for i, q := range c.fingers {
		if q == p {
			c.fingers[i] = peer.Nobody
		}
	}
	c.Ring.Drop(p)
}

// Far implements [ring.Above].
func (c *Chord) Far(self peer.Slot) []peer.Peer {
	return c.fingers[int(self)*c.o.Fingers:][:c.o.Fingers]
}

func clearAll(peers []peer.Peer) {
	for i := range peers {
		peers[i] = peer.Nobody
	}
}

// arm sets the next look.
func (c *Chord) arm(env *peer.Env, self peer.Slot) {
	n, wait := &c.nodes[self], c.o.Fix
	if !n.settled {
		wait /= 8
	}
	n.timer = peer.Tag(env.Rand()) | 1
	env.After(wait-int64(env.Rand()%uint64(wait/8+1)), peer.Event{Kind: fix, Tag: n.timer}) // so that members do not fall into step
}

// look asks who owns the place of the finger whose turn it is. After the last one the round is over.
func (c *Chord) look(env *peer.Env, self peer.Slot, now int64) {
	n, fingers, next, id := &c.nodes[self], c.Far(self), c.Successors(self), env.ID(env.Self())
	if len(next) == 0 {
		c.arm(env, self) // the ring has to mend first, and asks the fingers, too
		return
	}
	if int(n.turn) >= len(fingers) || keyspace.Between(place(id, int(n.turn)), id, env.ID(next[len(next)-1])) {
		clearAll(fingers[n.turn:]) // those are among the successors
		n.turn, n.settled, n.changed = 0, !n.changed, false
		c.arm(env, self)
		return
	}
	c.locate(env, self, now, fingers[n.turn])
}

// locate asks a finger, or whoever knows; the answer comes to Located.
func (c *Chord) locate(env *peer.Env, self peer.Slot, now int64, finger peer.Peer) {
	n := &c.nodes[self]
	n.count = max(n.count+1, 1)
	n.asked = n.count
	ev := peer.Event{At: now, From: peer.Nobody, Kind: peer.Locate, Flags: ring.Upkeep, Tag: n.asked, Key: place(env.ID(env.Self()), int(n.turn))}
	if finger != peer.Nobody {
		ev.Peers = []peer.Peer{finger}
	}
	c.Ring.Handle(env, self, &ev)
}

// Located implements [ring.Above]: it is the answer to a look.
func (c *Chord) Located(env *peer.Env, self peer.Slot, ev *peer.Event) {
	n := &c.nodes[self]
	if ev.Tag != n.asked || !c.Member(self) {
		return // asked in an earlier life
	}
	n.asked = 0
	at := &c.Far(self)[n.turn]
	is := peer.Nobody
	switch ev.Flags {
	case peer.Found, peer.Vacant:
		// Where no member lies between the place and this node, all keys beyond the place are its own: no finger.
		if id := env.ID(ev.From); id == ev.Key || keyspace.Inside(id, ev.Key, env.ID(env.Self())) {
			is = ev.From
		}
	case peer.Lost:
		if lost := *at; lost != peer.Nobody { // it is dead, or has nothing to say about its own keys
			n.changed, n.settled = true, false
			for i, p := range c.Far(self) {
				if p == lost {
					c.Far(self)[i] = peer.Nobody
				}
			}
			c.locate(env, self, ev.At, peer.Nobody)
			return
		}
		n.changed = true
	case peer.Crowded:
		is = *at
	}
	if *at != is {
		*at, n.changed, n.settled = is, true, false
	}
	n.turn++
	c.arm(env, self)
}

// place is where finger i of a node begins, i = 0 half the circle ahead.
func place(id peer.ID, i int) peer.ID {
	carry := uint16(1) << (7 - i%8)
	for b := i / 8; b >= 0; b-- {
		carry += uint16(id[b])
		id[b] = byte(carry)
		carry >>= 8
	}
	return id
}
