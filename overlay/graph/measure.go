package graph

import (
	"math"
	"slices"
)

// Spread is how numbers are distributed.
type Spread struct {
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"`
	P1   float64 `json:"p1"`
	P99  float64 `json:"p99"`
	Most float64 `json:"most"`
}

// SpreadOf sorts the numbers.
func SpreadOf(all []int) Spread {
	if len(all) == 0 {
		return Spread{}
	}
	slices.Sort(all)
	sum, squares := 0.0, 0.0
	for _, x := range all {
		sum += float64(x)
		squares += float64(x) * float64(x)
	}
	n := float64(len(all))
	at := func(p float64) float64 { return float64(all[int(math.Ceil(p*n))-1]) }
	return Spread{sum / n, math.Sqrt(max(squares/n-sum*sum/n/n, 0)), at(0.01), at(0.99), float64(all[len(all)-1])}
}

// Degrees are those of the nodes that are not gone.
func (g *Graph) Degrees() []int {
	all := make([]int, 0, g.nodes)
	for i := range g.gone {
		if !g.gone[i] {
			all = append(all, g.Degree(i))
		}
	}
	return all
}

// every picks up to most nodes that are not gone, evenly over their numbers.
func (g *Graph) every(most int) []int {
	var all []int
	for i, seen := 0, 0; i < len(g.gone); i++ {
		if g.gone[i] {
			continue
		}
		if most >= g.nodes || seen*most/g.nodes != (seen+1)*most/g.nodes {
			all = append(all, i)
		}
		seen++
	}
	return all
}

// Clustering is the share of the pairs of a node's neighbours that are linked themselves (Watts and Strogatz, Nature 393, 1998),
// in the mean over up to most nodes with two neighbours or more.
func (g *Graph) Clustering(most int) float64 {
	sum, nodes := 0.0, 0
	marked := make([]int, len(g.gone)) // by whom, plus 1
	for _, i := range g.every(most) {
		links := g.Links(i)
		k := len(links)
		if k < 2 {
			continue
		}
		for _, j := range links {
			marked[j] = i + 1
		}
		found := 0 // each pair twice
		for _, j := range links {
			for _, l := range g.Links(int(j)) {
				if marked[l] == i+1 {
					found++
				}
			}
		}
		sum += float64(found) / float64(k) / float64(k-1)
		nodes++
	}
	if nodes == 0 {
		return 0
	}
	return sum / float64(nodes)
}

// From is how far all nodes are from one: −1 for those that cannot be reached.
func (g *Graph) From(source int) []int {
	far := make([]int, len(g.gone))
	g.walk(source, far, make([]uint32, 0, g.nodes))
	return far
}

// walk goes through all that can be reached, in order of distance, and returns them.
func (g *Graph) walk(source int, far []int, queue []uint32) []uint32 {
	for i := range far {
		far[i] = -1
	}
	far[source] = 0
	queue = append(queue[:0], uint32(source))
	for next := 0; next < len(queue); next++ {
		i := queue[next]
		for _, j := range g.Links(int(i)) {
			if far[j] < 0 {
				far[j] = far[i] + 1
				queue = append(queue, j)
			}
		}
	}
	return queue
}

// PathLength is how far others are in the mean, from up to so many sources, and those that can be reached.
func (g *Graph) PathLength(sources int) float64 {
	far, queue := make([]int, len(g.gone)), make([]uint32, 0, g.nodes)
	sum, pairs := 0.0, 0
	for _, s := range g.every(sources) {
		queue = g.walk(s, far, queue)
		for _, j := range queue[1:] {
			sum += float64(far[j])
		}
		pairs += len(queue) - 1
	}
	if pairs == 0 {
		return 0
	}
	return sum / float64(pairs)
}

// Largest is how many nodes the largest component has when those marked are missing, too; nil marks none.
func (g *Graph) Largest(missing []bool) int {
	seen, queue, largest := make([]bool, len(g.gone)), []uint32(nil), 0
	away := func(i int) bool { return seen[i] || g.gone[i] || missing != nil && missing[i] }
	for i := range g.gone {
		if away(i) {
			continue
		}
		seen[i] = true
		queue = append(queue[:0], uint32(i))
		for next := 0; next < len(queue); next++ {
			for _, j := range g.Links(int(queue[next])) {
				if !away(int(j)) {
					seen[j] = true
					queue = append(queue, j)
				}
			}
		}
		largest = max(largest, len(queue))
	}
	return largest
}

// Hubs are the nodes that are not gone, the ones with most links first, equal ones by number.
func (g *Graph) Hubs() []int {
	all := g.every(g.nodes)
	slices.SortStableFunc(all, func(a, b int) int { return g.Degree(b) - g.Degree(a) })
	return all
}
