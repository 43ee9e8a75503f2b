package route

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

const tenth = 100 * time.Millisecond

// clock is a test's own time.
type clock struct {
	now   time.Time
	calls *Calls
	span  time.Duration
}

func newClock() *clock {
	return &clock{now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), calls: NewCalls(), span: 15 * time.Second}
}

func (c *clock) begin(n int, waits bool) {
	for range n {
		c.calls.Begin("fn", c.now, waits)
	}
}

func (c *clock) end(n int) {
	for range n {
		c.calls.End("fn", c.now)
	}
}

func (c *clock) asked() bool {
	select {
	case <-c.calls.Asked():
		return true
	default:
		return false
	}
}

// sample lets a tenth of a second pass and returns what is told.
func (c *clock) sample() float64 {
	c.now = c.now.Add(tenth)
	return c.told()
}

func (c *clock) told() float64 {
	demand, _ := c.calls.Sample(c.now, func(system.ServiceName) time.Duration { return c.span })
	if len(demand) == 0 {
		return 0
	}
	return demand[0].Inflight
}

func TestFirstCallIsToldAtOnce(t *testing.T) {
	c := newClock()
	c.begin(3, true)
	if !c.asked() || c.asked() {
		t.Error("want one word that a sample is due")
	}
	if got := c.told(); got != 3 {
		t.Errorf("told %v, want the 3 that wait", got)
	}
	c.begin(1, true)
	if c.asked() {
		t.Error("a further call asks for a sample at once; the next one is soon enough")
	}
	if got := c.sample(); got != 4 {
		t.Errorf("a tenth of a second later: told %v, want 4", got)
	}
}

func TestShortCallsAreNoCrowd(t *testing.T) {
	c := newClock()
	most := 0.0
	for range 100 { // ten at a time, each for a thousandth of a second
		c.begin(10, false)
		c.now = c.now.Add(time.Millisecond)
		c.end(10)
		c.now = c.now.Add(99 * time.Millisecond)
		most = max(most, c.told())
	}
	if most != least {
		t.Errorf("told %v at the most, want %v for a mean of a tenth", most, least)
	}
	c.begin(8, false)
	if got := c.sample(); got != 8 {
		t.Errorf("8 that last: told %v", got)
	}
}

func TestDemandIsForgottenLate(t *testing.T) {
	c := newClock()
	c.begin(20, true)
	c.told()
	c.end(16)
	ended := c.now
	for c.told() == 20 {
		c.now = c.now.Add(tenth)
	}
	if took := c.now.Sub(ended); took != 15*time.Second {
		t.Errorf("20 are told for %v, want 15s", took)
	}
	if got := c.sample(); got != 4 {
		t.Errorf("then %v, want the 4 that are left", got)
	}
	c.end(4)
	for range 170 {
		c.sample()
	}
	if _, busy := c.calls.Sample(c.now, func(system.ServiceName) time.Duration { return c.span }); busy || len(c.calls.gauges) > 0 {
		t.Error("nobody calls, and there is still something to tell")
	}
	c.begin(1, false)
	if !c.asked() {
		t.Error("a call after a long time asks for no sample")
	}
}

// Less is told at most once a second, however the demand falls.
func TestFallsAreFew(t *testing.T) {
	c := newClock()
	c.begin(100, true)
	c.told()
	for range 100 {
		c.sample()
		c.end(1)
	}
	falls, last := 0, c.told()
	for range 300 {
		if got := c.sample(); got != last {
			falls, last = falls+1, got
		}
	}
	if falls < 5 || falls > 17 || last != 0 {
		t.Errorf("%d falls to %v in the 17s after the last call, want at most one a second, to 0", falls, last)
	}
}

// A service that is no function, or no longer one, is not told of.
func TestOthersAreNotTold(t *testing.T) {
	c := newClock()
	c.begin(3, true)
	c.told()
	c.span = 0
	if got := c.sample(); got != 0 {
		t.Errorf("told %v", got)
	}
	c.end(3)
	c.sample()
	c.sample()
	if len(c.calls.gauges) > 0 {
		t.Error("it is remembered")
	}
}

// Whatever comes and goes, what is told is never less than what has been under way all the time between two
// samples, nor more than an eighth above the most there was.
func TestAnyDemand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := newClock()
		open, high := 0, []int{}
		for _, n := range rapid.SliceOfN(rapid.IntRange(-10, 12), 1, 60).Draw(t, "changes") {
			low, most := open, open
			if n > 0 {
				c.begin(n, false)
				most += n
			} else {
				n = max(n, -open)
				c.end(-n)
				low += n
			}
			open += n
			high = append(high, most)
			got := c.sample()
			if got < float64(low) {
				t.Fatalf("told %v, %d were under way all the time", got, low)
			}
			if limit := float64(slices.Max(high)) * 1.125; got > max(limit, least) {
				t.Fatalf("told %v, at most %d were under way", got, slices.Max(high))
			}
		}
	})
}

func TestRoundUp(t *testing.T) {
	for _, tt := range []struct{ x, want float64 }{{0, 0}, {1e-9, 0.125}, {0.125, 0.125}, {1, 1}, {1.05, 1.125}, {15, 15}, {16.5, 18}, {100, 104}} {
		if got := roundUp(tt.x); got != tt.want {
			t.Errorf("roundUp(%v) = %v, want %v", tt.x, got, tt.want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		x := rapid.Float64Range(least, 1e12).Draw(t, "x")
		if y := roundUp(x); y < x || y > x*1.125 || math.IsNaN(y) {
			t.Fatalf("roundUp(%v) = %v", x, y)
		}
	})
}

// Processor time is told beside requests, the most of late, and forgotten like them.
func TestUses(t *testing.T) {
	c, now := NewCalls(), time.Now()
	span := func(system.ServiceName) time.Duration { return 10 * time.Second }
	c.Uses("hot", now, 0.5)
	c.Begin("hot", now, false)
	now = now.Add(time.Second)
	demand, busy := c.Sample(now, span)
	if len(demand) != 1 || !busy || demand[0].Inflight != 1 || demand[0].CPU < 0.5 || demand[0].CPU > 0.56 {
		t.Fatalf("%+v, want one request and half a processor", demand)
	}
	c.End("hot", now)
	c.Uses("hot", now, 0)
	for range 15 {
		now = now.Add(time.Second)
		demand, busy = c.Sample(now, span)
	}
	if len(demand) != 0 || busy {
		t.Errorf("%+v, %v after a while, want nothing", demand, busy)
	}
}

// TestAnswers: what is told is within which time nearly all answers of the last two seconds began; a few say nothing.
func TestAnswers(t *testing.T) {
	c := NewCalls()
	now := time.Unix(1e9, 0)
	told := func() float64 {
		d, _ := c.Sample(now, func(system.ServiceName) time.Duration { return time.Minute })
		if len(d) == 0 {
			return -1
		}
		return d[0].Latency
	}
	answer := func(n int, took time.Duration) {
		for range n {
			c.Begin("api", now, false)
			c.End("api", now)
			c.Took("api", now, took)
		}
		now = now.Add(100 * time.Millisecond)
	}
	answer(answersLeast-1, time.Second)
	if got := told(); got != 0 {
		t.Errorf("of %d answers: %v, want 0", answersLeast-1, got)
	}
	now = now.Add(answersOf)
	answer(100, 10*time.Millisecond)
	answer(3, 400*time.Millisecond)
	if got := told(); got < 0.010 || got > 0.012 {
		t.Errorf("3 of 103 are slow: %v, want what the others took, 10ms", got)
	}
	answer(7, 400*time.Millisecond)
	if got := told(); got < 0.4 || got > 0.45 {
		t.Errorf("10 of 110 are slow: %v, want 400ms, at once", got)
	}
	answer(200, 10*time.Millisecond)
	if got := told(); got < 0.4 {
		t.Errorf("less is said at once: %v", got)
	}
	now = now.Add(time.Second)
	answer(100, 10*time.Millisecond)
	if got := told(); got > 0.012 {
		t.Errorf("a second later: %v, want 10ms", got)
	}
	now = now.Add(answersOf + time.Second)
	if got := told(); got != 0 {
		t.Errorf("nobody calls any more: %v, want 0", got)
	}
	now = now.Add(2 * time.Minute)
	told()
	if len(c.took) > 0 {
		t.Error("it remembers services that nobody calls")
	}
	for range 1000 { // more than it keeps
		answer(1, time.Millisecond)
	}
}
