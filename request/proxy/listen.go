package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

const (
	headerWithin = 5 * time.Second
	lastWithin   = 200 * time.Millisecond // when no more are taken
	pending      = 64                     // connections of one service that nobody has taken yet; further ones wait
	mostUnread   = 1024                   // connections at once whose header has not come; further ones wait in the kernel
)

// Inlet takes connections that were passed on, and gives each to the door that it is for.
type Inlet struct {
	key Key
	log *slog.Logger

	mu    sync.Mutex
	doors map[string]*door
	came  chan struct{} // closed when there is another door
}

// NewInlet makes one; log must be set.
func NewInlet(key Key, log *slog.Logger) *Inlet {
	return &Inlet{key: key, log: log, doors: map[string]*door{}, came: make(chan struct{})}
}

// Door is what comes for a service, from now until it is closed. A later one of the same service takes its place.
func (in *Inlet) Door(service string, addr net.Addr) net.Listener {
	d := &door{in: in, service: service, addr: addr, conns: make(chan net.Conn, pending), closed: make(chan struct{})}
	in.mu.Lock()
	defer in.mu.Unlock()
	in.doors[service] = d
	close(in.came)
	in.came = make(chan struct{})
	return d
}

// Serve takes connections until ctx ends; it returns nil then.
func (in *Inlet) Serve(ctx context.Context, ln net.Listener) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	return accept(ctx, ln, &all, func(c *net.TCPConn) { in.take(ctx, c) })
}

// accept takes connections until ctx ends, which is no error, or ln is closed. A bounded number is under way in all at a time.
func accept(ctx context.Context, ln net.Listener, all *sync.WaitGroup, handle func(*net.TCPConn)) error {
	room := make(chan struct{}, mostUnread)
	for {
		room <- struct{}{}
		c, err := ln.Accept()
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, net.ErrClosed) {
			return err
		}
		if err != nil { // out of files, say: some come back
			<-room
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		all.Go(func() {
			defer func() { <-room }()
			handle(c.(*net.TCPConn))
		})
	}
}

// take reads the header and hands the connection over.
func (in *Inlet) take(ctx context.Context, c *net.TCPConn) {
	_ = c.SetReadDeadline(time.Now().Add(headerWithin))
	hurried := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		_ = c.SetReadDeadline(time.Now().Add(lastWithin))
		close(hurried)
	})
	h, err := in.key.Read(c)
	if !stop() {
		<-hurried
	}
	if err != nil {
		in.log.Warn("a connection that nobody passed on", "addr", c.RemoteAddr(), "err", err)
		_ = c.Close()
		return
	}
	_ = c.SetReadDeadline(time.Time{})
	late := time.NewTimer(headerWithin)
	defer late.Stop()
	for {
		in.mu.Lock()
		d, came := in.doors[h.Service], in.came
		in.mu.Unlock()
		var conns chan net.Conn
		var closed chan struct{}
		if d != nil {
			conns, closed = d.conns, d.closed
		}
		select {
		case conns <- &Conn{c, h}:
			select {
			case <-closed: // just now, and who closed it may not have seen this one
				d.drop()
			default:
			}
			return
		case <-closed: // another may come
		case <-came:
		case <-ctx.Done():
			select {
			case conns <- &Conn{c, h}: // its door is still there
			default:
				reset(c)
			}
			return
		case <-late.C:
			in.log.Warn("a connection for a service that has no door here", "service", h.Service, "addr", h.Client)
			reset(c)
			return
		}
	}
}

// reset says "not here" where a silent end would say "empty".
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// door implements [net.Listener].
type door struct {
	in      *Inlet
	service string
	addr    net.Addr
	conns   chan net.Conn
	once    sync.Once
	closed  chan struct{}
}

func (d *door) Accept() (net.Conn, error) {
	select {
	case c := <-d.conns:
		return c, nil
	case <-d.closed:
		return nil, &net.OpError{Op: "accept", Net: "tcp", Addr: d.addr, Err: net.ErrClosed}
	}
}

// Close ends it; what nobody has taken is closed, too.
func (d *door) Close() error {
	d.once.Do(func() {
		d.in.mu.Lock()
		if d.in.doors[d.service] == d {
			delete(d.in.doors, d.service)
		}
		d.in.mu.Unlock()
		close(d.closed)
		d.drop()
	})
	return nil
}

// drop ends what nobody takes any more.
func (d *door) drop() {
	for {
		select {
		case c := <-d.conns:
			reset(c.(*Conn).TCPConn)
		default:
			return
		}
	}
}

func (d *door) Addr() net.Addr { return d.addr }
