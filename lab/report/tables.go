package report

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// survival is what the fault cost in figures, beside the timeline.
func (p *page) survival(r *result.Result) {
	if firstFault(r) == nil {
		return
	}
	p.raw("<section>\n<p class=\"kicker\">What the fault cost</p>\n<div class=\"roll\"><table>\n<thead><tr><th scope=\"col\">variant</th><th scope=\"col\">fault</th><th scope=\"col\" class=\"n\">errors for</th><th scope=\"col\" class=\"n\">failed</th><th scope=\"col\" class=\"n\">answered</th><th scope=\"col\" class=\"n\">back after</th><th scope=\"col\" class=\"n\">a key away for</th><th scope=\"col\">keys lost</th></tr></thead>\n<tbody>\n")
	for _, w := range rows(r, shownModes(r)[0]) {
		s := w.Survival
		if s == nil {
			continue
		}
		good, failed := 0.0, 0.0
		for _, t := range s.Timeline {
			good, failed = good+float64(t.Good), failed+float64(t.Errors)
		}
		answered := "–"
		if good+failed > 0 {
			answered = figure.Share(good / (good + failed))
		}
		p.raw("<tr>")
		p.name(w)
		p.el("td", "", s.What)
		p.el("td", "n", figure.Seconds(s.ErrorsFor))
		p.el("td", "n", figure.Grouped(float64(s.Errors)))
		p.el("td", "n", answered)
		p.el("td", "n", back(s))
		p.el("td", "n", figure.Seconds(s.Unreachable))
		p.el("td", "", keysLost(s))
		p.raw("</tr>\n")
	}
	p.raw("</tbody></table></div>\n<p class=\"quiet\">Answered: of all requests in the timeline. Back: at 95 % of the earlier rate without errors.</p>\n</section>\n")
}

// name is the head of a row.
func (p *page) name(w row) {
	p.raw("<th scope=\"row\">")
	p.marked(w)
	p.raw("</th>")
}

// laws are model and textbook beside what was measured.
func (p *page) laws(r *result.Result) {
	all := slices.DeleteFunc(rows(r, shownModes(r)[0]), func(w row) bool { return w.Law == nil && w.Theory == nil })
	if len(all) == 0 {
		p.el("p", "missing", "No law and no theory: too few numbers of nodes were measured.")
		return
	}
	p.raw("<section>\n<p class=\"kicker\">Law and theory</p>\n<h2>What describes the measured points, and what the textbook expects.</h2>\n<div class=\"roll\"><table>\n<thead><tr><th scope=\"col\">variant</th><th scope=\"col\">law</th><th scope=\"col\">parameters (95 %)</th><th scope=\"col\">AICc, lower is better</th><th scope=\"col\">theory</th><th scope=\"col\" class=\"n\">at most nodes</th></tr></thead>\n<tbody>\n")
	for _, w := range all {
		p.raw("<tr>")
		p.name(w)
		if l := w.Law; l != nil {
			p.el("td", "", l.Text)
			p.list(slices.Sorted(maps.Keys(l.Params)), func(k string) string {
				s := k + " = " + figure.Quantity(l.Params[k])
				if b, ok := l.Bands[k]; ok {
					s += fmt.Sprintf(" [%s, %s]", figure.Quantity(b[0]), figure.Quantity(b[1]))
				}
				return s
			})
			p.list(slices.Sorted(maps.Keys(l.AICc)), func(k string) string {
				s := k + " " + figure.Quantity(l.AICc[k])
				if k == l.Model {
					s += " (taken)"
				}
				return s
			})
		} else {
			p.raw("<td>–</td><td></td><td></td>")
		}
		p.theory(w)
		p.raw("</tr>\n")
	}
	p.raw("</tbody></table></div>\n")
	p.heldOut(r, all)
	if r.Foretold != nil {
		p.el("p", "quiet", sentenceCase(figure.Clean(r.Foretold.Text))+".")
	}
	p.raw("</section>\n")
}

// list is a cell with a line for each key.
func (p *page) list(keys []string, line func(string) string) {
	p.raw("<td>")
	for i, k := range keys {
		if i > 0 {
			p.raw("<br/>")
		}
		p.text(line(k))
	}
	p.raw("</td>")
}

// theory is the textbook's formula, its source, and its figure beside the measured one.
func (p *page) theory(w row) {
	t := w.Theory
	if t == nil {
		p.raw("<td>–</td><td></td>")
		return
	}
	p.raw("<td>")
	p.text(t.Formula)
	if t.Source != "" {
		p.raw("<span class=\"sub\">")
		p.text(t.Source)
		p.raw("</span>")
	}
	p.raw("</td><td class=\"n\">")
	if q, c := besides(w); q != nil {
		p.text(fmt.Sprintf("measured %s", figure.Grouped(q.Rate.Median)))
		p.raw("<small>")
		if q.Offered > 0 {
			p.text(fmt.Sprintf("theory %s on %d at saturation", figure.Grouped(c.Rate), q.Nodes))
		} else {
			p.text(fmt.Sprintf("theory %s (%s) on %d", figure.Grouped(c.Rate), figure.Change(off(q.Rate.Median, c.Rate)), q.Nodes))
		}
		p.raw("</small>")
	} else {
		p.raw("–")
	}
	if text := lookups(w); text != "" {
		p.raw("<small>")
		p.text(text)
		p.raw("</small>")
	}
	p.raw("</td>")
}

// besides is the largest valid point that the theory has a figure for.
func besides(w row) (*result.Point, result.CurvePoint) {
	for _, q := range slices.Backward(w.points) {
		for _, c := range w.Theory.Curve {
			if c.Nodes == q.Nodes && q.Valid {
				return q, c
			}
		}
	}
	return nil, result.CurvePoint{}
}

// heldOut judges the simulation by points that it did not see. The table is about this one difference, so it has
// a column of either kind, each under its word.
func (p *page) heldOut(r *result.Result, all []row) {
	if !slices.ContainsFunc(all, func(w row) bool { return w.Law != nil && len(w.Law.HeldOut) > 0 }) {
		return
	}
	p.raw("<h3>How well the simulation foresaw what it had not seen</h3>\n<div class=\"roll\"><table>\n<thead><tr><th scope=\"col\">variant</th><th scope=\"col\" class=\"n\">nodes</th><th scope=\"col\" class=\"n\">")
	p.text(word(shownModes(r)[0]) + ", req/s")
	p.raw("</th><th scope=\"col\" class=\"n\">SIMULATED, req/s</th><th scope=\"col\" class=\"n\">error</th></tr></thead>\n<tbody>\n")
	for _, w := range all {
		if w.Law == nil {
			continue
		}
		for _, h := range w.Law.HeldOut {
			p.raw("<tr>")
			p.name(w)
			p.el("td", "n", strconv.Itoa(h.Nodes))
			p.el("td", "n", figure.Grouped(h.Measured))
			p.el("td", "n", figure.Grouped(h.Simulated))
			p.el("td", "n", figure.Change(h.Error))
			p.raw("</tr>\n")
		}
	}
	p.raw("</tbody></table></div>\n")
}

// costs are what a request costs on most nodes.
func (p *page) costs(r *result.Result) {
	all := slices.DeleteFunc(rows(r, shownModes(r)[0]), func(w row) bool { return w.largest() == nil })
	if len(all) == 0 {
		return
	}
	priced := slices.ContainsFunc(all, func(w row) bool { return w.Cost != nil && w.Cost.Price > 0 })
	p.raw("<section>\n<p class=\"kicker\">Cost</p>\n<h2>What the requests cost, on the most nodes that each variant has.</h2>\n<div class=\"roll\"><table>\n<thead><tr><th scope=\"col\">variant</th><th scope=\"col\" class=\"n\">nodes</th><th scope=\"col\" class=\"n\">node-seconds<br/>per million</th>")
	if priced {
		p.raw("<th scope=\"col\" class=\"n\">price<br/>per million</th>")
	}
	p.raw("<th scope=\"col\" class=\"n\">hops<br/>a request</th><th scope=\"col\" class=\"n\">of them<br/>lookup</th><th scope=\"col\" class=\"n\">messages<br/>a request</th><th scope=\"col\" class=\"n\">bytes<br/>a request</th><th scope=\"col\" class=\"n\">Gini of<br/>node load</th></tr></thead>\n<tbody>\n")
	for _, w := range all {
		q := w.largest()
		p.raw("<tr>")
		p.name(w)
		p.el("td", "n", strconv.Itoa(q.Nodes))
		seconds, price := "–", "–"
		if c := w.Cost; c != nil {
			seconds = figure.Grouped(c.NodeSeconds)
			if c.Nodes != q.Nodes {
				seconds += fmt.Sprintf(" (on %d)", c.Nodes)
			}
			if c.Price > 0 {
				price = strings.TrimSpace(strconv.FormatFloat(c.Price, 'f', 2, 64) + " " + figure.Clean(c.Currency))
			}
		}
		p.el("td", "n", seconds)
		if priced {
			p.el("td", "n", price)
		}
		for _, x := range []float64{q.Hops, q.Lookup, q.Messages, q.Bytes, q.Gini} {
			p.el("td", "n", figure.Grouped(x))
		}
		p.raw("</tr>\n")
	}
	p.raw("</tbody></table></div>\n<p class=\"quiet\">Hops, messages and bytes are between nodes; a request that its first node answers costs none. Hops are those of the client’s request; messages and bytes are of the calls that programs make for it, too.</p>\n</section>\n")
}

// checks is the validity box.
func (p *page) checks(r *result.Result) {
	title := "This run is valid."
	switch {
	case !r.Validity.OK:
		title = "This run is not valid: nothing is ranked."
	case len(r.Validity.Checks) == 0:
		title = "Nothing was checked."
	}
	p.raw("<section>\n<p class=\"kicker\">Validity</p>\n")
	p.el("h2", "", title)
	p.raw("<ul class=\"checks\">\n")
	for _, c := range r.Validity.Checks {
		mark, class := "✓", "good"
		switch {
		case !c.OK && c.Fatal:
			mark, class = "✕", "bad"
		case !c.OK:
			mark, class = "!", "warn"
		}
		p.raw("<li><b class=\"", class, "\">", mark, "</b>")
		words := figure.Clean(c.Text)
		if name := figure.Clean(c.Name); name != "" {
			words = name + ": " + words
		}
		if !c.OK && c.Fatal {
			words += " (refuses the ranking)"
		}
		p.text(words)
		p.raw("</li>\n")
	}
	p.raw("</ul>\n</section>\n")
}
