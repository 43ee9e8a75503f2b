package check

import (
	"cmp"
	"math"
	"slices"
	"strings"
	"time"
)

// guarantees of Terry et al., Session Guarantees for Weakly Consistent Replicated Data, PDIS 1994. A client
// is a session. They are looked at key by key, as far as the order of the writes is known: one ended before
// the other began.
type guarantees uint8

const (
	readYourWrites guarantees = 1 << iota
	monotonicReads
	monotonicWrites
	writesFollowReads
)

// holds names those that were not broken.
func (broken guarantees) holds() string {
	var all []string
	for i, name := range []string{"read your writes", "monotonic reads", "monotonic writes", "writes follow reads"} {
		if broken&(1<<i) == 0 {
			all = append(all, name)
		}
	}
	return strings.Join(all, ", ")
}

// sessions says which guarantees a history breaks. The first two are seen by the client; whether writes
// were put in order, by what one copy answers: an instance where it is known, else one client.
func sessions(h *history) guarantees {
	var broken guarantees
	clients, copies := map[any][]*op{}, map[any][]*op{}
	for i := range h.ops {
		o := &h.ops[i]
		if o.r == nil {
			continue
		}
		clients[o.r.Client] = append(clients[o.r.Client], o)
		if v := h.vals[o.val]; o.write || v == nil || v.writes > 1 {
			continue
		}
		if o.r.Instance != "" {
			copies[o.r.Instance] = append(copies[o.r.Instance], o)
		} else {
			copies[o.r.Client] = append(copies[o.r.Client], o)
		}
	}
	writer := map[id]*op{}          // of values written once
	follows := map[id]map[id]bool{} // value → what its writer had read or written before
	for _, ops := range clients {
		broken |= h.session(ops)
		var known []id
		inOrder(ops, func(o *op) {
			if o.write && h.vals[o.val].writes == 1 {
				writer[o.val] = o
				follows[o.val] = map[id]bool{}
				for _, v := range known {
					follows[o.val][v] = true
				}
			}
		}, func(o *op) {
			if v := h.vals[o.val]; v != nil && v.writes == 1 && !v.start && !slices.Contains(known, o.val) {
				known = append(known[max(0, len(known)-15):], o.val)
			}
		})
	}
	for _, reads := range copies {
		past := map[id]bool{}
		inOrder(reads, func(o *op) {
			for v := range past {
				if v == o.val || !follows[v][o.val] {
					continue
				}
				if a, b := writer[o.val], writer[v]; a != nil && a.r.Client == b.r.Client {
					broken |= monotonicWrites
				} else {
					broken |= writesFollowReads
				}
			}
		}, func(o *op) {
			if follows[o.val] != nil {
				past[o.val] = true
			}
		})
	}
	return broken
}

// session looks at one client's own requests.
func (h *history) session(ops []*op) guarantees {
	var broken guarantees
	wrote, saw := time.Duration(math.MinInt64), time.Duration(math.MinInt64) // when the last of its writes, and of those it read, began
	inOrder(ops, func(o *op) {
		if o.write {
			return
		}
		ended := time.Duration(math.MinInt64) // something written before this run
		if v := h.vals[o.val]; v != nil {
			ended = v.latest
		}
		if ended < wrote {
			broken |= readYourWrites
		}
		if ended < saw {
			broken |= monotonicReads
		}
	}, func(o *op) {
		v := h.vals[o.val]
		switch {
		case o.write:
			wrote = max(wrote, o.sent)
		case v != nil:
			saw = max(saw, v.born)
		}
	})
	return broken
}

// inOrder calls begin for each request when it begins and end when it has ended, in the order of time. At
// one instant those that begin come first.
func inOrder(ops []*op, begin, end func(*op)) {
	ends := slices.Clone(ops)
	slices.SortStableFunc(ops, func(a, b *op) int { return cmp.Compare(a.sent, b.sent) })
	slices.SortStableFunc(ends, func(a, b *op) int { return cmp.Compare(a.done, b.done) })
	i := 0
	for _, o := range ops {
		for ; ends[i].done < o.sent; i++ {
			end(ends[i])
		}
		begin(o)
	}
	for ; i < len(ends) && ends[i].done != math.MaxInt64; i++ {
		end(ends[i])
	}
}
