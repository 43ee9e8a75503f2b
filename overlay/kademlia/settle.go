package kademlia

import (
	"slices"

	"servent/peer"
)

// Settle gives every slot the buckets that it could have if all had been members for long: K members of each subtree,
// evenly drawn, or all. It saves simulations the time until they have met.
func (k *Kademlia) Settle(dir peer.Directory) {
	slots := peer.Sorted(dir, len(k.nodes))
	ids := make([]peer.ID, len(slots))
	for i, s := range slots {
		k.Reset(s)
		k.nodes[s].round, k.nodes[s].placed = true, true
		ids[i] = dir.ID(dir.Self(s))
	}
	k.settle(dir, slots, ids, 0)
}

// settle handles a subtree: each half knows the other.
func (k *Kademlia) settle(dir peer.Directory, slots []peer.Slot, ids []peer.ID, bit int) {
	if len(slots) < 2 || bit == 8*len(peer.ID{}) {
		return
	}
	if bit == k.o.Buckets-1 { // the last bucket has all
		for _, s := range slots {
			for _, other := range slots[:min(len(slots), k.o.K+1)] {
				if other != s {
					k.add(s, bit, dir.Self(other))
				}
			}
		}
		return
	}
	mid, _ := slices.BinarySearchFunc(ids, byte(1), func(id peer.ID, one byte) int { return int(id[bit/8]>>(7-bit%8)&1) - int(one) })
	for i, s := range slots {
		others := slots[mid:]
		if i >= mid {
			others = slots[:mid]
		}
		draw := peer.Mix(uint64(s)<<8 | uint64(bit))
		for j := range min(len(others), k.o.K) {
			at := j
			for again := len(others) > k.o.K; again; again = slices.Contains(k.bucket(s, bit), dir.Self(others[at])) {
				draw = peer.Mix(draw)
				at = int(draw % uint64(len(others)))
			}
			k.add(s, bit, dir.Self(others[at]))
		}
	}
	k.settle(dir, slots[:mid], ids[:mid], bit+1)
	k.settle(dir, slots[mid:], ids[mid:], bit+1)
}
