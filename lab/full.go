package lab

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

// A full comparison searches, for every variant on every number of nodes, for the greatest rate of Poisson
// arrivals at which the goal is kept. Rates that are tried lie on a ladder, each rung a little lower than the
// one above it. First single turns find two neighbouring rungs between which the goal is lost; then the rung
// is judged by all its repeats together, and one a little higher or lower where that says so. All variants
// take their turns one after the other, with the same numbers of requests and the same draws.
const (
	enough      = 10_000           // requests that a rate is judged by: a hundred of them lie beyond p99
	rung        = 0.98             // of the rate above it
	rungs       = 115              // down to a tenth
	firstRung   = 16               // 72 % of the most, where queues begin to matter
	stride      = 8                // rungs between the first tries
	mostTries   = 12               // single turns of one search
	walk        = 2                // rungs between two that are judged by all repeats; down twice as many each time
	mostRounds  = 4                // of repeats for one search
	turnMost    = 50 * time.Second // of a turn at the rate where queues begin to matter
	fewestEach  = 20               // requests of a turn
	settling    = 40               // service times before the first request that is measured: from empty queues to usual ones
	guessRate   = 0.7              // of the most, that estimates of time go by
	guessTries  = 5                // and so many single turns
	guessRounds = 2                // and rounds
	numbersEach = 1 << 20          // of requests, that a turn may use
)

// hunt is the search of one variant on one number of nodes. Rung 0 is the highest rate.
type hunt struct {
	variant int
	stage   *stage
	base    *point  // warmed up, with the checker of the stage
	top     float64 // requests a second at rung 0
	at      int     // the rung that is tried next
	kept    int     // the highest rung that has kept the goal; rungs: none has
	lost    int     // the lowest that has not; -1: none
	tries   int
	single  map[int]*point // by rung, of one turn each
	judged  map[int]*point // of all repeats
	rounds  int
	failed  int     // of them, that did not keep the goal
	done    bool    // judged as well
	budget  float64 // seconds that are still reckoned with
}

// rate of a rung.
func (h *hunt) rate(i int) float64 { return h.top * math.Pow(rung, float64(i)) }

// search finds the rates of all variants on so many nodes.
func (r *run) search(ctx context.Context, stages map[string]*stage, nodes int, records map[string][]load.Record) error {
	var hunts []*hunt
	for i, v := range r.variants {
		h := &hunt{variant: i, stage: stages[stageName(i, nodes)], base: r.points[at{v.Name, nodes}], top: r.top(v, nodes),
			at: firstRung, kept: rungs, lost: -1, single: map[int]*point{}, judged: map[int]*point{}}
		h.at, h.budget = r.hint(v, nodes, h), r.searchSeconds(v, nodes)
		hunts = append(hunts, h)
	}
	defer func() { // also when it is interrupted
		for _, h := range hunts {
			r.keep(h)
		}
	}()
	round := 0
	turn := func(h *hunt, p *point, what string) error {
		v := r.variants[h.variant]
		got, err := r.offer(ctx, h, p, nodes, round)
		if err != nil {
			return fmt.Errorf("%s on %s at %s: %w", v.Name, some(nodes, "node"), perSecond(p.offered), err)
		}
		if r.kills(nodes) {
			records[v.Name] = joined(records[v.Name], got)
		}
		took := r.offerSeconds(nodes, p.offered)
		r.reckon(h, h.budget-took)
		r.tell(took, "%s: %s, %s %s", some(nodes, "node"), v.Name, perSecond(p.offered), what)
		return nil
	}
	for ; slices.ContainsFunc(hunts, func(h *hunt) bool { return !h.narrow() }); round++ {
		for i := range hunts {
			h := hunts[(i+round)%len(hunts)]
			if h.narrow() {
				continue
			}
			p := h.try()
			if err := turn(h, p, fmt.Sprintf("tried (%d)", h.tries)); err != nil {
				return err
			}
			h.learn(r.goal, p)
		}
	}
	for slices.ContainsFunc(hunts, func(h *hunt) bool { return !h.done }) {
		for repeat := range r.repeats {
			for i := range hunts {
				if h := hunts[(i+round)%len(hunts)]; !h.done {
					if err := turn(h, h.judge(), fmt.Sprintf("turn %d of %d", repeat+1, r.repeats)); err != nil {
						return err
					}
				}
			}
			round++
		}
		for _, h := range hunts {
			if !h.done {
				h.decide(r.goal)
				left := 0.0
				if !h.done {
					left = float64(r.repeats) * r.offerSeconds(nodes, h.rate(h.at))
				}
				r.total += left - h.budget
				h.budget = left
			}
		}
	}
	return nil
}

// reckon says how many more seconds a search may take; what it takes beyond all that, comes on top.
func (r *run) reckon(h *hunt, left float64) {
	if left < 0 {
		r.total, left = r.total-left, 0
	}
	h.budget = left
}

// narrow says that the rungs between which the goal is lost are neighbours, or enough was tried.
func (h *hunt) narrow() bool {
	return h.tries >= mostTries || h.kept-h.lost <= 1 || h.kept == 0 || h.lost == rungs-1
}

// try is the point of the next single turn.
func (h *hunt) try() *point {
	h.tries++
	h.single[h.at] = h.point(h.at)
	return h.single[h.at]
}

// point is one at the rate of a rung, judged by the stage's checker.
func (h *hunt) point(i int) *point {
	return &point{at: h.base.at, offered: h.rate(i), check: h.base.check}
}

// learn says where to try next: further and further away until the goal is kept at one rung and lost at
// another, then in the middle. When that is settled, it stands at the highest rung that has kept it.
func (h *hunt) learn(g result.Goal, p *point) {
	if p.keeps(g) {
		h.kept = h.at
	} else {
		h.lost = h.at
	}
	step := stride << min(h.tries-1, 8)
	switch {
	case h.narrow():
		h.at = min(h.kept, rungs-1)
	case h.kept == rungs:
		h.at = min(h.lost+step, rungs-1)
	case h.lost < 0:
		h.at = max(h.kept-step, 0)
	default:
		h.at = (h.kept + h.lost) / 2
	}
}

// judge is the point of the rung that all repeats judge.
func (h *hunt) judge() *point {
	if h.judged[h.at] == nil {
		h.judged[h.at] = h.point(h.at)
	}
	return h.judged[h.at]
}

// decide ends the search, or moves it to a rung that was not judged yet: a lower one when the goal was not
// kept, a higher one when less than half of what the goal allows was slow.
func (h *hunt) decide(g result.Goal) {
	p := h.judged[h.at]
	h.rounds++
	next := h.at
	switch {
	case !p.keeps(g):
		next = min(h.at+walk<<h.failed, rungs-1)
		h.failed++
	case p.slower(g) < (1-g.Percentile/100)/2:
		next = max(h.at-walk, 0)
	}
	if h.judged[next] != nil || h.rounds >= mostRounds {
		h.done = true
		return
	}
	h.at = next
}

// found is the greatest rate that kept the goal with all repeats; else the lowest that has as many; else, of
// a search that was interrupted, the one that has most.
func (h *hunt) found(g result.Goal, repeats int) *point {
	rank := func(p *point) (whole, kept int) {
		whole = min(len(p.repeats), repeats)
		if whole == repeats && p.keeps(g) {
			kept = 1
		}
		return whole, kept
	}
	var best *point
	for _, i := range slices.Sorted(maps.Keys(h.judged)) { // from the highest rate down
		p := h.judged[i]
		if best == nil {
			best = p
			continue
		}
		whole, kept := rank(p)
		if most, has := rank(best); whole > most || whole == most && (kept > has || kept == 0 && has == 0) {
			best = p
		}
	}
	return best
}

// keep writes down what a search has measured so far.
func (r *run) keep(h *hunt) {
	best := h.found(r.goal, r.repeats)
	if best != nil && len(best.repeats) > 0 {
		r.points[h.base.at] = best
	} else {
		best = nil
	}
	var others []*point
	for i, p := range h.single {
		if h.judged[i] == nil {
			others = append(others, p)
		}
	}
	for _, p := range h.judged {
		if p != best {
			others = append(others, p)
		}
	}
	others = slices.DeleteFunc(others, func(p *point) bool { return len(p.repeats) == 0 })
	slices.SortFunc(others, func(a, b *point) int { return cmp.Compare(a.offered, b.offered) })
	r.tried[h.base.at] = others
}

// top is the rate at rung 0: what the nodes can serve, or less where theory says so.
func (r *run) top(v Variant, nodes int) float64 {
	key := at{v.Name, nodes}
	if most, known := r.tops[key]; known {
		return most
	}
	most := r.most(v, nodes)
	if e, err := r.expect(v, v.System.Service(r.service), nodes); err == nil {
		most = min(most, e.Rate)
	}
	r.tops[key] = most
	return most
}

// hint is the rung to begin with: the one that was found on fewer nodes.
func (r *run) hint(v Variant, nodes int, h *hunt) int {
	for _, n := range slices.Backward(r.nodes) {
		p := r.points[at{v.Name, n}]
		if n < nodes && p != nil && p.offered > 0 {
			i := math.Log(p.offered/r.top(v, n)) / math.Log(rung)
			return min(max(int(math.Round(i)), 0), rungs-1)
		}
	}
	return h.at
}

// offer is one turn at the point's rate. Its first requests only fill the queues.
func (r *run) offer(ctx context.Context, h *hunt, p *point, nodes, round int) ([]load.Record, error) {
	warm := int(math.Ceil(p.offered * settling * r.serve().Seconds()))
	o := r.options(h.stage, warmUp+round*numbersEach)
	o.Seed += uint64(round) * 0x9e3779b97f4a7c15 // other gaps and keys in every round, the same for all variants
	o.Rate, o.Poisson, o.Count = load.Rate{From: p.offered}, true, warm+r.each(nodes)
	return r.repeat(ctx, p, h.stage, o, warm)
}

// each is how many requests of a turn are measured: the same for every variant. All repeats together are
// what a rate is judged by, as far as the slowest variant can answer so many in the time.
func (r *run) each(nodes int) int {
	n := (r.samples + r.repeats - 1) / r.repeats
	for _, v := range r.variants {
		n = min(n, int(turnMost.Seconds()*guessRate*r.top(v, nodes)))
	}
	return max(n, fewestEach)
}

// offerSeconds is about how long a turn at a rate takes.
func (r *run) offerSeconds(nodes int, rate float64) float64 {
	return (float64(r.each(nodes))/rate + settling*r.serve().Seconds()) * r.pace()
}

// searchSeconds is about how long the search of one variant takes.
func (r *run) searchSeconds(v Variant, nodes int) float64 {
	return (guessTries + guessRounds*float64(r.repeats)) * r.offerSeconds(nodes, guessRate*r.top(v, nodes))
}

// promise says how long it will take, and what for.
func (r *run) promise() string {
	least := math.MaxInt
	for _, n := range r.nodes {
		least = min(least, r.each(n)*r.repeats)
	}
	text := fmt.Sprintf("full: %s on %s, a rate judged by %d requests at least: about %s", some(len(r.variants), "variant"), nodesWord(r.nodes), least,
		time.Duration(r.total*float64(time.Second)).Round(time.Second))
	if r.pace() > 1 {
		text += fmt.Sprintf(", slow ×%v", r.pace())
	}
	return text
}

// nodesWord is "1, 2, 4 nodes".
func nodesWord(ns []int) string {
	if len(ns) == 1 {
		return some(ns[0], "node")
	}
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(ns), " ", ", "), "[]") + " nodes"
}

// keeps says that a point's requests are as fast and as right as the goal asks.
func (p *point) keeps(g result.Goal) bool {
	return p.requests > p.errors && p.notSent == 0 && float64(p.errors) <= g.Errors*float64(p.requests) &&
		float64(p.latency.Quantile(g.Percentile/100))/1e6 <= g.LatencyMS
}

// slower is the share of right answers that took longer than the goal's latency.
func (p *point) slower(g result.Goal) float64 {
	over, all := int64(0), int64(0)
	for _, b := range p.latency {
		all += b.Count
		if float64(b.Micros)/1000 > g.LatencyMS {
			over += b.Count
		}
	}
	return float64(over) / float64(max(all, 1))
}
