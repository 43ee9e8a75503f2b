package placement

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"servent/architecture"
	"servent/system"
)

// follow is how many instances the calls of a service need, and what the next decision must know of it.
//
// It grows at once and shrinks late, so that calls that come and go leave the plan alone: a node reports the
// most that it was asked in the last half of the idle time, and fewer instances must have done for the other
// half. Nothing else is remembered: without the plan and the reports it begins again at the minimum.
func (t *turn) follow(p *part, calls architecture.Calls) *system.Called {
	asked := t.asked(p)
	is := &system.Called{}
	switch {
	case p.was == nil:
	case p.was.Called != nil:
		*is = *p.was.Called
	default: // another architecture until now: what runs goes when it is not needed
		is.Want = len(p.active) + len(p.lost)
	}
	was := is.Want
	is.Want = min(max(is.Want, calls.Min), calls.Max)
	stood, need := is.Want, t.needed(is, calls, asked)
	is.Arrivals = t.arrivals(is.Arrivals, calls, len(asked) > 0)
	if from, until, ok := expected(is.Arrivals, calls); ok && len(asked) == 0 && need == 0 {
		if quiet := t.quiet(is.Arrivals, calls); quiet >= from && quiet < until {
			need = 1
		}
	}
	switch {
	case need >= is.Want:
		is.Want, is.Less = need, time.Time{}
	case len(t.in.Away) > 0: // what their doors are asked is not known
	case is.Less.IsZero():
		is.Less = t.in.Now
	case t.in.Now.Sub(is.Less) >= calls.Idle/2:
		is.Want, is.Less = need, time.Time{}
	}
	if calls.Latency > 0 && is.Want != stood {
		is.Paced = &system.Paced{At: t.in.Now, From: stood, Latency: slowest(asked)}
	}
	if was == 0 && is.Want > 0 && calls.Min == 0 && len(asked) > 0 {
		is.Wakes++
	}
	return is
}

// needed is how many instances are enough for what is asked, of several goals the one that needs most.
func (t *turn) needed(is *system.Called, calls architecture.Calls, asked []demand) int {
	inflight, cpu, n := 0.0, 0.0, 0.0
	for _, d := range asked {
		inflight += d.inflight
		cpu += d.cpu
	}
	if calls.Inflight > 0 {
		n = math.Ceil(inflight/float64(calls.Inflight) - 1e-9)
	}
	if calls.CPU > 0 {
		n = max(n, math.Ceil(cpu/calls.CPU-1e-9))
	}
	need := max(int(min(n, float64(calls.Max))), calls.Min)
	if calls.Latency > 0 {
		need = max(need, t.pace(is, calls, slowest(asked)))
	}
	return need
}

// asked is the demand for a service on the nodes that are there, the largest first.
func (t *turn) asked(p *part) []demand {
	var out []demand
	for v, n := range t.fleet.nodes {
		for _, d := range n.Demand {
			if sane := func(x float64) bool { return x >= 0 && !math.IsInf(x, 0) }; d.Service == p.svc.Name && sane(d.Inflight) && sane(d.CPU) && sane(d.Latency) && d.Inflight+d.CPU > 0 {
				out = append(out, demand{v, d.Inflight, d.CPU, d.Latency})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b demand) int { return cmp.Compare(b.inflight, a.inflight) })
	return out
}

type demand struct {
	node     int // index into the fleet's
	inflight float64
	cpu      float64
	latency  float64 // seconds
}

// resume takes back instances that are on their way out when calls need them again: they may still run.
func (t *turn) resume(p *part) {
	if p.called == nil {
		return
	}
	slices.SortStableFunc(p.drains, func(a, b *system.Assignment) int { return cmp.Compare(ordinal(a.Instance), ordinal(b.Instance)) })
	for _, a := range slices.Clone(p.drains) {
		if len(p.active)+len(p.lost) >= p.want {
			return
		}
		if a.Spec != p.target.spec || a.Reason != "stops: "+unneeded || t.fleet.presence(a.Node) != alive || t.uncallable(p, a.Node) {
			continue
		}
		a.Goal, a.Reason = system.GoalRun, "called again before it was gone"
		p.drains = slices.DeleteFunc(p.drains, func(b *system.Assignment) bool { return a == b })
		p.active = append(p.active, a)
	}
	byOrdinal(p.active)
}

// uncallable says that a live node is not to get an instance: it is cordoned, or cannot run one.
func (t *turn) uncallable(p *part, node system.NodeID) bool {
	n := t.fleet.nodes[t.fleet.index[node]]
	return n.Cordoned || lacks(n, p.svc) != ""
}

// beside places a new instance of a called service where calls come in, if no other is there: the most
// calls first. It returns false when the search must place it, which spreads them.
func (t *turn) beside(p *part, i *item, prob *problem) bool {
	if p.called == nil || i.from != nil {
		return false
	}
	k := prob.kind[p.svc.Name]
	for _, d := range t.asked(p) {
		if prob.kinds[k].own[d.node] == 0 && prob.fits(k, d.node) {
			prob.put(k, d.node, +1)
			t.assign(p, i, t.fleet.nodes[d.node].Node, calledHere)
			return true
		}
	}
	return false
}

const calledHere = "it is called here"

// uncalled says that a called service is not asked for on a node: its instance there goes first.
func (t *turn) uncalled(p *part, node system.NodeID) bool {
	return p.called != nil && !slices.ContainsFunc(t.asked(p), func(d demand) bool { return t.fleet.nodes[d.node].Node == node })
}

// Why says why a service has as many instances as the next plan gives it: of one whose instances follow
// its calls, with who asks how much. Empty for every other one.
func Why(in Input, service system.ServiceName) string {
	in.Plan = Next(in).Plan
	if in.Plan == nil {
		return ""
	}
	t := begin(in)
	i := slices.IndexFunc(t.parts, func(p *part) bool { return p.svc.Name == service })
	if i < 0 || t.parts[i].called == nil {
		return ""
	}
	p := t.parts[i]
	calls, _ := architecture.CallsOf(p.svc)
	asked := t.asked(p)
	why := instances(p.want) + ": "
	var who, use, slow []string
	for _, d := range asked {
		if on := " on " + string(t.fleet.nodes[d.node].Node); calls.Inflight > 0 && d.inflight > 0 {
			who = append(who, number(d.inflight)+on)
		}
		if on := " on " + string(t.fleet.nodes[d.node].Node); calls.CPU > 0 && d.cpu > 0 {
			use = append(use, strconv.FormatFloat(d.cpu, 'f', 2, 64)+on)
		}
		if on := " on " + string(t.fleet.nodes[d.node].Node); calls.Latency > 0 && d.latency > 0 {
			slow = append(slow, inWords(d.latency)+on)
		}
	}
	need := t.needed(p.called, calls, asked)
	from, until, learnt := expected(p.called.Arrivals, calls)
	switch {
	case len(asked) == 0 && learnt:
		why += fmt.Sprintf("nobody calls; of %s without calls nearly all took %s to %s, and one is ready then", times(p.called.Arrivals), rough(from), rough(until))
	case len(asked) == 0:
		why += "nobody calls"
	default:
		var words []string
		if len(who) > 0 {
			words = append(words, "requests at a time of late: "+strings.Join(who, ", ")+"; "+number(float64(calls.Inflight))+" for each instance")
		}
		if len(use) > 0 {
			words = append(words, "processors used of late: "+strings.Join(use, ", ")+"; "+strconv.FormatFloat(calls.CPU, 'f', 2, 64)+" for each instance")
		}
		if len(slow) > 0 {
			words = append(words, "95 of 100 answers began within "+strings.Join(slow, ", ")+"; "+calls.Latency.String()+" is the goal")
		}
		why += strings.Join(words, "; ")
		if slow := slowest(asked); calls.Latency > 0 && slow > calls.Latency.Seconds() && useless(p.called, slow) {
			why += "; the last step, from " + strconv.Itoa(p.called.Paced.From) + ", did not make them faster"
		}
	}
	switch {
	case need == calls.Max:
		why += "; scale.max is " + strconv.Itoa(calls.Max)
	case p.want > need:
		why += "; " + strconv.Itoa(need) + " would do, what is more goes when that has been so for a while"
	case p.want == 0:
		why += "; the first call makes one"
	case p.want == calls.Min && len(asked) == 0:
		why += "; scale.min is " + strconv.Itoa(calls.Min)
	}
	return why + "; woken " + strconv.Itoa(p.called.Wakes) + " " + plural(p.called.Wakes, "time")
}
