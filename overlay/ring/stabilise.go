package ring

import (
	"servent/peer"
	"servent/peer/keyspace"
)

// know replaces the members known from outside. Of them the nearest above this node are kept, because its
// successor is or will be among them, and some of the others, drawn evenly, to ask when those are no help.
func (a act) know(members []peer.Peer) {
	n, near := a.n, (a.r.o.Contacts+1)/2
	n.known, n.limited = 0, false
	contacts := a.r.contacts[int(a.self)*a.r.o.Contacts:][:a.r.o.Contacts]
	others := uint64(0)
	for _, p := range members {
		id := a.env.ID(p)
		if p == a.me || id == a.id {
			continue
		}
		if !n.limited || keyspace.Inside(id, n.limit, a.id) {
			n.limit, n.limited = id, true
		}
		for i := range min(int(n.known), near) {
			if keyspace.Inside(a.env.ID(p), a.id, a.env.ID(contacts[i])) {
				contacts[i], p = p, contacts[i]
			}
		}
		if int(n.known) < len(contacts) {
			contacts[n.known] = p
			n.known++
			if int(n.known) > near {
				others++
			}
			continue
		}
		others++ // reservoir sampling: each of the others stays with the same chance
		if i := a.env.Rand() % others; i < uint64(len(contacts)-near) {
			contacts[near+int(i)] = p
		}
	}
	if n.owns {
		a.setLow(n.low)
	}
}

func (a act) join(epoch uint64) {
	if a.n.in {
		return
	}
	a.n.in, a.n.epoch = true, max(a.n.epoch, epoch)
	if a.n.known == 0 {
		a.setLow(a.id)
	}
	a.arm(int64(a.env.Rand() % uint64(a.r.o.Period/4+1)))
}

func (a act) arm(wait int64) {
	a.n.tick = peer.Tag(a.env.Rand())
	a.env.After(wait, peer.Event{Kind: tick, Tag: a.n.tick})
}

func (a act) tick() {
	n, period := a.n, a.r.o.Period
	wait := period - int64(a.env.Rand()%uint64(period/8+1)) // so that members do not fall into step
	if !n.agreed {
		wait /= 4
	}
	a.arm(wait)
	if n.pred != peer.Nobody && n.check.tag == 0 && a.now-n.heard > period*3/2 {
		a.question(&n.check, n.pred, 0)
	}
	a.seek()
	switch {
	case n.nexts > 0 || n.pred != peer.Nobody:
		n.lonely = 0
	case n.lonely == 0:
		n.lonely = a.now
	}
	if a.alone() {
		a.setLow(a.id)
	}
}

// alone says that nobody else takes part, as far as can be known.
func (a act) alone() bool {
	n := a.n
	return n.in && n.nexts == 0 && n.pred == peer.Nobody && n.lonely != 0 && a.now-n.lonely >= quiet*a.r.o.Period
}

// seek asks the successor, or the nearest member between it and this node that is not known to be dead and may
// take its place; by turns, so that many dead ones do not keep it from the successor. Chord §IV.E, stabilize,
// asks the successor alone. Without a successor, one contact after the other is asked.
func (a act) seek() {
	n, next, known := a.n, a.r.nexts(a.self), a.r.known(a.self)
	if n.ask.tag != 0 {
		return
	}
	best := peer.Nobody
	if len(next) > 0 && !n.hoped {
		end := a.env.ID(next[0])
		for _, p := range known {
			if id := a.env.ID(p); keyspace.Inside(id, a.id, end) && !a.dead(p) {
				best, end = p, id
			}
		}
	}
	if len(next) == 0 {
		best = n.pred
		all := a.acquaintances()
		for i := range 2 * all { // first those that are not taken for dead
			p := a.acquaintance((int(n.turn) + i) % all)
			if p != peer.Nobody && (i >= all && best == peer.Nobody || !a.dead(p)) {
				best, n.turn = p, uint16((int(n.turn)+i+1)%all)
				break
			}
		}
	}
	switch n.hoped = best != peer.Nobody; {
	case n.hoped:
		a.question(&n.ask, best, 0)
	case len(next) > 0:
		a.question(&n.ask, next[0], notify)
	}
}

// acquaintances are how many members this node may ask beside its successors: contacts, then those far away.
func (a act) acquaintances() int { return int(a.n.known) + len(a.r.far(a.self)) }

// acquaintance is one of them; Nobody where one is missing.
func (a act) acquaintance(i int) peer.Peer {
	if known := a.r.known(a.self); i < len(known) {
		return known[i]
	}
	return a.r.far(a.self)[i-int(a.n.known)]
}

func (a act) question(q *asked, to peer.Peer, flags uint8) {
	*q = asked{to: to, tag: peer.Tag(a.env.Rand()) | 1, flags: flags}
	a.repeat(q)
}

func (a act) repeat(q *asked) {
	q.tries++
	q.at = a.now
	a.env.Send(q.to, peer.Event{Kind: ask, Flags: q.flags, Tag: q.tag})
	a.env.After(a.n.rtt.Wait(a.r.o.Timeout), peer.Event{Kind: late, Tag: q.tag})
}

// late is a neighbour's silence.
func (a act) late(tag peer.Tag) {
	n, next := a.n, a.r.nexts(a.self)
	q, most := &n.ask, a.r.o.Tries
	switch {
	case tag == 0 || tag != n.ask.tag && tag != n.check.tag:
		return // answered meanwhile
	case tag == n.check.tag:
		q = &n.check
	case len(next) == 0 && q.to != n.pred:
		most = 1 // there are others, and no time
	case len(next) > 0 && (!n.agreed || q.to != next[0]):
		most = (most + 1) / 2 // it is only hoped for
	}
	if int(q.tries) < most {
		a.repeat(q)
		return
	}
	a.lose(q.to)
}

// lose takes a peer for dead.
func (a act) lose(p peer.Peer) {
	a.bury(p)
	n := a.n
	if n.check.to == p {
		n.check = asked{}
	}
	if n.pred == p {
		n.pred = peer.Nobody // the range stays: it grows when another predecessor comes who has lost this one, too
	}
	a.part(p)
	a.seek()
}

// part takes a peer off the successors.
func (a act) part(p peer.Peer) {
	n, next := a.n, a.r.nexts(a.self)
	if n.ask.to == p {
		n.ask = asked{}
	}
	if len(next) > 0 && next[0] == p {
		n.agreed = false
	}
	n.nexts = without(next, p)
}

// onAsk answers a neighbour, and takes it for the predecessor if it is the nearest below: Chord §IV.E, notify.
func (a act) onAsk(ev *peer.Event) {
	n, id := a.n, a.env.ID(ev.From)
	if !n.in || id == a.id {
		a.env.Send(ev.From, peer.Event{Kind: tell, Flags: out, Tag: ev.Tag})
		return
	}
	a.alive(ev.From)
	flags := uint8(0)
	if n.agreed || n.owns && n.nexts == 0 {
		flags |= settled
	}
	if ev.Flags&notify != 0 {
		switch {
		case n.pred == ev.From:
			a.setPred(ev.From)
		case n.pred == peer.Nobody || keyspace.Inside(id, a.env.ID(n.pred), a.id):
			n.older = n.pred
			a.setPred(ev.From)
		case n.check.tag == 0:
			a.question(&n.check, n.pred, 0) // the sender does not see it: is it still there?
		}
		if n.pred == ev.From {
			flags |= accepted
		}
	}
	before := n.pred
	if before == ev.From {
		before = n.older
	}
	if before == peer.Nobody {
		before = a.me
	}
	next := a.r.nexts(a.self)
	var some [17]peer.Peer
	a.env.Send(ev.From, peer.Event{Kind: tell, Flags: flags, Tag: ev.Tag}, append(append(some[:0], before), next...)...)
	if n.ask.tag == 0 && (len(next) == 0 || keyspace.Inside(id, a.id, a.env.ID(next[0]))) {
		a.question(&n.ask, ev.From, 0)
	}
}

func (a act) onTell(ev *peer.Event) {
	n := a.n
	q, isAsk := n.check, false
	switch {
	case ev.Tag == 0:
		return
	case ev.Tag == n.ask.tag && ev.From == n.ask.to:
		q, isAsk = n.ask, true
		n.ask = asked{}
	case ev.Tag == n.check.tag && ev.From == n.check.to:
		n.check = asked{}
	default:
		return // late, doubled or made up
	}
	if q.tries == 1 { // Karn's rule: else it is unknown which question was answered
		n.rtt.Add(a.now - q.at)
	}
	if ev.Flags&out != 0 {
		a.lose(ev.From)
		return
	}
	a.alive(ev.From)
	if isAsk {
		a.told(q.flags, ev)
	}
}

// told is what the successor, or who may become it, says of its own neighbours.
func (a act) told(asked uint8, ev *peer.Event) {
	n := a.n
	best, end := peer.Nobody, a.env.ID(ev.From)
	for _, p := range ev.Peers {
		if id := a.env.ID(p); p != a.me && keyspace.Inside(id, a.id, end) && !a.dead(p) {
			best, end = p, id
		}
	}
	if asked&notify == 0 {
		switch {
		case best != peer.Nobody:
			a.question(&n.ask, best, 0)
		case ev.Flags&settled != 0 || !n.agreed: // there is nobody between; one that joins just now can wait
			a.follow(ev, a.r.nexts(a.self))
			n.agreed, n.lonely, n.waits = false, 0, 0
			a.seek()
		}
		return
	}
	if next := a.r.nexts(a.self); len(next) == 0 || next[0] != ev.From {
		return // it was the successor when it was asked
	}
	a.follow(ev, nil)
	was := n.agreed
	n.agreed = ev.Flags&accepted != 0 && (was || ev.Flags&settled != 0 || n.waits != 0 && a.now-n.waits >= fresh*a.r.o.Period)
	switch {
	case n.agreed || ev.Flags&accepted == 0:
		n.waits = 0
	case n.waits == 0:
		n.waits = a.now
	}
	if n.agreed && !was && len(ev.Peers) > 0 {
		a.begin(ev.Peers[0], ev.From)
	}
	if best != peer.Nobody {
		a.question(&n.ask, best, 0)
	}
}

// follow makes the sender the successor, and its successors those after it, then those of rest: as many as
// are kept, each above the one before, none taken for dead.
func (a act) follow(ev *peer.Event, rest []peer.Peer) {
	var some [16]peer.Peer
	list, last := append(some[:0], ev.From), a.env.ID(ev.From)
	add := func(peers []peer.Peer) {
		for _, p := range peers {
			if id := a.env.ID(p); len(list) < a.r.o.Successors && p != a.me && keyspace.Inside(id, last, a.id) && !a.dead(p) {
				list, last = append(list, p), id
			}
		}
	}
	if len(ev.Peers) > 0 {
		add(ev.Peers[1:])
	}
	add(rest)
	a.n.nexts = uint8(len(list))
	copy(a.r.nexts(a.self), list)
}

// begin makes the keys this node's own that the successor has given up: those from its predecessor until now
// on, unless a nearer one has come here meanwhile.
func (a act) begin(before, successor peer.Peer) {
	n := a.n
	switch {
	case before != successor && before != a.me && (!n.owns || keyspace.Inside(a.env.ID(before), n.low, a.id)) &&
		(n.pred == peer.Nobody || keyspace.Inside(a.env.ID(before), a.env.ID(n.pred), a.id)):
		if a.dead(before) {
			a.setLow(a.env.ID(before))
			return
		}
		a.setPred(before)
	case n.pred != peer.Nobody:
		a.setLow(a.env.ID(n.pred))
	}
}

// setPred takes a predecessor. Until the successor has accepted this node, the keys between are another's.
func (a act) setPred(p peer.Peer) {
	n := a.n
	n.pred, n.heard, n.lonely = p, a.now, 0
	if n.check.to != p {
		n.check = asked{}
	}
	if n.owns || n.agreed {
		a.setLow(a.env.ID(p))
	}
}

// setLow says where this node's keys begin.
func (a act) setLow(low peer.ID) {
	n := a.n
	if a.r.o.Fixed && n.limited {
		low = n.limit
	}
	if !n.owns || n.low != low {
		n.owns, n.low = true, low
		n.epoch++
	}
}

// leave hands the keys to the successor and goes.
func (a act) leave() {
	n := a.n
	if !n.in {
		return
	}
	next := a.r.nexts(a.self)
	ev := peer.Event{Kind: leave}
	if n.owns {
		ev.Flags, ev.Key = owned, n.low
	}
	if n.pred != peer.Nobody {
		a.env.Send(n.pred, ev, next...)
	}
	if len(next) > 0 && next[0] != n.pred {
		a.env.Send(next[0], ev, next...)
	}
	n.in, n.owns, n.agreed, n.nexts, n.pred, n.older = false, false, false, 0, peer.Nobody, peer.Nobody
	n.ask, n.check, n.lonely, n.waits = asked{}, asked{}, 0, 0
}

func (a act) onLeave(ev *peer.Event) {
	n := a.n
	if !n.in {
		return
	}
	a.bury(ev.From)
	if n.pred == ev.From {
		n.pred, n.check = peer.Nobody, asked{}
		if ev.Flags&owned != 0 && (ev.Key == a.id || keyspace.Inside(a.env.ID(ev.From), ev.Key, a.id)) {
			a.setLow(ev.Key)
		}
	}
	next := a.r.nexts(a.self)
	first := len(next) > 0 && next[0] == ev.From
	a.part(ev.From)
	if first && n.nexts == 0 && len(ev.Peers) > 0 && ev.Peers[0] != a.me && !a.dead(ev.Peers[0]) {
		n.nexts = 1
		a.r.nexts(a.self)[0] = ev.Peers[0]
	}
	a.seek()
}

// dead says whether a peer did not answer lately.
func (a act) dead(p peer.Peer) bool { return a.r.dead(a.self).Dead(p, a.now) }

// bury takes a peer for dead for some periods.
func (a act) bury(p peer.Peer) {
	a.alive(p) // one grave each
	a.r.dead(a.self).Bury(int(a.n.graves), p, a.now+buried*a.r.o.Period)
	a.n.graves++
}

// alive is a sign of life.
func (a act) alive(p peer.Peer) {
	a.r.dead(a.self).Rise(p)
	if a.n.pred == p {
		a.n.heard = a.now
	}
}

// See says what a slot's place in the ring looks like from inside.
func (r *Ring) See(dir peer.Directory, self peer.Slot) peer.View {
	n, next := &r.nodes[self], r.nexts(self)
	id := dir.ID(dir.Self(self))
	v := peer.View{Member: n.in, From: n.low, To: id, Owns: n.in && n.owns, Epoch: n.epoch, Before: n.pred, After: append([]peer.Peer(nil), next...)}
	switch {
	case !n.in:
		v.Why = "it takes no part"
		return v
	case len(next) == 0 && n.pred == peer.Nobody && n.known == 0:
		v.Whole = true // a ring of one
		return v
	case len(next) == 0:
		v.Why = "no successor answers"
		return v
	case !n.agreed:
		v.Why = "the successor follows another node"
	case n.pred == peer.Nobody:
		v.Why = "no predecessor is known"
	case !n.owns:
		v.Why = "no predecessor has come"
	case n.ask.tag != 0 && n.ask.to == next[0] && n.ask.tries > 1:
		v.Why = "the successor is silent"
	case n.check.tag != 0 && n.check.tries > 1:
		v.Why = "the predecessor is silent"
	}
	for _, p := range r.known(self) {
		if v.Why == "" && keyspace.Inside(dir.ID(p), id, dir.ID(next[0])) {
			v.Why = "a member between it and its successor does not answer"
		}
	}
	v.Whole = v.Why == ""
	return v
}
