package sim

import (
	"bytes"
	"encoding/binary"
	"math"
	"slices"

	"servent/peer"
)

// Links say how long messages take. Times are nanoseconds.
type Links interface {
	// Least is what no message stays below: the width of a window. The wider, the faster the simulation.
	Least() int64
	// Delay is how long a message takes; draw is uniform, and the message's own.
	Delay(from, to peer.Peer, draw uint64) int64
}

// Uniform links take From to To, each time drawn anew.
type Uniform struct{ From, To int64 }

// Least implements [Links].
func (u Uniform) Least() int64 { return u.From }

// Delay implements [Links].
func (u Uniform) Delay(_, _ peer.Peer, draw uint64) int64 {
	return u.From + int64(share(draw)*float64(u.To-u.From))
}

// Plane links take From between neighbours and To across the diagonal of a square on which the nodes lie,
// evenly spread; a pair's delay is always the same.
type Plane struct {
	From, To int64
	Seed     uint64
}

// Least implements [Links].
func (p Plane) Least() int64 { return p.From }

// Delay implements [Links].
func (p Plane) Delay(from, to peer.Peer, _ uint64) int64 {
	ax, ay := p.At(from)
	bx, by := p.At(to)
	return p.From + int64(math.Hypot(ax-bx, ay-by)/math.Sqrt2*float64(p.To-p.From))
}

// At is where a node lies: 0 to 1 each way.
func (p Plane) At(who peer.Peer) (x, y float64) {
	draw := mix(mix(p.Seed+links) + uint64(who)*golden)
	return share(draw), share(mix(draw + golden))
}

// share is a draw as a number from 0 to below 1.
func share(draw uint64) float64 { return float64(draw>>11) / (1 << 53) }

// Places draws n identifiers, evenly, and sorts them.
func Places(seed uint64, n int) []peer.ID {
	ids := make([]peer.ID, n)
	for i := range ids {
		var b [24]byte
		for j := range uint64(3) {
			binary.BigEndian.PutUint64(b[8*j:], mix(mix(seed+3*uint64(i)*golden)+j*golden))
		}
		ids[i] = peer.ID(b[:20])
	}
	slices.SortFunc(ids, func(a, b peer.ID) int { return bytes.Compare(a[:], b[:]) })
	return ids
}
