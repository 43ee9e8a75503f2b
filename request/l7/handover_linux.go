package l7

import (
	"net"

	"servent/request/h1"
)

// hand gives the connection to a goroutine of the other engine, which does first (nil: nothing) and then goes on if that says that another
// request may follow; when there is none yet, the connection comes back. False: there are too many files, and it was closed.
func (m *machine) hand(first func(*conn) (keep, hijacked bool)) bool {
	l, e := m.l, m.e
	m.at = onEnd
	m.land()
	nc, rest, err := m.release()
	if err != nil {
		m.in.Drop()
		e.exit()
		return false
	}
	c := newConn(e, nc, m.remote)
	c.in, c.home = m.in, l
	c.in.From(c)
	c.phase.Store(busy)
	e.handed(c)
	l.lent.Add(1)
	go c.serve(func() (keep, hijacked bool) {
		if len(rest) > 0 && c.write(rest) != nil {
			return false, false
		}
		if first == nil {
			return true, false
		}
		return first(c)
	})
	return true
}

// handOn has a goroutine go on with a request whose answer has not begun. entered says that an instance is entered for it.
func (m *machine) handOn(entered bool, do func()) bool {
	f, s := m.f, m.e.s
	h1.Return(f.lent)
	f.lent = nil
	if m.hand(func(c *conn) (keep, hijacked bool) { return c.answer(f.r.WithContext(c), resume(f.x, do), true) }) {
		return true
	}
	if f.held {
		s.serving(f.j.in.ID).Add(-1)
		f.j.leave(broken, false, true, nil)
	} else if entered {
		s.loads.End(f.j.in.ID)
	}
	f.x.end()
	return false
}

// handAnswer has a goroutine pass an answer on whose head is here.
func (m *machine) handAnswer() {
	f, s := m.f, m.e.s
	u, res, j, x := &f.up.up, f.res, &f.j, f.x
	nc, rest, err := f.up.release()
	if f.up = nil; err != nil {
		u.in.Drop()
		if m.tried(broken, err) {
			m.advance()
		}
		return
	}
	u.nc, u.raw = nc, rawConn(nc)
	u.in.From(nc)
	b, _ := res.Body.(*outgoing)
	if b != nil {
		b.to = homing{m.l}
	}
	if len(rest) > 0 { // it answers before it has read all
		u.whole.Store(false)
		go func() { _, _ = nc.Write(rest) }() // ends with the connection
	}
	if !m.handOn(true, func() {
		ctx, body := x.in.Context(), res.Body
		if b != nil {
			b.free = u.bind(ctx)
		}
		v, err := func() (verdict, error) {
			defer s.serving(j.in.ID).Add(-1)
			defer body.Close()
			return x.receive(ctx, res, j.in, func() {})
		}()
		j.leave(v, false, ctx.Err() != nil, err)
		if !j.done(v, err) {
			j.run(false)
		}
	}) {
		u.in.Drop()
		u.cut()
	}
}

// homing gives a loop back the connection to an instance that a goroutine had.
type homing struct{ l *loop }

func (h homing) give(u *upstream) {
	u.in.Release()
	tcp, ok := u.nc.(*net.TCPConn)
	if !ok || u.dead.Load() {
		u.cut()
		return
	}
	fd, err := dup(tcp)
	u.cut() // the duplicate stays
	if err == nil {
		h.l.post(func() { h.l.regain(fd, u.at) })
	}
}
