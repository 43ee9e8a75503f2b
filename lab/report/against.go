package report

import (
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// effect is the least change that is called better or worse, as between variants.
const effect = 0.10

// Against writes how the rates of two results differ, variant by variant and for every number of nodes that both
// have, and returns how many are worse: intervals that do not overlap and at least a tenth less, or answers that
// were right and are WRONG now. Points that are not valid in either result are shown and not judged. Results
// of different modes, services or kinds of load measure different things; that is an error.
func Against(w io.Writer, old, now *result.Result, o Options) (worse int, err error) {
	mode := shownModes(old)[0]
	was, is := rows(old, mode), rows(now, mode)
	switch {
	case mode != shownModes(now)[0]:
		return 0, fmt.Errorf("compare results: the old one is %s, the new one %s", word(mode), word(shownModes(now)[0]))
	case old.Service != now.Service || old.System != now.System:
		return 0, fmt.Errorf("compare results: the old one is of %s, the new one of %s", subject(old), subject(now))
	case len(nodeCounts(was)) > 0 && len(nodeCounts(is)) > 0 && openLoop(was) != openLoop(is):
		return 0, fmt.Errorf("compare results: the old one has %s, the new one %s", asked(old, was), asked(now, is))
	}
	p := &paper{colour: o.Color, wide: o.Width}
	if p.wide <= 0 {
		p.wide = 100
	}
	p.items(cell{}, 0, strong, []string{subject(now), scene(mode), day(old) + " against " + day(now)})
	for _, s := range differences(old, now) {
		p.hang(cell{"differs: ", warn}, 9, warn, s)
	}
	p.blank()
	t := &columns{groups: []group{{"", []string{"", "nodes"}}, {asked(now, is), []string{"was", "is", "change"}},
		{percent(tail(now)), []string{"was", "is"}}, {"", []string{""}}}}
	var changed []string
	matched := 0
	for i := range is {
		old := find(was, is[i].Name, i)
		if old == nil {
			t.note(0, faint, figure.Clip(figure.Clean(is[i].Name), 28)+": new")
			continue
		}
		if a, b := old.Answers.Verdict, is[i].Answers.Verdict; a != b {
			changed = append(changed, fmt.Sprintf("%s: answers were %s and are %s", figure.Clip(figure.Clean(is[i].Name), 28), figure.Clean(orDash(a)), figure.Clean(orDash(b))))
			if a == "right" && b == "WRONG" {
				worse++
			}
		}
		for _, q := range is[i].points {
			before := old.at(q.Nodes)
			if before == nil {
				continue
			}
			matched++
			if t.compare(is[i], before, q, tail(now)) {
				worse++
			}
		}
	}
	for i, w := range was {
		if find(is, w.Name, i) == nil {
			t.note(0, warn, figure.Clip(figure.Clean(w.Name), 28)+": not measured any more")
		}
	}
	t.print(p)
	for _, s := range changed {
		p.wrap(0, warn, s)
	}
	p.blank()
	switch {
	case matched == 0:
		p.wrap(0, bad, "nothing to compare: no variant was measured on equally many nodes in both")
	case worse > 0:
		p.wrap(0, bad, isAre(worse)+" worse")
	default:
		p.wrap(0, good, fmt.Sprintf("nothing is worse in %s", count(matched, "point")))
	}
	if _, err := io.WriteString(w, p.b.String()); err != nil {
		return worse, fmt.Errorf("write the comparison: %w", err)
	}
	return worse, nil
}

func isAre(n int) string {
	if n == 1 {
		return "1 is"
	}
	return strconv.Itoa(n) + " are"
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func day(r *result.Result) string {
	if r.Started.IsZero() {
		return "an undated result"
	}
	return r.Started.UTC().Format("2006-01-02 15:04")
}

// find is the row of a name, at best at the same place, or nil.
func find(all []row, name string, place int) *row {
	if place < len(all) && all[place].Name == name {
		return &all[place]
	}
	for i := range all {
		if all[i].Name == name {
			return &all[i]
		}
	}
	return nil
}

// compare adds a line and says whether the point is worse.
func (t *columns) compare(w row, was, is *result.Point, p float64) (worse bool) {
	d := off(is.Rate.Median, was.Rate.Median)
	said := cell{"", faint}
	switch {
	case !was.Valid || !is.Valid:
		said = cell{"not judged: not valid", warn}
	case math.IsNaN(d) || !ordered(was.Rate) || !ordered(is.Rate):
		said = cell{"not judged: no figure", warn}
	case was.Rate.Low <= is.Rate.High && is.Rate.Low <= was.Rate.High:
		said.text = "intervals overlap"
	case d <= -effect:
		said, worse = cell{"WORSE", bad}, true
	case d < 0:
		said.text = "less, under 10 %"
	case d < effect:
		said.text = "more, under 10 %"
	default:
		said = cell{"better", good}
	}
	show := func(v *result.Point) string {
		mark := ""
		if !v.Valid {
			mark = "~"
		}
		return mark + figure.Quantity(v.Rate.Median) + " " + bounds(v.Rate)
	}
	t.row(cell{figure.Clip(figure.Clean(w.Name), 28), plain}, cell{strconv.Itoa(is.Nodes), plain}, cell{show(was), plain}, cell{show(is), plain}, cell{figure.Change(d), plain},
		cell{figure.Quantity(percentile(was, p)) + "ms", plain}, cell{figure.Quantity(percentile(is, p)) + "ms", plain}, said)
	return worse
}

// ordered intervals have ends that are figures.
func ordered(v result.Interval) bool {
	return figure.Drawable(v.Low) && figure.Drawable(v.High) && v.Low <= v.High
}

// differences are what else is not the same, and may be why the rates are not.
func differences(old, now *result.Result) []string {
	var out []string
	add := func(what, a, b string) {
		if a != b {
			out = append(out, fmt.Sprintf("%s: was %s, is %s", what, orDash(figure.Clean(a)), orDash(figure.Clean(b))))
		}
	}
	rates := func(r *result.Result) string {
		var all []string
		for _, c := range r.Capacity {
			all = append(all, strings.TrimPrefix(capacity(c), "capacity "))
		}
		return strings.Join(all, "; ")
	}
	add("capacity", rates(old), rates(now))
	add("load", old.Load, now.Load)
	add("depth", string(old.Depth), string(now.Depth))
	add("goal", goal(old.Goal), goal(now.Goal))
	add("servent", old.Servent, now.Servent)
	add("machine", machine(old.Host), machine(now.Host))
	add("partial", old.Partial, now.Partial)
	for _, r := range []struct {
		name string
		*result.Result
	}{{"old", old}, {"new", now}} {
		if against, _ := judgement(r.Validity); !r.Validity.OK {
			out = append(out, fmt.Sprintf("the %s result is not valid: %s", r.name, strings.Join(against, "; ")))
		}
	}
	return out
}

func machine(h result.Host) string {
	return fmt.Sprintf("%s/%s with %s", h.OS, h.Arch, count(h.CPUs, "processor"))
}
