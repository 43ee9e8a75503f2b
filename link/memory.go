package link

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"servent/identity"
	"servent/system"
)

// Hub joins [Memory] links inside one process.
type Hub struct {
	mu    sync.Mutex
	nodes map[system.NodeID]*Memory
}

// NewHub makes a hub that no node has joined.
func NewHub() *Hub { return &Hub{nodes: map[system.NodeID]*Memory{}} }

// Memory is a link without sockets, keys or machines: the twin of [Secure] for tests, in real or in a
// synctest bubble's time. Peers are who the hub says they are. It serves from the start.
type Memory struct {
	*fabric
	hub  *Hub
	site system.Site
	mail *MemoryDatagrams
}

// Link joins a node to the hub. One of the same name that joined before is killed: it was restarted.
func (h *Hub) Link(id identity.ID) *Memory { return h.LinkAt(id, "", Emulation{}) }

// LinkAt joins a node that is at a site, with the ways to other sites emulated.
func (h *Hub) LinkAt(id identity.ID, site system.Site, em Emulation) *Memory {
	h.Kill(id.Node)
	m := &Memory{fabric: newFabric(id, em), hub: h, site: site}
	m.mail = &MemoryDatagrams{inbox: newInbox(), link: m}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.nodes[id.Node] = m
	return m
}

// Kill ends a node as kill -9 would: its connections break at both ends, and dials to it are refused.
// Killing one that never joined does nothing.
func (h *Hub) Kill(node system.NodeID) {
	if m := h.node(node); m != nil {
		m.reset()
		m.stop()
		m.mail.end()
	}
}

// Close kills all nodes and returns when nothing is on its way any more, as the end of a synctest bubble
// demands.
func (h *Hub) Close() {
	h.mu.Lock()
	all := slices.Collect(maps.Keys(h.nodes))
	h.mu.Unlock()
	for _, node := range all {
		h.Kill(node)
	}
}

func (h *Hub) node(id system.NodeID) *Memory {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.nodes[id]
}

// reset breaks the pipes below all connections, so that the peers see no orderly end.
func (m *Memory) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for w := range m.wires {
		w.stream.(*end).reset()
	}
}

// Dial opens a connection to a node; see [Link].
func (m *Memory) Dial(ctx context.Context, to system.NodeID, proto Proto) (Conn, error) {
	c, err := m.dial(ctx, to, proto)
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", to, proto, err)
	}
	return c, nil
}

func (m *Memory) dial(ctx context.Context, to system.NodeID, proto Proto) (*conn, error) {
	peer := m.hub.node(to)
	if peer == nil {
		return nil, ErrUnknownNode
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	way := m.towards(to, peer.site)
	if err := way.setUp(ctx); err != nil {
		return nil, err
	}
	a, b := pipe(address(m.self.Node), address(to))
	ours, err := m.lay(a)
	if err != nil {
		return nil, err
	}
	theirs, err := peer.lay(b)
	if err != nil {
		ours.abort()
		return nil, ErrRefused
	}
	ours.take(way)
	theirs.take(peer.towards(m.self.Node, m.site))
	c := peer.join(theirs, theirs, Peer{m.self, m.site})
	if err := peer.deliver(proto, c); err != nil {
		ours.abort()
		theirs.abort()
		c.Close()
		return nil, err
	}
	return m.join(ours, ours, Peer{peer.self, peer.site}), nil
}

// MemoryDatagrams are the datagrams of a [Memory] link: the twin of [Datagrams]. They need no session, so
// that the first is not later than the others.
type MemoryDatagrams struct {
	inbox
	link *Memory
	open atomic.Bool
	once sync.Once
}

// Datagrams returns the link's datagrams. A peer that has not called it cannot be sent any.
func (m *Memory) Datagrams() *MemoryDatagrams {
	m.mail.open.Store(true)
	return m.mail
}

// end makes the receivers return.
func (d *MemoryDatagrams) end() { d.once.Do(func() { close(d.closed) }) }

// Send sends at most [MaxDatagram] bytes; see [Datagrams.Send].
func (d *MemoryDatagrams) Send(to system.NodeID, b []byte) error {
	if err := d.send(to, b); err != nil {
		d.unsent.Add(1)
		return fmt.Errorf("send a datagram to %s: %w", to, err)
	}
	return nil
}

func (d *MemoryDatagrams) send(to system.NodeID, b []byte) error {
	if err := checkSize(b); err != nil {
		return err
	}
	peer := d.link.hub.node(to)
	switch {
	case peer == nil:
		return ErrUnknownNode
	case d.link.isStopped():
		return net.ErrClosed
	case peer.isStopped():
		return ErrRefused
	case !peer.mail.open.Load():
		return fmt.Errorf("%s does not answer %s", to, Datagram)
	}
	ours := d.link.tally(Peer{peer.self, peer.site})
	ours.sent.Add(int64(len(b)))
	ours.writes.Add(1)
	b = slices.Clone(b)
	if !d.link.line.cast(d.link.towards(to, peer.site), len(b), func() { peer.mail.take(d.link, b) }) {
		d.cut.Add(1)
	}
	return nil
}

// take gets a datagram from another node.
func (d *MemoryDatagrams) take(from *Memory, b []byte) {
	if d.link.isStopped() {
		return
	}
	theirs := d.link.tally(Peer{from.self, from.site})
	theirs.received.Add(int64(len(b)))
	theirs.reads.Add(1)
	d.drop(letter{from.self.Node, b})
}
