package l7

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"servent/request/h1"
)

const (
	maxHead  = h1.MaxHead // bytes of a request's line and headers
	headWait = 10 * time.Second
	idleWait = 2 * time.Minute // a quiet connection of a client
	moveWait = time.Minute     // that a client may let pass without a byte of its request's body, or without taking one of the answer
	grace    = 10 * time.Second
)

// Serve answers on ln until ctx ends, gives open requests 10s, and returns nil after a clean stop, when
// no handler runs any more. Connections that have switched protocols end with the last open request.
// What is not strict HTTP/1.1 gets 400 and never reaches h.
func (s *Switch) Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	return s.serve(ctx, ln, h, false)
}

// ServeTLS is Serve to clients that speak TLS alone.
func (s *Switch) ServeTLS(ctx context.Context, ln net.Listener, h http.Handler) error {
	if s.o.TLS == nil {
		return errors.New("serve TLS: there are no certificates")
	}
	return s.serve(ctx, ln, h, true)
}

func (s *Switch) serve(ctx context.Context, ln net.Listener, h http.Handler, insist bool) error {
	if s.o.Reference {
		return s.serveReference(ctx, ln, h)
	}
	base, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	e := &engine{s: s, h: h, insist: insist, base: base, open: map[*conn]struct{}{}, quiet: make(chan struct{}), model: (&http.Request{}).WithContext(base)}
	if s.o.TLS != nil {
		e.second = e.newSecond(ln.Addr())
		e.gone.Go(func() { _ = e.second.base.Serve(e.second) }) // it ends when it is shut down
	}
	stopped := make(chan error, 1) // buffered: the sender can always leave
	stop := context.AfterFunc(ctx, func() {
		_ = ln.Close()
		stopped <- e.drain()
	})
	err := e.accept(ctx, ln)
	if stop() { // ctx still lives: the listener failed on its own
		_ = ln.Close()
		err = fmt.Errorf("serve %s: %w", ln.Addr(), err)
	} else if err = <-stopped; err != nil {
		err = fmt.Errorf("stop serving %s: %w", ln.Addr(), err)
	}
	end()
	if e.second != nil {
		_ = e.second.base.Close() // what is left
	}
	if e.joined.Load() {
		s.loops.each(func(l *loop) { l.cut(e) })
	}
	e.cut()
	e.gone.Wait()
	if e.joined.Load() {
		s.loops.close()
	}
	return err
}

// engine serves one listener: by a goroutine for each connection, or by the switch's loops.
type engine struct {
	s      *Switch
	h      http.Handler
	insist bool            // on TLS
	base   context.Context // of all requests
	second *second         // of connections of HTTP/2; nil without TLS
	stops  atomic.Bool     // no connection is kept for another request; set with mu held
	model  *http.Request   // with that context, for copies
	joined atomic.Bool     // it has part in the switch's loops
	told   sync.Once       // that it cannot have
	gone   sync.WaitGroup  // connections, those that have switched protocols too, as long as their handler runs

	mu    sync.Mutex         // guards what follows
	open  map[*conn]struct{} // that have not switched protocols
	far   int                // connections of loops
	quiet chan struct{}      // closed when it stops and none is open
	shut  bool               // quiet is closed
}

// accept returns when the listener fails or is closed.
func (e *engine) accept(ctx context.Context, ln net.Listener) error {
	for pause := time.Duration(0); ; {
		nc, err := ln.Accept()
		if err != nil {
			var ne net.Error
			if errors.Is(err, net.ErrClosed) || !errors.As(err, &ne) || !temporary(ne) {
				return err
			}
			pause = min(max(2*pause, 5*time.Millisecond), time.Second) // as net/http does: out of files, say
			select {
			case <-e.base.Done():
				return err
			case <-time.After(pause):
			}
			continue
		}
		pause = 0
		if e.events() && e.move(nc) {
			e.attend(ctx, ln)
			continue
		}
		e.unbuilt()
		c := newConn(e, nc, nc.RemoteAddr().String())
		if !e.add(c) {
			_ = nc.Close()
			c.left()
			continue
		}
		go c.serve(nil)
	}
}

func temporary(err net.Error) bool {
	t, ok := err.(interface{ Temporary() bool })
	return ok && t.Temporary()
}

func (e *engine) add(c *conn) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stops.Load() {
		return false
	}
	e.gone.Add(1)
	e.open[c] = struct{}{}
	return true
}

// leave says that a connection has ended or switched protocols.
func (e *engine) leave(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.open, c)
	e.calm()
}

// calm is called with mu held.
func (e *engine) calm() {
	if e.stops.Load() && len(e.open) == 0 && e.far == 0 && !e.shut {
		e.shut = true
		close(e.quiet)
	}
}

// drain closes idle connections and waits for the requests of others.
func (e *engine) drain() error {
	e.mu.Lock()
	e.stops.Store(true)
	for c := range e.open {
		if c.phase.CompareAndSwap(idle, closing) {
			_ = c.nc.Close()
		}
	}
	e.calm()
	e.mu.Unlock()
	if e.joined.Load() {
		e.s.loops.each(func(l *loop) { l.quieten(e) })
	}
	if e.second != nil {
		late, cancel := context.WithTimeout(context.WithoutCancel(e.base), grace)
		defer cancel()
		go e.second.drain(late) // ends with this function
	}
	patience := time.NewTimer(grace)
	defer patience.Stop()
	select {
	case <-e.quiet:
		return nil
	case <-patience.C:
		return fmt.Errorf("requests were still open after %v", grace)
	}
}

// cut closes what is left.
func (e *engine) cut() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stops.Store(true)
	for c := range e.open {
		_ = c.nc.Close()
		c.left()
	}
	e.calm()
}
