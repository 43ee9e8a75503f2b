package link

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"

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
}

// Link joins a node to the hub. One of the same name that joined before is killed: it was restarted.
func (h *Hub) Link(id identity.ID) *Memory { return h.LinkAt(id, "", Emulation{}) }

// LinkAt joins a node that is at a site, with the ways to other sites emulated.
func (h *Hub) LinkAt(id identity.ID, site system.Site, em Emulation) *Memory {
	h.Kill(id.Node)
	m := &Memory{newFabric(id, em), h, site}
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
