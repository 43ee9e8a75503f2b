package ring

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

// ringOf is a world whose ring is whole.
func ringOf(t *testing.T, n int, o Options) *world {
	w := newWorld(t, 9, peertest.Places(9, n), o)
	w.Start()
	w.Until("one ring", 5*second, w.Whole)
	return w
}

// A node that takes no part has a member ask for it.
func TestClientAsksMembers(t *testing.T) {
	w := ringOf(t, 9, Options{Questions: 64})
	client := w.Members()[4]
	w.Command(client, peer.Event{Kind: peer.Leave})
	w.Until("a ring of eight", 5*second, w.Ring)
	w.Lookups(200, []peer.Slot{client})
	if v := w.r.See(w, client); v.Member || v.Owns || v.Why == "" {
		t.Errorf("the client sees itself as %+v", v)
	}
	w.Down[w.Members()[0]], w.Down[w.Members()[4]] = true, true // of those it asks, some do not answer
	w.Until("a ring of six", 6*second, w.Closed)
	w.Lookups(200, []peer.Slot{client})
}

// A member that leaves hands its keys over: the next lookup finds its successor, with no silence to notice.
func TestLeave(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 64})
	all := w.Members()
	w.Command(all[3], peer.Event{Kind: peer.Leave})
	w.Run(100 * millisecond)
	if v := w.r.See(w, all[4]); v.From != w.IDs[all[2]] {
		t.Errorf("the successor owns keys after %x, want after %x", v.From[:4], w.IDs[all[2]][:4])
	}
	w.Lookups(100, w.Members())
	w.Until("a ring of seven", 2*second, w.Ring)
	w.Command(all[3], peer.Event{Kind: peer.Join})
	w.Until("eight again", 3*second, w.Ring)
	for i, s := range w.Members() { // all but one leave
		if i > 0 {
			w.Command(s, peer.Event{Kind: peer.Leave})
			w.Run(10 * millisecond)
		}
	}
	w.Until("a ring of one", 6*second, w.Ring)
}

// Where data stays with its member, nobody answers in its place: its keys are vacant until it is back.
func TestFixed(t *testing.T) {
	w := ringOf(t, 6, Options{Questions: 64, Fixed: true})
	all := w.Members()
	w.Down[all[2]] = true
	w.Run(6 * second)
	check := func(back bool) {
		t.Helper()
		for i := range 200 {
			key := keyspace.Of(fmt.Sprint(i, back))
			ev := w.Answered(w.Ask(all[3+i%3], key, 0))
			owner, outcome := w.Owner(key), peer.Found
			if !back && keyspace.Between(key, w.IDs[all[1]], w.IDs[all[2]]) {
				owner, outcome = peer.Peer(all[3]), peer.Vacant
			}
			if ev.Flags != outcome || ev.Peers[0] != owner {
				t.Fatalf("%x: %+v, want outcome %d at %d", key[:4], ev, outcome, owner)
			}
		}
	}
	check(false)
	w.Wake(all[2])
	w.Until("all are back", 10*second, w.Whole)
	check(true)
	for _, s := range all[1:] {
		w.Down[s] = true
	}
	w.Run(10 * second)
	if v := w.r.See(w, all[0]); !v.Owns || v.From != w.IDs[all[5]] {
		t.Errorf("the last one left owns %v after %x, want its own keys after %x", v.Owns, v.From[:4], w.IDs[all[5]][:4])
	}
	key := w.IDs[all[3]]
	if ev := w.Answered(w.Ask(all[0], key, 0)); ev.Flags != peer.Vacant {
		t.Errorf("another's key at the last one left: %+v, want vacant", ev)
	}
}

// Each change of a member's range has a higher epoch, in a later life too.
func TestEpoch(t *testing.T) {
	w := ringOf(t, 4, Options{})
	s := w.Members()[1]
	was := w.r.See(w, s)
	w.Down[w.Members()[0]] = true
	w.Until("a ring of three", 5*second, w.Closed)
	if v := w.r.See(w, s); v.Epoch <= was.Epoch || v.From == was.From {
		t.Errorf("epoch %d after %d, keys after %x and %x", v.Epoch, was.Epoch, v.From, was.From)
	}
	w.Command(s, peer.Event{Kind: peer.Leave})
	w.Command(s, peer.Event{Kind: peer.Join, Num: 1 << 40})
	w.Until("back", 5*second, w.Closed)
	if v := w.r.See(w, s); v.Epoch <= 1<<40 {
		t.Errorf("epoch %d in its second life, want above 2^40", v.Epoch)
	}
}

func TestQuestionsAreBounded(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 4})
	far := w.IDs[w.Members()[0]]
	s := w.Members()[1]
	for range 4 {
		w.Ask(s, far, 0)
	}
	if ev := w.Answered(w.Ask(s, far, 0)); ev.Flags != peer.Crowded {
		t.Errorf("the fifth question: %+v, want crowded", ev)
	}
	w.Run(second)
	if ev := w.Answered(w.Ask(s, far, 0)); ev.Flags != peer.Found {
		t.Errorf("a later one: %+v, want found", ev)
	}
}

// A lookup ends after so many hops, whatever its asker says.
func TestHopsAreBounded(t *testing.T) {
	w := ringOf(t, 8, Options{Hops: 5})
	all := w.Members()
	if ev := w.Answered(w.Ask(all[1], w.IDs[all[6]], 0)); ev.Flags != peer.Found || ev.Hops != 5 {
		t.Errorf("five ahead: %+v, want found", ev)
	}
	w.Handle(all[1], &peer.Event{At: w.Now, From: peer.Peer(all[0]), Kind: look, Num: 1 << 60, Hops: 5, Tag: 77, Key: w.IDs[all[3]], Peers: []peer.Peer{peer.Peer(all[0])}})
	for _, f := range w.Env.Effects() {
		t.Errorf("a lookup at its limit goes on: %+v", f)
	}
}

// Two nodes given one place: the second stays outside, and says that something is wrong.
func TestOnePlaceTwice(t *testing.T) {
	ids := peertest.Places(9, 5)
	ids[4] = ids[2]
	w := newWorld(t, 9, ids, Options{Questions: 64})
	for s := range ids {
		if s > 0 {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{0}})
		}
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
		w.Run(2 * second)
	}
	w.Down[4] = true
	if err := w.Closed(); err != nil {
		t.Error(err)
	}
	w.Lookups(100, w.Members())
	if v := w.r.See(w, 4); v.Whole || v.Owns {
		t.Errorf("the second one sees %+v", v)
	}
}

// Nothing that comes off the wire panics, makes a member lose its order, or answers a question it has not seen.
func TestAnyMessage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, 9, peertest.Places(9, 6), Options{Questions: 4})
		w.Start()
		w.Run(3 * second)
		tag := w.Ask(w.Members()[0], w.IDs[w.Members()[4]], 0)
		for range rapid.IntRange(1, 40).Draw(rt, "messages") {
			ev := peer.Event{
				At: w.Now, From: peer.Peer(rapid.IntRange(0, 5).Draw(rt, "from")), Kind: peer.Kind(rapid.IntRange(int(peer.Travels), 255).Draw(rt, "kind")),
				Flags: rapid.Byte().Draw(rt, "flags"), Hops: rapid.Uint16().Draw(rt, "hops"), Tag: peer.Tag(rapid.Uint32().Draw(rt, "tag")),
				Num: rapid.Uint64().Draw(rt, "num"), Key: w.IDs[rapid.IntRange(0, 5).Draw(rt, "key")],
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
			w.Handle(s, &ev)
			if peer.Slot(ev.From) == s {
				continue
			}
			w.Run(int64(rapid.IntRange(0, 100).Draw(rt, "ms")) * millisecond)
		}
		if ev := w.Answered(tag); ev.Flags == peer.Found && len(ev.Peers) != 1 {
			rt.Errorf("answer %+v", ev)
		}
		w.Until("whole again after it", 30*second, w.Ring)
	})
}

// A peer that the driver forgets is nowhere any more, and the ring mends.
func TestDrop(t *testing.T) {
	w := ringOf(t, 6, Options{Questions: 64})
	all := w.Members()
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
	w.Until("mended", 5*second, w.Ring)
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
			w.Command(0, peer.Event{Kind: kind})
		}()
	}
}

// What a ring does all the time takes nothing off the heap.
func TestNoGarbage(t *testing.T) {
	w := ringOf(t, 8, Options{Questions: 64})
	all := w.Members()
	me, below := all[2], peer.Peer(all[1])
	events := []peer.Event{
		{Kind: ask, From: below, Flags: notify, Tag: 5},
		{Kind: look, From: below, Hops: 3, Num: 100, Tag: 6, Key: w.IDs[all[6]], Peers: []peer.Peer{below}},
		{Kind: look, From: below, Hops: 3, Num: 100, Tag: 6, Key: w.IDs[me], Peers: []peer.Peer{below}},
		{Kind: peer.Locate, From: peer.Nobody, Tag: 7, Key: w.IDs[me]},
		{Kind: tick, From: peer.Nobody},
	}
	var due peer.Event
	for i := range events {
		ev := &events[i]
		ev.At = w.Now
		n := testing.AllocsPerRun(100, func() {
			ev.Tag = w.r.nodes[me].tick
			w.Env.Begin(me)
			w.r.Handle(w.Env, me, ev)
			if ev.Kind == tick { // and the answer of the one who was asked
				n := &w.r.nodes[me]
				due = peer.Event{At: w.Now, From: n.ask.to, Kind: tell, Flags: accepted, Tag: n.ask.tag, Peers: w.r.nexts(peer.Slot(n.ask.to))}
				w.Env.Begin(me)
				w.r.Handle(w.Env, me, &due)
			}
		})
		if n != 0 {
			t.Errorf("kind %d: %.0f allocations", ev.Kind, n)
		}
	}
}
