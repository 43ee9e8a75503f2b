// Package graph measures graphs of many nodes, and says what theory knows of random ones with given degrees. It knows no
// protocol. Start at [New] and at [Degrees]; measure.go counts, random.go reckons.
package graph

import "slices"

// Graph has undirected links between nodes 0 … n−1, some of which may be gone.
type Graph struct {
	from  []int // where in to a node's links begin; one more than nodes
	to    []uint32
	gone  []bool
	nodes int // that are not gone
}

// New makes the graph in which two nodes are linked when either names the other. Out appends whom a node names; it is not asked
// of nodes that are gone, and names of those are left out.
func New(n int, gone func(int) bool, out func(i int, into []uint32) []uint32) *Graph {
	g := &Graph{from: make([]int, n+1), gone: make([]bool, n)}
	for i := range n {
		if g.gone[i] = gone(i); !g.gone[i] {
			g.nodes++
		}
	}
	var named []uint32
	each := func(f func(a, b uint32)) {
		for i := range n {
			if g.gone[i] {
				continue
			}
			named = out(i, named[:0])
			for _, j := range named {
				if int(j) != i && !g.gone[j] {
					f(uint32(i), j)
				}
			}
		}
	}
	each(func(a, b uint32) { g.from[a+1]++; g.from[b+1]++ })
	for i := range n {
		g.from[i+1] += g.from[i]
	}
	g.to = make([]uint32, g.from[n])
	next := slices.Clone(g.from)
	each(func(a, b uint32) {
		g.to[next[a]], g.to[next[b]] = b, a
		next[a]++
		next[b]++
	})
	kept := 0 // links that are named from both sides, or twice, are one
	for i := range n {
		mine := g.to[g.from[i]:g.from[i+1]]
		slices.Sort(mine)
		mine = slices.Compact(mine)
		g.from[i] = kept
		kept += copy(g.to[kept:], mine)
	}
	g.from[n], g.to = kept, g.to[:kept]
	return g
}

// Nodes is how many are not gone.
func (g *Graph) Nodes() int { return g.nodes }

// Edges is how many links there are.
func (g *Graph) Edges() int { return len(g.to) / 2 }

// Links are a node's.
func (g *Graph) Links(i int) []uint32 { return g.to[g.from[i]:g.from[i+1]] }

// Degree is how many links a node has.
func (g *Graph) Degree(i int) int { return g.from[i+1] - g.from[i] }
