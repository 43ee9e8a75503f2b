package report

import (
	"bytes"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"

	"servent/architecture"
	"servent/lab/report/figure"
	"servent/lab/result"
)

//go:embed style.css
var css string

// policy: the page loads nothing, runs nothing and sends nothing.
const policy = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"

// page writes the HTML, which is well-formed XML too. Words of anybody go through text or attr.
type page struct{ b strings.Builder }

// raw is markup of ours.
func (p *page) raw(markup ...string) {
	for _, m := range markup {
		p.b.WriteString(m)
	}
}

// text is words of anybody.
func (p *page) text(words string) { p.b.WriteString(figure.Escape(words)) }

// el is an element with words in it.
func (p *page) el(name, class, words string) {
	p.raw("<", name)
	if class != "" {
		p.raw(` class="`, class, `"`)
	}
	p.raw(">")
	p.text(words)
	p.raw("</", name, ">\n")
}

// HTML writes the result as one file that needs nothing else: figures as SVG, the points as CSV and the
// result as JSON inside. It holds no script that runs. Its first part fits one printed page of A4.
func HTML(w io.Writer, r *result.Result) error {
	p := new(page)
	p.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n",
		`<meta http-equiv="Content-Security-Policy" content="`, figure.Escape(policy), "\"/>\n",
		"<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n")
	p.el("title", "", fmt.Sprintf("%s: %s", subject(r), headline(r)))
	p.raw("<style>\n", css, "</style>\n</head>\n<body>\n<main>\n")
	p.raw("<div class=\"first\">\n")
	p.top(r)
	for i, m := range shownModes(r) {
		p.verdict(r, m, i == 0)
	}
	p.from(r)
	p.figure(throughput(r))
	p.raw("</div>\n")
	p.figure(latency(r))
	p.figure(percentiles(r))
	p.figure(nodeLoad(r))
	p.figure(timeline(r))
	p.survival(r)
	p.diagrams(r)
	p.laws(r)
	p.costs(r)
	p.kinds(r)
	p.checks(r)
	if err := p.data(r); err != nil {
		return err
	}
	p.raw("</main>\n</body>\n</html>\n")
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return fmt.Errorf("write the report: %w", err)
	}
	return nil
}

// headline is the sentence that most people read.
func headline(r *result.Result) string {
	s := strings.TrimSpace(figure.Clean(r.Verdict.Sentence))
	switch {
	case s == "" && r.Verdict.Kind == "winner":
		s = "best: " + figure.Clean(r.Verdict.Best)
	case s == "":
		s = "nothing can be said"
	case r.Verdict.Kind == "refused":
		s = "no ranking: " + s
	}
	return s
}

// top is the head of the page.
func (p *page) top(r *result.Result) {
	main := rows(r, shownModes(r)[0])
	p.raw("<header>\n<p class=\"facts\"><span class=\"mode\">")
	p.text(word(shownModes(r)[0]))
	p.raw("</span> <span>")
	facts := []string{subject(r)}
	depth := figure.Clean(string(r.Depth))
	if ns := nodeCounts(main); len(ns) > 0 {
		depth = strings.TrimPrefix(depth+": ", ": ") + nodesWord(ns)
	}
	facts = append(facts, depth, slow(r), span(r.Took))
	if !r.Started.IsZero() {
		facts = append(facts, r.Started.UTC().Format("2 January 2006, 15:04 UTC"))
	}
	p.text(strings.Join(cleaned(facts), " · "))
	p.raw("</span></p>\n")
	p.el("h1", "", sentenceCase(headline(r)))
	if notes := cleaned(r.Verdict.Notes); len(notes) > 0 {
		p.raw("<ul class=\"notes\">")
		for _, n := range notes {
			p.el("li", "", n)
		}
		p.raw("</ul>\n")
	}
	if r.Partial != "" {
		p.el("p", "alarm soft", "Partial: "+r.Partial)
	}
	if against, _ := judgement(r.Validity); !r.Validity.OK || r.Verdict.Kind == "refused" {
		if len(against) == 0 {
			against = []string{"no check says why"}
		}
		p.el("p", "alarm", "Not valid: "+strings.Join(against, " · "))
	} else if len(against) > 0 {
		p.el("p", "alarm soft", "Valid, but: "+strings.Join(against, " · "))
	}
	p.raw("</header>\n")
}

// sentenceCase begins with a capital unless a name begins the sentence: those are written as they are.
func sentenceCase(s string) string {
	for _, w := range []string{"no ", "nothing ", "refused ", "best:", "simulation "} {
		if strings.HasPrefix(s, w) {
			return strings.ToUpper(s[:1]) + s[1:]
		}
	}
	return s
}

// swatch is the small marker of a variant.
func swatch(index int) string {
	d := figure.Small("swatch "+figure.Series(index), 14, 14)
	d.Marker("dot", index, 7, 7, 5)
	return d.End()
}

// verdict is the table of one mode: rates with intervals, answers, survival.
func (p *page) verdict(r *result.Result, m result.Mode, main bool) {
	all := rows(r, m)
	if !main {
		all = slices.DeleteFunc(all, func(w row) bool { return len(w.points) == 0 })
	}
	ns := nodeCounts(all)
	top := 0.0
	for _, w := range all {
		if l := w.largest(); l != nil && figure.Drawable(l.Rate.High) {
			top = max(top, l.Rate.High, l.Rate.Median)
		}
	}
	s := firstFault(r)
	kill := s != nil && main
	tailed := len(ns) > 0
	p.raw("<section>\n<div class=\"roll\"><table>\n")
	p.el("caption", "", fmt.Sprintf("%s: %s, median and 95 %% interval", scene(m), asked(r, all)))
	p.raw("<thead><tr><th scope=\"col\">variant</th>")
	span := 2
	for i, n := range ns {
		h := strconv.Itoa(n)
		if i == len(ns)-1 {
			h = nodesWord([]int{n})
		}
		p.raw("<th scope=\"col\" class=\"n\">", h, "</th>")
		span++
	}
	if tailed {
		p.raw("<th scope=\"col\"></th><th scope=\"col\" class=\"n\">", percent(tail(r)), "<br/>at ", strconv.Itoa(ns[len(ns)-1]), "</th>")
		span += 2
	}
	if main {
		p.raw("<th scope=\"col\">answers</th>")
		span++
	}
	if kill {
		p.raw("<th scope=\"col\" class=\"n\">")
		p.text(fault(s))
		p.raw("<br/>errors</th><th scope=\"col\" class=\"n\">back<br/>after</th><th scope=\"col\">keys<br/>lost</th>")
		span += 3
	}
	p.raw("<th scope=\"col\">verdict</th></tr></thead>\n<tbody>\n")
	for _, w := range all {
		p.variant(r, w, ns, top, main, kill, span)
	}
	p.raw("</tbody></table></div>\n")
	if why := reasons(all); len(why) > 0 {
		p.el("p", "quiet", "Grey with ~: not valid, and in no ranking: "+strings.Join(why, "; "))
	}
	if main {
		p.tests(r)
	}
	p.raw("</section>\n")
}

func (p *page) variant(r *result.Result, w row, ns []int, top float64, main, kill bool, span int) {
	p.raw("<tr><th scope=\"row\">")
	p.marked(w)
	if a, ok := architecture.Of(w.Architecture); ok && main {
		p.raw("<span class=\"sub\">")
		p.text(a.Textbook)
		p.raw("</span>")
	}
	p.raw("</th>")
	if w.Refused != "" && len(w.points) == 0 {
		p.raw("<td class=\"warn\" colspan=\"", strconv.Itoa(max(span-2, 1)), "\">refused: ")
		p.text(w.Refused)
		p.raw("</td><td><span class=\"chip refused\">refused</span></td></tr>\n")
		return
	}
	for _, n := range ns {
		q := w.at(n)
		switch {
		case q == nil:
			p.raw("<td class=\"n\">–</td>")
			continue
		case !q.Valid:
			p.raw("<td class=\"n void\" title=\"", figure.Escape("not valid: "+q.Why), "\">~")
		case missed(r, q):
			p.raw("<td class=\"n warn\" title=\"the goal was not kept\">!")
		default:
			p.raw("<td class=\"n\">")
		}
		p.text(figure.Grouped(q.Rate.Median))
		p.raw("<small>")
		p.text(figure.Grouped(q.Rate.Low) + "–" + figure.Grouped(q.Rate.High))
		p.raw("</small></td>")
	}
	if len(ns) > 0 {
		q := w.at(ns[len(ns)-1])
		p.raw("<td>", whisker(w.index, q, top), "</td><td class=\"n\">")
		if q == nil {
			p.raw("–")
		} else {
			p.text(figure.Quantity(percentile(q, tail(r))) + " ms")
		}
		p.raw("</td>")
	}
	if main {
		a := answers(w.Answers)
		class := map[style]string{bad: "wrong", good: "right"}[a.style]
		p.el("td", class, a.text)
	}
	if kill {
		if s := w.Survival; s != nil {
			p.el("td", "n", figure.Seconds(s.ErrorsFor))
			p.el("td", "n", back(s))
			p.el("td", "", keysLost(s))
		} else {
			p.raw("<td class=\"n\">–</td><td class=\"n\">–</td><td>–</td>")
		}
	}
	class, says := "", figure.Clip(figure.Clean(w.Verdict), 20)
	if slices.Contains([]string{"best", "wrong", "refused"}, says) {
		class = " " + says
	}
	if says == "" {
		says = "–"
	}
	p.raw("<td>")
	p.el("span", "chip"+class, says)
	p.raw("</td></tr>\n")
	if !main {
		return
	}
	var notes []string
	wrong := ""
	if t := strings.TrimSpace(figure.Clean(w.Answers.Text)); t != "" {
		notes = append(notes, t)
	}
	if w.Answers.Verdict == "WRONG" {
		wrong = "bad"
		if w.Answers.Example != "" {
			notes = append(notes, "first: "+figure.Clean(w.Answers.Example))
		}
		if w.Answers.Holds != "" {
			notes = append(notes, "what still holds: "+figure.Clean(w.Answers.Holds))
		}
	}
	if w.Refused != "" {
		notes = append(notes, "refused: "+figure.Clean(w.Refused))
	}
	if len(notes) > 0 {
		p.raw("<tr class=\"under\"><td colspan=\"", strconv.Itoa(span), "\">")
		p.el("span", wrong, strings.Join(notes, " · "))
		p.raw("</td></tr>\n")
	}
}

// marked is a variant's marker and name.
func (p *page) marked(w row) {
	p.raw("<span class=\"nm\">", swatch(w.index))
	p.text(figure.Clip(figure.Clean(w.Name), 32))
	p.raw("</span>")
}

// whisker is a rate with its interval as a small picture on a scale that all rows share.
func whisker(index int, q *result.Point, top float64) string {
	if q == nil || !figure.Drawable(q.Rate.Median) || !(top > 0) {
		return ""
	}
	d := figure.Small("ci "+figure.Series(index), 120, 16)
	x := figure.Scale{Lo: 0, Hi: top, From: 2, To: 112}
	d.Line("grid", 2, 8, 118, 8)
	if !q.Valid {
		d.Open("void", "")
	} else {
		d.Open("point", "")
		d.Line("key", 2, 8, x.Place(q.Rate.Median), 8)
	}
	if figure.Drawable(q.Rate.Low) && figure.Drawable(q.Rate.High) {
		d.Line("whisker", x.Place(q.Rate.Low), 3, x.Place(q.Rate.Low), 13)
		d.Line("whisker", x.Place(q.Rate.High), 3, x.Place(q.Rate.High), 13)
	}
	d.Marker("dot", index, x.Place(q.Rate.Median), 8, 4)
	d.Close()
	return d.End()
}

// tests are the comparisons behind the verdict.
func (p *page) tests(r *result.Result) {
	if len(r.Verdict.Tests) == 0 {
		return
	}
	p.raw("<details><summary>How sure: every pair that was compared</summary>\n<div class=\"roll\"><table>\n")
	p.raw("<caption>Mann–Whitney, two-sided, with Holm’s correction. Better: adjusted p &lt; 0.05 and an effect of at least 10 %.</caption>\n")
	p.raw("<thead><tr><th scope=\"col\">pair</th><th scope=\"col\" class=\"n\">nodes</th><th scope=\"col\" class=\"n\">effect</th><th scope=\"col\" class=\"n\">p</th><th scope=\"col\" class=\"n\">p adjusted</th><th scope=\"col\">shown</th></tr></thead>\n<tbody>\n")
	for _, t := range r.Verdict.Tests {
		p.raw("<tr>")
		p.el("th", "", t.Pair)
		p.el("td", "n", strconv.Itoa(t.Nodes))
		p.el("td", "n", figure.Change(t.Effect))
		p.el("td", "n", figure.Quantity(t.P))
		p.el("td", "n", figure.Quantity(t.Holm))
		if t.Better {
			p.raw("<td class=\"good\">better</td>")
		} else {
			p.raw("<td>no difference shown</td>")
		}
		p.raw("</tr>\n")
	}
	p.raw("</tbody></table></div></details>\n")
}

// from says which figures come from where.
func (p *page) from(r *result.Result) {
	var capacities []string
	for _, c := range r.Capacity {
		capacities = append(capacities, strings.TrimPrefix(capacity(c), "capacity "))
	}
	typed := cleaned(r.Stated.Typed)
	if len(capacities) > 0 {
		typed = slices.DeleteFunc(typed, func(s string) bool { return strings.HasPrefix(s, "capacity") })
	}
	p.raw("<section>\n<h2 class=\"kicker\">Where the figures come from</h2>\n<dl class=\"from\">\n")
	for _, d := range []struct {
		name  string
		words []string
	}{
		{"capacity", capacities}, {"typed", typed}, {"real", cleaned(r.Stated.Measured)}, {"emulated", cleaned(r.Stated.Emulated)},
		{"by construction", cleaned(r.Stated.Construction)}, {"load", cleaned([]string{r.Load})}, {"goal", cleaned([]string{goal(r.Goal)})},
	} {
		if len(d.words) > 0 {
			p.raw("<div>")
			p.el("dt", "", d.name)
			sep := ", "
			if slices.ContainsFunc(d.words, func(s string) bool { return strings.Contains(s, ",") }) {
				sep = "; "
			}
			p.el("dd", "", strings.Join(d.words, sep))
			p.raw("</div>\n")
		}
	}
	p.raw("</dl>\n</section>\n")
}

// goal in words.
func goal(g result.Goal) string {
	var out []string
	if g.LatencyMS > 0 {
		out = append(out, fmt.Sprintf("%s < %s ms", percent(g.Percentile), figure.Quantity(g.LatencyMS)))
	}
	if g.Errors > 0 {
		out = append(out, "errors ≤ "+figure.Quantity(g.Errors*100)+" %")
	}
	if g.Survive > 0 {
		out = append(out, "survive "+count(g.Survive, "node"))
	}
	return strings.Join(out, ", ")
}

// figure writes a picture, or why there is none.
func (p *page) figure(f picture) {
	if f.svg == "" {
		if f.missing != "" {
			p.el("p", "missing", f.missing)
		}
		return
	}
	p.raw("<section>\n")
	p.el("p", "kicker", f.kicker)
	p.el("h2", "", f.title)
	p.raw("<figure><div class=\"roll\">", f.svg, "</div>\n")
	p.el("figcaption", "", f.caption)
	p.raw("</figure>\n</section>\n")
}

// diagrams are one request of every variant.
func (p *page) diagrams(r *result.Result) {
	var all []picture
	for _, w := range rows(r, shownModes(r)[0]) {
		if len(w.Trace) > 0 {
			all = append(all, messages(w))
		}
	}
	if len(all) == 0 {
		p.el("p", "missing", "No message diagram: no request was traced.")
		return
	}
	p.raw("<section>\n<p class=\"kicker\">One request as messages</p>\n<h2>What one request sends, from client to answer.</h2>\n<div class=\"pair\">\n")
	for _, f := range all {
		p.raw("<figure>")
		p.el("h3", "", f.title)
		p.raw("<div class=\"roll\">", f.svg, "</div>\n")
		p.el("figcaption", "", f.caption)
		p.raw("</figure>\n")
	}
	p.raw("</div>\n<p class=\"quiet\">Time goes down, not to scale; the milliseconds at the left count from the client’s sending.</p>\n</section>\n")
}

// data is the points as CSV, to read and to save, and the result as it stands in its file.
func (p *page) data(r *result.Result) error {
	var points bytes.Buffer
	if err := CSV(&points, r); err != nil {
		return err
	}
	p.raw("<section>\n<h2 class=\"kicker\">All figures</h2>\n<p><a download=\"points.csv\" href=\"data:text/csv;charset=utf-8;base64,",
		base64.StdEncoding.EncodeToString(points.Bytes()), "\">Save all points as CSV</a>")
	p.raw("</p>\n<details><summary>The points</summary>\n<pre tabindex=\"0\">")
	var b strings.Builder
	_ = xml.EscapeText(&b, points.Bytes()) // a Builder takes everything
	p.raw(strings.ReplaceAll(b.String(), "&#xA;", "\n"), "</pre></details>\n")
	facts := []string{fmt.Sprintf("servent %s", r.Servent), fmt.Sprintf("seed %d", r.Seed), "files: " + strings.Join(cleaned(r.Files), ", "),
		fmt.Sprintf("%s/%s, %s", r.Host.OS, r.Host.Arch, count(r.Host.CPUs, "processor"))}
	if r.Host.Ceiling > 0 {
		facts = append(facts, "the machine switches "+figure.Grouped(r.Host.Ceiling)+" requests a second without stations")
	}
	if r.Host.Load >= 0 && !math.IsNaN(r.Host.Load) {
		facts = append(facts, "load average before: "+figure.Quantity(r.Host.Load))
	}
	p.el("p", "quiet", strings.Join(facts, " · "))
	p.raw("</section>\n")
	text, err := json.Marshal(r)
	if err != nil { // a figure that is no number cannot be JSON
		p.el("p", "missing", "The result is not inside: "+err.Error())
		return nil
	}
	// encoding/json writes <, > and & as escapes, so nothing in it ends the element; two characters that XML
	// does not know are left.
	safe := strings.NewReplacer("\uFFFE", `\ufffe`, "\uFFFF", `\uffff`).Replace(string(text))
	p.raw("<script type=\"application/json\" id=\"result\">", safe, "</script>\n")
	return nil
}
