package system

import (
	"cmp"
	"slices"
)

// Owner is the rule by which the members on a circle own what falls on it.
type Owner uint8

const (
	Successor Owner = iota // the member that stands where it falls, or first after it
	Closest                // the member that is numerically nearest, on either side
	XOR                    // the member whose place XOR it is the least number
)

// Ranges divides the circle among sorted members by the rule. A range has one owner and reaches from the one before it up
// to its own place, so [Places.Of], [Places.Between] and [Places.Share] speak of ranges under every rule. By XOR a member
// may own several: at most 2⁶⁴ divided by the least distance of two members, twice that in all.
func (o Owner) Ranges(members Places) Places {
	switch {
	case len(members) < 2 || o == Successor:
		return members
	case o == XOR:
		return merged(subtree(nil, members, 0, 64))
	}
	out := make(Places, len(members))
	for i, m := range members {
		next := members[(i+1)%len(members)].At
		out[i] = Place{m.Instance, m.At + (next-m.At)/2} // who is as near on both sides is the lower one's
	}
	slices.SortFunc(out, func(a, b Place) int { return cmp.Compare(a.At, b.At) })
	return out
}

// subtree divides the 2^bits places from first on among members whose higher bits do not matter any more: they are alike, or
// as far away from all that fall here. Where one half of a subtree has no member, its keys go to the other
// half's, as if their first bit were the other.
func subtree(into, members Places, first uint64, bits int) Places {
	if len(members) == 1 || bits == 0 {
		return append(into, Place{members[0].Instance, first | ^uint64(0)>>(64-bits)})
	}
	half := uint64(1) << (bits - 1)
	var halves [2]Places
	for _, m := range members {
		i := m.At >> (bits - 1) & 1
		halves[i] = append(halves[i], m)
	}
	for i, in := range halves {
		if len(in) == 0 {
			in = members
		}
		into = subtree(into, in, first+uint64(i)*half, bits-1)
	}
	return into
}

// merged joins neighbouring ranges of one owner.
func merged(ranges Places) Places {
	out := ranges[:0]
	for i, r := range ranges {
		if i+1 == len(ranges) || ranges[i+1].Instance != r.Instance {
			out = append(out, r)
		}
	}
	return out
}
