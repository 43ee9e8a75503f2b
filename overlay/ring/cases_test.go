package ring

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"servent/peer"
	"servent/peer/keyspace"
)

// ringOf is a world whose ring is whole.
func ringOf(t *testing.T, n int, o Options) *world {
	w := newWorld(t, 9, places(9, n), o)
	w.start()
	w.until("one ring", 5*second, w.whole)
	return w
}

// A node that takes no part has a member ask for it.
func TestClientAsksMembers(t *testing.T) {
	w := ringOf(t, 9, Options{Questions: 64})
	client := w.members()[4]
	w.command(client, peer.Event{Kind: peer.Leave})
	w.until("a ring of eight", 5*second, w.ring)
	w.lookups(200, []peer.Slot{client})
	if v := w.r.See(w, client); v.Member || v.Owns || v.Why == "" {
		t.Errorf("the client sees itself as %+v", v)
	}
	w.down[w.members()[0]], w.down[w.members()[4]] = true, true // of those it asks, some do not answer
	w.until("a ring of six", 6*second, w.closed)
	w.lookups(200, []peer.Slot{client})
}

// A member that leaves hands its keys over: the next lookup finds its successor, with no silence to notice.
func TestLeave(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 64})
	all := w.members()
	w.command(all[3], peer.Event{Kind: peer.Leave})
	w.run(100 * millisecond)
	if v := w.r.See(w, all[4]); v.From != w.ids[all[2]] {
		t.Errorf("the successor owns keys after %x, want after %x", v.From[:4], w.ids[all[2]][:4])
	}
	w.lookups(100, w.members())
	w.until("a ring of seven", 2*second, w.ring)
	w.command(all[3], peer.Event{Kind: peer.Join})
	w.until("eight again", 3*second, w.ring)
	for i, s := range w.members() { // all but one leave
		if i > 0 {
			w.command(s, peer.Event{Kind: peer.Leave})
			w.run(10 * millisecond)
		}
	}
	w.until("a ring of one", 6*second, w.ring)
}

// Where data stays with its member, nobody answers in its place: its keys are vacant until it is back.
func TestFixed(t *testing.T) {
	w := ringOf(t, 6, Options{Questions: 64, Fixed: true})
	all := w.members()
	w.down[all[2]] = true
	w.run(6 * second)
	check := func(back bool) {
		t.Helper()
		for i := range 200 {
			key := keyspace.Of(fmt.Sprint(i, back))
			ev := w.answered(w.ask(all[3+i%3], key, 0))
			owner, outcome := w.owner(key), peer.Found
			if !back && keyspace.Between(key, w.ids[all[1]], w.ids[all[2]]) {
				owner, outcome = peer.Peer(all[3]), peer.Vacant
			}
			if ev.Flags != outcome || ev.Peers[0] != owner {
				t.Fatalf("%x: %+v, want outcome %d at %d", key[:4], ev, outcome, owner)
			}
		}
	}
	check(false)
	w.wake(all[2])
	w.until("all are back", 10*second, w.whole)
	check(true)
	for _, s := range all[1:] {
		w.down[s] = true
	}
	w.run(10 * second)
	if v := w.r.See(w, all[0]); !v.Owns || v.From != w.ids[all[5]] {
		t.Errorf("the last one left owns %v after %x, want its own keys after %x", v.Owns, v.From[:4], w.ids[all[5]][:4])
	}
	key := w.ids[all[3]]
	if ev := w.answered(w.ask(all[0], key, 0)); ev.Flags != peer.Vacant {
		t.Errorf("another's key at the last one left: %+v, want vacant", ev)
	}
}

// Each change of a member's range has a higher epoch, in a later life too.
func TestEpoch(t *testing.T) {
	w := ringOf(t, 4, Options{})
	s := w.members()[1]
	was := w.r.See(w, s)
	w.down[w.members()[0]] = true
	w.until("a ring of three", 5*second, w.closed)
	if v := w.r.See(w, s); v.Epoch <= was.Epoch || v.From == was.From {
		t.Errorf("epoch %d after %d, keys after %x and %x", v.Epoch, was.Epoch, v.From, was.From)
	}
	w.command(s, peer.Event{Kind: peer.Leave})
	w.command(s, peer.Event{Kind: peer.Join, Num: 1 << 40})
	w.until("back", 5*second, w.closed)
	if v := w.r.See(w, s); v.Epoch <= 1<<40 {
		t.Errorf("epoch %d in its second life, want above 2^40", v.Epoch)
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 4})
	far := w.ids[w.members()[0]]
	s := w.members()[1]
	for range 4 {
		w.ask(s, far, 0)
	}
	if ev := w.answered(w.ask(s, far, 0)); ev.Flags != peer.Crowded {
		t.Errorf("the fifth question: %+v, want crowded", ev)
	}
	w.run(second)
	if ev := w.answered(w.ask(s, far, 0)); ev.Flags != peer.Found {
		t.Errorf("a later one: %+v, want found", ev)
	}
}

// A lookup ends after so many hops, whatever its asker says.
func TestHopsAreBounded(t *testing.T) {
	w := ringOf(t, 8, Options{Hops: 5})
	all := w.members()
	if ev := w.answered(w.ask(all[1], w.ids[all[6]], 0)); ev.Flags != peer.Found || ev.Hops != 5 {
		t.Errorf("five ahead: %+v, want found", ev)
	}
	w.handle(all[1], &peer.Event{At: w.now, From: peer.Peer(all[0]), Kind: look, Num: 1 << 60, Hops: 5, Tag: 77, Key: w.ids[all[3]], Peers: []peer.Peer{peer.Peer(all[0])}})
	for _, f := range w.env.Effects() {
		t.Errorf("a lookup at its limit goes on: %+v", f)
	}
}

// Two nodes given one place: the second stays outside, and says that something is wrong.
func TestOnePlaceTwice(t *testing.T) {
	ids := places(9, 5)
	ids[4] = ids[2]
	w := newWorld(t, 9, ids, Options{Questions: 64})
	for s := range ids {
		if s > 0 {
			w.command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{0}})
		}
		w.command(peer.Slot(s), peer.Event{Kind: peer.Join})
		w.run(2 * second)
	}
	w.down[4] = true
	if err := w.closed(); err != nil {
		t.Error(err)
	}
	w.lookups(100, w.members())
	if v := w.r.See(w, 4); v.Whole || v.Owns {
		t.Errorf("the second one sees %+v", v)
	}
}

// Nothing that comes off the wire panics, makes a member lose its order, or answers a question it has not seen.
func TestAnyMessage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, 9, places(9, 6), Options{Questions: 4})
		w.start()
		w.run(3 * second)
		tag := w.ask(w.members()[0], w.ids[w.members()[4]], 0)
		for range rapid.IntRange(1, 40).Draw(rt, "messages") {
			ev := peer.Event{
				At: w.now, From: peer.Peer(rapid.IntRange(0, 5).Draw(rt, "from")), Kind: peer.Kind(rapid.IntRange(int(peer.Travels), 255).Draw(rt, "kind")),
				Flags: rapid.Byte().Draw(rt, "flags"), Hops: rapid.Uint16().Draw(rt, "hops"), Tag: peer.Tag(rapid.Uint32().Draw(rt, "tag")),
				Num: rapid.Uint64().Draw(rt, "num"), Key: w.ids[rapid.IntRange(0, 5).Draw(rt, "key")],
			}
			if rapid.Bool().Draw(rt, "ours") {
				ev.Kind = ask + ev.Kind%5
			}
			for range rapid.IntRange(0, 6).Draw(rt, "n") {
				ev.Peers = append(ev.Peers, peer.Peer(rapid.IntRange(0, 5).Draw(rt, "peer")))
			}
			s := peer.Slot(rapid.IntRange(0, 5).Draw(rt, "to"))
			if ev.Kind == answer && w.r.open(s)[0].tries > 0 {
				ev.Tag ^= w.r.open(s)[0].tag&^7 + 8
			}
			w.handle(s, &ev)
			if peer.Slot(ev.From) == s {
				continue
			}
			w.run(int64(rapid.IntRange(0, 100).Draw(rt, "ms")) * millisecond)
		}
		if ev := w.answered(tag); ev.Flags == peer.Found && len(ev.Peers) != 1 {
			rt.Errorf("answer %+v", ev)
		}
		w.until("whole again after it", 30*second, w.ring)
	})
}

// A peer that the driver forgets is nowhere any more, and the ring mends.
func TestDrop(t *testing.T) {
	w := ringOf(t, 6, Options{Questions: 64})
	all := w.members()
	gone := peer.Peer(all[2])
	w.r.Drop(gone)
	for s := range w.r.nodes {
		v := w.r.See(w, peer.Slot(s))
		for _, p := range append(append(v.After, v.Before), w.r.known(peer.Slot(s))...) {
			if p == gone {
				t.Fatalf("node %d still names it: %+v", s, v)
			}
		}
	}
	w.until("mended", 5*second, w.ring)
}

func TestUnknownCommandPanics(t *testing.T) {
	w := ringOf(t, 1, Options{})
	for _, kind := range []peer.Kind{0, peer.Timers + 3, peer.Travels - 1} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("kind %d is taken", kind)
				}
			}()
			w.command(0, peer.Event{Kind: kind})
		}()
	}
}

// What a ring does all the time takes nothing off the heap.
func TestNoGarbage(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 64})
	all := w.members()
	me, below := all[2], peer.Peer(all[1])
	events := []peer.Event{
		{Kind: ask, From: below, Flags: notify, Tag: 5},
		{Kind: look, From: below, Hops: 3, Num: 100, Tag: 6, Key: w.ids[all[6]], Peers: []peer.Peer{below}},
		{Kind: look, From: below, Hops: 3, Num: 100, Tag: 6, Key: w.ids[me], Peers: []peer.Peer{below}},
		{Kind: peer.Locate, From: peer.Nobody, Tag: 7, Key: w.ids[me]},
		{Kind: tick, From: peer.Nobody},
	}
	var due peer.Event
	for i := range events {
		ev := &events[i]
		ev.At = w.now
		n := testing.AllocsPerRun(100, func() {
			ev.Tag = w.r.nodes[me].tick
			w.env.Begin(me)
			w.r.Handle(w.env, me, ev)
			if ev.Kind == tick { // and the answer of the one who was asked
				n := &w.r.nodes[me]
				due = peer.Event{At: w.now, From: n.ask.to, Kind: tell, Flags: accepted, Tag: n.ask.tag, Peers: w.r.nexts(peer.Slot(n.ask.to))}
				w.env.Begin(me)
				w.r.Handle(w.env, me, &due)
			}
		})
		if n != 0 {
			t.Errorf("kind %d: %.0f allocations", ev.Kind, n)
		}
	}
}
