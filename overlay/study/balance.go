package study

import (
	"bytes"
	"math"
	"math/rand/v2"
	"slices"
	"sort"

	"servent/peer"
	"servent/peer/sim"
)

// Balance is how evenly keys lie on nodes of a circle: the 1st and 99th percentile of a node's share, in parts of
// the mean one. Every part of the circle is taken to hold as many keys as it is long.
type Balance struct {
	P1  float64 `json:"p1"`
	P99 float64 `json:"p99"`
}

const (
	// places of each node, where it has several: "20 virtual nodes" of Stoica et al., ToN 11(1), 2003, §VI.B.
	virtual = 20
	// virtualMost is how many nodes are given so many places: more take long, and show the same.
	virtualMost = 50_000
)

// What is known of N → ∞: places drawn evenly leave gaps that are distributed exponentially, so the sum of v of them,
// in parts of the mean, is Gamma(v)/v: quantiles of χ² with 2v degrees of freedom, divided by 2v.
var (
	oneLaw     = Balance{P1: -math.Log(0.99), P99: math.Log(100)}
	virtualLaw = Balance{P1: 22.164 / (2 * virtual), P99: 63.691 / (2 * virtual)}
)

// balance gives n nodes so many places each, drawn evenly.
func balance(seed uint64, n, places int) Balance {
	ids := sim.Places(seed, n*places)
	owner := make([]int, len(ids)) // by place: a deal of all of them
	for i := range owner {
		owner[i] = i / places
	}
	if places > 1 {
		rand.New(rand.NewPCG(seed, 2)).Shuffle(len(owner), func(i, j int) { owner[i], owner[j] = owner[j], owner[i] })
	}
	share := make([]float64, n)
	for i, id := range ids {
		before := ids[(i+len(ids)-1)%len(ids)]
		gap := fraction(id) - fraction(before)
		if bytes.Compare(before[:], id[:]) >= 0 {
			gap++ // round the top
		}
		share[owner[i]] += gap * float64(n)
	}
	slices.Sort(share)
	at := func(p float64) float64 {
		return share[sort.Search(n-1, func(i int) bool { return float64(i+1) >= p*float64(n) })]
	}
	return Balance{at(0.01), at(0.99)}
}

// fraction is how far round the circle a place lies, 0 to 1.
func fraction(id peer.ID) float64 {
	x := 0.0
	for i := 7; i >= 0; i-- {
		x = (x + float64(id[i])) / 256
	}
	return x
}
