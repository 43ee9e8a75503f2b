package link

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/system"
)

// Datagram is what nodes agree on keys for datagrams by. The connection stays open as long as the keys
// count; its end, also by kill -9, is the end of the keys.
const Datagram Proto = "servent-datagram"

// MaxDatagram is how many bytes a datagram has room for.
const MaxDatagram = 1200

const (
	inboxSize   = 1024 // datagrams that wait to be received; more are lost
	waitingSize = 16   // datagrams to one peer that wait for keys; more are lost
	maxSessions = 1024 // of one node; the one that is idle longest makes room
	maxMeetings = 64   // with which keys are agreed on at a time, each way; more wait, of one peer 2
	maxWanted   = 256  // peers that wait for their turn to be dialled; datagrams to more are lost

	sessionIdle = 2 * time.Minute // without a datagram either way; then it is closed
	sessionAge  = time.Hour       // then who dialled makes a new one
	maxAge      = 2 * time.Hour   // then it is closed even if no new one could be made
	sweepEvery  = 10 * time.Second

	// AES-GCM protects 2^28 packets of up to 2^11 bytes (RFC 9001 §6.6, B.1.1).
	maxPackets   = 1 << 28
	renewPackets = maxPackets / 2

	minPause = 50 * time.Millisecond // between two tries to reach a peer, doubled up to maxPause
	maxPause = time.Second
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
// never waits for the peer. An error says that it was not sent; it wraps [ErrUnknownNode], [net.ErrClosed],
// or, for at most a second after a dial failed, that dial's error, as [ErrRefused]. No error promises nothing.
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
	if s := d.current(to); s != nil {
		return d.post(s, b)
	}
	if _, known := d.link.o.Resolve(to); !known {
		return ErrUnknownNode
	}
	s, err := d.hold(to, b)
	if s != nil {
		return d.post(s, b)
	}
	return err
}

// current returns the session that datagrams to a peer take, or nil.
func (d *Datagrams) current(to system.NodeID) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	if p := d.peers[to]; p != nil {
		return p.current()
	}
	return nil
}

func (p *acquaintance) current() *session {
	if len(p.sessions) == 0 {
		return nil
	}
	return p.sessions[len(p.sessions)-1]
}

// hold keeps a datagram until there is a session, and begins to make one, unless there is one by now.
func (d *Datagrams) hold(to system.NodeID, b []byte) (*session, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.ended {
		return nil, net.ErrClosed
	}
	p := d.peer(to)
	if s := p.current(); s != nil {
		return s, nil
	}
	if !p.dialling && p.meetings == 0 {
		if time.Now().Before(p.again) {
			return nil, p.err
		}
		if err := d.enlist(p); err != nil {
			return nil, err
		}
	}
	if len(p.waiting) == waitingSize {
		return nil, fmt.Errorf("%d wait for a session already", waitingSize)
	}
	p.waiting = append(p.waiting, slices.Clone(b))
	return nil, nil
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

// Lost counts the datagrams that went astray at this node.
type Lost struct {
	// of what this node sent
	Unsent int64 // the peer could not be reached, or too many waited for it
	Cut    int64 // lost on an emulated way, by a cut or in a full queue
	// of what came in
	Strange  int64 // no packet of ours, or of a session that has ended
	Forged   int64 // its seal is broken
	Repeated int64 // a copy, or overtaken by thousands
	Full     int64 // nobody received so fast
}

// losses is Lost while it is counted.
type losses struct {
	unsent, cut, strange, forged, repeated, full atomic.Int64
}

// Lost returns what went astray since the start.
func (l *losses) Lost() Lost {
	return Lost{l.unsent.Load(), l.cut.Load(), l.strange.Load(), l.forged.Load(), l.repeated.Load(), l.full.Load()}
}

// inbox holds what came until it is received.
type inbox struct {
	losses
	letters chan letter
	closed  chan struct{}
}

type letter struct {
	from system.NodeID
	b    []byte
}

func newInbox() inbox {
	return inbox{letters: make(chan letter, inboxSize), closed: make(chan struct{})}
}

// drop puts a datagram in, or counts it as lost.
func (i *inbox) drop(l letter) {
	select {
	case i.letters <- l:
	default:
		i.full.Add(1)
	}
}

// Receive returns the next datagram and the node that sent it, as its certificate names it. The bytes
// are the caller's. An error is ctx's when that has ended, else it wraps [net.ErrClosed]: no more will come.
func (i *inbox) Receive(ctx context.Context) (from system.NodeID, b []byte, err error) {
	select {
	case <-i.closed: // what waits is of no use any more
	case <-ctx.Done():
	default:
		select {
		case l := <-i.letters:
			return l.from, l.b, nil
		case <-i.closed:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return "", nil, ctx.Err()
	}
	return "", nil, fmt.Errorf("receive a datagram: %w", net.ErrClosed)
}

// checkSize says that a datagram is too large.
func checkSize(b []byte) error {
	if len(b) > MaxDatagram {
		return fmt.Errorf("%d bytes: want at most %d in a datagram", len(b), MaxDatagram)
	}
	return nil
}
