package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

// terms gives one store the lease of everything, under the fence that the test says.
type terms struct {
	f     *fleet
	fence map[string]uint64 // by store
	spent []uint64
	moves bool // owners change
}

type scripted struct {
	*terms
	name string
}

func (s scripted) Held(_ context.Context, p int) (Term, error) {
	if s.fence[s.name] == 0 {
		return Term{}, errors.New("another one does")
	}
	return Term{s.fence[s.name], time.Now().Add(time.Hour), node{s.f, s.name}.Owners(p)}, nil
}

func (s scripted) Spent(_ int, fence uint64) { s.spent = append(s.spent, fence) }

func (s scripted) Settled() bool { return !s.moves }

// TestNothingIsCompleteWhileOwnersChange: who compares itself while an earlier holder may still write is not complete by it.
func TestNothingIsCompleteWhileOwnersChange(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{}))
	all := &terms{f: f, fence: map[string]uint64{"store/1": 1}, moves: true}
	for _, name := range f.names {
		f.start(name, scripted{all, name})
	}
	for _, moves := range []bool{true, false} {
		all.moves = moves
		for _, name := range f.names {
			if err := f.repair(name); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range f.names {
			if got := f.get(name).settled(); got == moves {
				t.Errorf("while owners change is %v: %s is complete: %v", moves, name, got)
			}
		}
	}
}

// TestWhatWasReadStays: two holders each left a write at one owner of three. The third holder reads one of the two; then the
// other, of a later term, must not come up. Its condition held of what was there before.
func TestWhatWasReadStays(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{}))
	f.curt = true
	all := &terms{f: f, fence: map[string]uint64{"store/1": 1}}
	for _, name := range f.names {
		f.start(name, scripted{all, name})
	}
	for _, name := range f.names {
		f.repair(name)
	}
	if status, _ := f.client("store/1", "PUT", "/kv/a", "first"); status != 201 {
		t.Fatalf("PUT = %d", status)
	}
	f.settle()
	leave := func(name string, term uint64, value string) { // a write that reaches its own owner alone
		r := f.get(name)
		if _, newer, err := r.take("a", record{version: r.clock.under(term), value: []byte(value)}, term); err != nil || newer.Clock != 0 {
			t.Fatalf("%s takes %s: %v %v", name, value, newer, err)
		}
	}
	leave("store/1", 1, "of term 1")
	f.split(true, []string{"store/1"}, "store/2", "store/3")
	all.fence = map[string]uint64{"store/2": 2}
	if status, got := f.client("store/2", "GET", "/kv/a", ""); status != 200 || got != "first" {
		t.Fatalf("GET in term 2 = %d %s", status, got)
	}
	f.settle()
	leave("store/2", 2, "of term 2")
	f.split(false, []string{"store/1"}, "store/2", "store/3")
	f.split(true, []string{"store/2"}, "store/1", "store/3")
	all.fence = map[string]uint64{"store/3": 3}
	status, tag, was := f.tagged("store/3", "GET", "/kv/a", "")
	if status != 200 {
		t.Fatalf("GET in term 3 = %d %s", status, was)
	}
	f.settle()
	f.split(false, []string{"store/2"}, "store/1", "store/3")
	f.split(true, []string{"store/1"}, "store/2", "store/3")
	if status, again, got := f.tagged("store/3", "GET", "/kv/a", ""); status != 200 || got != was || again != tag {
		t.Errorf("GET = %d %s %s, before it was %s %s", status, got, again, was, tag)
	}
	if status, said := f.client("store/3", "PUT", "/kv/a", "last", "If-Match", tag); status != 204 {
		t.Errorf("PUT on what was read = %d %s", status, said)
	}
	if len(all.spent) > 0 {
		t.Errorf("fences %v are spent, and nothing failed", all.spent)
	}
}

// TestFenceIsSpent: after a write whose outcome is not known the holder goes on under a new fence, so that the write
// cannot come up when something else was read after it.
func TestFenceIsSpent(t *testing.T) {
	f := newFleet(t, 3, 3, manual(Options{}))
	all := &terms{f: f, fence: map[string]uint64{"store/1": 7}}
	for _, name := range f.names {
		f.start(name, scripted{all, name})
	}
	for _, name := range f.names {
		f.repair(name)
	}
	if status, _ := f.client("store/1", "PUT", "/kv/a", "one"); status != 201 {
		t.Fatalf("PUT = %d", status)
	}
	f.settle() // all three have it: nothing to repair
	f.mu.Lock()
	f.deaf = "/write"
	f.mu.Unlock()
	if status, said := f.client("store/1", "PUT", "/kv/a", "two"); status != 503 {
		t.Fatalf("PUT without a quorum = %d %s", status, said)
	}
	if len(all.spent) != 1 || all.spent[0] != 7 {
		t.Errorf("spent %v, want 7", all.spent)
	}
}
