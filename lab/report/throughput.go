package report

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// picture is a figure with its words.
type picture struct {
	id      string
	kicker  string // what kind of figure: throughput against nodes
	title   string // what it says, a sentence
	svg     string
	caption string // how to read it
	missing string // instead of all: why there is none
}

// chart is a plot that draws what a comparison has.
type chart struct{ *figure.Plot }

const (
	wide  = 960.0 // of a figure
	left  = 74.0
	right = 690.0 // where the names begin
)

// throughput draws rates against nodes: what was measured with its intervals, the law, the theory, and what was
// simulated.
func throughput(r *result.Result) picture {
	pic := picture{id: "throughput", kicker: "Throughput against nodes"}
	main := rows(r, shownModes(r)[0])
	var xs, ys []float64
	ns := nodeCounts(main)
	for _, m := range shownModes(r)[1:] {
		ns = append(ns, nodeCounts(rows(r, m))...)
	}
	for _, n := range ns {
		xs = append(xs, float64(n))
	}
	names := 1
	for i := range r.Variants {
		v := &r.Variants[i]
		names++
		for k := range v.Points {
			ys = append(ys, v.Points[k].Rate.Median, v.Points[k].Rate.High)
		}
		if v.Law != nil {
			for _, c := range append(append([]result.CurvePoint(nil), v.Law.Curve...), v.Law.Further...) {
				xs, ys = append(xs, float64(c.Nodes)), append(ys, c.Rate)
			}
		}
		if v.Theory != nil && len(ns) > 0 {
			for _, c := range v.Theory.Curve {
				ys = append(ys, c.Rate)
			}
		}
	}
	if len(ns) == 0 {
		pic.missing = "No point was measured."
		return pic
	}
	pic.title = throughputTitle(r, main)
	h := figure.Room(430, names)
	p := chart{&figure.Plot{Drawing: figure.Draw(pic.id, wide, h, pic.title, "Throughput in requests a second against the number of nodes. All points stand in the CSV below."),
		X: figure.NewScale(xs, left, right, many(xs)), Y: figure.NewScale(ys, h-60, 16, many(xs))}}
	if !p.X.Log {
		p.X.Lo = 0
		p.X.Hi *= 1.03
		p.Y.Hi *= 1.06
	}
	p.Frame(figure.NodeTicks(sorted(ns)), figure.TicksOf(p.Y.Ticks(6)), "nodes", "requests per second")
	used := map[string]bool{}
	p.ideal(main, used)
	var tags []figure.Tag
	for i, w := range main {
		p.Open(figure.Series(w.index), "")
		p.models(r, w, used)
		p.points(r, w, dodge(i, len(main)), used)
		p.Close()
		if l := w.largest(); l != nil && figure.Drawable(l.Rate.Median) {
			tags = append(tags, figure.Tag{Y: p.Y.Place(l.Rate.Median), Words: tagName(w), Tip: figure.Clean(w.Name), Index: w.index})
		}
	}
	for _, m := range shownModes(r)[1:] {
		for i, w := range rows(r, m) {
			p.Open(figure.Series(w.index), "")
			p.points(r, w, dodge(i, len(main)), used)
			p.Close()
		}
	}
	p.Tags(tags)
	pic.svg, pic.caption = p.End(), legend(used)
	return pic
}

// many says that numbers of nodes are too far apart for a linear axis.
func many(ns []float64) bool {
	lo, hi := math.Inf(1), 0.0
	for _, n := range ns {
		if figure.Drawable(n) && n > 0 {
			lo, hi = min(lo, n), max(hi, n)
		}
	}
	return hi > 128*lo
}

// dodge sets points on the same number of nodes side by side.
func dodge(i, n int) float64 {
	return (float64(i) - float64(n-1)/2) * min(7, 40/float64(max(n, 1)))
}

func tagName(w row) string {
	name := figure.Clean(w.Name)
	if w.Answers.Verdict == "WRONG" {
		name = figure.Clip(name, 16) + " (WRONG)"
	}
	return name
}

// ideal is N times the best rate of the fewest nodes.
func (p chart) ideal(all []row, used map[string]bool) {
	fewest, slope := math.MaxInt, 0.0
	for _, w := range all {
		for _, q := range w.points {
			if q.Nodes > 0 && q.Valid && figure.Drawable(q.Rate.Median) && q.Rate.Median > 0 {
				if q.Nodes < fewest {
					fewest, slope = q.Nodes, 0
				}
				if q.Nodes == fewest {
					slope = max(slope, q.Rate.Median/float64(q.Nodes))
				}
			}
		}
	}
	if slope <= 0 {
		return
	}
	from, to := max(p.X.Lo, p.Y.Lo/slope), min(p.X.Hi, p.Y.Hi/slope)
	if !(from < to) {
		return
	}
	p.Line("ideal", p.X.Place(from), p.Y.Place(from*slope), p.X.Place(to), p.Y.Place(to*slope))
	mid := from + (to-from)*0.62
	p.Text("tick", "end", p.X.Place(mid)-8, p.Y.Place(mid*slope)-6, "ideal")
	used["ideal"] = true
}

// models draws the law with its band, the theory and the simulation of one variant.
func (p chart) models(r *result.Result, w row, used map[string]bool) {
	if w.Law != nil {
		p.band(w.Law.Curve)
		p.Path("law", p.curve(w.Law.Curve))
		used["law"] = used["law"] || len(w.Law.Curve) > 1
		if len(w.Law.Further) > 0 {
			p.band(w.Law.Further)
			if !foretold(r, w, w.Law.Further[0].Nodes) {
				p.Path("simulated", p.curve(w.Law.Further))
			}
			for _, c := range w.Law.Further {
				if foretold(r, w, c.Nodes) {
					continue // its point is drawn with the other simulated ones
				}
				if p.X.Has(float64(c.Nodes)) && p.Y.Has(c.Rate) {
					p.Open("hollow", fmt.Sprintf("%s, SIMULATED on %s: %s req/s, between %s and %s", w.Name, count(c.Nodes, "node"), figure.Grouped(c.Rate), figure.Grouped(c.Low), figure.Grouped(c.High)))
					p.Marker("dot", w.index, p.X.Place(float64(c.Nodes)), p.Y.Place(c.Rate), 4.5)
					p.Close()
				}
			}
			used["simulated"] = true
		}
	}
	if w.Theory != nil {
		p.Path("theory", p.curve(w.Theory.Curve))
		used["theory"] = used["theory"] || len(w.Theory.Curve) > 1
	}
}

// foretold says that a variant has a simulated point on so many nodes.
func foretold(r *result.Result, w row, nodes int) bool {
	return slices.ContainsFunc(w.Points, func(q result.Point) bool {
		return q.Nodes == nodes && modeOf(r, &q) == result.Simulated
	})
}

// curve is the places of a model as far as the axes go.
func (p chart) curve(cs []result.CurvePoint) []figure.Spot {
	var out []figure.Spot
	for _, c := range cs {
		if n := float64(c.Nodes); p.X.Has(n) && p.Y.Has(c.Rate) {
			out = append(out, figure.At(p.X.Place(n), p.Y.Place(c.Rate)))
		}
	}
	return out
}

func (p chart) band(cs []result.CurvePoint) {
	var upper, lower []figure.Spot
	for _, c := range cs {
		if n := float64(c.Nodes); p.X.Has(n) && figure.Drawable(c.Low) && figure.Drawable(c.High) && c.Low < c.High {
			upper, lower = append(upper, figure.At(p.X.Place(n), p.Y.Place(c.High))), append(lower, figure.At(p.X.Place(n), p.Y.Place(c.Low)))
		}
	}
	p.Area("band", upper, lower)
}

// points draws medians with their intervals; they are joined when no law says how they lie.
func (p chart) points(r *result.Result, w row, shift float64, used map[string]bool) {
	var joined []figure.Spot
	for _, q := range w.points {
		if q.Valid && p.X.Has(float64(q.Nodes)) && p.Y.Has(q.Rate.Median) {
			joined = append(joined, figure.At(p.X.Place(float64(q.Nodes))+shift, p.Y.Place(q.Rate.Median)))
		}
	}
	mode := result.Mode("")
	if len(w.points) > 0 {
		mode = modeOf(r, w.points[0])
	}
	if w.Law == nil || mode == result.Simulated {
		class := "join"
		if mode == result.Simulated {
			class = "simulated"
		}
		p.Path(class, joined)
		used["join"] = used["join"] || len(joined) > 1 && class == "join"
	}
	for _, q := range w.points {
		n := float64(q.Nodes)
		if !p.X.Has(n) || !p.Y.Has(q.Rate.Median) {
			continue
		}
		class, tip := "point", fmt.Sprintf("%s, %s on %s: %s req/s [%s, %s]", w.Name, word(modeOf(r, q)), count(q.Nodes, "node"), figure.Grouped(q.Rate.Median), figure.Grouped(q.Rate.Low), figure.Grouped(q.Rate.High))
		switch {
		case !q.Valid:
			class, tip = "void", tip+", not valid: "+q.Why
			used["void"] = true
		case mode == result.Simulated:
			class = "hollow"
			used["simulated"] = true
		default:
			used["point"] = true
		}
		x := p.X.Place(n) + shift
		p.Open(class, tip)
		if figure.Drawable(q.Rate.Low) && figure.Drawable(q.Rate.High) {
			hi, lo := p.Y.Place(q.Rate.High), p.Y.Place(q.Rate.Low)
			p.Line("whisker", x, hi, x, lo)
			p.Line("whisker", x-4, hi, x+4, hi)
			p.Line("whisker", x-4, lo, x+4, lo)
		}
		p.Marker("dot", w.index, x, p.Y.Place(q.Rate.Median), 5)
		p.Close()
	}
}

// legend says in words what of the figure is there.
func legend(used map[string]bool) string {
	var out []string
	for _, k := range []struct{ key, words string }{
		{"point", "Markers: medians, with their 95 % intervals; those on equally many nodes stand side by side."},
		{"join", "Thin lines only join them."},
		{"law", "Lines: the law that describes the points best, with its 95 % band."},
		{"theory", "Dotted: the textbook's formula."},
		{"simulated", "Hollow and dashed: SIMULATED, not measured."},
		{"void", "Grey: not valid, in no ranking and in no law."},
		{"ideal", "Grey dashes: N times the best rate of the fewest nodes."},
	} {
		if used[k.key] {
			out = append(out, k.words)
		}
	}
	return strings.Join(out, " ")
}

// throughputTitle says the rates on most nodes in one sentence.
func throughputTitle(r *result.Result, all []row) string {
	ns := nodeCounts(all)
	if len(ns) == 0 {
		return "Nothing was measured."
	}
	n := ns[len(ns)-1]
	var words []string
	for _, w := range byRate(all, n) {
		s := fmt.Sprintf("%s %s", figure.Clip(figure.Clean(w.Name), 28), figure.Grouped(w.at(n).Rate.Median))
		if len(words) == 0 {
			s = fmt.Sprintf("%s answers %s requests a second", figure.Clip(figure.Clean(w.Name), 28), figure.Grouped(w.at(n).Rate.Median))
		}
		if w.Answers.Verdict == "WRONG" {
			s += " (WRONG answers)"
		}
		words = append(words, s)
	}
	if len(words) == 0 {
		return fmt.Sprintf("No variant has a valid point on %s.", count(n, "node"))
	}
	if len(words) > 4 {
		words = append(words[:3], fmt.Sprintf("%d others less", len(words)-3))
	}
	s := fmt.Sprintf("On %s %s.", count(n, "node"), and(words))
	if r.Verdict.Kind == "refused" {
		s += " This is no ranking."
	}
	return s
}

// byRate are the rows with a valid point on n nodes: right answers first, then by their rate.
func byRate(all []row, n int) []row {
	var out []row
	for _, w := range all {
		if p := w.at(n); p != nil && p.Valid && figure.Drawable(p.Rate.Median) {
			out = append(out, w)
		}
	}
	wrong := func(w row) bool { return w.Answers.Verdict == "WRONG" }
	sortStable(out, func(a, b row) bool {
		if wrong(a) != wrong(b) {
			return wrong(b)
		}
		return a.at(n).Rate.Median > b.at(n).Rate.Median
	})
	return out
}
