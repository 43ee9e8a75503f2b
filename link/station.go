package link

import (
	"context"
	"sync"
	"time"

	"servent/system"
)

// Station is the capacity of one emulated node: a queue of requests in front of equal workers, kept in
// virtual time. A request's place is start = max(now, the earliest free worker), end = start + 1/rate,
// whatever the host does: when it oversleeps, the next place is not moved, so that capacity stays exact
// on a busy machine. The queue is bounded by the number of callers, who wait no longer than their ctx.
//
// A program that waits for another service is not slow: of the time that its turns take, the share that
// their calls take is not counted. Which turn a call belongs to is not known, so all turns that are open
// share alike in what the calls leave, as processes share a processor; their sum is exact while no program
// has more than one call open a turn.
//
// A nil *Station is valid: it costs nothing and makes nobody wait.
type Station struct {
	rate  float64
	serve time.Duration // one request served here
	pass  time.Duration // one request sent onward

	mu    sync.Mutex
	free  []time.Time // when each worker is free, in virtual time
	since time.Time   // of the figures below
	sold  time.Duration
	tell  StationReport
	spans spans // from virtual start to real end, without calls
	open  int   // turns whose program has not answered
	calls int   // of the node's programs to other services, not answered
	work  work
}

// work is a clock that every open turn reads: it goes as fast as time as long as no call is open, slower
// with every call, and stands when all turns wait.
type work struct {
	at   time.Time
	done time.Duration
}

// StationReport is what a station did since it was made or reset.
type StationReport struct {
	Rate      float64       `json:"rate"`       // requests a second that a worker serves
	Workers   int           `json:"workers"`    // in parallel
	Served    int64         `json:"served"`     // requests whose turn has ended
	Passed    int64         `json:"passed"`     // requests sent onward
	Late      int64         `json:"late"`       // of Served: the program took longer than the station
	LateShare float64       `json:"late_share"` // Late / Served; above 0.01 the point is invalid
	LateMax   time.Duration `json:"late_max"`   // the most that a turn was late by
	ValidRate float64       `json:"valid_rate"` // requests a second and worker that 99 % of turns would have kept; 0: nothing served
	Busy      float64       `json:"busy"`       // share of all workers' time that was sold, 0…1
}

// NewStation makes a node's station, or nil when its capacity is not emulated.
func NewStation(c system.Capacity) *Station {
	if c.Rate <= 0 {
		return nil
	}
	if c.Workers <= 0 {
		c.Workers = 1
	}
	if c.Pass <= 0 {
		c.Pass = 10 * c.Rate
	}
	s := &Station{rate: c.Rate, serve: every(c.Rate), pass: every(c.Pass), free: make([]time.Time, c.Workers)}
	s.since = time.Now()
	return s
}

func every(rate float64) time.Duration { return time.Duration(float64(time.Second) / rate) }

// Turn is one request's time at a worker. The zero Turn is that of a nil station.
type Turn struct {
	station    *Station
	start, end time.Time
	begun      time.Time     // in real time, no sooner than start
	mark       time.Duration // the clock of work then
}

// Serve takes the next place, first come first served, and returns when it begins. When ctx ends before,
// the place is given back if nobody has taken one behind it at that worker.
func (s *Station) Serve(ctx context.Context) (Turn, error) {
	if s == nil {
		return Turn{}, ctx.Err()
	}
	t, err := s.take(ctx, s.serve)
	if err != nil {
		return t, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	t.begun = time.Now()
	s.move(t.begun)
	t.mark = s.work.done
	s.open++
	return t, nil
}

// Call says that a program of this node has asked another service. The caller calls back, once, when the
// program has its answer or has given up.
func (s *Station) Call() (back func()) {
	if s == nil {
		return func() {}
	}
	s.calling(1)
	return func() { s.calling(-1) }
}

func (s *Station) calling(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.move(time.Now())
	s.calls += n
}

// move brings the clock of work to now; mu is held.
func (s *Station) move(now time.Time) {
	if s.open > s.calls {
		s.work.done += now.Sub(s.work.at) * time.Duration(s.open-s.calls) / time.Duration(s.open)
	}
	s.work.at = now
}

// End waits until the virtual end, so that the answer leaves no sooner; ctx's error says that it did not
// wait so long. A program that took longer makes the turn late. It is called once, when the program has
// answered.
func (t Turn) End(ctx context.Context) error {
	if t.station == nil {
		return nil
	}
	now := time.Now()
	t.station.ended(t, now)
	return sleep(ctx, t.end.Sub(now))
}

// Drop is called instead of End when there will be no answer.
func (t Turn) Drop() {
	if s := t.station; s != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.move(time.Now())
		s.open--
	}
}

// Pass charges what sending a request onward costs and returns when it may leave.
func (s *Station) Pass(ctx context.Context) error {
	if s == nil {
		return ctx.Err()
	}
	t, err := s.take(ctx, s.pass)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.tell.Passed++
	s.mu.Unlock()
	return sleep(ctx, time.Until(t.end))
}

func (s *Station) take(ctx context.Context, costs time.Duration) (Turn, error) {
	if err := ctx.Err(); err != nil {
		return Turn{}, err
	}
	now := time.Now()
	s.mu.Lock()
	first := 0
	for i, free := range s.free {
		if free.Before(s.free[first]) {
			first = i
		}
	}
	before := s.free[first]
	t := Turn{station: s, start: before}
	if now.After(before) {
		t.start = now
	}
	t.end = t.start.Add(costs)
	s.free[first] = t.end
	s.sold += costs
	s.mu.Unlock()
	if err := sleep(ctx, t.start.Sub(now)); err != nil {
		s.mu.Lock()
		if s.free[first].Equal(t.end) {
			s.free[first] = before
			s.sold -= costs
		}
		s.mu.Unlock()
		return Turn{}, err
	}
	return t, nil
}

// sleep returns nil after d, or ctx's error.
func sleep(ctx context.Context, d time.Duration) error {
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Station) ended(t Turn, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell.Served++
	s.move(now)
	s.open--
	took := t.begun.Sub(t.start) + s.work.done - t.mark
	s.spans.add(took)
	if late := took - s.serve; late > 0 {
		s.tell.Late++
		s.tell.LateMax = max(s.tell.LateMax, late)
	}
}

// Report says what the station did. A nil station reports zeros.
func (s *Station) Report() StationReport {
	if s == nil {
		return StationReport{}
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.tell
	r.Rate, r.Workers = s.rate, len(s.free)
	if r.Served > 0 {
		r.LateShare = float64(r.Late) / float64(r.Served)
		r.ValidRate = float64(time.Second) / float64(max(s.spans.at(0.99), 1))
	}
	if past := now.Sub(s.since); past > 0 {
		r.Busy = float64(s.sold-s.ahead(now)) / float64(past) / float64(len(s.free))
	}
	return r
}

// Reset begins the figures anew, after a warm-up. Places that are taken stay.
func (s *Station) Reset() {
	if s == nil {
		return
	}
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tell, s.spans, s.since, s.sold = StationReport{}, spans{}, now, s.ahead(now)
}

// ahead is the time that is sold but has not come yet; mu is held.
func (s *Station) ahead(now time.Time) (sum time.Duration) {
	for _, free := range s.free {
		sum += max(0, free.Sub(now))
	}
	return sum
}
