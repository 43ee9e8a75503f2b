// Package l4 switches connections at the transport layer: TCP, one instance for the life of a
// connection, bytes passed on as they are. A connection that enters at any node is joined to any
// instance, here or through a tunnel to the instance's node; until it is joined, one instance after the
// other may be tried. It places nothing, understands no protocol above TCP and opens no connection to
// another node but by the way that it is handed. Start at [Switch]; the life of a connection is
// [Switch.carry].
package l4

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
	"servent/link"
	"servent/meter"
	"servent/route"
	"servent/system"
)

// Options of a [Switch]. Self and Table must be set.
type Options struct {
	Self    system.NodeID
	Table   func() *route.Table    // the present table; nil as long as there is none
	Changed func() <-chan struct{} // closed at the next table swap; nil: tables never change
	// Local finds an instance on this node; nil: there are none.
	Local func(system.InstanceID) (driver.Endpoint, bool)
	// Dial opens a tunnel to another node, whose switch takes it by [Switch.Peer]. nil: none.
	Dial    func(context.Context, system.NodeID) (net.Conn, error)
	Station *link.Station // of an emulated node: it charges for what is served here and what is sent onward
	Meter   *meter.Book   // nil counts nothing; a connection counts as a request, its latency is that of joining
	Hold    time.Duration // how long a connection may wait for an instance; 0 means 10s, negative not at all
	Waiters int           // connections that may wait so at once, more are refused; 0 means 1024
	Conns   int           // connections open at once, more wait to be accepted; 0 means 16384
	Log     *slog.Logger  // nil discards
}

// Switch joins connections to instances. Its methods may serve many listeners at once.
type Switch struct {
	o       Options
	loads   route.Loads
	turns   route.Turns
	pickers sync.Map // service and policy → route.Picker
	served  sync.Map // system.InstanceID → *atomic.Int64, connections that this node's instances hold
	waiting atomic.Int64
	slots   chan struct{} // one a connection
}

const (
	grace    = 10 * time.Second // that open connections get when a listener stops
	greeting = 10 * time.Second // to join an instance, or to say which one
)

// New makes a switch; it starts nothing.
func New(o Options) *Switch {
	if o.Hold == 0 {
		o.Hold = 10 * time.Second
	}
	if o.Waiters == 0 {
		o.Waiters = 1024
	}
	if o.Conns == 0 {
		o.Conns = 16384
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Changed == nil {
		o.Changed = func() <-chan struct{} { return nil }
	}
	return &Switch{o: o, slots: make(chan struct{}, o.Conns)}
}

// Serve is a service's door on this node. It returns nil when ctx has ended and the open connections
// too, or after 10s, when they are cut.
func (s *Switch) Serve(ctx context.Context, ln net.Listener, service system.ServiceName) error {
	return s.accept(ctx, ln, func(ctx context.Context, c net.Conn) {
		s.carry(ctx, c, func(t *route.Table) route.Target { return t.Door(service) })
	})
}

// ServeTo is a door to one instance, which pick names under each table: an instance's own door or the
// one to its next. As long as pick has none, connections wait if the service of the ID that it returns
// is coming. It ends as [Switch.Serve] does.
func (s *Switch) ServeTo(ctx context.Context, ln net.Listener, pick func(*route.Table) (route.Instance, bool)) error {
	return s.accept(ctx, ln, func(ctx context.Context, c net.Conn) {
		s.carry(ctx, c, func(t *route.Table) route.Target { return t.One(pick) })
	})
}

// Inflight is how many connections an instance of this node holds now, whichever node they entered by.
func (s *Switch) Inflight(id system.InstanceID) int {
	if n, ok := s.served.Load(id); ok {
		return int(n.(*atomic.Int64).Load())
	}
	return 0
}

func (s *Switch) serving(id system.InstanceID) *atomic.Int64 {
	if n, ok := s.served.Load(id); ok {
		return n.(*atomic.Int64)
	}
	n, _ := s.served.LoadOrStore(id, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// accept hands each connection to handle, which owns it while it runs. The context of handle ends when
// the time for open connections is over.
func (s *Switch) accept(ctx context.Context, ln net.Listener, handle func(context.Context, net.Conn)) error {
	base, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var open sync.WaitGroup
	var failed error
	for pause := time.Duration(0); ctx.Err() == nil; {
		c, err := ln.Accept()
		switch {
		case err == nil:
		case ctx.Err() != nil:
			continue
		case errors.Is(err, net.ErrClosed):
			failed = fmt.Errorf("serve %s: %w", ln.Addr(), err)
		default: // no more files, or a client that left at once: neither is the end
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.o.Log.Warn("cannot accept a connection; tries again", "err", err, "dur", pause)
			sleep(ctx, pause)
			continue
		}
		if failed != nil {
			break
		}
		pause = 0
		select {
		case s.slots <- struct{}{}:
			open.Go(func() {
				defer func() { <-s.slots }()
				defer c.Close()
				handle(base, c)
			})
		case <-ctx.Done():
			reset(c)
		}
	}
	if failed == nil {
		drained, done := context.WithCancel(base)
		var clock sync.WaitGroup
		clock.Go(func() { sleep(drained, grace); cut() })
		open.Wait()
		done()
		clock.Wait()
	}
	cut()
	open.Wait()
	return failed
}

// sleep returns after d, or when ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}

// reset ends a connection at once: the other side learns that it broke.
func reset(c net.Conn) {
	if tcp, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}

func (s *Switch) table() *route.Table {
	if t := s.o.Table(); t != nil {
		return t
	}
	return &route.Table{Self: s.o.Self}
}

// place is an instance where it was tried.
type place struct {
	id   system.InstanceID
	node system.NodeID
}

// choose picks one of a target's instances that was not tried yet. A client that stays with an instance gets it for
// as long as the table has it. What hash and maglev go by is the client's address, too: a connection has no other key.
func (s *Switch) choose(t *route.Table, to route.Target, client net.Conn, tried []place) (route.Instance, bool) {
	now := time.Now()
	load := func(id system.InstanceID) route.Load { return s.loads.Of(id, now, t) }
	avoid := func(in route.Instance) bool {
		for _, p := range tried {
			if p.id == in.ID && p.node == in.Node {
				return true
			}
		}
		return false
	}
	key := route.Key(source(client))
	if to.Sticky == "source" || to.Sticky == "key" { // the key of a connection is its source
		return route.Stick(to.Among, key, avoid)
	}
	type name struct {
		service system.ServiceName
		policy  string
	}
	picker, ok := s.pickers.Load(name{to.Service, to.Policy})
	if !ok {
		picker, _ = s.pickers.LoadOrStore(name{to.Service, to.Policy}, route.NewPicker(to.Policy))
	}
	return route.Choose(picker.(route.Picker), route.Ask{Now: now, Rnd: rand.Uint64(), Key: key, Among: to.Among, Load: load}, avoid)
}

// source is the host that a client connects from.
func source(client net.Conn) string {
	host, _, err := net.SplitHostPort(client.RemoteAddr().String())
	if err != nil {
		return client.RemoteAddr().String()
	}
	return host
}

// watch calls lost when the node is no longer seen. It returns then, or when ctx ends.
func (s *Switch) watch(ctx context.Context, node system.NodeID, lost func()) {
	for {
		changed := s.o.Changed() // before the table, so that no swap is missed
		if !s.table().Alive(node) {
			lost()
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}
