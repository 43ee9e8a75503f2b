package l7

import (
	"context"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	"servent/route"
	"servent/system"
)

// wants is the service of a door whose clients are to be served by events, by the present table; else it is empty.
func (e *engine) wants() system.ServiceName {
	d, ok := e.h.(*door)
	if !ok || e.insist {
		return ""
	}
	if to := d.aim(e.s.table()); to.Model == route.ModelEvents {
		return to.Service
	}
	return ""
}

// events says that clients of the door are served by events now: its service wants it so, and this platform can.
func (e *engine) events() bool { return eventsBuilt && e.wants() != "" }

// unbuilt tells once that a door is served by threads though its service wants events.
func (e *engine) unbuilt() {
	if eventsBuilt {
		return
	}
	if name := e.wants(); name != "" {
		e.told.Do(func() {
			e.s.o.Log.Warn("switch.model: fsm needs epoll, which is Linux's; threads serve here", "service", name)
		})
	}
}

// loops are a switch's, as long as one of its doors is open that is served by events.
type loops struct {
	mu    sync.Mutex // guards what follows
	all   []*loop
	doors int
	gone  sync.WaitGroup
	next  int
}

// open starts the loops for the first door.
func (ls *loops) open() error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.doors == 0 {
		all, err := newLoops()
		if err != nil {
			return err
		}
		ls.all = all
		for _, l := range all {
			ls.gone.Go(l.run)
		}
	}
	ls.doors++
	return nil
}

// close ends them with the last one.
func (ls *loops) close() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.doors--; ls.doors > 0 {
		return
	}
	for _, l := range ls.all {
		l.post(l.end)
	}
	ls.gone.Wait()
	ls.all = nil
}

// each has every loop do something, and waits until all have.
func (ls *loops) each(do func(*loop)) {
	ls.mu.Lock()
	all := ls.all
	ls.mu.Unlock()
	var done sync.WaitGroup
	for _, l := range all {
		done.Add(1)
		l.post(func() { do(l); done.Done() })
	}
	done.Wait()
}

// one is the loop for the next connection.
func (ls *loops) one() *loop {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.next++
	return ls.all[ls.next%len(ls.all)]
}

// move gives a connection that a goroutine has accepted to a loop; false: it stays.
func (e *engine) move(nc net.Conn) bool {
	if !e.joined.Load() {
		if err := e.s.loops.open(); err != nil {
			e.told.Do(func() { e.s.o.Log.Warn("switch.model: fsm cannot be served; threads serve", "err", err) })
			return false
		}
		e.joined.Store(true)
	}
	return e.s.loops.one().adopt(nc, e, nc.RemoteAddr().String())
}

// attend has the loops accept until the door is to be served by threads, or ctx ends. Where they cannot, it returns at once: each connection
// is moved then.
func (e *engine) attend(ctx context.Context, ln net.Listener) {
	var able atomic.Int64
	e.s.loops.each(func(l *loop) {
		if !e.stops.Load() && l.listen(ln, e) {
			able.Add(1)
		}
	})
	if able.Load() == 0 {
		return
	}
	for changed := e.s.o.Changed(); e.events(); changed = e.s.o.Changed() {
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
	e.s.loops.each(func(l *loop) { l.unlisten(e) })
}

// enter counts a connection of a loop in; false: the door is closed.
func (e *engine) enter() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stops.Load() {
		return false
	}
	e.gone.Add(1)
	e.far++
	return true
}

// exit counts it out.
func (e *engine) exit() {
	e.mu.Lock()
	e.far--
	e.calm()
	e.mu.Unlock()
	e.gone.Done()
}

// handed says that a loop's connection is c by now.
func (e *engine) handed(c *conn) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.far--
	e.open[c] = struct{}{}
}

// resume is a handler that goes on with what a machine has begun.
func resume(x *exchange, do func()) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		x.w, x.in = w, r
		defer x.end()
		do()
	})
}
