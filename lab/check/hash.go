package check

import (
	"fmt"
	"net/http"

	"servent/lab/load"
	"servent/lab/result"
)

// hash checks that one method and path have one answer, whoever gives it: a page, or a function of what is
// asked. Where the answers of one and the same instance change from one to the next, they depend on
// something else, and nothing can be said.
type hash struct {
	seen  map[string]seenAnswer
	last  map[string]print // request and instance → its last answer
	again int64            // answers of an instance to a request that it had answered before
	moved int64            // of them, unlike the one before
	total tally
}

// print is what is compared of an answer.
type print struct {
	status int
	hash   uint64
}

type seenAnswer struct {
	print
	first string // in words
}

func newHash() *hash {
	h := &hash{}
	h.forget()
	return h
}

func (h *hash) forget() {
	*h = hash{seen: map[string]seenAnswer{}, last: map[string]print{}}
}

func (h *hash) add(run []load.Record) {
	for i := range run {
		r := &run[i]
		if !answered(r) || r.Status == http.StatusNotModified || r.Status == http.StatusPartialContent {
			continue
		}
		what, p := r.Method+" "+r.Path, print{r.Status, r.Hash}
		mine := what + "\x00" + r.Instance
		if old, ok := h.last[mine]; ok {
			h.again++
			h.moved += one(old != p)
		}
		if len(h.last) < maxKeys {
			h.last[mine] = p
		}
		first, ok := h.seen[what]
		if !ok && len(h.seen) >= maxKeys {
			h.total.over++
			continue
		}
		h.total.checked++
		if !ok {
			h.seen[what] = seenAnswer{p, said(r, p.words(r.Body))}
		} else if first.print != p {
			h.total.differ++
			h.total.show(said(r, p.words(r.Body)) + ", where " + first.first)
		}
	}
}

func (p print) words(body []byte) string {
	if p.status >= 300 {
		return fmt.Sprint(p.status)
	}
	return quote(plain(string(body)))
}

func (h *hash) fold(t *tally) {
	sum := h.total
	sum.keys = int64(len(h.seen))
	sum.wrong = sum.differ
	if 2*h.moved > h.again {
		sum = tally{moving: h.moved, keys: sum.keys}
	}
	t.join(sum)
}

func (h *hash) words(t *tally, a *result.Answers) {
	var say list
	say.when(t.differ, "%s of %s unlike the first of the same request", number(t.differ), some(t.checked, "answer"))
	say.when(t.over, "%s not looked at: more than %s paths", some(t.over, "request"), number(maxKeys))
	if t.checked == 0 && t.moving > 0 {
		say.add("the answers change by themselves: one instance gave %s unlike the one before", some(t.moving, "answer"))
	}
	a.Text = say.String()
}
