package controltest

import (
	"context"
	"errors"
	"testing"
	"time"

	"servent/control"
)

const (
	ttl  = 2 * control.MinTTL // of leases that a case lets end
	long = 10 * time.Second   // of leases that must outlast a case's work on a busy machine
)

func grant(t *testing.T, ctx context.Context, s control.Store, ttl time.Duration) control.LeaseID {
	t.Helper()
	id, err := s.Grant(ctx, ttl)
	if err != nil || id == 0 {
		t.Fatalf("Grant(%v) = %d, %v", ttl, id, err)
	}
	return id
}

func under(lease control.LeaseID, key, value string) control.Op {
	return control.Op{Key: key, Value: []byte(value), Lease: lease}
}

func testLeaseEnds(t *testing.T, s control.Store) {
	ctx := within(t)
	shortest := grant(t, ctx, s, control.MinTTL)
	if err := s.Revoke(ctx, shortest); err != nil {
		t.Error(err)
	}
	for _, short := range []time.Duration{0, -time.Second, control.MinTTL - 1} {
		if id, err := s.Grant(ctx, short); err == nil {
			t.Errorf("Grant(%v) = %d, want an error", short, id)
		}
	}
	began := time.Now()
	id := grant(t, ctx, s, ttl)
	rev := commit(t, ctx, s, under(id, "b", "1"), put("stays", "1"), under(id, "a", "1"))
	kvs, _, err := s.Range(ctx, "a")
	if err != nil || len(kvs) != 1 || kvs[0].Lease != id {
		t.Fatalf("Range(a) = %+v, %v, want one key under lease %d", kvs, err, id)
	}
	w := watch(t, ctx, s, "", rev+1)
	b := w.next()
	if got, want := sketch(b), " -a -b"; got != want {
		t.Errorf("the lease's end is%s, want%s in one batch", got, want)
	}
	if took := time.Since(began); took < ttl {
		t.Errorf("the lease ended after %v, want at least %v", took, ttl)
	}
	if got, want := read(t, ctx, s, ""), " stays=1"; got != want {
		t.Errorf("after the lease's end:%s, want%s", got, want)
	}
	if err := s.Renew(ctx, id); !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Renew of an ended lease = %v, want ErrLeaseLost", err)
	}
	if err := s.Revoke(ctx, id); err != nil {
		t.Errorf("Revoke of an ended lease = %v, want nil", err)
	}
}

// testLeaseRenewed: a lease that is renewed outlives one that is not, granted after it.
func testLeaseRenewed(t *testing.T, s control.Store) {
	ctx := within(t)
	kept, left := grant(t, ctx, s, ttl), grant(t, ctx, s, ttl)
	rev := commit(t, ctx, s, under(kept, "kept", "1"), under(left, "left", "1"))
	w := watch(t, ctx, s, "", rev+1)
	keep, stop := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- control.KeepAlive(keep, s, kept, ttl/4) }()
	if got, want := sketch(w.next()), " -left"; got != want {
		t.Errorf("the first to end is%s, want%s", got, want)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("KeepAlive = %v, want nil when ctx ends", err)
	}
	if got, want := sketch(w.next()), " -kept"; got != want {
		t.Errorf("the next to end is%s, want%s", got, want)
	}
	if err := control.KeepAlive(ctx, s, kept, 10*time.Millisecond); !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("KeepAlive of an ended lease = %v, want ErrLeaseLost", err)
	}
}

func testLeaseRevoked(t *testing.T, s control.Store) {
	ctx := within(t)
	id := grant(t, ctx, s, long)
	rev := commit(t, ctx, s, under(id, "b", "1"), under(id, "a", "1"))
	w := watch(t, ctx, s, "", rev+1)
	if err := s.Renew(ctx, id); err != nil {
		t.Errorf("Renew = %v", err)
	}
	if err := s.Revoke(ctx, id); err != nil {
		t.Fatalf("Revoke = %v", err)
	}
	if got := read(t, ctx, s, ""); got != "" {
		t.Errorf("after Revoke:%s, want nothing", got)
	}
	if got, want := sketch(w.next()), " -a -b"; got != want {
		t.Errorf("Revoke gave%s, want%s", got, want)
	}
	if err := s.Revoke(ctx, id); err != nil {
		t.Errorf("Revoke again = %v, want nil", err)
	}
}

func testLeaseLost(t *testing.T, s control.Store) {
	ctx := within(t)
	id := grant(t, ctx, s, long)
	if err := s.Revoke(ctx, id); err != nil {
		t.Fatal(err)
	}
	_, ok, err := s.Commit(ctx, control.Txn{Ops: []control.Op{put("a", "1"), under(id, "b", "1")}})
	if ok || !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Commit under an ended lease = %v, %v, want ErrLeaseLost", ok, err)
	}
	if got := read(t, ctx, s, ""); got != "" {
		t.Errorf("it made%s, want nothing", got)
	}
	_, ok, err = s.Commit(ctx, control.Txn{Conds: []control.Cond{{Key: "x", Modified: 1}}, Ops: []control.Op{under(id, "b", "1")}})
	if ok || err != nil && !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Commit under an ended lease and a false condition = %v, %v", ok, err)
	}
}

// testLeaseOfKey: the last put decides under which lease a key stands.
func testLeaseOfKey(t *testing.T, s control.Store) {
	ctx := within(t)
	one, two := grant(t, ctx, s, long), grant(t, ctx, s, long)
	commit(t, ctx, s, under(one, "moved", "1"), under(one, "freed", "1"), under(one, "deleted", "1"), put("taken", "1"))
	commit(t, ctx, s, under(two, "moved", "2"), put("freed", "2"), del("deleted"), under(one, "taken", "2"))
	commit(t, ctx, s, put("deleted", "3"))
	if err := s.Revoke(ctx, one); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, ctx, s, ""), " deleted=3 freed=2 moved=2"; got != want {
		t.Errorf("after the first lease:%s, want%s", got, want)
	}
	if err := s.Revoke(ctx, two); err != nil {
		t.Fatal(err)
	}
	if got, want := read(t, ctx, s, ""), " deleted=3 freed=2"; got != want {
		t.Errorf("after the second lease:%s, want%s", got, want)
	}
}

// testElection: of several candidates one leads at a time, each with a higher fence than the one before.
func testElection(t *testing.T, s control.Store) {
	ctx := within(t)
	const candidates = 4
	leading := make(chan int, 1) // holds one while somebody leads
	fences := make(chan control.Fence, candidates)
	together(candidates, func(i int) {
		lease, err := s.Grant(ctx, long)
		if err != nil {
			t.Error(err)
			return
		}
		f, err := control.Campaign(ctx, s, "seat", string(rune('a'+i)), lease)
		if err != nil {
			t.Errorf("Campaign of %d = %v", i, err)
			return
		}
		select {
		case leading <- i:
		default:
			t.Errorf("%d leads while another does", i)
		}
		fences <- f
		for range 3 {
			if _, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{f.Cond()}, Ops: []control.Op{put("work", "x")}}); !ok || err != nil {
				t.Errorf("a leader's commit = %v, %v, want true", ok, err)
			}
		}
		if again, err := control.Campaign(ctx, s, "seat", string(rune('a'+i)), lease); err != nil || again != f {
			t.Errorf("Campaign of the leader = %v, %v, want the same fence %v", again, err, f)
		}
		<-leading
		if err := s.Revoke(ctx, lease); err != nil {
			t.Error(err)
		}
		if _, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{f.Cond()}, Ops: []control.Op{put("work", "y")}}); ok || err != nil {
			t.Errorf("a commit of one who left = %v, %v, want false", ok, err)
		}
	})
	close(fences)
	last := control.Fence{Key: "seat"}
	for f := range fences {
		if f.Key != last.Key || f.Rev <= last.Rev {
			t.Errorf("fence %v after %v, want a higher one", f, last)
		}
		last = f
	}
}

// testHandOver: a leader who falls silent is followed by another and can write no more.
func testHandOver(t *testing.T, s control.Store) {
	ctx := within(t)
	one, two := grant(t, ctx, s, ttl), grant(t, ctx, s, long)
	old, err := control.Campaign(ctx, s, "seat", "one", one)
	if err != nil {
		t.Fatal(err)
	}
	impatient, cancel := context.WithTimeout(ctx, ttl/4)
	defer cancel()
	if _, err := control.Campaign(impatient, s, "seat", "two", two); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Campaign against a leader = %v, want ctx's error", err)
	}
	commit(t, ctx, s, under(two, "seat of another", "x")) // no seat: a prefix is no key
	began := time.Now()
	next, err := control.Campaign(ctx, s, "seat", "two", two) // keeps its own lease meanwhile
	if err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > limit/2 {
		t.Errorf("the hand-over took %v", took)
	}
	if next.Rev <= old.Rev {
		t.Errorf("fence %v after %v, want a higher one", next, old)
	}
	for _, tt := range []struct {
		f    control.Fence
		want bool
	}{{old, false}, {next, true}} {
		_, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{tt.f.Cond()}, Ops: []control.Op{put("plan", "x")}})
		if ok != tt.want || err != nil {
			t.Errorf("Commit under %v = %v, %v, want %v", tt.f, ok, err, tt.want)
		}
	}
	if _, err := control.Campaign(ctx, s, "seat", "one", one); !errors.Is(err, control.ErrLeaseLost) {
		t.Errorf("Campaign under an ended lease = %v, want ErrLeaseLost", err)
	}
}

// testCancelled: no call outlives its ctx.
func testCancelled(t *testing.T, s control.Store) {
	live := within(t)
	id := grant(t, live, s, long)
	rev := commit(t, live, s, put("k", "1"))
	ended, cancel := context.WithCancel(live)
	cancel()
	for name, call := range map[string]func() error{
		"Range":  func() error { _, _, err := s.Range(ended, ""); return err },
		"Commit": func() error { _, _, err := s.Commit(ended, control.Txn{Ops: []control.Op{put("k", "2")}}); return err },
		"Grant":  func() error { _, err := s.Grant(ended, ttl); return err },
		"Renew":  func() error { return s.Renew(ended, id) },
		"Revoke": func() error { return s.Revoke(ended, id) },
		"Campaign": func() error {
			_, err := control.Campaign(ended, s, "seat", "x", id)
			return err
		},
	} {
		began := time.Now()
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s with an ended ctx = %v, want context.Canceled", name, err)
		}
		if took := time.Since(began); took > limit/10 {
			t.Errorf("%s with an ended ctx took %v", name, took)
		}
	}
	w := watch(t, live, s, "", rev+1)
	w.stop()
	<-w.done
	if w.err != nil {
		t.Errorf("Watch with an ended ctx = %v, want nil", w.err)
	}
}
