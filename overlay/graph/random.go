package graph

import "math"

// Degrees says which share of the nodes of a graph has k links. What follows holds for large graphs that are random but for it:
// near a node they are trees, so generating functions do (Newman, Strogatz and Watts, Phys. Rev. E 64, 026118, 2001).
type Degrees []float64

// ShiftedPoisson is the law of nodes that choose m others evenly: m links of their own, and as many from others as
// chance gives, Poisson with the mean m.
func ShiftedPoisson(m int) Degrees {
	mean := float64(m)
	p := make(Degrees, m+int(mean+12*math.Sqrt(mean)+12))
	term := math.Exp(-mean)
	for k := m; k < len(p); k++ {
		p[k] = term
		term *= mean / float64(k-m+1)
	}
	return p
}

// Preferential is the law of growth by preferential attachment with m links a newcomer (Barabási and Albert, Science 286, 1999),
// exactly P(k) = 2m(m+1)/(k(k+1)(k+2)) from k = m on (Dorogovtsev, Mendes and Samukhin, PRL 85, 2000; Bollobás et al., RSA 18,
// 2001). In n nodes, one has more than about K = m·√n. What lies beyond, Σ P(k) = m(m+1)/((K+1)(K+2)), is taken to lie at its
// mean, 2(K+1), which leaves the mean of all at 2m.
func Preferential(m, n int) Degrees {
	last := max(m, int(float64(m)*math.Sqrt(float64(n))))
	p, pairs := make(Degrees, 2*last+3), float64(m)*float64(m+1)
	for k := m; k <= last; k++ {
		x := float64(k)
		p[k] = 2 * pairs / (x * (x + 1) * (x + 2))
	}
	p[2*last+2] = pairs / float64(last+1) / float64(last+2)
	return p
}

// Mean is a node's number of links.
func (p Degrees) Mean() float64 { return p.slope(1) }

// SD is how it spreads.
func (p Degrees) SD() float64 {
	squares, mean := 0.0, p.Mean()
	for k, share := range p {
		squares += share * float64(k) * float64(k)
	}
	return math.Sqrt(max(squares-mean*mean, 0))
}

// at is Σ P(k)·z^k, the chance that no link of a node does what each fails to do with the chance z.
func (p Degrees) at(z float64) float64 {
	sum := 0.0
	for k := len(p) - 1; k >= 0; k-- {
		sum = sum*z + p[k]
	}
	return sum
}

// slope is Σ k·P(k)·z^(k−1).
func (p Degrees) slope(z float64) float64 {
	sum := 0.0
	for k := len(p) - 1; k >= 1; k-- {
		sum = sum*z + float64(k)*p[k]
	}
	return sum
}

// Clustering is the chance that two neighbours are linked: (⟨k²⟩−⟨k⟩)²/(N·⟨k⟩³) (Newman, SIAM Review 45, 2003, §IV.B).
func (p Degrees) Clustering(n int) float64 {
	mean, sd := p.Mean(), p.SD()
	pairs := sd*sd + mean*mean - mean
	return pairs * pairs / (float64(n) * mean * mean * mean)
}

// Ball is what lies within a distance of a node drawn evenly.
type Ball struct {
	Nodes float64 // share of all
	Cost  float64 // messages of a flood that goes so far, a node: every node within less of it sends to all neighbours but the one it heard from
}

// Balls are those of 0, 1, 2 … links, until nearly all nodes lie within. x is the chance that nothing within t−1 links is
// met behind a link: G0(x) of the nodes are not reached, and of those with k links x^k.
func (p Degrees) Balls(n int) []Ball {
	mean, size := p.Mean(), float64(n)
	balls := []Ball{{Nodes: 1 / size}}
	out := 1 - 1/size // not the source
	for x := out; len(balls) < 10_000; x = out * p.slope(x) / mean {
		b := Ball{Nodes: 1 - out*p.at(x)}
		if len(balls) == 1 {
			b.Cost = mean / size
		}
		balls = append(balls, b)
		if last := balls[len(balls)-2]; size*(1-b.Nodes) < 1e-3 || size*(b.Nodes-last.Nodes) < 1e-6 {
			break
		}
	}
	// A flood that goes t links has the cost of all nodes within t−1: k−1 messages each, and one more of the source.
	x := out
	for t := 2; t < len(balls); t++ {
		balls[t].Cost = mean - 1 - out*(x*p.slope(x)-p.at(x)) + 1/size
		x = out * p.slope(x) / mean
	}
	return balls
}

// PathLength is the mean distance of two nodes.
func (p Degrees) PathLength(n int) float64 {
	balls := p.Balls(n)
	sum, all := 0.0, balls[len(balls)-1].Nodes-balls[0].Nodes
	for d := 1; d < len(balls); d++ {
		sum += float64(d) * (balls[d].Nodes - balls[d-1].Nodes)
	}
	return sum / all
}

// Survivors is the share of those left that are in the largest component when a share of the nodes, drawn evenly, is gone
// (Callaway, Newman, Strogatz and Watts, PRL 85, 5468, 2000).
func (p Degrees) Survivors(gone float64) float64 {
	mean := p.Mean()
	u := fixed(func(u float64) float64 { return gone + (1-gone)*p.slope(u)/mean })
	return 1 - p.at(u)
}

// Attacked is the same when the nodes with most links are gone (ibid.).
func (p Degrees) Attacked(gone float64) float64 {
	left, mean := append(Degrees(nil), p...), p.Mean()
	for k, still := len(left)-1, gone; k >= 0 && still > 0; k-- {
		cut := min(still, left[k])
		left[k] -= cut
		still -= cut
	}
	u := fixed(func(u float64) float64 { return 1 - left.slope(1)/mean + left.slope(u)/mean })
	return (left.at(1) - left.at(u)) / max(1-gone, 1e-12)
}

// fixed is the least u with f(u) = u: the limit from 0.
func fixed(f func(float64) float64) float64 {
	u := 0.0
	for range 10_000 {
		next := min(f(u), 1)
		if next-u < 1e-12 {
			return next
		}
		u = next
	}
	return u
}
