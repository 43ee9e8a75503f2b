package pastry

import (
	"slices"

	"servent/peer"
	"servent/peer/keyspace"
)

func (p *Pastry) entries(s peer.Slot) []peer.Peer {
	return p.table[int(s)*p.o.Rows*digits:][:p.o.Rows*digits]
}

func (p *Pastry) ups(s peer.Slot) []peer.Peer {
	return p.leafs[int(s)*p.o.Leaves:][:p.nodes[s].ups]
}

func (p *Pastry) downs(s peer.Slot) []peer.Peer {
	return p.leafs[int(s)*p.o.Leaves+p.o.Leaves/2:][:p.nodes[s].downs]
}

// Table are the members in a slot's table.
func (p *Pastry) Table(s peer.Slot) []peer.Peer {
	return slices.DeleteFunc(slices.Clone(p.entries(s)), func(q peer.Peer) bool { return q == peer.Nobody })
}

func (p *Pastry) buried(s peer.Slot) peer.Graves { return p.dead[int(s)*graves:][:graves] }

// digit i of an identifier, the highest first.
func digit(id peer.ID, i int) int {
	if i%2 == 0 {
		return int(id[i/2] >> 4)
	}
	return int(id[i/2] & 15)
}

// shared is how many leading digits two identifiers have in common.
func shared(a, b peer.ID) int {
	for i := range a {
		if x := a[i] ^ b[i]; x > 15 {
			return 2 * i
		} else if x != 0 {
			return 2*i + 1
		}
	}
	return 2 * len(a)
}

// far is the way between two places, whichever way round is shorter.
func far(a, b peer.ID) peer.ID {
	up, down := keyspace.Distance(a, b), keyspace.Distance(b, a)
	if string(up[:]) < string(down[:]) {
		return up
	}
	return down
}

func nearer(key, a, b peer.ID) bool {
	x, y := far(key, a), far(key, b)
	return string(x[:]) < string(y[:])
}

// know remembers members known from outside, until they do not answer.
func (a act) know(members []peer.Peer) {
	a.n.knows = uint8(a.env.Sample(a.p.known[int(a.self)*a.p.o.Contacts:][:a.p.o.Contacts], members))
	if !a.p.o.Listed {
		return
	}
	// This node may stand elsewhere than before: whom it knew gets a new place, too.
	before := slices.Concat(a.p.Table(a.self), a.p.ups(a.self), a.p.downs(a.self)) // the table's first, so that it stays as it was
	a.n.ups, a.n.downs = 0, 0
	for i := range a.p.entries(a.self) {
		a.p.entries(a.self)[i] = peer.Nobody
	}
	for _, list := range [][]peer.Peer{before, a.env.Shuffled(members)} { // any of those that fit in a place of the table
		a.recallOf(list)
	}
}

// recall takes those known from outside for members again, but for who was silent lately.
func (a act) recall() { a.recallOf(a.p.known[int(a.self)*a.p.o.Contacts:][:a.n.knows]) }

func (a act) recallOf(list []peer.Peer) {
	for _, q := range list {
		if !a.p.buried(a.self).Dead(q, a.now) {
			a.learn(q)
		}
	}
}

// learn puts a member where it belongs: into the leaf set, if it is among the nearest, and into its place of the table, if
// that is empty.
func (a act) learn(q peer.Peer) {
	id := a.env.ID(q)
	if q == a.me || id == a.id {
		return
	}
	if row := shared(id, a.id); row < a.p.o.Rows {
		if at := &a.p.entries(a.self)[row*digits+digit(id, row)]; *at == peer.Nobody {
			*at = q
		}
	}
	half, base := a.p.o.Leaves/2, int(a.self)*a.p.o.Leaves
	a.n.ups = a.side(a.p.leafs[base:][:half], a.n.ups, q, func(x peer.ID) peer.ID { return keyspace.Distance(a.id, x) })
	a.n.downs = a.side(a.p.leafs[base+half:][:half], a.n.downs, q, func(x peer.ID) peer.ID { return keyspace.Distance(x, a.id) })
}

// side puts a member into one half of the leaf set and returns how many it has.
func (a act) side(half []peer.Peer, n uint8, q peer.Peer, way func(peer.ID) peer.ID) uint8 {
	if slices.Contains(half[:n], q) {
		return n
	}
	d := way(a.env.ID(q))
	i := int(n)
	for ; i > 0; i-- {
		if e := way(a.env.ID(half[i-1])); string(e[:]) <= string(d[:]) {
			break
		}
	}
	if i == len(half) || d[0] > 127 && a.large() {
		return n
	}
	if int(n) < len(half) {
		n++
	}
	copy(half[i+1:n], half[i:n])
	half[i] = q
	if i == 0 {
		a.n.epoch++ // the range changes
	}
	return n
}

// large says that a leaf more than half way round is no leaf: it would only come there when a whole side has died.
// Once it is known, it stays so: the dead leave the table.
func (a act) large() bool {
	n := 0
	for _, q := range a.p.entries(a.self) {
		if q != peer.Nobody {
			n++
		}
	}
	a.n.large = a.n.large || n > 2*a.p.o.Leaves
	return a.n.large
}

// remove takes a peer out of all tables.
func (p *Pastry) remove(self peer.Slot, q peer.Peer) {
	n := &p.nodes[self]
	take := func(half []peer.Peer) uint8 {
		if i := slices.Index(half, q); i >= 0 {
			if i == 0 {
				n.epoch++
			}
			copy(half[i:], half[i+1:])
			return uint8(len(half) - 1)
		}
		return uint8(len(half))
	}
	n.ups, n.downs = take(p.ups(self)), take(p.downs(self))
	for i, e := range p.entries(self) {
		if e == q {
			p.entries(self)[i] = peer.Nobody
		}
	}
}

// lose takes a member for dead. A lost leaf is replaced by those of the farthest one left on its side (§2.4).
func (a act) lose(q peer.Peer) {
	leaf := slices.Contains(a.p.ups(a.self), q) || slices.Contains(a.p.downs(a.self), q)
	a.large() // before it is forgotten
	a.p.remove(a.self, q)
	if dead := a.p.buried(a.self); !dead.Dead(q, a.now) {
		periods := int64(buried)
		if a.p.o.Listed {
			periods = hidden
		}
		dead.Bury(int(a.n.graves), q, a.now+periods*a.p.o.Period)
		a.n.graves++
	}
	if !leaf {
		return
	}
	if a.n.ups == 0 || a.n.downs == 0 { // the nearest of the table on that side knows nearer ones
		for _, e := range a.p.entries(a.self) {
			if e != peer.Nobody {
				a.learn(e)
			}
		}
	}
	if a.n.leaf != 0 {
		return
	}
	to := peer.Nobody
	for _, side := range [][]peer.Peer{a.p.ups(a.self), a.p.downs(a.self)} {
		if len(side) > 0 && (to == peer.Nobody || a.n.downs < a.n.ups) {
			to = side[len(side)-1]
		}
	}
	if to == peer.Nobody {
		return
	}
	a.question(to, 0)
}

// wait is how long an acknowledgement may take.
func (a act) wait() int64 { return a.n.rtt.Wait(a.p.o.Timeout) }
