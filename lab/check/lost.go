package check

import (
	"fmt"
	"math"
	"net/http"
	"slices"

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

// Lost compares what was acknowledged before with what is read when all is quiet again: a key of a [KV] is
// lost when its last acknowledged value, or one that may have replaced it, is not what is read; a number of
// a [Counter] when it is below what was answered, or, where increments are answered without a number, below
// how many of them were acknowledged. Both lists are of one service that began empty; a key that after reads
// more than once is judged by the last answer.
func Lost(kind Kind, before, after []load.Record) Loss {
	put := map[id]bool{} // key and value of every write
	for i := range before {
		if r := &before[i]; r.Method == http.MethodPut {
			put[mark(keyOf(r), idOf(plain(r.Value)))] = true
		}
	}
	finals := map[string]*load.Record{}
	for i := range after {
		r := &after[i]
		ours := points(r) && put[mark(keyOf(r), idOf(plain(string(r.Body))))]
		if r.Method != http.MethodGet || !answered(r) || !fine(r) && !absent(r) && !ours {
			continue
		}
		if old := finals[keyOf(r)]; old == nil || old.Sent <= r.Sent {
			finals[keyOf(r)] = r
		}
	}
	keys := map[string][]*load.Record{}
	for i := range before {
		if r := &before[i]; r.Method != http.MethodGet || kind == Counter {
			keys[keyOf(r)] = append(keys[keyOf(r)], r)
		}
	}
	l := Loss{Share: -1}
	for _, key := range sortedKeys(keys) {
		acknowledged, why := false, ""
		switch kind {
		case KV:
			acknowledged, why = lostValue(keys[key], finals[key])
		case Counter:
			acknowledged, why = lostNumber(keys[key], finals[key])
		}
		switch {
		case !acknowledged:
		case finals[key] == nil:
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

// lostNumber says whether a number was acknowledged, and how the final answer misses it.
func lostNumber(all []*load.Record, final *load.Record) (acknowledged bool, why string) {
	least, acked, silent := int64(0), int64(0), true
	for _, r := range all {
		if r.Method == http.MethodPost && outcomeOf(r) == sure {
			acked++
		}
		if n, ok := numberIn(r.Body); ok && fine(r) {
			least, silent = max(least, n), silent && r.Method != http.MethodPost
		}
	}
	if acked == 0 || final == nil {
		return acked > 0, ""
	}
	n, ok := numberIn(final.Body)
	if absent(final) {
		n, ok = 0, true
	}
	if !ok {
		return true, said(final, "no number")
	}
	if silent {
		least = max(least, acked)
	}
	if n < least {
		return true, said(final, fmt.Sprintf("%d; %d had been reached", n, least))
	}
	return true, ""
}
