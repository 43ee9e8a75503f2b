package law

import (
	"errors"
	"fmt"
	"time"
)

// Goal of an open loop: so large a share of all requests is answered within Latency. The zero Goal asks for
// nothing: a setup is simulated as it stands.
type Goal struct {
	Quantile float64 // 0.99
	Latency  time.Duration
}

// ErrNoRate says that the goal is lost at any rate.
var ErrNoRate = errors.New("no rate keeps the goal")

const (
	finest = 1.0 / 256 // of the greatest rate that workers can serve, to which [Greatest] finds one
	steady = 200       // requests that every node serves at least, or their queues stay what they began as
)

// Greatest finds the greatest rate of an open loop at which a simulated system keeps the goal, and what it
// is like then. Setup's own Rate and Clients are not read. Every try has the same draws, so one arrival
// pattern is pressed together, in which nobody waits less for it.
func Greatest(s Setup, g Goal) (Outcome, error) {
	if !(g.Quantile > 0 && g.Quantile < 1) || g.Latency <= 0 {
		return Outcome{}, fmt.Errorf("greatest rate: want a goal, have p%v within %v", 100*g.Quantile, g.Latency)
	}
	if s.Service.Mean() <= 0 {
		return Outcome{}, errors.New("greatest rate: a service that takes no time has none")
	}
	if s.Requests == 0 {
		s.Requests = max(30_000, steady*s.Nodes) // a percentile of 10,000 moves the rate by some percent
	}
	s.Clients = 0
	most := float64(s.Nodes*max(1, s.Workers)) * float64(time.Second) / float64(s.Service.Mean())
	var best Outcome
	low, high := 0, int(1/finest)
	for high-low > 1 {
		middle := (low + high) / 2
		s.Rate = most * float64(middle) * finest
		o, err := Simulate(s)
		if err != nil {
			return Outcome{}, err
		}
		if d, _ := o.Quantile(g.Quantile); d <= g.Latency {
			low, best = middle, o
			best.Rate = s.Rate
		} else {
			high = middle
		}
	}
	if low == 0 {
		return Outcome{}, fmt.Errorf("greatest rate on %d nodes: %w", s.Nodes, ErrNoRate)
	}
	return best, nil
}

// foretell is what a system does: at its clients or rate, or at the greatest rate that keeps the goal.
func foretell(s Setup, g Goal) (Outcome, error) {
	if g == (Goal{}) {
		return Simulate(s)
	}
	return Greatest(s, g)
}
