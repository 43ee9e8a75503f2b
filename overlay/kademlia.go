package overlay

import (
	"fmt"
	"math"

	"servent/overlay/kademlia"
)

// Of a simulated Kademlia, as in its paper: 20 contacts a bucket, three questions at a time.
const (
	kademliaK     = 20
	kademliaAlpha = 3
)

func kademliaRow() Protocol {
	return Protocol{
		Name: "kademlia", Owner: XOR, Means: "each node knows some of every subtree; a lookup asks the nearest by XOR, three at a time",
		New: func(p Plan) Machine {
			return kademlia.New(p.Nodes, kademlia.Options{K: kademliaK, Alpha: kademliaAlpha, Buckets: kademliaBuckets(p.Nodes),
				Lookups: questions(p, kademliaLongest(p)), Period: p.Period})
		},
		OfLookup: kademlia.OfLookup, Upkeep: 2.5, Usual: 30, Longest: kademliaLongest, About: kademliaMessages,
		Join: func(n int) float64 { return float64(n) * kademliaMessages(n) * 2 * math.Log2(float64(n)+2) },
		Law:  func(n int) Law { return KademliaLaw(n, kademliaK) },
	}
}

// kademliaBuckets has one for each subtree with more than K members, and some for the unevenness of places.
func kademliaBuckets(n int) int {
	return int(math.Log2(float64(n)/kademliaK+1)) + 6
}

// kademliaMessages are those that a lookup takes, about: the K nearest are asked, and a few on the way to them.
func kademliaMessages(n int) float64 {
	return 2 * math.Min(float64(n-1), kademliaK-1.5+math.Log10(float64(n)))
}

func kademliaLongest(p Plan) int64 {
	return int64((kademliaMessages(p.Nodes)/2/kademliaAlpha + 6) * 2 * float64(p.Delay))
}

// KademliaLaw is that of one question at a time. A node that is asked knows K random members of the subtree, of M members,
// that the key lies in and it does not, or all when M ≤ K: then the next hop is the owner. Else the one of them nearest to
// the key shares b more bits with it with the chance that K draws have, (1−2^−(b+1))^K − (1−2^−b)^K, and what it knows
// there is of a subtree of M/2^(b+1); it is the owner itself with the chance K/M. The asker's own subtree has N/2^(b+1)
// members with the chance 2^−(b+1). Questions in parallel find some owners a hop earlier.
func KademliaLaw(n, k int) Law {
	x := float64(n)
	if n <= k+1 {
		p := (x - 1) / x
		return Law{Mean: p, SD: math.Sqrt(p * (1 - p)), P99: math.Min(1, x-1), Messages: 2 * (x - 1), Source: "every node knows all, and asks all: one hop, none to itself"}
	}
	const most = 40
	levels := int(math.Log2(x/float64(k))) + 2
	after := make([][most]float64, levels+1) // by subtree of N/2^level members: how hops are distributed
	for level := levels; level >= 1; level-- {
		m, d := x/math.Exp2(float64(level)), &after[level]
		if m <= float64(k) {
			d[1] = 1
			continue
		}
		owner := float64(k) / m
		d[1] = owner
		cdf := 0.0
		for b := 0; cdf < 1-1e-12; b++ {
			up := math.Pow(1-math.Exp2(-float64(b+1)), float64(k))
			for h := 1; h < most; h++ {
				d[h] += (1 - owner) * (up - cdf) * after[min(level+b+1, levels)][h-1]
			}
			cdf = up
		}
	}
	var all [most]float64
	all[0] = 1 / x
	left := 1 - 1/x
	for level := 1; level <= levels; level++ {
		part := (1 - 1/x) * math.Exp2(-float64(level))
		if level == levels {
			part = left
		}
		left -= part
		for h := range all {
			all[h] += part * after[level][h]
		}
	}
	var law Law
	sum, squares := 0.0, 0.0
	seen, p99 := 0.0, -1
	for h, p := range all {
		sum, squares = sum+p*float64(h), squares+p*float64(h)*float64(h)
		if seen += p; p99 < 0 && seen >= 0.99 {
			p99 = h
		}
	}
	law.Mean, law.SD, law.P99 = sum, math.Sqrt(squares-sum*sum), float64(p99)
	law.Source = fmt.Sprintf("one question at a time among buckets of %d, each hop to the nearest of as many random members of the key's subtree; %d in parallel take a little less", k, kademliaAlpha)
	return law
}
