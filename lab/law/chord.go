package law

import (
	neighbours "servent/overlay/ring"
	"servent/system"
)

// onCircle says whether lookups go over the members of a circle.
func onCircle(a system.Architecture) bool { return a == system.Ring || a == system.Chord }

// chordSteps says how many members the owner still lies ahead after one hop of a Chord lookup, for each 0 … n−1 that
// it lay ahead before. Members stand at equal distances, fingers are full, and the successors of [neighbours.Successors]
// are known. The rule is that of Stoica et al., ToN 2003, §IV.D: to the owner where it is among the successors,
// else to the farthest known member before the key. Finger i is the owner of the place 2^-i of the circle ahead,
// ⌈n/2^i⌉ members.
func chordSteps(n int) []int32 {
	known := make([]int, 0, neighbours.Successors+64) // members ahead, the nearest first
	for s := 1; s <= min(neighbours.Successors, n-1); s++ {
		known = append(known, s)
	}
	for i := 62; i > 0; i-- {
		if s := (n-1)>>i + 1; s > neighbours.Successors && s < n && s > known[len(known)-1] {
			known = append(known, s)
		}
	}
	left := make([]int32, n)
	far := 0 // the farthest of known before the key
	for d := neighbours.Successors + 1; d < n; d++ {
		for far+1 < len(known) && known[far+1] < d {
			far++
		}
		left[d] = int32(d - known[far])
	}
	return left
}

// chord charges the lookups. Of an owner t members ahead of a node, as many of the N entries send through it as
// there are ways that come by with t left.
func (e *Expected) chord(c Cluster, shares []float64, pass float64) {
	n, left := c.Nodes, chordSteps(c.Nodes)
	ways := make([]float64, n)
	for d := n - 1; d > 0; d-- {
		ways[d]++ // the entry's own
		if left[d] > 0 {
			ways[left[d]] += ways[d]
		}
	}
	for i := range n {
		passes := 0.0
		for t := 1; t < n; t++ {
			passes += shares[(i+t)%n] * ways[t] / float64(n)
		}
		e.add(i, passes, pass)
		e.Lookups += passes
		if c.Shares == nil && i == 0 { // all are alike
			for i := 1; i < n; i++ {
				e.add(i, passes, pass)
			}
			e.Lookups = passes * float64(n)
			return
		}
	}
}
