package check

import (
	"math"
	"slices"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	segmentOps = 64     // a history is cut at the first quiet moment after so many
	mostOps    = 10_000 // that are decided at once; porcupine's memory grows with their square
)

// decide asks porcupine whether some order of a run explains its answers, and carries over what the key may
// be at its end. The run is cut at moments at which no request was under way but those that may never take
// place: every order is one of the parts' orders, one after the other.
func (k *kv) decide(s *register, h *history, end time.Time) {
	ops := h.needed()
	for from := 0; from < len(ops); {
		to, quiet := from, time.Duration(math.MinInt64)
		for to < len(ops) && (to-from < segmentOps || ops[to].sent <= quiet) {
			if !ops[to].open() {
				quiet = max(quiet, ops[to].done)
			}
			to++
		}
		part := ops[from:to:to]
		for _, o := range ops[:from] { // those that may still come
			if o.open() {
				o.sent = before
				part = append(part, o)
			}
		}
		s.part(part, k.o.Budget < 0, end)
		from = to
	}
}

// needed leaves out writes without an answer whose value nobody read: had they taken place, they would have
// been overwritten unseen.
func (h *history) needed() []op {
	read := map[id]bool{}
	for i := range h.ops {
		if !h.ops[i].write {
			read[h.ops[i].val] = true
		}
	}
	return slices.DeleteFunc(slices.Clone(h.ops), func(o op) bool { return o.write && o.open() && !read[o.val] })
}

// part decides one part of a run.
func (s *register) part(ops []op, forever bool, end time.Time) {
	last := s.last(ops)
	limit := time.Until(end)
	switch {
	case s.twisted:
	case len(ops) > mostOps || limit <= 0 && !forever:
		s.unsure = true
	default:
		if forever {
			limit = 0
		}
		switch orders(s.values, ops, limit) {
		case porcupine.Illegal:
			s.twisted = true
		case porcupine.Unknown:
			s.unsure = true
		case porcupine.Ok:
			if len(last) > 1 {
				last = slices.DeleteFunc(last, func(v id) bool {
					then := op{val: v, sent: math.MaxInt64 - 1, done: math.MaxInt64 - 1}
					return orders(s.values, append(slices.Clip(ops), then), limit) == porcupine.Illegal
				})
			}
		}
	}
	s.values = last
}

// last are the values that the key may have behind the requests: those of writes after which no other
// began, and those of the start when none has surely ended.
func (s *register) last(ops []op) []id {
	begun := time.Duration(math.MinInt64) // of those that surely took place
	for _, o := range ops {
		if o.write && !o.open() {
			begun = max(begun, o.sent)
		}
	}
	var all []id
	if begun == math.MinInt64 {
		all = slices.Clone(s.values)
	}
	for _, o := range ops {
		if o.write && o.done >= begun && !slices.Contains(all, o.val) {
			all = append(all, o.val)
		}
	}
	return all
}

// step is a request as porcupine's model sees it.
type step struct {
	write bool
	val   id
}

// somewhere is the state of a key that has one of the values it began with.
const somewhere id = math.MaxUint64

// orders asks for an order of the requests in which every read gives back the last write before it. A write
// that may never take place has until the end of time: behind everything it harms no one.
func orders(start []id, ops []op, limit time.Duration) porcupine.CheckResult {
	model := porcupine.Model{
		Init: func() any { return somewhere },
		Step: func(state, in, _ any) (bool, any) {
			at, do := state.(id), in.(step)
			switch {
			case do.write:
				return true, do.val
			case at == somewhere:
				return slices.Contains(start, do.val), do.val
			}
			return at == do.val, at
		},
		Hash: func(state any) uint64 { return uint64(state.(id)) },
	}
	history := make([]porcupine.Operation, len(ops))
	for i, o := range ops {
		history[i] = porcupine.Operation{Input: step{o.write, o.val}, Call: int64(o.sent), Return: int64(o.done)}
	}
	return porcupine.CheckOperationsTimeout(model, history, limit)
}
