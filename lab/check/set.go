package check

import (
	"fmt"
	"math"
	"net/http"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

// set checks a list that things are added to, as Jepsen's set checkers do: what was acknowledged stands in
// every list that was asked for later, and nothing stands there that nobody added.
type set struct {
	o     Options
	items map[string]*item
	other map[string]bool // in the first list of a set that was not empty
	begun bool            // a whole list was seen
	total tally
}

// item is one thing that was to be added.
type item struct {
	sent, done time.Duration // of its first add; done is the end of time without an answer
	sure       bool          // acknowledged
	old        bool          // of an earlier run
	free       bool          // somebody may have removed it
	missed     int64         // lists without it that should have it
	back       bool          // it was seen though no answer came
	gone       bool          // the last whole list asked for after its add had not got it
	example    string
}

func newSet(o Options) *set {
	s := &set{o: o}
	s.forget()
	return s
}

func (s *set) forget() {
	s.items, s.other, s.begun, s.total = map[string]*item{}, map[string]bool{}, false, tally{}
}

// added is the thing that a request adds or removes.
func added(r *load.Record) string {
	if r.Key != "" {
		return r.Key
	}
	return plain(r.Value)
}

func (s *set) add(run []load.Record) {
	for _, it := range s.items {
		it.old = true
	}
	for i := range run {
		if r := &run[i]; r.Method == http.MethodPut || r.Method == http.MethodPost || r.Method == http.MethodDelete {
			s.change(r)
		}
	}
	for i := range run { // by Sent, so that the last whole list is the last word
		if r := &run[i]; r.Method == http.MethodGet && r.Key == "" && fine(r) {
			s.list(r)
		}
	}
}

func (s *set) change(r *load.Record) {
	how, name := outcomeOf(r), added(r)
	it := s.items[name]
	if how == never {
		return
	}
	if it == nil && len(s.items) >= maxKeys {
		s.total.over++
		return
	}
	if it == nil {
		it = &item{sent: r.Sent, done: math.MaxInt64}
		s.items[name] = it
	}
	switch {
	case r.Method == http.MethodDelete:
		it.free = true
	case how == sure:
		if !it.old {
			it.done = min(it.done, max(r.Done, r.Sent))
		} else if !it.sure {
			it.old, it.sent, it.done = false, math.MinInt64, max(r.Done, r.Sent)
		}
		it.sure = true
		s.total.writes++
		s.total.checked++
	case how == maybe && !it.old:
		it.sent = min(it.sent, r.Sent)
	}
}

func (s *set) list(r *load.Record) {
	all, whole := listIn(r.Body)
	s.total.reads++
	s.total.checked++
	s.total.cut += one(!whole)
	has := make(map[string]bool, len(all))
	for _, name := range all {
		has[name] = true
		it := s.items[name]
		if s.o.Unknown && !s.begun && len(s.other) < maxKeys {
			s.other[name] = true // it may have been there before
		}
		switch {
		case it == nil && len(s.items) >= maxKeys:
		case it == nil && s.other[name]:
		case it == nil:
			s.total.garbage++
			s.total.show(said(r, "a list with "+quote(name)+", which nobody added"))
		case !it.old && r.Done < it.sent && !s.other[name]:
			s.total.early++
			s.total.show(said(r, "a list with "+quote(name)+", before it was added"))
		default:
			it.back = it.back || !it.sure
		}
	}
	if !whole {
		return
	}
	s.begun = true
	for name, it := range s.items {
		if !it.sure || it.free || !it.old && it.done >= r.Sent {
			continue
		}
		if it.gone = !has[name]; it.gone {
			it.missed++
			if it.example == "" {
				it.example = said(r, fmt.Sprintf("a list without %s, which was added before", quote(name)))
			}
		}
	}
}

func (s *set) fold(t *tally) {
	sum := s.total
	sum.keys = int64(len(s.items))
	for _, name := range sortedKeys(s.items) {
		it := s.items[name]
		sum.back += one(it.back && !it.sure)
		switch {
		case it.gone:
			sum.lost++
		case it.missed > 0:
			sum.stale++
		default:
			continue
		}
		sum.show(it.example)
	}
	sum.wrong = sum.lost + sum.stale + sum.garbage + sum.early
	t.join(sum)
}

func (s *set) words(t *tally, a *result.Answers) {
	var say list
	say.when(t.lost, "%s of %s lost", number(t.lost), some(t.writes, "acknowledged add"))
	say.when(t.stale, "%s missing for a while", some(t.stale, "acknowledged add"))
	say.when(t.garbage, "%s in lists that nobody added", some(t.garbage, "thing"))
	say.when(t.early, "%s in lists before they were added", some(t.early, "thing"))
	say.when(t.back, "%s without an answer took place", some(t.back, "add"))
	say.when(t.cut, "%s too long to be compared whole", some(t.cut, "list"))
	say.when(t.over, "%s not looked at: more than %s things", some(t.over, "request"), number(maxKeys))
	a.Text = say.String()
}
