package controltest_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/control/controltest"
	"servent/control/memory"
)

// TestCheckCanFail: what is broken is found, what is only unlucky is not.
func TestCheckCanFail(t *testing.T) {
	for _, tt := range []struct {
		name  string
		store control.Store
		good  bool
	}{
		{"sound", memory.New(), true},
		{"answers lost", &lossy{Store: memory.New()}, true},
		{"stale reads", &stale{Store: memory.New()}, false},
		{"acknowledges what it forgets", &forgetful{Store: memory.New()}, false},
		{"ignores conditions", careless{memory.New(), make(chan struct{})}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stores := []control.Store{tt.store, tt.store, tt.store, tt.store}
			h := controltest.Record(t.Context(), stores, time.Second, 100)
			if h.Acked == 0 {
				t.Fatal("nothing was written")
			}
			err := h.Check(20 * time.Second)
			if got := err == nil; got != tt.good {
				t.Errorf("Check = %v, want sound %v", err, tt.good)
			}
		})
	}
}

// lossy makes every seventh change and says that it does not know.
type lossy struct {
	control.Store
	mu sync.Mutex
	n  int
}

func (s *lossy) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if n%14 == 7 {
		return 0, false, control.ErrUnavailable
	}
	rev, ok, err := s.Store.Commit(ctx, txn)
	if n%14 == 0 {
		return 0, false, control.ErrUnavailable
	}
	return rev, ok, err
}

// stale answers some reads from before.
type stale struct {
	control.Store
	mu  sync.Mutex
	n   int
	old map[string][]control.KV
}

func (s *stale) Range(ctx context.Context, key string) ([]control.KV, control.Rev, error) {
	kvs, rev, err := s.Store.Range(ctx, key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.old == nil {
		s.old = map[string][]control.KV{}
	}
	if s.n++; s.n%20 == 0 {
		return s.old[key], rev, err
	}
	if s.n%10 == 1 {
		s.old[key] = kvs
	}
	return kvs, rev, err
}

type forgetful struct {
	control.Store
	mu sync.Mutex
	n  int
}

func (s *forgetful) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	s.mu.Lock()
	s.n++
	n := s.n
	s.mu.Unlock()
	if n%20 == 0 {
		return 1 << 40, true, nil
	}
	return s.Store.Commit(ctx, txn)
}

// careless lets two who have read write at once.
type careless struct {
	control.Store
	pair chan struct{}
}

func (s careless) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	select {
	case s.pair <- struct{}{}:
	case <-s.pair:
	case <-time.After(10 * time.Millisecond): // the last one
	}
	txn.Conds = nil
	return s.Store.Commit(ctx, txn)
}

func TestFailuresAreCounted(t *testing.T) {
	h := controltest.Record(t.Context(), []control.Store{broken{memory.New()}}, time.Second, 5)
	if h.Acked+h.Refused+h.Unknown != 0 || h.Failed != 8 {
		t.Errorf("%+v, want 8 failed reads and nothing else", h)
	}
}

type broken struct{ control.Store }

func (broken) Range(context.Context, string) ([]control.KV, control.Rev, error) {
	return nil, 0, fmt.Errorf("read: %w", errors.Join(control.ErrUnavailable))
}
