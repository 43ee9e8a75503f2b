package store

import (
	"fmt"
	"testing"
	"time"
)

// TestMissedWrites: a store that missed many writes is brought back by comparison, which looks at little more than
// what was missed.
func TestMissedWrites(t *testing.T) {
	stay, missed := 40_000, 10_000
	if longTests() {
		stay, missed = 400_000, 100_000
	}
	if testing.Short() {
		stay, missed = 8_000, 2_000
	}
	f := newFleet(t, 3, 3, manual(Options{Timeout: time.Minute}))
	f.partitions = 4096
	f.startAll()
	one, three := f.get("store/1"), f.get("store/3")
	fill := func(from, to int, text string, stores ...*running) {
		t.Helper()
		for n := from; n < to; {
			var batch []entry
			for ; n < to && len(batch) < 5000; n++ {
				batch = append(batch, entry{fmt.Sprintf("key/%d", n), record{version: one.clock.next(), value: []byte(text)}})
			}
			for _, s := range stores {
				if err := s.takeAll(batch); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	fill(0, stay, "old", one, f.get("store/2"), three)
	if err := f.repair("store/3"); err != nil || three.counts.compared.Load() != 0 {
		t.Fatalf("stores that are alike exchanged %d keys, %v", three.counts.compared.Load(), err)
	}
	f.kill("store/3")
	fill(stay-missed/2, stay+missed/2, "new", one, f.get("store/2")) // half of them over old ones
	f.mu.Lock()
	f.calls = 0
	f.mu.Unlock()
	three = f.start("store/3", nil)
	if err := three.repairWith(t.Context(), "store/1"); err != nil {
		t.Fatal(err)
	}
	if got := three.counts.pulled.Load(); got != int64(missed) {
		t.Errorf("%d records were got, %d were missed", got, missed)
	}
	// Each key that was missed is looked at, and what hangs at the same leaf: keys / leaves of others on average.
	all := stay + missed/2
	most := int64(float64(missed) * (1 + 1.1*float64(all)/float64(fan*f.partitions)))
	if got := three.counts.compared.Load(); got > most || got < int64(missed) || got > int64(all)/2 {
		t.Errorf("%d versions were looked at, want at most %d for the %d missed of %d", got, most, missed, all)
	}
	for n := range stay + missed/2 {
		want := "old"
		if n >= stay-missed/2 {
			want = "new"
		}
		if r, err := three.disk.get(fmt.Sprintf("key/%d", n)); err != nil || string(r.value) != want {
			t.Fatalf("key/%d = %q, %v, want %s", n, r.value, err, want)
		}
	}
	before := three.counts.compared.Load()
	if err := f.repair("store/3"); err != nil || three.counts.compared.Load() != before {
		t.Errorf("after repair the stores still differ: %d keys exchanged, %v", three.counts.compared.Load()-before, err)
	}
	t.Logf("%d keys, %d missed, %d versions looked at, %d calls", stay+missed/2, missed, before, f.calls)
}

// TestRepairGoesBothWays: each side has what the other lacks.
func TestRepairGoesBothWays(t *testing.T) {
	f := newFleet(t, 2, 2, manual(Options{Write: One, Read: One, Timeout: 50 * time.Millisecond, Hints: 1}))
	f.startAll()
	f.split(true, f.names[:1], f.names[1:]...)
	for n := range 20 {
		f.client(f.names[n%2], "PUT", fmt.Sprintf("/kv/k%d", n), "x")
	}
	f.client("store/1", "PUT", "/kv/both", "first")
	f.client("store/2", "PUT", "/kv/both", "second")
	f.settle()
	f.split(false, f.names[:1], f.names[1:]...)
	if err := f.get("store/1").repairWith(t.Context(), "store/2"); err != nil {
		t.Fatal(err)
	}
	for _, name := range f.names {
		if got := len(keys(t, f.get(name), "")); got != 21 {
			t.Errorf("%s lists %d keys, want 21", name, got)
		}
		if _, got := f.client(name, "GET", "/kv/both", ""); got != "second" {
			t.Errorf("%s has %q, want the later write", name, got)
		}
	}
	// What each store does by itself when it starts may still be under way, and take a part of the work.
	one, two := &f.get("store/1").counts, &f.get("store/2").counts
	if to1, to2 := one.pulled.Load()+two.pushed.Load(), one.pushed.Load()+two.pulled.Load(); to1 == 0 || to2 == 0 {
		t.Errorf("compared: %d records came to store/1 and %d to store/2, want some to both", to1, to2)
	}
}

// TestLargeRepair: records that do not fit into one message.
func TestLargeRepair(t *testing.T) {
	f := newFleet(t, 2, 2, manual(Options{Write: One, Hints: 1}))
	f.partitions = 1
	f.startAll()
	value := make([]byte, MaxValue)
	f.kill("store/2")
	for n := range 9 {
		f.client("store/1", "PUT", fmt.Sprintf("/kv/k%d", n), string(value))
	}
	f.settle()
	f.start("store/2", nil)
	if err := f.get("store/2").repairWith(t.Context(), "store/1"); err != nil {
		t.Fatal(err)
	}
	if got := count(f.get("store/2").Store, bucketData); got != 9 {
		t.Errorf("%d of 9 values of 1 MiB arrived", got)
	}
}

// TestTreeMirrorsIndex: the digests in memory are those that a new start would make of the disk.
func TestTreeMirrorsIndex(t *testing.T) {
	f := newFleet(t, 1, 1, manual(Options{}))
	f.startAll()
	for n := range 300 {
		f.client("store/1", "PUT", fmt.Sprintf("/kv/k%d", n%100), "x")
		if n%7 == 0 {
			f.client("store/1", "DELETE", fmt.Sprintf("/kv/k%d", n%50), "")
		}
	}
	all := make([]int, f.partitions)
	for p := range all {
		all[p] = p
	}
	was := f.get("store/1").tree.of(all)
	f.kill("store/1")
	empty := 0
	now := f.start("store/1", nil).tree.of(all)
	for p := range all {
		if was[p] != now[p] {
			t.Errorf("partition %d was %v and is %v", p, was[p], now[p])
		}
		if was[p] == (digest{}) {
			empty++
		}
	}
	if empty > f.partitions/2 {
		t.Errorf("%d of %d partitions are empty", empty, f.partitions)
	}
}
