package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"servent/system"
)

// Datagrams are small messages between the nodes of a [Secure] link, over UDP. They may be lost or
// overtake one another; none comes twice, and each is from whom it says. Two nodes agree on keys over a
// connection of the link, so that UDP carries sealed packets only: what is not of such a session is
// answered by nothing. The connection is made when there is something to send.
type Datagrams struct {
	inbox
	link    *Secure
	ln      net.Listener       // of peers that want a session
	want    chan *acquaintance // to be dialled
	buffers sync.Pool          // of *[packetSize]byte

	mu     sync.Mutex
	socket *net.UDPConn // while Serve runs
	ended  bool
	peers  map[system.NodeID]*acquaintance
	lanes  map[uint64]*session // by the number of the lane that comes in
}

// acquaintance is one peer; Datagrams.mu guards it.
type acquaintance struct {
	node     system.NodeID
	sessions []*session // what is sent takes the last
	meetings int        // that the peer began and that have no session yet
	dialling bool
	waiting  [][]byte // for a session
	err      error    // of the last dial
	pause    time.Duration
	again    time.Time // the next dial, after one that failed
}

// Datagrams makes the link's datagrams. They are sent and received when [Datagrams.Serve] runs. As with
// [Link.Accept], there is one at a time.
func (s *Secure) Datagrams() *Datagrams {
	return &Datagrams{
		inbox: newInbox(),
		link:  s,
		ln:    s.Accept(Datagram),
		want:  make(chan *acquaintance, maxWanted),
		buffers: sync.Pool{New: func() any {
			return new([packetSize]byte)
		}},
		peers: map[system.NodeID]*acquaintance{},
		lanes: map[uint64]*session{},
	}
}

// Send sends at most [MaxDatagram] bytes, or keeps a copy while a session with the peer is being made. It
// never waits for the peer. An error says that nothing was sent; it wraps [ErrUnknownNode], [net.ErrClosed],
// or, for a short time after a dial failed, that dial's error, as [ErrRefused]. No error says nothing.
func (d *Datagrams) Send(to system.NodeID, b []byte) error {
	if err := d.send(to, b); err != nil {
		d.unsent.Add(1)
		return fmt.Errorf("send a datagram to %s: %w", to, err)
	}
	return nil
}

func (d *Datagrams) send(to system.NodeID, b []byte) error {
	if err := checkSize(b); err != nil {
		return err
	}
	d.mu.Lock()
	if p := d.peers[to]; p != nil && len(p.sessions) > 0 {
		s := p.sessions[len(p.sessions)-1]
		d.mu.Unlock()
		return d.post(s, b)
	}
	defer d.mu.Unlock()
	return d.hold(to, b)
}

// hold keeps a datagram until there is a session, and begins to make one; mu is held.
func (d *Datagrams) hold(to system.NodeID, b []byte) error {
	if d.ended {
		return net.ErrClosed
	}
	if _, known := d.link.o.Resolve(to); !known {
		return ErrUnknownNode
	}
	p := d.peer(to)
	if !p.dialling && p.meetings == 0 {
		if time.Now().Before(p.again) {
			return p.err
		}
		if err := d.enlist(p); err != nil {
			return err
		}
	}
	if len(p.waiting) == waitingSize {
		return fmt.Errorf("%d wait for a session already", waitingSize)
	}
	p.waiting = append(p.waiting, append([]byte(nil), b...))
	return nil
}

// enlist has a peer dialled; mu is held.
func (d *Datagrams) enlist(p *acquaintance) error {
	select {
	case d.want <- p:
		p.dialling = true
		return nil
	default:
		return fmt.Errorf("%d peers wait to be dialled already", maxWanted)
	}
}

// peer returns what is known of a peer; mu is held.
func (d *Datagrams) peer(node system.NodeID) *acquaintance {
	p := d.peers[node]
	if p == nil {
		p = &acquaintance{node: node}
		d.peers[node] = p
	}
	return p
}

// post seals a datagram and sends it.
func (d *Datagrams) post(s *session, b []byte) error {
	n := s.sent.Add(1)
	if n > maxPackets {
		s.end()
		return errors.New("the session's keys are used up")
	}
	s.idle.Store(0)
	buf := d.buffers.Get().(*[packetSize]byte)
	packet := s.out.seal(buf[:0], n, b)
	s.tally.sent.Add(int64(len(packet)))
	s.tally.writes.Add(1)
	if s.way.free() {
		_, err := s.socket.WriteToUDPAddrPort(packet, s.at)
		d.buffers.Put(buf)
		return err
	}
	if !d.link.line.cast(s.way, len(packet), func() {
		_, _ = s.socket.WriteToUDPAddrPort(packet, s.at) // nobody is left who could be told
		d.buffers.Put(buf)
	}) {
		d.cut.Add(1)
	}
	return nil
}

// Serve sends and receives on socket until ctx ends, then closes it and all sessions, and returns nil when
// all it started has ended. It is called once. It returns early only when the socket fails.
func (d *Datagrams) Serve(ctx context.Context, socket *net.UDPConn) error {
	ctx, cancel := context.WithCancel(ctx)
	_ = socket.SetReadBuffer(1 << 20) // a wish; the system may allow less
	d.mu.Lock()
	d.socket = socket
	d.mu.Unlock()
	var all sync.WaitGroup
	all.Go(func() {
		<-ctx.Done()
		d.ln.Close()
		socket.Close()
	})
	all.Go(func() { d.accept(ctx) })
	all.Go(func() { d.dial(ctx) })
	all.Go(func() { d.sweep(ctx) })
	err := d.read(ctx, socket)
	cancel()
	all.Wait()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	close(d.closed)
	return err
}

// read takes in what comes until the socket is closed.
func (d *Datagrams) read(ctx context.Context, socket *net.UDPConn) error {
	buf := make([]byte, 64<<10) // all that fits a UDP packet: Windows makes an error of what does not fit here
	for failed := 0; ; {
		n, _, err := socket.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			failed = 0
			d.take(buf[:n])
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("receive datagrams on %s: %w", socket.LocalAddr(), err)
		default:
			// Windows tells here that an earlier packet found nobody. What stays wrong must not spin.
			if failed++; failed > 100 {
				_ = sleep(ctx, 5*time.Millisecond)
			}
		}
	}
}

// take opens one packet, in its own place. Only the reader calls it.
func (d *Datagrams) take(packet []byte) {
	number, n, err := readHead(packet)
	if err != nil {
		d.strange.Add(1)
		return
	}
	d.mu.Lock()
	s := d.lanes[number]
	d.mu.Unlock()
	if s == nil {
		d.strange.Add(1)
		return
	}
	if s.window.seen(n) {
		d.repeated.Add(1)
		return
	}
	b, err := s.in.open(packet[headSize:headSize], n, packet)
	if err != nil {
		d.forged.Add(1)
		return
	}
	s.window.mark(n)
	s.idle.Store(0)
	s.tally.received.Add(int64(len(packet)))
	s.tally.reads.Add(1)
	d.drop(letter{s.peer.Node, slices.Clone(b)})
}
