package wire

import (
	"errors"
	"fmt"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/system"
)

// strangers is how many nodes are remembered that the plan does not name: those whose plan is newer, and
// clients. The one that was silent the longest makes room. A datagram names fewer.
const strangers = 256

// self is this node's own number.
const self = peer.Peer(0)

// book numbers the nodes that are known. One goroutine uses it.
type book struct {
	drop    func(peer.Peer)
	now     func() int64
	nodes   []entry
	numbers map[system.NodeID]peer.Peer
	free    []peer.Peer
	strange int
}

type entry struct {
	Member
	planned bool
	used    int64
}

// newBook makes the book of a node that has no place yet: as a client it stands where its name falls.
func newBook(node system.NodeID, drop func(peer.Peer), now func() int64) *book {
	return &book{
		drop: drop, now: now, numbers: map[system.NodeID]peer.Peer{node: self},
		nodes: []entry{{Member: Member{node, keyspace.Of(string(node))}, planned: true}},
	}
}

func (b *book) Self(peer.Slot) peer.Peer         { return self }
func (b *book) ID(p peer.Peer) peer.ID           { return b.nodes[p].Position }
func (b *book) Address(p peer.Peer) peer.Address { return peer.Address(b.nodes[p].Node) }
func (b *book) member(p peer.Peer) *Member       { m := b.nodes[p].Member; return &m }
func (b *book) settle(position peer.ID)          { b.nodes[self].Position = position }

// pin makes the members of a plan known for as long as the plan names them, and returns their numbers, in
// order; those of the plan before become strangers.
func (b *book) pin(members []Member) []peer.Peer {
	for p := range b.nodes {
		if e := &b.nodes[p]; peer.Peer(p) != self && e.planned {
			e.planned = false
			b.strange++
		}
	}
	var peers []peer.Peer
	for _, m := range members {
		p, known := b.numbers[m.Node]
		switch {
		case p == self && known:
			continue
		case !known:
			p = b.add(m)
		case b.nodes[p].planned:
			continue // it is named twice
		case b.nodes[p].Position != m.Position:
			b.drop(p) // it is elsewhere now
			b.nodes[p].Position = m.Position
		}
		b.nodes[p].planned = true
		b.strange--
		peers = append(peers, p)
	}
	for b.strange > strangers {
		b.forget()
	}
	return peers
}

// Intern implements [peer.Book]. What contradicts the plan is an error, so nobody can move a member by a
// claim; of others the last claim counts.
func (b *book) Intern(id peer.ID, at peer.Address) (peer.Peer, error) {
	if at == "" || len(at) > peer.MaxAddress {
		return peer.Nobody, fmt.Errorf("a name of %d bytes", len(at))
	}
	p, known := b.numbers[system.NodeID(at)]
	switch {
	case !known:
		if b.strange >= strangers {
			b.forget()
		}
		p = b.add(Member{system.NodeID(at), id})
	case b.nodes[p].Position == id:
	case p == self:
		return peer.Nobody, errors.New("this node is elsewhere")
	case b.nodes[p].planned:
		return peer.Nobody, fmt.Errorf("the plan has %s elsewhere", at)
	default:
		b.drop(p)
		b.nodes[p].Position = id
	}
	b.nodes[p].used = b.now()
	return p, nil
}

func (b *book) add(m Member) peer.Peer {
	p := peer.Peer(len(b.nodes))
	if n := len(b.free); n > 0 {
		p, b.free = b.free[n-1], b.free[:n-1]
	} else {
		b.nodes = append(b.nodes, entry{})
	}
	b.nodes[p] = entry{Member: m}
	b.numbers[m.Node] = p
	b.strange++
	return p
}

// forget makes room for a stranger.
func (b *book) forget() {
	oldest := peer.Nobody
	for p := range b.nodes {
		if e := &b.nodes[p]; !e.planned && e.Node != "" && (oldest == peer.Nobody || e.used < b.nodes[oldest].used) {
			oldest = peer.Peer(p)
		}
	}
	b.drop(oldest)
	delete(b.numbers, b.nodes[oldest].Node)
	b.nodes[oldest] = entry{}
	b.free = append(b.free, oldest)
	b.strange--
}
