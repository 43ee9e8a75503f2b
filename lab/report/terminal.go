package report

import (
	"fmt"
	"io"
	"math"
	"slices"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// Options of a [Terminal].
type Options struct {
	Color  bool   // escape sequences for colours and weight
	Width  int    // columns of the terminal; 0 means 100
	Report string // path of the HTML file; empty leaves it out
	Longer string // command that measures more; empty leaves it out
	Next   []Next // what to try, a line each
}

// Next is a command to try.
type Next struct {
	Command string // servent apply partitioned
	Why     string // changes one word in compose.yaml
}

// Terminal writes the result as a table for a terminal of o.Width columns.
func Terminal(w io.Writer, r *result.Result, o Options) error {
	p := &paper{colour: o.Color, wide: o.Width}
	if p.wide <= 0 {
		p.wide = 100
	}
	p.head(r)
	p.blank()
	p.best(r)
	p.blank()
	for i, m := range shownModes(r) {
		if i > 0 {
			p.blank()
		}
		if len(shownModes(r)) > 1 {
			p.wrap(0, strong, scene(m))
		}
		p.table(r, m, i == 0)
	}
	p.kinds(r)
	if f := r.Foretold; f != nil {
		p.wrap(0, faint, figure.Clean(f.Text))
	}
	if r.Depth == result.Full {
		p.laws(r)
	}
	p.blank()
	p.validity(r)
	p.next(o)
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// head says what ran where, and which figures come from where.
func (p *paper) head(r *result.Result) {
	main := rows(r, shownModes(r)[0])
	parts := []string{subject(r), scene(shownModes(r)[0])}
	depth := figure.Clean(string(r.Depth))
	if ns := nodeCounts(main); len(ns) > 0 {
		depth = strings.TrimPrefix(depth+": ", ": ") + nodesWord(ns)
	}
	for _, s := range []string{depth, slow(r), span(r.Took)} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	p.items(cell{}, 0, strong, parts)
	if r.Partial != "" {
		p.hang(cell{"PARTIAL: ", warn}, 9, warn, figure.Clean(r.Partial))
	}
	for _, c := range r.Capacity {
		p.wrap(0, plain, capacity(c))
	}
	if r.Depth == result.Full && r.Goal.Default {
		p.hang(cell{"goal: ", plain}, 6, plain, goal(r.Goal)+": the default; x-servent.compare.goal sets another")
	}
	if r.Load != "" {
		p.hang(cell{"load: ", plain}, 6, plain, figure.Clean(r.Load))
	}
	var from []string
	if s := cleaned(r.Stated.Measured); len(s) > 0 {
		from = append(from, "real: "+strings.Join(s, ", "))
	}
	if s := cleaned(r.Stated.Emulated); len(s) > 0 {
		from = append(from, "emulated: "+strings.Join(s, ", "))
	}
	if both := strings.Join(from, "       "); width(both) <= p.wide {
		from = []string{both}
	}
	for _, s := range from {
		if s != "" {
			p.wrap(0, plain, s)
		}
	}
	for _, s := range cleaned(r.Stated.Construction) {
		p.hang(cell{"by construction: ", plain}, 17, plain, s)
	}
}

// nodesWord is "1, 2, 4 nodes".
func nodesWord(ns []int) string {
	if len(ns) == 1 {
		return count(ns[0], "node")
	}
	return listed(ns) + " nodes"
}

// best is the line that most people read.
func (p *paper) best(r *result.Result) {
	v := r.Verdict
	notes := strings.Join(cleaned(v.Notes), "   ")
	said, s := figure.Clean(v.Sentence), strong
	switch v.Kind {
	case "winner":
		name := figure.Clean(v.Best)
		p.hang(cell{"best: ", plain}, 6, best, strings.TrimRight(name+"   "+notes, " "))
		if r.Depth == result.Full && said != "" {
			p.wrap(6, plain, said)
		}
		return
	case "refused":
		said, s = strings.TrimRight("no ranking: "+said, ": "), bad
	default:
		if said == "" {
			said = "nothing can be said"
		}
	}
	p.hang(cell{"best: ", plain}, 6, s, said)
	if notes != "" {
		p.wrap(6, plain, notes)
	}
}

// layout is what a table shows beside the rates. The first that fits the paper is taken.
type layout struct {
	below bool // intervals on a line of their own
	tail  bool // latency at the largest point
	back  bool // time until a fault was over
	kill  bool // what a fault cost; else it is a note
	brief bool // the goal is not said again
	main  bool // the answers, the faults and the notes
}

var layouts = []layout{
	{tail: true, back: true, kill: true},
	{tail: true, kill: true},
	{below: true, tail: true, back: true, kill: true},
	{below: true, tail: true, kill: true},
	{below: true, tail: true},
	{below: true},
	{below: true, brief: true},
}

// table prints the points of one mode. Answers and faults belong to the main one, where they were seen.
func (p *paper) table(r *result.Result, m result.Mode, main bool) {
	all := rows(r, m)
	if !main {
		all = slices.DeleteFunc(all, func(w row) bool { return len(w.points) == 0 })
	}
	ns := nodeCounts(all)
	shown := ns
	var t *columns
	var l layout
	for _, l = range layouts {
		l.main = main
		if t = tabulate(r, all, shown, l); t.width() <= p.wide {
			break
		}
	}
	if l.brief {
		p.wrap(0, faint, asked(r, all)+":")
	}
	for t.width() > p.wide && len(shown) > 2 { // the first and the largest say most
		shown = slices.Delete(slices.Clone(shown), 1, 2)
		t = tabulate(r, all, shown, l)
	}
	t.print(p)
	if len(shown) < len(ns) {
		p.wrap(0, faint, "this terminal is too narrow for all of "+nodesWord(ns)+": the report shows them")
	}
	if why := reasons(all); len(why) > 0 {
		p.hang(cell{"~ ", warn}, 2, warn, "not valid, and in no ranking: "+strings.Join(why, "; "))
	}
	if slices.ContainsFunc(all, func(w row) bool {
		return slices.ContainsFunc(w.points, func(p *result.Point) bool { return missed(r, p) })
	}) {
		p.hang(cell{"! ", warn}, 2, warn, "the goal was not kept at the lowest rate that was tried")
	}
}

// missed says that a rate of an open loop does not keep the goal.
func missed(r *result.Result, p *result.Point) bool {
	return p.Offered > 0 && p.Valid && !keeps(r.Goal, p)
}

func tabulate(r *result.Result, all []row, ns []int, l layout) *columns {
	t := new(columns)
	t.groups = append(t.groups, group{"", []string{""}})
	rates := group{title: asked(r, all)}
	if l.brief {
		rates.title, _, _ = strings.Cut(rates.title, " ")
		if openLoop(all) {
			rates.title = "max req/s"
		}
	}
	for i, n := range ns {
		h := fmt.Sprint(n)
		if i == 0 {
			h = count(n, "node")
		}
		rates.heads = append(rates.heads, h)
	}
	if len(ns) > 0 {
		t.groups = append(t.groups, rates)
	}
	if l.tail = l.tail && len(ns) > 0; l.tail {
		t.groups = append(t.groups, group{percent(tail(r)), []string{fmt.Sprintf("at %d", ns[len(ns)-1])}})
	}
	if l.main {
		t.groups = append(t.groups, group{"answers", []string{""}})
	}
	head := firstFault(r)
	if l.kill = l.kill && l.main && head != nil; l.kill {
		g := group{fault(head), []string{"errors"}}
		if head.Nodes > 0 {
			g.title += fmt.Sprintf(" (at %d)", head.Nodes)
		}
		if l.back {
			g.heads = append(g.heads, "back")
		}
		g.heads = append(g.heads, "keys lost")
		t.groups = append(t.groups, g)
	}
	for _, w := range all {
		t.variant(r, w, ns, l)
	}
	if len(all) == 0 {
		t.note(0, plain, "no variant was measured")
	}
	return t
}

// variant adds a variant's row and the notes under it.
func (t *columns) variant(r *result.Result, w row, ns []int, l layout) {
	name := cell{figure.Clip(figure.Clean(w.Name), 28), plain}
	switch {
	case w.Verdict == "best":
		name.style = best
	case w.Answers.Verdict == "WRONG":
		name.style = bad
	}
	if w.Refused != "" && len(w.points) == 0 {
		t.lines = append(t.lines, line{cells: []cell{name}, words: "refused: " + figure.Clean(w.Refused), style: warn})
		return
	}
	cells, under := []cell{name}, []cell{{}}
	for _, n := range ns {
		a, b := rate(r, w.at(n))
		if !l.below && b.text != "" {
			a.text += " " + b.text
		}
		cells, under = append(cells, a), append(under, b)
	}
	if l.tail {
		c := cell{"-", faint}
		if p := w.at(ns[len(ns)-1]); p != nil {
			c = cell{figure.Quantity(percentile(p, tail(r))) + "ms", plain}
		}
		cells = append(cells, c)
	}
	if l.main {
		cells = append(cells, answers(w.Answers))
	}
	s := w.Survival
	if l.kill {
		lost := []string{"-", "-", "-"}
		if s != nil {
			lost = []string{figure.Seconds(s.ErrorsFor), back(s), keysLost(s)}
		}
		cells = append(cells, cell{lost[0], plain})
		if l.back {
			cells = append(cells, cell{lost[1], plain})
		}
		cells = append(cells, cell{lost[2], plain})
	}
	t.row(cells...)
	if l.below && slices.ContainsFunc(under, func(c cell) bool { return c.text != "" }) {
		t.row(under...)
	}
	if !l.main {
		return
	}
	if text := strings.TrimSpace(figure.Clean(w.Answers.Text)); text != "" {
		s := faint
		if w.Answers.Verdict == "WRONG" {
			s = bad
		}
		t.note(2, s, text)
	}
	if w.Refused != "" {
		t.note(2, warn, "refused: "+figure.Clean(w.Refused))
	}
	if s != nil && !l.kill {
		t.note(2, faint, faultNote(s))
	}
	if text := balance(w); text != "" {
		t.note(2, faint, text)
	}
	// What theory says of rates is about long runs, and stands below the table of those. Lookups are as many in short ones.
	if text := lookups(w); text != "" && r.Depth != result.Full {
		t.note(2, faint, text)
	}
}

// rate is a point's median and its interval.
func rate(r *result.Result, p *result.Point) (median, ends cell) {
	switch {
	case p == nil:
		return cell{"-", faint}, cell{}
	case !p.Valid:
		return cell{"~" + figure.Quantity(p.Rate.Median), warn}, cell{bounds(p.Rate), warn}
	case missed(r, p):
		return cell{"!" + figure.Quantity(p.Rate.Median), warn}, cell{bounds(p.Rate), warn}
	}
	return cell{figure.Quantity(p.Rate.Median), plain}, cell{bounds(p.Rate), faint}
}

func answers(a result.Answers) cell {
	switch a.Verdict {
	case "WRONG":
		return cell{"WRONG", bad}
	case "right":
		return cell{"right", good}
	case "":
		return cell{"-", faint}
	}
	return cell{figure.Clip(figure.Clean(a.Verdict), 12), plain}
}

// laws says what the model and the textbook make of the rates, beside what was measured.
func (p *paper) laws(r *result.Result) {
	indent := 0
	var with []row
	for _, w := range rows(r, shownModes(r)[0]) {
		if w.Law != nil || w.Theory != nil {
			with = append(with, w)
			indent = max(indent, width(figure.Clip(figure.Clean(w.Name), 28))+2)
		}
	}
	if len(with) == 0 {
		return
	}
	p.blank()
	for _, w := range with {
		label := cell{figure.Clip(figure.Clean(w.Name), 28), plain}
		if l := w.Law; l != nil {
			text := figure.Clean(l.Text)
			if text == "" {
				text = figure.Clean(l.Model)
			}
			p.hang(label, indent, plain, "law: "+text)
			label = cell{}
		}
		if t := w.Theory; t != nil {
			p.hang(label, indent, plain, "theory: "+figure.Clean(t.Formula)+theoryBeside(w))
		}
	}
}

// theoryBeside sets the theory's figure beside the measured one, at the largest point that both have.
func theoryBeside(w row) string {
	text := ""
	switch q, c := besides(w); {
	case q == nil:
	case q.Offered > 0:
		text = fmt.Sprintf("; %s at %d at saturation, %s of it with the goal kept", figure.Quantity(c.Rate), q.Nodes, figure.Share(1+off(q.Rate.Median, c.Rate)))
	default:
		text = fmt.Sprintf("; %s at %d, measured %s (%s)", figure.Quantity(c.Rate), q.Nodes, figure.Quantity(q.Rate.Median), figure.Change(off(q.Rate.Median, c.Rate)))
	}
	if l := lookups(w); l != "" {
		text += "; " + l
	}
	return text
}

// off is have/want − 1, not a number when there is nothing to divide by.
func off(have, want float64) float64 {
	if want == 0 {
		return math.NaN()
	}
	return have/want - 1
}

// validity says whether the run may be believed; what speaks against it comes first.
func (p *paper) validity(r *result.Result) {
	against, passed := judgement(r.Validity)
	if r.Validity.OK && len(against) == 0 {
		if len(passed) == 0 {
			passed = []string{"nothing was checked"}
		}
		p.items(cell{"valid: ", good}, 7, plain, passed)
		return
	}
	label := cell{"not valid: ", bad}
	if r.Validity.OK {
		label = cell{"valid, but: ", warn}
	}
	if len(against) == 0 {
		against = []string{"no check says why"}
	}
	p.items(label, width(label.text), label.style, against)
	p.items(cell{"passed: ", faint}, 8, faint, passed)
}

// next says where more is to be seen and what to try.
func (p *paper) next(o Options) {
	type pair struct{ left, right string }
	var pairs []pair
	if o.Report != "" {
		pairs = append(pairs, pair{left: "report: " + figure.Clean(o.Report)})
	}
	if longer := "longer: " + figure.Clean(o.Longer); o.Longer != "" {
		if o.Report != "" {
			pairs[0].right = longer
		} else {
			pairs = append(pairs, pair{left: longer})
		}
	}
	for _, n := range o.Next {
		x := pair{left: "next:   " + figure.Clean(n.Command)}
		if n.Why != "" {
			x.right = "(" + figure.Clean(n.Why) + ")"
		}
		pairs = append(pairs, x)
	}
	left := 0
	for _, x := range pairs {
		left = max(left, width(x.left)+6)
	}
	for _, x := range pairs {
		switch {
		case left+width(x.right) <= p.wide && x.right != "":
			p.wrap(0, plain, x.left+strings.Repeat(" ", left-width(x.left))+x.right)
		case strings.HasPrefix(x.right, "("):
			p.wrap(0, plain, x.left)
			p.wrap(8, plain, x.right)
		default:
			p.wrap(0, plain, x.left)
			if x.right != "" {
				p.wrap(0, plain, x.right)
			}
		}
	}
}
