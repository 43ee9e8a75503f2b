package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"servent/request/h1"
)

// What a connection is doing.
const (
	idle    = int32(iota) // waiting for a request
	busy                  // with one
	closing               // by whoever set this
)

const (
	watchAfter = 20 * time.Millisecond  // a request may take before its client is looked after
	linger     = 500 * time.Millisecond // that a client gets to read a last answer before its connection is reset
	lingerMost = 256 << 10              // bytes of what it still sends meanwhile that are taken
)

// conn is a client's connection, and the context of its requests: that ends when the client has left or the door is closed. One
// goroutine serves it, a request at a time. While an instance is slow, another one reads what else comes, to learn
// whether the client has left.
type conn struct {
	context.Context
	cancel context.CancelFunc
	e      *engine
	nc     net.Conn
	raw    syscall.RawConn // nil: the platform waits by reading
	in     *h1.Reader
	tls    bool  // a handshake was begun
	home   *loop // that it comes from and goes back to; nil: none
	remote string
	model  *http.Request            // with this context, for copies
	out    []byte                   // of the present answer, that has not left
	phase  atomic.Int32             // idle, busy or closing
	up     atomic.Pointer[upstream] // that is asked: it is cut when the context ends

	part    part      // what is read next; belongs to who reads
	headBy  time.Time // the present head must be here
	wroteBy time.Time // the deadline of writes

	mu     sync.Mutex    // guards what follows
	readBy time.Time     // the deadline of reads
	barred bool          // nothing more is read: the deadline stays in the past
	watch  *time.Timer   // nil: never needed yet
	armed  bool          // the timer runs, or its function does
	eyes   chan struct{} // closed when who watches has stopped; nil: nobody does
}

// part of a message.
type part int

const (
	atHead part = iota
	atBody
)

func newConn(e *engine, nc net.Conn, remote string) *conn {
	c := &conn{e: e, nc: nc, remote: remote}
	c.Context, c.cancel = context.WithCancel(e.base)
	c.raw = rawConn(nc)
	c.in = h1.NewReader(c)
	c.model = (&http.Request{}).WithContext(c)
	return c
}

// left ends the connection's requests: nobody is there to be answered.
func (c *conn) left() {
	c.cancel()
	if u := c.up.Load(); u != nil {
		u.cut()
	}
}

// serve answers the connection's requests until there are no more; first (nil: nothing) is done before, and says whether there may be any.
func (c *conn) serve(first func() (keep, hijacked bool)) {
	hijacked := false
	defer func() {
		c.left()
		c.in.Drop()
		if !hijacked {
			_ = c.nc.Close()
			c.e.leave(c)
		}
		if c.home != nil {
			c.home.lent.Add(-1)
		}
		c.e.gone.Done()
	}()
	if first != nil {
		keep := false
		if keep, hijacked = first(); !keep {
			return
		}
	}
	for wait := c.e.s.headFor; ; wait = idleWait {
		if c.home != nil && !c.tls && c.in.Buffered() == 0 && c.e.events() && c.home.adopt(c.nc, c.e, c.remote) {
			return
		}
		if !c.await(wait) {
			return
		}
		if c.secure() {
			return
		}
		if c.in.Buffered() == 0 && !c.await(c.e.s.headFor) { // what came was a handshake
			return
		}
		r, err := c.request()
		if err != nil {
			c.reject(err)
			return
		}
		keep := false
		if keep, hijacked = c.answer(r, c.e.h, false); !keep {
			return
		}
	}
}

// await returns true when a request begins. Meanwhile the connection has no buffer.
func (c *conn) await(wait time.Duration) bool {
	if c.e.stops.Load() {
		return false
	}
	if c.in.Buffered() > 0 {
		return true
	}
	c.phase.Store(idle)
	if c.e.stops.Load() && c.phase.CompareAndSwap(idle, closing) {
		return false
	}
	c.in.Release()
	c.until(time.Now().Add(wait), wait/8)
	err := c.lend()
	return err == nil && c.phase.CompareAndSwap(idle, busy)
}

// lend fills a buffer when there is something to fill it with.
func (c *conn) lend() error {
	buf, n, err := readLent(c.nc, c.raw)
	if err == nil {
		c.in.Adopt(buf, n)
	}
	return err
}

// until sets the deadline of reads, unless it is set to up to slack earlier already.
func (c *conn) until(t time.Time, slack time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if d := t.Sub(c.readBy); !c.barred && (d < 0 || d > slack) {
		c.readBy = t
		_ = c.nc.SetReadDeadline(t)
	}
}

// Read is what messages are read by.
func (c *conn) Read(p []byte) (int, error) {
	if c.part == atHead {
		c.until(c.headBy, 0)
	} else {
		c.until(time.Now().Add(c.e.s.moveFor), c.e.s.moveFor/8)
	}
	return c.nc.Read(p)
}

// request reads the next head.
func (c *conn) request() (*http.Request, error) {
	c.part, c.headBy = atHead, time.Now().Add(c.e.s.headFor)
	head, err := c.in.Head(false)
	if err != nil {
		return nil, err
	}
	r := new(http.Request)
	*r = *c.model
	if err := h1.ParseRequest(head, r); err != nil {
		return nil, err
	}
	r.RemoteAddr = c.remote
	c.part = atBody
	return r, nil
}

// reject answers what is no request that can be understood, and is the last thing on a connection.
func (c *conn) reject(err error) {
	var wrong *h1.Error
	status := http.StatusBadRequest
	switch {
	case errors.As(err, &wrong):
		status = wrong.Status
	case errors.Is(err, os.ErrDeadlineExceeded) && c.in.Buffered() > 0:
		status, err = http.StatusRequestTimeout, fmt.Errorf("the request's head did not come within %v", c.e.s.headFor)
	default:
		return // it left
	}
	c.e.s.o.Log.Debug("request refused", "addr", c.remote, "err", err)
	if c.write(refusal(&h1.Error{Status: status, Why: err.Error()})) == nil {
		c.lastWord()
	}
}

// refusal is the last answer on a connection that no request can be understood on.
func refusal(err *h1.Error) []byte {
	text := "servent: " + err.Why + "\n"
	b := h1.AppendStatusLine(nil, 1, err.Status)
	b = h1.AppendField(b, "Connection", "close")
	b = h1.AppendField(b, "Content-Type", "text/plain; charset=utf-8")
	b = h1.AppendField(b, "X-Content-Type-Options", "nosniff")
	return fmt.Appendf(b, "Content-Length: %d\r\n\r\n%s", len(text), text)
}

// lastWord lets the client read what it was sent last, though it may still be sending: a reset would throw that away.
func (c *conn) lastWord() {
	half, ok := c.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	c.mu.Lock()
	c.barred = true
	_ = c.nc.SetReadDeadline(time.Now().Add(linger))
	c.mu.Unlock()
	buf := h1.Lend()
	defer h1.Return(buf)
	for n := 0; n < lingerMost; {
		m, err := c.nc.Read(*buf)
		if n += m; err != nil {
			return
		}
	}
	time.Sleep(linger) // it sends on, and may be waiting until that is taken: what it was told it reads meanwhile
}

// write writes all of p. A client that takes some of it now and then may take its time.
func (c *conn) write(p []byte) error {
	for {
		c.writeBy()
		n, err := c.nc.Write(p)
		if p = p[n:]; err == nil || n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// writeBy moves the deadline of writes on.
func (c *conn) writeBy() {
	now := time.Now()
	if t := now.Add(c.e.s.moveFor); t.Sub(c.wroteBy) > c.e.s.moveFor/8 {
		c.wroteBy = t
		_ = c.nc.SetWriteDeadline(t)
	}
}

// answer has a handler answer one request. read says that its body was read already. keep says that another one may follow.
func (c *conn) answer(r *http.Request, h http.Handler, read bool) (keep, hijacked bool) {
	w := &answer{c: c, r: r, length: -1}
	lent := h1.Lend()
	c.out = (*lent)[:0]
	defer func() { h1.Return(lent); c.out = nil }()
	if r.ContentLength != 0 && !read {
		w.body = &incoming{w: w, body: h1.NewBody(c.in, r.ContentLength, r.Trailer)}
		w.body.asks.Store(r.ProtoMinor > 0 && r.Header["Expect"] != nil)
		r.Body = w.body
	} else {
		r.Body = http.NoBody
		c.look()
	}
	cut := c.handle(w, r, h)
	defer func() { w.err = net.ErrClosed }() // whoever still holds it writes nothing into the next answer
	if w.hijacked {
		return false, true
	}
	c.unlook()
	switch {
	case cut:
		w.abort()
		return false, false
	case !w.finish() || c.Err() != nil:
		if w.lingers {
			c.lastWord()
		}
		return false, false
	}
	return true, false
}

// handle calls the handler; cut says that its answer must not end as if it were whole.
func (c *conn) handle(w *answer, r *http.Request, h http.Handler) (cut bool) {
	defer func() {
		if p := recover(); p != nil {
			if cut = true; p != http.ErrAbortHandler {
				c.e.s.o.Log.Debug("handler panicked", "addr", c.remote, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
		}
	}()
	if r.RequestURI == "*" { // RFC 9110 §9.3.7: it asks the door itself
		w.Header().Set("Content-Length", "0")
		return false
	}
	h.ServeHTTP(w, r)
	return false
}

// look has the client looked after once its request takes long. It is called when the request was read whole.
func (c *conn) look() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.barred {
		return
	}
	if c.armed = true; c.watch == nil {
		c.watch = time.AfterFunc(watchAfter, c.observe)
	} else {
		c.watch.Reset(watchAfter)
	}
}

// observe reads ahead until the client leaves or [conn.unlook] is called.
func (c *conn) observe() {
	c.mu.Lock()
	if !c.armed || c.barred || c.eyes != nil {
		c.mu.Unlock()
		return
	}
	eyes := make(chan struct{})
	c.eyes, c.readBy = eyes, time.Time{}
	_ = c.nc.SetReadDeadline(time.Time{})
	c.mu.Unlock()
	defer close(eyes)
	for {
		n, err := 1, error(nil)
		if c.in.Buffered() == 0 {
			c.in.Release()
			err = c.lend()
		} else {
			n, err = c.in.FillFree(c.nc.Read)
		}
		if errors.Is(err, os.ErrDeadlineExceeded) || err == nil && n == 0 {
			return
		}
		if err != nil {
			c.left()
			return
		}
	}
}

// unlook returns when nobody but the caller reads.
func (c *conn) unlook() {
	c.mu.Lock()
	if c.armed {
		c.armed = false
		c.watch.Stop()
	}
	eyes := c.eyes
	if eyes != nil {
		c.eyes, c.readBy = nil, long
		_ = c.nc.SetReadDeadline(long)
	}
	c.mu.Unlock()
	if eyes != nil {
		<-eyes
	}
}

var long = time.Unix(1, 0) // ago

// incoming is a request's body.
type incoming struct {
	w    *answer
	body *h1.Body
	asks atomic.Bool // "100 Continue" is awaited
}

func (b *incoming) Read(p []byte) (int, error) {
	if b.asks.Load() {
		b.asks.Store(false)
		b.w.proceed()
	}
	ended := b.body.Ended()
	n, err := b.body.Read(p)
	if err == io.EOF && !ended {
		b.w.c.look()
	}
	return n, err
}

// Close leaves the rest to who reads the next request.
func (b *incoming) Close() error { return nil }

// rest says whether the body is out of the way of the next request, having thrown away what of it is here already.
func (b *incoming) rest() bool {
	if b.body.Ended() {
		return true
	}
	left, known := b.body.Known()
	if !known || b.asks.Load() || left > int64(b.w.c.in.Buffered()) {
		return false
	}
	_, err := io.Copy(io.Discard, b.body)
	return err == nil
}
