package pastry

import (
	"slices"

	"servent/peer"
)

// Settle gives every slot the leaf set and table that it could have if all had been members for long: in each place of
// the table one of those who belong there, evenly drawn. It saves simulations the time until they have met.
func (p *Pastry) Settle(dir peer.Directory) {
	slots := peer.Sorted(dir, len(p.nodes))
	for _, s := range slots {
		p.Reset(s)
		p.nodes[s].placed, p.nodes[s].epoch = true, 1
	}
	n := len(slots)
	half := min(p.o.Leaves/2, n-1)
	ids := make([]peer.ID, n)
	for i, s := range slots {
		ids[i] = dir.ID(dir.Self(s))
		p.nodes[s].ups, p.nodes[s].downs = uint8(half), uint8(half)
		for j := range half {
			p.ups(s)[j], p.downs(s)[j] = dir.Self(slots[(i+1+j)%n]), dir.Self(slots[(i+2*n-1-j)%n])
		}
	}
	p.settle(dir, slots, ids, 0)
}

// settle handles those who share a prefix of so many digits.
func (p *Pastry) settle(dir peer.Directory, slots []peer.Slot, ids []peer.ID, row int) {
	if len(slots) < 2 || row == p.o.Rows {
		return
	}
	var edge [digits + 1]int
	for d := 1; d < digits; d++ {
		edge[d], _ = slices.BinarySearchFunc(ids, d, func(id peer.ID, d int) int { return digit(id, row) - d })
	}
	edge[digits] = len(slots)
	for d := range digits {
		others := slots[edge[d]:edge[d+1]]
		if len(others) == 0 {
			continue
		}
		for i, s := range slots {
			if i < edge[d] || i >= edge[d+1] {
				p.entries(s)[row*digits+d] = dir.Self(others[peer.Mix(uint64(s)<<16|uint64(row)<<8|uint64(d))%uint64(len(others))])
			}
		}
		p.settle(dir, others, ids[edge[d]:edge[d+1]], row+1)
	}
}
