package study

import (
	"math"

	"servent/overlay/graph"
	"servent/peer"
)

// Shape is what the graph of the nodes that live looks like, its links taken as leading both ways.
type Shape struct {
	Nodes      int          `json:"nodes"`
	Edges      int          `json:"edges,omitempty"`
	Known      graph.Spread `json:"in_degree"` // by how many each node is known: those that it is linked with where links lead both ways
	Clustering float64      `json:"clustering"`
	PathLength float64      `json:"path_length"`
	Largest    float64      `json:"largest_component"` // share of the nodes
	Dead       float64      `json:"dead_links"`        // share of the links that lead to nodes that are dead
}

// Of large graphs samples are measured.
const (
	sampleNodes = 10_000     // for clustering
	sampleSteps = 50_000_000 // for path lengths: links that are gone along
)

// graph is the graph of the nodes that live.
func (r *graphRun) graph() *graph.Graph {
	var links []peer.Peer
	return graph.New(r.o.Nodes, func(i int) bool { return r.net.Down(peer.Slot(i)) }, func(i int, into []uint32) []uint32 {
		links = r.m.Links(peer.Slot(i), links[:0])
		for _, p := range links {
			into = append(into, uint32(p))
		}
		return into
	})
}

// shape measures the graph as it is.
func (r *graphRun) shape() (*Shape, *graph.Graph) {
	g := r.graph()
	known := make([]int, r.o.Nodes)
	s := &Shape{Nodes: g.Nodes(), Edges: g.Edges(), Dead: r.dead(known), Clustering: g.Clustering(sampleNodes)}
	live := known[:0] // behind what is read
	for i, k := range known {
		if !r.net.Down(peer.Slot(i)) {
			live = append(live, k)
		}
	}
	s.Known = graph.SpreadOf(live)
	s.PathLength = g.PathLength(max(8, min(g.Nodes(), sampleSteps/(2*g.Edges()+1))))
	s.Largest = float64(g.Largest(nil)) / float64(g.Nodes())
	return s, g
}

// dead is the share of the links that lead to dead nodes. It counts by how many live ones each node is known.
func (r *graphRun) dead(known []int) float64 {
	all, dead := 0, 0
	var links []peer.Peer
	for i := range r.o.Nodes {
		if r.net.Down(peer.Slot(i)) {
			continue
		}
		links = r.m.Links(peer.Slot(i), links[:0])
		for _, p := range links {
			if all++; r.net.Down(peer.Slot(p)) {
				dead++
			} else if known != nil {
				known[p]++
			}
		}
	}
	return float64(dead) / float64(max(all, 1))
}

// randomShape is that of the random graph beside it.
func randomShape(o *Options) *Shape {
	n, p := o.Nodes, o.Graph.Random(o.Nodes)
	s := &Shape{Nodes: n, Edges: int(p.Mean() * float64(n) / 2), Clustering: p.Clustering(n), PathLength: p.PathLength(n), Largest: p.Survivors(0)}
	s.Known.Mean, s.Known.SD = p.Mean(), p.SD()
	if o.Graph.Named > 0 { // known by as many as chance gives: Poisson
		mean := float64(min(o.Graph.Named, n-1))
		s.Known.Mean, s.Known.SD = mean, math.Sqrt(mean*(1-mean/float64(n)))
	}
	return s
}

// Survival is what is left when a share of the nodes is gone at once, before anything is mended: the share of the others
// that are in the largest component.
type Survival struct {
	Gone          float64 `json:"gone"`
	Failure       float64 `json:"failure"` // any nodes
	FailureTheory float64 `json:"failure_theory"`
	Attack        float64 `json:"attack"` // the ones with most links
	AttackTheory  float64 `json:"attack_theory"`
}

func (r *graphRun) survival(g *graph.Graph) (all []Survival) {
	law := r.o.Graph.Random(r.o.Nodes)
	hubs, any := g.Hubs(), r.rnd.Perm(r.o.Nodes)
	left := func(order []int, n int) float64 {
		missing := make([]bool, r.o.Nodes)
		for _, i := range order[:n] {
			missing[i] = true
		}
		return float64(g.Largest(missing)) / float64(r.o.Nodes-n)
	}
	for _, gone := range []float64{0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.7} {
		n := int(math.Round(gone * float64(r.o.Nodes)))
		all = append(all, Survival{gone, left(any, n), law.Survivors(gone), left(hubs, n), law.Attacked(gone)})
	}
	return all
}
