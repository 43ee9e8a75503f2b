package kademlia

import (
	"bytes"
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
	k *Kademlia
}

func newWorld(t peertest.T, seed uint64, n int, o Options) *world {
	k := New(n, o)
	return &world{peertest.New(t, seed, peertest.Places(seed, n), k, 1), k}
}

// nearest is the dumb twin: the member that lives whose distance is the least, of all.
func (w *world) nearest(key peer.ID, but peer.Peer) peer.Peer {
	best, least := peer.Nobody, []byte(nil)
	for _, s := range w.Members() {
		far := make([]byte, len(key))
		for i := range key {
			far[i] = key[i] ^ w.IDs[s][i]
		}
		if peer.Peer(s) != but && (least == nil || bytes.Compare(far, least) < 0) {
			best, least = peer.Peer(s), far
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
		if ev.Flags != peer.Found || ev.Peers[0] != w.nearest(key, peer.Nobody) || ev.Key != key {
			wrong++
		}
	}
	return wrong
}

// met says which member does not know its nearest one.
func (w *world) met() error {
	for _, s := range w.Members() {
		v := w.k.See(w, s)
		if near := w.nearest(w.IDs[s], peer.Peer(s)); near != peer.Nobody && (len(v.After) == 0 || v.After[0] != near || !v.Whole) {
			return fmt.Errorf("node %d knows %v, want %d first; %s", s, v.After, near, v.Why)
		}
	}
	return nil
}

// Nodes that know one member each join one after the other, until each knows its nearest; every lookup is right.
func TestJoinThroughOneMember(t *testing.T) {
	for _, n := range []int{1, 2, 9, 64, 200} {
		w := newWorld(t, 1, n, Options{})
		for s := range w.IDs {
			if s > 0 {
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
			}
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
			w.Run(100 * peertest.Millisecond)
		}
		took := w.Until("all have met", 60*peertest.Second, w.met)
		if wrong := w.lookups(200, w.Members()); wrong > 0 {
			t.Errorf("N=%d: %d of 200 lookups are wrong", n, wrong)
		}
		t.Logf("%d nodes have met %d ms after the last joined", n, took/peertest.Millisecond)
	}
}

// A third of the nodes dies. Lookups find the nearest that lives, at once, from members and from clients, and the dead
// are forgotten.
func TestDeaths(t *testing.T) {
	w := newWorld(t, 2, 120, Options{Period: 2 * peertest.Second})
	w.k.Settle(w)
	for s := range 119 {
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
	w.Command(119, peer.Event{Kind: peer.Leave}) // a client: it knows others and takes no part
	w.Run(peertest.Second)
	for _, s := range w.Rnd.Perm(119)[:40] {
		w.Down[s] = true
	}
	if wrong := w.lookups(200, w.Members()); wrong > 2 {
		t.Errorf("%d of 200 lookups are wrong right after the deaths", wrong)
	}
	w.Run(120 * peertest.Second)
	if wrong := w.lookups(200, append(w.Members(), 119)); wrong > 0 {
		t.Errorf("%d of 200 lookups are wrong when all is mended", wrong)
	}
	dead, all := 0, 0
	for _, s := range w.Members() {
		for b := range w.k.o.Buckets {
			for _, p := range w.k.bucket(s, b) {
				if all++; w.Down[p] {
					dead++
				}
				if p == 119 {
					t.Errorf("node %d remembers the client", s)
				}
			}
		}
	}
	if dead > all/20 {
		t.Errorf("%d of %d contacts are dead", dead, all)
	}
}

// Old contacts stay: a full bucket's oldest one that lives keeps its place (§2.2), and one that is dead gives it up.
func TestOldContactsStay(t *testing.T) {
	for _, dies := range []bool{false, true} {
		w := newWorld(t, 3, 64, Options{K: 4})
		for s := range w.IDs {
			w.k.nodes[s].in = true // without the lookups of a join
		}
		a := act{w.k, w.Env, 0, 0, &w.k.nodes[0], 0, w.IDs[0]}
		var far []peer.Peer
		for p := range w.IDs {
			if shared(w.IDs[p], w.IDs[0]) == 0 && len(far) < 5 {
				far = append(far, peer.Peer(p))
			}
		}
		for _, p := range far[:4] {
			a.hope(p)
		}
		w.Down[far[0]] = dies
		w.Handle(0, &peer.Event{From: far[4], Kind: ping, Tag: 7})
		w.Run(3 * peertest.Second)
		want := []peer.Peer{far[1], far[2], far[3], far[0]}
		if dies {
			want[3] = far[4]
		}
		if got := w.k.bucket(0, 0); !slices.Equal(got, want) {
			t.Errorf("the oldest dies: %v: the bucket has %d, want %d", dies, got, want)
		}
	}
}

// What nearest picks out of the buckets is the head of a sorted list of all contacts.
func TestNearest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 100).Draw(t, "nodes")
		w := newWorld(t, rapid.Uint64().Draw(t, "seed"), n, Options{K: rapid.IntRange(1, 9).Draw(t, "k"), Buckets: rapid.IntRange(1, 12).Draw(t, "buckets")})
		w.k.Settle(w)
		a := act{w.k, w.Env, 0, 0, &w.k.nodes[0], 0, w.IDs[0]}
		key, but := keyspace.Of(fmt.Sprint(rapid.Int().Draw(t, "key"))), peer.Peer(rapid.IntRange(0, n-1).Draw(t, "but"))
		var all []candidate
		for b := range w.k.o.Buckets {
			for _, p := range w.k.bucket(0, b) {
				if p != but {
					all = append(all, candidate{p, distance(w.IDs[p], key), w.IDs[p]})
				}
			}
		}
		order(all)
		if got, want := a.nearest(nil, key, but), all[:min(len(all), w.k.o.K)]; !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// Whatever comes off the wire, nothing panics, no table grows past its bounds, and lookups still end.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("find a key, say so, and lie about it"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, seed, 8, Options{K: 2, Lookups: 2, Value: seed%2 == 1, Watch: int64(seed%3) * peertest.Second})
		w.Start()
		w.Run(peertest.Second)
		tag := w.Ask(0, keyspace.Of("key"), 0)
		for ; len(b) >= 8; b = b[8:] {
			ev := peer.Event{At: w.Now, From: peer.Peer(1 + b[0]%7), Kind: peer.Travels + peer.Kind(b[1]%8), Flags: b[2], Hops: uint16(b[3]), Num: uint64(b[4])}
			copy(ev.Key[:], b)
			ev.Tag = peer.Tag(b[5])
			if open := w.k.open(0); b[5]%2 == 1 {
				ev.Tag = open[int(b[5]/2)%len(open)].tag // as if it were guessed
			}
			for i := range int(b[6] % 40) {
				ev.Peers = append(ev.Peers, peer.Peer((i+int(b[7]))%8))
			}
			w.Handle(0, &ev)
			w.Run(10 * peertest.Millisecond)
			if b[7] == 0 {
				w.k.Drop(peer.Peer(1 + b[6]%7))
			}
		}
		w.Answered(tag)
	})
}
