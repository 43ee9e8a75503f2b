package report

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// ran lists the variants whose software was measured by itself.
func ran(r *result.Result) []row {
	return slices.DeleteFunc(rows(r, shownModes(r)[0]), func(w row) bool { return w.Runs == nil })
}

var kindHeads = []string{"runs as", "start", "first call", "one client", "req/s of 16", "CPU a request", "memory"}

// kindCells are the figures of a variant's software, under kindHeads.
func kindCells(s *result.Runs) []string {
	as := figure.Clean(s.Software)
	if s.Woken {
		as += ", woken"
	}
	memory := "in the node"
	if s.Memory > 0 {
		memory = figure.Quantity(float64(s.Memory)/(1<<20)) + " MiB"
	}
	return []string{as, millis(s.StartMS), millis(s.FirstMS), millis(s.WarmMS), figure.Grouped(s.Rate), figure.Quantity(s.CPUMicros) + " µs", memory}
}

func millis(ms float64) string { return figure.Quantity(ms) + " ms" }

// kinds says what runs each variant, where they differ in it.
func (p *paper) kinds(r *result.Result) {
	all := ran(r)
	if len(all) == 0 {
		return
	}
	p.blank()
	t := &columns{groups: []group{{"", []string{"variant"}}, {"one instance on one node, real: nothing is emulated", kindHeads}}}
	for _, w := range all {
		cells := []cell{{figure.Clip(figure.Clean(w.Name), 28), plain}}
		for _, text := range kindCells(w.Runs) {
			cells = append(cells, cell{text, plain})
		}
		t.row(cells...)
		t.note(2, faint, figure.Clean(w.Runs.Isolation))
		if text := keeping(w.Runs); text != "" {
			t.note(2, faint, text)
		}
	}
	t.print(p)
}

// kinds says the same in the report.
func (p *page) kinds(r *result.Result) {
	all := ran(r)
	if len(all) == 0 {
		return
	}
	p.raw("<section>\n<p class=\"kicker\">What runs it</p>\n<h2>One instance on one node, real: nothing is emulated.</h2>\n<div class=\"roll\"><table>\n<thead><tr><th scope=\"col\">variant</th>")
	for i, h := range kindHeads {
		class := "n"
		if i == 0 {
			class = ""
		}
		p.raw("<th scope=\"col\" class=\"", class, "\">")
		p.text(h)
		p.raw("</th>")
	}
	p.raw("<th scope=\"col\">what is between it and the machine</th></tr></thead>\n<tbody>\n")
	for _, w := range all {
		p.raw("<tr>")
		p.name(w)
		for i, text := range kindCells(w.Runs) {
			class := "n"
			if i == 0 {
				class = ""
			}
			p.el("td", class, text)
		}
		p.el("td", "", figure.Clean(w.Runs.Isolation))
		p.raw("</tr>\n")
	}
	p.raw("</tbody></table></div>\n<p class=\"quiet\">Start: of an instance until it is ready, median of ")
	p.text(strconv.Itoa(all[0].Runs.Starts))
	p.raw("; of what is woken once. First call: the first request of all. CPU: of the instance and its node.</p>\n")
	for _, w := range all {
		if text := keeping(w.Runs); text != "" {
			p.el("p", "", figure.Clean(w.Name)+": "+text)
		}
	}
	p.raw("</section>\n")
}

// keeping is what a function saves against an instance that is always there, when calls come at random (Poisson) and take
// little time: there is an instance unless nobody has called for the idle time T, so for 1 − e^(−λT) of the time, and a call
// finds none with probability e^(−λT). Empty for what is always there.
func keeping(s *result.Runs) string {
	if !s.Woken || s.Idle <= 0 {
		return ""
	}
	at := func(perSecond float64) string { return figure.Share(1 - math.Exp(-perSecond*s.Idle)) }
	even := math.Log(20) / s.Idle // where it is there for 95 % of the time
	return fmt.Sprintf("beside an instance that is always there, by theory (calls at random, kept for %s): there for %s of the time at one call an hour, %s at one a minute; "+
		"above %s calls a second it saves less than 5 %%; at one a minute %s of the calls wait %s",
		figure.Seconds(s.Idle), at(1.0/3600), at(1.0/60), figure.Quantity(even), figure.Share(math.Exp(-s.Idle/60)), millis(s.FirstMS-s.WarmMS))
}
