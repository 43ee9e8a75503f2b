package link

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"servent/identity"
	"servent/system"
)

// Options of a [Secure] link.
type Options struct {
	Identity   *identity.Keeper
	Resolve    Resolver
	Emulation  Emulation
	Handshake  time.Duration // a TLS handshake may take; 0 means 10s
	Handshakes int           // accepted at a time, more wait in the kernel; 0 means 256
	Log        *slog.Logger  // of refused connections; nil discards

	Admit func(who Peer, proto Proto, from string) error // whom to take a connection of, by its certificate; nil: everybody of the cluster
}

// Secure is the link over TCP and mutual TLS 1.3. Both ends know each other by certificate: who dials a
// node gets that node or an error. TCP_NODELAY is on, as always in Go; keep-alive probes find a dead
// machine within ten seconds.
type Secure struct {
	*fabric
	o      Options
	dialer net.Dialer
	server *tls.Config
}

// aliveness finds out that a machine is gone when nothing is being said.
var aliveness = net.KeepAliveConfig{Enable: true, Idle: 4 * time.Second, Interval: 2 * time.Second, Count: 3}

// hello is the prefix of a protocol name that no server offers. With it a node says who it is before TLS
// has shown it, so that what answers it takes the emulated way at once. It is checked against the
// certificate afterwards.
const hello = "servent-from:"

// New makes a link. It dials at once and accepts when [Secure.Serve] runs.
func New(o Options) *Secure {
	if o.Handshake <= 0 {
		o.Handshake = 10 * time.Second
	}
	if o.Handshakes <= 0 {
		o.Handshakes = 256
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s := &Secure{
		fabric: newFabric(o.Identity.ID(), o.Emulation),
		o:      o,
		dialer: net.Dialer{KeepAliveConfig: aliveness},
		server: o.Identity.Server(),
	}
	s.server.GetConfigForClient = s.greet
	return s
}

// Dial opens a connection to a node; see [Link].
func (s *Secure) Dial(ctx context.Context, to system.NodeID, proto Proto) (Conn, error) {
	c, err := s.dial(ctx, to, proto)
	if err != nil {
		return nil, fmt.Errorf("dial %s for %s: %w", to, proto, err)
	}
	return c, nil
}

func (s *Secure) dial(ctx context.Context, to system.NodeID, proto Proto) (*conn, error) {
	at, ok := s.o.Resolve(to)
	if !ok {
		return nil, ErrUnknownNode
	}
	way := s.towards(to, at.Site)
	if err := way.setUp(ctx); err != nil {
		return nil, err
	}
	raw, err := s.dialer.DialContext(ctx, "tcp", at.Host)
	switch {
	case err != nil && ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && errors.Is(err, connRefused):
		return nil, fmt.Errorf("%s: %w", at.Host, ErrRefused)
	case err != nil:
		return nil, err
	}
	w, err := s.lay(raw.(*net.TCPConn))
	if err != nil {
		return nil, err
	}
	w.take(way)
	t := tls.Client(w, s.o.Identity.Client(identity.Is(to), string(proto), hello+string(s.self.Node)))
	if err := s.shake(ctx, t); err != nil {
		w.Close() // not abort: the alert that says why may still be on its way
		return nil, err
	}
	id, err := identity.PeerID(t.ConnectionState())
	if err == nil && t.ConnectionState().NegotiatedProtocol != string(proto) {
		err = fmt.Errorf("%s does not answer %s", to, proto)
	}
	if err != nil {
		w.Close()
		return nil, err
	}
	return s.join(t, w, Peer{id, at.Site}), nil
}

// shake makes the handshake within its time.
func (s *Secure) shake(ctx context.Context, t *tls.Conn) error {
	bounded, cancel := context.WithTimeout(ctx, s.o.Handshake)
	defer cancel()
	err := t.HandshakeContext(bounded)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return ctx.Err()
	case bounded.Err() != nil:
		return fmt.Errorf("TLS handshake: no end after %v: %w", s.o.Handshake, bounded.Err())
	}
	return fmt.Errorf("TLS handshake: %w", err)
}

// greet reads who is calling before anything is answered.
func (s *Secure) greet(call *tls.ClientHelloInfo) (*tls.Config, error) {
	for _, p := range call.SupportedProtos {
		if from, ok := strings.CutPrefix(p, hello); ok {
			node := system.NodeID(from)
			if at, known := s.o.Resolve(node); known {
				call.Conn.(*wire).take(s.towards(node, at.Site))
			}
		}
	}
	c := s.server.Clone()
	c.GetConfigForClient, c.NextProtos = nil, s.protos()
	return c, nil
}

// Serve accepts connections on ln until ctx ends, then closes ln and every connection of the link,
// dialled ones too, and returns nil when all it started has ended. It is called once; the link is of no
// use afterwards. It returns early only when ln fails.
func (s *Secure) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	var shakes sync.WaitGroup
	defer func() {
		cancel()
		s.stop()
		shakes.Wait()
	}()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	slots := make(chan struct{}, s.o.Handshakes)
	for pause := time.Duration(0); ; {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		raw, err := ln.Accept()
		if err != nil {
			<-slots
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return fmt.Errorf("serve the link on %s: %w", ln.Addr(), err)
			}
			// Out of files, or the peer left before it was accepted: it passes.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.o.Log.Warn("a connection was not accepted", "node", s.self.Node, "err", err)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
			}
			continue
		}
		pause = 0
		shakes.Go(func() {
			defer func() { <-slots }()
			if err := s.accept(ctx, raw); err != nil && ctx.Err() == nil && !errors.Is(err, io.EOF) {
				s.o.Log.Warn("refused a connection", "node", s.self.Node, "from", raw.RemoteAddr(), "err", err)
			}
		})
	}
}

// accept makes a connection of what knocked and hands it to its listener.
func (s *Secure) accept(ctx context.Context, raw net.Conn) error {
	tcp, ok := raw.(*net.TCPConn)
	if !ok {
		raw.Close()
		return fmt.Errorf("the link's listener gave a %T, want TCP", raw)
	}
	_ = tcp.SetKeepAliveConfig(aliveness) // a peer that has gone already fails in its handshake
	w, err := s.lay(tcp)
	if err != nil {
		return err
	}
	t := tls.Server(w, s.server)
	if err := s.shake(ctx, t); err != nil {
		w.Close()
		return err
	}
	state := t.ConnectionState()
	id, err := identity.PeerID(state)
	if err != nil {
		w.Close()
		return err
	}
	at, _ := s.o.Resolve(id.Node)
	way := s.towards(id.Node, at.Site)
	if said := w.leads(); said != nil && said.to.node != id.Node {
		w.Close()
		return fmt.Errorf("%s said that it was %s", id, said.to.node)
	}
	w.take(way)
	if s.o.Admit != nil {
		if err := s.o.Admit(Peer{id, at.Site}, Proto(state.NegotiatedProtocol), raw.RemoteAddr().String()); err != nil {
			w.Close()
			return fmt.Errorf("%s: %w", id, err)
		}
	}
	c := s.join(t, w, Peer{id, at.Site})
	if err := s.deliver(Proto(state.NegotiatedProtocol), c); err != nil {
		c.Close()
		return fmt.Errorf("%s: %w", id, err)
	}
	return nil
}
