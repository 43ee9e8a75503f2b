package cyclon

import (
	"slices"

	"servent/peer"
)

// view are a slot's neighbours, and how many cycles ago each said of itself that it lives.
func (c *Cyclon) view(self peer.Slot) ([]peer.Peer, []uint8) {
	from, has := int(self)*c.o.View, int(c.nodes[self].has)
	return c.views[from:][:has], c.ages[from:][:has]
}

func (c *Cyclon) index(self peer.Slot, p peer.Peer) int {
	view, _ := c.view(self)
	return slices.Index(view, p)
}

// add puts a peer into a view, if there is room.
func (c *Cyclon) add(self peer.Slot, p peer.Peer, age uint8) bool {
	n := &c.nodes[self]
	if int(n.has) == c.o.View {
		return false
	}
	n.has++
	view, ages := c.view(self)
	view[n.has-1], ages[n.has-1] = p, age
	return true
}

// remove takes the i-th out of a view.
func (c *Cyclon) remove(self peer.Slot, i int) {
	view, ages := c.view(self)
	last := len(view) - 1
	view[i], ages[i] = view[last], ages[last]
	c.nodes[self].has--
}

// shuffle brings up to n of the view, drawn evenly, to its front, and returns how many.
func (a act) shuffle(n int) int {
	view, ages := a.c.view(a.self)
	n = min(n, len(view))
	for i := range n {
		j := i + a.draw(len(view)-i)
		view[i], view[j] = view[j], view[i]
		ages[i], ages[j] = ages[j], ages[i]
	}
	return n
}

// take puts what came into the view: into empty places first, then in place of those that were given away. Who is
// known already keeps the age that is known.
func (a act) take(ev *peer.Event, gave []peer.Peer) {
	me := a.env.ID(a.me)
	for i, p := range ev.Peers {
		if p == a.me || a.env.ID(p) == me || a.c.index(a.self, p) >= 0 || a.c.add(a.self, p, ev.Data[i]) {
			continue
		}
		at := -1
		for len(gave) > 0 && at < 0 {
			at, gave = a.c.index(a.self, gave[0]), gave[1:]
		}
		if at < 0 {
			return // no room is left
		}
		view, ages := a.c.view(a.self)
		view[at], ages[at] = p, ev.Data[i]
	}
}

// Adopt gives a slot a view of fresh neighbours.
func (c *Cyclon) Adopt(self peer.Slot, view ...peer.Peer) {
	c.Reset(self)
	for _, p := range view {
		c.add(self, p, 0)
	}
}

// Settle gives every slot the view that it could have if all had been members for long: others drawn evenly, of all ages.
func (c *Cyclon) Settle(dir peer.Directory) {
	n := len(c.nodes)
	for s := range peer.Slot(n) {
		c.Reset(s)
		draw := peer.Mix(uint64(s))
		for want := min(c.o.View, n-1); int(c.nodes[s].has) < want; {
			draw = peer.Mix(draw)
			if p := dir.Self(peer.Slot(draw % uint64(n))); p != dir.Self(s) && c.index(s, p) < 0 {
				c.add(s, p, c.nodes[s].has)
			}
		}
	}
}

// Links appends who a slot knows.
func (c *Cyclon) Links(self peer.Slot, into []peer.Peer) []peer.Peer {
	view, _ := c.view(self)
	return append(into, view...)
}
