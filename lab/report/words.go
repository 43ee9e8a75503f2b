package report

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"servent/lab/report/figure"
	"servent/lab/result"
)

// bounds is an interval's ends: [47,49].
func bounds(v result.Interval) string {
	return "[" + figure.Quantity(v.Low) + "," + figure.Quantity(v.High) + "]"
}

// span is how long something took, in words.
func span(x float64) string {
	if figure.Drawable(x) && x >= 120 {
		return fmt.Sprintf("%.0f min %.0f s", math.Floor(x/60), math.Floor(math.Mod(x, 60)))
	}
	return figure.Quantity(x) + " s"
}

// count is n things; the plural takes an s.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// slow says by how much emulated time was stretched, if it was.
func slow(r *result.Result) string {
	if !(r.Slow > 1) {
		return ""
	}
	return "slow ×" + figure.Quantity(r.Slow)
}

// listed is 1, 2, 4.
func listed(ns []int) string {
	words := make([]string, len(ns))
	for i, n := range ns {
		words[i] = strconv.Itoa(n)
	}
	return strings.Join(words, ", ")
}

// word of a mode, as it is shown everywhere.
func word(m result.Mode) string { return strings.ToUpper(figure.Clean(string(m))) }

// percent is the name of a percentile: p90, p99.9.
func percent(p float64) string { return "p" + strconv.FormatFloat(p, 'f', -1, 64) }

// subject is what was compared: counter, or cart of shop.
func subject(r *result.Result) string {
	system, service := figure.Clean(r.System), figure.Clean(string(r.Service))
	switch {
	case system == "" && service == "":
		return "a service without a name"
	case system == "" || system == service:
		return service
	case service == "":
		return system
	}
	return service + " of " + system
}

// scene is where the nodes were.
func scene(m result.Mode) string {
	switch m {
	case result.Real:
		return "REAL nodes"
	case result.Simulated:
		return "SIMULATED nodes on virtual time"
	}
	return word(m) + " nodes on this machine"
}

// asked says what the rates of a table are.
func asked(r *result.Result, all []row) string {
	if !openLoop(all) {
		return "req/s at saturation"
	}
	s := "max req/s"
	if r.Goal.LatencyMS > 0 {
		s += " with " + percent(r.Goal.Percentile) + " < " + figure.Quantity(r.Goal.LatencyMS) + "ms"
	}
	if r.Goal.Errors > 0 {
		s += ", errors ≤ " + figure.Quantity(r.Goal.Errors*100) + " %"
	}
	return s
}

var column = regexp.MustCompile(`^(.+:\d+):\d+$`)

// capacity is a group's capacity and where it comes from.
func capacity(c result.Capacity) string {
	s := "capacity"
	if c.Group != "" {
		s += " of " + figure.Clean(c.Group)
	}
	s += " " + figure.Quantity(c.Rate) + "/s per node"
	if c.Workers > 1 {
		s += fmt.Sprintf(" and worker, %d workers", c.Workers)
	}
	switch where := figure.Clean(c.Where); {
	case c.Source == "typed" && where != "":
		if m := column.FindStringSubmatch(where); m != nil {
			where = m[1]
		}
		s += ": typed in " + where + ", not measured"
	case c.Source == "typed":
		s += ": typed, not measured"
	case c.Source != "":
		s += ": " + figure.Clean(c.Source)
	}
	return s
}

// keysLost is what a fault cost for ever.
func keysLost(s *result.Survival) string {
	switch {
	case s.LostText != "":
		return figure.Clean(s.LostText)
	case s.KeysLost < 0:
		return "-"
	case s.KeysLost == 0:
		return "none"
	}
	return figure.Share(s.KeysLost)
}

// back is the time until a service was as before.
func back(s *result.Survival) string {
	if s.Recovery < 0 {
		return "never"
	}
	return figure.Seconds(s.Recovery)
}

// fault is what was done, without the node that it was done to: kill 1 node.
func fault(s *result.Survival) string {
	what, _, _ := strings.Cut(figure.Clean(s.What), " (")
	if what == "" {
		what = "fault"
	}
	return what
}

// faultNote is a survival as words under a row.
func faultNote(s *result.Survival) string {
	at := ""
	if s.Nodes > 0 {
		at = fmt.Sprintf(" of %d", s.Nodes)
	}
	return fmt.Sprintf("%s%s: errors for %s, back after %s, keys lost: %s", fault(s), at, figure.Seconds(s.ErrorsFor), back(s), keysLost(s))
}

// firstFault is the survival that speaks for the head of a column, or nil.
func firstFault(r *result.Result) *result.Survival {
	for i := range r.Variants {
		if s := r.Variants[i].Survival; s != nil {
			return s
		}
	}
	return nil
}

// and joins words as a sentence does.
func and(words []string) string {
	switch n := len(words); n {
	case 0:
		return ""
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " and " + words[n-1]
	}
}

// cleaned is a list of words without empty ones.
func cleaned(words []string) []string {
	out := make([]string, 0, len(words))
	for _, w := range words {
		if w = strings.TrimSpace(figure.Clean(w)); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// judgement is the words of a check that is not passed first, then the others.
func judgement(v result.Validity) (bad, good []string) {
	for _, c := range v.Checks {
		text := figure.Clean(c.Text)
		if text == "" {
			text = figure.Clean(c.Name)
		}
		if c.OK {
			good = append(good, text)
		} else {
			bad = append(bad, text)
		}
	}
	return bad, good
}

// reasons are why points are not valid, in the order of the rows. What several points have in common but for the
// figures is said once, of the one whose node would have to be slowest.
func reasons(all []row) []string {
	type reason struct {
		why   string
		valid float64 // a node's rate that would be
		more  int
	}
	var order []string
	said := map[string]reason{}
	for _, w := range all {
		for _, p := range w.points {
			if p.Valid {
				continue
			}
			why := strings.TrimSpace(figure.Clean(p.Why))
			if why == "" {
				why = "no reason given"
			}
			alike := figures.ReplaceAllString(why, "0")
			r, seen := said[alike]
			switch {
			case !seen:
				order = append(order, alike)
				r = reason{why: why, valid: p.Station.ValidRate}
			case p.Station.ValidRate < r.valid:
				r.why, r.valid = why, p.Station.ValidRate
				r.more++
			default:
				r.more++
			}
			said[alike] = r
		}
	}
	var out []string
	for _, alike := range order {
		r := said[alike]
		if r.more > 0 {
			r.why += fmt.Sprintf(" (and %s alike)", count(r.more, "point"))
		}
		out = append(out, r.why)
	}
	return out
}

var figures = regexp.MustCompile(`[0-9]+(\.[0-9]+)?`)

// balance says how uneven the nodes' shares are, where several of them serve and some serve much more than others. Empty: they serve about alike, or one serves all.
func balance(w row) string {
	p := w.largest()
	if p == nil || p.Gini < uneven {
		return ""
	}
	var all, most, serving int64
	for _, n := range p.NodeLoad {
		all += n.Served
		most = max(most, n.Served)
		if n.Served > 0 {
			serving++
		}
	}
	if serving < 2 {
		return ""
	}
	return fmt.Sprintf("uneven: at %s the busiest serves %.0f %% of the requests; evenly it would be %.0f %% (Gini %.2f)", count(p.Nodes, "node"), 100*float64(most)/float64(all), 100/float64(p.Nodes), p.Gini)
}

// uneven is the Gini coefficient of node load from which on it is told: two of three nodes with twice the third one's share have 0.13.
const uneven = 0.1

// lookups sets the messages that it took to find a key's owner beside what theory expects, at the largest valid
// point that both have; "" where nothing is looked up.
func lookups(w row) string {
	if w.Theory == nil {
		return ""
	}
	for _, q := range slices.Backward(w.points) {
		for _, c := range w.Theory.Hops {
			if c.Nodes == q.Nodes && q.Valid && q.Lookup > 0 {
				return fmt.Sprintf("%.2f lookups a request at %d, theory %.2f (%s)", q.Lookup, q.Nodes, c.Rate, figure.Change(off(q.Lookup, c.Rate)))
			}
		}
	}
	return ""
}
