package law

import (
	"fmt"
	"math"

	"servent/system"
)

// Cluster is what theory needs to know of a system.
type Cluster struct {
	Nodes     int
	Workers   int       // of one node; 0 means 1
	Rate      float64   // μ: requests a second that one worker serves
	Pass      float64   // requests or datagrams a second that one worker sends onward; 0 means 10·Rate, +Inf for free
	Shares    []float64 // of all requests, that each node serves; nil means equal, where there is a choice
	Hottest   float64   // p₁: share of the hottest key; 0: no key matters
	Switch    float64   // requests a second of a switch in front of all; 0: every node is one, for itself
	RingReply bool      // ring: the owner's answer to a lookup is a datagram that is paid for, too
	RingAck   bool      // ring: and each neighbour's acknowledgement of one
}

// Expected is what the textbook says of an architecture.
type Expected struct {
	Rate    float64   // requests a second at saturation
	Formula string    // with μ: of one worker; c: workers of a node; serve = 1/μ; pass: time to send onward
	Source  string    // and what is derived from it
	Lookups float64   // mean datagrams from node to node until the owner is found
	Passes  float64   // h: mean requests and datagrams sent onward for one request, all nodes together
	Demands []float64 // seconds of work that a mean request brings to each node; a switch is the last
}

// Expect derives the throughput at saturation from work alone. A request brings work to stations: serve =
// 1/μ where it is answered and pass wherever something is sent onward. The operational law of utilisation
// (Denning and Buzen, Computing Surveys 10(3), 1978) bounds it by c over the greatest demand D_i of any station, which is
// reached when every station has enough to do.
//
// A request enters at a node drawn at random. Where that node does not serve it, the node passes it on: one
// pass. So node i with the share p_i serves p_i and passes on (1−p_i)/N of all requests: D_i = p_i·serve +
// (1−p_i)/N·pass, and with equal shares h = (N−1)/N.
//
// On a ring the lookup goes first, from the entry one way round to the owner. From a random entry the owner
// lies 0, 1, …, N−1 hops ahead, each with probability 1/N, so (N−1)/2 datagrams are sent on average. Node i
// sends one when it lies between: for an owner r ≥ 1 hops ahead of i, N−r of the N entries are at or behind i and
// after the owner, so D_i grows by pass·Σ_r p_{i+r}(N−r)/N. Then the request makes its one hop. Where
// acknowledgements and the owner's answer are paid for as well, they add (N−1)/2 and (N−1)/N to h.
//
// Chord is a ring whose lookups take greater steps, ½·log2 N of them for large N with four successors known: see [chordSteps].
//
// Of Pastry and Kademlia the law says how many hops a lookup takes on average: see [prefixLaw].
//
// With equal shares all is symmetric: X = N·c·μ/(1 + h·pass/serve).
func Expect(a system.Architecture, c Cluster) (Expected, error) {
	if c.Workers == 0 {
		c.Workers = 1
	}
	if c.Pass == 0 {
		c.Pass = 10 * c.Rate
	}
	switch {
	case c.Nodes < 1 || c.Workers < 1 || !(c.Rate > 0) || math.IsInf(c.Rate, 0) || !(c.Pass > 0) || !(c.Switch >= 0) || !(c.Hottest >= 0 && c.Hottest <= 1):
		return Expected{}, fmt.Errorf("theory of %s: want positive nodes, workers and rates, have %+v", a, c)
	case c.Shares != nil && len(c.Shares) != c.Nodes:
		return Expected{}, fmt.Errorf("theory of %s: shares of %d nodes, want %d", a, len(c.Shares), c.Nodes)
	}
	if onOverlay(a) && c.Switch > 0 {
		return Expected{}, fmt.Errorf("theory of %s: it is entered at any of its nodes, not by a switch", a)
	}
	if onOverlay(a) && a != system.Ring && (c.RingReply || c.RingAck) {
		return Expected{}, fmt.Errorf("theory of %s: nothing but the way to the owner is paid for", a)
	}
	shares, err := c.shares(a)
	if err != nil {
		return Expected{}, err
	}
	e := Expected{Demands: make([]float64, c.Nodes)}
	n, serve, pass := float64(c.Nodes), 1/c.Rate, 1/c.Pass
	for i, p := range shares {
		e.Demands[i] = p * serve
		if c.Switch == 0 {
			e.add(i, (1-p)/n, pass)
		}
	}
	switch a {
	case system.Ring:
		e.ring(c, shares, pass)
	case system.Chord:
		e.chord(c, shares, pass)
	case system.Pastry, system.Kademlia:
		e.prefix(a, c, shares, pass)
	}
	busiest := 0.0
	for _, d := range e.Demands {
		busiest = math.Max(busiest, d)
	}
	e.Rate = float64(c.Workers) / busiest
	if c.Hottest > 0 && (a == system.Partitioned || onOverlay(a)) {
		e.Rate = math.Min(e.Rate, float64(c.Workers)*c.Rate/c.Hottest)
	}
	if c.Switch > 0 {
		e.Demands = append(e.Demands, 1/c.Switch)
		e.Rate = math.Min(e.Rate, c.Switch)
	}
	e.words(a, c)
	return e, nil
}

func (c Cluster) shares(a system.Architecture) ([]float64, error) {
	shares := make([]float64, c.Nodes)
	switch a {
	case system.Single:
		shares[0] = 1
		if c.Shares != nil {
			copy(shares, c.Shares)
		}
	case system.Replicated, system.Partitioned, system.Ring, system.Chord, system.Pastry, system.Kademlia:
		for i := range shares {
			shares[i] = 1 / float64(c.Nodes)
		}
		if c.Shares != nil {
			copy(shares, c.Shares)
		}
	default:
		return nil, fmt.Errorf("theory of %s: none is stated yet", a)
	}
	sum := 0.0
	for _, p := range shares {
		if !(p >= 0) {
			return nil, fmt.Errorf("theory of %s: %v is no share", a, p)
		}
		sum += p
	}
	if math.Abs(sum-1) > 1e-6 {
		return nil, fmt.Errorf("theory of %s: shares add up to %v, want 1", a, sum)
	}
	return shares, nil
}

// add charges node i with so many passes a request.
func (e *Expected) add(i int, passes, pass float64) {
	e.Demands[i] += passes * pass
	e.Passes += passes
}

// ring charges the lookups. Seen from node i, owners r hops ahead weigh N−r; all sums come from the first in one
// round.
func (e *Expected) ring(c Cluster, shares []float64, pass float64) {
	n := c.Nodes
	sum := 0.0 // Σ_{r=1}^{N−1} p_{i+r}(N−r), for i = 0
	for r := 1; r < n; r++ {
		sum += shares[r] * float64(n-r)
	}
	for i := range n {
		passes := sum / float64(n)
		e.add(i, passes, pass)
		e.Lookups += passes
		if c.RingAck {
			e.add((i+1)%n, passes, pass)
		}
		if c.RingReply {
			e.add(i, shares[i]*float64(n-1)/float64(n), pass)
		}
		// From i to i+1 every owner comes one hop nearer and weighs one more, together 1, but for i+1 itself,
		// which would weigh N and leaves.
		sum += 1 - float64(n)*shares[(i+1)%n]
	}
}

func (e *Expected) words(a system.Architecture, c Cluster) {
	const law = "utilisation law, Denning and Buzen, Computing Surveys 10(3), 1978"
	front := c.Switch > 0
	e.Source = law
	switch a {
	case system.Single:
		e.Formula = "c·μ"
		if front {
			e.Formula = "min(c·μ, 1/s)"
		}
	case system.Replicated:
		e.Formula = "N·c·μ/(1 + h·pass/serve), h = (N−1)/N"
		if front {
			e.Formula = "min(N·c·μ, 1/s)"
		}
	case system.Partitioned:
		e.Formula = "c/max_i(p_i·serve + (1−p_i)/N·pass)"
		if front {
			e.Formula = "min(c·μ/max_i p_i, 1/s)"
		}
	case system.Ring:
		hops, ones := "(N−1)/2", "(N−1)/N"
		if c.RingAck {
			hops = "(N−1)"
		}
		if c.RingReply {
			ones = "2(N−1)/N"
		}
		e.Formula = fmt.Sprintf("N·c·μ/(1 + h·pass/serve), h = %s + %s", hops, ones)
		if c.Shares != nil {
			e.Formula = "c/max_i D_i, D_i = p_i·serve + pass·(Σ_r p_(i+r)(N−r)/N + (1−p_i)/N)"
			if c.RingAck || c.RingReply {
				e.Formula += " and what is sent back"
			}
		}
		e.Source = "owner 0…N−1 hops ahead, each equally likely; " + law
	case system.Chord:
		e.Formula = "N·c·μ/(1 + h·pass/serve), h ≈ ½·log2 N + (N−1)/N"
		if c.Shares != nil {
			e.Formula = "c/max_i D_i, D_i = p_i·serve + pass·(lookups through i + (1−p_i)/N), ½·log2 N of them in all"
		}
		e.Source = "½·log2 N − ½·log2 r + 1, r = 4 successors, counted way by way: Stoica et al., ToN 11(1), 2003, §V.C; " + law
	case system.Pastry, system.Kademlia:
		e.prefixWords(a, c)
	}
	if c.Hottest > 0 && (a == system.Partitioned || onOverlay(a)) {
		e.Formula = "min(" + e.Formula + ", c·μ/p₁)"
		e.Source += "; hottest of K keys p₁ = 1/H(K,θ), Knuth, TAOCP 3, §6.1"
	}
	if front {
		e.Source += "; a switch with s a request"
	}
}
