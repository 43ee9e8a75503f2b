// Package check judges answers. An application that is fast and wrong scales to nothing, so every variant of
// a comparison has its answers looked at: a counter must lose and double nothing, a store must give back
// what was put into it, a set must keep what was added, and what depends on nothing must answer the same
// everywhere. A checker never accuses a right service: what no one can know (did a request whose answer
// never came take place?) counts for the service, and a request without an answer is an error of the load
// and no wrong answer.
//
// The counter is decided exactly by counting. A key of a store is decided by porcupine (Athalye; after Wing
// and Gong 1993, and Lowe 2017); where it is not linearizable, the session guarantees of Terry et al. (PDIS
// 1994) that were not seen broken are named. Start at [New]; [Auto] finds the kind for a mix of requests.
package check

import (
	"slices"
	"strconv"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

// Kind of a checker.
type Kind string

const (
	None    Kind = "none"    // nothing can be checked
	Counter Kind = "counter" // POST, or what is sent over TCP, counts and answers the number, GET reads it
	KV      Kind = "kv"      // PUT, GET and DELETE of a value by its key
	Set     Kind = "set"     // PUT or POST adds, GET lists
	Hash    Kind = "hash"    // one method and path, one answer
)

// Verdicts of [result.Answers].
const (
	Right     = "right"
	Wrong     = "WRONG"
	Unchecked = "unchecked"
)

// Options of a [Checker]. The zero value looks at all records of a service that began empty.
type Options struct {
	Entries []int         // of the mix, whose records are looked at; nil: all
	Unknown bool          // the service was not empty before the first record; without it a counter begins at 0 and every key is absent
	Budget  time.Duration // for deciding the keys of one Add; 0 means 2s, negative: no bound
	Why     string        // of a checker that checks nothing: said in its verdict
}

// judge is what a kind of checker does. A run is a list of records that all ended before those of the next
// run begin.
type judge interface {
	add(run []load.Record)
	fold(t *tally) // adds what the state shows so far
	forget()       // the service begins again, empty
	words(t *tally, a *result.Answers)
}

// Checker looks at the answers of one service, run after run. Its memory is bounded by the number of keys,
// of which it follows the first 250,000. It is not safe for concurrent use.
type Checker struct {
	kind Kind
	o    Options
	j    judge
	done tally // of what was forgotten
}

// New makes a checker.
func New(kind Kind, o Options) *Checker {
	if o.Budget == 0 {
		o.Budget = 2 * time.Second
	}
	c := &Checker{kind: kind, o: o}
	switch kind {
	case Counter:
		c.j = newCounter(o)
	case KV:
		c.j = newKV(o)
	case Set:
		c.j = newSet(o)
	case Hash:
		c.j = newHash()
	default:
		c.kind = None
		c.j = nothing{o.Why}
	}
	return c
}

// Kind of the checker.
func (c *Checker) Kind() Kind { return c.kind }

// Add looks at the records of one run, in any order. All its requests have ended before those of the next
// run begin; the times of each run may start at 0. The records are not kept or changed.
func (c *Checker) Add(records []load.Record) {
	run := make([]load.Record, 0, len(records))
	for _, r := range records {
		if c.o.Entries == nil || slices.Contains(c.o.Entries, r.Entry) {
			run = append(run, r)
		}
	}
	slices.SortStableFunc(run, func(a, b load.Record) int { return int(a.Sent - b.Sent) })
	c.j.add(run)
}

// Restart says that the service begins again with nothing: the next run starts from a counter of 0 and an
// empty store. What was found stays found.
func (c *Checker) Restart() {
	c.j.fold(&c.done)
	c.j.forget()
}

// Verdict is what can be said so far. It may be asked more than once.
func (c *Checker) Verdict() result.Answers { return Sum(c) }

// Sum is one verdict for several checkers of one kind, as of the points of one variant.
func Sum(all ...*Checker) result.Answers {
	var t tally
	a := result.Answers{Checker: string(None), Verdict: Unchecked}
	if len(all) == 0 {
		return a
	}
	for _, c := range all {
		t.join(c.done)
		c.j.fold(&t)
	}
	a.Checker, a.Checked, a.Wrong, a.Example = string(all[0].kind), t.checked, t.wrong, t.example
	switch {
	case t.wrong > 0:
		a.Verdict = Wrong
	case t.checked > 0:
		a.Verdict = Right
	}
	all[0].j.words(&t, &a)
	return a
}

// tally is what was counted. Not every kind counts everything.
type tally struct {
	checked int64 // answers
	wrong   int64
	writes  int64 // acknowledged: increments, puts, deletes, adds
	reads   int64
	lost    int64 // writes that were acknowledged and are gone
	twice   int64 // increments that were carried out twice
	again   int64 // increments that were answered with a number given before
	stale   int64 // answers older than one that was complete before
	early   int64 // values before they were written
	garbage int64 // values that nobody wrote, texts without a number
	back    int64 // adds without an answer that took place after all
	differ  int64 // answers unlike those before
	moving  int64 // answers that change by themselves
	cut     int64 // answers too long to be judged

	keys      int64 // looked at
	over      int64 // records of keys beyond the bound
	twisted   int64 // keys whose history has no order that explains it
	undecided int64 // keys of which that could not be found out in time
	mute      bool  // no answer holds what is looked for
	alone     bool  // every copy's answers are right for itself
	together  bool  // … and some copy's are not
	broken    guarantees
	example   string
}

func (t *tally) join(o tally) {
	for _, p := range []struct{ to, from *int64 }{
		{&t.checked, &o.checked}, {&t.wrong, &o.wrong}, {&t.writes, &o.writes}, {&t.reads, &o.reads}, {&t.lost, &o.lost},
		{&t.twice, &o.twice}, {&t.again, &o.again}, {&t.stale, &o.stale}, {&t.early, &o.early}, {&t.garbage, &o.garbage}, {&t.back, &o.back},
		{&t.differ, &o.differ}, {&t.moving, &o.moving}, {&t.cut, &o.cut}, {&t.keys, &o.keys}, {&t.over, &o.over},
		{&t.twisted, &o.twisted}, {&t.undecided, &o.undecided},
	} {
		*p.to += *p.from
	}
	t.mute, t.alone, t.together, t.broken = t.mute || o.mute, t.alone || o.alone, t.together || o.together, t.broken|o.broken
	t.show(o.example)
}

// show keeps the first example.
func (t *tally) show(example string) {
	if t.example == "" {
		t.example = example
	}
}

// nothing is the checker of what cannot be checked.
type nothing struct{ why string }

func (nothing) add([]load.Record) {}
func (nothing) fold(*tally)       {}
func (nothing) forget()           {}

func (n nothing) words(_ *tally, a *result.Answers) { a.Text = n.why }

const (
	maxKeys   = 250_000   // that one checker follows
	maxValues = 2_000_000 // that it remembers to have been written
)

// number writes 9600 as 9,600.
func number(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// some is "1 increment", "412 increments".
func some(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return number(n) + " " + what + "s"
}
