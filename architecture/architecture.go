// Package architecture is the table: one row per architecture, which says where the software goes
// and which way a request goes. Every part of Servent reads it and none adds to it elsewhere.
// It decides nothing about a particular system. Start at [Table].
package architecture

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"servent/system"
)

// Where answers the first question: where does the software go?
type Where string

const (
	OneNode    Where = "one instance on the best node"
	SomeNodes  Where = "n instances, spread over the nodes"
	EveryNode  Where = "every eligible node"
	WhenCalled Where = "nowhere until called"
)

// Way answers the second question: which way does a request go?
type Way string

const (
	ToIt       Way = "to it"
	ToAny      Way = "to any of them, the switch chooses"
	ToOwner    Way = "key → owner, full view, one hop"
	Neighbours Way = "neighbour to neighbour to the owner"
	Overlay    Way = "hop by hop over the overlay to the owner"
	Search     Way = "flood, expanding ring or random walks over partial views"
	Superpeers Way = "ask your superpeer, superpeers ask each other"
	Pieces     Way = "pieces from many peers"
	Nearest    Way = "nearest edge, its parent, the origin"
	WarmOne    Way = "a warm instance, or one is made"
)

// Need says whether a service under an architecture has a word or must not have it.
type Need int

const (
	Never Need = iota
	May
	Must
)

// Row is one architecture.
type Row struct {
	Word     system.Architecture
	Textbook string // the field's name
	Where    Where
	Way      Way
	Owner    system.Owner      // of a key, where the way goes over an overlay
	Key      Need              // does a service need a key?
	Copies   Need              // may it keep copies of each key?
	Data     []system.DataKind // allowed for a user's program
	By       []system.By       // layers at which its requests may be switched
	Built    bool              // can be run today; a row that is not built is refused with a plain word
	Theory   string            // what to expect, derived from the row alone
	Drawing  string            // a few lines of text: client, nodes, the way of one request
}

var (
	anyData  = []system.DataKind{system.DataNone, system.DataSoft, system.DataHard}
	noHard   = []system.DataKind{system.DataNone, system.DataSoft}
	anyLayer = []system.By{system.ByConnection, system.ByRequest, system.ByName}
	requests = []system.By{system.ByRequest}
)

// Table is every architecture, in the order in which a course teaches them.
var Table = []Row{
	{Word: system.Single, Textbook: "client-server", Where: OneNode, Way: ToIt, Key: May, Data: anyData, By: anyLayer, Built: true,
		Theory:  "throughput is bounded by 1 / service time of one node, however many nodes there are; all is lost with it",
		Drawing: "client ──▶ node-1 ──▶ [instance]"},
	{Word: system.Replicated, Textbook: "horizontal distribution, clustered servers", Where: SomeNodes, Way: ToAny, Key: May, Data: anyData, By: anyLayer, Built: true,
		Theory:  "throughput grows with n until the switch or what the instances share is the bound; one lost instance costs 1/n",
		Drawing: "          ┌▶ [instance 1]\nclient ──▶┼▶ [instance 2]\n          └▶ [instance n]"},
	{Word: system.Partitioned, Textbook: "partitioning, replication", Where: SomeNodes, Way: ToOwner, Key: Must, Copies: May, Data: anyData, By: []system.By{system.ByRequest, system.ByConnection}, Built: true,
		Theory:  "throughput grows with n until the hottest key's owner is the bound; a lost node costs its keys' share",
		Drawing: "          ┌▶ [keys 0…⅓]\nclient ──▶┼▶ [keys ⅓…⅔]\n key      └▶ [keys ⅔…1]"},
	{Word: system.Ring, Textbook: "ring", Where: EveryNode, Way: Neighbours, Key: Must, Copies: May, Data: anyData, By: requests, Built: true,
		Theory:  "a lookup takes N/2 hops one way on average; each node knows two neighbours",
		Drawing: "client ──▶ n1 ─▶ n2 ─▶ n3 ─┐\n            ▲               │\n            └───────────────┘"},
	{Word: system.Chord, Textbook: "structured peer-to-peer (Chord)", Where: EveryNode, Way: Overlay, Key: Must, Copies: May, Data: anyData, By: requests, Built: true,
		Theory:  "a lookup takes ½·log2 N hops on average, fewer by the successors that are known; each node knows O(log N) others (Stoica et al., ToN 2003)",
		Drawing: "client ──▶ n1 ──finger──▶ n5 ──▶ owner"},
	{Word: system.Pastry, Textbook: "structured peer-to-peer (Pastry)", Where: EveryNode, Way: Overlay, Owner: system.Closest, Key: Must, Copies: May, Data: anyData, By: requests, Built: true,
		Theory:  "a lookup takes O(log N) hops, each to a node nearby that shares a longer prefix",
		Drawing: "client ──▶ n1 ──prefix──▶ n5 ──leaf set──▶ owner"},
	{Word: system.Kademlia, Textbook: "structured peer-to-peer (Kademlia)", Where: EveryNode, Way: Overlay, Owner: system.XOR, Key: Must, Copies: May, Data: anyData, By: requests, Built: true,
		Theory:  "a lookup takes O(log N) rounds of parallel questions, each nearer under XOR",
		Drawing: "client ──▶ n1 ═α═▶ {n3 n5 n7} ═α═▶ k closest"},
	{Word: system.Unstructured, Textbook: "unstructured peer-to-peer", Where: EveryNode, Way: Search, Key: Must, Data: anyData, By: requests,
		Theory:  "finding a rare key costs messages in proportion to N; nothing is moved when nodes come and go",
		Drawing: "client ──▶ n1 ══▶ every neighbour ══▶ their neighbours …"},
	{Word: system.Superpeer, Textbook: "hybrid: superpeer network", Where: EveryNode, Way: Superpeers, Key: Must, Data: anyData, By: requests,
		Theory:  "two hops from a regular node, the search among superpeers only; load concentrates on them",
		Drawing: "client ──▶ n1 ──▶ (superpeer) ══▶ (superpeers) ──▶ holder"},
	{Word: system.Swarm, Textbook: "hybrid: collaborative distribution", Where: EveryNode, Way: Pieces, Data: noHard, By: requests,
		Theory:  "capacity grows with the number who want the file; client-server time grows with it instead",
		Drawing: "n1 ◀─piece─▶ n2 ◀─piece─▶ n3   tracker: who has it"},
	{Word: system.Edge, Textbook: "hybrid: edge servers (CDN)", Where: EveryNode, Way: Nearest, Data: noHard, By: requests,
		Theory:  "the origin sees only the misses; latency is that of the nearest edge times the hit ratio, and more for the rest",
		Drawing: "client ──▶ [edge cache] ──▶ [parent] ──▶ origin"},
	{Word: system.Function, Textbook: "serverless", Where: WhenCalled, Way: WarmOne, Data: noHard, By: requests, Built: true,
		Theory:  "nothing runs and nothing is paid while nobody calls; the first call pays the cold start",
		Drawing: "client ──▶ waker ──▶ [instance, while it is used]"},
}

// Of returns the row for a word.
func Of(word system.Architecture) (Row, bool) {
	for _, r := range Table {
		if r.Word == word {
			return r, true
		}
	}
	return Row{}, false
}

// Words lists the architectures, those that can be run today or all.
func Words(builtOnly bool) []string {
	var words []string
	for _, r := range Table {
		if r.Built || !builtOnly {
			words = append(words, string(r.Word))
		}
	}
	return words
}

// Circle says whether members stand on a circle, on which each owns keys by the rule of Owner.
func (r Row) Circle() bool { return r.Way == Neighbours || r.Way == Overlay && r.Built }

// Unbuilt is what a user is told about a row that cannot be run yet.
func (r Row) Unbuilt() string {
	return fmt.Sprintf("%q, %s, is not built yet; runs today: %s", r.Word, r.Textbook, strings.Join(Words(true), ", "))
}

// Calls says how the instances of a service follow its calls.
type Calls struct {
	Min, Max int           // instances
	Inflight int           // requests at a time that one instance is made for
	Idle     time.Duration // how long an instance is kept that calls do not need
	Warm     time.Duration // times without calls up to this are learnt; 0: none
	CPU      float64       // processors that one instance is made for; 0: that is no goal
	Latency  time.Duration // within which 95 of 100 answers are to begin; 0: that is no goal
}

// Defaults of [Calls].
const (
	CallsMax      = 10
	CallsInflight = 10
	CallsIdle     = 30 * time.Second
	GoalIdle      = time.Minute // of what is not a function
)

// Wakes says that the service has no instance while nobody calls.
func Wakes(s *system.Service) bool {
	row, ok := Of(s.Architecture)
	return ok && row.Where == WhenCalled
}

// CallsOf returns the bounds of a service whose instances follow its calls, and false for every other one.
func CallsOf(s *system.Service) (Calls, bool) {
	if !Wakes(s) {
		return goalOf(s)
	}
	c := Calls{Min: s.Scale.Min, Max: s.Scale.Max, Inflight: s.Scale.Inflight, Idle: s.Scale.Idle, Warm: s.Scale.Warm}
	if c.Max == 0 {
		c.Max = max(CallsMax, c.Min)
	}
	if c.Inflight == 0 {
		c.Inflight = CallsInflight
		if n := s.Limits.Concurrency; n > 0 {
			c.Inflight = min(n, CallsInflight)
		}
	}
	if c.Idle == 0 {
		c.Idle = CallsIdle
	}
	return c, true
}

// goalOf are the bounds of a service that has a goal, scale.inflight, scale.cpu or scale.latency, and room for it.
func goalOf(s *system.Service) (Calls, bool) {
	row, _ := Of(s.Architecture)
	c := Calls{Min: Count(s, 0), Max: s.Scale.Max, Inflight: s.Scale.Inflight, Idle: s.Scale.Idle, CPU: s.Scale.CPU * cmp.Or(s.Limits.CPUs, 1), Latency: s.Scale.Latency}
	if c.Idle == 0 {
		c.Idle = GoalIdle
	}
	return c, row.Where == SomeNodes && (c.Inflight > 0 || c.CPU > 0 || c.Latency > 0) && c.Max > c.Min
}

// Most is how many instances a service may come to have when that many nodes are eligible for it.
func Most(s *system.Service, eligible int) int {
	if c, ok := CallsOf(s); ok {
		return c.Max
	}
	return Count(s, eligible)
}

// Count is how many instances a service has when that many nodes are eligible for it.
// single 1; replicated and partitioned: scale.min, else deploy.replicas, else 2; overlays and edge:
// every eligible node; function: scale.min, which is all while nobody calls.
func Count(s *system.Service, eligible int) int {
	row, ok := Of(s.Architecture)
	if !ok {
		return 0
	}
	switch row.Where {
	case OneNode:
		return 1
	case SomeNodes:
		switch {
		case s.Scale.Min > 0:
			return s.Scale.Min
		case s.Replicas > 0:
			return s.Replicas
		}
		return 2
	case EveryNode:
		return eligible
	default:
		return s.Scale.Min
	}
}
