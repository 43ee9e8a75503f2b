package report

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"servent/lab/report/figure"
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
	pic.title = fmt.Sprintf("%s spreads its load with a Gini coefficient of %s.", figure.Clip(figure.Clean(even.Name), 28), figure.Quantity(even.p.Gini))
	if len(panels) > 1 {
		pic.title = fmt.Sprintf("Load is most even under %s (Gini %s) and least under %s (%s).", figure.Clip(figure.Clean(even.Name), 28), figure.Quantity(even.p.Gini), figure.Clip(figure.Clean(odd.Name), 28), figure.Quantity(odd.p.Gini))
	}
	columns := min(len(panels), 4)
	lines := (len(panels) + columns - 1) / columns
	const high, begin = 204.0, 80.0
	d := figure.Draw(pic.id, wide, float64(lines)*high+22, pic.title, "For each variant the nodes as bars, most loaded first: what they served, and above it what they passed on.")
	each := (wide - begin) / float64(columns)
	for i, n := range panels {
		x0 := begin + float64(i%columns)*each
		y0 := float64(i/columns) * high
		y := figure.NewScale([]float64{top}, y0+192, y0+54, false)
		d.Open(figure.Series(n.index), "")
		d.Marker("dot", n.index, x0+6, y0+16, 5)
		d.Text("tag", "start", x0+18, y0+20.5, figure.Clip(figure.Clean(n.Name), int(each/8)-4))
		d.Text("tick", "start", x0+18, y0+36, fmt.Sprintf("Gini %s · %s", figure.Quantity(n.p.Gini), count(n.p.Nodes, "node")))
		for _, t := range y.Ticks(3) {
			d.Line("grid", x0, y.Place(t), x0+each-24, y.Place(t))
			if i%columns == 0 {
				d.Text("tick", "end", x0-8, y.Place(t)+4, figure.Share(t))
			}
		}
		bars(d, n.p, x0, each-24, y)
		if k := len(n.p.NodeLoad); k > 1 {
			d.Line("ideal", x0, y.Place(1/float64(k)), x0+each-24, y.Place(1/float64(k)))
		}
		d.Line("axis", x0, y.From, x0+each-24, y.From)
		d.Close()
	}
	d.Text("name", "middle", begin+(wide-begin)/2, d.H-6, "nodes, most loaded first")
	d.Upright("name", 20, d.H/2+10, "share of all requests")
	pic.svg = d.End()
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

func bars(d *figure.Drawing, p *result.Point, x0, wide float64, y figure.Scale) {
	load := slices.Clone(p.NodeLoad)
	slices.SortStableFunc(load, func(a, b result.Share) int {
		return cmp.Compare(posi(b.Served)+posi(b.Passed), posi(a.Served)+posi(a.Passed))
	})
	n := min(len(load), mostBars)
	step := wide / float64(n)
	sum := served(p)
	for i := range n {
		s := load[i*len(load)/n]
		a, b := y.Place(posi(s.Served)/sum), y.Place((posi(s.Served)+posi(s.Passed))/sum)
		x, w := x0+float64(i)*step+step*0.12, min(step*0.76, 44)
		d.Open("bar", fmt.Sprintf("%s: served %s, passed on %s, busy %s", s.Node, figure.Grouped(float64(s.Served)), figure.Grouped(float64(s.Passed)), figure.Share(s.Busy)))
		d.Rect("full", x, a, w, y.From-a)
		if b < a {
			d.Rect("pale", x, b, w, a-b)
		}
		d.Close()
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
	d := figure.Draw(pic.id, wide, h, pic.title, "For each variant the answered and the failed requests a second, in seconds from the fault.")
	x := figure.NewScale(append(xs, 0), left, right, false)
	for _, v := range xs {
		if figure.Drawable(v) {
			x.Lo = min(x.Lo, v)
		}
	}
	for i, w := range hit {
		top := float64(i)*high + 14
		ys := []float64{w.Survival.Offered}
		for _, t := range w.Survival.Timeline {
			ys = append(ys, float64(t.Good)*perSecond, float64(t.Errors)*perSecond)
		}
		p := chart{&figure.Plot{Drawing: d, X: x, Y: figure.NewScale(ys, top+high-26, top, false)}}
		p.panel(w)
	}
	p := &figure.Plot{Drawing: d, X: x}
	bottom := h - 62
	for _, t := range x.Ticks(8) {
		p.Line("axis", x.Place(t), bottom, x.Place(t), bottom+5)
		p.Text("tick", "middle", x.Place(t), bottom+20, strings.Replace(figure.Quantity(t), "-", "−", 1))
	}
	p.Line("axis", left, bottom, right, bottom)
	p.Text("name", "middle", (left+right)/2, bottom+42, "seconds from the fault")
	p.Upright("name", 20, bottom/2, "requests per second")
	pic.svg = d.End()
	pic.caption = "Area: requests answered well, in tenths of a second. Dark bars: failed ones. Dashes: what was offered. Full line: the fault; dotted line: back at 95 % of the rate without errors."
	return pic
}

const perSecond = 10 // a tick is a tenth of a second

// panel draws one variant.
func (p chart) panel(w row) {
	s := w.Survival
	var upper, lower []figure.Spot
	ts := slices.Clone(s.Timeline)
	slices.SortStableFunc(ts, func(a, b result.Tick) int { return cmp.Compare(a.At, b.At) })
	p.Open(figure.Series(w.index), "")
	for _, t := range p.Y.Ticks(3) {
		p.Line("grid", left, p.Y.Place(t), right, p.Y.Place(t))
		p.Text("tick", "end", left-8, p.Y.Place(t)+4, figure.Grouped(t))
	}
	for _, t := range ts {
		from, to := t.At-s.FaultAt, t.At-s.FaultAt+1.0/perSecond
		if !figure.Drawable(from) {
			continue
		}
		y := p.Y.Place(float64(t.Good) * perSecond)
		upper = append(upper, figure.At(p.X.Place(from), y), figure.At(p.X.Place(to), y))
		lower = append(lower, figure.At(p.X.Place(from), p.Y.From), figure.At(p.X.Place(to), p.Y.From))
	}
	p.Area("ground", upper, lower)
	p.Path("edge", upper)
	for _, t := range ts {
		if from := t.At - s.FaultAt; t.Errors > 0 && figure.Drawable(from) {
			y := p.Y.Place(float64(t.Errors) * perSecond)
			a, b := p.X.Place(from), p.X.Place(from+1.0/perSecond)
			p.Open("fail", fmt.Sprintf("%s s: %d failed, %d answered", figure.Quantity(from), t.Errors, t.Good))
			p.Rect("full", a+0.5, y, max(b-a-1, 1.5), p.Y.From-y)
			p.Close()
		}
	}
	if s.Offered > 0 && p.Y.Has(s.Offered) {
		p.Line("ideal", left, p.Y.Place(s.Offered), right, p.Y.Place(s.Offered))
	}
	p.Line("axis", left, p.Y.From, right, p.Y.From)
	p.Line("fault", p.X.Place(0), p.Y.To-8, p.X.Place(0), p.Y.From)
	if s.Recovery > 0 && p.X.Has(s.Recovery) {
		p.Line("back", p.X.Place(s.Recovery), p.Y.To-8, p.X.Place(s.Recovery), p.Y.From)
	}
	y := p.Y.To + 12
	p.Marker("dot", w.index, right+22, y, 5)
	p.Text("tag", "start", right+34, y+4.5, figure.Clip(figure.Clean(w.Name), 26))
	for i, words := range []string{figure.Clip(figure.Clean(s.What), 34), "errors for " + figure.Seconds(s.ErrorsFor) + ", back: " + back(s), figure.Clip("keys lost: "+keysLost(s), 34)} {
		p.Text("tick", "start", right+34, y+22+float64(i)*16, words)
	}
	p.Close()
}

func timelineTitle(hit []row) string {
	s := hit[0].Survival
	var words []string
	for i, w := range hit {
		long, verb := "for "+figure.Seconds(w.Survival.ErrorsFor), ""
		if w.Survival.ErrorsFor == 0 {
			long = "not at all"
		}
		if i == 0 {
			verb = "fails "
		}
		words = append(words, figure.Clip(figure.Clean(w.Name), 28)+" "+verb+long)
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
		if figure.Drawable(s.AtMS) {
			took = max(took, s.AtMS)
		}
	}
	pic.title = fmt.Sprintf("%s: %s, the last after %s ms.", figure.Clip(figure.Clean(w.Name), 28), count(len(w.Trace), "message"), figure.Quantity(math.Round(took*10)/10))
	const begin, lead, down = 62.0, 34.0, 27.0
	each := max(92, min(150, (472-begin)/float64(max(len(who), 1))))
	width := max(472, begin+each*float64(len(who)))
	h := lead + down*float64(len(steps)) + 24
	if cut > 0 {
		h += 18
	}
	d := figure.Draw(pic.id, width, h, pic.title, "One request as messages between client, nodes and instances, from the first to the last.")
	x := func(name string) float64 { return begin + each*(float64(slices.Index(who, name))+0.5) }
	d.Open(figure.Series(w.index), "")
	for _, n := range who {
		d.Line("life", x(n), lead-8, x(n), lead+down*float64(len(steps))+8)
		d.Text("who", "middle", x(n), lead-16, figure.Clip(figure.Clean(n), int(each/7.6)))
	}
	d.Text("tick", "end", begin-14, lead-16, "ms")
	for i, s := range steps {
		y := lead + down*float64(i) + 12
		d.Open("step", fmt.Sprintf("%s ms: %s to %s: %s", figure.Quantity(s.AtMS), s.From, s.To, s.What))
		d.Text("tick", "end", begin-14, y+4, ms(s.AtMS))
		d.Arrow(x(s.From), y, x(s.To), y+7, figure.Clip(figure.Clean(s.What), max(int(math.Abs(x(s.To)-x(s.From))/6.8)-1, 12)))
		d.Close()
	}
	if cut > 0 {
		d.Text("tick", "start", begin, h-8, fmt.Sprintf("… and %d more", cut))
	}
	d.Close()
	pic.svg = d.End()
	pic.caption = figure.Clean(w.TraceWhat)
	return pic
}

func ms(x float64) string {
	if !figure.Drawable(x) {
		return "?"
	}
	return strconv.FormatFloat(x, 'f', 1, 64)
}
