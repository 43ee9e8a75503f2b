package ring

import (
	"math/bits"

	"servent/peer"
	"servent/peer/keyspace"
)

// tries is how often a lookup is asked; tryBits of its tag say which time it is.
const (
	tries   = 6
	tryBits = 3
)

// question is a lookup that a slot has asked and that is not answered.
type question struct {
	tag   peer.Tag // of its first try
	cmd   peer.Tag // of the command
	key   peer.ID
	first int64
	last  int64
	via   peer.Peer // who is taken for the owner, or Nobody
	tries uint8     // 0: free
	how   uint8
	next  uint16 // free one after this
}

// lookup is a question on its way.
type lookup struct {
	key   peer.ID
	asker peer.Peer
	tag   peer.Tag
	hops  uint16
	limit uint64
	way   uint8
	how   uint8
}

// Ways of a lookup, in the Flags of look.
const (
	up    uint8 = iota // from neighbour to neighbour
	final              // the sender takes the receiver for the owner
	back               // a member that the sender of a final one does not know of is the owner: it lies below

	ways uint8 = 3 // all of them
)

// How a lookup goes, in the same Flags.
const (
	free uint8 = 4  // it is upkeep
	near uint8 = 8  // from neighbour to neighbour, whoever else is known
	sure uint8 = 16 // over successors alone: members far away may be dead, and nobody has noticed yet
)

// hasty is how many tries of a lookup go over members far away. Later ones take longer, but come through once the
// neighbours have mended the ring.
const hasty = 4

// direct is how often who is taken for an owner is asked, with few hops, for it should be one.
const (
	direct     = 2
	directHops = 16
)

// locate begins the lookup of a command.
func (a act) locate(ev *peer.Event) {
	around, only := ev.Flags&peer.Around != 0, a.n.in && a.n.nexts == 0 && a.n.known == 0
	if around && only || a.holds(ev.Key) && !around {
		done := peer.Event{Kind: peer.Locate, Flags: peer.Found, Tag: ev.Tag, Num: a.n.epoch, Key: ev.Key}
		if around {
			done.Hops = 1
		}
		a.done(ev.Flags&Upkeep != 0, done, a.me)
		return
	}
	open, i := a.r.open(a.self), a.n.free
	if int(i) == len(open) {
		a.done(ev.Flags&Upkeep != 0, peer.Event{Kind: peer.Locate, Flags: peer.Crowded, Tag: ev.Tag, Key: ev.Key}, peer.Nobody)
		return
	}
	q, shift := &open[i], bits.Len(uint(len(open)-1))+tryBits
	a.n.free = q.next
	*q = question{cmd: ev.Tag, key: ev.Key, first: a.now, via: peer.Nobody,
		tag: peer.Tag(a.env.Rand())<<shift | peer.Tag(i)<<tryBits}
	if around {
		q.key, q.how = a.id, near
	}
	if ev.Flags&Upkeep != 0 {
		q.how = free
		if len(ev.Peers) > 0 {
			q.via = ev.Peers[0]
		}
	}
	a.try(q)
}

// try asks for the next time: first along the ring, then by way of another member, in case a neighbour is
// dead and not noticed yet.
func (a act) try(q *question) {
	l := lookup{key: q.key, asker: a.me, tag: q.tag + peer.Tag(q.tries), limit: uint64(a.r.o.Hops), how: q.how}
	if q.tries++; q.tries > hasty {
		l.how |= sure
	}
	q.last = a.now
	// Few answers take longer than mean + 4 deviations, if the ring is well; else later tries wait longer.
	wait := min(a.n.lookTime.Wait(a.r.o.Wait)<<min(q.tries-1, 2), 8*a.r.o.Wait)
	a.env.After(wait, peer.Event{Kind: overdue, Tag: l.tag})
	next, around := a.r.nexts(a.self), q.how&near != 0
	via := peer.Nobody
	if !around && q.via == peer.Nobody && (q.tries > 1 || len(next) == 0) {
		via = a.other(next)
	}
	switch {
	case q.via != peer.Nobody:
		l.limit = directHops
		a.forward(l, q.via, final)
	case via != peer.Nobody:
		a.forward(l, via, up)
	case around && len(next) > 0:
		a.forward(l, next[0], up)
	case !around && a.n.in:
		a.route(l, a.me) // it may be answered before this returns
	}
}

// other draws a member that is not known to be dead.
func (a act) other(next []peer.Peer) peer.Peer {
	known := a.acquaintances()
	n := known + len(next)
	if n == 0 {
		return peer.Nobody
	}
	start := int(a.env.Rand() % uint64(n))
	for i := range n {
		j := (start + i) % n
		p := peer.Nobody
		if j < known {
			p = a.acquaintance(j)
		} else {
			p = next[j-known]
		}
		if p != peer.Nobody && !a.dead(p) {
			return p
		}
	}
	return peer.Nobody
}

func (a act) overdue(tag peer.Tag) {
	q := a.asked(tag)
	switch {
	case q == nil || tag != q.tag+peer.Tag(q.tries-1):
	case q.tries < tries && (q.via == peer.Nobody || q.tries < direct):
		a.try(q)
	default:
		a.close(q, peer.Event{Flags: peer.Lost}, peer.Nobody)
	}
}

// asked is the open question that a tag belongs to, in any of its tries.
func (a act) asked(tag peer.Tag) *question {
	open := a.r.open(a.self)
	q, try := &open[int(tag>>tryBits)&(len(open)-1)], tag&(1<<tryBits-1)
	if tag-try != q.tag || int(try) >= int(q.tries) {
		return nil
	}
	return q
}

// close answers the command and frees the question.
func (a act) close(q *question, ev peer.Event, owner peer.Peer) {
	ev.Kind, ev.Tag, ev.Key = peer.Locate, q.cmd, q.key
	upkeep, i := q.how&free != 0, uint16(q.tag>>tryBits&peer.Tag(a.r.o.Questions-1))
	*q = question{next: a.n.free}
	a.n.free = i
	a.done(upkeep, ev, owner)
}

// done says the outcome to whoever gave the command: the driver, or the machine above.
func (a act) done(upkeep bool, ev peer.Event, owner peer.Peer) {
	switch {
	case upkeep:
		located := ev // its own, so that what others are given stays off the heap
		located.At, located.From = a.now, owner
		a.r.o.Above.Located(a.env, a.self, &located)
	case owner == peer.Nobody:
		a.env.Done(ev)
	default:
		a.env.Done(ev, owner)
	}
}

// holds says whether this node owns a key.
func (a act) holds(key peer.ID) bool {
	return a.n.in && a.n.owns && keyspace.Between(key, a.n.low, a.id)
}

// vacant says that a key would be this node's, were its data not with a member that is away.
func (a act) vacant(key peer.ID) bool {
	n := a.n
	return a.r.o.Fixed && n.owns && (a.alone() || n.pred != peer.Nobody && keyspace.Between(key, a.env.ID(n.pred), a.id))
}

// route answers a lookup or takes it one neighbour on; when it cannot, it lets it go, and the asker tries again.
func (a act) route(l lookup, from peer.Peer) {
	n, next := a.n, a.r.nexts(a.self)
	switch {
	case !n.in:
		a.reply(l, peer.Lost)
	case a.holds(l.key):
		a.reply(l, peer.Found)
	case a.vacant(l.key):
		a.reply(l, peer.Vacant)
	case uint64(l.hops) >= l.limit:
	case l.way == final || l.way == back && !keyspace.Between(l.key, a.id, a.env.ID(from)):
		if n.pred != peer.Nobody {
			a.forward(l, n.pred, back)
		}
	case l.way != up || len(next) == 0: // nobody owns it just now
	default:
		to, way := a.onward(l, next)
		a.forward(l, to, way)
	}
}

// onward is who is asked next. A successor that is silent is passed over.
func (a act) onward(l lookup, next []peer.Peer) (to peer.Peer, way uint8) {
	most := len(next)
	if silent := a.n.ask.to == next[0] && a.n.ask.tries > 1; a.r.o.Above == nil || l.how&near != 0 {
		if most = 1; silent {
			most = min(2, len(next))
		}
	}
	low := a.id
	for _, to = range next[:most] {
		if keyspace.Between(l.key, low, a.env.ID(to)) {
			return to, final
		}
		low = a.env.ID(to)
	}
	if l.how&(near|sure) == 0 {
		for _, p := range a.r.far(a.self) { // Chord §IV.D, closest_preceding_node
			if p == peer.Nobody {
				continue
			}
			if id := a.env.ID(p); keyspace.Inside(id, low, l.key) && !a.dead(p) {
				to, low = p, id
			}
		}
	}
	return to, up
}

func (a act) forward(l lookup, to peer.Peer, way uint8) {
	ev := peer.Event{Kind: look, Flags: way | l.how, Hops: l.hops + 1, Tag: l.tag, Num: l.limit, Key: l.key}
	if l.how&free != 0 {
		ev.Kind = lookUpkeep
		a.env.Send(to, ev, l.asker)
		return
	}
	a.env.Forward(to, ev, l.asker)
}

func (a act) reply(l lookup, outcome uint8) {
	ev := peer.Event{From: a.me, Kind: answer, Flags: outcome, Hops: l.hops, Tag: l.tag, Num: a.n.epoch}
	if l.how&free != 0 {
		ev.Kind = answerUpkeep
	}
	if l.asker == a.me {
		a.onAnswer(&ev)
		return
	}
	a.env.Send(l.asker, ev)
}

func (a act) onAnswer(ev *peer.Event) {
	q := a.asked(ev.Tag)
	if q == nil {
		return // answered before, or made up
	}
	switch ev.Flags {
	case peer.Found, peer.Vacant:
		switch {
		case q.how&free != 0: // it may have gone straight to the owner
		case ev.Tag == q.tag+peer.Tag(q.tries-1):
			a.n.lookTime.Add(a.now - q.last)
		case ev.Tag == q.tag:
			a.n.lookTime.Add(a.now - q.first)
		}
		a.close(q, peer.Event{Flags: ev.Flags, Hops: ev.Hops, Num: ev.Num}, ev.From)
	case peer.Lost: // the one asked takes no part: the next try, when it is time, is another's
		if a.bury(ev.From); q.via == ev.From {
			a.close(q, peer.Event{Flags: peer.Lost}, peer.Nobody)
		}
	}
}
