package report

import (
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"servent/lab/result"
)

// clean makes words of users and programs one line that moves no cursor and turns no writing direction.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
}

// clip shortens words to n characters.
func clip(s string, n int) string {
	if rs := []rune(s); len(rs) > n {
		return string(rs[:max(n-1, 0)]) + "…"
	}
	return s
}

// quantity is a figure with as many digits as a reader needs.
func quantity(x float64) string {
	a := math.Abs(x)
	switch {
	case math.IsNaN(x):
		return "?"
	case a > 1e15:
		return strconv.FormatFloat(x, 'g', 3, 64)
	case a >= 10 || x == math.Trunc(x):
		return strconv.FormatFloat(x, 'f', 0, 64)
	case a >= 1:
		return short(strconv.FormatFloat(x, 'f', 1, 64))
	case a >= 0.001:
		return short(strconv.FormatFloat(x, 'f', 1-int(math.Floor(math.Log10(a))), 64)) // two digits that count
	}
	return strconv.FormatFloat(x, 'g', 2, 64)
}

// short leaves out zeros after the point that say nothing.
func short(digits string) string {
	return strings.TrimRight(strings.TrimRight(digits, "0"), ".")
}

// grouped is a quantity with a comma at the thousands.
func grouped(x float64) string {
	q := quantity(x)
	sign, digits := "", q
	if strings.HasPrefix(q, "-") {
		sign, digits = "-", q[1:]
	}
	if strings.Trim(digits, "0123456789") != "" {
		return q
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// bounds is an interval's ends: [47,49].
func bounds(v result.Interval) string {
	return "[" + quantity(v.Low) + "," + quantity(v.High) + "]"
}

// share is a part of one as a percentage. Nearly all is never called all.
func share(x float64) string {
	if x > 0.99 && x < 1 {
		return strconv.FormatFloat(math.Floor(x*1000)/10, 'f', 1, 64) + " %"
	}
	return quantity(math.Round(x*1000)/10) + " %"
}

// change is a part of one with its sign: +3.1 %, −20 %.
func change(x float64) string {
	r := math.Round(x*1000) / 10
	switch {
	case math.IsNaN(x):
		return "?"
	case r == 0: // also −0
		return "0 %"
	case r < 0:
		return "−" + quantity(-r) + " %"
	}
	return "+" + quantity(r) + " %"
}

// seconds of a survival: 1.1s.
func seconds(x float64) string {
	switch {
	case math.IsNaN(x):
		return "?"
	case x >= 100 || math.IsInf(x, 0):
		return quantity(x) + "s"
	}
	return strconv.FormatFloat(x, 'f', 1, 64) + "s"
}

// span is how long something took, in words.
func span(x float64) string {
	if drawable(x) && x >= 120 {
		return fmt.Sprintf("%.0f min %.0f s", math.Floor(x/60), math.Floor(math.Mod(x, 60)))
	}
	return quantity(x) + " s"
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
	return "slow ×" + quantity(r.Slow)
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
func word(m result.Mode) string { return strings.ToUpper(clean(string(m))) }

// percent is the name of a percentile: p90, p99.9.
func percent(p float64) string { return "p" + strconv.FormatFloat(p, 'f', -1, 64) }

// subject is what was compared: counter, or cart of shop.
func subject(r *result.Result) string {
	system, service := clean(r.System), clean(string(r.Service))
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
		s += " with " + percent(r.Goal.Percentile) + " < " + quantity(r.Goal.LatencyMS) + "ms"
	}
	if r.Goal.Errors > 0 {
		s += ", errors ≤ " + quantity(r.Goal.Errors*100) + " %"
	}
	return s
}

var column = regexp.MustCompile(`^(.+:\d+):\d+$`)

// capacity is a group's capacity and where it comes from.
func capacity(c result.Capacity) string {
	s := "capacity"
	if c.Group != "" {
		s += " of " + clean(c.Group)
	}
	s += " " + quantity(c.Rate) + "/s per node"
	if c.Workers > 1 {
		s += fmt.Sprintf(" and worker, %d workers", c.Workers)
	}
	switch where := clean(c.Where); {
	case c.Source == "typed" && where != "":
		if m := column.FindStringSubmatch(where); m != nil {
			where = m[1]
		}
		s += ": typed in " + where + ", not measured"
	case c.Source == "typed":
		s += ": typed, not measured"
	case c.Source != "":
		s += ": " + clean(c.Source)
	}
	return s
}

// keysLost is what a fault cost for ever.
func keysLost(s *result.Survival) string {
	switch {
	case s.LostText != "":
		return clean(s.LostText)
	case s.KeysLost < 0:
		return "-"
	case s.KeysLost == 0:
		return "none"
	}
	return share(s.KeysLost)
}

// back is the time until a service was as before.
func back(s *result.Survival) string {
	if s.Recovery < 0 {
		return "never"
	}
	return seconds(s.Recovery)
}

// fault is what was done, without the node that it was done to: kill 1 node.
func fault(s *result.Survival) string {
	what, _, _ := strings.Cut(clean(s.What), " (")
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
	return fmt.Sprintf("%s%s: errors for %s, back after %s, keys lost: %s", fault(s), at, seconds(s.ErrorsFor), back(s), keysLost(s))
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
		if w = strings.TrimSpace(clean(w)); w != "" {
			out = append(out, w)
		}
	}
	return out
}

// judgement is the words of a check that is not passed first, then the others.
func judgement(v result.Validity) (bad, good []string) {
	for _, c := range v.Checks {
		text := clean(c.Text)
		if text == "" {
			text = clean(c.Name)
		}
		if c.OK {
			good = append(good, text)
		} else {
			bad = append(bad, text)
		}
	}
	return bad, good
}

// reasons are why points are not valid, each once, in the order of the rows.
func reasons(all []row) []string {
	var out []string
	for _, w := range all {
		for _, p := range w.points {
			if !p.Valid {
				why := strings.TrimSpace(clean(p.Why))
				if why == "" {
					why = "no reason given"
				}
				if !slices.Contains(out, why) {
					out = append(out, why)
				}
			}
		}
	}
	return out
}
