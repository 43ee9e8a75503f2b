package cyclon

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
	c *Cyclon
}

func newWorld(t peertest.T, seed uint64, n int, o Options) *world {
	c := New(n, o)
	return &world{peertest.New(t, seed, peertest.Places(seed, n), c, 1), c}
}

// sound says what is wrong with the views of those that live: each holds others, none twice, and no more than there is room for.
func (w *world) sound() error {
	for s := range w.c.nodes {
		view, _ := w.c.view(peer.Slot(s))
		sorted := slices.Clone(view)
		slices.Sort(sorted)
		if len(slices.Compact(sorted)) != len(view) || slices.Contains(view, peer.Peer(s)) || len(view) > w.c.o.View {
			return fmt.Errorf("node %d knows %d", s, view)
		}
	}
	return nil
}

// links counts who knows whom: all, those of them that lead to the dead, and by how many each is known.
func (w *world) links() (all, dead int, known []int) {
	known = make([]int, len(w.c.nodes))
	for _, s := range w.Members() {
		for _, p := range w.c.Links(s, nil) {
			all++
			if known[p]++; w.Down[p] {
				dead++
			}
		}
	}
	return all, dead, known
}

// Nodes that know one member each join one after the other; some cycles later all views are full and everybody is known.
func TestJoinThroughOneMember(t *testing.T) {
	for _, n := range []int{2, 9, 64, 200} {
		w := newWorld(t, 1, n, Options{View: 8, Exchange: 4, Period: peertest.Second})
		for s := range w.IDs {
			if s > 0 {
				w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: []peer.Peer{peer.Peer(w.Rnd.IntN(s))}})
			}
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
			w.Run(100 * peertest.Millisecond)
		}
		w.Run(40 * peertest.Second)
		all, _, known := w.links()
		if want := n * min(8, n-1); all < want*95/100 || slices.Min(known) == 0 {
			t.Errorf("N=%d: %d links, want about %d; known by %d", n, all, want, known)
		}
		if err := w.sound(); err != nil {
			t.Error(err)
		}
	}
}

// Half of the nodes die. Each cycle gives up the oldest link, so that after three times as many cycles as a view has places
// nobody is left who knows one of the dead, and everybody who lives is known. When messages are lost, too, it takes twice as long.
func TestDeaths(t *testing.T) {
	for _, loss := range []float64{0, 0.1} {
		deaths(t, loss)
	}
}

func deaths(t *testing.T, loss float64) {
	w := newWorld(t, 2, 200, Options{View: 10, Exchange: 5, Period: peertest.Second})
	w.Loss = loss
	w.c.Settle(w)
	for s := range w.IDs {
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
	w.Run(20 * peertest.Second)
	for _, s := range w.Rnd.Perm(200)[:100] {
		w.Down[s] = true
	}
	if _, dead, _ := w.links(); dead < 300 {
		t.Fatalf("only %d links lead to the dead at first", dead)
	}
	cycles := int64(30)
	if loss > 0 {
		cycles *= 2
	}
	w.Run(cycles * peertest.Second)
	all, dead, known := w.links()
	if dead > 0 || all < 900 {
		t.Errorf("loss %v: %d of %d links lead to the dead after %d cycles", loss, dead, all, cycles)
	}
	for _, s := range w.Members() {
		if known[s] == 0 {
			t.Errorf("nobody knows node %d", s)
		}
	}
	if err := w.sound(); err != nil {
		t.Error(err)
	}
}

// An exchange moves links and loses none: whom two nodes know, they know together afterwards, but for each other.
func TestExchange(t *testing.T) {
	w := newWorld(t, 3, 12, Options{View: 5, Exchange: 3, Period: peertest.Second})
	w.c.Adopt(0, 1, 2, 3, 4, 5)
	w.c.Adopt(1, 6, 7, 8, 9, 10)
	_, ages := w.c.view(0)
	ages[0] = 9 // the oldest: it is chosen
	w.c.nodes[0].in, w.c.nodes[1].in = true, true
	w.c.nodes[0].timer = 7
	w.Handle(0, &peer.Event{Kind: cycle, Tag: 7, From: peer.Nobody})
	w.Run(200 * peertest.Millisecond)
	got := slices.Sorted(slices.Values(w.c.Links(1, w.c.Links(0, nil))))
	if want := []peer.Peer{0, 2, 3, 4, 5, 6, 7, 8, 9, 10}; !slices.Equal(got, want) {
		t.Errorf("together they know %d, want %d", got, want)
	}
	if i := w.c.index(1, 0); i < 0 {
		t.Error("who was asked does not know who asked")
	}
}

// Whatever comes off the wire, nothing panics, and views stay sound.
func FuzzMessages(f *testing.F) {
	f.Add([]byte("offer others, and lie about them"), uint64(1))
	f.Fuzz(func(t *testing.T, b []byte, seed uint64) {
		w := newWorld(t, seed, 8, Options{View: 4, Exchange: 3, Period: peertest.Second})
		w.Start()
		w.Run(peertest.Second)
		for ; len(b) >= 6; b = b[6:] {
			ev := peer.Event{At: w.Now, From: peer.Peer(1 + b[0]%7), Kind: peer.Travels + peer.Kind(b[1]%6), Num: uint64(b[2]), Tag: peer.Tag(b[3])}
			if b[3]%2 == 1 {
				ev.Tag = w.c.nodes[0].offer // as if it were guessed
			}
			for i := range int(b[4] % 6) {
				ev.Peers = append(ev.Peers, peer.Peer((i+int(b[5]))%8))
			}
			ev.Data = b[:min(len(b), int(b[4]%6)+int(b[5]%2))]
			w.Handle(0, &ev)
			w.Run(10 * peertest.Millisecond)
			if b[5] == 0 {
				w.c.Drop(peer.Peer(1 + b[4]%7))
			}
			if err := w.sound(); err != nil {
				t.Fatal(err)
			}
		}
		if ev := w.Answered(w.Ask(0, keyspace.Of("key"), 0)); ev.Flags != peer.Lost {
			t.Errorf("a lookup ended with %+v, and there are no keys", ev)
		}
	})
}
