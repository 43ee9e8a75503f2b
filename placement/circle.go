package placement

import (
	"cmp"
	"math/bits"
	"slices"

	"servent/architecture"
	"servent/system"
)

// circle says where the members of the service's ring, or of an overlay that divides keys on one, stand from
// now on. A member keeps its place for as long as it is planned: one that is lost with its node, or waits for its data, comes back to its keys. A
// new one joins when it is ready and takes half of the longest range, so that only those keys get another
// owner; never where keys stand for data on disk. While nobody has been ready yet all ranges are alike.
func (t *turn) circle(p *part) system.Places {
	if row, _ := architecture.Of(p.svc.Architecture); !row.Circle() || p.removed {
		return nil
	}
	byOrdinal(p.active)
	var was system.Places
	if p.was != nil {
		was = p.was.Ring
	}
	var stand system.Places
	var join, all []system.InstanceID
	begun := false // somebody who stands on the ring has answered
	for _, a := range p.active {
		all = append(all, a.Instance)
		state := system.StatePreparing
		if s := t.fleet.state(a); s != nil {
			state = s.State
		}
		i := slices.IndexFunc(was, func(m system.Place) bool { return m.Instance == a.Instance })
		switch {
		case i >= 0:
			stand = append(stand, was[i])
			begun = begun || slices.Contains([]system.State{system.StateReady, system.StateUnhealthy, system.StateBackoff, system.StateDraining}, state)
		case state == system.StateReady:
			join = append(join, a.Instance)
		}
	}
	switch {
	case len(all) == 0:
		return was // nobody is there: whoever comes next under the same name has its keys still
	case len(stand) == 0, !begun && !p.svc.Tied():
		return Circle(nil, all)
	case p.svc.Tied():
		join = nil
	}
	return Circle(stand, join)
}

// turned says in words what becomes of keys when the places on a ring change. Empty: they stay.
func turned(was, is *system.Deployment) string {
	if len(was.Ring) == 0 || len(is.Ring) == 0 {
		return ""
	}
	before, _ := architecture.Of(was.Service.Architecture)
	now, _ := architecture.Of(is.Service.Architecture)
	old, new := before.Owner.Ranges(was.Ring), now.Owner.Ranges(is.Ring)
	// Between two neighbouring places of either all keys have one owner.
	var cuts []uint64
	for _, m := range slices.Concat(old, new) {
		cuts = append(cuts, m.At)
	}
	slices.Sort(cuts)
	moved := 0.0
	for i, at := range cuts {
		if old.Of(at) != new.Of(at) {
			moved += float64(at-cuts[(i+len(cuts)-1)%len(cuts)]) / (1 << 64)
		}
	}
	return leave(is, moved)
}

// Circle gives every new member a place among those that stand on the ring, one after the other in the
// middle between the two that are farthest apart. Where nobody stands yet the distances are alike. The places are sorted.
func Circle(stand system.Places, join []system.InstanceID) system.Places {
	if len(stand) == 0 {
		out := make(system.Places, len(join))
		for i, id := range join {
			at, _ := bits.Div64(uint64(i), 0, uint64(len(join))) // i·2^64/n: of 2^k members, m are exactly m·2^(64−k) apart
			out[i] = system.Place{Instance: id, At: at}
		}
		return out
	}
	out := system.Places(slices.SortedFunc(slices.Values(stand), func(a, b system.Place) int { return cmp.Compare(a.At, b.At) }))
	for _, id := range join {
		longest := 0
		for i := range out {
			if out.Range(i) > out.Range(longest) {
				longest = i
			}
		}
		at := out[longest].At - out.Range(longest)/2
		i, _ := slices.BinarySearchFunc(out, at, func(m system.Place, at uint64) int { return cmp.Compare(m.At, at) })
		out = slices.Insert(out, i, system.Place{Instance: id, At: at})
	}
	return out
}
