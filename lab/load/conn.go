package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"servent/link"
)

// Classes of errors: why a request has no answer that counts.
const (
	Refused   = "refused"   // no door let it in: nobody listens
	Reset     = "reset"     // the connection was reset before an answer began
	Timeout   = "timeout"   // no whole answer in time
	NoAnswer  = "no answer" // the connection ended before an answer began
	Cut       = "cut"       // it broke within the answer
	Malformed = "malformed" // what came is not HTTP, or not what was expected
	NoDoor    = "no door"   // there was none to go to
	Dial      = "dial"      // it could not be connected for another reason
	TLS       = "tls"       // no secure connection came about: its certificate is not trusted, or it speaks no TLS
	Status    = "status"    // answered, with a status that is not right
	stopped   = "stopped"   // ctx ended first; not an error
)

// pause is how long a door that refused is left for others.
const pause = 100 * time.Millisecond

// fresh is how long an idle connection is taken for alive without a look.
const fresh = 20 * time.Millisecond

// conn is a connection to a door. One request at a time is on it.
type conn struct {
	net.Conn
	door  string
	rd    *bufio.Reader
	used  bool // it has answered before
	since time.Time
	got   int64 // bytes
}

// Read counts what comes.
func (c *conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.got += int64(n)
	return n, err
}

// pool is the connections of the clients at one site.
type pool struct {
	find    func(context.Context, uint64) (string, error) // nil: doors are known
	doors   func() []string
	dialing func(ctx context.Context, network, addr string) (net.Conn, error)
	secure  *tls.Config // nil: plain

	mu     sync.Mutex
	idle   map[string][]*conn
	open   map[*conn]struct{}
	down   map[string]time.Time // doors that refused, until when they are left alone
	closed bool
}

func newPool(s Site) *pool {
	p := &pool{find: s.Find, doors: s.Doors, dialing: s.Dial, secure: s.TLS, idle: map[string][]*conn{}, open: map[*conn]struct{}{}, down: map[string]time.Time{}}
	if p.dialing == nil {
		p.dialing = (&net.Dialer{KeepAlive: -1}).DialContext // requests notice a dead peer; probes cost system calls
	}
	return p
}

// failure is an error with its class.
type failure struct {
	class string
	door  string
	err   error
}

// get returns a connection for one of the clients that prefers the pick-th door: an idle one unless anew, else one that
// it dials. A door that refuses is left for another one.
func (p *pool) get(ctx context.Context, pick, client uint64, anew bool, deadline time.Time) (*conn, *failure) {
	doors, f := p.among(ctx, client, deadline)
	if f != nil {
		return nil, f
	}
	if len(doors) == 0 {
		return nil, &failure{class: NoDoor, err: errors.New("there is no live door")}
	}
	var last *failure
	for _, rested := range []bool{true, false} { // those that refused lately come last
		for i := range doors {
			door := doors[(pick+uint64(i))%uint64(len(doors))]
			if p.resting(door) == rested {
				continue
			}
			if !anew {
				if c := p.take(door); c != nil {
					return c, nil
				}
			}
			c, f := p.dial(ctx, door, deadline)
			if f == nil {
				return c, nil
			}
			if last = f; f.class == Timeout || f.class == stopped {
				return nil, f
			}
		}
		if last != nil && rested {
			break // all that were awake have failed just now
		}
	}
	return nil, last
}

// among are the doors that a client may go to: one, where it looks it up.
func (p *pool) among(ctx context.Context, client uint64, deadline time.Time) ([]string, *failure) {
	if p.find == nil {
		return p.doors(), nil
	}
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	door, err := p.find(ctx, client)
	if err != nil {
		class := NoDoor
		if c := classify(err, false); c == stopped || c == Timeout {
			class = c
		}
		return nil, &failure{class: class, err: err}
	}
	return []string{door}, nil
}

// resting says that a door refused a moment ago.
func (p *pool) resting(door string) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.down[door]
	return ok && time.Now().Before(until)
}

// take returns the idle connection to a door that was used last, if it still lives.
func (p *pool) take(door string) *conn {
	for {
		p.mu.Lock()
		list := p.idle[door]
		if len(list) == 0 {
			p.mu.Unlock()
			return nil
		}
		c := list[len(list)-1]
		p.idle[door] = list[:len(list)-1]
		p.mu.Unlock()
		if c.rd.Buffered() == 0 && (time.Since(c.since) < fresh || alive(c.Conn)) {
			return c
		}
		p.drop(c)
	}
}

func (p *pool) dial(ctx context.Context, door string, deadline time.Time) (*conn, *failure) {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	nc, err := p.dialing(ctx, "tcp", door)
	otherwise := Dial
	if err == nil && p.secure != nil {
		otherwise = TLS
		nc, err = handshake(ctx, nc, door, p.secure)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.down[door] = time.Now().Add(pause)
		class := classify(err, false)
		if class == Reset || class == NoAnswer || class == Dial {
			class = otherwise
		}
		return nil, &failure{class: class, door: door, err: err}
	}
	if p.closed {
		_ = nc.Close() // nobody waits for it
		return nil, &failure{class: stopped, door: door, err: context.Canceled}
	}
	delete(p.down, door)
	c := &conn{Conn: nc, door: door}
	c.rd = bufio.NewReaderSize(c, 8<<10)
	p.open[c] = struct{}{}
	return c, nil
}

// handshake makes a connection to a door secure: TLS, and HTTP/1.1 where the other end lets one choose. What
// it returns is closed on an error.
func handshake(ctx context.Context, nc net.Conn, door string, cfg *tls.Config) (net.Conn, error) {
	cfg = cfg.Clone()
	if host, _, err := net.SplitHostPort(door); err == nil && cfg.ServerName == "" {
		cfg.ServerName = host
	}
	cfg.NextProtos = []string{"http/1.1"}
	sc := tls.Client(nc, cfg)
	if err := sc.HandshakeContext(ctx); err != nil {
		_ = nc.Close() // the handshake's error says why
		return nil, err
	}
	return sc, nil
}

// Knock connects to a site's first door and hangs up: what keeps a load from it is known before it starts.
// The error says what, and its class is the first result.
func Knock(ctx context.Context, s Site, within time.Duration) (class string, err error) {
	p := newPool(s)
	defer p.close()
	if _, f := p.get(ctx, 0, 0, true, time.Now().Add(within)); f != nil {
		return f.class, f.err
	}
	return "", nil
}

// put keeps a connection for the next request.
func (p *pool) put(c *conn) {
	c.used, c.since = true, time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.idle[c.door] = append(p.idle[c.door], c)
	}
}

func (p *pool) drop(c *conn) {
	p.mu.Lock()
	delete(p.open, c)
	p.mu.Unlock()
	_ = c.Close() // whatever came of it, it is not used again
}

// close ends all connections, those in use, too, and lets no other be made.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	var all []*conn
	for c := range p.open {
		all = append(all, c)
	}
	p.mu.Unlock()
	for _, c := range all {
		p.drop(c)
	}
}

// classify names an error of a connection; begun says that some of the answer had come.
func classify(err error, begun bool) string {
	timeout, ok := errors.AsType[net.Error](err)
	switch {
	case errors.Is(err, net.ErrClosed), errors.Is(err, context.Canceled):
		return stopped
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), ok && timeout.Timeout():
		return Timeout
	case errors.Is(err, errMalformed):
		return Malformed
	case errors.Is(err, link.ErrRefused), errors.Is(err, connRefused):
		return Refused
	case isReset(err), errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		if begun {
			return Cut
		}
		if isReset(err) {
			return Reset
		}
		return NoAnswer
	}
	if begun {
		return Cut
	}
	return Dial
}

func isReset(err error) bool {
	return slices.ContainsFunc(resets, func(e syscall.Errno) bool { return errors.Is(err, e) })
}
