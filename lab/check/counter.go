package check

import (
	"cmp"
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

// counter checks numbers that only grow by one. A history of one number is right exactly when
//
//   - no two increments were answered with one number (else one of them is lost),
//   - no answer is below one that was complete before its request began, and an increment's is above it,
//   - no answer is below the increments that were acknowledged before its request began,
//   - the numbers that no answer shows can be filled with increments whose answer is not known and that
//     had begun by then (else one was carried out twice).
//
// For in the order of the numbers every request then stands behind those that it must stand behind; the
// test compares this with porcupine.
type counter struct {
	o      Options
	keys   map[string]*tale
	copies map[string]map[string]*tale // key → instance → what it alone told
	total  tally
	posts  texts
	gets   texts
}

// texts counts answers of one method with and without a number in them.
type texts struct{ with, without int64 }

// tale is what was told of one number.
type tale struct {
	first bool  // no answer yet: the start is not known
	base  int64 // the start at most: all numbers above it are someone's
	low   int64 // the start at least
	top   int64 // greatest number answered
	acked int64 // increments acknowledged
	shown int64 // numbers that were answered to increments
	loose int64 // increments whose number is not known
	sent  int64 // increments that may have taken place
	holes []hole

	dup, stale, lost, twice int64
	need, missing           int64 // the most increments that stood before an answer, and how far such answers stayed below them
	example                 string
}

// hole is a range of numbers that no increment's answer has shown.
type hole struct{ from, to int64 }

const (
	maxHoles  = 1000   // of one number; those beyond count as shown
	maxCopied = 20_000 // numbers of which every copy is looked at for itself
)

func newCounter(o Options) *counter {
	c := &counter{o: o}
	c.forget()
	return c
}

func (c *counter) forget() {
	c.keys, c.copies, c.total, c.posts, c.gets = map[string]*tale{}, map[string]map[string]*tale{}, tally{}, texts{}, texts{}
}

// tick is one request on one number.
type tick struct {
	r          *load.Record
	inc        bool
	known      bool // n was answered
	n          int64
	sent, done time.Duration
	floor      int64 // greatest number that was complete when it began
	before     int64 // increments acknowledged when it began
}

func (c *counter) add(run []load.Record) {
	keys := map[string][]tick{}
	var order []string
	for i := range run {
		r := &run[i]
		t, ok := c.read(r)
		if !ok {
			continue
		}
		key := keyOf(r)
		if keys[key] == nil {
			if c.keys[key] == nil && len(c.keys) >= maxKeys {
				c.total.over++
				continue
			}
			order = append(order, key)
			if c.keys[key] == nil {
				c.keys[key] = c.tale()
			}
		}
		keys[key] = append(keys[key], t)
	}
	for _, key := range order {
		c.keys[key].tell(keys[key])
		c.alone(key, keys[key])
	}
}

func (c *counter) tale() *tale { return &tale{first: c.o.Unknown} }

// read takes what a record says about its number.
func (c *counter) read(r *load.Record) (tick, bool) {
	t := tick{r: r, sent: r.Sent, done: r.Done}
	kind := &c.gets
	switch r.Method {
	case http.MethodPost, overTCP:
		kind, t.inc = &c.posts, true
		switch outcomeOf(r) {
		case never:
			return t, false
		case maybe:
			t.done = math.MaxInt64
			return t, true
		}
	case http.MethodGet:
		if !answered(r) || r.Status >= 300 && !absent(r) {
			return t, false
		}
	default:
		return t, false
	}
	if t.n, t.known = numberIn(r.Body); r.Status == http.StatusNotFound && !t.inc {
		t.n, t.known = 0, !c.o.Unknown // no such number yet
	} else if t.known {
		kind.with++
	} else {
		kind.without++
		if kind.without == 1 {
			c.total.show(said(r, quote(string(r.Body))+", which holds no number"))
		}
	}
	if t.known {
		c.total.checked++
	}
	if t.inc {
		c.total.writes++
	} else {
		c.total.reads++
	}
	return t, t.known || t.inc
}

// alone looks at what every copy tells for itself. Increments that no copy put its name to may be anyone's.
func (c *counter) alone(key string, ticks []tick) {
	if c.copies[key] == nil {
		if len(c.copies) >= maxCopied {
			return
		}
		c.copies[key] = map[string]*tale{}
	}
	mine := map[string][]tick{}
	for _, t := range ticks {
		if t.known && t.r.Instance != "" {
			mine[t.r.Instance] = nil
		}
	}
	for instance := range mine {
		for _, t := range ticks {
			switch {
			case t.known && t.r.Instance == instance:
			case t.inc && (!t.known || t.r.Instance == ""):
				t.known, t.done = false, math.MaxInt64
			default:
				continue
			}
			mine[instance] = append(mine[instance], t)
		}
		if c.copies[key][instance] == nil {
			c.copies[key][instance] = c.tale()
		}
		c.copies[key][instance].tell(mine[instance])
	}
}

// tell goes through a run in the order of time. Where a request begins and another ends in one instant they
// count as concurrent.
func (s *tale) tell(ticks []tick) {
	type moment struct {
		at  time.Duration
		end bool
		t   *tick
	}
	var moments []moment
	for i := range ticks {
		t := &ticks[i]
		moments = append(moments, moment{t.sent, false, t})
		if t.done != math.MaxInt64 {
			moments = append(moments, moment{max(t.done, t.sent), true, t})
		}
	}
	slices.SortStableFunc(moments, func(a, b moment) int {
		if a.at == b.at && a.end != b.end {
			if a.end {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.at, b.at)
	})
	if s.first {
		sent, known := s.loose, false
		for _, m := range moments {
			switch {
			case !m.end && m.t.inc:
				sent++
			case m.end && m.t.known:
				n := m.t.n - one(m.t.inc)
				if !known {
					s.base, s.low = n, m.t.n-sent
				}
				s.base, s.low, known = min(s.base, n), max(s.low, m.t.n-sent), true
			}
		}
		if !known { // what happened so far belongs to the start, or is still to come
			s.sent, s.loose = sent, sent
			return
		}
		s.first, s.top = false, s.base
		s.low = min(s.low, s.base)
	}
	fresh := s.numbers(ticks)
	old, floor := s.shown, s.top
	given, shown := map[int64]bool{}, 0 // fresh numbers up to floor
	for _, m := range moments {
		t := m.t
		switch {
		case !m.end:
			t.floor, t.before = floor, s.acked
			if t.inc {
				s.sent++
			}
			if t.inc && !t.known {
				s.loose++
			}
			continue
		case t.inc && !t.known:
			s.acked++
			continue
		}
		behind := s.low + t.before + one(t.inc) - t.n
		if t.before > s.need {
			s.need, s.missing = t.before, max(behind, 0)
		} else if t.before == s.need {
			s.missing = max(min(s.missing, behind), 0)
		}
		switch {
		case t.inc && (given[t.n] || t.n <= s.top && t.n > s.base && !s.hole(t.n)):
			s.dup++
			s.show(t.r, fmt.Sprintf("%d, a number that another increment was answered with", t.n))
		case t.n < t.floor+one(t.inc):
			s.stale++
			why := fmt.Sprintf("%d was answered before the request began", t.floor)
			if t.floor == s.base {
				why = fmt.Sprintf("it began at %d", s.base)
			}
			s.show(t.r, fmt.Sprintf("%d, though %s", t.n, why))
		case behind > 0:
			s.lost = max(s.lost, behind)
			s.show(t.r, fmt.Sprintf("%d, though %s acknowledged before the request began", t.n, were(t.before)))
		}
		if t.inc {
			s.acked++
			given[t.n] = true
		}
		if t.n > floor {
			floor = t.n
			for shown < len(fresh) && fresh[shown] <= floor {
				shown++
			}
		}
		if over := floor - s.base - old - int64(shown) - s.loose; over > s.twice {
			s.twice = over
			s.show(t.r, fmt.Sprintf("%d, though at most %s had begun", t.n, some(s.sent, "increment")))
		}
	}
	s.dig(fresh, floor)
	s.shown, s.top = old+int64(shown), floor
}

func (s *tale) show(r *load.Record, what string) {
	if s.example == "" {
		s.example = said(r, what)
	}
}

// numbers are those above top that increments of a run were answered with, sorted, each once.
func (s *tale) numbers(ticks []tick) []int64 {
	var all []int64
	for _, t := range ticks {
		if t.inc && t.known && t.n > s.top {
			all = append(all, t.n)
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// dig notes the numbers up to floor that a run did not show.
func (s *tale) dig(fresh []int64, floor int64) {
	next := s.top + 1
	for _, n := range append(slices.Clip(fresh), floor+1) {
		if n > next && len(s.holes) < maxHoles {
			s.holes = append(s.holes, hole{next, n - 1})
		}
		next = n + 1
	}
}

func (s *tale) hole(n int64) bool {
	return slices.ContainsFunc(s.holes, func(h hole) bool { return h.from <= n && n <= h.to })
}

// gone are the increments that were acknowledged and are not in the number.
func (s *tale) gone() int64 { return max(s.dup, s.lost, s.missing) }

// wrong counts what is wrong. Answers that are too low after a loss follow from it.
func (s *tale) wrong() int64 { return max(s.gone(), s.dup+s.stale) + s.twice }

func one(yes bool) int64 {
	if yes {
		return 1
	}
	return 0
}

func were(n int64) string {
	if n == 1 {
		return "1 increment was"
	}
	return number(n) + " increments were"
}

func (c *counter) fold(t *tally) {
	sum := c.total
	sum.mute = c.posts.with+c.gets.with == 0
	for _, kind := range []texts{c.posts, c.gets} {
		if kind.with > 0 { // the others should hold one, too
			sum.garbage += kind.without
			sum.checked += kind.without
		}
	}
	sum.wrong = sum.garbage
	if sum.garbage == 0 {
		sum.example = ""
	}
	for _, key := range sortedKeys(c.keys) {
		s := c.keys[key]
		sum.keys++
		if s.wrong() == 0 {
			continue
		}
		gone := s.gone()
		sum.wrong += s.wrong()
		sum.lost += gone
		sum.twice += s.twice
		sum.again += s.dup
		if gone == 0 {
			sum.stale += s.stale
		}
		sum.show(s.example)
		right, of := 0, c.copies[key]
		for _, copy := range of {
			if copy.wrong() == 0 {
				right++
			}
		}
		if gone > 0 {
			sum.alone = sum.alone || len(of) > 1 && right == len(of)
			sum.together = sum.together || len(of) < 2 || right < len(of)
		}
	}
	if sum.twice > 2*sum.writes { // a counter that counts everything twice is wrong by as much as it counts
		sum = tally{mute: true, writes: sum.writes}
	}
	t.join(sum)
}

func (c *counter) words(t *tally, a *result.Answers) {
	var say list
	if t.lost > 0 {
		why := "the number is lower than what was acknowledged"
		if t.alone && !t.together {
			why = "every copy counts for itself"
		} else if t.again > 0 {
			why = "numbers were given twice"
		}
		say.add("%s of %s lost: %s", number(t.lost), some(t.writes, "increment"), why)
	}
	say.when(t.twice, "%s of %s carried out twice", number(t.twice), some(t.writes, "increment"))
	say.when(t.stale, "%s of %s older than one before", number(t.stale), some(t.checked, "answer"))
	say.when(t.garbage, "%s of %s without a number", number(t.garbage), some(t.checked, "answer"))
	say.when(t.over, "%s not looked at: more than %s numbers", some(t.over, "request"), number(maxKeys))
	if t.checked == 0 && t.mute && t.writes+t.reads > 0 {
		say.add("no answer holds a number that counts")
	}
	a.Text = say.String()
	if t.wrong == 0 && t.checked > 0 {
		a.Holds = "linearizable"
	}
}
