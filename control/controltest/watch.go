package controltest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"servent/control"
)

func testWatchPast(t *testing.T, s control.Store) {
	ctx := within(t)
	var revs []control.Rev
	for i := range 150 { // more than any store gives at once
		revs = append(revs, commit(t, ctx, s, put("a/"+strconv.Itoa(i%3), strconv.Itoa(i))))
		commit(t, ctx, s, put("b", strconv.Itoa(i)))
	}
	from := revs[10] + 1 // of another key: the next is revs[11]
	w := watch(t, ctx, s, "a/", from)
	for i := 11; i < 150; i++ {
		b := w.next()
		if got, want := sketch(b), fmt.Sprintf(" +a/%d=%d", i%3, i); b.Rev != revs[i] || got != want {
			t.Fatalf("batch %d:%s, want %d:%s", b.Rev, got, revs[i], want)
		}
		if b.Changes[0].KV.Created != revs[i%3] {
			t.Fatalf("created at %d, want %d", b.Changes[0].KV.Created, revs[i%3])
		}
	}
	last := commit(t, ctx, s, del("a/1")) // and goes on with what comes
	if b := w.next(); b.Rev != last || sketch(b) != " -a/1" {
		t.Errorf("batch %d:%s, want %d: -a/1", b.Rev, sketch(b), last)
	}
}

func testWatchNow(t *testing.T, s control.Store) {
	ctx := within(t)
	commit(t, ctx, s, put("k", "old"))
	before := present(t, ctx, s)
	w := watch(t, ctx, s, "k", 0)
	if b := w.any(); b.Rev < before || len(b.Changes) > 0 {
		t.Fatalf("the first batch is %d:%s, want an empty one of at least %d", b.Rev, sketch(b), before)
	}
	from := present(t, ctx, s) + 3
	future := watch(t, ctx, s, "k", from)
	one := commit(t, ctx, s, put("k", "new"))
	commit(t, ctx, s, put("not k", "new"))
	if b := w.next(); b.Rev != one || sketch(b) != " +k=new" {
		t.Errorf("batch %d:%s, want %d: +k=new", b.Rev, sketch(b), one)
	}
	for i := range 5 { // other cases may share the revisions
		one = commit(t, ctx, s, put("k", strconv.Itoa(i)))
	}
	for b := future.next(); b.Rev != one; b = future.next() {
		if b.Rev < from {
			t.Errorf("a watch from %d gave %d", from, b.Rev)
		}
	}
}

// testWatchWhole: many watchers see every revision once, whole and in order, while several write.
func testWatchWhole(t *testing.T, s control.Store) {
	ctx := within(t)
	const writers, writes, watchers = 4, 25, 12
	from := present(t, ctx, s) + 1
	var all []*watcher
	for range watchers {
		all = append(all, watch(t, ctx, s, "pair/", from))
	}
	together(writers, func(i int) {
		for j := range writes {
			text := fmt.Sprintf("%d.%d", i, j)
			if _, _, err := s.Commit(ctx, control.Txn{Ops: []control.Op{put("pair/a", text), put("not/pair", text), put("pair/b", text)}}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	var want []string
	for i, w := range all {
		last, next, got := control.Rev(0), [writers]int{}, []string{}
		for range writers * writes {
			b := w.next()
			if b.Rev <= last {
				t.Fatalf("watcher %d: revision %d after %d", i, b.Rev, last)
			}
			last = b.Rev
			if len(b.Changes) != 2 || string(b.Changes[0].KV.Value) != string(b.Changes[1].KV.Value) {
				t.Fatalf("watcher %d: batch%s, want both keys of one write", i, sketch(b))
			}
			writer, write, _ := strings.Cut(string(b.Changes[0].KV.Value), ".")
			n, _ := strconv.Atoi(writer)
			if write != strconv.Itoa(next[n]) {
				t.Fatalf("watcher %d: write %s of writer %d, want %d", i, write, n, next[n])
			}
			next[n]++
			got = append(got, fmt.Sprint(b.Rev, sketch(b)))
		}
		if want == nil {
			want = got
		} else if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("watcher %d and watcher 0 saw different things", i)
		}
	}
}

func testWatchEnds(t *testing.T, s control.Store) {
	ctx := within(t)
	enough := errors.New("enough")
	from := commit(t, ctx, s, put("k", "1"))
	commit(t, ctx, s, put("k", "2"))
	calls := 0
	err := s.Watch(ctx, "k", from, func(control.Batch) error { calls++; return enough })
	if err != enough || calls != 1 {
		t.Errorf("Watch = %v after %d calls, want each's own error after 1", err, calls)
	}
	err = s.Watch(ctx, "k", 0, func(control.Batch) error { return enough })
	if err != enough {
		t.Errorf("Watch from now = %v, want each's own error", err)
	}
	once, cancel := context.WithCancel(ctx)
	defer cancel()
	calls = 0
	err = s.Watch(once, "k", from, func(control.Batch) error { calls++; cancel(); return nil })
	if err != nil || calls != 1 {
		t.Errorf("Watch = %v after %d calls, want nil and none after ctx has ended", err, calls)
	}
	if err := s.Watch(once, "k", 0, func(control.Batch) error { return nil }); err != nil {
		t.Errorf("Watch with an ended ctx = %v, want nil", err)
	}
}

// testLargeRevision: a revision near the bound arrives whole, also for one who comes late.
func testLargeRevision(t *testing.T, s control.Store) {
	ctx := within(t)
	from := present(t, ctx, s) + 1
	early := watch(t, ctx, s, "", from)
	var ops []control.Op
	for i := range control.MaxTxn/control.MaxValue - 1 {
		ops = append(ops, put(fmt.Sprintf("large/%02d", i), strings.Repeat(string(rune('a'+i)), control.MaxValue)))
	}
	var revs []control.Rev
	for range 3 {
		revs = append(revs, commit(t, ctx, s, ops...))
	}
	late := watch(t, ctx, s, "", from)
	for _, w := range []*watcher{early, late} {
		for _, rev := range revs {
			b := w.next()
			if b.Rev != rev || len(b.Changes) != len(ops) {
				t.Fatalf("batch %d with %d changes, want %d with %d", b.Rev, len(b.Changes), rev, len(ops))
			}
			for i, c := range b.Changes {
				if c.KV.Key != ops[i].Key || string(c.KV.Value) != string(ops[i].Value) {
					t.Fatalf("change %d is of %s with %d bytes, want %s", i, c.KV.Key, len(c.KV.Value), ops[i].Key)
				}
			}
		}
	}
}

// Compaction: a watch from a revision that is no longer kept says so; from the kept ones it works.
func Compaction(t *testing.T, s control.Store, f Features) {
	ctx := within(t)
	commit(t, ctx, s, put("k", "0"))
	from := commit(t, ctx, s, put("k", "1"))
	kept := commit(t, ctx, s, del("k"))
	last := commit(t, ctx, s, put("k", "3"))
	if err := f.Compact(ctx, kept); err != nil {
		t.Fatal(err)
	}
	err := s.Watch(ctx, "k", from, func(b control.Batch) error { return fmt.Errorf("was given %d", b.Rev) })
	if !errors.Is(err, control.ErrCompacted) {
		t.Errorf("Watch from %d = %v, want ErrCompacted", from, err)
	}
	w := watch(t, ctx, s, "k", kept)
	if b := w.next(); b.Rev != kept || sketch(b) != " -k" {
		t.Errorf("batch %d:%s, want %d: -k", b.Rev, sketch(b), kept)
	}
	if b := w.next(); b.Rev != last || sketch(b) != " +k=3" {
		t.Errorf("batch %d:%s, want %d: +k=3", b.Rev, sketch(b), last)
	}
	if got, want := read(t, ctx, s, ""), " k=3"; got != want {
		t.Errorf("Range =%s, want%s", got, want)
	}
}
