package pastry

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

type world struct {
	*peertest.World
	p *Pastry
}

func newWorld(t peertest.T, seed uint64, n int, o Options) *world {
	p := New(n, o)
	return &world{peertest.New(t, seed, peertest.Places(seed, n), p, 1), p}
}

// closest is the dumb twin: the member that lives at the least distance, either way round.
func (w *world) closest(key peer.ID) peer.Peer {
	best := peer.Nobody
	for _, s := range w.Members() {
		if best == peer.Nobody || nearer(key, w.IDs[s], w.IDs[best]) {
			best = peer.Peer(s)
		}
	}
	return best
}

// lookups asks for n keys from nodes drawn evenly and returns how many answers are not the twin's.
func (w *world) lookups(n int, among []peer.Slot) (wrong int) {
	w.T.Helper()
	for i := range n {
		key := keyspace.Of(fmt.Sprint("key ", w.Now, " ", i))
		ev := w.Answered(w.Ask(among[w.Rnd.IntN(len(among))], key, 0))
		if ev.Flags != peer.Found || ev.Peers[0] != w.closest(key) || ev.Key != key {
			wrong++
		}
	}
	return wrong
}

// leaves says which member's leaf set is not what a sorted list has.
func (w *world) leaves() error {
	all := w.Members()
	half := min(w.p.o.Leaves/2, len(all)-1)
	for i, s := range all {
		var ups, downs []peer.Peer
		for j := 1; j <= half; j++ {
			ups, downs = append(ups, peer.Peer(all[(i+j)%len(all)])), append(downs, peer.Peer(all[(i+len(all)-j)%len(all)]))
		}
		if !slices.Equal(w.p.ups(s), ups) || !slices.Equal(w.p.downs(s), downs) {
			return fmt.Errorf("node %d: leaves %d and %d, want %d and %d", s, w.p.ups(s), w.p.downs(s), ups, downs)
		}
		if v := w.p.See(w, s); !v.Whole || !v.Owns {
			return fmt.Errorf("node %d: %s", s, v.Why)
		}
	}
	return nil
}

// Nodes that know one member each join one after the other, until leaf sets are those of the sorted list; lookups find
// every owner, and each owner's range says so.
func TestJoinThroughOneMember(t *testing.T) {
	for _, n := range []int{1, 2, 5, 9, 64, 200} {
		w := newWorld(t, 1, n, Options{})
		for s := range w.IDs {
			if s > 0 {
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
			}
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
			w.Run(200 * peertest.Millisecond)
		}
		took := w.Until("all leaves", 60*peertest.Second, w.leaves)
		if wrong := w.lookups(200, w.Members()); wrong > 0 {
			t.Errorf("N=%d: %d of 200 lookups are wrong", n, wrong)
		}
		for i := range 100 {
			key := keyspace.Of(fmt.Sprint("range ", i))
			for _, s := range w.Members() {
				v := w.p.See(w, s)
				if holds, owner := keyspace.Between(key, v.From, v.To), w.closest(key); holds != (owner == peer.Peer(s)) {
					t.Errorf("N=%d: node %d holds %x: %v; its owner is %d", n, s, key[:4], holds, owner)
				}
			}
		}
		t.Logf("%d nodes have all leaves %d ms after the last joined", n, took/peertest.Millisecond)
	}
}

// Entries of a settled table share the digits of their row and have the one of their column; leaf sets are the list's.
func TestSettle(t *testing.T) {
	for _, n := range []int{1, 2, 9, 300} {
		w := newWorld(t, 7, n, Options{Leaves: 16})
		w.p.Settle(w)
		for s := range peer.Slot(n) {
			w.Command(s, peer.Event{Kind: peer.Join})
			filled := 0
			for i, q := range w.p.entries(s) {
				if row, col := i/digits, i%digits; q != peer.Nobody {
					if filled++; shared(w.IDs[q], w.IDs[s]) != row || digit(w.IDs[q], row) != col {
						t.Errorf("node %d: %x is no entry of row %d, column %d of %x", s, w.IDs[q][:4], row, col, w.IDs[s][:4])
					}
				}
			}
			if n == 300 && filled < 15 {
				t.Errorf("node %d has %d entries", s, filled)
			}
		}
		if err := w.leaves(); err != nil {
			t.Errorf("N=%d: %v", n, err)
		}
	}
}

// A third of the nodes dies: lookups go round them at once, and leaf sets are right again soon.
func TestDeaths(t *testing.T) {
	w := newWorld(t, 2, 120, Options{Leaves: 16})
	w.p.Settle(w)
	for s := range w.IDs {
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
	w.Run(peertest.Second)
	for _, s := range w.Rnd.Perm(120)[:40] {
		w.Down[s] = true
	}
	if wrong := w.lookups(200, w.Members()); wrong > 2 {
		t.Errorf("%d of 200 lookups are wrong right after the deaths", wrong)
	}
	t.Logf("all leaves %d ms after the lookups", w.Until("all leaves", 60*peertest.Second, w.leaves)/peertest.Millisecond)
	if wrong := w.lookups(200, w.Members()); wrong > 0 {
		t.Errorf("%d of 200 lookups are wrong when all is mended", wrong)
	}
}

// Whatever order members are learned in, and whoever is taken out again, the leaf set is the head of a sorted list.
func TestLearn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 40).Draw(t, "nodes")
		w := newWorld(t, rapid.Uint64().Draw(t, "seed"), n, Options{Leaves: 2 * rapid.IntRange(1, 8).Draw(t, "half")})
		w.p.nodes[0].in = true
		a := act{w.p, w.Env, 0, 0, &w.p.nodes[0], 0, w.IDs[0]}
		order := w.Rnd.Perm(n)
		for _, q := range order {
			a.learn(peer.Peer(q))
			w.p.nodes[q].in, w.p.nodes[q].placed = true, true
			a.learn(peer.Peer(q))
		}
		all := w.Members()
		i, half := slices.Index(all, 0), min(w.p.o.Leaves/2, n-1)
		for j := range half {
			if got, want := w.p.ups(0)[j], peer.Peer(all[(i+1+j)%n]); got != want {
				t.Fatalf("leaf %d above is %d, want %d", j, got, want)
			}
			if got, want := w.p.downs(0)[j], peer.Peer(all[(i+2*n-1-j)%n]); got != want {
				t.Fatalf("leaf %d below is %d, want %d", j, got, want)
			}
		}
		for _, q := range order {
			w.p.Drop(peer.Peer(q))
		}
		if len(w.p.ups(0))+len(w.p.downs(0)) > 0 || slices.ContainsFunc(w.p.entries(0), func(q peer.Peer) bool { return q != peer.Nobody && q != 0 }) {
			t.Fatal("who was dropped is still known")
		}
	})
}

// Whatever comes off the wire, nothing panics, no table grows past its bounds, and lookups still end.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("route a key, say so, and lie about it"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, seed, 8, Options{Leaves: 4, Lookups: 2, Listed: seed%2 == 1, Tries: 1 + int(seed%3)})
		w.Start()
		w.Run(3 * peertest.Second)
		tag := w.Ask(0, keyspace.Of("key"), 0)
		for ; len(b) >= 8; b = b[8:] {
			ev := peer.Event{At: w.Now, From: peer.Peer(1 + b[0]%7), Kind: peer.Travels + peer.Kind(b[1]%9), Flags: b[2], Hops: uint16(b[3]), Num: uint64(b[4])}
			copy(ev.Key[:], b)
			ev.Tag = peer.Tag(b[5])
			switch open := w.p.open(0); b[5] % 4 { // as if it were guessed
			case 1:
				ev.Tag = open[int(b[5]/2)%len(open)].tag
			case 2:
				ev.Tag = w.p.nodes[0].leaf
			case 3:
				ev.Num = w.p.nodes[0].count
			}
			for i := range int(b[6] % 40) {
				ev.Peers = append(ev.Peers, peer.Peer((i+int(b[7]))%8))
			}
			w.Handle(0, &ev)
			w.Run(10 * peertest.Millisecond)
			if b[7] == 0 {
				w.p.Drop(peer.Peer(1 + b[6]%7))
			}
		}
		w.Answered(tag)
	})
}
