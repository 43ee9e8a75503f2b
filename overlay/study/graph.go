package study

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"time"

	"servent/overlay"
	"servent/overlay/graph"
	"servent/overlay/unstructured"
	"servent/peer"
	"servent/peer/sim"
)

// GraphResult is what a run of an overlay without keys came to. Seconds are virtual.
type GraphResult struct {
	Simulated bool    `json:"simulated"` // always
	Overlay   string  `json:"overlay"`
	Nodes     int     `json:"nodes"`
	Seed      uint64  `json:"seed"`
	Loss      float64 `json:"loss,omitempty"`
	Partial   bool    `json:"partial,omitempty"` // it was stopped before its end

	Joined *float64 `json:"joined_after_seconds,omitempty"` // until one overlay, since the last had begun to join
	Begin  *Shape   `json:"begin"`
	After  *Shape   `json:"after_deaths,omitempty"` // right after
	End    *Shape   `json:"end"`
	Random *Shape   `json:"random"` // theory
	Source string   `json:"source"`

	Survival []Survival `json:"survival,omitempty"` // of the graph at the beginning

	Killed int       `json:"killed,omitempty"`
	Deaths int       `json:"deaths,omitempty"`               // by churn
	Dead   []float64 `json:"dead_links,omitempty"`           // a share for each period since the deaths
	Mended *float64  `json:"mended_after_seconds,omitempty"` // since the deaths, until no link leads to the dead and all are one component

	Search *Searched `json:"search,omitempty"`

	PeriodSeconds float64      `json:"period_seconds"`
	Upkeep        float64      `json:"upkeep_messages_per_node_period"`
	UpkeepTheory  float64      `json:"upkeep_messages_theory,omitempty"`
	UpkeepBytes   float64      `json:"upkeep_bytes_per_node_period"`
	BytesTheory   float64      `json:"upkeep_bytes_theory,omitempty"`
	Load          graph.Spread `json:"received_by_a_node"` // messages while lookups ran, of those that lived to the end

	Seconds float64 `json:"virtual_seconds"`
	Events  uint64  `json:"events"`
	Hash    string  `json:"event_hash"`
}

// Searched is what searches came to.
type Searched struct {
	By      string     `json:"by"`
	Holders int        `json:"holders"`
	Lookups int        `json:"lookups"` // asked; those whose asker died do not count
	Success float64    `json:"success"` // answered with a node that holds it; of Lookups without Open
	Wrong   int        `json:"wrong"`   // answered with one that does not, or is dead
	Failed  int        `json:"failed"`
	Crowded int        `json:"crowded"`
	Open    int        `json:"open"`
	Hops    Hops       `json:"hops"`
	Nearest float64    `json:"nearest"`                        // links to the nearest holder, mean, in the graph at the beginning
	Asks    float64    `json:"asks"`                           // messages from neighbour to neighbour, a search
	Direct  float64    `json:"direct"`                         // straight to and from who asks, a search
	Seconds float64    `json:"seconds"`                        // until the answer, mean
	Exact   float64    `json:"flood_messages_exact,omitempty"` // 2E − N + 1 of the graph at the beginning, if it is connected
	Theory  *SearchLaw `json:"theory,omitempty"`
}

// objects is how many different ones are searched for at most.
const objects = 1000

// graphRun is one run's state.
type graphRun struct {
	world
	m       overlay.Linked
	holders [][]uint32 // of each object, sorted
	graph0  *graph.Graph
	base    sim.Counters
	loads   []uint32 // received until begin, by slot
	hops    []uint64
	right   int
	took    float64
	nearest float64
	died    int64
	churn   *sim.Churn
	res     GraphResult
}

// RunGraph runs an experiment with an overlay without keys. When ctx ends, its result is partial and the error is ctx's.
func RunGraph(ctx context.Context, o Options) (GraphResult, error) {
	if err := Check(o); err != nil {
		return GraphResult{}, err
	}
	o.defaults()
	r := &graphRun{hops: make([]uint64, math.MaxUint16+1)}
	plan := overlay.GraphPlan{Plan: o.plan(), Search: o.Search, Far: o.Far, Holds: r.holds,
		Longest: int64(2*math.Log2(float64(o.Nodes))+6) * int64(o.To)}
	r.m = o.Graph.New(plan)
	r.world = newWorld(o, r.m)
	r.place()
	r.res = GraphResult{Simulated: true, Overlay: o.Graph.Name, Nodes: o.Nodes, Seed: o.Seed, Loss: o.Loss, PeriodSeconds: o.Period.Seconds()}
	switch {
	case o.Join:
		r.res.Joined = r.join(ctx, r.whole)
	case o.Lattice:
		r.lattice()
		r.joinAll(ctx)
	default:
		r.m.Settle(r.net)
		r.joinAll(ctx)
	}
	r.res.Begin, r.graph0 = r.shape()
	if o.Graph.Searches {
		r.res.Survival = r.survival(r.graph0)
	}
	r.begin, r.base, r.node = r.net.Now(), r.net.Counters(), 0
	for s := range peer.Slot(o.Nodes) {
		r.loads = append(r.loads, r.net.Load(s).Received)
	}
	r.look(ctx)
	r.finish()
	return r.res, r.fail
}

// place draws the nodes that hold each object.
func (r *graphRun) place() {
	if r.o.Lookups == 0 {
		return
	}
	for range min(r.o.Lookups, objects) {
		var some []uint32
		for len(some) < r.o.Holders {
			s := uint32(r.rnd.IntN(r.o.Nodes))
			if i, is := slices.BinarySearch(some, s); !is {
				some = slices.Insert(some, i, s)
			}
		}
		r.holders = append(r.holders, some)
	}
}

// key names an object; a search has one of its own.
func key(object, search int) (id peer.ID) {
	binary.BigEndian.PutUint32(id[:], uint32(object+1))
	binary.BigEndian.PutUint32(id[4:], uint32(search))
	return id
}

func object(key peer.ID) int { return int(binary.BigEndian.Uint32(key[:])) - 1 }

func (r *graphRun) holds(s peer.Slot, key peer.ID) bool {
	_, is := slices.BinarySearch(r.holders[object(key)], uint32(s))
	return is
}

// lattice links each node with the next ones on a circle.
func (r *graphRun) lattice() {
	n := r.o.Nodes
	for s := range n {
		var next []peer.Peer
		for i := 1; i <= r.o.Graph.Named && i < n; i++ {
			next = append(next, peer.Peer((s+i)%n))
		}
		r.m.(interface {
			Adopt(self peer.Slot, view ...peer.Peer)
		}).Adopt(peer.Slot(s), next...)
	}
}

// whole says whether all have the neighbours that they want and are one component.
func (r *graphRun) whole() bool {
	for s := range peer.Slot(r.o.Nodes) {
		if !r.net.Down(s) && !r.m.See(r.net, s).Whole {
			return false
		}
	}
	g := r.graph()
	return g.Largest(nil) == g.Nodes()
}

// look lets time go by, with searches and deaths.
func (r *graphRun) look(ctx context.Context) {
	if r.o.Up > 0 {
		r.churn = sim.NewChurn(r.net, int64(r.o.Up), int64(r.o.Down))
	}
	killed, end := r.o.Kill == 0, r.begin+int64(r.o.For)
	for now := r.begin; r.fail == nil && (now < end || r.open > 0); now = r.net.Now() {
		if !killed && now-r.begin >= int64(r.o.KillAt) {
			killed = true
			r.kill()
		}
		if r.churn != nil && now < end {
			r.churn.Step(r.changed)
		}
		next := now + step
		if now < end {
			next = min(next, end)
		}
		r.ask(now, next, end)
		r.until(ctx, "watching", next)
		r.hear()
		r.mending()
	}
	if r.fail == nil && r.o.Lookups > 0 { // what was found already is still asked for
		r.until(ctx, "ending", r.net.Now()+settle)
	}
}

// mending looks once a period at what is left of the dead.
func (r *graphRun) mending() {
	if r.died == 0 || r.res.Mended != nil || (r.net.Now()-r.died)/int64(r.o.Period) < int64(len(r.res.Dead)) {
		return
	}
	dead := r.dead(nil)
	if r.res.Dead = append(r.res.Dead, dead); dead == 0 && r.whole() {
		after := float64(r.net.Now()-r.died) / 1e9
		r.res.Mended = &after
	}
}

// ask gives out the searches that are due before next, each at a node that does not hold what it searches for.
func (r *graphRun) ask(now, next, end int64) {
	for r.asked < r.o.Lookups {
		at := r.due(r.asked)
		if at >= next && now < end {
			return
		}
		key := key(r.asked%len(r.holders), r.asked)
		s := peer.Slot(r.rnd.IntN(r.o.Nodes))
		for r.net.Down(s) || r.o.Holders < r.o.Nodes-r.res.Killed && r.holds(s, key) {
			s = peer.Slot(r.rnd.IntN(r.o.Nodes))
		}
		if r.asked < 200 { // breadth-first from each takes a while
			far, least := r.graph0.From(int(s)), math.MaxInt
			for _, h := range r.holders[object(key)] {
				if far[h] >= 0 {
					least = min(least, far[h])
				}
			}
			r.nearest += float64(least)
		}
		r.locate(at, s, key)
	}
}

// hear counts what was answered since the last time.
func (r *graphRun) hear() {
	for _, a := range r.net.Answers() {
		if !r.answered(a.Slot) {
			continue // of an earlier life
		}
		if r.res.Search == nil {
			r.res.Search = new(Searched)
		}
		q := r.res.Search
		switch {
		case a.Flags == peer.Crowded:
			q.Crowded++
		case a.Flags != peer.Found:
			q.Failed++
		case !r.holds(peer.Slot(a.Peer), a.Key):
			q.Wrong++
		default:
			r.right++
			r.took += float64(a.At-r.due(int(a.Tag)-1)) / 1e9
			r.hops[a.Hops]++
		}
	}
}

// kill has a part of the nodes die together: any, or the ones with most links.
func (r *graphRun) kill() {
	n := min(int(math.Round(r.o.Kill*float64(r.o.Nodes))), r.o.Nodes-1)
	order := r.rnd.Perm(r.o.Nodes)
	if r.o.Attack {
		order = r.graph().Hubs()
	}
	for _, s := range order[:n] {
		r.net.Kill(peer.Slot(s))
		r.lose(peer.Slot(s))
	}
	r.res.Killed, r.died = n, r.net.Now()
	r.res.After, _ = r.shape()
	r.res.Dead = append(r.res.Dead, r.res.After.Dead)
}

// changed is told of churn.
func (r *graphRun) changed(s peer.Slot, up bool) {
	if !up {
		r.lose(s)
		r.res.Deaths++
		return
	}
	r.live++
	r.again(s)
}

// finish makes the result of what was counted.
func (r *graphRun) finish() {
	res, c, o := &r.res, r.net.Counters(), &r.o
	res.Partial = r.fail != nil
	res.End, _ = r.shape()
	res.Random, res.Source = randomShape(o), o.Graph.Source
	var upkeep, bytes, asks, direct float64
	for k := range c.Messages {
		n := float64(c.Messages[k] - r.base.Messages[k])
		switch {
		case o.Graph.Searches && unstructured.Asks(peer.Kind(k)):
			asks += n
		case o.Graph.Searches && unstructured.OfSearch(peer.Kind(k)):
			direct += n
		default:
			upkeep += n
			bytes += float64(c.Bytes[k] - r.base.Bytes[k])
		}
	}
	if periods := r.node / o.Period.Seconds(); periods > 0 {
		res.Upkeep, res.UpkeepBytes = upkeep/periods, bytes/periods
	}
	still := o.Loss == 0 && o.Up == 0 && o.Kill == 0 && !o.Join
	if still {
		res.UpkeepTheory, res.BytesTheory = o.Graph.Sent, o.Graph.Bytes
	}
	var load []int
	for s := range peer.Slot(o.Nodes) {
		if !r.net.Down(s) {
			load = append(load, int(r.net.Load(s).Received-r.loads[s]))
		}
	}
	res.Load = graph.SpreadOf(load)
	res.Seconds, res.Events, res.Hash = float64(r.net.Now())/1e9, c.Events, fmt.Sprintf("%016x", c.Hash)
	if r.asked == 0 {
		return
	}
	if res.Search == nil {
		res.Search = new(Searched)
	}
	q := res.Search
	q.By, q.Holders, q.Lookups, q.Open = unstructured.Words()[o.Search], o.Holders, r.asked-r.gone, r.open
	if ended := q.Lookups - q.Open; ended > 0 {
		q.Success = float64(r.right) / float64(ended)
	}
	q.Hops = spread(r.hops, r.right)
	if r.right > 0 {
		q.Seconds = r.took / float64(r.right)
	}
	q.Asks, q.Direct, q.Nearest = asks/float64(r.asked), direct/float64(r.asked), r.nearest/float64(min(r.asked, 200))
	if still {
		law := searchLaw(o, o.Graph.Random(o.Nodes), o.Nodes)
		q.Theory = &law
		if o.Search == unstructured.Flood && o.Far == 0 && res.Begin.Largest == 1 {
			q.Exact = float64(2*res.Begin.Edges - res.Begin.Nodes + 1)
		}
	}
}

// seconds is a number of them as a duration.
func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }
