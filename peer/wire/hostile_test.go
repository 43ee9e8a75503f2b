package wire

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
	"servent/system"
)

// message is what a node that speaks the protocol may send, true or not.
func message(t *testing.T, from Member, ev peer.Event, peers ...Member) []byte {
	b := newBook(from.Node, func(peer.Peer) {}, func() int64 { return 0 })
	b.settle(from.Position)
	for _, m := range peers {
		p, err := b.Intern(m.Position, peer.Address(m.Node))
		if err != nil {
			t.Fatal(err)
		}
		ev.Peers = append(ev.Peers, p)
	}
	out, err := peer.Append(nil, b, self, &ev)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A member of the fleet that lies gains nothing: what it sends is refused, unknown to any question, or about
// itself alone.
func TestHostileDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := start(t, 5, 4, Options{Cache: -1}, ring.Options{})
		defer f.stop()
		f.until("one ring", 10*time.Second, f.whole())
		liar := Member{"node-5", key(1)} // it is no member by the plan
		victim := f.wires[0]
		before := victim.Counters()
		send := func(b []byte) {
			if err := f.send(liar.Node, "node-1", b); err != nil {
				t.Fatal(err)
			}
		}
		refused := [][]byte{
			nil, {1}, []byte("GET / HTTP/1.1\r\n\r\n"), make([]byte, 1500),
			message(t, liar, peer.Event{Kind: 130, Key: key(2), Num: 100}, Member{"node-2", key(9)}),            // node-2 is elsewhere
			message(t, liar, peer.Event{Kind: 130, Key: key(2), Num: 100}, Member{"node-1", key(9)}),            // and so is the victim
			append(message(t, liar, peer.Event{Kind: 128})[:1], message(t, liar, peer.Event{Kind: 128})[2:]...), // a command
			message(t, Member{"node-2", f.members[1].Position}, peer.Event{Kind: 128})[:20],                     // cut
		}
		for _, b := range refused {
			send(b)
		}
		time.Sleep(50 * time.Millisecond)
		if got := victim.Counters().Refused - before.Refused; got != int64(len(refused)) {
			t.Errorf("%d datagrams were refused, want %d", got, len(refused))
		}
		// Answers to questions that were never asked, for every kind of message and outcome, while one is open.
		done := make(chan error, 1)
		far := f.members[2].Position
		go func() {
			owner, _, _, err := victim.Locate(t.Context(), far)
			if err == nil && owner != "node-3" {
				err = fmt.Errorf("owner %s", owner)
			}
			done <- err
		}()
		for kind := peer.Travels; kind < peer.Travels+8; kind++ {
			for flags := range uint8(4) {
				send(message(t, liar, peer.Event{Kind: kind, Flags: flags, Tag: peer.Tag(12345), Hops: 65535, Num: math.MaxUint64, Key: far}, liar))
			}
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		// A flood of names pushes out no member.
		for i := range 20 * strangers {
			m := Member{system.NodeID(fmt.Sprint("ghost-", i)), keyspace.Of(fmt.Sprint(i))}
			if err := f.send(m.Node, "node-1", message(t, m, peer.Event{Kind: 129, Tag: 1}, Member{"g" + m.Node, key(i)})); err != nil {
				t.Fatal(err)
			}
			if i%100 == 0 {
				time.Sleep(5 * time.Millisecond)
			}
		}
		time.Sleep(10 * time.Second)
		f.until("one ring after all", 10*time.Second, f.whole())
		f.check(0, 50)
		f.stops[0]()
		if err := <-f.ends[0]; err != nil {
			t.Error(err)
		}
		f.ends[0] <- nil
		if b := victim.loop.book; len(b.numbers) > strangers+5 || len(b.nodes) > strangers+5 {
			t.Errorf("%d names are kept in %d entries, want at most %d", len(b.numbers), len(b.nodes), strangers+5)
		}
	})
}

// Bytes that pretend to be a datagram, in any state, end in nothing worse than being refused.
func FuzzPacket(f *testing.F) {
	m := Member{"node-2", key(2)}
	for kind := peer.Travels; kind < peer.Travels+6; kind++ {
		b := newBook(m.Node, func(peer.Peer) {}, func() int64 { return 0 })
		b.settle(m.Position)
		out, err := peer.Append(nil, b, self, &peer.Event{Kind: kind, Flags: 1, Tag: 7, Num: 9, Hops: 1, Key: key(3), Peers: []peer.Peer{0, 0}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(out, out)
	}
	f.Fuzz(func(t *testing.T, one, two []byte) {
		w := New(Options{Self: "node-1", Machine: ring.New(1, ring.Options{}), Datagrams: newMesh().end("node-1")})
		w.Members([]Member{{"node-1", key(1)}, m, {"node-3", key(3)}})
		w.plan(t.Context())
		w.packet(t.Context(), packet{"node-2", one})
		w.packet(t.Context(), packet{"node-3", two})
		w.due(t.Context())
		w.publish()
		if len(w.loop.book.numbers) > strangers+3 {
			t.Errorf("%d names", len(w.loop.book.numbers))
		}
	})
}

func TestQueuesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		pass := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		w := New(Options{Self: "node-1", Machine: ring.New(1, ring.Options{}), Datagrams: newMesh().end("node-1"), Pass: pass, Open: 3})
		for range passing + 5 {
			w.send(ctx, packet{"node-2", nil}, true)
		}
		for range outbound + 7 {
			w.send(ctx, packet{"node-2", nil}, false)
		}
		if got := w.Counters().Dropped; got != 12 {
			t.Errorf("%d datagrams were dropped, want 12", got)
		}
		cancel()
		w.passes.Wait()
		for i := range 3 { // nobody takes them: Run has not begun
			short, stop := context.WithTimeout(t.Context(), time.Second)
			if _, _, _, err := w.Locate(short, key(i)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("Locate = %v, want that its time is over", err)
			}
			stop()
		}
		if _, _, _, err := w.Locate(t.Context(), key(4)); !errors.Is(err, errCrowded) {
			t.Errorf("the fourth question: %v, want %v", err, errCrowded)
		}
	})
}

func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := newMesh()
		e := m.end("node-1")
		w := New(Options{Self: "node-1", Machine: ring.New(1, ring.Options{}), Datagrams: e})
		w.Members([]Member{{"node-1", key(1)}, {"node-2", key(2)}})
		done, asked := make(chan error, 1), make(chan error, 1)
		go func() { done <- w.Run(t.Context()) }()
		go func() { _, _, _, err := w.Locate(t.Context(), key(3)); asked <- err }()
		time.Sleep(10 * time.Millisecond)
		broken := errors.New("the socket is gone")
		e.fail <- broken
		if err := <-done; !errors.Is(err, broken) {
			t.Errorf("Run = %v, want %v", err, broken)
		}
		if err := <-asked; !errors.Is(err, errEnded) {
			t.Errorf("an open Locate = %v, want %v", err, errEnded)
		}
		if err := w.Run(t.Context()); err == nil {
			t.Error("Run runs twice")
		}
		if v := w.View(); v.Member || v.Owns {
			t.Errorf("after its end it sees %+v", v)
		}
	})
}

func TestBook(t *testing.T) {
	var dropped []peer.Peer
	clock := int64(0)
	b := newBook("me", func(p peer.Peer) { dropped = append(dropped, p) }, func() int64 { clock++; return clock })
	first := b.pin([]Member{{"a", key(1)}, {"me", key(0)}, {"b", key(2)}, {"a", key(1)}})
	if len(first) != 2 || b.strange != 0 {
		t.Fatalf("pinned %v, %d strangers", first, b.strange)
	}
	for i := range strangers + 10 {
		if _, err := b.Intern(key(i), peer.Address(fmt.Sprint("s", i))); err != nil {
			t.Fatal(err)
		}
	}
	if len(dropped) != 10 || b.strange != strangers {
		t.Errorf("%d were dropped, %d strangers are kept", len(dropped), b.strange)
	}
	if _, err := b.Intern(key(9), "a"); err == nil {
		t.Error("a planned member was moved by a claim")
	}
	dropped = nil
	p, err := b.Intern(key(1), "a")
	if err != nil || p != first[0] {
		t.Errorf("a is %d, %v, want %d", p, err, first[0])
	}
	q, _ := b.Intern(key(7), "stranger")
	r, err := b.Intern(key(8), "stranger")
	if q != r || err != nil || len(dropped) != 2 || dropped[1] != q { // one made room
		t.Errorf("a stranger that moved: %d and %d, %v, dropped %v", q, r, err, dropped)
	}
	dropped = nil
	b.pin([]Member{{"b", key(3)}})
	if b.strange != strangers || len(dropped) != 2 { // b moved, and one made room for a
		t.Errorf("after a plan without a: %d strangers, dropped %v", b.strange, dropped)
	}
	if _, err := b.Intern(key(1), peer.Address(make([]byte, peer.MaxAddress+1))); err == nil {
		t.Error("a name above the bound is taken")
	}
}
