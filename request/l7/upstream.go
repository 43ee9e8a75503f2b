package l7

import (
	"cmp"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/textproto"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"servent/driver"
	"servent/request/h1"
	"servent/request/proxy"
)

const (
	idleMost     = 1024 // connections kept for the next request, of one instance
	interimMost  = 32   // answers of the 1xx kind before the final one
	continueWait = time.Second
	inlineMost   = 16 << 10 // bytes of a body that are written before the answer is read
)

// upstreams are connections to instances of this node, kept for the next request. It starts no goroutine but that which
// writes a long body.
type upstreams struct {
	mu   sync.Mutex             // guards what follows
	idle map[string][]*upstream // by address, the last used last
	reap *time.Timer            // nil: nothing is idle
}

// keeper keeps connections to instances for the next request.
type keeper interface{ give(*upstream) }

// upstream is one connection. It belongs to one exchange, or is idle.
type upstream struct {
	nc    net.Conn
	raw   syscall.RawConn
	in    *h1.Reader
	at    string
	used  bool      // for an exchange before this one
	since time.Time // it is idle
	dead  atomic.Bool

	begun atomic.Int32  // of the body's writer: 1 it reads the body, 2 it never will
	whole atomic.Bool   // the request was written whole
	go100 chan bool     // tells the writer that its body is wanted, or not
	over  chan struct{} // closed when the exchange is
}

// cut closes the connection, whoever uses it.
func (u *upstream) cut() {
	if u.dead.CompareAndSwap(false, true) {
		_ = u.nc.Close()
	}
}

// take returns an idle connection, or nil. again says that the request may be repeated: it may then meet a connection of which nobody can
// tell beforehand whether it is still open.
func (p *upstreams) take(at string, again bool) *upstream {
	now := time.Now()
	for {
		p.mu.Lock()
		all := p.idle[at]
		if len(all) == 0 {
			p.mu.Unlock()
			return nil
		}
		u := all[len(all)-1]
		all[len(all)-1] = nil
		p.idle[at] = all[:len(all)-1]
		p.mu.Unlock()
		if now.Sub(u.since) < idleFor && (u.raw != nil || again) && silent(u.raw) {
			return u
		}
		u.cut()
	}
}

// give keeps a connection for the next request.
func (p *upstreams) give(u *upstream) {
	u.used, u.since = true, time.Now()
	u.in.Release()
	p.mu.Lock()
	keep := len(p.idle[u.at]) < idleMost && !u.dead.Load()
	if keep {
		if p.idle == nil {
			p.idle = map[string][]*upstream{}
		}
		p.idle[u.at] = append(p.idle[u.at], u)
		if p.reap == nil {
			p.reap = time.AfterFunc(idleFor, p.clean)
		}
	}
	p.mu.Unlock()
	if !keep {
		u.cut()
	}
}

// clean closes what has been idle for too long.
func (p *upstreams) clean() { p.drop(time.Now().Add(-idleFor)) }

// close closes what is idle.
func (p *upstreams) close() { p.drop(time.Now().Add(time.Hour)) }

func (p *upstreams) drop(before time.Time) {
	var old []*upstream
	p.mu.Lock()
	for at, all := range p.idle {
		n := 0
		for n < len(all) && !all[n].since.After(before) {
			n++
		}
		old = append(old, all[:n]...)
		if n == len(all) {
			delete(p.idle, at)
		} else {
			p.idle[at] = append(all[:0:0], all[n:]...)
		}
	}
	if p.reap != nil {
		p.reap.Stop()
		p.reap = nil
	}
	if len(p.idle) > 0 {
		p.reap = time.AfterFunc(idleFor/2, p.clean)
	}
	p.mu.Unlock()
	for _, u := range old {
		u.cut()
	}
}

func (p *upstreams) dial(ctx context.Context, ep driver.Endpoint) (*upstream, error) {
	ctx, cancel := context.WithTimeout(ctx, dialFor)
	defer cancel()
	nc, err := ep.Connect(ctx)
	if err != nil {
		return nil, err
	}
	u := &upstream{nc: nc, raw: rawConn(nc), at: ep.Address}
	u.in = h1.NewReader(nc)
	return u, nil
}

// ask sends the exchange's request to an instance and returns the head of its answer. sent is false when the instance has seen
// nothing of it.
func (p *upstreams) ask(ctx context.Context, x *exchange, ep driver.Endpoint, hints *informer) (res *http.Response, sent bool, err error) {
	for u := p.take(ep.Address, x.repeatable(broken)); ; u = nil {
		if u == nil {
			if u, err = p.dial(ctx, ep); err != nil {
				return nil, false, err
			}
		}
		x.proceed()
		res, none, err := u.exchange(ctx, p, x, hints)
		if err != nil && none && u.used && ctx.Err() == nil {
			continue // it was closed as we took it: RFC 9112 §9.3.1; a new one shows whether anybody is there
		}
		return res, true, err
	}
}

// exchange writes the request and reads the head of the answer. none says, with an error, that the request may be sent once more: it was not
// carried out, or may be twice, and nothing of its body is gone.
func (u *upstream) exchange(ctx context.Context, p *upstreams, x *exchange, hints *informer) (_ *http.Response, none bool, _ error) {
	free := u.bind(ctx)
	out := h1.Lend()
	head := x.head((*out)[:0], u.at)
	u.over, u.go100 = nil, nil
	var err error
	wrote := 0
	switch {
	case x.stream == nil && len(x.small) <= inlineMost:
		u.whole.Store(true)
		head = append(head, x.small...) // grows for few
		wrote, err = u.nc.Write(head)
	default:
		u.whole.Store(false)
		u.begun.Store(0)
		u.over = make(chan struct{})
		if x.stream != nil && x.header.Get("Expect") != "" {
			u.go100 = make(chan bool, 1)
		}
		if wrote, err = u.nc.Write(head); err == nil {
			go u.send(x, u.go100, u.over)
		}
	}
	if cap(head) == len(*out) {
		h1.Return(out)
	}
	if err == nil {
		runtime.Gosched() // others first: to read at once would mostly be in vain
		var res *http.Response
		if res, err = u.answer(p, x, hints, free); err == nil {
			return res, false, nil
		}
	}
	if u.over != nil {
		close(u.over)
		u.over = nil
		if !u.begun.CompareAndSwap(0, 2) && x.stream != nil {
			x.stream.touched.Store(true)
		}
	}
	nothing := u.in.Buffered() == 0
	free()
	u.cut()
	u.in.Drop()
	return nil, wrote == 0 || nothing && x.stale(err), err
}

// stale says that a connection which ended before an answer began was most likely ended before the request came, so that it may be sent again.
func (x *exchange) stale(err error) bool {
	return lost(err) && idempotent(x.in.Method) && x.repeatable(broken)
}

// head appends the request line and the fields.
func (x *exchange) head(b []byte, at string) []byte {
	b = h1.AppendRequestLine(b, x.in.Method, x.in.URL.RequestURI(), cmp.Or(x.in.Host, at))
	b = h1.AppendFields(b, x.header, framing)
	switch n := int64(len(x.small)); {
	case x.stream != nil && x.in.ContentLength < 0:
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
		if len(x.in.Trailer) > 0 {
			b = h1.AppendField(b, "Trailer", strings.Join(slices.Sorted(maps.Keys(x.in.Trailer)), ", "))
		}
	case x.stream != nil:
		n = x.in.ContentLength
		fallthrough
	case n > 0 || x.in.Method == http.MethodPost || x.in.Method == http.MethodPut || x.in.Method == http.MethodPatch:
		b = append(b, "Content-Length: "...)
		b = strconv.AppendInt(b, n, 10)
		b = append(b, "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// framing says that a field is set anew for each hop.
func framing(name string) bool {
	return name == "Content-Length" || name == "Transfer-Encoding" || name == "Trailer" || name == "Host"
}

// lost says that a connection was closed by the other side.
func lost(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// bind has the connection cut when ctx ends, until free is called.
func (u *upstream) bind(ctx context.Context) (free func()) {
	if c, ok := ctx.(*conn); ok { // it does so itself, for nothing
		c.up.Store(u)
		if c.Err() != nil {
			u.cut()
		}
		return func() { c.up.CompareAndSwap(u, nil) }
	}
	stop := context.AfterFunc(ctx, u.cut)
	return func() { stop() }
}

// answer reads the head of the final answer.
func (u *upstream) answer(p *upstreams, x *exchange, hints *informer, free func()) (*http.Response, error) {
	for range interimMost {
		head, err := u.in.Head(true)
		if err != nil {
			return nil, err
		}
		res := new(http.Response)
		if err := h1.ParseResponse(head, x.in.Method, res); err != nil {
			return nil, err
		}
		if final, err := u.sort(res, p, hints, free); final || err != nil {
			return res, err
		}
	}
	return nil, errInterim
}

var errInterim = errors.New("too many interim answers")

// sort passes an interim answer on, or gives a final one its body.
func (u *upstream) sort(res *http.Response, to keeper, hints *informer, free func()) (final bool, err error) {
	switch {
	case res.StatusCode == http.StatusSwitchingProtocols:
		free()
		res.Body = &switched{u}
		return true, nil
	case res.StatusCode == http.StatusContinue:
		u.wanted(true)
		return false, nil
	case res.StatusCode < 200:
		return false, hints.pass(res.StatusCode, textproto.MIMEHeader(res.Header))
	}
	u.wanted(false) // RFC 9110 §10.1.1: it knows enough
	length := res.ContentLength
	if length < 0 && res.TransferEncoding == nil {
		length = -2
	}
	b := &outgoing{u: u, to: to, free: free, keep: !res.Close}
	if res.Body == nil {
		b.body = h1.NewBody(u.in, length, res.Trailer)
		res.Body = b
	} else {
		b.ended.Store(true)
		b.finish() // there is none
	}
	return true, nil
}

func (u *upstream) wanted(yes bool) {
	if u.go100 != nil {
		select {
		case u.go100 <- yes:
		default: // it knows
		}
	}
}

// send writes the body while the answer is read.
func (u *upstream) send(x *exchange, go100 chan bool, over chan struct{}) {
	if go100 != nil {
		patience := time.NewTimer(continueWait)
		defer patience.Stop()
		select {
		case yes := <-go100:
			if !yes {
				return
			}
		case <-patience.C:
		case <-over:
			return
		}
	}
	if !u.begun.CompareAndSwap(0, 1) {
		return
	}
	if x.stream == nil {
		if _, err := u.nc.Write(x.small); err == nil {
			u.whole.Store(true)
		}
		return
	}
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	const room = 10 // before and behind a chunk's data
	inChunks := x.in.ContentLength < 0
	line := make([]byte, 0, room)
	for {
		piece := (*buf)[room : len(*buf)-2]
		n, err := x.stream.Read(piece)
		if n > 0 {
			p := piece[:n]
			if inChunks {
				line = append(strconv.AppendInt(line[:0], int64(n), 16), "\r\n"...)
				at := room - len(line)
				copy((*buf)[at:], line)
				p = append((*buf)[at:room+n], "\r\n"...)
			}
			if _, err := u.nc.Write(p); err != nil {
				return // it may have answered before it closed
			}
		}
		switch {
		case err == io.EOF:
			if inChunks {
				end := h1.AppendFields([]byte("0\r\n"), x.in.Trailer, nil)
				if _, err := u.nc.Write(append(end, "\r\n"...)); err != nil {
					return
				}
			}
			u.whole.Store(true)
			return
		case err != nil:
			u.cut() // the instance must not take it for whole
			return
		}
	}
}

// outgoing is the body of an instance's answer.
type outgoing struct {
	u     *upstream
	to    keeper
	body  *h1.Body
	free  func()
	keep  bool
	ended atomic.Bool // read whole
	once  sync.Once
}

func (b *outgoing) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err == io.EOF {
		b.ended.Store(true)
	}
	return n, err
}

// Close may be called while somebody reads.
func (b *outgoing) Close() error {
	b.once.Do(b.finish)
	return nil
}

func (b *outgoing) finish() {
	u := b.u
	b.free()
	if u.over != nil {
		close(u.over)
		u.over = nil
	}
	if b.keep && b.ended.Load() && u.whole.Load() && u.in.Buffered() == 0 {
		b.to.give(u)
		return
	}
	u.cut()
	if b.ended.Load() { // else who reads may be about to
		u.in.Drop()
	}
}

// splice moves what is left of the body to a client within the kernel, both being sockets. ok is false if it cannot. The errors say which
// side failed.
func (b *outgoing) splice(w *answer) (n int64, ok bool, upErr, err error) {
	left, known := b.body.Known()
	from, a := b.u.nc.(*net.TCPConn)
	to, c := proxy.TCP(w.c.nc)
	if !known || !a || !c || !w.framed || w.length < 0 || w.empty || w.length-w.n != left || left < splicePast {
		return 0, false, nil, nil
	}
	buf := pieces.Get().(*[]byte)
	defer pieces.Put(buf)
	for b.u.in.Buffered() > 0 {
		m, upErr := b.Read((*buf)[:min(len(*buf), b.u.in.Buffered())])
		n += int64(m)
		if _, err := w.Write((*buf)[:m]); err != nil {
			return n, true, nil, err
		}
		if upErr != nil {
			return n, true, upErr, nil // the end, too
		}
	}
	if err := w.flush(); err != nil {
		return n, true, nil, err
	}
	for left, _ = b.body.Known(); left > 0; left, _ = b.body.Known() {
		w.c.writeBy()
		piece := min(left, splicePiece)
		m, err := to.ReadFrom(&io.LimitedReader{R: from, N: piece})
		n, w.n = n+m, w.n+m
		b.body.Passed(m)
		switch {
		case err != nil:
			// Whose fault it is, the kernel does not say: a client that is gone cannot be written to.
			if _, gone := to.Write(nil); gone != nil || errors.Is(err, os.ErrDeadlineExceeded) || w.c.Err() != nil {
				w.err = err
				w.c.left()
				return n, true, nil, err
			}
			return n, true, err, nil
		case m < piece:
			return n, true, io.ErrUnexpectedEOF, nil
		}
	}
	b.ended.Store(true)
	return n, true, io.EOF, nil
}

// splicePast is the length from which an answer is spliced: for less, two system calls more cost more than a copy.
const splicePast = replay

// switched is a connection that has switched protocols.
type switched struct{ u *upstream }

func (s *switched) Read(p []byte) (int, error)  { return s.u.in.Read(p) }
func (s *switched) Write(p []byte) (int, error) { return s.u.nc.Write(p) }
func (s *switched) Close() error                { s.u.cut(); return nil }

func (s *switched) CloseWrite() error {
	if half, ok := s.u.nc.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return os.ErrInvalid
}
