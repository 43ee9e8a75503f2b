package law

import (
	"fmt"
	"math"
	"slices"
)

// Keys is how requests are spread over keys and keys over nodes.
type Keys struct {
	Count      int     // 0: every request has a key of its own, and owners are equal
	Theta      float64 // Zipf exponent: the i-th key is drawn in proportion to i^−θ; 0 is uniform
	Partitions int     // that keys are divided into; 0 means 4096
	Owners     []int   // of each partition; nil: equal stretches of partitions in the order of nodes
}

func (k Keys) check(nodes int) error {
	if k.Count < 0 || k.Theta < 0 || math.IsNaN(k.Theta) || math.IsInf(k.Theta, 0) || k.Partitions < 0 {
		return fmt.Errorf("keys: want no negative figures, have %d keys, θ %v, %d partitions", k.Count, k.Theta, k.Partitions)
	}
	if k.Owners != nil && len(k.Owners) != k.partitions() {
		return fmt.Errorf("keys: owners of %d partitions, want %d", len(k.Owners), k.partitions())
	}
	for p, o := range k.Owners {
		if o < 0 || o >= nodes {
			return fmt.Errorf("keys: partition %d belongs to node %d of %d", p, o, nodes)
		}
	}
	return nil
}

func (k Keys) partitions() int {
	if k.Partitions == 0 {
		return 4096
	}
	return k.Partitions
}

// owner of a key. Keys fall into partitions by a hash of their number, the same for every number of nodes.
func (k Keys) owner(key, nodes int) int {
	p := below(mix(uint64(key)+0x632be59bd9b4e019), k.partitions())
	if k.Owners != nil {
		return k.Owners[p]
	}
	return p * nodes / k.partitions()
}

// cumulative is the share of requests for keys 0…i.
func (k Keys) cumulative() []float64 {
	c := make([]float64, k.Count)
	sum := 0.0
	for i := range c {
		sum += math.Pow(float64(i+1), -k.Theta)
		c[i] = sum
	}
	for i := range c {
		c[i] /= sum
	}
	return c
}

// Shares of all requests that each node owns.
func (k Keys) Shares(nodes int) ([]float64, error) {
	if nodes < 1 {
		return nil, fmt.Errorf("keys: want 1 or more nodes, have %d", nodes)
	}
	if err := k.check(nodes); err != nil {
		return nil, err
	}
	shares := make([]float64, nodes)
	if k.Count == 0 {
		for i := range shares {
			shares[i] = 1 / float64(nodes)
		}
		return shares, nil
	}
	before := 0.0
	for i, c := range k.cumulative() {
		shares[k.owner(i, nodes)] += c - before
		before = c
	}
	return shares, nil
}

// Hottest is the share of the most wanted key, p₁ = 1/H(K, θ); 0 without keys. No division of keys over nodes
// can serve more than μ/p₁.
func (k Keys) Hottest() float64 {
	if k.Count == 0 {
		return 0
	}
	return 1 / Harmonic(k.Count, k.Theta)
}

// at finds the first place whose cumulative share is not below u.
func at(cumulative []float64, u float64) int {
	i, _ := slices.BinarySearch(cumulative, u)
	return min(i, len(cumulative)-1)
}
