package ring

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

// 64 nodes that know one member each join one after the other, a tenth of a second apart.
func TestJoinThroughOneMember(t *testing.T) {
	w := newWorld(t, 1, peertest.Places(1, 64), Options{Questions: 64})
	for s := range w.IDs {
		if s > 0 {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
		}
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
		w.Run(100 * millisecond)
	}
	took := w.Until("one ring of 64", 10*second, w.Whole)
	t.Logf("one ring %d ms after the last joined", took/millisecond)
	w.Lookups(500, w.Members())
	if ev := w.Answered(w.Ask(7, peer.ID{}, peer.Around)); ev.Flags != peer.Found || ev.Peers[0] != 7 || ev.Hops != 64 {
		t.Errorf("once round: %+v, want 64 hops and back at 7", ev)
	}
}

// A system's nodes start together, with a plan that names them all and no ring yet.
func TestStartTogether(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 64} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			w := newWorld(t, 2, peertest.Places(2, n), Options{Questions: 64})
			w.Start()
			took := w.Until("one ring", 5*second, w.Whole)
			t.Logf("one ring of %d after %d ms", n, took/millisecond)
			w.Lookups(100, w.Members())
			if ev := w.Answered(w.Ask(0, peer.ID{}, peer.Around)); ev.Flags != peer.Found || int(ev.Hops) != n {
				t.Errorf("once round: %+v, want %d hops", ev, n)
			}
		})
	}
}

// At no time do two members own one key while nodes join, one by one or all together, with datagrams lost too.
func TestRangesDoNotOverlap(t *testing.T) {
	for seed := range uint64(16) {
		w := newWorld(t, seed, peertest.Places(seed, 12), Options{})
		if w.Loss = 0.02; seed%2 == 0 {
			w.Start()
			w.alone(seed, 1000)
			continue
		}
		for s := range w.IDs {
			if s > 0 {
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{0}})
			}
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
			w.alone(seed, 100)
		}
		w.Until("one ring", 10*second, w.Ring)
	}
}

// alone checks for some steps of 5 ms that every member's place is its own alone.
func (w *world) alone(seed uint64, steps int) {
	w.T.Helper()
	for range steps {
		w.Run(5 * millisecond)
		for _, a := range w.Members() {
			for _, b := range w.Members() {
				x, y := w.r.See(w, a), w.r.See(w, b)
				if a != b && x.Owns && y.Owns && keyspace.Between(x.To, y.From, y.To) {
					w.T.Fatalf("seed %d: at %d ms nodes %d and %d both own %x", seed, w.Now/millisecond, a, b, x.To[:4])
				}
			}
		}
	}
}

// From an entry drawn evenly the owner of any key lies 0, 1, … or N−1 members ahead, each with the chance
// 1/N, wherever the members lie: the mean is (N−1)/2, the variance (N²−1)/12.
func TestMeanHops(t *testing.T) {
	for _, n := range []int{4, 16, 64} {
		w := newWorld(t, 4, peertest.Places(4, n), Options{Questions: 64})
		w.Start()
		w.Until("one ring", 5*second, w.Whole)
		const lookups = 5000
		got, want := w.Lookups(lookups, w.Members()), float64(n-1)/2
		t.Logf("N=%d: %.3f hops, want %.1f; one standard error is %.3f", n, got, want, math.Sqrt(float64(n*n-1)/12/lookups))
		if math.Abs(got-want) > 0.03*want {
			t.Errorf("N=%d: mean hops %.3f, want %.1f within 3 %%", n, got, want)
		}
	}
}

// A quarter of the nodes die at once. Silence may take 6 s to be noticed; within them the ring is whole
// again, and every lookup is answered rightly.
func TestQuarterDies(t *testing.T) {
	for seed := range uint64(5) {
		w := newWorld(t, seed, peertest.Places(seed, 64), Options{Questions: 64})
		w.Start()
		w.Until("one ring", 5*second, w.Whole)
		w.Run(3 * second)
		for _, s := range w.Rnd.Perm(64)[:16] {
			w.Down[s] = true
		}
		took := w.Until("whole again", 6*second, w.Closed)
		t.Logf("seed %d: whole again after %d ms", seed, took/millisecond)
		w.Lookups(500, w.Members())
	}
}

// One node dies: its neighbour takes its keys within two seconds or so.
func TestOneDies(t *testing.T) {
	worst := int64(0)
	for s := range peer.Slot(16) {
		w := newWorld(t, 5, peertest.Places(5, 16), Options{})
		w.Start()
		w.Until("one ring", 5*second, w.Whole)
		w.Run(3*second + int64(s)*37*millisecond)
		w.Down[s] = true
		worst = max(worst, w.Until("whole again", 6*second, w.Closed))
		if w.Whole() == nil {
			t.Error("all say that the ring is whole, though a member known from outside is away")
		}
		w.Wake(s) // it was only paused
		w.Until("the paused one is back", 10*second, w.Whole)
	}
	t.Logf("whole again after %d ms at worst", worst/millisecond)
	if worst > 3*second {
		t.Errorf("repaired after %d ms, want at most 3000", worst/millisecond)
	}
}

// The question that met a dead neighbour is asked again by way of another member.
func TestLookupsWhileOneIsDead(t *testing.T) {
	w := newWorld(t, 6, peertest.Places(6, 16), Options{Questions: 256})
	w.Start()
	w.Until("one ring", 5*second, w.Whole)
	w.Run(3 * second)
	dead := w.Members()[5]
	w.Down[dead] = true
	tags := map[peer.Tag]peer.ID{}
	for i := range 200 {
		key := keyspace.Of(fmt.Sprint("k", i))
		if keyspace.Between(key, w.r.nodes[dead].low, w.IDs[dead]) {
			continue // its own keys wait for the repair
		}
		tags[w.Ask(w.Members()[i%15], key, 0)] = key
	}
	w.Run(8 * second)
	wrong := 0
	for tag, key := range tags {
		if ev := w.Done[tag]; ev.Kind != peer.Locate || ev.Flags != peer.Found || ev.Peers[0] != w.Owner(key) {
			wrong++
			t.Logf("%x: %+v", key, ev)
		}
	}
	if wrong > 0 {
		t.Errorf("%d of %d lookups are wrong", wrong, len(tags))
	}
}

// A cut parts the ring in two. Both halves say that something is missing, each closes its own ring, and
// when the cut is over they are one again.
func TestPartition(t *testing.T) {
	for seed := range uint64(4) {
		w := newWorld(t, seed, peertest.Places(seed, 32), Options{Questions: 64})
		w.Start()
		w.Until("one ring", 5*second, w.Whole)
		side := func(p peer.Peer) bool { return w.IDs[p][19]&1 == 0 }
		w.Cut = func(a, b peer.Peer) bool { return side(a) != side(b) }
		w.Run(8 * second)
		missing := 0
		for _, s := range w.Members() {
			if v := w.r.See(w, s); !v.Whole && v.Why != "" {
				missing++
			}
		}
		if missing < 8 {
			t.Errorf("%d of 32 nodes say that the ring is in pieces", missing)
		}
		for _, half := range []bool{true, false} {
			w.halfRing(half, side)
		}
		w.Cut = nil
		took := w.Until("one ring again", 10*second, w.Whole)
		t.Logf("seed %d: %d said so; one ring %d ms after the cut", seed, missing, took/millisecond)
		w.Lookups(200, w.Members())
	}
}

// halfRing checks that one side of a cut is a ring of its own.
func (w *world) halfRing(half bool, side func(peer.Peer) bool) {
	w.T.Helper()
	was := slices.Clone(w.Down)
	for s := range w.Down {
		w.Down[s] = w.Down[s] || side(peer.Peer(s)) != half
	}
	if err := w.Ring(); err != nil {
		w.T.Errorf("a ring on one side of the cut: %v", err)
	}
	w.Down = was
}

// Every tenth datagram is lost: the ring forms, mends and answers all the same.
func TestLoss(t *testing.T) {
	w := newWorld(t, 8, peertest.Places(8, 32), Options{Questions: 64})
	w.Loss = 0.1
	w.Start()
	w.Until("one ring", 15*second, w.Ring)
	right, n := 0, 1000
	for range n / 50 {
		tags := map[peer.Tag]peer.ID{}
		for i := range 50 {
			key := keyspace.Of(fmt.Sprint(w.Now, i))
			tags[w.Ask(w.Members()[w.Rnd.IntN(32)], key, 0)] = key
			w.Run(20 * millisecond)
		}
		w.Run(12 * second)
		for tag, key := range tags {
			if ev := w.Done[tag]; ev.Kind == peer.Locate && ev.Flags == peer.Found && ev.Peers[0] == w.Owner(key) {
				right++
			}
		}
	}
	// 16 hops and an answer get through with 0.9^17 = 0.17, so six tries find about two thirds (Σ over the distance:
	// 1/32·Σ (1−(1−0.9^(d+1))^6), d = 0…31; d+1 = 0 datagrams when the key is the asker's own).
	want := 0.0
	for d := range 32 {
		p := math.Pow(0.9, float64(d+1))
		if d == 0 {
			p = 1
		}
		want += (1 - math.Pow(1-p, tries)) / 32
	}
	t.Logf("%d of %d right, %.2f expected", right, n, want)
	if got := float64(right) / float64(n); got < want-0.05 {
		t.Errorf("%.3f of the lookups are right, want %.3f", got, want)
	}
	w.Down[3], w.Down[17] = true, true
	w.Until("whole again", 15*second, w.Ring)
}

// The same seed is the same run, event for event.
func TestSameSeedSameRun(t *testing.T) {
	run := func(seed uint64) uint64 {
		w := newWorld(t, seed, peertest.Places(1, 32), Options{Questions: 64})
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

// Nodes come, go politely and die at random; after a while without change, neighbours, ranges and owners are
// what a sorted list says.
func TestTwin(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(2, 20).Draw(rt, "nodes")
		w := newWorld(rt, rapid.Uint64().Draw(rt, "seed"), peertest.Places(uint64(n), n), Options{Questions: 64, Contacts: n})
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
		w.Until("as in the list", 30*second, w.Ring)
		w.Run(10 * second)
		if err := w.Ring(); err != nil {
			rt.Errorf("it did not stay as in the list: %v", err)
		}
		w.Lookups(20, w.Members())
	})
}
