package ring

import "servent/peer"

// Settle gives every slot the neighbours that it would have if all had been one ring for long; each takes
// part in it from the [peer.Join] on that it is given next. It saves simulations the time until a ring is
// whole: nothing else can know all members at once.
func (r *Ring) Settle(dir peer.Directory) {
	n := len(r.nodes)
	order := peer.Sorted(dir, n)
	at := func(i int) peer.Peer { return dir.Self(order[(i%n+n)%n]) }
	for i, s := range order {
		r.Reset(s)
		d := &r.nodes[s]
		d.owns, d.low, d.epoch = true, dir.ID(at(i-1)), 1
		if n == 1 {
			return
		}
		d.agreed, d.pred, d.older = true, at(i-1), at(i-2)
		if n == 2 {
			d.older = peer.Nobody
		}
		d.limit, d.limited = d.low, true
		d.nexts, d.known = uint8(min(n-1, r.o.Successors)), uint8(min(n-1, r.o.Contacts))
		for j := range r.nexts(s) {
			r.nexts(s)[j] = at(i + 1 + j)
		}
		near := min((r.o.Contacts+1)/2, int(d.known))
		for j := range r.known(s) {
			step := 1 + j
			if far := int(d.known) - near; j >= near { // the others lie evenly round the ring
				step = near + (j-near+1)*(n-1-near)/far
			}
			r.known(s)[j] = at(i + step)
		}
	}
}

// Reset makes a slot forget all, as a process that ends does.
func (r *Ring) Reset(self peer.Slot) {
	r.nodes[self] = node{pred: peer.Nobody, older: peer.Nobody}
	r.dead(self).Empty()
	open := r.open(self)
	for i := range open {
		open[i] = question{next: uint16(i + 1)}
	}
}

// OfLookup says whether a message is a lookup's, on its way or back; the others are upkeep.
func OfLookup(k peer.Kind) bool { return k == look || k == answer }
