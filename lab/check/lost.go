package check

import (
	"fmt"
	"math"
	"net/http"
	"slices"
	"time"

	"servent/lab/load"
)

// Loss is what a fault destroyed for ever.
type Loss struct {
	Keys    int     // that something was acknowledged for and that were read afterwards
	Lost    int     // of them, those whose last acknowledged value is gone
	Unread  int     // that something was acknowledged for and that no answer came about afterwards
	Share   float64 // Lost of Keys, 0…1; -1: no keys
	Text    string
	Example string // the first lost key, in words
}

// Fault is what one service, which began empty, answered around a fault.
type Fault struct {
	Before []load.Record // runs that ended before the fault's run began, on its clock: all have ended at 0
	During []load.Record // the run in which it happened
	At     time.Duration // into that run, when it happened
	After  []load.Record // reads when all is quiet again
}

// Lost compares what was acknowledged with what is read when all is quiet again: a key of a [KV] is lost
// when its last acknowledged value, or one that may have replaced it, is not what is read. A number of a
// [Counter] is lost when it was lower after the fault than what had been answered before it, even if it has
// grown beyond that since; where increments are answered without a number, when it is below how many of them
// were acknowledged. A key that After reads more than once is judged by the last answer.
func Lost(kind Kind, f Fault) Loss {
	put := map[id]bool{} // key and value of every write
	for _, before := range [][]load.Record{f.Before, f.During} {
		for i := range before {
			if r := &before[i]; r.Method == http.MethodPut {
				put[mark(keyOf(r), idOf(plain(r.Value)))] = true
			}
		}
	}
	finals := map[string]*load.Record{}
	for i := range f.After {
		r := &f.After[i]
		ours := points(r) && put[mark(keyOf(r), idOf(plain(string(r.Body))))]
		if r.Method != http.MethodGet || !answered(r) || !fine(r) && !absent(r) && !ours {
			continue
		}
		if old := finals[keyOf(r)]; old == nil || old.Sent <= r.Sent {
			finals[keyOf(r)] = r
		}
	}
	keys := map[string][]*load.Record{}
	early := map[*load.Record]bool{} // ended before the fault
	for i, r := range slices.Concat(pointers(f.Before), pointers(f.During)) {
		if r.Method != http.MethodGet || kind == Counter {
			keys[keyOf(r)] = append(keys[keyOf(r)], r)
			early[r] = i < len(f.Before) || r.Done < f.At
		}
	}
	l := Loss{Share: -1}
	for _, key := range sortedKeys(keys) {
		acknowledged, why := false, ""
		switch kind {
		case KV:
			acknowledged, why = lostValue(keys[key], finals[key])
		case Counter:
			acknowledged, why = lostNumber(keys[key], early, f.At, finals[key])
		}
		switch {
		case !acknowledged:
		case finals[key] == nil && why == "":
			l.Unread++
		default:
			l.Keys++
			l.Lost += int(one(why != ""))
			if why != "" && l.Example == "" {
				l.Example = why
			}
		}
	}
	if l.Keys > 0 {
		l.Share = float64(l.Lost) / float64(l.Keys)
	}
	switch {
	case l.Keys == 0 && l.Unread == 0:
		l.Text = "no keys were written"
	case l.Keys == 0:
		l.Text = fmt.Sprintf("no answer about %s", some(int64(l.Unread), "key"))
		return l
	case l.Lost == 0:
		l.Text = "none of " + some(int64(l.Keys), "key")
	case l.Lost == l.Keys:
		l.Text = "all of " + some(int64(l.Keys), "key")
	default:
		l.Text = fmt.Sprintf("%s of %s", number(int64(l.Lost)), some(int64(l.Keys), "key"))
	}
	if l.Unread > 0 {
		l.Text += fmt.Sprintf("; no answer about %s", some(int64(l.Unread), "key"))
	}
	return l
}

// lostValue says whether a value was acknowledged, and how the final answer misses it.
func lostValue(writes []*load.Record, final *load.Record) (acknowledged bool, why string) {
	begun := int64(math.MinInt64) // the last write that surely took place
	var last *load.Record
	for _, r := range writes {
		if outcomeOf(r) == sure && int64(r.Sent) > begun {
			begun, last = int64(r.Sent), r
		}
	}
	if last == nil || final == nil {
		return last != nil, ""
	}
	var may []id
	for _, r := range writes {
		how := outcomeOf(r)
		if how == never && (r.Method != http.MethodDelete || !absent(r)) || how == sure && int64(r.Done) < begun {
			continue
		}
		v := gone
		if r.Method == http.MethodPut {
			v = idOf(plain(r.Value))
		}
		may = append(may, v)
	}
	got := op{r: final}
	if !absent(final) {
		got.val = idOf(plain(string(final.Body)))
	}
	if slices.Contains(may, got.val) {
		return true, ""
	}
	return true, said(final, what(&got)+fmt.Sprintf("; the last acknowledged write was %s at %s", (&op{r: last}).words(), at(last.Done)))
}

// lostNumber says whether a number was acknowledged, and which answer after the fault misses it. early are
// those of all that had ended before the fault.
func lostNumber(all []*load.Record, early map[*load.Record]bool, at time.Duration, final *load.Record) (acknowledged bool, why string) {
	had, most, acked, silent := int64(0), int64(0), int64(0), true
	for _, r := range all {
		if r.Method == http.MethodPost && outcomeOf(r) == sure {
			acked++
		}
		if n, ok := numberIn(r.Body); ok && fine(r) {
			most, silent = max(most, n), silent && r.Method != http.MethodPost
			if early[r] {
				had = max(had, n)
			}
		}
	}
	if acked == 0 {
		return false, ""
	}
	for _, r := range all { // begun anew, and perhaps far beyond by now
		n, ok := numberIn(r.Body)
		if early[r] || r.Sent <= at || !ok || !fine(r) {
			continue
		}
		if r.Method == http.MethodPost {
			n-- // what it was before this one
		}
		if n < had {
			return true, said(r, fmt.Sprintf("%d; %d had been reached", n, had))
		}
	}
	if final == nil {
		return true, ""
	}
	n, ok := numberIn(final.Body)
	if absent(final) {
		n, ok = 0, true
	}
	if !ok {
		return true, said(final, "no number")
	}
	if silent {
		most = max(most, acked)
	}
	if n < most {
		return true, said(final, fmt.Sprintf("%d; %d had been reached", n, most))
	}
	return true, ""
}

func pointers(records []load.Record) []*load.Record {
	out := make([]*load.Record, len(records))
	for i := range records {
		out[i] = &records[i]
	}
	return out
}
