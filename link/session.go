package link

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// session is what two nodes send each other datagrams with. It lives as long as the connection over
// which they agreed on it.
type session struct {
	peer    Peer
	conn    *conn
	dialled bool // by this node
	made    time.Time
	ends    time.Time         // by the peer's certificate or by age
	proof   *x509.Certificate // that this node showed
	in, out lane
	way     *way
	tally   *tally
	socket  *net.UDPConn
	at      netip.AddrPort // the peer's socket
	window  window         // the reader's alone
	sent    atomic.Uint64
	idle    atomic.Int32 // sweeps since the last datagram, either way
}

// end wakes the session's keeper, which closes it. It does not wait.
func (s *session) end() { _ = s.conn.SetReadDeadline(time.Unix(1, 0)) }

// accept makes sessions with peers that want one, until ctx ends.
func (d *Datagrams) accept(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, maxMeetings)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		c, err := d.ln.Accept()
		if err != nil {
			return // ctx has ended, or the whole link
		}
		all.Go(func() { d.answer(ctx, c.(*conn), func() { <-slots }) })
	}
}

// answer makes the session that a peer wants and keeps it until it ends.
func (d *Datagrams) answer(ctx context.Context, c *conn, free func()) {
	d.mu.Lock()
	p := d.peer(c.peer.Node)
	crowd := p.meetings >= 2
	if !crowd {
		p.meetings++
	}
	d.mu.Unlock()
	if crowd {
		free()
		c.Close()
		return
	}
	s, err := d.meet(ctx, c, false)
	free()
	d.settle(p, s, err, false)
	d.keep(ctx, p, s)
}

// dial makes sessions with peers that are wanted, until ctx ends.
func (d *Datagrams) dial(ctx context.Context) {
	var all sync.WaitGroup
	defer all.Wait()
	slots := make(chan struct{}, maxMeetings)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return
		}
		select {
		case p := <-d.want:
			all.Go(func() { d.reach(ctx, p, func() { <-slots }) })
		case <-ctx.Done():
			return
		}
	}
}

// reach makes a session with a peer and keeps it until it ends.
func (d *Datagrams) reach(ctx context.Context, p *acquaintance, free func()) {
	bounded, cancel := context.WithTimeout(ctx, 2*d.link.o.Handshake)
	var s *session
	c, err := d.link.dial(bounded, p.node, Datagram)
	if err == nil {
		s, err = d.meet(bounded, c, true)
	}
	cancel()
	free()
	d.settle(p, s, err, true)
	d.keep(ctx, p, s)
}

// meet makes a session over a connection, which is closed when that fails.
func (d *Datagrams) meet(ctx context.Context, c *conn, dialled bool) (*session, error) {
	ctx, cancel := context.WithTimeout(ctx, d.link.o.Handshake)
	defer cancel()
	s, err := d.newSession(c, dialled)
	if err == nil {
		err = d.introduce(ctx, s)
	}
	if err != nil {
		if s != nil {
			d.forget(s)
		}
		c.Close()
		return nil, err
	}
	return s, nil
}

// newSession agrees on the keys; from now on packets of the session are opened.
func (d *Datagrams) newSession(c *conn, dialled bool) (*session, error) {
	t, ok := c.stream.(*tls.Conn)
	if !ok {
		return nil, fmt.Errorf("agree on keys: a connection over %T, want TLS", c.stream)
	}
	state := t.ConnectionState()
	out, in, err := agree(&state, dialled)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	s := &session{
		peer: c.peer, conn: c, dialled: dialled, made: now, ends: now.Add(maxAge),
		proof: d.link.o.Identity.Credential().Certificate.Leaf,
		in:    in, out: out,
		way: d.link.towards(c.peer.Node, c.peer.Site), tally: c.tally,
	}
	if until := state.PeerCertificates[0].NotAfter; until.Before(s.ends) {
		s.ends = until
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lanes[in.number] != nil {
		return nil, errors.New("agree on keys: the session's number is taken")
	}
	s.socket = d.socket
	d.lanes[in.number] = s
	return s, nil
}

// introduce tells the peer on which port this node's packets arrive, which also says that it is ready for
// them, and waits for the same word.
func (d *Datagrams) introduce(ctx context.Context, s *session) error {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var word [2]byte
	binary.BigEndian.PutUint16(word[:], s.socket.LocalAddr().(*net.UDPAddr).AddrPort().Port())
	_, err := s.conn.Write(word[:])
	if err == nil {
		_, err = io.ReadFull(s.conn, word[:])
	}
	if err == nil {
		s.at, err = d.locate(ctx, s, binary.BigEndian.Uint16(word[:]))
	}
	if !stop() {
		err = ctx.Err()
	}
	return err
}

// locate finds the peer's machine: the one that was dialled, or for who dialled, the one under which the
// peer is known, because a machine may dial from another address than it listens on.
func (d *Datagrams) locate(ctx context.Context, s *session, port uint16) (netip.AddrPort, error) {
	remote, ok := s.conn.RemoteAddr().(*net.TCPAddr)
	if !ok || port == 0 {
		return netip.AddrPort{}, fmt.Errorf("%s receives no datagrams", s.peer.ID)
	}
	ip := remote.AddrPort().Addr().Unmap()
	if at, known := d.link.o.Resolve(s.peer.Node); known && !s.dialled {
		host, _, err := net.SplitHostPort(at.Host)
		if err != nil {
			return netip.AddrPort{}, err
		}
		all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if i := slices.IndexFunc(all, func(a netip.Addr) bool { return a.Unmap().Is4() == ip.Is4() }); i >= 0 {
			ip = all[i].Unmap()
		}
	}
	return netip.AddrPortFrom(ip, port), nil
}

// settle notes how an attempt to make a session ended, and sends what waited for it.
func (d *Datagrams) settle(p *acquaintance, s *session, err error, dialled bool) {
	d.mu.Lock()
	if dialled {
		p.dialling = false
	} else {
		p.meetings--
	}
	var waiting [][]byte
	var over []*session
	switch {
	case s != nil:
		over = d.admit(p, s)
		waiting, p.waiting = p.waiting, nil
		p.err, p.pause, p.again = nil, 0, time.Time{}
	case len(p.sessions) > 0 || p.dialling || p.meetings > 0: // not the last hope
	case dialled:
		p.err = err
		p.pause = min(max(2*p.pause, minPause), maxPause)
		p.again = time.Now().Add(p.pause)
		d.unsent.Add(int64(len(p.waiting)))
		p.waiting = nil
	case len(p.waiting) > 0:
		_ = d.enlist(p) // else the next datagram does
	}
	d.mu.Unlock()
	for _, o := range over {
		o.end()
	}
	for _, b := range waiting {
		if d.post(s, b) != nil {
			d.unsent.Add(1)
		}
	}
}

// admit makes s the peer's session and returns those that it replaces; mu is held. One before it is kept,
// for what is on its way: it ends when it is idle. When both nodes dial at once there are two sessions,
// and each node may use the one or the other.
func (d *Datagrams) admit(p *acquaintance, s *session) (over []*session) {
	p.sessions = append(p.sessions, s)
	same := 0
	for _, o := range slices.Backward(p.sessions) {
		if o.dialled == s.dialled {
			if same++; same > 2 {
				over = append(over, o)
			}
		}
	}
	if len(d.lanes) > maxSessions {
		var idlest *session
		for _, q := range d.peers {
			for _, o := range q.sessions {
				if o != s && (idlest == nil || o.idle.Load() > idlest.idle.Load()) {
					idlest = o
				}
			}
		}
		if idlest != nil {
			over = append(over, idlest)
		}
	}
	return over
}

// keep waits until either node closes the session, or its process or machine dies. Without a session it
// returns at once.
func (d *Datagrams) keep(ctx context.Context, p *acquaintance, s *session) {
	if s == nil {
		return
	}
	stop := context.AfterFunc(ctx, s.end)
	defer stop()
	_, _ = s.conn.Read(make([]byte, 1)) // whatever the peer says here, it is no longer what it should be
	d.mu.Lock()
	p.sessions = slices.DeleteFunc(p.sessions, func(o *session) bool { return o == s })
	d.mu.Unlock()
	d.forget(s)
	s.conn.Close()
}

// forget opens no more packets of a session.
func (d *Datagrams) forget(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.lanes, s.in.number)
}

// sweep looks after the sessions until ctx ends.
func (d *Datagrams) sweep(ctx context.Context) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			for _, s := range d.tidy(now) {
				s.end()
			}
		case <-ctx.Done():
			return
		}
	}
}

// tidy returns the sessions whose time is over, has those replaced whose time comes, and forgets peers
// that there is nothing about to know.
func (d *Datagrams) tidy(now time.Time) (over []*session) {
	proof := d.link.o.Identity.Credential().Certificate.Leaf
	d.mu.Lock()
	defer d.mu.Unlock()
	for node, p := range d.peers {
		for i, s := range p.sessions {
			old := s.dialled && now.Sub(s.made) > sessionAge || s.sent.Load() > renewPackets || s.proof != proof
			switch {
			case s.idle.Add(1) > int32(sessionIdle/sweepEvery), now.After(s.ends):
				over = append(over, s)
			case old && i == len(p.sessions)-1 && !p.dialling:
				_ = d.enlist(p) // else the next sweep does
			}
		}
		if len(p.sessions) == 0 && !p.dialling && p.meetings == 0 && now.After(p.again) {
			d.unsent.Add(int64(len(p.waiting)))
			delete(d.peers, node)
		}
	}
	return over
}
