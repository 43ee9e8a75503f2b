package unstructured

import (
	"fmt"
	"slices"
	"testing"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

type world struct {
	*peertest.World
	u *Unstructured
}

// newWorld is one in which the nodes hold keys by a rule: the key names the node.
func newWorld(t peertest.T, seed uint64, n int, o Options) *world {
	o.Holds = func(s peer.Slot, key peer.ID) bool { return key == at(s) }
	u := New(n, o)
	return &world{peertest.New(t, seed, peertest.Places(seed, n), u, 1), u}
}

func at(s peer.Slot) peer.ID { return keyspace.Of(fmt.Sprint("held by ", s)) }

func (w *world) settle() {
	w.u.Settle(w)
	for s := range w.IDs {
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
	w.Run(2 * peertest.Second)
}

// graph says what is wrong with it: links lead both ways, none to oneself or twice, each node has as many of its own as it
// wants, or knows all, and all are one component.
func (w *world) graph() error {
	members := w.Members()
	seen, queue := map[peer.Peer]bool{}, []peer.Peer{peer.Peer(members[0])}
	for _, s := range members {
		links := w.u.Links(s, nil)
		for _, p := range links {
			if w.Down[p] || p == peer.Peer(s) || w.u.index(peer.Slot(p), peer.Peer(s)) < 0 {
				return fmt.Errorf("node %d is linked with %d, which is dead or does not know", s, p)
			}
		}
		slices.Sort(links)
		if own := w.u.own(s); len(slices.Compact(links)) != len(w.u.links[s]) || own != w.u.o.Links && len(links) < len(members)-1 {
			return fmt.Errorf("node %d has %d, %d of its own", s, links, own)
		}
	}
	for ; len(queue) > 0; queue = queue[1:] {
		if p := queue[0]; !seen[p] {
			seen[p] = true
			queue = append(queue, w.u.Links(peer.Slot(p), nil)...)
		}
	}
	if len(seen) != len(members) {
		return fmt.Errorf("%d of %d are one component", len(seen), len(members))
	}
	return nil
}

// search asks for a key and returns the answer.
func (w *world) search(from, holder peer.Slot) peer.Event {
	return w.Answered(w.Ask(from, at(holder), 0))
}

// Nodes that know one member each join one after the other, and are one graph.
func TestJoinThroughOneMember(t *testing.T) {
	for _, scaleFree := range []bool{false, true} {
		for _, n := range []int{2, 3, 9, 100} {
			w := newWorld(t, 1, n, Options{ScaleFree: scaleFree, Hop: 40 * peertest.Millisecond})
			for s := range w.IDs {
				if s > 0 {
					w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
				}
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
				w.Run(100 * peertest.Millisecond)
			}
			took := w.Until("one graph", 60*peertest.Second, w.graph)
			t.Logf("scale-free %v: %d nodes are one graph %d ms after the last joined", scaleFree, n, took/peertest.Millisecond)
		}
	}
}

// A quarter dies, some leave, messages are lost: the others link anew, until each has its links and all are one graph.
func TestDeaths(t *testing.T) {
	for _, scaleFree := range []bool{false, true} {
		w := newWorld(t, 2, 200, Options{ScaleFree: scaleFree, Hop: 40 * peertest.Millisecond})
		w.settle()
		if err := w.graph(); err != nil {
			t.Fatalf("settled: %v", err)
		}
		order := w.Rnd.Perm(200)
		for _, s := range order[:50] {
			w.Down[s] = true
		}
		for _, s := range order[50:60] {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Leave})
		}
		w.Loss = 0.02
		w.Run(30 * peertest.Second)
		w.Loss = 0
		took := w.Until("one graph", 60*peertest.Second, w.graph)
		t.Logf("scale-free %v: mended after %d s", scaleFree, 30+took/peertest.Second)
		alive := w.Members()
		for i, holder := range alive {
			if ev := w.search(alive[(i+7)%len(alive)], holder); ev.Flags != peer.Found || ev.Peers[0] != peer.Peer(holder) {
				t.Errorf("search for what %d holds: %+v", holder, ev)
			}
		}
	}
}

// Every way to search finds the one holder, and says so when there is none. A flood costs a message a link and direction, but
// for those that brought the question: 2E − N + 1.
func TestSearch(t *testing.T) {
	const n = 120
	for by, word := range Words() {
		w := newWorld(t, 4, n, Options{Search: Search(by), Period: 1000 * peertest.Second, Hop: 40 * peertest.Millisecond, Wait: 2 * peertest.Second, Walkers: 8, Steps: 200})
		w.settle()
		edges := 0
		for s := range w.IDs {
			edges += len(w.u.links[s])
		}
		for i := range 60 {
			from, holder := peer.Slot(w.Rnd.IntN(n)), peer.Slot(w.Rnd.IntN(n))
			before := w.Onward
			ev := w.search(from, holder)
			w.Run(3 * peertest.Second) // what is on its way goes on
			if ev.Flags != peer.Found || ev.Peers[0] != peer.Peer(holder) || (ev.Hops == 0) != (from == holder) {
				t.Errorf("%s %d: from %d for what %d holds: %+v", word, i, from, holder, ev)
			}
			if cost := w.Onward - before; Search(by) == Flood && from != holder && cost != edges-n+1 {
				t.Errorf("a flood took %d messages, want 2E − N + 1 = %d", cost, edges-n+1)
			}
		}
		tag := w.Ask(3, keyspace.Of("held by nobody"), 0)
		w.Run(600 * peertest.Second)
		if ev := w.Answered(tag); ev.Flags != peer.Lost {
			t.Errorf("%s for what nobody holds: %+v", word, ev)
		}
		for i := range w.u.open(3) {
			if w.u.open(3)[i].tag != 0 {
				t.Errorf("%s: a search stays open", word)
			}
		}
	}
}

// Whatever comes off the wire, nothing panics, and searches still end.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("seek a link, flood, and lie about it"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, seed, 8, Options{Search: Search(seed % 3), Searches: 2, Seen: 4, Wait: peertest.Second, Far: 6, Walkers: 3, Steps: 20, ScaleFree: seed%2 == 0})
		w.settle()
		tag := w.Ask(0, keyspace.Of("held by nobody"), 0)
		for ; len(b) >= 8; b = b[8:] {
			ev := peer.Event{At: w.Now, From: peer.Peer(1 + b[0]%7), Kind: peer.Travels + peer.Kind(b[1]%12), Flags: b[2], Hops: uint16(b[3]), Num: uint64(b[4])}
			copy(ev.Key[:], b)
			ev.Tag = peer.Tag(b[5])
			if open := w.u.open(0); b[5]%2 == 1 && ev.Kind != hit {
				ev.Tag = open[int(b[5]/2)%len(open)].tag // as if it were guessed
			}
			for i := range int(b[6] % 4) {
				ev.Peers = append(ev.Peers, peer.Peer((i+int(b[7]))%8))
			}
			w.Handle(0, &ev)
			w.Run(10 * peertest.Millisecond)
			if b[7] == 0 {
				w.u.Drop(peer.Peer(1 + b[6]%7))
			}
		}
		w.Run(60 * peertest.Second)
		w.Answered(tag)
	})
}
