package study

import (
	"sort"

	"servent/peer"
	"servent/peer/keyspace"
)

// closest is the node that lives whose place is numerically nearest to a key, on the circle.
func (r *run) closest(key peer.ID) peer.Peer {
	n := r.o.Nodes
	above := sort.Search(n, func(i int) bool { id := r.net.ID(peer.Peer(i)); return string(id[:]) >= string(key[:]) }) % n
	below := (above + n - 1) % n
	for i := 0; i < n && r.net.Down(peer.Slot(above)); i++ {
		above = (above + 1) % n
	}
	for i := 0; i < n && r.net.Down(peer.Slot(below)); i++ {
		below = (below + n - 1) % n
	}
	up, down := keyspace.Distance(key, r.net.ID(peer.Peer(above))), keyspace.Distance(r.net.ID(peer.Peer(below)), key)
	if string(up[:]) < string(down[:]) {
		return peer.Peer(above)
	}
	return peer.Peer(below)
}

// nearest is the other dumb twin: the node that lives whose place is nearest to a key by XOR, but one. Places are sorted, so
// those that share leading bits lie together: of each half the key's own is searched first.
func (r *run) nearest(key peer.ID, but peer.Peer) peer.Peer {
	return r.among(0, r.o.Nodes, 0, key, but)
}

func (r *run) among(from, to, bit int, key peer.ID, but peer.Peer) peer.Peer {
	if to-from == 1 || bit == 8*len(key) {
		for s := from; s < to; s++ {
			if peer.Peer(s) != but && !r.net.Down(peer.Slot(s)) {
				return peer.Peer(s)
			}
		}
		return peer.Nobody
	}
	if to == from {
		return peer.Nobody
	}
	mid := from + sort.Search(to-from, func(i int) bool { return bitOf(r.net.ID(peer.Peer(from+i)), bit) == 1 })
	own, other := [2]int{from, mid}, [2]int{mid, to}
	if bitOf(key, bit) == 1 {
		own, other = other, own
	}
	if p := r.among(own[0], own[1], bit+1, key, but); p != peer.Nobody {
		return p
	}
	return r.among(other[0], other[1], bit+1, key, but)
}

func bitOf(id peer.ID, bit int) byte { return id[bit/8] >> (7 - bit%8) & 1 }
