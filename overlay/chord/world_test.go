package chord

import (
	"bytes"
	"fmt"
	"slices"

	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/peertest"
)

const (
	millisecond = peertest.Millisecond
	successors  = ring.Successors
)

// world is a simulation whose nodes are a Chord's.
type world struct {
	*peertest.World
	c *Chord
}

func newWorld(t peertest.T, seed uint64, ids []peer.ID, o Options) *world {
	if o.Ring.Successors == 0 {
		o.Ring.Successors = successors
	}
	c := New(len(ids), o)
	return &world{peertest.New(t, seed, ids, c, o.Ring.Successors), c}
}

// even are n places at equal distances.
func even(n int) []peer.ID {
	ids := make([]peer.ID, n)
	for i := range ids {
		at := uint64(i) * (1 << 32) / uint64(n)
		ids[i] = peer.ID{byte(at >> 24), byte(at >> 16), byte(at >> 8), byte(at)}
	}
	return ids
}

// list is what everything should be like, from the members in order.
type list struct {
	*world
	all     []peer.Slot
	place   map[peer.Slot]int // in all
	fingers map[peer.Slot][]peer.Peer
}

// list makes the dumb twin: fingers are the owners of all places beyond a member's successors, but itself.
func (w *world) list() *list {
	l := &list{w, w.Members(), map[peer.Slot]int{}, map[peer.Slot][]peer.Peer{}}
	for at, s := range l.all {
		l.place[s] = at
		out := make([]peer.Peer, w.c.o.Fingers)
		clearAll(out)
		last := w.IDs[l.next(s, min(w.Successors, len(l.all)-1))]
		for i := range out {
			begin := place(w.IDs[s], i)
			if keyspace.Between(begin, w.IDs[s], last) {
				break
			}
			if owner := l.owner(begin); owner != s {
				out[i] = peer.Peer(owner)
			}
		}
		l.fingers[s] = out
	}
	return l
}

func (l *list) next(s peer.Slot, n int) peer.Slot { return l.all[(l.place[s]+n)%len(l.all)] }

func (l *list) owner(key peer.ID) peer.Slot {
	i, _ := slices.BinarySearchFunc(l.all, key, func(s peer.Slot, key peer.ID) int { return bytes.Compare(l.IDs[s][:], key[:]) })
	return l.all[i%len(l.all)]
}

// full says which member's neighbours or fingers are not yet as the sorted list has them.
func (w *world) full() error {
	if err := w.Ring(); err != nil {
		return err
	}
	l := w.list()
	for _, s := range l.all {
		if got, want := w.c.Far(s), l.fingers[s]; !slices.Equal(got, want) {
			return fmt.Errorf("node %d: fingers %d, want %d", s, got, want)
		}
	}
	return nil
}

// way is how many hops a lookup takes, by the rule of Chord §IV.D: to the owner if it is among the successors, else
// to the nearest member before the key among them and the fingers.
func (l *list) way(from peer.Slot, key peer.ID) (hops int) {
	owner := l.owner(key)
	for at := from; at != owner; hops++ {
		best := at
		for j := 1; j <= min(l.Successors, len(l.all)-1); j++ {
			if best = l.next(at, j); best == owner {
				return hops + 1
			}
		}
		for _, p := range l.fingers[at] {
			if p != peer.Nobody && keyspace.Inside(l.IDs[p], l.IDs[best], key) {
				best = peer.Slot(p)
			}
		}
		at = best
	}
	return hops
}
