//go:build unix

package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/control/controltest"
	"servent/control/etcd"
)

// seat is a server of a test's fleet. Its wires are what nodes are in a real one.
type seat struct {
	name  string
	child *etcd.Child
	store *etcd.Store
	stop  func()
}

// sit starts a server; with others it is a learner that all of them know.
func sit(t *testing.T, dir, name string, others []string) *seat {
	t.Helper()
	s := &seat{name: name}
	s.child = etcd.NewChild(etcd.ChildOptions{Argv: []string{program(t), "child"}, Dir: filepath.Join(dir, name), Name: name, Others: others, Log: t.Output()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.child.Run(ctx) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(s.stop)
	soon(t, name+" has its folder", func() bool { return s.child.Peer(name) != "" })
	return s
}

// wire joins the sockets of two servers, until the test or the returned function ends it.
func wire(t *testing.T, from, to *seat) (cut func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	path := from.child.Peer(to.name)
	_ = os.Remove(path)
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	context.AfterFunc(ctx, func() { ln.Close() })
	go func() {
		for {
			a, err := ln.Accept()
			if err != nil {
				return
			}
			context.AfterFunc(ctx, func() { a.Close() })
			b, err := net.Dial("unix", to.child.Peer(to.name))
			if err != nil {
				a.Close()
				continue
			}
			context.AfterFunc(ctx, func() { b.Close() })
			go func() { io.Copy(a, b); a.Close() }()
			go func() { io.Copy(b, a); b.Close() }()
		}
	}()
	return cancel
}

func (s *seat) open(t *testing.T) *etcd.Store {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	store, err := s.child.Open(ctx, "/servent/voters/")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return store
}

// TestVoters: one becomes three, five and one again while it is written to; of three any one may die, of five any two; a learner has no vote.
func TestVoters(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	a := sit(t, dir, "a", nil)
	a.store = a.open(t)
	put(t, a.store, "first", "1")
	soon(t, "a has its address", func() bool {
		all, err := a.store.Voters(t.Context())
		return err == nil && len(all) == 1 && all[0].Name == "a" && all[0].Leads
	})
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	recorded := make(chan *controltest.History, 1)
	writing, enough := context.WithCancel(ctx)
	go func() {
		recorded <- controltest.Record(writing, []control.Store{a.store, a.store}, 8*time.Second, 20000)
	}()

	seats := []*seat{a}
	join := func(name string) {
		var others []string
		again(t, "enlist "+name, func() (err error) {
			others, err = a.store.Enlist(ctx, name)
			return err
		})
		s := sit(t, dir, name, others)
		for _, other := range seats {
			wire(t, other, s)
			wire(t, s, other)
		}
		seats = append(seats, s)
		s.store = s.open(t)
		is, err := s.store.Standing(ctx)
		if err != nil || !is.Learner || !is.Led {
			t.Errorf("%s stands as %+v, %v, want a learner that is led", name, is, err)
		}
		if _, err := s.store.Voters(ctx); !errors.Is(err, etcd.ErrNoVoter) {
			t.Errorf("a learner was asked for the voters: %v, want ErrNoVoter", err)
		}
	}
	vote := func(all ...*seat) {
		for _, s := range all {
			again(t, "promote "+s.name, func() error { return a.store.Promote(ctx, id(t, a.store, s.name)) })
			soon(t, s.name+" knows that it has a vote", func() bool {
				is, err := s.store.Standing(ctx)
				return err == nil && !is.Learner
			})
		}
	}
	dismiss := func(s *seat) {
		again(t, "dismiss "+s.name, func() error { return a.store.Dismiss(ctx, id(t, a.store, s.name)) })
		s.stop()
	}
	join("b")
	join("c")
	vote(seats[1:]...)
	join("d")
	join("e")
	vote(seats[3:]...)
	b, c, d, e := seats[1], seats[2], seats[3], seats[4]
	// Any two of five may be gone: the others agree.
	agreed(t, e.store, "by-e")
	b.stop()
	d.stop()
	agreed(t, e.store, "without-b-and-d")
	if kvs, _, err := e.store.Range(ctx, "first"); err != nil || len(kvs) != 1 {
		t.Errorf("what was there before e is %v, %v at e", kvs, err)
	}
	// They are put out: any one of three may be gone.
	dismiss(b)
	dismiss(d)
	agreed(t, c.store, "by-c")
	e.stop()
	agreed(t, c.store, "without-e")
	// And the others: a is alone again.
	dismiss(e)
	dismiss(c)
	agreed(t, a.store, "alone")
	enough()
	h := <-recorded
	t.Logf("writes: %d acknowledged, %d refused, %d unknown; %d reads failed", h.Acked, h.Refused, h.Unknown, h.Failed)
	if h.Acked < 50 {
		t.Errorf("%d writes are too few to show anything", h.Acked)
	}
	if err := h.Check(60 * time.Second); err != nil {
		t.Error(err)
	}
}

// agreed writes a key, again when nobody knows whether it was written: they may just have chosen who leads.
func agreed(t *testing.T, s control.Store, key string) {
	t.Helper()
	soon(t, key+" is written", func() bool {
		_, ok, err := s.Commit(t.Context(), control.Txn{Ops: []control.Op{{Key: key, Value: []byte("1")}}})
		if err != nil && !errors.Is(err, control.ErrUnavailable) {
			t.Fatal(err)
		}
		return ok
	})
}

// again tries until a change of the voters is taken.
func again(t *testing.T, what string, change func() error) {
	t.Helper()
	var last error
	soon(t, what+" is taken", func() bool {
		last = change()
		if last != nil && !errors.Is(last, etcd.ErrNotReady) && !errors.Is(last, control.ErrUnavailable) {
			t.Fatalf("%s: %v", what, last)
		}
		return last == nil
	})
}

func id(t *testing.T, s *etcd.Store, name string) uint64 {
	t.Helper()
	var all []etcd.Voter
	soon(t, "the voters are known", func() bool {
		var err error
		all, err = s.Voters(t.Context())
		return err == nil
	})
	i := slices.IndexFunc(all, func(v etcd.Voter) bool { return v.Name == name })
	if i < 0 {
		t.Fatal(fmt.Sprint(name, " is none of ", all))
	}
	return all[i].ID
}
