package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"servent/lab/report/figure"
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
	h := figure.Room(400, len(r.Variants))
	p := &figure.Plot{Drawing: figure.Draw(pic.id, wide, h, pic.title, "Latency in milliseconds, on a logarithmic axis, against the requests a second that were offered."),
		X: figure.NewScale(xs, left, right, false), Y: figure.NewScale(ys, h-60, 16, true)}
	p.X.Hi *= 1.03
	p.Frame(figure.TicksOf(p.X.Ticks(8)), figure.TicksOf(p.Y.Ticks(5)), "offered load, requests per second", percent(want)+" latency, ms (log)")
	if goal := r.Goal.LatencyMS; goal > 0 && p.Y.Has(goal) {
		y := p.Y.Place(goal)
		p.Line("goal", left, y, right, y)
		p.Text("goalname", "end", right-4, y-6, fmt.Sprintf("goal: %s < %s ms", percent(r.Goal.Percentile), figure.Quantity(goal)))
	}
	var tags []figure.Tag
	for i := range r.Variants {
		v := &r.Variants[i]
		var line, median []figure.Spot
		ps := loads(r, v, mode)
		p.Open(figure.Series(i), "")
		for _, q := range ps {
			y := percentile(q, want)
			if p.X.Has(q.Offered) && p.Y.Has(y) && q.Valid {
				line = append(line, figure.At(p.X.Place(q.Offered), p.Y.Place(y)))
			}
			if p.X.Has(q.Offered) && p.Y.Has(q.LatencyMS.P50) && q.Valid {
				median = append(median, figure.At(p.X.Place(q.Offered), p.Y.Place(q.LatencyMS.P50)))
			}
		}
		p.Path("theory", median)
		p.Path("law", line)
		for _, q := range ps {
			if y := percentile(q, want); p.X.Has(q.Offered) && p.Y.Has(y) {
				class, tip := "point", fmt.Sprintf("%s on %s, %s req/s offered: p50 %s ms, p90 %s ms, p99 %s ms", v.Name, count(q.Nodes, "node"),
					figure.Grouped(q.Offered), figure.Quantity(q.LatencyMS.P50), figure.Quantity(q.LatencyMS.P90), figure.Quantity(q.LatencyMS.P99))
				if !q.Valid {
					class, tip = "void", tip+", not valid: "+q.Why
				}
				p.Open(class, tip)
				p.Marker("dot", i, p.X.Place(q.Offered), p.Y.Place(y), 4.5)
				p.Close()
			}
		}
		p.Close()
		if len(line) > 0 {
			tags = append(tags, figure.Tag{Y: line[len(line)-1].Y, Words: fmt.Sprintf("%s (%s)", figure.Clip(figure.Clean(v.Name), 14), count(ps[0].Nodes, "node")), Tip: v.Name, Index: i})
		}
	}
	p.Tags(tags)
	pic.svg = p.End()
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
			if p.Valid && keeps(r.Goal, p) && figure.Drawable(p.Rate.Median) {
				greatest = max(greatest, p.Rate.Median)
			}
		}
		name := figure.Clip(figure.Clean(r.Variants[i].Name), 28)
		switch {
		case greatest > 0:
			words = append(words, fmt.Sprintf("%s up to %s req/s", name, figure.Grouped(greatest)))
		case any:
			words = append(words, name+" at no rate that was tried")
		}
	}
	if len(words) == 0 || len(words) > 5 {
		return fmt.Sprintf("How long %s stays below %s ms.", percent(r.Goal.Percentile), figure.Quantity(r.Goal.LatencyMS))
	}
	return fmt.Sprintf("%s stays below %s ms under %s.", percent(r.Goal.Percentile), figure.Quantity(r.Goal.LatencyMS), and(words))
}

// behind is how many requests must lie beyond a percentile before its line is drawn firmly.
const behind = 100

// percentiles draws latency against 1/(1−p), as HdrHistogram's plots do: each nine takes as much room.
func percentiles(r *result.Result) picture {
	pic := picture{id: "percentiles", kicker: "Percentiles of latency"}
	type curve struct {
		row
		firm, thin []figure.Spot // x: 1/(1−p), y: ms
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
			xs, ys = append(xs, q.X), append(ys, q.Y)
		}
	}
	if len(curves) == 0 {
		pic.missing = "No percentiles: the result holds no histogram of latency."
		return pic
	}
	var words []string
	for _, c := range curves {
		if p := c.largest(); figure.Drawable(p.LatencyMS.P90) {
			words = append(words, fmt.Sprintf("%s ms (%s)", figure.Quantity(p.LatencyMS.P90), figure.Clip(figure.Clean(c.Name), 28)))
		}
	}
	pic.title = "How latency grows towards the slowest requests."
	if len(words) > 0 && len(words) < 6 {
		pic.title = fmt.Sprintf("Nine of ten requests are answered within %s.", and(words))
	}
	h := figure.Room(380, len(curves))
	p := &figure.Plot{Drawing: figure.Draw(pic.id, wide, h, pic.title, "Latency in milliseconds against the percentile, on an axis where each nine takes as much room."),
		X: figure.NewScale(append(xs, 1, 100), left, right, true)}
	p.X.Lo = 1
	log := slices.Max(ys) > 20*slices.Min(ys) && slices.Min(ys) > 0
	p.Y = figure.NewScale(ys, h-60, 16, log)
	if !log {
		p.Y.Hi *= 1.05
	}
	yname := "latency, ms"
	if log {
		yname += " (log)"
	}
	marks := []figure.Tick{figure.Mark(1, "0 %"), figure.Mark(2, "50 %"), figure.Mark(4, "75 %"), figure.Mark(10, "90 %"), figure.Mark(20, "95 %"), figure.Mark(100, "99 %"), figure.Mark(1e3, "99.9 %"), figure.Mark(1e4, "99.99 %"), figure.Mark(1e5, "99.999 %"), figure.Mark(1e6, "99.9999 %")}
	p.Frame(slices.DeleteFunc(marks, func(t figure.Tick) bool { return !p.X.Has(t.X) }), figure.TicksOf(p.Y.Ticks(5)), "share of requests that are at least as fast (each nine takes as much room)", yname)
	var tags []figure.Tag
	faintly := false
	for _, c := range curves {
		place := func(qs []figure.Spot) (out []figure.Spot) {
			for _, q := range qs {
				if p.X.Has(q.X) && p.Y.Has(q.Y) {
					out = append(out, figure.At(p.X.Place(q.X), p.Y.Place(q.Y)))
				}
			}
			return out
		}
		firm, thin := place(c.firm), place(c.thin)
		if len(firm) > 0 {
			thin = append([]figure.Spot{firm[len(firm)-1]}, thin...)
		}
		faintly = faintly || len(thin) > 1
		p.Open(figure.Series(c.index), fmt.Sprintf("%s on %s", c.Name, count(c.nodes, "node")))
		p.Path("law", firm)
		p.Path("thin", thin)
		p.Close()
		if end := append(firm, thin...); len(end) > 0 {
			tags = append(tags, figure.Tag{Y: end[len(end)-1].Y, Words: fmt.Sprintf("%s (%s)", figure.Clip(figure.Clean(c.Name), 14), count(c.nodes, "node")), Tip: c.Name, Index: c.index})
		}
	}
	p.Tags(tags)
	pic.svg = p.End()
	pic.caption = "Each variant on its most nodes; the histograms of all repeats are merged, percentiles are never averaged."
	if faintly {
		pic.caption += fmt.Sprintf(" Thin: fewer than %d requests lie beyond, so a repeat may look different.", behind)
	}
	return pic
}

// quantiles are a histogram's corners: firm ones, and those with too few requests beyond them.
func quantiles(bins []result.Bin) (firm, thin []figure.Spot) {
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
			firm = append(firm, figure.At(1, ms))
		}
		sum += float64(b.Count)
		rest := total - sum
		switch {
		case rest >= behind:
			firm = append(firm, figure.At(total/rest, ms))
		case rest >= 1:
			thin = append(thin, figure.At(total/rest, ms))
		case len(thin)+len(firm) < 2: // all in one bin
			thin = append(thin, figure.At(max(total, 1), ms))
		}
	}
	return firm, thin
}
