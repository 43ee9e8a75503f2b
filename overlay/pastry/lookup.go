package pastry

import (
	"servent/peer"
	"servent/peer/keyspace"
)

// lookup is an open one of a slot.
type lookup struct {
	tag   peer.Tag // 0: free
	cmd   peer.Tag
	key   peer.ID
	tries uint8
	next  uint16 // free one after this
}

// way is a lookup on its way.
type way struct {
	kind  peer.Kind
	key   peer.ID
	asker peer.Peer
	tag   peer.Tag
	hops  uint16
}

// hop is one that is not acknowledged.
type hop struct {
	l      way
	to     peer.Peer
	number uint64
	at     int64
	tries  int
}

// mostOpen is how many hops of a slot may wait for acknowledgement; further ones are not watched.
const mostOpen = 4096

func (p *Pastry) open(s peer.Slot) []lookup { return p.asked[int(s)*p.o.Lookups:][:p.o.Lookups] }

// locate begins the lookup of a command.
func (a act) locate(ev *peer.Event) {
	fail := func(outcome uint8) {
		a.env.Done(peer.Event{Kind: peer.Locate, Flags: outcome, Tag: ev.Tag, Key: ev.Key})
	}
	open, i := a.p.open(a.self), a.n.free
	switch {
	case ev.Flags&peer.Around != 0:
		fail(peer.Lost)
		return
	case int(i) == len(open):
		fail(peer.Crowded)
		return
	}
	a.n.free = open[i].next
	open[i] = lookup{tag: a.env.Ticket(int(i), len(open)), cmd: ev.Tag, key: ev.Key}
	a.try(&open[i])
}

func (a act) try(q *lookup) {
	q.tries++
	a.env.After(a.p.o.Wait<<min(q.tries-1, 2), peer.Event{Kind: overdue, Tag: q.tag})
	a.onward(way{route, q.key, a.me, q.tag, 0}, peer.Nobody)
}

func (a act) lookup(tag peer.Tag) *lookup {
	open := a.p.open(a.self)
	q := &open[int(tag)&(len(open)-1)]
	if tag == 0 || q.tag != tag {
		return nil
	}
	return q
}

func (a act) overdue(tag peer.Tag) {
	switch q := a.lookup(tag); {
	case q == nil:
	case q.tries < tries:
		a.try(q)
	default:
		a.close(q, peer.Event{Flags: peer.Lost})
	}
}

func (a act) close(q *lookup, ev peer.Event, owner ...peer.Peer) {
	ev.Kind, ev.Tag, ev.Key = peer.Locate, q.cmd, q.key
	i := uint16(int(q.tag) & (a.p.o.Lookups - 1))
	*q = lookup{next: a.n.free}
	a.n.free = i
	a.env.Done(ev, owner...)
}

// next is where a lookup goes from here; this node itself if it is the nearest (§2.3): to the nearest of the leaf set when
// the key lies within it; else to the entry that shares a digit more; else to any that shares as many and is nearer.
// Nobody, if this node takes no part and knows nobody.
func (a act) next(key peer.ID) peer.Peer {
	ups, downs := a.p.ups(a.self), a.p.downs(a.self)
	best, at := peer.Nobody, peer.ID{}
	if a.n.in {
		best, at = a.me, a.id
	}
	consider := func(list []peer.Peer, least int) {
		for _, q := range list {
			if q == peer.Nobody {
				continue
			}
			if id := a.env.ID(q); shared(id, key) >= least && (best == peer.Nobody || nearer(key, id, at)) {
				best, at = q, id
			}
		}
	}
	low, high := a.id, a.id // how far the leaf set reaches; some may have been lost
	if len(downs) > 0 {
		low = a.env.ID(downs[len(downs)-1])
	}
	if len(ups) > 0 {
		high = a.env.ID(ups[len(ups)-1])
	}
	within := len(ups)+len(downs) == 0 || low != high && keyspace.Between(key, low, high) || len(ups) > 0 && len(downs) > 0 && keyspace.Between(low, a.id, high) // or both sides meet: they are all there is
	if within && a.n.in {
		consider(ups, 0)
		consider(downs, 0)
		return best
	}
	row := shared(a.id, key)
	if row < a.p.o.Rows {
		if q := a.p.entries(a.self)[row*digits+digit(key, row)]; q != peer.Nobody {
			return q
		}
	}
	consider(ups, row)
	consider(downs, row)
	consider(a.p.entries(a.self), row)
	if half := a.p.o.Leaves / 2; best == a.me && (len(ups) < half || len(downs) < half) { // leaves are missing: any that is nearer
		consider(ups, 0)
		consider(downs, 0)
		consider(a.p.entries(a.self), 0)
	}
	if best == peer.Nobody {
		consider(a.p.known[int(a.self)*a.p.o.Contacts:][:a.n.knows], 0)
	}
	return best
}

// onward has a lookup go on.
func (a act) onward(l way, from peer.Peer) {
	if l.hops >= mostHops {
		return
	}
	to := a.next(l.key)
	if l.kind == routeUpkeep && to == l.asker {
		to = a.me // it knows it by name already, but asks for its neighbours
	}
	switch {
	case to == peer.Nobody:
		return // the one who asks tries again
	case to != a.me:
	case l.kind == routeUpkeep:
		if l.asker != a.me {
			a.tellLeaves(l.asker, joined, 0)
			a.learn(l.asker)
		}
		return
	case l.asker == a.me:
		if q := a.lookup(l.tag); q != nil {
			a.close(q, peer.Event{Flags: peer.Found, Num: a.n.epoch}, a.me)
		}
		return
	default:
		a.env.Send(l.asker, peer.Event{Kind: answer, Tag: l.tag, Hops: l.hops, Num: a.n.epoch})
		return
	}
	a.hop(l, to, 1)
}

// hop sends a lookup on to the next node.
func (a act) hop(l way, to peer.Peer, tries int) {
	a.n.count++
	ev := peer.Event{Kind: l.kind, Key: l.key, Tag: l.tag, Hops: l.hops + 1, Num: a.n.count}
	if !a.n.in {
		ev.Flags = client
	}
	if l.kind == route {
		a.env.Forward(to, ev, l.asker)
	} else {
		a.env.Send(to, ev, l.asker)
	}
	if len(a.n.hops) < mostOpen {
		a.n.hops = append(a.n.hops, hop{l, to, a.n.count, a.now, tries})
		a.env.After(a.wait(), peer.Event{Kind: silent, Num: a.n.count})
	}
}

// onRoute acknowledges, and has the lookup go on.
func (a act) onRoute(ev *peer.Event) {
	if len(ev.Peers) != 1 {
		return
	}
	reply := peer.Event{Kind: ack, Num: ev.Num}
	if ev.Kind == routeUpkeep {
		reply.Kind = ackUpkeep
	}
	if !a.n.in || !a.n.placed {
		reply.Flags = out
		a.env.Send(ev.From, reply)
		return
	}
	if ev.Num != 0 {
		a.env.Send(ev.From, reply)
	}
	if ev.Kind == routeUpkeep && ev.Peers[0] != a.me {
		a.tellRow(ev.Peers[0], min(shared(a.id, ev.Key), a.p.o.Rows-1), 0)
	}
	a.onward(way{ev.Kind, ev.Key, ev.Peers[0], ev.Tag, ev.Hops}, ev.From)
}

// taken is the hop with a number, no longer open.
func (a act) taken(number uint64) (h hop, ok bool) {
	for i, h := range a.n.hops {
		if h.number == number {
			a.n.hops = append(a.n.hops[:i], a.n.hops[i+1:]...)
			return h, true
		}
	}
	return hop{}, false
}

func (a act) onAck(ev *peer.Event) {
	h, ok := a.taken(ev.Num)
	switch {
	case !ok:
	case h.to != ev.From: // made up
		a.n.hops = append(a.n.hops, h)
	case ev.Flags&out != 0:
		a.lose(ev.From)
		a.onward(h.l, peer.Nobody)
	default:
		a.n.rtt.Add(a.now - h.at)
	}
}

// silent takes who did not acknowledge for dead, after some tries; the lookup goes another way.
func (a act) silent(number uint64) {
	switch h, ok := a.taken(number); {
	case !ok:
	case h.tries < a.p.o.Tries:
		a.hop(h.l, h.to, h.tries+1)
	default:
		a.lose(h.to)
		a.onward(h.l, peer.Nobody)
	}
}

func (a act) onAnswer(ev *peer.Event) {
	if q := a.lookup(ev.Tag); q != nil {
		a.close(q, peer.Event{Flags: peer.Found, Hops: ev.Hops, Num: ev.Num}, ev.From)
	}
}
