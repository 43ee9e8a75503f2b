package law

import (
	"fmt"

	"servent/overlay"
	"servent/overlay/kademlia"
	"servent/overlay/pastry"
	"servent/system"
)

// onOverlay says whether lookups go over members that own keys, each entered by any.
func onOverlay(a system.Architecture) bool { return onCircle(a) || byPrefix(a) }

// byPrefix says whether members are known by the bits that they share: their lookups have laws of their own.
func byPrefix(a system.Architecture) bool { return a == system.Pastry || a == system.Kademlia }

func prefixLaw(a system.Architecture, nodes int) overlay.Law {
	if a == system.Kademlia {
		return overlay.KademliaLaw(nodes, kademlia.K)
	}
	return overlay.PastryLaw(nodes, pastry.Leaves)
}

// prefix charges the lookups. Kademlia's asker pays for every question, one for each hop with α = 1. Under Pastry it pays for the
// first hop, and whoever lies on the way, evenly drawn, for the others.
func (e *Expected) prefix(a system.Architecture, c Cluster, shares []float64, pass float64) {
	n, hops := float64(c.Nodes), prefixLaw(a, c.Nodes).Mean
	if c.Nodes == 1 {
		return
	}
	others := 0.0 // keys that are not the entry's own
	for _, p := range shares {
		others += (1 - p) / n
	}
	further := hops - (n-1)/n // after the first, from members that own alike
	for i, p := range shares {
		first := (1 - p) / n
		passes := first + further/n
		if a == system.Kademlia {
			passes = first * (1 + further/others)
		}
		e.add(i, passes, pass)
		e.Lookups += passes
	}
}

func (e *Expected) prefixWords(a system.Architecture, c Cluster) {
	h, source := "log16 N", fmt.Sprintf("Rowstron and Druschel, Middleware 2001, §2.3, with a leaf set of %d", pastry.Leaves)
	if a == system.Kademlia {
		h, source = "log2(N/k)/log2 k", fmt.Sprintf("Maymounkov and Mazières, IPTPS 2002, §2.3, with k = %d and α = 1", kademlia.K)
	}
	e.Formula = "N·c·μ/(1 + h·pass/serve), h ≈ " + h + " + (N−1)/N"
	if c.Shares != nil {
		e.Formula = "c/max_i D_i, D_i = p_i·serve + pass·(lookups through i + (1−p_i)/N), about " + h + " of them in all"
	}
	e.Source = source + ": " + prefixLaw(a, c.Nodes).Source + "; " + e.Source
}
