package overlay

import (
	"math"

	"servent/overlay/cyclon"
	"servent/overlay/graph"
	"servent/overlay/unstructured"
	"servent/peer"
)

// Linked is a protocol without keys: what counts is the graph that its nodes make.
type Linked interface {
	peer.Protocol
	Reset(peer.Slot)                                 // the slot forgets all
	Settle(peer.Directory)                           // all slots are linked as if all had been members for long; peer.Join then makes them so
	Links(s peer.Slot, into []peer.Peer) []peer.Peer // whom a slot knows
	See(peer.Directory, peer.Slot) peer.View         // the same, and whether that will do
}

// Graph is a row of the table of overlays without keys.
type Graph struct {
	Name     string
	Means    string                    // in a few words
	New      func(GraphPlan) Linked    // of GraphPlan.Nodes slots
	Usual    float64                   // the machine's own Plan.Period, seconds
	For      float64                   // seconds that show what it does
	Upkeep   float64                   // events a node and period, about
	Sent     float64                   // messages a node and period when nothing is lost
	Bytes    float64                   // of those, with addresses of 12 bytes; 0: no law is known
	Random   func(n int) graph.Degrees // of the random graph that stands beside it
	Named    int                       // neighbours that each node names; others may name it
	Source   string                    // of what is said of the graph
	Searches bool                      // it answers peer.Locate with a node that holds the key
	Adopts   bool                      // a slot may begin with any neighbours: Linked has Adopt(peer.Slot, ...peer.Peer)
}

// GraphPlan is what a machine of a graph is made for.
type GraphPlan struct {
	Plan
	Search  unstructured.Search
	Far     int                           // links that a flood goes; 0: all
	Longest int64                         // that a flood of all nodes takes, about, ns
	Holds   func(peer.Slot, peer.ID) bool // the slot has what is searched for
}

// Of a simulated Cyclon, as in the experiments of its paper.
const (
	cyclonView     = 20
	cyclonExchange = 8
)

// graphLinks of its own has each node of a simulated graph, which makes the mean 4: Gnutella's.
const graphLinks = 2

// Graphs returns the table.
func Graphs() []Graph {
	exchange := peer.Event{Kind: peer.Travels, Tag: 1, Peers: make([]peer.Peer, cyclonExchange), Data: make([]byte, cyclonExchange)}
	return []Graph{{
		Name: "cyclon", Means: "each node knows some others and swaps them for others all the time: a graph that mends itself",
		New: func(p GraphPlan) Linked {
			return cyclon.New(p.Nodes, cyclon.Options{View: cyclonView, Exchange: cyclonExchange, Period: p.Period})
		},
		Usual: 10, For: 600, Upkeep: 3, Sent: 2, Bytes: 2 * float64(peer.Size(&exchange, 12)),
		Random: func(n int) graph.Degrees { return graph.ShiftedPoisson(min(cyclonView, n-1)) }, Named: cyclonView, Adopts: true,
		Source: "the random graph in which each node names 20 others, drawn evenly",
	}, unstructuredRow("random", "each node links with some others, drawn evenly; a search asks from neighbour to neighbour", false,
		func(int) graph.Degrees { return graph.ShiftedPoisson(graphLinks) },
		"each node links with 2 others, drawn evenly; generating functions of its degrees (Newman, Strogatz and Watts, 2001)"),
		unstructuredRow("scale-free", "who has many neighbours gets more; a search asks from neighbour to neighbour", true,
			func(n int) graph.Degrees { return graph.Preferential(graphLinks, n) },
			"P(k) = 2m(m+1)/(k(k+1)(k+2)), m = 2, and a random graph with these degrees (Newman, Strogatz and Watts, 2001), which growth is not quite")}
}

func unstructuredRow(name, means string, scaleFree bool, degrees func(int) graph.Degrees, source string) Graph {
	return Graph{Name: name, Means: means,
		New: func(p GraphPlan) Linked {
			n := questions(p.Plan, p.Longest)
			return unstructured.New(p.Nodes, unstructured.Options{Links: graphLinks, ScaleFree: scaleFree, Period: p.Period, Holds: p.Holds,
				Search: p.Search, Far: p.Far, Hop: 2 * p.Delay, Wait: p.Longest, Searches: n, Seen: int(math.Min(1<<16, 32+4*p.Rate*float64(p.Longest)/1e9))})
		},
		Usual: 1, For: 60, Upkeep: 1 + 2*graphLinks, Sent: 2 * graphLinks, Random: degrees, Source: source, Searches: true}
}
