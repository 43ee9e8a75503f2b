package law

import (
	"math"
	"time"

	"servent/system"
)

// begin sends the first request of every client, or of an open loop.
func (s *simulation) begin() {
	if s.Warm == 0 {
		s.count()
	}
	if s.Clients == 0 {
		s.plan(comesAlone, s.arrival(0), 0, -1)
		return
	}
	s.rounds = make([]int64, s.Clients)
	for c := range s.Clients { // who thinks, thinks first: clients need not begin in step
		s.plan(next, int64(s.Think.At(unit(draw(s.Seed, ^uint64(c), drawThink)))), 0, int32(c))
	}
}

// arrival is the time of the i-th request of an open loop after the one before.
func (s *simulation) arrival(i uint64) int64 {
	if s.Poisson {
		return s.now + int64(Exponential(time.Second).Scaled(1/s.Rate).At(unit(draw(s.Seed, i, drawArrival))))
	}
	return int64(math.Round(float64(i) * 1e9 / s.Rate))
}

// send starts a closed loop's next request. Its number depends on its client and round alone.
func (s *simulation) send(client int32) {
	id := uint64(s.rounds[client])*uint64(s.Clients) + uint64(client)
	s.rounds[client]++
	s.start(id, client)
}

func (s *simulation) start(id uint64, client int32) {
	slot := int32(len(s.slots))
	if n := len(s.unused); n > 0 {
		slot, s.unused = s.unused[n-1], s.unused[:n-1]
	} else {
		s.slots = append(s.slots, request{})
	}
	r := &s.slots[slot]
	*r = request{id: id, start: s.now, client: client, owner: -1}
	switch {
	case s.Switch > 0:
		r.entry = int32(s.Nodes)
	case s.InTurn && s.Clients > 0:
		r.entry = int32(int(client) % s.Nodes)
	case s.InTurn:
		r.entry = int32(id % uint64(s.Nodes))
	default:
		r.entry = int32(below(draw(s.Seed, id, drawEntry), s.Nodes))
	}
	s.plan(enters, s.now+int64(s.Access+s.Overhead), r.entry, slot)
}

func (s *simulation) plan(w what, at int64, node, slot int32) {
	s.seq++
	s.queue.push(event{at: at, seq: s.seq, slot: slot, node: node, what: w})
}

// hop is when something that leaves then arrives at another node.
func (s *simulation) hop(leaves int64) int64 { return leaves + int64(s.Link+s.Overhead) }

// take is the end of the place that is taken at a node: link.Station's rule.
func (s *simulation) take(node int32, costs int64) int64 {
	workers := s.free[int(node)*s.Workers : int(node+1)*s.Workers]
	if int(node) == s.Nodes {
		workers = workers[:1]
	}
	first := 0
	for i := range workers {
		if workers[i] < workers[first] {
			first = i
		}
	}
	workers[first] = max(s.now, workers[first]) + costs
	s.sold[node] += costs
	return workers[first]
}

// onward charges a node for sending something and returns when it leaves. What costs nothing does not queue.
func (s *simulation) onward(node int32) int64 {
	if s.counting {
		s.out.Passed[node]++
	}
	switch {
	case int(node) == s.Nodes:
		return s.take(node, int64(s.Switch))
	case s.Pass == 0:
		return s.now
	}
	return s.take(node, int64(s.Pass))
}

func (s *simulation) handle(e event) {
	switch e.what {
	case comesAlone:
		id := s.made
		s.made++
		if int(id) == s.Warm {
			s.count()
		}
		s.start(id, -1)
		if int(s.made) < s.Warm+s.Requests {
			s.plan(comesAlone, s.arrival(s.made), 0, -1)
		} else {
			s.windowed = s.now
		}
		return
	case next:
		s.send(e.slot) // a client's number
		return
	}
	r := &s.slots[e.slot]
	switch e.what {
	case enters:
		r.owner = s.choose(r)
		switch {
		case r.owner == e.node:
			s.serve(e, r)
		case onCircle(s.Architecture):
			s.lookup(e, r)
		default:
			s.forward(e, r)
		}
	case lookedUp:
		if s.RingAck {
			s.onward(e.node)
		}
		if r.owner != e.node {
			s.lookup(e, r)
			return
		}
		leaves := s.now
		if s.RingReply {
			leaves = s.onward(e.node)
		}
		s.plan(found, s.hop(leaves), r.entry, e.slot)
	case found:
		s.forward(e, r)
	case forwarded:
		s.serve(e, r)
	case returned:
		if s.gauged {
			s.inflight.add(int(r.entry), int(r.owner), -1)
		}
		s.plan(answered, s.now+int64(s.Access+s.Overhead), r.entry, e.slot)
	case answered:
		s.answer(e, r)
	}
}

// choose says who is to serve a request, as the node or switch that it entered by sees it.
func (s *simulation) choose(r *request) int32 {
	switch s.Architecture {
	case system.Single:
		return 0
	case system.Replicated:
		picked := s.pick(int(r.entry), draw(s.Seed, r.id, drawPick))
		if s.gauged {
			s.inflight.add(int(r.entry), picked, 1)
		}
		return int32(picked)
	}
	u := draw(s.Seed, r.id, drawKey)
	switch {
	case s.keys == nil:
		return int32(below(u, s.Nodes))
	case s.Shares != nil:
		return int32(at(s.keys, unit(u)))
	}
	return int32(s.Keys.owner(at(s.keys, unit(u)), s.Nodes))
}

// pick does what the pickers of package route do, for nodes that are all in service.
func (s *simulation) pick(entry int, rnd uint64) int {
	n := uint64(s.Nodes)
	switch {
	case n == 1:
		return 0
	case s.Policy == "random":
		return int(rnd % n)
	case s.Policy == "roundrobin", s.Policy == "weighted": // equal nodes have equal weights
		s.turn[entry]++
		return (s.turn[entry] - 1) % s.Nodes
	case s.Policy == "leastconn":
		first := int(rnd % n)
		best, fewest := first, s.inflight.at(entry, first)
		for i := 1; i < s.Nodes && fewest > 0; i++ {
			node := (first + i) % s.Nodes
			if has := s.inflight.at(entry, node); has < fewest {
				best, fewest = node, has
			}
		}
		return best
	}
	a := (rnd >> 32) % n
	b := (a + 1 + (rnd&(1<<32-1))%(n-1)) % n
	if s.inflight.at(entry, int(b)) < s.inflight.at(entry, int(a)) {
		return int(b)
	}
	return int(a)
}

// lookup sends the question on to the next neighbour, or as far as chordSteps says.
func (s *simulation) lookup(e event, r *request) {
	r.looked++
	after, n := e.node+1, int32(s.Nodes)
	if s.left != nil {
		after = r.owner - s.left[(r.owner-e.node+n)%n] + n
	}
	if after >= n {
		after -= n
	}
	s.plan(lookedUp, s.hop(s.onward(e.node)), after, e.slot)
}

// forward sends the request itself.
func (s *simulation) forward(e event, r *request) {
	if e.node < int32(s.Nodes) {
		r.hops++
	}
	s.plan(forwarded, s.hop(s.onward(e.node)), r.owner, e.slot)
}

func (s *simulation) serve(e event, r *request) {
	if s.counting {
		s.out.Served[e.node]++
	}
	ends := s.take(e.node, int64(s.Service.At(unit(draw(s.Seed, r.id, drawService)))))
	if r.entry != e.node {
		ends = s.hop(ends)
	}
	s.plan(returned, ends, r.entry, e.slot)
}

func (s *simulation) answer(e event, r *request) {
	s.done++
	measured := s.Clients > 0 && s.done > s.Warm || s.Clients == 0 && r.id >= uint64(s.Warm)
	if measured {
		s.out.sorted = append(s.out.sorted, s.now-r.start)
		s.hops += int64(r.hops + r.looked)
		s.looked += int64(r.looked)
	}
	if s.Clients == 0 && s.counting && s.windowed < 0 {
		s.inWindow++
	}
	client, id := r.client, r.id
	s.unused = append(s.unused, e.slot)
	if s.Clients == 0 {
		return
	}
	if s.done == s.Warm {
		s.count()
	}
	thinks := int64(s.Think.At(unit(draw(s.Seed, id, drawThink))))
	s.plan(next, s.now+thinks, 0, client) // the client stands in the place of a slot
}

// count begins the measured time.
func (s *simulation) count() {
	s.counting, s.since = true, s.now
	copy(s.soldThen, s.sold)
	for node := range s.sold {
		s.soldThen[node] -= s.ahead(node)
	}
}

// ahead is a node's time that is sold but has not come yet.
func (s *simulation) ahead(node int) (sum int64) {
	for _, free := range s.free[node*s.Workers : (node+1)*s.Workers] {
		sum += max(0, free-s.now)
	}
	return sum
}

func (s *simulation) finish() Outcome {
	o := s.out
	past := float64(s.now - s.since)
	if n := float64(len(o.sorted)); s.Clients > 0 {
		o.Rate = n / past * 1e9
	} else {
		o.Rate = float64(s.inWindow) / float64(s.windowed-s.since) * 1e9
	}
	n := float64(len(o.sorted))
	o.summarise()
	o.Hops, o.Lookups = float64(s.hops)/n, float64(s.looked)/n
	o.Busy = make([]float64, len(s.sold))
	for node := range o.Busy {
		workers := s.Workers
		if node == s.Nodes {
			workers = 1
		}
		o.Busy[node] = float64(s.sold[node]-s.ahead(node)-s.soldThen[node]) / past / float64(workers)
	}
	return o
}

// gauges count requests in flight from each entry to each node: a table, or for many nodes only those that are
// not 0.
type gauges struct {
	nodes int
	table []int32
	far   map[uint64]int32
}

func (g *gauges) shape(entries, nodes int) {
	g.nodes = nodes
	if entries*nodes <= 1<<22 {
		g.table = make([]int32, entries*nodes)
	} else {
		g.far = map[uint64]int32{}
	}
}

func (g *gauges) at(entry, node int) int32 {
	if g.table != nil {
		return g.table[entry*g.nodes+node]
	}
	return g.far[uint64(entry)<<32|uint64(node)]
}

func (g *gauges) add(entry, node int, by int32) {
	if g.table != nil {
		g.table[entry*g.nodes+node] += by
		return
	}
	k := uint64(entry)<<32 | uint64(node)
	if g.far[k] += by; g.far[k] == 0 {
		delete(g.far, k)
	}
}
