package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"servent/lab/result"
)

// nodeLoad draws what each node served and passed on, most first, a panel a variant.
func nodeLoad(r *result.Result) picture {
	pic := picture{id: "nodes", kicker: "Load per node"}
	type panel struct {
		row
		p *result.Point
	}
	var panels []panel
	top := 0.0
	for _, w := range rows(r, shownModes(r)[0]) {
		if p := w.largest(); p != nil && len(p.NodeLoad) > 0 {
			panels = append(panels, panel{w, p})
			sum := served(p)
			for _, s := range p.NodeLoad {
				top = max(top, (posi(s.Served)+posi(s.Passed))/sum)
			}
		}
	}
	if len(panels) == 0 {
		pic.missing = "No load per node: the result does not say what each node served."
		return pic
	}
	even := slices.MinFunc(panels, func(a, b panel) int { return cmp.Compare(a.p.Gini, b.p.Gini) })
	odd := slices.MaxFunc(panels, func(a, b panel) int { return cmp.Compare(a.p.Gini, b.p.Gini) })
	pic.title = fmt.Sprintf("%s spreads its load with a Gini coefficient of %s.", clip(clean(even.Name), 28), quantity(even.p.Gini))
	if len(panels) > 1 {
		pic.title = fmt.Sprintf("Load is most even under %s (Gini %s) and least under %s (%s).", clip(clean(even.Name), 28), quantity(even.p.Gini), clip(clean(odd.Name), 28), quantity(odd.p.Gini))
	}
	columns := min(len(panels), 4)
	lines := (len(panels) + columns - 1) / columns
	const high, begin = 204.0, 80.0
	d := draw(pic.id, wide, float64(lines)*high+22, pic.title, "For each variant the nodes as bars, most loaded first: what they served, and above it what they passed on.")
	each := (wide - begin) / float64(columns)
	for i, n := range panels {
		x0 := begin + float64(i%columns)*each
		y0 := float64(i/columns) * high
		y := newScale([]float64{top}, y0+192, y0+54, false)
		d.open(series(n.index), "")
		d.marker("dot", n.index, x0+6, y0+16, 5)
		d.text("tag", "start", x0+18, y0+20.5, clip(clean(n.Name), int(each/8)-4))
		d.text("tick", "start", x0+18, y0+36, fmt.Sprintf("Gini %s · %s", quantity(n.p.Gini), count(n.p.Nodes, "node")))
		for _, t := range y.ticks(3) {
			d.line("grid", x0, y.place(t), x0+each-24, y.place(t))
			if i%columns == 0 {
				d.text("tick", "end", x0-8, y.place(t)+4, share(t))
			}
		}
		bars(d, n.p, x0, each-24, y)
		if k := len(n.p.NodeLoad); k > 1 {
			d.line("ideal", x0, y.place(1/float64(k)), x0+each-24, y.place(1/float64(k)))
		}
		d.line("axis", x0, y.from, x0+each-24, y.from)
		d.close()
	}
	d.text("name", "middle", begin+(wide-begin)/2, d.h-6, "nodes, most loaded first")
	d.upright("name", 20, d.h/2+10, "share of all requests")
	pic.svg = d.end()
	pic.caption = "Full bars: served here. Pale bars above: passed on to other nodes. Grey dashes: an even share. Gini 0: all alike; 1: all on one node."
	return pic
}

func posi(n int64) float64 { return max(float64(n), 0) }

// served is how many requests all nodes served, at least one.
func served(p *result.Point) float64 {
	sum := 0.0
	for _, s := range p.NodeLoad {
		sum += posi(s.Served)
	}
	return max(sum, 1)
}

// most bars that a panel draws; of more nodes every so-manieth is drawn.
const mostBars = 128

func bars(d *drawing, p *result.Point, x0, wide float64, y scale) {
	load := slices.Clone(p.NodeLoad)
	slices.SortStableFunc(load, func(a, b result.Share) int {
		return cmp.Compare(posi(b.Served)+posi(b.Passed), posi(a.Served)+posi(a.Passed))
	})
	n := min(len(load), mostBars)
	step := wide / float64(n)
	sum := served(p)
	for i := range n {
		s := load[i*len(load)/n]
		a, b := y.place(posi(s.Served)/sum), y.place((posi(s.Served)+posi(s.Passed))/sum)
		x, w := x0+float64(i)*step+step*0.12, min(step*0.76, 44)
		d.open("bar", fmt.Sprintf("%s: served %s, passed on %s, busy %s", s.Node, grouped(float64(s.Served)), grouped(float64(s.Passed)), share(s.Busy)))
		d.rect("full", x, a, w, y.from-a)
		if b < a {
			d.rect("pale", x, b, w, a-b)
		}
		d.close()
	}
}

// timeline draws good and failed requests round the fault, a panel a variant over one another.
func timeline(r *result.Result) picture {
	pic := picture{id: "timeline", kicker: "Around the fault"}
	var hit []row
	var xs []float64
	for _, w := range rows(r, shownModes(r)[0]) {
		if w.Survival != nil && len(w.Survival.Timeline) > 1 {
			hit = append(hit, w)
			for _, t := range w.Survival.Timeline {
				xs = append(xs, t.At-w.Survival.FaultAt)
			}
		}
	}
	if len(hit) == 0 {
		pic.missing = "No timeline: no fault was made in this run."
		return pic
	}
	pic.title = timelineTitle(hit)
	const high = 112.0
	h := float64(len(hit))*high + 62
	d := draw(pic.id, wide, h, pic.title, "For each variant the answered and the failed requests a second, in seconds from the fault.")
	x := newScale(append(xs, 0), left, right, false)
	for _, v := range xs {
		if drawable(v) {
			x.lo = min(x.lo, v)
		}
	}
	for i, w := range hit {
		top := float64(i)*high + 14
		ys := []float64{w.Survival.Offered}
		for _, t := range w.Survival.Timeline {
			ys = append(ys, float64(t.Good)*perSecond, float64(t.Errors)*perSecond)
		}
		p := &plot{drawing: d, x: x, y: newScale(ys, top+high-26, top, false)}
		p.panel(w)
	}
	p := &plot{drawing: d, x: x}
	bottom := h - 62
	for _, t := range x.ticks(8) {
		p.line("axis", x.place(t), bottom, x.place(t), bottom+5)
		p.text("tick", "middle", x.place(t), bottom+20, strings.Replace(quantity(t), "-", "−", 1))
	}
	p.line("axis", left, bottom, right, bottom)
	p.text("name", "middle", (left+right)/2, bottom+42, "seconds from the fault")
	p.upright("name", 20, bottom/2, "requests per second")
	pic.svg = d.end()
	pic.caption = "Area: requests answered well, in tenths of a second. Dark bars: failed ones. Dashes: what was offered. Full line: the fault; dotted line: back at 95 % of the rate without errors."
	return pic
}

const perSecond = 10 // a tick is a tenth of a second

// panel draws one variant.
func (p *plot) panel(w row) {
	s := w.Survival
	var upper, lower []at
	ts := slices.Clone(s.Timeline)
	slices.SortStableFunc(ts, func(a, b result.Tick) int { return cmp.Compare(a.At, b.At) })
	p.open(series(w.index), "")
	for _, t := range p.y.ticks(3) {
		p.line("grid", left, p.y.place(t), right, p.y.place(t))
		p.text("tick", "end", left-8, p.y.place(t)+4, grouped(t))
	}
	for _, t := range ts {
		from, to := t.At-s.FaultAt, t.At-s.FaultAt+1.0/perSecond
		if !drawable(from) {
			continue
		}
		y := p.y.place(float64(t.Good) * perSecond)
		upper = append(upper, at{p.x.place(from), y}, at{p.x.place(to), y})
		lower = append(lower, at{p.x.place(from), p.y.from}, at{p.x.place(to), p.y.from})
	}
	p.area("ground", upper, lower)
	p.path("edge", upper)
	for _, t := range ts {
		if from := t.At - s.FaultAt; t.Errors > 0 && drawable(from) {
			y := p.y.place(float64(t.Errors) * perSecond)
			a, b := p.x.place(from), p.x.place(from+1.0/perSecond)
			p.open("fail", fmt.Sprintf("%s s: %d failed, %d answered", quantity(from), t.Errors, t.Good))
			p.rect("full", a+0.5, y, max(b-a-1, 1.5), p.y.from-y)
			p.close()
		}
	}
	if s.Offered > 0 && p.y.has(s.Offered) {
		p.line("ideal", left, p.y.place(s.Offered), right, p.y.place(s.Offered))
	}
	p.line("axis", left, p.y.from, right, p.y.from)
	p.line("fault", p.x.place(0), p.y.to-8, p.x.place(0), p.y.from)
	if s.Recovery > 0 && p.x.has(s.Recovery) {
		p.line("back", p.x.place(s.Recovery), p.y.to-8, p.x.place(s.Recovery), p.y.from)
	}
	y := p.y.to + 12
	p.marker("dot", w.index, right+22, y, 5)
	p.text("tag", "start", right+34, y+4.5, clip(clean(w.Name), 26))
	for i, words := range []string{clip(clean(s.What), 34), "errors for " + seconds(s.ErrorsFor) + ", back: " + back(s), clip("keys lost: "+keysLost(s), 34)} {
		p.text("tick", "start", right+34, y+22+float64(i)*16, words)
	}
	p.close()
}

func timelineTitle(hit []row) string {
	s := hit[0].Survival
	var words []string
	for i, w := range hit {
		long, verb := "for "+seconds(w.Survival.ErrorsFor), ""
		if w.Survival.ErrorsFor == 0 {
			long = "not at all"
		}
		if i == 0 {
			verb = "fails "
		}
		words = append(words, clip(clean(w.Name), 28)+" "+verb+long)
	}
	what := fault(s)
	if s.Nodes > 0 {
		what += " of " + strconv.Itoa(s.Nodes)
	}
	if len(words) > 5 {
		return fmt.Sprintf("What a fault costs (%s).", what)
	}
	return fmt.Sprintf("After “%s” %s.", what, and(words))
}

// mostSteps that a diagram draws; of a longer request it shows the beginning.
const mostSteps = 40

// messages draws one request of a variant as Lamport did: a line down for each that takes part, an arrow for
// each message (Time, Clocks, and the Ordering of Events, CACM 1978, figure 1, turned). Time goes down but not
// to scale: the milliseconds stand at the left.
func messages(w row) picture {
	pic := picture{id: "messages-" + strconv.Itoa(w.index), kicker: "One request"}
	steps := w.Trace
	cut := max(len(steps)-mostSteps, 0)
	steps = steps[:len(steps)-cut]
	var who []string
	for _, s := range steps {
		for _, n := range []string{s.From, s.To} {
			if !slices.Contains(who, n) {
				who = append(who, n)
			}
		}
	}
	took := 0.0
	for _, s := range steps {
		if drawable(s.AtMS) {
			took = max(took, s.AtMS)
		}
	}
	pic.title = fmt.Sprintf("%s: %s, the last after %s ms.", clip(clean(w.Name), 28), count(len(w.Trace), "message"), quantity(math.Round(took*10)/10))
	const begin, lead, down = 62.0, 34.0, 27.0
	each := max(92, min(150, (472-begin)/float64(max(len(who), 1))))
	width := max(472, begin+each*float64(len(who)))
	h := lead + down*float64(len(steps)) + 24
	if cut > 0 {
		h += 18
	}
	d := draw(pic.id, width, h, pic.title, "One request as messages between client, nodes and instances, from the first to the last.")
	x := func(name string) float64 { return begin + each*(float64(slices.Index(who, name))+0.5) }
	d.open(series(w.index), "")
	for _, n := range who {
		d.line("life", x(n), lead-8, x(n), lead+down*float64(len(steps))+8)
		d.text("who", "middle", x(n), lead-16, clip(clean(n), int(each/7.6)))
	}
	d.text("tick", "end", begin-14, lead-16, "ms")
	for i, s := range steps {
		y := lead + down*float64(i) + 12
		d.open("step", fmt.Sprintf("%s ms: %s to %s: %s", quantity(s.AtMS), s.From, s.To, s.What))
		d.text("tick", "end", begin-14, y+4, ms(s.AtMS))
		d.arrow(x(s.From), y, x(s.To), y+7, clip(clean(s.What), max(int(math.Abs(x(s.To)-x(s.From))/6.8)-1, 12)))
		d.close()
	}
	if cut > 0 {
		d.text("tick", "start", begin, h-8, fmt.Sprintf("… and %d more", cut))
	}
	d.close()
	pic.svg = d.end()
	pic.caption = clean(w.TraceWhat)
	return pic
}

func ms(x float64) string {
	if !drawable(x) {
		return "?"
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}

// arrow is a message with its words on it; one to oneself is a loop.
func (d *drawing) arrow(x1, y1, x2, y2 float64, words string) {
	if x1 == x2 {
		d.path("msg", []at{{x1, y1}, {x1 + 26, y1 + 1}, {x1 + 26, y2 + 2}, {x1 + 6, y2 + 2}})
		d.closed("tip", at{x1 + 1, y2 + 2}, at{x1 + 9, y2 - 2}, at{x1 + 9, y2 + 6})
		d.text("on", "start", x1+32, y2+1, words)
		return
	}
	way := 1.0
	if x2 < x1 {
		way = -1
	}
	d.line("msg", x1, y1, x2-way*6, y2)
	d.closed("tip", at{x2 - way, y2}, at{x2 - way*9, y2 - 4.5}, at{x2 - way*9, y2 + 3.5})
	d.text("on", "middle", (x1+x2)/2, (y1+y2)/2-5, words)
}
