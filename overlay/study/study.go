// Package study runs an overlay on virtual time as an experiment: nodes that join or have joined, lookups from
// random nodes for random keys, losses and deaths; and puts what was counted beside theory. What it says is
// simulated, never measured. It prints nothing. Start at [Run].
package study

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"sort"
	"time"

	"servent/overlay"
	"servent/overlay/unstructured"
	"servent/peer"
	"servent/peer/sim"
)

// Options of a Run. Overlay and Nodes are needed.
type Options struct {
	Overlay overlay.Protocol // of a Run
	Graph   overlay.Graph    // of a RunGraph, instead
	Nodes   int
	Seed    uint64
	Lookups int           // over all of For
	For     time.Duration // virtual; lookups begin within it, and end after
	From    time.Duration // least delay of a link, one way; 0 means 10 ms
	To      time.Duration // most; 0 means 100 ms
	Plane   bool          // delays are distances on a square, not drawn anew for each message
	Loss    float64       // part of the messages, 0 to 1
	Kill    float64       // part of the nodes that die together, 0 to below 1
	KillAt  time.Duration // after the first lookup could begin
	Up      time.Duration // churn: mean time until a node dies; 0: none
	Down    time.Duration // and until it comes again; 0 means as Up
	Join    bool          // nodes join one after the other, and lookups begin when they are one overlay
	Period  time.Duration // between a node's looks at its neighbours; 0 means what nodes have
	Shards  int           // as in sim.Options
	Tell    func(Progress)

	// Of a RunGraph alone.
	Search  unstructured.Search
	Holders int  // nodes that have what is searched for; 0 means 10
	Far     int  // links that a flood goes; 0 means all, and of one that widens 32
	Attack  bool // Kill takes the nodes with most neighbours, not any
	Lattice bool // nodes begin with their neighbours on a circle, the worst of orders
}

// Progress is how far a run has come.
type Progress struct {
	Doing  string
	Done   float64 // 0 to 1, of all events as far as can be foretold
	Events uint64
}

const (
	settle    = 2_000_000_000 // ns until those who all joined at once do not act in step any more
	step      = 100_000_000   // ns between looks at a run, and grain of churn
	contacts  = 8             // members that a node knows before it joins
	joinEvery = 50_000_000    // ns
	joinLimit = 600_000_000_000
)

// Hops is how lookups' hops are distributed.
type Hops struct {
	Mean float64 `json:"mean"`
	SD   float64 `json:"sd"`
	P99  float64 `json:"p99"`
}

// Theory stands beside what was counted. It says nothing where none is known to hold.
type Theory struct {
	Success           float64 `json:"success"`
	Hops              Hops    `json:"hops"`
	MessagesPerLookup float64 `json:"messages_per_lookup,omitempty"` // where a law is known
	Source            string  `json:"source"`
}

// Keys is how evenly the run's places divide them, as its nodes have one, and if each had several; beside it the laws.
type Keys struct {
	One     Balance  `json:"one_place"`
	OneLaw  Balance  `json:"one_place_theory"`
	Virtual int      `json:"virtual_nodes"`
	Many    *Balance `json:"virtual,omitempty"` // not reckoned for many nodes
	ManyLaw Balance  `json:"virtual_theory"`
}

// Result is what a run came to. Seconds are virtual.
type Result struct {
	Simulated bool    `json:"simulated"` // always
	Overlay   string  `json:"overlay"`
	Nodes     int     `json:"nodes"`
	Seed      uint64  `json:"seed"`
	Loss      float64 `json:"loss,omitempty"`
	Partial   bool    `json:"partial,omitempty"` // it was stopped before its end

	Lookups int     `json:"lookups"` // asked; those whose asker died do not count
	Success float64 `json:"success"` // answered with the node that owns the key; of Lookups without Open
	Wrong   int     `json:"wrong"`   // answered with another
	Failed  int     `json:"failed"`  // the asker gave up
	Crowded int     `json:"crowded"` // the asker had too many open
	Open    int     `json:"open"`    // not answered when the run was stopped

	Hops              Hops    `json:"hops"` // of those that succeeded
	MessagesPerLookup float64 `json:"messages_per_lookup"`
	Theory            *Theory `json:"theory,omitempty"`
	LookupSeconds     float64 `json:"lookup_seconds"` // from the question to the answer, mean of those that succeeded

	Keys *Keys `json:"keys,omitempty"` // where nodes divide a circle

	UpkeepMessages float64 `json:"upkeep_messages_per_node_second"`
	UpkeepBytes    float64 `json:"upkeep_bytes_per_node_second"`
	Messages       float64 `json:"messages_per_node_second"` // lookups among them
	Bytes          float64 `json:"bytes_per_node_second"`
	Busiest        float64 `json:"busiest_messages_per_second"` // received and sent, of the node with the most

	Joined *float64 `json:"joined_after_seconds,omitempty"` // until one overlay, since the last had begun to join
	Killed int      `json:"killed,omitempty"`
	Whole  *float64 `json:"whole_after_seconds,omitempty"` // since the deaths, until neighbours and ranges are right again
	Deaths int      `json:"deaths,omitempty"`              // by churn

	Seconds float64 `json:"virtual_seconds"`
	Events  uint64  `json:"events"`
	Hash    string  `json:"event_hash"`
}

func (o *Options) defaults() {
	if o.From <= 0 {
		o.From = 10 * time.Millisecond
	}
	if o.To <= 0 {
		o.To = 100 * time.Millisecond
	}
	o.To = max(o.To, o.From)
	if o.Down <= 0 {
		o.Down = o.Up
	}
	if o.Graph.New != nil {
		o.graphDefaults()
	}
}

// plan is what the machine is made for.
func (o *Options) plan() overlay.Plan {
	p := overlay.Plan{Nodes: o.Nodes, Delay: int64(o.From+o.To) / 2, Period: int64(o.Period)}
	if o.Lookups > 0 {
		p.Rate = float64(o.Lookups) / max(o.For.Seconds(), 0.1)
	}
	return p
}

// Foretell is about how many events a run will take.
func Foretell(o Options) float64 {
	o.defaults()
	if o.Graph.New != nil {
		return foretellGraph(o)
	}
	n, seconds := float64(o.Nodes), o.For.Seconds()+settle/1e9
	if o.Lookups > 0 {
		seconds += float64(o.Overlay.Longest(o.plan())) / 1e9
	}
	upkeep := o.Overlay.Upkeep
	if o.Period > 0 {
		upkeep *= o.Overlay.Usual / o.Period.Seconds()
	}
	each := o.Overlay.Law(o.Nodes).Messages
	if o.Overlay.About != nil {
		each = 2.25 * o.Overlay.About(o.Nodes) // a timer for each question, and what strangers make others ask
	}
	events := n*upkeep*seconds + float64(o.Lookups)*(2+each)
	if o.Join {
		events += o.Overlay.Join(o.Nodes) + n*upkeep*n/2*joinEvery/1e9
	}
	return events
}

// Check says what is wrong with options.
func Check(o Options) error {
	switch {
	case o.Nodes < 1 || o.Nodes > 1<<27:
		return fmt.Errorf("want 1 to %d nodes, have %d", 1<<27, o.Nodes)
	case o.Lookups < 0 || o.Lookups > 1<<30:
		return fmt.Errorf("want 0 to %d lookups, have %d", 1<<30, o.Lookups)
	case o.For < 0:
		return fmt.Errorf("want a duration, have %v", o.For)
	case !(o.Loss >= 0 && o.Loss <= 1):
		return errors.New("loss: want 0 to 100 %")
	case !(o.Kill >= 0 && o.Kill < 1):
		return errors.New("kill: want 0 to below 100 %")
	case o.From > 4*time.Second:
		return errors.New("delay: the least one must be below 4s")
	case o.Period < 0:
		return fmt.Errorf("upkeep: want a duration, have %v", o.Period)
	case o.Up < 0 || o.Down < 0:
		return errors.New("churn: want durations above 0")
	case o.Up > 0 && o.Kill > 0:
		return errors.New("want deaths together or churn, have both")
	case o.Graph.New != nil:
		return checkGraph(o)
	case o.Lookups > 0 && o.Overlay.Most > 0 && o.Nodes > o.Overlay.Most:
		return fmt.Errorf("%s: at most %d nodes can look keys up: %s", o.Overlay.Name, o.Overlay.Most, o.Overlay.Limit)
	}
	return nil
}

// world is the network of a run and its time.
type world struct {
	o      Options
	net    *sim.Sim
	rnd    *rand.Rand
	fail   error // ctx's, when it ended
	expect float64
	live   int
	node   float64 // seconds that nodes have lived since it was set to 0
	asking
}

func newWorld(o Options, m peer.Protocol) world {
	var links sim.Links = sim.Uniform{From: int64(o.From), To: int64(o.To)}
	if o.Plane {
		links = sim.Plane{From: int64(o.From), To: int64(o.To), Seed: o.Seed}
	}
	return world{o: o, asking: asking{opens: make([]int32, o.Nodes)}, rnd: rand.New(rand.NewPCG(o.Seed, 1)), expect: Foretell(o), live: o.Nodes,
		net: sim.New(sim.Options{Machine: m, Places: sim.Places(o.Seed, o.Nodes), Seed: o.Seed, Links: links, Loss: o.Loss, Shards: o.Shards})}
}

// run is one run's state.
type run struct {
	world
	m      overlay.Machine
	base   sim.Counters // at begin
	churn  *sim.Churn
	hops   []uint64 // of right answers, by hops
	right  int
	took   float64   // seconds, of right ones together
	broken peer.Slot // where the overlay was found not whole
	died   int64
	res    Result
}

// Run runs an experiment. When ctx ends, its result is partial and the error is ctx's.
func Run(ctx context.Context, o Options) (Result, error) {
	if err := Check(o); err != nil {
		return Result{}, err
	}
	o.defaults()
	m := o.Overlay.New(o.plan())
	r := &run{world: newWorld(o, m), m: m, hops: make([]uint64, math.MaxUint16+1)}
	r.res = Result{Simulated: true, Overlay: o.Overlay.Name, Nodes: o.Nodes, Seed: o.Seed, Loss: o.Loss}
	if o.Join {
		r.res.Joined = r.join(ctx, r.whole)
	} else {
		r.m.Settle(r.net)
		r.joinAll(ctx)
	}
	r.begin, r.base = r.net.Now(), r.net.Counters()
	r.look(ctx)
	r.finish()
	return r.res, r.fail
}

// until lets time go by to a moment, and says so once a step. It returns false when ctx has ended.
func (r *world) until(ctx context.Context, doing string, end int64) bool {
	for r.net.Now() < end && r.fail == nil {
		before := r.net.Now()
		r.fail = r.net.Run(ctx, min(before+step, end))
		r.node += float64(r.live) * float64(r.net.Now()-before) / 1e9
		if r.o.Tell != nil {
			events := r.net.Counters().Events
			r.o.Tell(Progress{doing, min(float64(events)/r.expect, 0.99), events})
		}
	}
	return r.fail == nil
}

// joinAll has nodes that know what they would if all had been members for long take part.
func (r *world) joinAll(ctx context.Context) {
	for s := range r.o.Nodes {
		r.net.Command(0, peer.Slot(s), peer.Event{Kind: peer.Join})
	}
	r.until(ctx, "settling", r.net.Now()+settle)
}

// join has the nodes join one after the other, in random order, and returns how many seconds later they are one overlay.
func (r *world) join(ctx context.Context, whole func() bool) *float64 {
	order := r.rnd.Perm(r.o.Nodes)
	for i, s := range order {
		if i > 0 {
			r.net.Command(r.net.Now(), peer.Slot(s), peer.Event{Kind: peer.Know, Peers: r.some(order[:i])})
		}
		r.net.Command(r.net.Now(), peer.Slot(s), peer.Event{Kind: peer.Join})
		if !r.until(ctx, "joining", r.net.Now()+joinEvery) {
			return nil
		}
	}
	start := r.net.Now()
	for r.net.Now()-start < joinLimit {
		if whole() {
			after := float64(r.net.Now()-start) / 1e9
			return &after
		}
		if !r.until(ctx, "joining", r.net.Now()+step) {
			return nil
		}
	}
	return nil
}

// some draws members that live, some of them twice.
func (r *world) some(among []int) []peer.Peer {
	var all []peer.Peer
	for range 4 * contacts {
		if s := among[r.rnd.IntN(len(among))]; len(all) < contacts && !r.net.Down(peer.Slot(s)) {
			all = append(all, peer.Peer(s))
		}
	}
	return all
}

// look asks for keys, has nodes die, and waits for the answers.
func (r *run) look(ctx context.Context) {
	r.node = 0
	if r.o.Up > 0 {
		r.churn = sim.NewChurn(r.net, int64(r.o.Up), int64(r.o.Down))
	}
	killed, end := r.o.Kill == 0, r.begin+int64(r.o.For)
	for now := r.begin; r.fail == nil && (now < end || r.open > 0); now = r.net.Now() {
		if !killed && now-r.begin >= int64(r.o.KillAt) {
			killed = true
			r.kill()
		}
		if r.churn != nil && now < end { // what is still open when lookups end shall be answered
			r.churn.Step(r.changed)
		}
		next := now + step
		if now < end {
			next = min(next, end)
		}
		r.ask(now, next, end)
		r.until(ctx, "looking up", next)
		r.hear()
		if r.died > 0 && r.res.Whole == nil && r.whole() {
			after := float64(r.net.Now()-r.died) / 1e9
			r.res.Whole = &after
		}
	}
}

// ask gives out the lookups that are due before next.
func (r *run) ask(now, next, end int64) {
	for r.asked < r.o.Lookups {
		at := r.due(r.asked)
		if at >= next && now < end {
			return
		}
		s := peer.Slot(r.rnd.IntN(r.o.Nodes))
		for r.net.Down(s) {
			s = peer.Slot(r.rnd.IntN(r.o.Nodes))
		}
		var key peer.ID
		for i := range key {
			key[i] = byte(r.rnd.Uint32())
		}
		r.locate(at, s, key)
	}
}

// hear counts what was answered since the last time; who lives has not changed meanwhile.
func (r *run) hear() {
	for _, a := range r.net.Answers() {
		if !r.answered(a.Slot) {
			continue // of an earlier life
		}
		switch {
		case a.Flags == peer.Crowded:
			r.res.Crowded++
		case a.Flags != peer.Found:
			r.res.Failed++
		case a.Peer != r.owner(a.Key):
			r.res.Wrong++
		default:
			r.right++
			r.took += float64(a.At-r.due(int(a.Tag)-1)) / 1e9
			r.hops[a.Hops]++
		}
	}
}

// owner is the dumb twin: the first node at or above a key, in a sorted list, that lives and has joined.
func (r *run) owner(key peer.ID) peer.Peer {
	switch r.o.Overlay.Owner {
	case overlay.XOR:
		return r.nearest(key, peer.Nobody)
	case overlay.Closest:
		return r.closest(key)
	}
	n := r.o.Nodes
	first := sort.Search(n, func(i int) bool { id := r.net.ID(peer.Peer(i)); return string(id[:]) >= string(key[:]) })
	for i := range n {
		if s := peer.Slot((first + i) % n); !r.net.Down(s) && (r.churn == nil || r.m.See(r.net, s).Owns) {
			return peer.Peer(s)
		}
	}
	return peer.Nobody
}

// whole says whether every node that lives knows its neighbours, and owns what lies between.
func (r *run) whole() bool {
	n := peer.Slot(r.o.Nodes)
	for i := range n {
		if s := (r.broken + i) % n; !r.net.Down(s) && !r.placed(s) {
			r.broken = s // where the next look begins
			return false
		}
	}
	return true
}

func (r *run) placed(s peer.Slot) bool {
	if r.o.Overlay.Owner == overlay.XOR {
		near, v := r.nearest(r.net.ID(peer.Peer(s)), peer.Peer(s)), r.m.See(r.net, s)
		return near == peer.Nobody || len(v.After) > 0 && v.After[0] == near
	}
	n := peer.Slot(r.o.Nodes)
	before, after := (s+n-1)%n, (s+1)%n
	for ; r.net.Down(before); before = (before + n - 1) % n {
	}
	for ; r.net.Down(after); after = (after + 1) % n {
	}
	v := r.m.See(r.net, s)
	if before == s {
		return v.Owns
	}
	if r.o.Overlay.Owner == overlay.Closest {
		return v.Owns && v.Before == peer.Peer(before) && len(v.After) > 0 && v.After[0] == peer.Peer(after)
	}
	return v.Owns && v.Before == peer.Peer(before) && v.From == r.net.ID(peer.Peer(before)) && len(v.After) > 0 && v.After[0] == peer.Peer(after)
}

// kill has a part of the nodes die together.
func (r *run) kill() {
	n := min(int(math.Round(r.o.Kill*float64(r.o.Nodes))), r.o.Nodes-1)
	for _, s := range r.rnd.Perm(r.o.Nodes)[:n] {
		r.net.Kill(peer.Slot(s))
		r.lose(peer.Slot(s))
	}
	r.res.Killed, r.died = n, r.net.Now()
}

// changed is told of churn.
func (r *run) changed(s peer.Slot, up bool) {
	if !up {
		r.lose(s)
		r.res.Deaths++
		return
	}
	r.live++
	r.again(s)
}

// again tells a node that begins a new life of some members.
func (r *world) again(s peer.Slot) {
	var all []peer.Peer
	for range 16 * contacts {
		p := peer.Slot(r.rnd.IntN(r.o.Nodes))
		if len(all) < contacts && p != s && !r.net.Down(p) {
			all = append(all, peer.Peer(p))
		}
	}
	r.net.Command(0, s, peer.Event{Kind: peer.Know, Peers: all})
	r.net.Command(0, s, peer.Event{Kind: peer.Join, Num: uint64(r.net.Now())})
}

// finish makes the result of what was counted.
func (r *run) finish() {
	res, c := &r.res, r.net.Counters()
	res.Partial = r.fail != nil
	res.Lookups, res.Open = r.asked-r.gone, r.open
	if ended := res.Lookups - res.Open; ended > 0 {
		res.Success = float64(r.right) / float64(ended)
	}
	res.Hops = spread(r.hops, r.right)
	if r.right > 0 {
		res.LookupSeconds = r.took / float64(r.right)
	}
	var all, bytes, lookup, lookupBytes float64
	for k := range c.Messages {
		n, b := float64(c.Messages[k]-r.base.Messages[k]), float64(c.Bytes[k]-r.base.Bytes[k])
		all, bytes = all+n, bytes+b
		if r.o.Overlay.OfLookup(peer.Kind(k)) {
			lookup, lookupBytes = lookup+n, lookupBytes+b
		}
	}
	if r.asked > 0 {
		res.MessagesPerLookup = lookup / float64(r.asked)
	}
	if r.node > 0 {
		res.Messages, res.Bytes = all/r.node, bytes/r.node
		res.UpkeepMessages, res.UpkeepBytes = (all-lookup)/r.node, (bytes-lookupBytes)/r.node
	}
	res.Seconds = float64(r.net.Now()) / 1e9
	for s := range peer.Slot(r.o.Nodes) {
		load := r.net.Load(s)
		res.Busiest = max(res.Busiest, float64(load.Sent+load.Received)/res.Seconds)
	}
	res.Events, res.Hash = c.Events, fmt.Sprintf("%016x", c.Hash)
	n := r.o.Nodes
	if r.o.Overlay.Owner == overlay.Successor {
		res.Keys = &Keys{One: balance(r.o.Seed, n, 1), OneLaw: oneLaw, Virtual: virtual, ManyLaw: virtualLaw}
		if n <= virtualMost {
			many := balance(r.o.Seed, n, virtual)
			res.Keys.Many = &many
		}
	}
	if r.o.Kill > 0 && r.o.KillAt == 0 {
		n = r.live // those who live when lookups begin
	}
	if r.o.Loss == 0 && r.o.Up == 0 && (r.o.Kill == 0 || r.o.KillAt == 0) {
		law := r.o.Overlay.Law(n)
		if r.o.Kill > 0 {
			law.Source += ", among those who live, when all is mended"
		}
		res.Theory = &Theory{Success: 1, Hops: Hops{law.Mean, law.SD, law.P99}, MessagesPerLookup: law.Messages, Source: law.Source}
	}
}

// spread is the mean, the deviation and the 99th percentile of n numbers, counted by value.
func spread(counts []uint64, n int) Hops {
	if n == 0 {
		return Hops{}
	}
	sum, squares, seen, p99 := 0.0, 0.0, uint64(0), -1
	for v, k := range counts {
		sum += float64(v) * float64(k)
		squares += float64(v) * float64(v) * float64(k)
		if seen += k; p99 < 0 && float64(seen) >= 0.99*float64(n) {
			p99 = v
		}
	}
	mean := sum / float64(n)
	return Hops{Mean: mean, SD: math.Sqrt(max(squares/float64(n)-mean*mean, 0)), P99: float64(p99)}
}
