package l7

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"servent/request/h1"
)

const (
	handshake = 22       // the first byte of TLS: the type of a record (RFC 8446 §5.1); no method begins so
	streams   = 250      // requests at once on a connection of HTTP/2
	frame     = 16 << 10 // bytes of a frame that a client may send: the least that there is (RFC 9113 §6.5.2)
	pingAfter = 30 * time.Second
)

// plainHTTP is the answer to who speaks HTTP where only TLS is spoken.
const plainHTTP = "this port speaks https; the request came as plain HTTP"

// Handshake reads the first byte of a client that must speak TLS. It returns nil when that does not come, or is another; then
// the client was told.
func Handshake(c net.Conn) []byte {
	first := make([]byte, 1)
	_ = c.SetReadDeadline(time.Now().Add(headWait))
	if _, err := io.ReadFull(c, first); err != nil {
		return nil
	}
	_ = c.SetReadDeadline(time.Time{})
	if first[0] == handshake {
		return first
	}
	_, _ = c.Write(refusal(&h1.Error{Status: http.StatusBadRequest, Why: plainHTTP})) // the connection ends in any case
	return nil
}

// secure goes on under TLS if that is what the client's first byte says, and this switch speaks it. done says that the
// connection is served: it spoke HTTP/2, or its handshake failed.
func (c *conn) secure() (done bool) {
	first := c.in.Peeked()
	if c.tls || c.e.s.o.TLS == nil {
		return false
	}
	if first[0] != handshake {
		if c.e.insist {
			c.reject(&h1.Error{Status: http.StatusBadRequest, Why: plainHTTP})
		}
		return c.e.insist
	}
	c.tls = true
	under := &rewound{Conn: c.nc, head: slices.Clone(first)}
	c.in.Drop()
	over := tls.Server(under, c.e.s.o.TLS)
	c.e.mu.Lock()
	c.nc, c.raw = over, nil
	c.e.mu.Unlock()
	ctx, cancel := context.WithTimeout(c, c.e.s.headFor)
	defer cancel()
	c.until(time.Time{}, 0)
	if err := over.HandshakeContext(ctx); err != nil {
		c.e.s.o.Log.Debug("handshake failed", "addr", c.remote, "err", err)
		return true
	}
	state := over.ConnectionState()
	c.model.TLS = &state
	switch state.NegotiatedProtocol {
	case "", "http/1.1":
		return false
	case "h2":
		c.e.second.serve(over)
	}
	return true
}

// second serves connections of HTTP/2 (RFC 9113), by net/http. It is the listener that they come by.
type second struct {
	base  *http.Server
	addr  net.Addr
	conns chan net.Conn
	ended chan struct{} // by net/http: no more are taken
	once  sync.Once
	open  sync.Map // net.Conn → chan struct{}, closed when net/http has done with it
}

func (e *engine) newSecond(addr net.Addr) *second {
	s := &second{addr: addr, conns: make(chan net.Conn), ended: make(chan struct{})}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	s.base = &http.Server{
		Protocols: protocols, MaxHeaderBytes: maxHead, ReadHeaderTimeout: headWait, IdleTimeout: idleWait,
		HTTP2:       &http.HTTP2Config{MaxConcurrentStreams: streams, MaxReadFrameSize: frame, SendPingTimeout: pingAfter, WriteByteTimeout: moveWait},
		BaseContext: func(net.Listener) context.Context { return e.base },
		ErrorLog:    slog.NewLogLogger(e.s.o.Log.Handler(), slog.LevelDebug),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RequestURI == "*" { // RFC 9110 §9.3.7: it asks the door itself
				w.Header().Set("Content-Length", "0")
				return
			}
			e.h.ServeHTTP(w, r)
		}),
		ConnState: func(c net.Conn, state http.ConnState) {
			if done, ok := s.open.Load(c); ok && state == http.StateClosed {
				close(done.(chan struct{}))
			}
		},
	}
	return s
}

// serve returns when the connection has ended.
func (s *second) serve(c net.Conn) {
	done := make(chan struct{})
	s.open.Store(c, done)
	defer s.open.Delete(c)
	select {
	case s.conns <- c:
		<-done
	case <-s.ended:
	}
}

// drain has clients open no more requests; those that are open are answered.
func (s *second) drain(patience context.Context) { _ = s.base.Shutdown(patience) } // who waits sees what is left

func (s *second) Accept() (net.Conn, error) {
	select {
	case c := <-s.conns:
		return c, nil
	case <-s.ended:
		return nil, net.ErrClosed
	}
}

func (s *second) Close() error {
	s.once.Do(func() { close(s.ended) })
	return nil
}

func (s *second) Addr() net.Addr { return s.addr }

// rewound is a connection whose first bytes were read already.
type rewound struct {
	net.Conn
	head []byte
}

func (r *rewound) Read(p []byte) (int, error) {
	if len(r.head) > 0 {
		n := copy(p, r.head)
		r.head = r.head[n:]
		return n, nil
	}
	return r.Conn.Read(p)
}
