package wire

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"servent/overlay/kademlia"
	"servent/peer"
	"servent/system"
)

// nearest is the twin of what Kademlia finds: the member that lives with the least XOR.
func (f *fleet) nearest(key peer.ID) system.NodeID {
	var best system.NodeID
	var least peer.ID
	for _, m := range f.members {
		far := m.Position
		for i := range far {
			far[i] ^= key[i]
		}
		if !f.dead[m.Node] && (best == "" || slices.Compare(far[:], least[:]) < 0) {
			best, least = m.Node, far
		}
	}
	return best
}

// The machine that is simulated runs on datagrams: every node, and one that is no member, finds the nearest to every key;
// also when a quarter of the nodes has died.
func TestKademlia(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := startAs(t, 17, 16, Options{Cache: -1}, func() Machine { return kademlia.New(1, kademlia.Options{K: 4}) })
		defer f.stop()
		f.until("all have met", time.Minute, f.whole())
		check := func(when string) {
			t.Helper()
			for at, w := range f.wires {
				if f.dead[name(at)] {
					continue
				}
				for i := range 20 {
					owner, _, _, err := w.Locate(t.Context(), key(20*at+i))
					if want := f.nearest(key(20*at + i)); err != nil || owner != want {
						t.Errorf("%s, %s: Locate(key %d) = %s, %v, want %s", when, name(at), 20*at+i, owner, err, want)
					}
				}
			}
		}
		check("whole")
		for i := range 4 {
			f.kill(name(4*i+1), true)
		}
		time.Sleep(5 * time.Minute) // every bucket has been refreshed
		check(fmt.Sprintf("%d are dead", len(f.dead)))
	})
}
