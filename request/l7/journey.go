package l7

import (
	"errors"
	"fmt"
	"net/http"
	"time"

	"servent/meter"
	"servent/route"
	"servent/system"
)

// journey is a request's way from instance to instance, until one has answered. Both engines go it: by a goroutine [journey.run],
// by events a machine, which calls the same parts.
type journey struct {
	x      *exchange
	aim    func(*route.Table) route.Target
	begun  bool    // an instance was looked for
	tried  []place // in this round
	breaks int
	last   error // of the last attempt
	hold   holding

	// Of the present attempt.
	changed <-chan struct{} // closed when t is not the present table any more
	t       *route.Table
	to      route.Target
	in      route.Instance
	line    *meter.Line
	since   time.Duration // after the exchange's start
}

// finding is what came of looking for an instance.
type finding int

const (
	found  finding = iota // one is entered
	nobody                // there is none now
	over                  // there will be none: it was answered
)

// run finds an instance, asks it, and asks another as long as that may help. entered says that one is found already.
func (j *journey) run(entered bool) {
	defer j.hold.end()
	for ; ; entered = false {
		if !entered {
			switch j.find() {
			case over:
				return
			case nobody:
				if !j.wait() {
					return
				}
				continue
			}
		}
		if v, err := j.attempt(); j.done(v, err) {
			return
		}
	}
}

// find chooses an instance and enters it.
func (j *journey) find() finding {
	x, s := j.x, j.x.s
	for {
		j.changed = s.o.Changed() // before the table, so that no swap is missed
		j.t = s.table()
		to, err := x.owner(j.t, j.aim(j.t))
		j.to = to
		x.once = x.once || to.Once
		if err != nil {
			x.noKey(to, err)
			return over
		}
		if !j.begun {
			j.begun = true
			s.budget(to.Service).Request(x.start)
		}
		x.count(to)
		in, ok := x.choose(j.t, to, j.tried)
		if ok && !s.loads.Enter(in.ID, to.Each) { // another request took its last place meanwhile
			if x.why != whySticky {
				continue
			}
			ok = false
		}
		if !ok {
			x.wakes = x.wakes || to.Each > 0 && len(to.Among) == 0
			return nobody
		}
		x.warm(to)
		j.in, j.line = in, s.o.Meter.Line(to.Service, in.ID)
		return found
	}
}

// wait returns true when it is worth looking again; else it has answered.
func (j *journey) wait() bool {
	err := j.hold.wait(j.x.in.Context(), j.to, j.changed)
	j.x.abandon()
	if err != nil {
		j.x.giveUp(j.to, j.last, err)
		return false
	}
	// A new round; not with the one that failed last, if there is another.
	if n := len(j.tried); n > 0 && len(j.to.Among) > 1 {
		j.tried = append(j.tried[:0], j.tried[n-1])
	} else {
		j.tried = j.tried[:0]
	}
	return true
}

// enter begins an attempt, which [journey.leave] ends.
func (j *journey) enter() {
	j.line.Begin()
	j.since = time.Since(j.x.start)
}

// leave counts an attempt out, and for or against its instance. unreachable says that its node was not reached; gone, that
// the client has left.
func (j *journey) leave(v verdict, unreachable, gone bool, err error) {
	x, s, in := j.x, j.x.s, j.in
	switch {
	case v == answered && err == nil:
		s.loads.Answered(in.ID, time.Now(), x.began-j.since)
		s.judge(j.to, in, atFault(x.status))
	case v == answered || v == misread || gone: // the client's doing
	case errors.Is(err, errMoved): // it answers; it is not the one
	default:
		s.suspect(j.t, j.to, in, unreachable, err)
		if v != refused && !errors.Is(err, errLost) { // who never saw the request has not answered badly
			s.judge(j.to, in, true)
		}
	}
	s.loads.End(in.ID)
	j.line.End()
}

// done says that the request's life is over after an attempt: it has an answer. Otherwise another instance is to be asked.
func (j *journey) done(v verdict, err error) bool {
	x, s, to, in := j.x, j.x.s, j.to, j.in
	if v == answered || v == severed {
		took := x.began
		j.line.Moved(x.moved(), x.out)
		j.line.Done(took, v == severed || x.status >= 500)
		s.o.Log.Debug("request", "service", to.Service, "instance", in.ID, "node", in.Node, "dur", took, "err", err)
		if v == severed {
			panic(http.ErrAbortHandler) // cut the connection: a broken answer never ends cleanly
		}
		return true
	}
	if v == misread {
		x.refuse(misreadAs(err), err.Error(), "")
		return true
	}
	x.abandon()
	j.last = fmt.Errorf("%s on %s: %w", in.ID, in.Node, err)
	spent := false
	if v == broken && !errors.Is(err, errLost) {
		j.breaks++ // a lost node is nobody's fault: the others are asked however many there are
		spent = x.repeatable(v) && j.breaks <= s.o.Retries && !s.budget(to.Service).Retry(time.Now())
	}
	if !x.repeatable(v) || j.breaks > max(0, s.o.Retries) || spent {
		j.line.Moved(x.moved(), 0)
		j.line.Done(time.Since(x.start), true)
		why := "the request may have been carried out, and is not sent twice"
		switch {
		case spent:
			why = "its answer broke, and too many requests are being repeated already"
		case x.harmless():
			why = "its answer broke"
		}
		x.refuse(http.StatusBadGateway, fmt.Sprintf("%v; %s", j.last, why), "servent logs "+string(to.Service))
		return true
	}
	j.line.Retried()
	j.tried = append(j.tried, place{in.ID, in.Node})
	return false
}

// place is an instance where it was asked.
type place struct {
	id   system.InstanceID
	node system.NodeID
}
