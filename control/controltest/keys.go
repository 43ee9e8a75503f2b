package controltest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"servent/control"
)

func testRange(t *testing.T, s control.Store) {
	ctx := within(t)
	kvs, before, err := s.Range(ctx, "")
	if err != nil || len(kvs) != 0 {
		t.Fatalf("Range of an empty store = %v, %v, want nothing", kvs, err)
	}
	first := commit(t, ctx, s, put("b/1", "x"), put("a", ""), put("b/0", "y"), put("c", "z"))
	if first <= before {
		t.Errorf("the first commit is at %d, want more than %d", first, before)
	}
	second := commit(t, ctx, s, put("b/1", "w"))
	for _, tt := range []struct{ prefix, want string }{
		{"", " a= b/0=y b/1=w c=z"},
		{"b", " b/0=y b/1=w"},
		{"b/1", " b/1=w"},
		{"b/1/", ""},
		{"z", ""},
	} {
		if got := read(t, ctx, s, tt.prefix); got != tt.want {
			t.Errorf("Range(%q) =%s, want%s", tt.prefix, got, tt.want)
		}
	}
	kvs, rev, err := s.Range(ctx, "b/")
	if err != nil || len(kvs) != 2 {
		t.Fatalf("Range(b/) = %v, %v, want two keys", kvs, err)
	}
	if rev < second {
		t.Errorf("Range at revision %d, want at least %d", rev, second)
	}
	if kvs[0].Created != first || kvs[0].Modified != first || kvs[1].Created != first || kvs[1].Modified != second {
		t.Errorf("revisions = %+v, want b/0 %d %d, b/1 %d %d", kvs, first, first, first, second)
	}
	commit(t, ctx, s, del("b/1"))
	again := commit(t, ctx, s, put("b/1", "new"))
	kvs, _, err = s.Range(ctx, "b/1")
	if err != nil || len(kvs) != 1 || kvs[0].Created != again || kvs[0].Modified != again {
		t.Errorf("made anew = %+v, %v, want created and modified at %d", kvs, err, again)
	}
}

func testConditions(t *testing.T, s control.Store) {
	ctx := within(t)
	first := commit(t, ctx, s, put("k", "1"))
	second := commit(t, ctx, s, put("k", "2"))
	other := commit(t, ctx, s, put("other", "x"))
	for _, tt := range []struct {
		name  string
		conds []control.Cond
		ok    bool
	}{
		{"none", nil, true},
		{"modified then", []control.Cond{{Key: "k", Modified: second}}, true},
		{"modified before", []control.Cond{{Key: "k", Modified: first}}, false},
		{"modified later", []control.Cond{{Key: "k", Modified: other}}, false},
		{"does not exist", []control.Cond{{Key: "absent"}}, true},
		{"exists", []control.Cond{{Key: "k"}}, false},
		{"absent one at a revision", []control.Cond{{Key: "absent", Modified: second}}, false},
		{"created then", []control.Cond{{Key: "k", Created: first}}, true},
		{"created, whatever modified", []control.Cond{{Key: "k", Created: first, Modified: 1}}, true},
		{"created at another", []control.Cond{{Key: "k", Created: second}}, false},
		{"absent one created", []control.Cond{{Key: "absent", Created: first}}, false},
		{"all hold", []control.Cond{{Key: "k", Modified: second}, {Key: "other", Modified: other}, {Key: "absent"}}, true},
		{"one does not", []control.Cond{{Key: "k", Modified: second}, {Key: "other", Modified: first}}, false},
		{"a prefix is no key", []control.Cond{{Key: "othe"}}, true},
	} {
		before := present(t, ctx, s)
		rev, ok, err := s.Commit(ctx, control.Txn{Conds: tt.conds, Ops: []control.Op{put("try/"+tt.name, "x")}})
		if err != nil || ok != tt.ok {
			t.Errorf("%s: Commit = %v, %v, want %v", tt.name, ok, err, tt.ok)
		}
		if got := read(t, ctx, s, "try/"+tt.name) != ""; got != tt.ok {
			t.Errorf("%s: made = %v, want %v", tt.name, got, tt.ok)
		}
		if rev < before || ok && rev == before {
			t.Errorf("%s: revision %d after %d", tt.name, rev, before)
		}
	}
}

func testOneRevision(t *testing.T, s control.Store) {
	ctx := within(t)
	commit(t, ctx, s, put("old", "x"))
	w := watch(t, ctx, s, "", present(t, ctx, s)+1)
	rev := commit(t, ctx, s, put("b", "1"), del("old"), put("a", "2"), del("never"))
	b := w.next()
	if got, want := sketch(b), " +b=1 -old +a=2"; b.Rev != rev || got != want {
		t.Errorf("batch %d:%s, want %d:%s", b.Rev, got, rev, want)
	}
	for _, c := range b.Changes {
		if c.KV.Modified != rev || c.Deleted && (c.KV.Created != 0 || len(c.KV.Value) > 0) || !c.Deleted && c.KV.Created != rev {
			t.Errorf("change %+v, want it at %d", c, rev)
		}
	}
	_, ok, err := s.Commit(ctx, control.Txn{
		Conds: []control.Cond{{Key: "old", Modified: rev}},
		Ops:   []control.Op{put("b", "never"), del("a"), put("c", "never")},
	})
	if ok || err != nil {
		t.Errorf("Commit = %v, %v, want false, nil", ok, err)
	}
	if got, want := read(t, ctx, s, ""), " a=2 b=1"; got != want {
		t.Errorf("after a condition that does not hold:%s, want%s", got, want)
	}
}

func testNoChange(t *testing.T, s control.Store) {
	ctx := within(t)
	commit(t, ctx, s, put("k", "1"))
	w := watch(t, ctx, s, "", present(t, ctx, s)+1)
	before := present(t, ctx, s)
	for _, txn := range []control.Txn{{}, {Ops: []control.Op{del("never")}}, {Conds: []control.Cond{{Key: "never"}}}} {
		rev, ok, err := s.Commit(ctx, txn)
		if err != nil || !ok || rev < before {
			t.Errorf("Commit(%+v) = %d, %v, %v, want at least %d, true, nil", txn, rev, ok, err, before)
		}
	}
	if rev, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{{Key: "k"}}}); ok || err != nil || rev < before {
		t.Errorf("Commit of a condition that does not hold = %d, %v, %v, want at least %d, false, nil", rev, ok, err, before)
	}
	rev := commit(t, ctx, s, put("k", "1")) // the same value is a change
	if b := w.next(); b.Rev != rev {
		t.Errorf("the first batch is of %d, want %d", b.Rev, rev)
	}
}

func testBounds(t *testing.T, s control.Store) {
	ctx := within(t)
	many := func(n, size int) (ops []control.Op) {
		for i := range n {
			ops = append(ops, put("many/"+strconv.Itoa(i), strings.Repeat("v", size)))
		}
		return ops
	}
	conds := func(n int) (conds []control.Cond) {
		for i := range n {
			conds = append(conds, control.Cond{Key: "absent/" + strconv.Itoa(i)})
		}
		return conds
	}
	some := errors.New("any error")
	for _, tt := range []struct {
		name string
		txn  control.Txn
		want error
	}{
		{"largest value", control.Txn{Ops: many(1, control.MaxValue)}, nil},
		{"value", control.Txn{Ops: many(1, control.MaxValue+1)}, control.ErrTooLarge},
		{"most operations", control.Txn{Ops: many(control.MaxOps, 1), Conds: conds(control.MaxOps)}, nil},
		{"operations", control.Txn{Ops: many(control.MaxOps+1, 1)}, control.ErrTooLarge},
		{"conditions", control.Txn{Conds: conds(control.MaxOps + 1)}, control.ErrTooLarge},
		{"transaction", control.Txn{Ops: many(control.MaxTxn/control.MaxValue, control.MaxValue)}, control.ErrTooLarge},
		{"largest transaction", control.Txn{Ops: many(control.MaxTxn/control.MaxValue-1, control.MaxValue)}, nil},
		{"longest key", control.Txn{Ops: []control.Op{put(strings.Repeat("k", control.MaxKey), "")}}, nil},
		{"key", control.Txn{Ops: []control.Op{put(strings.Repeat("k", control.MaxKey+1), "")}}, control.ErrTooLarge},
		{"no key", control.Txn{Ops: []control.Op{put("", "x")}}, some},
		{"a key that is no text", control.Txn{Ops: []control.Op{put("\xff", "x")}}, some},
		{"a key twice", control.Txn{Ops: []control.Op{put("twice", "1"), del("twice")}}, some},
		{"a condition without a key", control.Txn{Conds: []control.Cond{{}}}, some},
	} {
		_, ok, err := s.Commit(ctx, tt.txn)
		switch {
		case tt.want == nil && (err != nil || !ok):
			t.Errorf("%s: Commit = %v, %v, want true, nil", tt.name, ok, err)
		case tt.want == some && err == nil, tt.want != nil && tt.want != some && !errors.Is(err, tt.want):
			t.Errorf("%s: Commit = %v, want %v", tt.name, err, tt.want)
		}
	}
	value := make([]byte, 256) // every byte, valid text or not
	for i := range value {
		value[i] = byte(i)
	}
	commit(t, ctx, s, control.Op{Key: "bytes – ключ", Value: value})
	kvs, _, err := s.Range(ctx, "bytes")
	if err != nil || len(kvs) != 1 || kvs[0].Key != "bytes – ключ" || !bytes.Equal(kvs[0].Value, value) {
		t.Errorf("Range(bytes) = %+v, %v, want every byte back", kvs, err)
	}
}

// testIncrements: of many clients that count one key up by compare-and-set, no step is lost.
func testIncrements(t *testing.T, s control.Store) {
	ctx := within(t)
	const clients, steps = 5, 20
	together(clients, func(int) {
		for range steps {
			if err := increment(ctx, s, "n"); err != nil {
				t.Error(err)
				return
			}
		}
	})
	if got, want := read(t, ctx, s, "n"), fmt.Sprintf(" n=%d", clients*steps); got != want {
		t.Errorf("after %d clients with %d steps:%s, want%s", clients, steps, got, want)
	}
}

func increment(ctx context.Context, s control.Store, key string) error {
	for {
		kvs, _, err := s.Range(ctx, key)
		if err != nil {
			return err
		}
		n, cond := 0, control.Cond{Key: key}
		if len(kvs) > 0 {
			cond.Modified = kvs[0].Modified
			if n, err = strconv.Atoi(string(kvs[0].Value)); err != nil {
				return err
			}
		}
		_, ok, err := s.Commit(ctx, control.Txn{Conds: []control.Cond{cond}, Ops: []control.Op{put(key, strconv.Itoa(n+1))}})
		if err != nil || ok {
			return err
		}
	}
}
