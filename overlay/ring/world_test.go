package ring

import (
	"servent/peer"
	"servent/peer/peertest"
)

const second = peertest.Second

// world is a simulation whose nodes are a ring's.
type world struct {
	*peertest.World
	r *Ring
}

func newWorld(t peertest.T, seed uint64, ids []peer.ID, o Options) *world {
	r := New(len(ids), o)
	return &world{peertest.New(t, seed, ids, r, r.o.Successors), r}
}
