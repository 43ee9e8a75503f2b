package placement

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"strings"

	"servent/system"
)

// Cost is what a choice costs, goal by goal, the most important first; costs are compared as words in a
// dictionary are. Crowding counts as squares, so that n instances cost least when they are spread.
type Cost [levels]int

const (
	missing  = iota // instances without a place
	sites           // crowding of the service's instances on sites
	labels          // on the values of the labels to spread over, first to fourth
	nodes    = labels + maxLabels
	near     = nodes + 1 // distance to the service it wants to be near to: 0 same node, 1 same site, 2 farther
	all      = near + 1  // crowding of all instances on nodes
	distance = all + 1   // to the services it depends on, as near
	levels   = distance + 1

	maxLabels = 4 // labels to spread over beyond the fourth count as much as it does
)

// Compare orders costs: less is better.
func (c Cost) Compare(d Cost) int { return slices.Compare(c[:], d[:]) }

// String names the goals that cost anything: sites 1, nodes 1, all 5, distance 2.
func (c Cost) String() string {
	names := [levels]string{missing: "missing", sites: "sites", nodes: "nodes", near: "near", all: "all", distance: "distance"}
	var out []string
	for i, n := range c {
		name := names[i]
		if name == "" {
			name = "label " + strconv.Itoa(i-labels+1)
		}
		if n != 0 {
			out = append(out, name+" "+strconv.Itoa(n))
		}
	}
	return strings.Join(out, ", ")
}

func (c *Cost) add(d Cost) {
	for i := range c {
		c[i] += d[i]
	}
}

// problem is a question to the search: where do these instances go, given those that are there? Nodes
// and kinds (one a service) are numbers; a kind stands after those it depends on.
type problem struct {
	every  []int // all nodes
	site   []int // of each node
	nsites int
	memory []int64   // free on each node, bytes
	cpus   []float64 // free on each node
	total  []int     // instances on each node
	kinds  []kind
	kind   map[system.ServiceName]int
}

// kind is one service's part of a problem.
type kind struct {
	items  int     // to be placed
	ok     []bool  // may run on that node, whatever else does
	most   int     // on one node; 0: no bound
	need   room    // of one instance
	own    []int   // instances on each node
	at     []int   // the same with those that will be replaced: who is near whom
	groups [][]int // for each label to spread over, the group of each node
	near   int     // the kind it wants to be near to, or -1
	deps   []int   // the kinds it depends on

	bySite, atSite []int
	byGroup        [][]int
}

type room struct {
	memory int64
	cpus   float64
}

const noBound = math.MaxInt64 / 2

// prepare fills in what follows from the rest.
func (p *problem) prepare() {
	for k := range p.kinds {
		q := &p.kinds[k]
		q.bySite, q.atSite = make([]int, p.nsites), make([]int, p.nsites)
		q.byGroup = make([][]int, len(q.groups))
		for l := range q.groups {
			q.byGroup[l] = make([]int, len(p.every))
		}
		for v := range p.every {
			q.bySite[p.site[v]] += q.own[v]
			q.atSite[p.site[v]] += q.at[v]
			for l, g := range q.groups {
				q.byGroup[l][g[v]] += q.own[v]
			}
		}
	}
}

// fits says that node v can take one more of kind k.
func (p *problem) fits(k, v int) bool {
	q := &p.kinds[k]
	return q.ok[v] && (q.most == 0 || q.own[v] < q.most) && p.hasRoom(k, v)
}

func (p *problem) hasRoom(k, v int) bool {
	q := &p.kinds[k]
	return (q.need.memory == 0 || q.need.memory <= p.memory[v]) && (q.need.cpus == 0 || q.need.cpus <= p.cpus[v]+1e-9)
}

// put adds one of kind k to node v, or takes it away when sign is -1.
func (p *problem) put(k, v, sign int) {
	q := &p.kinds[k]
	q.own[v] += sign
	q.at[v] += sign
	q.bySite[p.site[v]] += sign
	q.atSite[p.site[v]] += sign
	for l, g := range q.groups {
		q.byGroup[l][g[v]] += sign
	}
	p.total[v] += sign
	p.room(k, v, -sign)
}

// room frees what one of kind k needs on node v, or takes it when sign is -1.
func (p *problem) room(k, v, sign int) {
	p.memory[v] += int64(sign) * p.kinds[k].need.memory
	p.cpus[v] += float64(sign) * p.kinds[k].need.cpus
}

// marginal is what one more of kind k on node v costs.
func (p *problem) marginal(k, v int) (c Cost) {
	q := &p.kinds[k]
	c[sites] = 2*q.bySite[p.site[v]] + 1
	for l, g := range q.groups {
		c[labels+min(l, maxLabels-1)] += 2*q.byGroup[l][g[v]] + 1
	}
	c[nodes] = 2*q.own[v] + 1
	c[all] = 2*p.total[v] + 1
	if q.near >= 0 {
		c[near] = p.distance(q.near, v)
	}
	for _, d := range q.deps {
		c[distance] += p.distance(d, v)
	}
	return c
}

// distance from node v to the nearest of kind d: 0 when there is none, as nothing is gained anywhere.
func (p *problem) distance(d, v int) int {
	q := &p.kinds[d]
	switch {
	case q.at[v] > 0:
		return 0
	case q.atSite[p.site[v]] > 0:
		return 1
	case slices.Max(q.atSite) > 0:
		return 2
	}
	return 0
}

// effort bounds the exact search, in choices looked at. Small problems end far below it; of big ones the
// best that was found is taken.
const effort = 60_000

// solve places all items and returns the node of each, kind by kind, -1 for none. The problem is left with
// the items in place.
func (p *problem) solve() [][]int {
	if len(p.every) == 0 {
		return p.nowhere()
	}
	s := &search{problem: p, left: effort}
	for k := range p.kinds {
		for range p.kinds[k].items {
			s.kindOf = append(s.kindOf, k)
		}
	}
	if len(s.kindOf) == 0 {
		return p.nowhere()
	}
	s.now, s.options = make([]int, len(s.kindOf)), make([][]option, len(s.kindOf))
	s.begin()
	s.greedy(s.kindOf)
	if s.cost[missing] > 0 { // the big ones first may leave fewer out
		s.greedy(s.biggest())
	}
	s.descend(0, 0, Cost{}, Cost{}, 0)
	out := p.nowhere()
	for k := range out {
		out[k] = out[k][:0]
	}
	for i, k := range s.kindOf {
		out[k] = append(out[k], s.best[i])
		if s.best[i] >= 0 {
			p.put(k, s.best[i], +1)
		}
	}
	return out
}

func (p *problem) nowhere() [][]int {
	out := make([][]int, len(p.kinds))
	for k := range out {
		out[k] = slices.Repeat([]int{-1}, p.kinds[k].items)
	}
	return out
}

// search is branch and bound: a good first answer, then all others that could be better, nearest first.
// Instances of one kind are alike, so only orders in which their nodes do not fall are looked at.
type search struct {
	*problem
	kindOf  []int // of each item; those of a kind stand together
	now     []int
	best    []int // node of each item, -1 for none
	cost    Cost  // of best
	left    int   // effort
	options [][]option
	floor   [][]Cost // floor[k][n]: the least that n of kind k cost, but for what depends on others
	rest    []Cost   // rest[k]: the same of all items of kinds k and later
	floors  []int    // floors[n]: the least crowding of all instances on nodes that n items cost
}

type option struct {
	node int
	cost Cost
}

// begin works out the floors by pouring: each further instance goes where it crowds least.
func (s *search) begin() {
	s.floor, s.rest = make([][]Cost, len(s.kinds)), make([]Cost, len(s.kinds)+1)
	anyOK := make([]bool, len(s.every))
	for k := range s.kinds {
		q := &s.kinds[k]
		sum := make([]Cost, q.items+1)
		pour := func(level int, group []int, counts []int) {
			for n, cost := range poured(group, counts, q.ok, q.items) {
				sum[n][level] += cost
			}
		}
		pour(sites, s.site, q.bySite)
		for l, g := range q.groups {
			pour(labels+min(l, maxLabels-1), g, q.byGroup[l])
		}
		pour(nodes, s.every, q.own)
		s.floor[k] = sum
		for v, ok := range q.ok {
			anyOK[v] = anyOK[v] || ok && q.items > 0
		}
	}
	for k := len(s.kinds) - 1; k >= 0; k-- {
		s.rest[k] = s.rest[k+1]
		s.rest[k].add(s.floor[k][s.kinds[k].items])
	}
	s.floors = poured(s.every, s.total, anyOK, len(s.kindOf))
}

// poured is the least that 0, 1, … n instances add to the sum of the groups' squares, over groups that
// have a node that may take them. None may: they add nothing.
func poured(group, counts []int, ok []bool, n int) []int {
	open := make([]int, len(counts)) // count of each group that may grow, or -1
	for g := range open {
		open[g] = -1
	}
	for v, g := range group {
		if ok[v] {
			open[g] = counts[g]
		}
	}
	sums := make([]int, n+1)
	for i := 1; i <= n; i++ {
		least := -1
		for g, c := range open {
			if c >= 0 && (least < 0 || c < open[least]) {
				least = g
			}
		}
		sums[i] = sums[i-1]
		if least >= 0 {
			sums[i] += 2*open[least] + 1
			open[least]++
		}
	}
	return sums
}

// greedy gives each item in turn the node where it costs least, and keeps the answer if it is the best.
func (s *search) greedy(order []int) {
	next := make([]int, len(s.kinds)) // first item of each kind that is not placed
	for i := len(s.kindOf) - 1; i >= 0; i-- {
		next[s.kindOf[i]] = i
	}
	answer := make([]int, len(s.kindOf))
	for _, k := range order {
		best := option{node: -1}
		for v := range s.every {
			if !s.fits(k, v) {
				continue
			}
			if c := s.marginal(k, v); best.node < 0 || c.Compare(best.cost) < 0 {
				best = option{v, c}
			}
		}
		answer[next[k]] = best.node
		next[k]++
		if best.node >= 0 {
			s.put(k, best.node, +1)
		}
	}
	for i, v := range answer {
		if v >= 0 {
			s.put(s.kindOf[i], v, -1)
		}
	}
	if cost := s.price(answer); s.best == nil || cost.Compare(s.cost) < 0 {
		s.best, s.cost = answer, cost
	}
}

// price is the whole cost of an answer.
func (s *search) price(answer []int) (sum Cost) {
	for i, v := range answer {
		if v < 0 {
			sum[missing]++
			continue
		}
		sum.add(s.marginal(s.kindOf[i], v))
		s.put(s.kindOf[i], v, +1)
	}
	for i, v := range answer {
		if v >= 0 {
			s.put(s.kindOf[i], v, -1)
		}
	}
	return sum
}

// biggest orders items by what they need of a node, most first.
func (s *search) biggest() []int {
	order := slices.Clone(s.kindOf)
	slices.SortStableFunc(order, func(a, b int) int {
		x, y := s.kinds[a].need, s.kinds[b].need
		return cmp.Or(cmp.Compare(y.memory, x.memory), cmp.Compare(y.cpus, x.cpus))
	})
	return order
}

// descend tries all places of item i and of those after it. done is the cost of the items before; mine is
// the part of it that this kind's items have; from is the first node that keeps the order.
func (s *search) descend(i, from int, done, mine Cost, out int) {
	if i == len(s.kindOf) {
		if done.Compare(s.cost) < 0 {
			s.best, s.cost = slices.Clone(s.now), done
		}
		return
	}
	k := s.kindOf[i]
	if i == 0 || s.kindOf[i-1] != k {
		from, mine, out = 0, Cost{}, 0
	}
	if s.left <= 0 || s.bound(k, done, mine, out).Compare(s.cost) >= 0 {
		return
	}
	options := s.options[i][:0]
	for v := from; v < len(s.every); v++ {
		s.left--
		if s.fits(k, v) {
			options = append(options, option{v, s.marginal(k, v)})
		}
	}
	slices.SortStableFunc(options, func(a, b option) int { return a.cost.Compare(b.cost) })
	s.options[i] = options
	for _, o := range options {
		after, ours := done, mine
		after.add(o.cost)
		ours.add(o.cost)
		s.now[i] = o.node
		s.put(k, o.node, +1)
		s.descend(i+1, o.node, after, ours, out)
		s.put(k, o.node, -1)
	}
	s.now[i] = -1
	done[missing]++
	mine[missing]++
	s.descend(i+1, len(s.every), done, mine, out+1)
}

// bound is no more than any answer that begins so can cost: either it leaves out more than it has so
// far, or all that is left gets a place, and crowds at least as much as if it were poured.
func (s *search) bound(k int, done, mine Cost, out int) Cost {
	b := done
	for level := sites; level <= nodes; level++ {
		b[level] += max(0, s.floor[k][s.kinds[k].items-out][level]-mine[level]) + s.rest[k+1][level]
	}
	b[all] = max(done[all], s.floors[len(s.kindOf)-done[missing]])
	return b
}
