// Package dns is the switch by name: the authoritative name server of a system's zone. It answers who has an instance
// of a service, chosen for every query by health, weight, site and the client's network, with short lifetimes. It
// resolves nothing: a name outside the zone is refused. Start at [Server]; a query's way is [Server.reply].
//
// What clients usually ask is answered from bytes to bytes (wire.go); anything unusual goes by
// github.com/miekg/dns (slow.go), which answers everything that the wire path does, too, and is what tests hold it against.
package dns

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Options of a [Server]. Zone must be set.
type Options struct {
	Zone    func() *Zone          // the present one; nil: none yet, all is refused
	Rate    int                   // answers a second to one network (IPv4 /24, IPv6 /56) about one name; 0 means 200, negative no bound
	Slip    int                   // every so many answers beyond the rate one goes out, truncated; 0 means 2, negative none does
	Exempt  func(netip.Addr) bool // whose answers are not bounded; nil: loopback addresses, which nobody can forge from outside
	Sockets int                   // of UDP, each with its own thread of work, where the system shares a port among them (Linux); 0 means 1
	Conns   int                   // TCP connections at once, further ones are closed; 0 means 256
	Idle    time.Duration         // of a TCP connection that asks nothing; 0 means 10s (RFC 7766 §6.2.3)
	Log     *slog.Logger          // nil discards
}

// Server answers queries. Its methods may serve several addresses at once.
type Server struct {
	o     Options
	mu    sync.Mutex // guards tolls
	tolls []*tally
	tcp   tally         // of all TCP connections
	conns chan struct{} // one a TCP connection
}

const (
	// Payload is the largest answer over UDP: what fits into one packet of IPv6's least MTU, as the DNS flag day of 2020 has it.
	Payload = 1232
	least   = 512 // bytes that a client without EDNS takes (RFC 1035 §4.2.1)
	most    = 65535
)

// New makes a server; it starts nothing.
func New(o Options) *Server {
	if o.Rate == 0 {
		o.Rate = 200
	}
	if o.Slip == 0 {
		o.Slip = 2
	}
	if o.Exempt == nil {
		o.Exempt = netip.Addr.IsLoopback
	}
	if o.Sockets <= 0 {
		o.Sockets = 1
	}
	if o.Conns <= 0 {
		o.Conns = 256
	}
	if o.Idle <= 0 {
		o.Idle = 10 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{o: o, conns: make(chan struct{}, o.Conns)}
}

// Counts are what came and what became of it, since the server was made.
type Counts struct {
	Queries   int64 `json:"queries"`   // that were answered or dropped
	Answered  int64 `json:"answered"`  // with records
	NoData    int64 `json:"nodata"`    // the name has no such record (RFC 2308 §2.2)
	NXDomain  int64 `json:"nxdomain"`  // the zone has no such name
	Refused   int64 `json:"refused"`   // outside the zone, a transfer, another class
	Malformed int64 `json:"malformed"` // FORMERR, NOTIMP or BADVERS
	Ignored   int64 `json:"ignored"`   // no answer at all: too short, or itself an answer
	Limited   int64 `json:"limited"`   // not sent: too many to one network
	Slipped   int64 `json:"slipped"`   // sent truncated instead, so that a true client comes by TCP
	Truncated int64 `json:"truncated"` // larger than the client takes
	Slow      int64 `json:"slow"`      // of the queries: not by the wire path
	TCP       int64 `json:"tcp"`       // of the queries
}

// tally is the counts of one socket, so that sockets share no cache line.
type tally struct {
	is [kinds]atomic.Int64
	limited, slipped, truncated,
	slow, tcp atomic.Int64
	_ [64]byte
}

// Counts adds up what all sockets counted.
func (s *Server) Counts() (c Counts) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range append(slices.Clip(s.tolls), &s.tcp) {
		for k := range t.is {
			c.Queries += t.is[k].Load()
		}
		c.Answered += t.is[answered].Load()
		c.NoData += t.is[noData].Load()
		c.NXDomain += t.is[nxDomain].Load()
		c.Refused += t.is[refused].Load()
		c.Malformed += t.is[malformed].Load()
		c.Ignored += t.is[ignored].Load()
		c.Limited += t.limited.Load()
		c.Slipped += t.slipped.Load()
		c.Truncated += t.truncated.Load()
		c.Slow += t.slow.Load()
		c.TCP += t.tcp.Load()
	}
	return c
}

// kind is what an answer is.
type kind uint8

const (
	ignored kind = iota
	answered
	noData
	nxDomain
	refused
	malformed
	kinds
)

// Serve answers at an address, over UDP and TCP, until ctx ends; then it returns nil when all that it started has ended.
// The address must be one of the machine's own, not 0.0.0.0 or [::]: an answer leaves from where the query arrived.
// ready, if not nil, is called with the address once both are open: port 0 takes one that is free.
func (s *Server) Serve(ctx context.Context, addr string, ready func(netip.AddrPort)) error {
	ln, socks, err := s.listen(ctx, addr)
	if err != nil {
		return fmt.Errorf("name server on %s: %w", addr, err)
	}
	if ready != nil {
		ready(ln.Addr().(*net.TCPAddr).AddrPort())
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	stop := context.AfterFunc(ctx, func() {
		_ = ln.Close() // both end reading
		for _, c := range socks {
			_ = c.Close()
		}
	})
	defer stop()
	part := func(f func() error) {
		wg.Go(func() {
			if err := f(); ctx.Err() == nil {
				cancel(fmt.Errorf("name server on %s: %w", addr, err))
			}
		})
	}
	part(func() error { return s.accept(ctx, ln) })
	for _, c := range socks {
		part(func() error { return s.datagrams(c) })
	}
	<-ctx.Done()
	wg.Wait()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return nil
}

// listen opens the port for TCP first, which nobody shares: so that two servers never share it for UDP unnoticed.
func (s *Server) listen(ctx context.Context, addr string) (ln net.Listener, socks []*net.UDPConn, err error) {
	for range 10 { // a free port of TCP may be taken for UDP
		if ln, err = new(net.ListenConfig).Listen(ctx, "tcp", addr); err != nil {
			return nil, nil, err
		}
		at := ln.Addr().(*net.TCPAddr).AddrPort()
		if at.Addr().IsUnspecified() {
			ln.Close()
			return nil, nil, errors.New("want one address of this machine, not all: an answer must leave from where its query arrived")
		}
		if socks, err = share(ctx, at.String(), s.o.Sockets); err == nil {
			return ln, socks, nil
		}
		ln.Close()
		if _, port, _ := net.SplitHostPort(addr); port != "0" {
			break
		}
	}
	return nil, nil, err
}

// worker is what answers on one socket or connection.
type worker struct {
	s     *Server
	count *tally
	limit *limiter // nil over TCP: who has shaken hands has not forged its address
	rnd   *rand.Rand
	now   time.Time
}

// datagram is the worker of a socket, which counts for itself.
func (s *Server) datagram() *worker {
	t := &tally{}
	s.mu.Lock()
	s.tolls = append(s.tolls, t)
	s.mu.Unlock()
	w := s.worker(t)
	w.limit = newLimiter(s.o.Rate, s.o.Slip)
	return w
}

func (s *Server) worker(count *tally) *worker {
	return &worker{s: s, count: count, rnd: rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())), now: time.Now()}
}

// reply writes the answer to a query into out, which is [room] long, and returns its length; 0: there is none.
func (w *worker) reply(query, out []byte, from netip.Addr, tcp bool) int {
	a := ask{zone: w.s.o.Zone(), from: from, now: w.now, rnd: w.rnd.Uint64(), room: most}
	if !tcp {
		a.room = least
	}
	n, ok := a.wire(query, out, tcp)
	if !ok {
		w.count.slow.Add(1)
		n = a.slow(query, out, tcp)
	}
	w.count.is[a.kind].Add(1)
	if a.cut {
		w.count.truncated.Add(1)
	}
	if tcp {
		w.count.tcp.Add(1)
	}
	if n == 0 || w.limit == nil || w.s.o.Exempt(from) {
		return n
	}
	switch w.limit.judge(from, a.token(), w.now) {
	case drop:
		w.count.limited.Add(1)
		return 0
	case slip:
		w.count.slipped.Add(1)
		return truncate(out[:n])
	}
	return n
}
