package kademlia

import "servent/peer"

// lookup is an open one of a slot.
type lookup struct {
	tag    peer.Tag // 0: free
	cmd    peer.Tag // of the command
	key    peer.ID
	upkeep bool
	next   uint16 // free one after this
	asked  int    // questions without an answer or time-out
	lost   int    // time-outs
	list   []heard
}

// heard is a member that a lookup has heard of.
type heard struct {
	candidate
	epoch uint64
	at    int64 // when it was asked
	depth uint16
	state state
}

type state uint8

const (
	untried state = iota
	asked
	answered
	failed
)

// width is how many candidates a lookup keeps for each of the K that it wants, in case some are dead.
const width = 4

func (k *Kademlia) open(self peer.Slot) []lookup {
	return k.lookups[int(self)*k.o.Lookups:][:k.o.Lookups]
}

func (q *lookup) drop(p peer.Peer) {
	for i := range q.list {
		if c := &q.list[i]; c.who == p {
			if c.state == asked {
				q.asked--
			}
			c.state, c.who = failed, peer.Nobody
		}
	}
}

// locate begins the lookup of a command.
func (a act) locate(ev *peer.Event) {
	if ev.Flags&peer.Around != 0 { // there is no ring
		a.env.Done(peer.Event{Kind: peer.Locate, Flags: peer.Lost, Tag: ev.Tag, Key: ev.Key})
		return
	}
	if a.k.o.Value && a.n.in && a.n.placed && a.k.holds(a.env, a.self, a.id, ev.Key) {
		a.env.Done(peer.Event{Kind: peer.Locate, Flags: peer.Found, Tag: ev.Tag, Num: a.n.epoch, Key: ev.Key}, a.me)
		return
	}
	a.begin(*ev, false)
}

func (a act) begin(ev peer.Event, upkeep bool) {
	open, i := a.k.open(a.self), a.n.free
	if int(i) == len(open) {
		if !upkeep {
			a.env.Done(peer.Event{Kind: peer.Locate, Flags: peer.Crowded, Tag: ev.Tag, Key: ev.Key})
		}
		return
	}
	q := &open[i]
	a.n.free = q.next
	*q = lookup{tag: a.env.Ticket(int(i), len(open)), cmd: ev.Tag, key: ev.Key, upkeep: upkeep}
	var some [160]candidate
	for _, c := range a.nearest(some[:0], ev.Key, peer.Nobody) {
		q.list = append(q.list, heard{candidate: c, depth: 1})
	}
	a.onward(q)
}

// asked is the open lookup with a tag.
func (a act) asked(tag peer.Tag) *lookup {
	open := a.k.open(a.self)
	q := &open[int(tag)&(len(open)-1)]
	if tag == 0 || q.tag != tag {
		return nil
	}
	return q
}

// onward asks the nearest that have not been asked, Alpha at a time, until the K nearest that do not fail have answered
// (§2.3). Each time-out allows another at a time, to three times Alpha: where many are dead, waiting is what costs.
func (a act) onward(q *lookup) {
	wanted := a.k.o.K
	for i := range q.list {
		c := &q.list[i]
		if wanted == 0 || q.asked >= a.k.o.Alpha+min(q.lost, 2*a.k.o.Alpha) {
			break
		}
		if c.state != failed {
			wanted--
		}
		if c.state != untried {
			continue
		}
		c.state, c.at = asked, a.now
		q.asked++
		ev := peer.Event{Kind: find, Tag: q.tag, Key: q.key, Hops: c.depth}
		if q.upkeep {
			ev.Kind = findUpkeep
		}
		if !a.n.in {
			ev.Flags = client
		}
		if !q.upkeep {
			a.env.Forward(c.who, ev)
		} else {
			a.env.Send(c.who, ev)
		}
		a.env.After(a.wait(), peer.Event{Kind: late, Tag: q.tag, Num: uint64(c.who)})
	}
	wanted = a.k.o.K
	for i := range q.list { // an asked one among the nearest may still answer
		if c := &q.list[i]; c.state == asked || c.state == untried {
			return
		} else if c.state == answered {
			if wanted--; wanted == 0 {
				break
			}
		}
	}
	for i := range q.list {
		if q.list[i].state == answered {
			a.close(q, &q.list[i], false)
			return
		}
	}
	a.close(q, nil, false)
}

// close ends a lookup with the nearest that has answered, or this node if it is nearer and the other does not say that the key
// is its own.
func (a act) close(q *lookup, nearest *heard, sure bool) {
	l := *q
	i := uint16(int(l.tag) & (a.k.o.Lookups - 1))
	*q = lookup{next: a.n.free}
	a.n.free = i
	if l.upkeep {
		switch {
		case l.key != a.id:
		case nearest != nil:
			a.n.placed, a.n.alone = a.n.in, 0
		case a.n.in:
			a.unanswered()
		}
		return
	}
	ev := peer.Event{Kind: peer.Locate, Flags: peer.Lost, Tag: l.cmd, Key: l.key}
	owner := peer.Nobody
	var best candidate
	if nearest != nil {
		owner, best = nearest.who, nearest.candidate
		ev.Flags, ev.Hops, ev.Num = peer.Found, nearest.depth, nearest.epoch
	}
	if a.n.in && !sure {
		mine := []candidate{{a.me, distance(a.id, l.key), a.id}, best}
		if owner != peer.Nobody {
			order(mine)
		}
		if mine[0].who == a.me {
			owner, ev.Flags, ev.Hops, ev.Num = a.me, peer.Found, 0, a.n.epoch
		}
	}
	if owner == peer.Nobody {
		a.env.Done(ev)
		return
	}
	a.env.Done(ev, owner)
}

// late is a silence.
func (a act) late(tag peer.Tag, p peer.Peer) {
	q := a.asked(tag)
	if q == nil {
		return
	}
	for i := range q.list {
		if c := &q.list[i]; c.who == p && c.state == asked {
			c.state = failed
			q.asked--
			q.lost++
			a.missed(p, false)
			break
		}
	}
	a.onward(q) // also when it has answered, or the driver has dropped it
}

// onFound takes an answer: whoever is told of is asked in turn, but remembered only when it answers itself.
func (a act) onFound(ev *peer.Event) {
	q := a.asked(ev.Tag)
	if q == nil || len(ev.Peers) > 32 {
		return // late, or made up
	}
	at := -1
	for i := range q.list {
		if c := &q.list[i]; c.who == ev.From && (c.state == asked || c.state == failed && c.at != 0) {
			at = i
			break
		}
	}
	if at < 0 {
		return // nobody asked it
	}
	c := &q.list[at]
	if c.state == asked {
		q.asked--
	}
	if ev.Flags&out != 0 {
		c.state = failed
		a.missed(ev.From, true)
		a.onward(q)
		return
	}
	a.n.rtt.Add(a.now - c.at)
	c.state, c.epoch = answered, ev.Num
	depth := c.depth + 1
	a.heard(ev.From)
	if ev.Flags&mine != 0 && !q.upkeep {
		a.close(q, c, true)
		return
	}
	for _, p := range ev.Peers {
		if p != a.me && a.env.ID(p) != a.id {
			a.consider(q, p, depth)
		}
	}
	a.onward(q)
}

// consider puts a member among the candidates, in its place.
func (a act) consider(q *lookup, p peer.Peer, depth uint16) {
	for i := range q.list {
		if q.list[i].who == p {
			if c := &q.list[i]; c.state == untried {
				c.depth = min(c.depth, depth)
			}
			return
		}
	}
	id := a.env.ID(p)
	new := heard{candidate: candidate{p, distance(id, q.key), id}, depth: depth}
	i := len(q.list)
	for i > 0 && (q.list[i-1].far > new.far || q.list[i-1].far == new.far && string(q.list[i-1].id[:]) > string(id[:])) {
		i--
	}
	if i >= width*a.k.o.K {
		return
	}
	if len(q.list) >= width*a.k.o.K {
		last := len(q.list) - 1
		if q.list[last].state == asked {
			q.asked--
		}
		q.list = q.list[:last]
	}
	q.list = append(q.list, heard{})
	copy(q.list[i+1:], q.list[i:])
	q.list[i] = new
}
