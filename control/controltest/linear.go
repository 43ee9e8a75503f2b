package controltest

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"servent/control"
)

// History is what clients saw of a few keys, each a register with reads and compare-and-set.
type History struct {
	Acked   int // writes that were acknowledged
	Refused int // writes whose condition did not hold
	Unknown int // writes whose answer was lost: made, not made, or made later
	Failed  int // reads without an answer; they say nothing

	ops  []porcupine.Operation
	revs map[string]control.Rev // at which an acknowledged value was written
	odd  []error                // what no order of operations explains
}

// register is one operation; values are unique, "" stands for no key.
type register struct {
	key, old, new string
	write         bool
}

// outcome of a register.
type outcome struct {
	value       string // read
	ok, unknown bool   // written
}

// Record lets one client a store read and compare-and-set keys until ctx ends, each waiting at most
// patience for an answer, then reads every key once more through the last store. Each client makes at
// most perClient writes.
func Record(ctx context.Context, stores []control.Store, patience time.Duration, perClient int) *History {
	const keys = 3
	r := &recorder{began: time.Now(), patience: patience, history: History{revs: map[string]control.Rev{}}}
	together(len(stores), func(i int) {
		rnd := rand.New(rand.NewPCG(uint64(i), 1))
		for n := 0; n < perClient && ctx.Err() == nil; n++ {
			key := fmt.Sprintf("register/%d", rnd.IntN(keys))
			if kv, ok := r.read(ctx, i, stores[i], key); ok {
				r.write(ctx, i, stores[i], key, fmt.Sprintf("%d.%d", i, n), kv)
			}
		}
	})
	for k := range keys {
		r.read(ctx, 0, stores[len(stores)-1], fmt.Sprintf("register/%d", k))
	}
	return &r.history
}

// recorder makes a history.
type recorder struct {
	began    time.Time
	patience time.Duration

	mu      sync.Mutex
	history History
}

func (r *recorder) now() int64 { return int64(time.Since(r.began)) }

func (r *recorder) read(ctx context.Context, client int, s control.Store, key string) (control.KV, bool) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
	defer cancel()
	call := r.now()
	kvs, _, err := s.Range(ctx, key)
	done := r.now()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil {
		r.history.Failed++
		return control.KV{}, false
	}
	kv := control.KV{Key: key}
	if len(kvs) > 0 {
		kv = kvs[0]
	}
	r.history.ops = append(r.history.ops, porcupine.Operation{ClientId: client, Call: call, Return: done,
		Input: register{key: key}, Output: outcome{value: string(kv.Value)}})
	if rev, ok := r.history.revs[string(kv.Value)]; ok && rev != kv.Modified {
		r.history.odd = append(r.history.odd, fmt.Errorf("%s = %s is of revision %d, was written at %d", key, kv.Value, kv.Modified, rev))
	}
	return kv, true
}

func (r *recorder) write(ctx context.Context, client int, s control.Store, key, value string, old control.KV) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), r.patience)
	defer cancel()
	call := r.now()
	rev, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{{Key: key, Modified: old.Modified}}, Ops: []control.Op{put(key, value)}})
	op := porcupine.Operation{ClientId: client, Call: call, Return: r.now(),
		Input: register{key: key, old: string(old.Value), new: value, write: true}, Output: outcome{ok: ok, unknown: err != nil}}
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil:
		r.history.Unknown++
		op.Return = math.MaxInt64 // it may yet be made
	case ok:
		r.history.Acked++
		r.history.revs[value] = rev
	default:
		r.history.Refused++
	}
	r.history.ops = append(r.history.ops, op)
}

// Check says whether some order of all operations, each between its call and its answer, explains what
// was seen: whether the store is linearizable and lost nothing that it acknowledged.
func (h *History) Check(timeout time.Duration) error {
	switch porcupine.CheckOperationsTimeout(registers, h.ops, timeout) {
	case porcupine.Ok:
		return errors.Join(h.odd...)
	case porcupine.Illegal:
		return errors.Join(append(h.odd, errors.New("no order explains what was seen"))...)
	}
	return fmt.Errorf("%d operations could not be checked within %v", len(h.ops), timeout)
}

// registers is the model: the state is the value of one key.
var registers = porcupine.Model{
	Init: func() any { return "" },
	Partition: func(all []porcupine.Operation) [][]porcupine.Operation {
		byKey := map[string][]porcupine.Operation{}
		var keys []string
		for _, op := range all {
			key := op.Input.(register).key
			if byKey[key] == nil {
				keys = append(keys, key)
			}
			byKey[key] = append(byKey[key], op)
		}
		slices.Sort(keys)
		var parts [][]porcupine.Operation
		for _, key := range keys {
			parts = append(parts, byKey[key])
		}
		return parts
	},
	Step: func(state, input, output any) (bool, any) {
		value, in, out := state.(string), input.(register), output.(outcome)
		switch {
		case !in.write:
			return out.value == value, value
		case out.unknown && value != in.old: // refused, or never made
			return true, value
		case out.unknown, out.ok && value == in.old: // values are unique: it is the revision that was read
			return true, in.new
		case out.ok:
			return false, value
		}
		return value != in.old, value
	},
	DescribeOperation: func(input, output any) string { return fmt.Sprintf("%+v %+v", input, output) },
}
