// Package report shows a comparison to people: as the table of a terminal, as one HTML file that needs no
// network, and as CSV; [Against] sets two comparisons side by side. It reads a [result.Result] and nothing
// else. It measures nothing, computes no statistics and never mends a figure: what is missing, not valid or not
// finite is shown as that. Words of users and programs are cleaned and escaped in one place, [figure.Clean] and
// the writers of page.go; figure draws. Start at [Terminal] and [HTML]; the order of the figures is that of page.go.
//
// Three words are never mixed in one table: REAL, EMULATED, SIMULATED. A table shows points of one
// [result.Mode] and says it.
package report

import (
	"cmp"
	"slices"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// modes in the order in which they are shown.
var modes = []result.Mode{result.Real, result.Emulated, result.Simulated}

// modeOf is the point's mode; a point that says none has that of its result.
func modeOf(r *result.Result, p *result.Point) result.Mode {
	return cmp.Or(p.Mode, r.Mode)
}

// shownModes are the modes that r has points of, and at least its own.
func shownModes(r *result.Result) []result.Mode {
	own := cmp.Or(r.Mode, result.Emulated)
	has := map[result.Mode]bool{own: true}
	for i := range r.Variants {
		for k := range r.Variants[i].Points {
			has[modeOf(r, &r.Variants[i].Points[k])] = true
		}
	}
	out := []result.Mode{own}
	for _, m := range modes {
		if has[m] && m != own {
			out = append(out, m)
		}
	}
	return out
}

// row is a variant as one table or figure shows it: one point a number of nodes.
type row struct {
	*result.Variant
	index  int // in Result.Variants; colour, marker and dashes go by it
	points []*result.Point
}

// at returns the row's point on so many nodes, or nil.
func (w row) at(nodes int) *result.Point {
	for _, p := range w.points {
		if p.Nodes == nodes {
			return p
		}
	}
	return nil
}

// largest is the valid point on most nodes; without a valid one the largest, or nil.
func (w row) largest() *result.Point {
	for _, p := range slices.Backward(w.points) {
		if p.Valid && figure.Drawable(p.Rate.Median) {
			return p
		}
	}
	if len(w.points) == 0 {
		return nil
	}
	return w.points[len(w.points)-1]
}

// rows are all variants with their points of one mode.
func rows(r *result.Result, mode result.Mode) []row {
	out := make([]row, len(r.Variants))
	for i := range r.Variants {
		v := &r.Variants[i]
		byNodes := map[int]*result.Point{}
		for k := range v.Points {
			p := &v.Points[k]
			if modeOf(r, p) == mode {
				if was := byNodes[p.Nodes]; was == nil || rather(r.Goal, p, was) {
					byNodes[p.Nodes] = p
				}
			}
		}
		w := row{Variant: v, index: i}
		for _, p := range byNodes {
			w.points = append(w.points, p)
		}
		slices.SortFunc(w.points, func(a, b *result.Point) int { return cmp.Compare(a.Nodes, b.Nodes) })
		out[i] = w
	}
	return out
}

// rather says that of two points on equally many nodes a is the one to show: one that was found before one
// that was tried on the way, one measured in open loop before one in closed loop, a valid one that keeps the goal before one that does not, then the greater rate.
func rather(g result.Goal, a, b *result.Point) bool {
	rank := func(p *result.Point) (n int) {
		if !p.Tried {
			n += 8
		}
		if p.Offered > 0 {
			n += 4
		}
		if p.Valid {
			n += 2
		}
		if keeps(g, p) {
			n++
		}
		return n
	}
	if ra, rb := rank(a), rank(b); ra != rb {
		return ra > rb
	}
	return a.Rate.Median > b.Rate.Median
}

// keeps says that a point's latency and errors are within the goal.
func keeps(g result.Goal, p *result.Point) bool {
	if g.LatencyMS > 0 && !(percentile(p, g.Percentile) <= g.LatencyMS) {
		return false
	}
	return p.Requests <= 0 || float64(p.Errors)/float64(p.Requests) <= g.Errors
}

// percentile of a point's latency in milliseconds: of those that a point states, the nearest that is not lower.
func percentile(p *result.Point, want float64) float64 {
	switch {
	case want <= 50:
		return p.LatencyMS.P50
	case want <= 90:
		return p.LatencyMS.P90
	case want <= 99:
		return p.LatencyMS.P99
	}
	return p.LatencyMS.Max
}

// nodeCounts are the numbers of nodes that any of the rows has a point on, ascending.
func nodeCounts(all []row) []int {
	var out []int
	for _, w := range all {
		for _, p := range w.points {
			out = append(out, p.Nodes)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// openLoop says that the rows show rates that were offered on a schedule, so that the goal decides.
func openLoop(all []row) bool {
	for _, w := range all {
		for _, p := range w.points {
			if p.Offered > 0 {
				return true
			}
		}
	}
	return false
}

// tail is the percentile of latency that a table shows beside the rate.
func tail(r *result.Result) float64 {
	if r.Goal.Percentile > 0 && r.Goal.Percentile <= 99 {
		return r.Goal.Percentile
	}
	if r.Depth == result.Full {
		return 99
	}
	return 90
}
