package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"servent/lab/result"
)

// sorted are the numbers of nodes, each once.
func sorted(ns []int) []int {
	ns = slices.Clone(ns)
	slices.Sort(ns)
	return slices.Compact(ns)
}

func sortStable(all []row, less func(a, b row) bool) {
	slices.SortStableFunc(all, func(a, b row) int {
		switch {
		case less(a, b):
			return -1
		case less(b, a):
			return 1
		}
		return 0
	})
}

// loads are the open-loop points of a variant on its most nodes, by what was offered.
func loads(r *result.Result, v *result.Variant, m result.Mode) []*result.Point {
	most := math.MinInt
	var out []*result.Point
	for k := range v.Points {
		p := &v.Points[k]
		if modeOf(r, p) != m || !(p.Offered > 0) || p.Nodes < most {
			continue
		}
		if p.Nodes > most {
			most, out = p.Nodes, nil
		}
		out = append(out, p)
	}
	slices.SortStableFunc(out, func(a, b *result.Point) int { return cmp.Compare(a.Offered, b.Offered) })
	return out
}

// latency draws the goal's percentile against the rate that was offered.
func latency(r *result.Result) picture {
	pic := picture{id: "latency", kicker: "Latency against load"}
	mode := shownModes(r)[0]
	want := tail(r)
	var xs, ys []float64
	most := 0
	for i := range r.Variants {
		for _, p := range loads(r, &r.Variants[i], mode) {
			xs, ys = append(xs, p.Offered), append(ys, percentile(p, want), p.LatencyMS.P50)
			most = max(most, p.Nodes)
		}
	}
	if len(xs) == 0 {
		pic.missing = "No latency against load: no rate was offered on a schedule, clients waited for their answers (closed loop)."
		return pic
	}
	if goal := r.Goal.LatencyMS; goal > 0 {
		ys = append(ys, goal)
	}
	pic.title = latencyTitle(r, mode)
	h := room(400, len(r.Variants))
	p := &plot{drawing: draw(pic.id, wide, h, pic.title, "Latency in milliseconds, on a logarithmic axis, against the requests a second that were offered."),
		x: newScale(xs, left, right, false), y: newScale(ys, h-60, 16, true)}
	p.x.hi *= 1.03
	p.frame(ticksOf(p.x.ticks(8)), ticksOf(p.y.ticks(5)), "offered load, requests per second", percent(want)+" latency, ms (log)")
	if goal := r.Goal.LatencyMS; goal > 0 && p.y.has(goal) {
		y := p.y.place(goal)
		p.line("goal", left, y, right, y)
		p.text("goalname", "end", right-4, y-6, fmt.Sprintf("goal: %s < %s ms", percent(r.Goal.Percentile), quantity(goal)))
	}
	var tags []tag
	for i := range r.Variants {
		v := &r.Variants[i]
		var line, median []at
		ps := loads(r, v, mode)
		p.open(series(i), "")
		for _, q := range ps {
			y := percentile(q, want)
			if p.x.has(q.Offered) && p.y.has(y) && q.Valid {
				line = append(line, at{p.x.place(q.Offered), p.y.place(y)})
			}
			if p.x.has(q.Offered) && p.y.has(q.LatencyMS.P50) && q.Valid {
				median = append(median, at{p.x.place(q.Offered), p.y.place(q.LatencyMS.P50)})
			}
		}
		p.path("theory", median)
		p.path("law", line)
		for _, q := range ps {
			if y := percentile(q, want); p.x.has(q.Offered) && p.y.has(y) {
				class, tip := "point", fmt.Sprintf("%s on %s, %s req/s offered: p50 %s ms, p90 %s ms, p99 %s ms", v.Name, count(q.Nodes, "node"),
					grouped(q.Offered), quantity(q.LatencyMS.P50), quantity(q.LatencyMS.P90), quantity(q.LatencyMS.P99))
				if !q.Valid {
					class, tip = "void", tip+", not valid: "+q.Why
				}
				p.open(class, tip)
				p.marker("dot", i, p.x.place(q.Offered), p.y.place(y), 4.5)
				p.close()
			}
		}
		p.close()
		if len(line) > 0 {
			tags = append(tags, tag{y: line[len(line)-1].y, words: fmt.Sprintf("%s (%s)", clip(clean(v.Name), 14), count(ps[0].Nodes, "node")), tip: v.Name, index: i})
		}
	}
	p.tags(tags)
	pic.svg = p.end()
	pic.caption = "Each variant on its most nodes, open loop, latency from the intended start of each request. Dotted: the median. Grey markers: not valid."
	return pic
}

// latencyTitle says up to which rate each variant keeps the goal.
func latencyTitle(r *result.Result, mode result.Mode) string {
	if !(r.Goal.LatencyMS > 0) {
		return "Latency grows with the load that is offered."
	}
	var words []string
	for i := range r.Variants {
		greatest, any := 0.0, false
		ps := loads(r, &r.Variants[i], mode)
		for _, p := range ps {
			any = any || p.Valid
			if p.Valid && keeps(r.Goal, p) && drawable(p.Rate.Median) {
				greatest = max(greatest, p.Rate.Median)
			}
		}
		name := clip(clean(r.Variants[i].Name), 28)
		switch {
		case greatest > 0:
			words = append(words, fmt.Sprintf("%s up to %s req/s", name, grouped(greatest)))
		case any:
			words = append(words, name+" at no rate that was tried")
		}
	}
	if len(words) == 0 || len(words) > 5 {
		return fmt.Sprintf("How long %s stays below %s ms.", percent(r.Goal.Percentile), quantity(r.Goal.LatencyMS))
	}
	return fmt.Sprintf("%s stays below %s ms under %s.", percent(r.Goal.Percentile), quantity(r.Goal.LatencyMS), and(words))
}

// behind is how many requests must lie beyond a percentile before its line is drawn firmly.
const behind = 100

// percentiles draws latency against 1/(1−p), as HdrHistogram's plots do: each nine takes as much room.
func percentiles(r *result.Result) picture {
	pic := picture{id: "percentiles", kicker: "Percentiles of latency"}
	type curve struct {
		row
		firm, thin []at // x: 1/(1−p), y: ms
		nodes      int
	}
	var curves []curve
	var xs, ys []float64
	for _, w := range rows(r, shownModes(r)[0]) {
		p := w.largest()
		if p == nil {
			continue
		}
		c := curve{row: w, nodes: p.Nodes}
		c.firm, c.thin = quantiles(p.Bins)
		if len(c.firm)+len(c.thin) < 2 {
			continue
		}
		curves = append(curves, c)
		for _, q := range append(slices.Clone(c.firm), c.thin...) {
			xs, ys = append(xs, q.x), append(ys, q.y)
		}
	}
	if len(curves) == 0 {
		pic.missing = "No percentiles: the result holds no histogram of latency."
		return pic
	}
	var words []string
	for _, c := range curves {
		if p := c.largest(); drawable(p.LatencyMS.P90) {
			words = append(words, fmt.Sprintf("%s ms (%s)", quantity(p.LatencyMS.P90), clip(clean(c.Name), 28)))
		}
	}
	pic.title = "How latency grows towards the slowest requests."
	if len(words) > 0 && len(words) < 6 {
		pic.title = fmt.Sprintf("Nine of ten requests are answered within %s.", and(words))
	}
	h := room(380, len(curves))
	p := &plot{drawing: draw(pic.id, wide, h, pic.title, "Latency in milliseconds against the percentile, on an axis where each nine takes as much room."),
		x: newScale(append(xs, 1, 100), left, right, true)}
	p.x.lo = 1
	log := slices.Max(ys) > 20*slices.Min(ys) && slices.Min(ys) > 0
	p.y = newScale(ys, h-60, 16, log)
	if !log {
		p.y.hi *= 1.05
	}
	yname := "latency, ms"
	if log {
		yname += " (log)"
	}
	marks := []tick{{1, "0 %"}, {2, "50 %"}, {4, "75 %"}, {10, "90 %"}, {20, "95 %"}, {100, "99 %"}, {1e3, "99.9 %"}, {1e4, "99.99 %"}, {1e5, "99.999 %"}, {1e6, "99.9999 %"}}
	p.frame(slices.DeleteFunc(marks, func(t tick) bool { return !p.x.has(t.x) }), ticksOf(p.y.ticks(5)), "share of requests that are at least as fast (each nine takes as much room)", yname)
	var tags []tag
	faintly := false
	for _, c := range curves {
		place := func(qs []at) (out []at) {
			for _, q := range qs {
				if p.x.has(q.x) && p.y.has(q.y) {
					out = append(out, at{p.x.place(q.x), p.y.place(q.y)})
				}
			}
			return out
		}
		firm, thin := place(c.firm), place(c.thin)
		if len(firm) > 0 {
			thin = append([]at{firm[len(firm)-1]}, thin...)
		}
		faintly = faintly || len(thin) > 1
		p.open(series(c.index), fmt.Sprintf("%s on %s", c.Name, count(c.nodes, "node")))
		p.path("law", firm)
		p.path("thin", thin)
		p.close()
		if end := append(firm, thin...); len(end) > 0 {
			tags = append(tags, tag{y: end[len(end)-1].y, words: fmt.Sprintf("%s (%s)", clip(clean(c.Name), 14), count(c.nodes, "node")), tip: c.Name, index: c.index})
		}
	}
	p.tags(tags)
	pic.svg = p.end()
	pic.caption = "Each variant on its most nodes; the histograms of all repeats are merged, percentiles are never averaged."
	if faintly {
		pic.caption += fmt.Sprintf(" Thin: fewer than %d requests lie beyond, so a repeat may look different.", behind)
	}
	return pic
}

// quantiles are a histogram's corners: firm ones, and those with too few requests beyond them.
func quantiles(bins []result.Bin) (firm, thin []at) {
	bins = slices.Clone(bins)
	slices.SortStableFunc(bins, func(a, b result.Bin) int { return cmp.Compare(a.Micros, b.Micros) })
	total := 0.0
	for _, b := range bins {
		total += max(float64(b.Count), 0)
	}
	sum := 0.0
	for _, b := range bins {
		if b.Count <= 0 || b.Micros < 0 {
			continue
		}
		ms := float64(b.Micros) / 1000
		if sum == 0 {
			firm = append(firm, at{1, ms})
		}
		sum += float64(b.Count)
		rest := total - sum
		switch {
		case rest >= behind:
			firm = append(firm, at{total / rest, ms})
		case rest >= 1:
			thin = append(thin, at{total / rest, ms})
		case len(thin)+len(firm) < 2: // all in one bin
			thin = append(thin, at{max(total, 1), ms})
		}
	}
	return firm, thin
}
