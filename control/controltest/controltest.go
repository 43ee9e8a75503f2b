// Package controltest keeps all control stores honest: one suite of cases that every [control.Store] must
// pass, and a check that a store under fault stays linearizable. It knows no implementation.
// Start at [Run] and [Record].
package controltest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"servent/control"
)

// Features of a store beyond the interface.
type Features struct {
	// Compact forgets what was before rev; nil skips the case.
	Compact func(ctx context.Context, rev control.Rev) error
}

// Case is one thing that a store must do.
type Case struct {
	Name string
	Test func(t *testing.T, s control.Store)
}

// Run runs all cases, each on a store of its own: open returns an empty one, which may share its
// revisions with others. The cases run side by side, for most of them wait.
func Run(t *testing.T, open func(t *testing.T) (control.Store, Features)) {
	t.Run("compaction", func(t *testing.T) { // alone: it may be felt by all
		s, f := open(t)
		if f.Compact == nil {
			t.Skip("the store cannot be compacted from here")
		}
		Compaction(t, s, f)
	})
	for _, c := range Cases {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			s, _ := open(t)
			c.Test(t, s)
		})
	}
}

// Cases are all but [Compaction].
var Cases = []Case{
	{"range", testRange},
	{"conditions", testConditions},
	{"one revision", testOneRevision},
	{"no change", testNoChange},
	{"bounds", testBounds},
	{"increments", testIncrements},
	{"watch from the past", testWatchPast},
	{"watch from now", testWatchNow},
	{"watch is whole", testWatchWhole},
	{"watch ends", testWatchEnds},
	{"large revision", testLargeRevision},
	{"lease ends", testLeaseEnds},
	{"lease renewed", testLeaseRenewed},
	{"lease revoked", testLeaseRevoked},
	{"lease lost", testLeaseLost},
	{"lease of a key", testLeaseOfKey},
	{"election", testElection},
	{"election hand-over", testHandOver},
	{"cancelled", testCancelled},
}

// limit is how long a case may wait for what must come.
const limit = 30 * time.Second

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	t.Cleanup(cancel)
	return ctx
}

func put(key, value string) control.Op { return control.Op{Key: key, Value: []byte(value)} }

func del(key string) control.Op { return control.Op{Key: key, Delete: true} }

// commit makes a transaction that must succeed.
func commit(t *testing.T, ctx context.Context, s control.Store, ops ...control.Op) control.Rev {
	t.Helper()
	rev, ok, err := s.Commit(ctx, control.Txn{Ops: ops})
	if err != nil || !ok {
		t.Fatalf("Commit(%v) = %d, %v, %v, want true, nil", ops, rev, ok, err)
	}
	return rev
}

// read returns the keys with a prefix as key=value words.
func read(t *testing.T, ctx context.Context, s control.Store, prefix string) string {
	t.Helper()
	kvs, _, err := s.Range(ctx, prefix)
	if err != nil {
		t.Fatalf("Range(%q) = %v", prefix, err)
	}
	return words(kvs)
}

func words(kvs []control.KV) string {
	text := ""
	for _, kv := range kvs {
		text += fmt.Sprintf(" %s=%s", kv.Key, kv.Value)
	}
	return text
}

// present returns the present revision.
func present(t *testing.T, ctx context.Context, s control.Store) control.Rev {
	t.Helper()
	_, rev, err := s.Range(ctx, "")
	if err != nil {
		t.Fatal(err)
	}
	return rev
}

// watcher collects what a watch gives.
type watcher struct {
	t    *testing.T
	stop context.CancelFunc
	got  chan control.Batch
	done chan struct{}
	err  error // when done
}

// watch starts a watch; the test ends it. Its queue holds what a case can make.
func watch(t *testing.T, ctx context.Context, s control.Store, prefix string, from control.Rev) *watcher {
	ctx, stop := context.WithCancel(ctx)
	w := &watcher{t: t, stop: stop, got: make(chan control.Batch, 4096), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.err = s.Watch(ctx, prefix, from, func(b control.Batch) error {
			select {
			case w.got <- b:
				return nil
			default:
				return errors.New("the test's queue is full")
			}
		})
	}()
	t.Cleanup(func() { stop(); <-w.done })
	return w
}

// next returns the next batch that has changes.
func (w *watcher) next() control.Batch {
	w.t.Helper()
	for {
		if b := w.any(); len(b.Changes) > 0 {
			return b
		}
	}
}

func (w *watcher) any() control.Batch {
	w.t.Helper()
	select {
	case b := <-w.got:
		return b
	default:
	}
	select {
	case b := <-w.got:
		return b
	case <-w.done:
		w.t.Fatalf("the watch ended with %v", w.err)
	case <-time.After(limit):
		w.t.Fatalf("the watch gave nothing for %v", limit)
	}
	return control.Batch{}
}

// sketch is a batch in words: +key=value and -key.
func sketch(b control.Batch) string {
	text := ""
	for _, c := range b.Changes {
		if c.Deleted {
			text += " -" + c.KV.Key
		} else {
			text += fmt.Sprintf(" +%s=%s", c.KV.Key, c.KV.Value)
		}
	}
	return text
}

// together calls f n times at once and waits.
func together(n int, f func(i int)) {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { f(i) })
	}
	all.Wait()
}
