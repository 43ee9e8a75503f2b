package link

import (
	"cmp"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"

	"servent/identity"
	"servent/system"
)

// Counter is what went between this node and another since the start.
type Counter struct {
	Peer     system.NodeID `json:"peer"`
	Site     system.Site   `json:"site,omitempty"`
	Sent     Traffic       `json:"sent"`
	Received Traffic       `json:"received"`
	Opened   int64         `json:"opened"` // connections in all, by either side
	Open     int64         `json:"open"`   // connections now
}

// Traffic is one direction. Bytes are those on the wire, with TLS and its handshakes. Messages are
// writes; of what is received, reads that brought something; and datagrams.
type Traffic struct {
	Bytes    int64 `json:"bytes"`
	Messages int64 `json:"messages"`
}

// tally counts for one peer, or for a connection whose peer is not yet known.
type tally struct {
	sent, received, writes, reads, opened, open atomic.Int64
}

// fabric is what both links are made of: listeners by protocol, the ways to other nodes, the open
// connections and their counters.
type fabric struct {
	*roads
	self identity.ID
	line *line // of datagrams

	mu        sync.Mutex
	stopped   bool
	listeners map[Proto]*listener
	wires     map[*wire]system.NodeID // who is at the other end, once that is known
	tallies   map[destination]*tally
	carriers  sync.WaitGroup
}

func newFabric(self identity.ID, em Emulation) *fabric {
	f := &fabric{
		roads: newRoads(em), self: self, listeners: map[Proto]*listener{},
		wires: map[*wire]system.NodeID{}, tallies: map[destination]*tally{},
	}
	f.line = newLine(&f.carriers)
	return f
}

// Self returns the node whose link this is.
func (f *fabric) Self() identity.ID { return f.self }

// Counters returns what went between this node and each other, sorted by peer.
func (f *fabric) Counters() []Counter {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]Counter, 0, len(f.tallies))
	for to, t := range f.tallies {
		out = append(out, Counter{
			Peer: to.node, Site: to.site,
			Sent:     Traffic{t.sent.Load(), t.writes.Load()},
			Received: Traffic{t.received.Load(), t.reads.Load()},
			Opened:   t.opened.Load(), Open: t.open.Load(),
		})
	}
	slices.SortFunc(out, func(a, b Counter) int {
		return cmp.Or(cmp.Compare(a.Peer, b.Peer), cmp.Compare(a.Site, b.Site))
	})
	return out
}

// lay puts a wire on a stream. After the link has stopped it closes the stream instead.
func (f *fabric) lay(s stream) (*wire, error) {
	w := newWire(s, &f.carriers, f.forget)
	f.mu.Lock()
	stopped := f.stopped
	if !stopped {
		f.wires[w] = ""
	}
	f.mu.Unlock()
	if stopped {
		s.Close()
		return nil, net.ErrClosed
	}
	return w, nil
}

func (f *fabric) forget(w *wire) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.wires, w)
}

// towards returns the way to a node; what a node says to itself does not leave it.
func (f *fabric) towards(node system.NodeID, site system.Site) *way {
	if node == f.self.Node {
		return nil
	}
	return f.way(node, site)
}

// join makes a connection of a stream whose other end is known: what the wire has counted so far goes
// to the peer's tally.
func (f *fabric) join(s stream, w *wire, peer Peer) *conn {
	t := f.tally(peer)
	t.sent.Add(w.tally.sent.Load())
	t.received.Add(w.tally.received.Load())
	t.opened.Add(1)
	t.open.Add(1)
	w.tally = t
	f.mu.Lock()
	if _, open := f.wires[w]; open {
		f.wires[w] = peer.Node
	}
	f.mu.Unlock()
	return &conn{stream: s, peer: peer, tally: t}
}

// tally returns the peer's counters.
func (f *fabric) tally(peer Peer) *tally {
	f.mu.Lock()
	defer f.mu.Unlock()
	to := destination{peer.Node, peer.Site}
	t := f.tallies[to]
	if t == nil {
		t = &tally{}
		f.tallies[to] = t
	}
	return t
}

func (f *fabric) isStopped() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.stopped
}

// stop breaks all connections and listeners, and waits until nothing is carried any more.
func (f *fabric) stop() {
	f.mu.Lock()
	f.stopped = true
	wires := make([]*wire, 0, len(f.wires))
	for w := range f.wires {
		wires = append(wires, w)
	}
	listeners := make([]*listener, 0, len(f.listeners))
	for _, l := range f.listeners {
		listeners = append(listeners, l)
	}
	f.mu.Unlock()
	for _, l := range listeners {
		l.Close()
	}
	for _, w := range wires {
		w.abort()
	}
	f.line.stop()
	f.carriers.Wait()
}

// Sever breaks all connections with a node, by either side. It refuses no new one.
func (f *fabric) Sever(node system.NodeID) {
	var cut []*wire
	f.mu.Lock()
	for w, at := range f.wires {
		if at == node {
			cut = append(cut, w)
		}
	}
	f.mu.Unlock()
	for _, w := range cut {
		w.abort()
	}
}

// conn is a connection whose other end is known.
type conn struct {
	stream // *tls.Conn, or a *wire inside the process
	peer   Peer
	tally  *tally
	once   sync.Once
}

func (c *conn) Peer() Peer { return c.peer }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.stream.Read(p)
	if n > 0 {
		c.tally.reads.Add(1)
	}
	return n, err
}

func (c *conn) Write(p []byte) (int, error) {
	n, err := c.stream.Write(p)
	if n > 0 {
		c.tally.writes.Add(1)
	}
	return n, err
}

func (c *conn) Close() error {
	c.once.Do(func() { c.tally.open.Add(-1) })
	return c.stream.Close()
}

// backlog is how many accepted connections of one protocol may wait to be taken.
const backlog = 512

// listener hands out the connections of one protocol.
type listener struct {
	fabric *fabric
	proto  Proto
	queue  chan *conn
	done   chan struct{}
}

// Accept returns the listener of one protocol; see [Link].
func (f *fabric) Accept(proto Proto) net.Listener {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.listeners[proto] != nil {
		panic("link: " + string(proto) + " is accepted twice")
	}
	l := &listener{f, proto, make(chan *conn, backlog), make(chan struct{})}
	if f.stopped {
		close(l.done)
		return l
	}
	f.listeners[proto] = l
	return l
}

// deliver gives a connection to its listener. It never waits.
func (f *fabric) deliver(proto Proto, c *conn) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	l := f.listeners[proto]
	if l == nil {
		return fmt.Errorf("nobody here answers %s", proto)
	}
	select {
	case l.queue <- c: // only deliver sends, under mu
		return nil
	default:
		return fmt.Errorf("%d connections wait for %s already", backlog, proto)
	}
}

// protos are those that have a listener.
func (f *fabric) protos() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]string, 0, len(f.listeners))
	for p := range f.listeners {
		out = append(out, string(p))
	}
	slices.Sort(out)
	return out
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case <-l.done:
		return nil, net.ErrClosed
	default:
	}
	select {
	case c := <-l.queue:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

// Close refuses the protocol from now on and closes connections that nobody took.
func (l *listener) Close() error {
	l.fabric.mu.Lock()
	if l.fabric.listeners[l.proto] != l {
		l.fabric.mu.Unlock()
		return net.ErrClosed
	}
	delete(l.fabric.listeners, l.proto)
	close(l.done)
	l.fabric.mu.Unlock()
	for {
		select {
		case c := <-l.queue:
			c.Close()
		default:
			return nil
		}
	}
}

func (l *listener) Addr() net.Addr {
	return address(string(l.fabric.self.Node) + "/" + string(l.proto))
}

// address names an end that has no number.
type address string

func (a address) Network() string { return "servent" }
func (a address) String() string  { return string(a) }
