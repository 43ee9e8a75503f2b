package l7

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/debug"
	"time"

	"servent/request/h1"
	"servent/route"
)

// stage is the state of a machine: what it waits for.
type stage int8

const (
	onRequest stage = iota // the head of a request
	onBody                 // its body, which is small
	onChoice               // nothing: an instance is chosen next
	onConnect              // a connection to it
	onHead                 // the head of its answer
	onAnswer               // the answer's body, which is small
	onFlush                // the client takes the answer
	onEnd                  // nothing any more: it is closed, or a goroutine has it
)

// machine is a client's connection as a finite-state machine. Between requests it is all that there is of it.
type machine struct {
	socket
	e      *engine
	remote string
	in     *h1.Reader
	at     stage
	slot   int       // in the loop's flying, plus 1; 0: it is not there
	by     time.Time // it has waited for too long; zero: it may
	f      *flight
}

// flight is a request on its way, of a machine.
type flight struct {
	c     conn // what the answer is written by: a connection that is served by no goroutine
	r     http.Request
	w     answer
	x     *exchange
	j     journey
	lent  *[]byte // that the answer begins in
	got   int     // bytes of the body
	up    *reach
	hint  informer
	res   *http.Response
	many  int  // interim answers
	keep  bool // another request may follow
	held  bool // the instance is counted as serving
	owned bool // a key decides who answers: to find out may take asking other nodes
}

// ready is called at an event of the client's.
func (m *machine) ready() {
	if len(m.rest) > 0 && m.drain() && m.at == onFlush {
		m.by = m.l.now.Add(m.e.s.moveFor)
	}
	if m.at <= onChoice || m.at >= onFlush { // else the instance moves it
		m.advance()
	}
}

// advance goes on as long as nothing needs to be waited for.
func (m *machine) advance() {
	defer func() {
		if p := recover(); p != nil {
			if p != http.ErrAbortHandler {
				m.e.s.o.Log.Debug("machine panicked", "addr", m.remote, "err", fmt.Sprint(p), "stack", string(debug.Stack()))
			}
			m.close()
		}
	}()
	for more := true; more; {
		switch m.at {
		case onRequest:
			more = m.next()
		case onBody:
			more = m.body()
		case onChoice:
			more = m.seek()
		case onHead:
			more = m.head()
		case onAnswer:
			more = m.answer()
		case onFlush:
			more = m.flush()
		default:
			more = false
		}
	}
}

// late is called now and then.
func (m *machine) late() {
	if m.hung && m.at > onChoice && m.at < onFlush && m.l.now.Sub(m.f.x.start) > watchAfter {
		m.close() // the client has left; who has closed one half alone gets an answer that was near
		return
	}
	if m.by.IsZero() || m.l.now.Before(m.by) {
		return
	}
	m.by = time.Time{}
	slow := fmt.Errorf("read the request's body: %w", os.ErrDeadlineExceeded)
	switch m.at {
	case onRequest:
		if m.in.Buffered() == 0 {
			m.close()
			return
		}
		m.hand(func(c *conn) (bool, bool) { c.reject(os.ErrDeadlineExceeded); return false, false })
	case onBody:
		m.refuse(misreadAs(slow), slow)
	case onConnect:
		f := m.f
		f.up.up.cut()
		m.refused(unconnected(f.up.up.at, os.ErrDeadlineExceeded))
	case onAnswer:
		m.handAnswer()
	default:
		m.close()
	}
}

// next reads a request's head.
func (m *machine) next() bool {
	fresh := m.in.Buffered() == 0
	if fresh && !m.readable {
		m.in.Release()
		return false
	}
	head, err := m.in.Head(false)
	switch {
	case err == errAgain:
		if m.in.Buffered() == 0 {
			m.in.Release()
		} else if fresh {
			m.by = m.l.now.Add(m.e.s.headFor)
		}
		if m.foreign() {
			m.hand(nil)
		}
		return false
	case err == io.EOF && m.in.Buffered() == 0:
		m.close()
		return false
	case err != nil || m.foreign(): // the other engine finds it, too
		m.in.Back(len(head))
		m.hand(nil)
		return false
	}
	f := &flight{}
	f.r = *m.e.model
	if h1.ParseRequest(head, &f.r) != nil || !plain(&f.r) {
		m.in.Back(len(head))
		m.hand(nil)
		return false
	}
	f.j.aim = m.e.h.(*door).aim
	to := f.j.aim(m.e.s.table())
	if to.Model != route.ModelEvents { // the plan has changed
		m.in.Back(len(head))
		m.hand(nil)
		return false
	}
	m.begin(f)
	f.owned = to.Locator != nil
	return true
}

// foreign says that the client speaks TLS.
func (m *machine) foreign() bool {
	p := m.in.Peeked()
	return len(p) > 0 && p[0] == handshake && m.e.s.o.TLS != nil
}

// plain says that a machine can serve a request: what takes a conversation, or is long, a goroutine can better.
func plain(r *http.Request) bool {
	return r.ContentLength >= 0 && r.ContentLength <= replay && r.Method != http.MethodConnect && r.RequestURI != "*" && r.Header["Expect"] == nil && upgrade(r.Header) == ""
}

// begin takes a request up.
func (m *machine) begin(f *flight) {
	f.r.RemoteAddr, f.r.Body = m.remote, http.NoBody
	c := &f.c
	c.Context, c.cancel, c.e, c.nc, c.in, c.remote = m.e.base, func() {}, m.e, &m.socket, m.in, m.remote
	f.lent = h1.Lend()
	c.out = (*f.lent)[:0]
	f.w = answer{c: c, r: &f.r, length: -1}
	f.x = m.e.s.exchange(&f.w, &f.r, true)
	f.j.x, f.j.hold.s = f.x, m.e.s
	f.hint.w = &f.w
	m.f, m.by, m.at = f, time.Time{}, onChoice
	m.l.flying = append(m.l.flying, m)
	m.slot = len(m.l.flying)
	if n := f.r.ContentLength; n > 0 {
		f.x.small = make([]byte, n)
		m.at, m.by = onBody, m.l.now.Add(m.e.s.moveFor)
	}
}

// body reads the request's body.
func (m *machine) body() bool {
	for f := m.f; f.got < len(f.x.small); {
		n, err := m.in.Read(f.x.small[f.got:])
		f.got += n
		switch {
		case err == errAgain:
			return false
		case err != nil:
			if err == io.EOF {
				err = io.ErrUnexpectedEOF
			}
			m.refuse(http.StatusBadRequest, fmt.Errorf("read the request's body: %w", err))
			return false
		}
		m.by = m.l.now.Add(m.e.s.moveFor)
	}
	m.by, m.at = time.Time{}, onChoice
	return true
}

// seek chooses an instance, and asks it.
func (m *machine) seek() bool {
	f, s := m.f, m.e.s
	j := &f.j
	if f.owned {
		m.handOn(false, func() { j.run(false) })
		return false
	}
	switch j.find() {
	case over:
		return m.finish()
	case nobody:
		m.handOn(false, func() {
			if j.wait() {
				j.run(false)
			}
		})
		return false
	}
	if j.in.Node != s.o.Self || s.o.Station != nil || s.o.Local == nil {
		m.handOn(true, func() { j.run(true) })
		return false
	}
	ep, ok := s.o.Local(j.in.ID)
	if !ok {
		j.enter()
		return m.tried(refused, errNotHere)
	}
	if ep.Handler != nil || ep.Dial != nil {
		m.handOn(true, func() { j.run(true) })
		return false
	}
	r := m.l.take(ep.Address, f.x.repeatable(broken))
	if r == nil {
		return m.connect(ep.Address)
	}
	m.ask()
	f.up, r.m = r, m
	m.send()
	return true
}

// ask begins an attempt.
func (m *machine) ask() {
	m.f.j.enter()
	m.e.s.serving(m.f.j.in.ID).Add(1)
	m.f.held = true
}

// connect asks the instance by a new connection.
func (m *machine) connect(at string) bool {
	f := m.f
	r, ok, err := m.l.dial(at, m)
	if !ok {
		m.handOn(true, func() { f.j.run(true) })
		return false
	}
	if !f.held {
		m.ask()
	}
	if err != nil {
		return m.tried(refused, err)
	}
	m.f.up, m.at, m.by = r, onConnect, m.l.now.Add(dialFor)
	return false
}

// send writes the request.
func (m *machine) send() {
	x, u := m.f.x, &m.f.up.up
	m.at, m.by = onHead, time.Time{}
	lent := h1.Lend()
	out := append(x.head((*lent)[:0], u.at), x.small...)
	u.whole.Store(true)
	_, _ = m.f.up.Write(out) // a failure is met by head
	if cap(out) == len(*lent) {
		h1.Return(lent)
	}
	if m.f.up.bad != nil {
		m.f.up.readable = true
	}
}

// head reads the head of the answer.
func (m *machine) head() bool {
	f, u := m.f, &m.f.up.up
	for {
		head, err := u.in.Head(true)
		if err == errAgain {
			return false
		}
		res := new(http.Response)
		if err == nil {
			err = h1.ParseResponse(head, f.r.Method, res)
		}
		var final bool
		if err == nil {
			final, err = u.sort(res, m.l, &f.hint, func() {})
		}
		if f.many++; err == nil && !final && f.many >= interimMost {
			err = errInterim
		}
		switch {
		case err != nil:
			again := u.used && u.in.Buffered() == 0 && f.x.stale(err)
			at := u.at
			u.in.Drop()
			u.cut()
			if f.up = nil; again { // it was closed as we took it: a new one shows whether anybody is there
				return m.connect(at)
			}
			return m.tried(broken, err)
		case final:
			f.res, m.at = res, onAnswer
			if res.ContentLength < 0 {
				m.by = m.l.now.Add(patience)
			}
			return true
		}
	}
}

// answer passes the answer on, when it is here whole. One that is long, or comes by and by, a goroutine passes on.
func (m *machine) answer() bool {
	f, res := m.f, m.f.res
	f.hint.close()
	b, ok := res.Body.(*outgoing)
	for n := res.ContentLength; ok; {
		in := f.up.up.in
		if n >= 0 && int64(in.Buffered()) >= n || n < 0 && b.body.Whole() && f.x.collects(res) {
			break
		}
		if n > replay || n < 0 && (res.TransferEncoding == nil || len(res.Trailer) > 0 || !f.x.collects(res)) {
			m.handAnswer()
			return false
		}
		err := in.Fill(f.up.Read)
		if err == errAgain {
			return false
		}
		if err == h1.ErrFull {
			m.handAnswer()
			return false
		}
		if err != nil {
			break // as deliver finds
		}
	}
	if res.StatusCode == http.StatusSwitchingProtocols {
		m.handAnswer()
		return false
	}
	v, err := f.x.deliver(m.e.base, res, f.j.in, func() {})
	_ = res.Body.Close()
	f.up = nil
	return m.tried(v, err)
}

// refused is called when a connection did not come about.
func (m *machine) refused(err error) {
	m.f.up = nil
	if m.tried(refused, err) {
		m.advance()
	}
}

// tried ends an attempt. Another one follows, or the answer is there.
func (m *machine) tried(v verdict, err error) bool {
	f := m.f
	m.by = time.Time{}
	m.uncount()
	m.at, f.res, f.many = onChoice, nil, 0
	f.j.leave(v, false, false, err)
	if f.j.done(v, err) {
		return m.finish()
	}
	f.hint.closed = false
	return true
}

// uncount counts the request out at its instance.
func (m *machine) uncount() {
	if m.f.held {
		m.f.held = false
		m.e.s.serving(m.f.j.in.ID).Add(-1)
	}
}

// refuse answers to a request that did not come whole: the connection's last answer.
func (m *machine) refuse(status int, err error) {
	m.f.w.last = true
	m.f.x.refuse(status, err.Error(), "")
	m.finish()
	m.f.w.lingers = true
	m.advance()
}

// finish ends the answer.
func (m *machine) finish() bool {
	f := m.f
	f.x.end()
	f.keep = f.w.finish()
	f.w.err = os.ErrClosed // nothing of it goes into the next one
	h1.Return(f.lent)
	f.lent, f.c.out = nil, nil
	m.at, m.by = onFlush, m.l.now.Add(m.e.s.moveFor)
	return true
}

// flush waits until the client has taken the answer.
func (m *machine) flush() bool {
	if m.bad != nil {
		m.close()
		return false
	}
	if len(m.rest) > 0 {
		return false
	}
	keep, lingers := m.f.keep, m.f.w.lingers
	m.land()
	switch {
	case lingers:
		m.hand(func(c *conn) (bool, bool) { c.lastWord(); return false, false })
		return false
	case !keep || m.e.stops.Load():
		m.close()
		return false
	}
	m.at, m.by = onRequest, m.l.now.Add(idleWait)
	if m.in.Buffered() > 0 {
		m.by = m.l.now.Add(m.e.s.headFor)
	}
	return true
}

// land takes the machine from those under way.
func (m *machine) land() {
	if m.slot > 0 {
		last := len(m.l.flying) - 1
		m.l.flying[m.slot-1] = m.l.flying[last]
		m.l.flying[m.slot-1].slot = m.slot
		m.l.flying[last] = nil
		m.l.flying = m.l.flying[:last]
	}
	m.slot, m.f = 0, nil
}

// close ends the connection, and what is under way.
func (m *machine) close() {
	if m.at == onEnd {
		return
	}
	if f := m.f; f != nil && m.at < onFlush {
		if f.up != nil {
			f.up.up.in.Drop()
			f.up.up.cut()
		}
		m.uncount()
		if m.at > onChoice {
			f.j.leave(broken, false, true, nil)
		}
		f.x.end()
		if f.lent != nil {
			h1.Return(f.lent)
		}
	}
	m.at = onEnd
	m.land()
	m.in.Drop()
	_ = m.Close()
	m.e.exit()
}
