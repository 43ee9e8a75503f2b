package memory_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"servent/control"
	"servent/control/controltest"
	"servent/control/memory"
)

func TestSuite(t *testing.T) {
	controltest.Run(t, func(*testing.T) (control.Store, controltest.Features) {
		s := memory.New()
		return s, controltest.Features{Compact: s.Compact}
	})
}

// TestSuiteInBubble runs the same cases on virtual time.
func TestSuiteInBubble(t *testing.T) {
	for _, c := range controltest.Cases {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.Test(t, memory.New()) })
		})
	}
}

func TestLeaseEndsToTheNanosecond(t *testing.T) {
	for _, tt := range []struct {
		name string
		wait time.Duration
		held bool
	}{
		{"fresh", 0, true},
		{"just before the end", time.Hour - 1, true},
		{"at the end", time.Hour, false},
		{"a year later", 365 * 24 * time.Hour, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, s := t.Context(), memory.New()
				id, err := s.Grant(ctx, time.Hour)
				if err != nil {
					t.Fatal(err)
				}
				_, _, err = s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "k", Lease: id}}})
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.wait)
				kvs, _, _ := s.Range(ctx, "k")
				if got := len(kvs) == 1; got != tt.held {
					t.Errorf("after %v: the key stands = %v, want %v", tt.wait, got, tt.held)
				}
				if err := s.Renew(ctx, id); errors.Is(err, control.ErrLeaseLost) == tt.held {
					t.Errorf("after %v: Renew = %v", tt.wait, err)
				}
			})
		})
	}
}

// TestManyElections: candidates hand a seat back and forth; no fence is ever repeated.
func TestManyElections(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, s := t.Context(), memory.New()
		last := control.Fence{}
		for range 200 {
			lease, err := s.Grant(ctx, 30*time.Second)
			if err != nil {
				t.Fatal(err)
			}
			// The seat is taken: Campaign waits for the lease before it to end, and keeps its own lease.
			f, err := control.Campaign(ctx, s, "seat", "x", lease)
			if err != nil {
				t.Fatal(err)
			}
			if f.Rev <= last.Rev {
				t.Fatalf("fence %v after %v, want a higher one", f, last)
			}
			last = f
		}
	})
}

func TestHistoryIsBounded(t *testing.T) {
	ctx, s := t.Context(), memory.New()
	s.History = 3
	var revs []control.Rev
	for range 10 {
		rev, _, err := s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "k"}}})
		if err != nil {
			t.Fatal(err)
		}
		revs = append(revs, rev)
	}
	enough := errors.New("enough")
	for i, rev := range revs {
		err := s.Watch(ctx, "", rev, func(b control.Batch) error {
			if b.Rev != rev {
				t.Errorf("the first batch from %d is %d", rev, b.Rev)
			}
			return enough
		})
		want := control.ErrCompacted
		if i >= 7 {
			want = enough
		}
		if !errors.Is(err, want) {
			t.Errorf("Watch from revision %d of 10 = %v, want %v", i+1, err, want)
		}
	}
}

// TestSlowWatcher: one who falls behind the history is told so, not given a gap.
func TestSlowWatcher(t *testing.T) {
	ctx, s := t.Context(), memory.New()
	s.History = 5
	change := func() {
		if _, _, err := s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "k"}}}); err != nil {
			t.Error(err)
		}
	}
	change()
	calls := 0
	err := s.Watch(ctx, "", 2, func(control.Batch) error {
		calls++
		for range 20 {
			change()
		}
		return nil
	})
	if !errors.Is(err, control.ErrCompacted) || calls != 1 {
		t.Errorf("Watch = %v after %d calls, want ErrCompacted after 1", err, calls)
	}
}

func TestValuesAreCopies(t *testing.T) {
	ctx, s := context.Background(), memory.New()
	value := []byte("mine")
	if _, _, err := s.Commit(ctx, control.Txn{Ops: []control.Op{{Key: "k", Value: value}}}); err != nil {
		t.Fatal(err)
	}
	copy(value, "your")
	for range 2 {
		kvs, _, err := s.Range(ctx, "")
		if err != nil {
			t.Fatal(err)
		}
		if got := string(kvs[0].Value); got != "mine" {
			t.Errorf("value = %q, want %q", got, "mine")
		}
		copy(kvs[0].Value, "your")
	}
}
