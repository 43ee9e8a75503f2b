package unstructured

import (
	"slices"

	"servent/peer"
)

// link is one to a neighbour.
type link struct {
	heard  int64 // when it was last
	who    peer.Peer
	mine   bool  // this node made it, and makes another if it breaks
	missed uint8 // pongs in a row
}

// patience is after how many silent periods a link is taken for broken.
const patience = 3

func (u *Unstructured) contacts(self peer.Slot) []peer.Peer {
	return u.known[int(self)*u.o.Contacts:][:u.o.Contacts]
}

func (u *Unstructured) index(self peer.Slot, p peer.Peer) int {
	return slices.IndexFunc(u.links[self], func(l link) bool { return l.who == p })
}

func (u *Unstructured) remove(self peer.Slot, i int) {
	all := u.links[self]
	last := len(all) - 1
	all[i] = all[last]
	u.links[self] = all[:last]
}

// own is how many links a slot has made itself.
func (u *Unstructured) own(self peer.Slot) (n int) {
	for i := range u.links[self] {
		if u.links[self][i].mine {
			n++
		}
	}
	return n
}

// Links appends a slot's neighbours.
func (u *Unstructured) Links(self peer.Slot, into []peer.Peer) []peer.Peer {
	for _, l := range u.links[self] {
		into = append(into, l.who)
	}
	return into
}

func (a act) join() {
	if a.n.in {
		return
	}
	a.n.in = true
	if len(a.u.links[a.self]) > 0 { // a member for long, by Settle
		a.arm(1 + int64(a.env.Rand()%uint64(a.u.o.Period)))
		return
	}
	a.look()
}

func (a act) leave() {
	if a.n.in {
		for _, l := range a.u.links[a.self] {
			a.env.Send(l.who, peer.Event{Kind: part})
		}
	}
	a.n.in, a.n.timer, a.n.wanted, a.u.links[a.self] = false, 0, 0, a.u.links[a.self][:0]
}

func (a act) arm(wait int64) {
	a.n.timer = peer.Tag(a.env.Rand()) | 1
	a.env.After(wait, peer.Event{Kind: look, Tag: a.n.timer})
}

// look asks the other ends of one's own links whether they live, forgets those that are silent, and has walkers look for as many
// new ones as are missing. The other end notices that it is not asked any more.
func (a act) look() {
	a.arm(a.u.o.Period)
	for i := len(a.u.links[a.self]) - 1; i >= 0; i-- {
		l := &a.u.links[a.self][i]
		if l.mine && l.missed == patience || !l.mine && a.now-l.heard > (patience+1)*a.u.o.Period {
			a.u.remove(a.self, i)
		} else if l.mine {
			l.missed++
			a.env.Send(l.who, peer.Event{Kind: ping})
		}
	}
	if missing := a.u.o.Links - a.u.own(a.self); missing > 0 && (a.n.sought == 0 || a.now-a.n.sought > int64(a.u.o.Walk)*a.u.o.Hop) {
		a.n.wanted, a.n.sought = peer.Tag(a.env.Rand())|1, a.now
		for range missing {
			a.seek()
		}
	}
}

// seek sends a walker out for a link: three times out of four from a member that was heard of, else from a neighbour. The
// former may be dead; but deaths may have parted the graph, and walkers from neighbours alone would never join the parts again.
func (a act) seek() {
	ev, via := peer.Event{Kind: seek, Tag: a.n.wanted, Hops: uint16(a.u.o.Walk)}, peer.Nobody
	n := len(a.u.links[a.self])
	switch {
	case a.n.knows > 0 && (n == 0 || a.draw(4) > 0):
		via = a.u.contacts(a.self)[a.draw(int(a.n.knows))]
	case n > 0:
		via, ev.Num = a.u.links[a.self][a.draw(n)].who, uint64(n)
	}
	if via != peer.Nobody {
		a.env.Send(via, ev, a.me)
	}
}

// onSeek moves a walker on, or offers a link where its walk ends. Where all shall be equal, a walker that comes from a node with
// n links to one with more, k, stays with the chance n/k and turns back else (Metropolis and Hastings).
func (a act) onSeek(ev *peer.Event) {
	who, all := ev.Peers[0], a.u.links[a.self]
	steps := min(int(ev.Hops), a.u.o.Walk)
	next := peer.Event{Kind: seek, Tag: ev.Tag, Num: uint64(len(all)), Hops: uint16(max(steps-1, 0))}
	k := uint64(len(all))
	if back := !a.u.o.ScaleFree && ev.Num > 0 && ev.Num < k && a.env.Rand()%k >= ev.Num; back && ev.From != who {
		next.Num = 0 // it has been there: it does not turn back from there
		a.env.Send(ev.From, next, who)
		return
	}
	if steps > 0 && len(all) > 0 {
		a.env.Send(all[a.draw(len(all))].who, next, who)
		return
	}
	if who == a.me || a.env.ID(who) == a.env.ID(a.me) {
		a.n.sought = 0 // its next look sends another
		return
	}
	if i := a.u.index(a.self, who); i < 0 {
		a.u.links[a.self] = append(all, link{heard: a.now, who: who})
		a.env.Send(who, peer.Event{Kind: offer, Tag: ev.Tag})
	} else {
		a.env.Send(who, peer.Event{Kind: offer, Tag: ev.Tag, Flags: no})
	}
}

// onOffer takes a link that a walker has found, unless there are enough.
func (a act) onOffer(ev *peer.Event) {
	if ev.Tag != a.n.wanted || ev.Tag == 0 || a.u.own(a.self) >= a.u.o.Links {
		if ev.Flags&no == 0 && a.u.index(a.self, ev.From) < 0 {
			a.env.Send(ev.From, peer.Event{Kind: part})
		}
		return
	}
	switch i := a.u.index(a.self, ev.From); {
	case ev.Flags&no == 0 && i < 0:
		a.u.links[a.self] = append(a.u.links[a.self], link{heard: a.now, who: ev.From, mine: true})
	case ev.Flags&no == 0:
		a.u.links[a.self][i].mine = true // both wanted one
	default:
		a.n.sought = 0
		if i < 0 {
			a.env.Send(ev.From, peer.Event{Kind: part}) // it thinks that there is one
		}
	}
	if a.u.own(a.self) == a.u.o.Links {
		a.n.sought = 0
	}
}

// cut ends a link that the other end has ended.
func (a act) cut(p peer.Peer) {
	if i := a.u.index(a.self, p); i >= 0 {
		a.u.remove(a.self, i)
	}
}

func (a act) onPing(p peer.Peer) {
	if i := a.u.index(a.self, p); i >= 0 {
		a.u.links[a.self][i].heard = a.now
	} else {
		a.u.links[a.self] = append(a.u.links[a.self], link{heard: a.now, who: p}) // its end of the link is there
	}
	all := a.u.links[a.self]
	if other := all[a.draw(len(all))].who; other != p {
		a.env.Send(p, peer.Event{Kind: pong}, other)
	} else {
		a.env.Send(p, peer.Event{Kind: pong})
	}
}

func (a act) onPong(ev *peer.Event) {
	i := a.u.index(a.self, ev.From)
	if i < 0 || !a.u.links[a.self][i].mine {
		return
	}
	if ev.Flags&no != 0 {
		a.u.remove(a.self, i)
		return
	}
	l := &a.u.links[a.self][i]
	l.missed, l.heard = 0, a.now
	if len(ev.Peers) == 1 && ev.Peers[0] != a.me {
		a.remember(ev.Peers[0])
	}
}

// renew is how many members are heard of for one that is remembered, once there are enough: what is remembered must outlive the
// time that it takes to notice that the graph has parted, for after that those of the own part alone are heard of.
const renew = 32

// remember keeps a member for when links are missing, in place of the one remembered longest.
func (a act) remember(p peer.Peer) {
	known := a.u.contacts(a.self)
	if slices.Contains(known[:a.n.knows], p) {
		return
	}
	if int(a.n.knows) < len(known) {
		known[a.n.knows] = p
		a.n.knows++
		return
	}
	if a.draw(renew) > 0 {
		return
	}
	known[int(a.n.next)%len(known)] = p
	a.n.next = uint8((int(a.n.next) + 1) % len(known))
}

// Settle grows the graph at once, as it would grow if the slots came one after the other, in an order drawn evenly.
func (u *Unstructured) Settle(dir peer.Directory) {
	n, draw := len(u.nodes), uint64(0)
	even := func(k int) int {
		draw = peer.Mix(draw + 1)
		return int(draw % uint64(k))
	}
	order := make([]peer.Slot, n)
	for s := range order {
		u.Reset(peer.Slot(s))
		order[s] = peer.Slot(s)
		j := even(s + 1)
		order[s], order[j] = order[j], order[s]
	}
	first := min(n, 2*u.o.Links+1)
	var ends []peer.Slot // each node as often as it has links
	for i, s := range order {
		if i < first { // they stand in a circle
			for next := 1; next <= u.o.Links; next++ {
				if t := order[(i+next)%first]; t != s && u.index(s, dir.Self(t)) < 0 {
					u.join(dir, s, t)
					ends = append(ends, s, t)
				}
			}
			continue
		}
		for made := 0; made < u.o.Links; {
			var t peer.Slot
			if u.o.ScaleFree {
				t = ends[even(len(ends)-made)] // not those of its own, which stand at the end
			} else if t = order[even(n)]; t == s {
				continue
			}
			if u.index(s, dir.Self(t)) >= 0 {
				continue
			}
			u.join(dir, s, t)
			made++
			ends = append(ends, t)
		}
		for range u.o.Links {
			ends = append(ends, s)
		}
	}
	for s := range u.nodes {
		known := u.contacts(peer.Slot(s))
		for u.nodes[s].knows = 0; int(u.nodes[s].knows) < min(len(known), n-1); {
			if p := dir.Self(peer.Slot(even(n))); p != dir.Self(peer.Slot(s)) {
				known[u.nodes[s].knows] = p
				u.nodes[s].knows++
			}
		}
	}
}

// join links two slots, by the wish of the first.
func (u *Unstructured) join(dir peer.Directory, s, t peer.Slot) {
	u.links[s] = append(u.links[s], link{who: dir.Self(t), mine: true})
	u.links[t] = append(u.links[t], link{who: dir.Self(s)})
}
