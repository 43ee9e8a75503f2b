package unstructured

import "servent/peer"

// search is an open one of a slot.
type search struct {
	tag   peer.Tag // of the messages; 0: free
	cmd   peer.Tag // of the command
	key   peer.ID
	far   int    // links that the flood goes; looks at the walkers so far
	heard uint64 // walkers that have asked whether to go on, since the last look
	ended uint64 // walkers that have gone far enough
	next  uint16 // free one after this
}

// flooded is a flood that has come by.
type flooded struct {
	who peer.Peer
	tag peer.Tag
}

// stride is how many steps a walker goes between asking whether it still should, as Lv et al. have it.
const stride = 4

// widest is how far a widening flood goes at most where no bound is set.
const widest = 64

func (u *Unstructured) open(self peer.Slot) []search {
	return u.searches[int(self)*u.o.Searches:][:u.o.Searches]
}

func (u *Unstructured) remembered(self peer.Slot) []flooded {
	return u.seen[int(self)*u.o.Seen:][:u.o.Seen]
}

// asked is the open search with a tag.
func (a act) asked(tag peer.Tag) *search {
	open := a.u.open(a.self)
	q := &open[int(tag)&(len(open)-1)]
	if tag == 0 || q.tag != tag {
		return nil
	}
	return q
}

// locate begins the search of a command: for a node that holds the key.
func (a act) locate(ev *peer.Event) {
	done := peer.Event{Kind: peer.Locate, Flags: peer.Lost, Tag: ev.Tag, Key: ev.Key}
	switch i := a.n.free; {
	case ev.Flags&peer.Around != 0: // there is no ring
		a.env.Done(done)
	case a.n.in && a.u.o.Holds(a.self, ev.Key):
		done.Flags = peer.Found
		a.env.Done(done, a.me)
	case int(i) == a.u.o.Searches:
		done.Flags = peer.Crowded
		a.env.Done(done)
	default:
		q := &a.u.open(a.self)[i]
		a.n.free = q.next
		*q = search{cmd: ev.Tag, key: ev.Key, far: a.u.o.Far}
		if a.u.o.Search != Flood {
			q.far = 0
		}
		q.tag = a.env.Ticket(int(i), a.u.o.Searches)
		if a.u.o.Search == Walk {
			a.send(q)
			return
		}
		a.flood(q)
	}
}

// close ends a search.
func (a act) close(q *search, flags uint8, hops uint16, holder ...peer.Peer) {
	i := uint16(int(q.tag) & (a.u.o.Searches - 1))
	a.env.Done(peer.Event{Kind: peer.Locate, Flags: flags, Hops: hops, Tag: q.cmd, Key: q.key}, holder...)
	*q = search{next: a.n.free}
	a.n.free = i
}

// flood asks all neighbours, under a tag of its own.
func (a act) flood(q *search) {
	if a.u.o.Search == Widen {
		q.far++
		q.tag = a.env.Ticket(int(q.tag)&(a.u.o.Searches-1), a.u.o.Searches)
	}
	a.new(a.me, q.tag)
	a.spread(peer.Event{Kind: flood, Tag: q.tag, Key: q.key, Hops: 1, Num: uint64(q.far)}, a.me, peer.Nobody)
	wait := a.u.o.Wait
	if q.far > 0 {
		wait = int64(q.far+1) * a.u.o.Hop // there, and straight back
	}
	a.env.After(wait, peer.Event{Kind: due, Tag: q.tag})
}

// spread sends a flood to all neighbours but one. Who has none yet asks a member that it has heard of.
func (a act) spread(ev peer.Event, who, but peer.Peer) {
	for _, l := range a.u.links[a.self] {
		if l.who != but {
			a.env.Forward(l.who, ev, who)
		}
	}
	if len(a.u.links[a.self]) == 0 && who == a.me && a.n.knows > 0 {
		a.env.Forward(a.u.contacts(a.self)[a.draw(int(a.n.knows))], ev, who)
	}
}

// new says whether a flood comes by for the first time, and remembers it.
func (a act) new(who peer.Peer, tag peer.Tag) bool {
	seen, n := a.u.remembered(a.self), int(a.n.floods)
	for i := 1; i <= min(n, len(seen)); i++ { // the last ones first
		if seen[(n-i)%len(seen)] == (flooded{who, tag}) {
			return false
		}
	}
	seen[n%len(seen)] = flooded{who, tag}
	a.n.floods++
	return true
}

// onFlood answers who asks, if there is something to tell, and asks on. A holder asks on, too: the others may have been heard already.
func (a act) onFlood(ev *peer.Event) {
	who := ev.Peers[0]
	if !a.new(who, ev.Tag) {
		return
	}
	if a.u.o.Holds(a.self, ev.Key) {
		a.env.Send(who, peer.Event{Kind: hit, Tag: ev.Tag, Hops: ev.Hops})
	}
	if (ev.Num == 0 || uint64(ev.Hops) < ev.Num) && ev.Hops < 1<<16-1 {
		a.spread(peer.Event{Kind: flood, Tag: ev.Tag, Key: ev.Key, Hops: ev.Hops + 1, Num: ev.Num}, who, ev.From)
	}
}

// due is the end of a round: nothing was found in it.
func (a act) due(tag peer.Tag) {
	q := a.asked(tag)
	if q == nil {
		return
	}
	most := a.u.o.Far
	if most == 0 {
		most = widest
	}
	switch {
	case a.u.o.Search == Walk && q.far <= a.u.o.Steps/stride:
		a.send(q)
	case a.u.o.Search == Widen && q.far < most:
		a.flood(q)
	default:
		a.close(q, peer.Lost, 0)
	}
}

func (a act) onHit(ev *peer.Event) {
	if q := a.asked(ev.Tag); q != nil {
		a.close(q, peer.Found, ev.Hops, ev.From)
	}
}

// send sends walkers out: all at first, later those that have not been heard of for twice the time that they have, for they are lost.
func (a act) send(q *search) {
	for w := range a.u.o.Walkers {
		if bit := uint64(1) << w; (q.heard|q.ended)&bit == 0 {
			a.step(peer.Event{Kind: walker, Tag: q.tag, Key: q.key, Num: uint64(w)}, a.me, peer.Nobody)
		}
	}
	q.heard = 0
	q.far++
	a.env.After(2*(stride+2)*a.u.o.Hop, peer.Event{Kind: due, Tag: q.tag})
}

// step sends a walker on to a neighbour drawn evenly, but not back if there is another way.
func (a act) step(ev peer.Event, who, back peer.Peer) {
	all, to := a.u.links[a.self], peer.Nobody
	switch n := len(all); {
	case n == 0 && who == a.me && a.n.knows > 0:
		to = a.u.contacts(a.self)[a.draw(int(a.n.knows))]
	case n == 0:
		return
	case n == 1:
		to = all[0].who
	default:
		if i := a.u.index(a.self, back); i < 0 {
			to = all[a.draw(n)].who
		} else {
			to = all[(i+1+a.draw(n-1))%n].who
		}
	}
	a.env.Forward(to, peer.Event{Kind: walker, Tag: ev.Tag, Key: ev.Key, Num: ev.Num, Hops: ev.Hops + 1}, who)
}

// onWalker ends a walk where the key is, has it ask whether to go on, or moves it on.
func (a act) onWalker(ev *peer.Event) {
	who := ev.Peers[0]
	switch {
	case a.u.o.Holds(a.self, ev.Key):
		a.env.Send(who, peer.Event{Kind: hit, Tag: ev.Tag, Hops: ev.Hops})
	case ev.Hops%stride == 0:
		a.env.Send(who, peer.Event{Kind: check, Tag: ev.Tag, Num: ev.Num, Hops: ev.Hops}, ev.From)
	case ev.Hops < 1<<16-1:
		a.step(*ev, who, ev.From)
	}
}

// onCheck lets a walker of an open search go on. Without an answer it has ended.
func (a act) onCheck(ev *peer.Event) {
	q := a.asked(ev.Tag)
	if q == nil || ev.Num >= uint64(a.u.o.Walkers) {
		return
	}
	bit := uint64(1) << ev.Num
	q.heard |= bit
	if int(ev.Hops) < a.u.o.Steps {
		a.env.Send(ev.From, peer.Event{Kind: goOn, Tag: ev.Tag, Key: q.key, Num: ev.Num, Hops: ev.Hops}, ev.Peers...)
		return
	}
	q.ended |= bit
	if q.ended == uint64(1)<<a.u.o.Walkers-1 {
		a.close(q, peer.Lost, 0)
	}
}
