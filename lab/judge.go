package lab

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"servent/lab/check"
	"servent/lab/law"
	"servent/lab/result"
	"servent/system"
)

// Bounds of the validity box: what a run must keep for its figures to be worth their name.
const (
	busyMost  = 0.90 // of all processors, in all: above it the machine was the bottleneck
	lateMost  = 1.0  // of a node's service time that the host may wake up too late, p99
	lateTail  = 0.1  // above it latencies are the host's as much as the system's
	littleOff = 0.05 // by which N = X·R may be off, closed loop
	slowMost  = 0.01 // of turns whose program was slower than the node
)

const drawnNodes = 4 // that the drawing of one request is from, or fewer, if there were as few

// Clock is the name of the check that a host fails which wakes up too late. Stretched time may help.
const Clock = "clock"

// conclude makes the result of what was measured.
func (r *run) conclude() *result.Result {
	res := &result.Result{
		Version: result.Version, Servent: r.o.Version, System: r.base.Name, Service: r.service, Files: r.o.Files,
		Mode: result.Emulated, Depth: r.depth, Seed: r.seed, Started: r.began, Took: time.Since(r.began).Seconds(),
		Host: r.host, Goal: r.goal, Load: r.words(), Capacity: r.capacities(),
	}
	if r.pace() > 1 {
		res.Slow = r.pace()
	}
	for _, v := range r.variants {
		res.Variants = append(res.Variants, r.variant(v))
	}
	for _, v := range r.refused {
		res.Variants = append(res.Variants, result.Variant{Name: v.Name, Set: v.Set, File: v.File, Up: v.Up, Architecture: system.Architecture(v.Set["architecture"]), Refused: v.Refused,
			Verdict: "refused", Answers: result.Answers{Verdict: check.Unchecked, Checker: string(check.None)}, Points: []result.Point{}})
	}
	res.Stated = r.stated()
	res.Validity = r.validity(res)
	r.rank(res)
	for i, v := range r.variants { // the rates on the way stand beside those that were found
		for _, n := range r.nodes {
			for _, p := range r.tried[at{v.Name, n}] {
				pt := p.result(r)
				pt.Tried, pt.Bins = true, nil
				res.Variants[i].Points = append(res.Variants[i].Points, pt)
			}
		}
	}
	return res
}

// variant is what was found of one.
func (r *run) variant(v Variant) result.Variant {
	svc := v.System.Service(r.service)
	out := result.Variant{Name: v.Name, Set: v.Set, File: v.File, Up: v.Up, Architecture: svc.Architecture, Points: []result.Point{}, Survival: r.survival[v.Name], Runs: r.ran[v.Name], Verdict: "unranked"}
	var checkers []*check.Checker
	var samples []law.Sample
	for _, n := range r.nodes {
		p := r.points[at{v.Name, n}]
		if p == nil || len(p.repeats) == 0 {
			continue
		}
		pt := p.result(r)
		if r.depth == result.Full && pt.Valid && !p.keeps(r.goal) {
			pt.Valid, pt.Why = false, fmt.Sprintf("the goal was kept at no rate that was judged; %s was the lowest", perSecond(p.offered))
		}
		out.Points = append(out.Points, pt)
		checkers = append(checkers, p.check)
		if n > 1 && p.trace != nil && (out.Trace == nil || n <= drawnNodes) { // the way grows with the nodes; more do not fit a page
			out.Trace, out.TraceWhat = p.trace, p.traceWhat
		}
		for _, rep := range pt.Repeats {
			if pt.Valid {
				samples = append(samples, law.Sample{N: n, X: rep.Rate})
			}
		}
	}
	out.Answers = check.Sum(checkers...)
	if r.checks == check.None {
		out.Answers.Text = r.looks.Why
	}
	if n := len(out.Points); n > 0 && !v.Up { // what a node of n times the workers costs stands nowhere
		out.Cost = r.cost(&out.Points[n-1])
	}
	out.Law = r.law(samples)
	out.Theory = r.theory(v, svc)
	return out
}

// cost of a million requests, at a point.
func (r *run) cost(p *result.Point) *result.Cost {
	if p.Rate.Median <= 0 {
		return nil
	}
	c := &result.Cost{Nodes: p.Nodes, NodeSeconds: float64(p.Nodes) / p.Rate.Median * 1e6}
	seconds := map[string]float64{"hour": 3600, "month": 30 * 24 * 3600}
	for i, n := range divide(r.base.Nodes, p.Nodes) {
		g := r.base.Nodes[i]
		if g.Price.Amount <= 0 || seconds[g.Price.Per] == 0 || c.Currency != "" && c.Currency != g.Price.Currency {
			c.Price, c.Currency = 0, ""
			return c // a price of some groups, or in two currencies, is none
		}
		c.Currency = g.Price.Currency
		c.Price += float64(n) * g.Price.Amount / seconds[g.Price.Per] / p.Rate.Median * 1e6
	}
	return c
}

// law describes throughput against nodes, if there are enough of them.
func (r *run) law(samples []law.Sample) *result.Law {
	d, err := law.Describe(samples, r.seed)
	if err != nil {
		return nil
	}
	f := d.Best
	out := &result.Law{Model: string(f.Model), Text: f.Text(), AICc: map[string]float64{},
		Params: map[string]float64{"lambda": f.Params.Lambda}, Bands: map[string][2]float64{"lambda": {f.Low.Lambda, f.High.Lambda}}}
	add := func(name string, x, low, high float64) {
		if !math.IsInf(x, 0) && !math.IsNaN(x) {
			out.Params[name] = x
			if !math.IsInf(low, 0) && !math.IsInf(high, 0) {
				out.Bands[name] = [2]float64{low, high}
			}
		}
	}
	if f.Model == law.Capped {
		add("knee", f.Params.Knee, f.Low.Knee, f.High.Knee)
	} else {
		add("alpha", f.Params.Alpha, f.Low.Alpha, f.High.Alpha)
		add("beta", f.Params.Beta, f.Low.Beta, f.High.Beta)
	}
	if d.Also != "" {
		out.Text += "; " + d.Also
	}
	for _, fit := range d.Fits {
		if !math.IsNaN(fit.AICc) && !math.IsInf(fit.AICc, 0) && fit.Why == "" {
			out.AICc[string(fit.Model)] = fit.AICc
		}
	}
	for n := 1; n <= 2*f.Largest; n++ {
		if v, err := f.At(n); err == nil {
			out.Curve = append(out.Curve, result.CurvePoint{Nodes: n, Rate: v.Rate, Low: v.Low, High: v.High})
		}
	}
	return out
}

// stated sorts the figures by where they come from.
func (r *run) stated() result.Stated {
	s := result.Stated{
		Typed: []string{}, Measured: []string{"program", "sockets", "routing", "answers"}, Emulated: []string{"capacity", "link delay"},
		Construction: []string{"one node serves no more than its capacity, so a single instance is flat and n equal ones grow until something else bounds them"},
	}
	if slices.ContainsFunc(r.variants, func(v Variant) bool { return v.Up }) {
		s.Construction = append(s.Construction, "what is scaled up has one node with N times the workers: its capacity is that of N nodes, and nothing is sent onward")
	}
	for _, c := range r.capacities() {
		text := fmt.Sprintf("capacity of %s: %s per node", c.Group, perSecond(c.Rate*float64(c.Workers)))
		if c.Source == "typed" {
			s.Typed = append(s.Typed, text+" ("+c.Where+")")
		} else {
			s.Measured = append(s.Measured, text)
		}
	}
	return s
}

// validity is the box beside every ranking.
func (r *run) validity(res *result.Result) result.Validity {
	v := result.Validity{OK: true}
	check := func(name string, ok, fatal bool, format string, args ...any) {
		v.Checks = append(v.Checks, result.Check{Name: name, OK: ok, Fatal: fatal && !ok, Text: fmt.Sprintf(format, args...)})
		v.OK = v.OK && (ok || !fatal)
	}
	if b := res.Host.Busy; b >= 0 {
		check("machine", b <= busyMost, true, "machine %.0f %% busy during the load", 100*b)
	} else {
		check("machine", true, false, "how busy the machine was is not known on %s", res.Host.OS)
	}
	serve := time.Duration(float64(r.serve()) * r.pace())
	stretched := ""
	if r.pace() > 1 {
		stretched = fmt.Sprintf(" of time that is stretched ×%v", r.pace())
	}
	check(Clock, r.late <= time.Duration(lateMost*float64(serve)), true, "host wakes up %s late (p99), a request takes %s%s", short(r.late), short(serve), stretched)
	if r.late > time.Duration(lateTail*float64(serve)) {
		check("tails", false, false, "latencies are the host's too: it wakes up later than a tenth of a request")
	}
	unsent, slow, off, valid := int64(0), 0.0, 0.0, 0.0
	where := ""
	for _, variant := range res.Variants {
		for _, p := range variant.Points {
			unsent += p.NotSent
			off = max(off, r.points[at{variant.Name, p.Nodes}].little())
			if p.Station.LateShare > slow {
				slow, valid, where = p.Station.LateShare, p.Station.ValidRate, fmt.Sprintf("%s on %s", variant.Name, some(p.Nodes, "node"))
			}
		}
	}
	check("not sent", unsent == 0, true, "%s unsent", orNothing(unsent))
	if slow > slowMost {
		check("stations", false, false, "the program of %s was slower than its node in %.1f %% of turns; %s per node would be valid", where, 100*slow, perSecond(valid))
	} else {
		check("stations", true, true, "programs slower than their node: %.1f %% of turns", 100*slow)
	}
	check("Little's law", off <= littleOff, false, "clients = rate × latency, off by %.1f %% at most", 100*off)
	return v
}

func orNothing(n int64) string {
	if n == 0 {
		return "nothing"
	}
	return fmt.Sprint(n)
}

func some(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func short(d time.Duration) string {
	switch {
	case d < time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	case d < time.Second:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(10 * time.Millisecond).String()
}

// contender is a variant that may be ranked, at the largest number of nodes.
type contender struct {
	v     *result.Variant
	point *result.Point
	rates []float64
}

// rank says which variant is best, that no difference was shown, or why nothing may be said.
func (r *run) rank(res *result.Result) {
	v := &res.Verdict
	if !res.Validity.OK {
		var why []string
		for _, c := range res.Validity.Checks {
			if c.Fatal {
				why = append(why, c.Text)
			}
		}
		v.Kind, v.Sentence = "refused", "refused, because "+strings.Join(why, "; ")
		return
	}
	var right, wrong []contender
	unranked := 0 // for want of a valid point
	for i := range res.Variants {
		c := contender{v: &res.Variants[i]}
		if c.v.Refused != "" || len(c.v.Points) == 0 {
			continue
		}
		c.point = &c.v.Points[len(c.v.Points)-1]
		if c.point.Nodes != r.nodes[len(r.nodes)-1] || !c.point.Valid {
			v.Notes = append(v.Notes, c.v.Name+" is not ranked")
			unranked++
			continue
		}
		for _, rep := range c.point.Repeats {
			c.rates = append(c.rates, rep.Rate)
		}
		if c.v.Answers.Verdict == check.Wrong {
			c.v.Verdict = "wrong"
			wrong = append(wrong, c)
		} else {
			right = append(right, c)
		}
	}
	best := func(a, b contender) int { return cmp.Compare(b.point.Rate.Median, a.point.Rate.Median) }
	slices.SortStableFunc(right, best)
	if len(right) == 1 && unranked > 0 {
		v.Kind, v.Sentence = "refused", fmt.Sprintf("refused, because only %s has a valid point on %s", right[0].v.Name, some(right[0].point.Nodes, "node"))
		return
	}
	if len(right) == 0 {
		v.Kind, v.Sentence = "none", "none: no variant has right answers and a valid point on the most nodes"
		if len(wrong) > 0 {
			v.Sentence = "none: every variant that was measured answers WRONG"
		}
		return
	}
	r.test(res, right, wrong)
}

// test compares the fastest right variant with every other, wrong ones too.
func (r *run) test(res *result.Result, right, wrong []contender) {
	v, top := &res.Verdict, right[0]
	rivals := append(slices.Clone(right[1:]), wrong...)
	pairs := make([]law.Pair, len(rivals))
	for i, c := range rivals {
		pairs[i] = law.Pair{A: top.rates, B: c.rates}
	}
	var same []string
	for i, t := range law.Compare(pairs) {
		c := rivals[i]
		v.Tests = append(v.Tests, result.Test{A: top.v.Name, B: c.v.Name, Pair: top.v.Name + " against " + c.v.Name, Nodes: top.point.Nodes,
			Effect: t.Effect, P: t.P, Holm: t.Adjusted, Better: t.A})
		switch {
		case i >= len(right)-1:
			v.Notes = append(v.Notes, wrongNote(c.v.Name, t))
		case t.A:
			c.v.Verdict = "worse"
		default:
			c.v.Verdict = "same"
			same = append(same, c.v.Name)
		}
	}
	switch {
	case len(right) == 1:
		v.Kind, v.Best, v.Sentence = "winner", top.v.Name, top.v.Name+", the only one whose answers are right"
		if len(wrong) == 0 {
			v.Sentence = top.v.Name + ", the only one that was measured"
		}
		top.v.Verdict = "best"
	case len(same) > 0:
		v.Kind, v.Best = "same", top.v.Name
		v.Sentence = "no difference shown between " + top.v.Name + " and " + strings.Join(same, ", ")
		top.v.Verdict = "same"
		if worse := len(right) - 1 - len(same); worse > 0 {
			v.Sentence += "; both are better than the rest"
			if len(same) > 1 {
				v.Sentence = strings.Replace(v.Sentence, "both", "all", 1)
			}
		}
	default:
		v.Kind, v.Best, v.Sentence = "winner", top.v.Name, top.v.Name
		top.v.Verdict = "best"
	}
}

// wrongNote says how fast a variant is that answers wrong.
func wrongNote(name string, t law.Tested) string {
	switch {
	case t.A:
		return name + " is slower and WRONG"
	case t.B:
		return name + " is faster and WRONG"
	}
	return name + " is as fast and WRONG"
}
