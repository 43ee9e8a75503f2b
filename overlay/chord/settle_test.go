package chord

import (
	"slices"
	"testing"

	"servent/peer"
	"servent/peer/peertest"
)

// Settled fingers are those of the dumb twin, and none are left after a Reset.
func TestSettle(t *testing.T) {
	for _, n := range []int{1, 2, 5, 6, 64, 300} {
		w := newWorld(t, 7, peertest.Places(7, n), Options{})
		w.c.Settle(w)
		for s := range n {
			w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
		}
		l := w.list()
		for s := range peer.Slot(n) {
			if got, want := w.c.Far(s), l.fingers[s]; !slices.Equal(got, want) {
				t.Fatalf("N=%d node %d: fingers %d, want %d", n, s, got, want)
			}
			w.c.Reset(s)
			if slices.ContainsFunc(w.c.Far(s), func(p peer.Peer) bool { return p != peer.Nobody }) {
				t.Fatalf("N=%d node %d: it remembers fingers", n, s)
			}
		}
	}
}
