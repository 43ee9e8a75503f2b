package chord

import (
	"fmt"
	"math"
	"math/big"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

// Nodes that know one member each join one after the other, until neighbours and fingers are those of the sorted
// list; lookups find every owner, over exactly the members that the list says.
func TestJoinThroughOneMember(t *testing.T) {
	for _, n := range []int{4, 16, 64, 256} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, 1, peertest.Places(1, n), Options{Ring: ring.Options{Questions: 64}})
			for s := range w.IDs {
				if s > 0 {
					w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
				}
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
				w.Run(100 * millisecond)
			}
			took := w.Until("one ring", 60*second, w.Whole)
			t.Logf("one ring of %d %d ms after the last joined, fingers %d ms later", n, took/millisecond, w.Until("all fingers", 20*second, w.full)/millisecond)
			w.lookups(300)
			if ev := w.Answered(w.Ask(3, peer.ID{}, peer.Around)); ev.Flags != peer.Found || ev.Peers[0] != 3 || int(ev.Hops) != n {
				t.Errorf("once round: %+v, want %d hops and back at 3", ev, n)
			}
		})
	}
}

// A system's nodes start together, with a plan that names them all and no ring yet.
func TestStartTogether(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 6, 64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := whole(t, 2, peertest.Places(2, n), Options{})
			w.lookups(100)
		})
	}
}

// whole is a world whose neighbours and fingers are all there.
func whole(t *testing.T, seed uint64, ids []peer.ID, o Options) *world {
	t.Helper()
	if o.Ring.Questions == 0 {
		o.Ring.Questions = 64
	}
	w := newWorld(t, seed, ids, o)
	w.Start()
	w.Until("all fingers", 20*second, w.full)
	return w
}

// lookups asks for n keys from nodes drawn evenly; every answer must be the list's, over as many hops as the list
// has on the way. It returns the mean.
func (w *world) lookups(n int) float64 {
	w.T.Helper()
	l, sum, wrong := w.list(), 0, 0
	for i := 0; i < n; i += 50 {
		tags, from, keys := []peer.Tag{}, []peer.Slot{}, []peer.ID{}
		for j := range min(50, n-i) {
			keys, from = append(keys, keyspace.Of(fmt.Sprint("key ", w.Now, j))), append(from, l.all[w.Rnd.IntN(len(l.all))])
			tags = append(tags, w.Ask(from[j], keys[j], 0))
			w.Run(10 * millisecond)
		}
		for j, tag := range tags {
			ev, owner, hops := w.Answered(tag), peer.Peer(l.owner(keys[j])), l.way(from[j], keys[j])
			if ev.Flags != peer.Found || ev.Peers[0] != owner || int(ev.Hops) != hops {
				if wrong++; wrong < 4 {
					w.T.Errorf("%x from %d: %+v, want owner %d over %d hops", keys[j][:4], from[j], ev, owner, hops)
				}
			}
			sum += int(ev.Hops)
		}
	}
	if wrong > 0 {
		w.T.Errorf("%d of %d lookups are wrong", wrong, n)
	}
	return float64(sum) / float64(n)
}

// hops is the mean number of hops among N members at equal distances, N and r powers of two, N ≥ r. The owner lies
// d = 0, 1, … N−1 members ahead, each equally likely. It is known when d ≤ r: one hop. Else the nearest known member
// before the key is the farthest finger 2^k ≤ d−1 ahead: each hop takes the highest bit off d−1, until d−1 < r. So d ≥ 1
// takes 1 + the ones among the upper log2(N/r) bits of d−1, which are ½·log2(N/r) on average over 0 … N−1; the last of
// these, all ones, is no d. Of the sum N·(1 + ½·log2(N/r)) it takes 1 + log2(N/r).
//
// Stoica et al., ToN 2003, §V.C: "the average path length is ½·log2 N"; with the r successors known the lower log2 r
// bits cost one hop together, ½·log2 N − ½·log2 r + 1.
func hops(n, r int) float64 {
	bits := math.Log2(float64(n) / float64(r))
	return 1 + bits/2 - (1+bits)/float64(n)
}

// Mean hops are the law's, within 3 %: at equal distances, and at random places, where what a finger overshoots
// its place by is little against the rest of the way.
func TestMeanHops(t *testing.T) {
	for _, tt := range []struct {
		n, r, lookups int
		random        bool
	}{{4, 4, 8000, false}, {16, 4, 6000, false}, {64, 4, 4000, false}, {256, 4, 3000, false}, {64, 16, 3000, false}, {16, 4, 0, true}, {64, 4, 0, true}, {256, 4, 0, true}} {
		want, got, of := hops(tt.n, tt.r), 0.0, "at equal distances"
		o := Options{Ring: ring.Options{Successors: tt.r}}
		if tt.random {
			// One draw of places has a mean of its own; the law is that of all draws.
			draws := 4
			of, tt.lookups = "at random places", 1200*draws
			for seed := range uint64(draws) {
				got += whole(t, seed, peertest.Places(seed, tt.n), o).lookups(1200) / float64(draws)
			}
		} else {
			w := whole(t, 4, even(tt.n), o)
			w.Onward = 0
			got = w.lookups(tt.lookups)
			if paid := float64(w.Onward) / float64(tt.lookups); math.Abs(paid-got) > 1e-9 {
				t.Errorf("N=%d: %.4f datagrams are charged a lookup, want its hops, %.4f", tt.n, paid, got)
			}
		}
		t.Logf("N=%d r=%d %s: %.3f hops, law %.3f, %+.1f %%", tt.n, tt.r, of, got, want, 100*(got/want-1))
		if math.Abs(got-want) > 0.03*want {
			t.Errorf("N=%d r=%d %s: mean hops %.3f, want %.3f within 3 %%", tt.n, tt.r, of, got, want)
		}
	}
}

// A quarter of the nodes die at once. The ring mends within 6 s; every lookup is answered rightly from then on,
// though fingers still lead to the dead; and soon these are right, too.
func TestQuarterDies(t *testing.T) {
	for seed := range uint64(5) {
		w := whole(t, seed, peertest.Places(seed, 64), Options{})
		w.Run(3 * second)
		for _, s := range w.Rnd.Perm(64)[:16] {
			w.Down[s] = true
		}
		took := w.Until("a ring again", 6*second, w.Closed)
		w.Lookups(300, w.Members())
		t.Logf("seed %d: a ring again after %d ms; after the lookups, all fingers after %d ms", seed, took/millisecond, w.Until("all fingers", 20*second, w.full)/millisecond)
		w.lookups(200)
	}
}

// While one node is dead and nobody has noticed, what does not belong to it is found by way of others.
func TestLookupsWhileOneIsDead(t *testing.T) {
	w := whole(t, 6, peertest.Places(6, 32), Options{Ring: ring.Options{Questions: 256}})
	all := w.Members()
	dead := all[5]
	w.Down[dead] = true
	tags := map[peer.Tag]peer.ID{}
	for i := range 300 {
		key := keyspace.Of(fmt.Sprint("k", i))
		if keyspace.Between(key, w.IDs[all[4]], w.IDs[dead]) {
			continue // its own keys wait for the repair
		}
		tags[w.Ask(all[(6+i%31)%32], key, 0)] = key
	}
	w.Run(8 * second)
	wrong := 0
	for tag, key := range tags {
		if ev := w.Done[tag]; ev.Kind != peer.Locate || ev.Flags != peer.Found || ev.Peers[0] != w.Owner(key) {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d lookups are wrong", wrong, len(tags))
	}
}

// A node's successors, its predecessor and its only contact die together: the ring mends, for others find the node.
func TestNeighboursDie(t *testing.T) {
	w := newWorld(t, 3, peertest.Places(3, 32), Options{Ring: ring.Options{Questions: 64}})
	for s := range w.IDs {
		if s > 0 {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(s - 1)}})
		}
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
		w.Run(200 * millisecond)
	}
	w.Until("all fingers", 30*second, w.full)
	all := slices.DeleteFunc(w.Members(), func(s peer.Slot) bool { return s == 0 })
	w.Down[all[0]-1], w.Down[w.c.See(w, all[0]).Before] = true, true
	for n, i := 0, slices.Index(w.Members(), all[0]); n < successors; n++ {
		w.Down[w.Members()[(i+1)%len(w.Members())]] = true
	}
	w.Until("a ring again", 20*second, w.Ring)
}

// Where data stays with its member nobody answers in its place, and the fingers of others that led to it lead on.
func TestFixed(t *testing.T) {
	w := whole(t, 9, even(16), Options{Ring: ring.Options{Fixed: true}})
	all := w.Members()
	w.Down[all[9]] = true
	w.Run(10 * second)
	for i := range 200 {
		key := keyspace.Of(fmt.Sprint(i))
		ev := w.Answered(w.Ask(all[i%8], key, 0))
		owner, outcome := w.Owner(key), peer.Found
		if keyspace.Between(key, w.IDs[all[8]], w.IDs[all[9]]) {
			outcome = peer.Vacant
		}
		if ev.Flags != outcome || ev.Peers[0] != owner {
			t.Fatalf("%x: %+v, want outcome %d at %d", key[:4], ev, outcome, owner)
		}
	}
	w.Wake(all[9])
	w.Until("all are back", 20*second, w.full)
	w.lookups(100)
}

// A member that leaves keeps no finger, and who had it as one finds the next.
func TestLeave(t *testing.T) {
	w := whole(t, 8, peertest.Places(8, 32), Options{})
	gone := w.Members()[7]
	w.Command(gone, peer.Event{Kind: peer.Leave})
	if i := slices.IndexFunc(w.c.Far(gone), func(p peer.Peer) bool { return p != peer.Nobody }); i >= 0 {
		t.Errorf("it left and has finger %d still", i)
	}
	w.Until("all fingers of 31", 20*second, w.full)
	w.lookups(100)
	w.Command(gone, peer.Event{Kind: peer.Join})
	w.Until("all fingers of 32", 20*second, w.full)
}

// The same seed is the same run, event for event.
func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) uint64 {
		w := newWorld(t, seed, peertest.Places(1, 32), Options{Ring: ring.Options{Questions: 64}})
		w.Loss = 0.05
		w.Start()
		w.Run(3 * second)
		for i := range 100 {
			w.Ask(peer.Slot(i%32), keyspace.Of(fmt.Sprint(i)), 0)
		}
		w.Down[5], w.Down[6] = true, true
		w.Run(20 * second)
		return w.Hash
	}
	a, b, other := run(1), run(1), run(2)
	if a != b || a == other {
		t.Errorf("hashes %x and %x of seed 1, %x of seed 2", a, b, other)
	}
}

// Nodes come, go politely and die at random; after a while without change, neighbours, ranges, owners and fingers
// are what a sorted list says.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 24).Draw(rt, "nodes")
		w := newWorld(rt, rapid.Uint64().Draw(rt, "seed"), peertest.Places(uint64(n), n), Options{Ring: ring.Options{Questions: 64, Contacts: n}})
		all := make([]peer.Peer, n)
		for i := range all {
			all[i] = peer.Peer(i)
		}
		for s := range w.IDs {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: all})
		}
		w.Command(0, peer.Event{Kind: peer.Join})
		for _, step := range rapid.SliceOfN(rapid.IntRange(0, 3*n-1), 1, 30).Draw(rt, "steps") {
			s := peer.Slot(step / 3)
			switch step % 3 {
			case 0:
				w.Wake(s)
				w.Command(s, peer.Event{Kind: peer.Join})
			case 1:
				if !w.Down[s] {
					w.Command(s, peer.Event{Kind: peer.Leave})
				}
			case 2:
				w.Down[s] = true
			}
			w.Run(int64(rapid.IntRange(0, 2000).Draw(rt, "ms")) * millisecond)
		}
		if len(w.Members()) == 0 {
			return
		}
		w.Until("as in the list", 60*second, w.full)
		w.lookups(20)
	})
}

// message draws any message among the nodes of w.
func (w *world) message(rt *rapid.T) peer.Event {
	last := len(w.IDs) - 1
	ev := peer.Event{
		At: w.Now, From: peer.Peer(rapid.IntRange(0, last).Draw(rt, "from")), Kind: peer.Kind(rapid.IntRange(int(peer.Travels), int(peer.Travels)+7).Draw(rt, "kind")),
		Flags: rapid.Byte().Draw(rt, "flags"), Hops: rapid.Uint16().Draw(rt, "hops"), Tag: peer.Tag(rapid.Uint32().Draw(rt, "tag")),
		Num: rapid.Uint64().Draw(rt, "num"), Key: w.IDs[rapid.IntRange(0, last).Draw(rt, "key")],
	}
	for range rapid.IntRange(0, 6).Draw(rt, "n") {
		ev.Peers = append(ev.Peers, peer.Peer(rapid.IntRange(0, last).Draw(rt, "peer")))
	}
	return ev
}

// Nothing that comes off the wire panics, leaves a finger where none belongs for long, or breaks the ring.
func TestAnyMessage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := newWorld(rt, 9, peertest.Places(9, 8), Options{Ring: ring.Options{Questions: 4, Successors: 2}})
		w.Start()
		w.Run(3 * second)
		for range rapid.IntRange(1, 40).Draw(rt, "messages") {
			ev := w.message(rt)
			s := peer.Slot(rapid.IntRange(0, len(w.IDs)-1).Draw(rt, "to"))
			if peer.Slot(ev.From) == s {
				continue // nobody sends to itself
			}
			w.Handle(s, &ev)
			w.Run(int64(rapid.IntRange(0, 100).Draw(rt, "ms")) * millisecond)
		}
		w.Until("as in the list after it", 60*second, w.full)
	})
}

// addresses are those of a world's nodes, as the codec asks for them.
type addresses struct{ *world }

func (a addresses) Address(p peer.Peer) peer.Address { return peer.Address(fmt.Sprint(p)) }

func (a addresses) Intern(id peer.ID, at peer.Address) (peer.Peer, error) {
	var p int
	if _, err := fmt.Sscan(string(at), &p); err != nil || p < 0 || p >= len(a.IDs) || a.IDs[p] != id {
		return peer.Nobody, fmt.Errorf("no node %q there", at)
	}
	return peer.Peer(p), nil
}

// Whatever datagram can be decoded is handled: nothing panics, and the members find their places again.
func FuzzDatagrams(f *testing.F) {
	fresh := func(t peertest.T) *world {
		w := newWorld(t, 9, peertest.Places(9, 6), Options{Ring: ring.Options{Questions: 4, Successors: 2}})
		w.Start()
		w.Run(2 * second)
		return w
	}
	w := fresh(f)
	for kind := peer.Travels; kind < peer.Travels+6; kind++ {
		for flags := range uint8(18) {
			ev := peer.Event{Kind: kind, Flags: flags, Hops: 1, Tag: 7, Num: 9, Key: w.IDs[3], Peers: []peer.Peer{2}}
			b, err := peer.Append(nil, addresses{w}, 1, &ev)
			if err != nil {
				f.Fatal(err)
			}
			f.Add(uint8(flags%6), b)
		}
	}
	f.Fuzz(func(t *testing.T, to uint8, b []byte) {
		w := fresh(t)
		ev, s := peer.Event{At: w.Now}, peer.Slot(to)%6
		if err := peer.Decode(b, "1", addresses{w}, &ev); err != nil || peer.Slot(ev.From) == s {
			return
		}
		w.Handle(s, &ev)
		w.Until("as in the list after it", 60*second, w.full)
	})
}

// A peer that the driver forgets is nowhere any more, not in an open look either.
func TestDrop(t *testing.T) {
	w := whole(t, 9, peertest.Places(9, 24), Options{})
	gone := peer.Peer(w.Members()[2])
	w.Run(300 * millisecond)
	w.c.Drop(gone)
	for s := range w.IDs {
		v := w.c.See(w, peer.Slot(s))
		if slices.Contains(append(append(v.After, v.Before), w.c.Far(peer.Slot(s))...), gone) {
			t.Fatalf("node %d still names it: %+v", s, v)
		}
	}
	w.Until("mended", 20*second, w.full)
}

func TestUnknownCommandPanics(t *testing.T) {
	w := newWorld(t, 9, peertest.Places(9, 1), Options{})
	for _, kind := range []peer.Kind{0, fix + 1, peer.Travels - 1} {
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

// Places of fingers agree with whole numbers modulo 2^160.
func TestPlace(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		id, i := keyspace.Of(rapid.String().Draw(rt, "id")), rapid.IntRange(0, 63).Draw(rt, "finger")
		if rapid.Bool().Draw(rt, "high") {
			for b := range 8 {
				id[b] = 0xff
			}
		}
		want := new(big.Int).SetBytes(id[:])
		want.Add(want, new(big.Int).Lsh(big.NewInt(1), uint(159-i))).Mod(want, new(big.Int).Lsh(big.NewInt(1), 160))
		got := place(id, i)
		if new(big.Int).SetBytes(got[:]).Cmp(want) != 0 {
			rt.Errorf("place(%x, %d) = %x, want %x", id, i, got, want)
		}
	})
}
