package l4

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"servent/link"
	"servent/request/proxy"
	"servent/route"
)

var (
	errNobody = errors.New("none is ready")
	errHeld   = errors.New("none took it in time")
	errFull   = errors.New("too many connections wait already")
	errLost   = errors.New("its node is lost")
)

// carry joins a client's connection to an instance and passes bytes until both sides have ended. A
// client whose connection cannot be joined, or whose instance is lost, is cut off at once, so that it
// connects anew.
func (s *Switch) carry(ctx context.Context, client net.Conn, aim func(*route.Table) route.Target) {
	start := time.Now()
	if to := aim(s.table()); to.Model == route.ModelOne {
		patient, cancel := context.WithTimeoutCause(ctx, s.o.Hold, route.ErrTurn)
		done, err := s.turns.Take(patient, to.Service, s.o.Waiters)
		cancel()
		if err != nil {
			s.giveUp(to, err)
			reset(client)
			return
		}
		defer done()
	}
	var tried []place // in this round
	var last error    // of the last attempt
	hold := holding{s: s}
	defer hold.end()
	for ctx.Err() == nil {
		changed := s.o.Changed() // before the table, so that no swap is missed
		t := s.table()
		to := s.owner(ctx, client, t, aim(t))
		in, ok := s.choose(t, to, client, tried)
		if !ok {
			if err := hold.wait(ctx, to, changed); err != nil {
				if ctx.Err() == nil {
					s.giveUp(to, errors.Join(err, last))
				}
				break
			}
			// A new round; not with the one that failed last, if there is another.
			if n := len(tried); n > 0 && len(to.Among) > 1 {
				tried = append(tried[:0], tried[n-1])
			} else {
				tried = tried[:0]
			}
			continue
		}
		unreachable, err := s.attempt(ctx, client, to, in, start, hold.end)
		if err == nil {
			return
		}
		last = fmt.Errorf("%s on %s: %w", in.ID, in.Node, err)
		if ctx.Err() != nil {
			break
		}
		s.suspect(t, to, in, unreachable, err)
		s.o.Meter.Line(to.Service, in.ID).Retried()
		tried = append(tried, place{in.ID, in.Node})
	}
	reset(client)
}

// owner narrows a target whose keys are sources to the instance that owns the client's address.
func (s *Switch) owner(ctx context.Context, client net.Conn, t *route.Table, to route.Target) route.Target {
	if to.Locator == nil {
		return to
	}
	at, err := to.Locator.Locate(ctx, route.Key(source(client)))
	if err != nil {
		to.Among, to.Why, to.Seeks = nil, "the owner of the source was not found: "+err.Error(), !errors.Is(err, route.ErrNoInstance)
		return to
	}
	return t.Owner(to, at)
}

func (s *Switch) giveUp(to route.Target, why error) {
	s.o.Meter.Line(to.Service, "").Refused()
	s.o.Log.Warn("connection refused: no instance takes it", "service", to.Service, "err", why)
}

// suspect marks who refused; when a node cannot be reached, all its instances.
func (s *Switch) suspect(t *route.Table, to route.Target, in route.Instance, unreachable bool, why error) {
	now := time.Now()
	news := s.loads.Suspect(in.ID, now, t)
	for _, other := range to.Among {
		if unreachable && other.Node == in.Node && other.ID != in.ID {
			s.loads.Suspect(other.ID, now, t)
		}
	}
	if news {
		s.o.Log.Warn("instance does not answer; others are asked", "service", to.Service, "instance", in.ID, "node", in.Node, "err", why)
	}
}

// attempt joins the client to one instance and returns nil when the connection has ended, or an error
// when it was never joined. joined is called in between. unreachable says that the node was not reached.
func (s *Switch) attempt(ctx context.Context, client net.Conn, to route.Target, in route.Instance, start time.Time, joined func()) (unreachable bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	defer watching.Wait()
	defer cancel(nil)
	s.loads.Begin(in.ID)
	defer s.loads.End(in.ID)
	line := s.o.Meter.Line(to.Service, in.ID)
	line.Begin()
	defer line.End()

	var up net.Conn
	take := s.o.Station.Serve
	if in.Node == s.o.Self {
		n := s.serving(in.ID)
		n.Add(1)
		defer n.Add(-1)
		up, err = s.here(ctx, in.ID)
	} else {
		watching.Go(func() { s.watch(ctx, in.Node, func() { cancel(errLost) }) })
		take = s.pass
		up, unreachable, err = s.there(ctx, in)
	}
	if err != nil {
		if context.Cause(ctx) == errLost {
			err = errLost
		}
		return unreachable, err
	}
	if header := said(to, client); header != nil {
		if _, err := up.Write(header); err != nil {
			up.Close()
			return false, err
		}
	}
	joined()
	took := time.Since(start)
	s.loads.Answered(in.ID, time.Now(), 0) // how fast it accepts says nothing about how fast it is
	r := relay{client: client, up: up}
	if s.o.Station != nil {
		r.turns = &turns{take: take}
	}
	broke := r.run(ctx)
	if cause := context.Cause(ctx); broke != nil && cause != nil {
		broke = cause
	}
	line.Moved(r.towards, r.back)
	line.Done(took, broke != nil)
	s.o.Log.Debug("connection", "service", to.Service, "instance", in.ID, "node", in.Node, "dur", time.Since(start), "err", broke)
	return false, nil
}

// said is what a connection to an instance begins with; nil: nothing.
func said(to route.Target, client net.Conn) []byte {
	if to.Proxy == "" || to.Proxy == "none" {
		return nil
	}
	from, _ := client.RemoteAddr().(*net.TCPAddr)
	door, _ := client.LocalAddr().(*net.TCPAddr)
	return proxy.Say(to.Proxy == "v2", from.AddrPort(), door.AddrPort())
}

// pass charges for a turn that is sent onward; what it costs is over when it may leave.
func (s *Switch) pass(ctx context.Context) (link.Turn, error) {
	return link.Turn{}, s.o.Station.Pass(ctx)
}

// holding is one connection's wait for an instance, in parts, up to Options.Hold in all.
type holding struct {
	s     *Switch
	until *time.Timer
	pause time.Duration // until instances that refused are tried again
}

// wait returns nil when it is worth looking again: after a table swap, or after a short while when
// there are instances that refuse, as one does whose program has just ended.
func (h *holding) wait(ctx context.Context, to route.Target, changed <-chan struct{}) error {
	if len(to.Among) == 0 && !to.Coming && !to.Seeks {
		return fmt.Errorf("%w: %s", errNobody, to.Why)
	}
	if h.until == nil {
		if h.s.o.Hold < 0 {
			return errNobody
		}
		if h.s.waiting.Add(1) > int64(h.s.o.Waiters) {
			h.s.waiting.Add(-1)
			return errFull
		}
		h.until = time.NewTimer(h.s.o.Hold)
		h.s.o.Meter.Line(to.Service, "").Held()
	}
	var again <-chan time.Time
	if len(to.Among) > 0 || to.Seeks {
		h.pause = min(max(2*h.pause, 10*time.Millisecond), 250*time.Millisecond)
		t := time.NewTimer(h.pause)
		defer t.Stop()
		again = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.until.C:
		return fmt.Errorf("%w (%v): %s", errHeld, h.s.o.Hold, to.Why)
	case <-changed:
	case <-again:
	}
	return nil
}

// end is called when the wait is over; once more does no harm.
func (h *holding) end() {
	if h.until != nil {
		h.until.Stop()
		h.until = nil
		h.s.waiting.Add(-1)
	}
}
