package placement

import (
	"strings"
	"testing"
	"time"

	"servent/system"
)

// paced is a service with a goal of 100ms whose instances are queues: each serves rate requests a second, one after the other.
func paced(t *testing.T, max int) *world {
	return newWorld(t, sys(service("api", 0, func(s *system.Service) {
		s.Scale = system.Scale{Min: 1, Max: max, Latency: 100 * time.Millisecond, Idle: 20 * time.Second}
	})), fleetOf(4)...)
}

// offer makes a load, in requests a second, for so long, and returns how often the number of instances changed. An answer of a queue takes 1/(rate − load) at the mean, and within three times
// that 95 of 100 begin (of M/M/1 the sojourn time is exponential).
func (w *world) offer(load, rate float64, long time.Duration) (changes int) {
	was := 0
	for until := w.in.Now.Add(long); w.in.Now.Before(until); {
		took := 5.0 // a queue that only grows
		if w.in.Plan != nil {
			if n := float64(w.allReady()["api"]); n > 0 && load/n < rate {
				took = min(took, 3/(rate-load/n))
			}
		}
		w.nodes["node-1"].Demand = nil
		if load > 0 {
			w.nodes["node-1"].Demand = []system.Demand{{Service: "api", Inflight: load * took, Latency: took}}
		}
		w.decide()
		w.obey()
		if now := w.in.Plan.Deployment("api").Called.Want; now != was {
			was = now
			changes++
		}
	}
	return changes
}

// TestFollowsLatency: enough instances for the goal and not many more, found in a few steps, kept while the load is, given back after it.
func TestFollowsLatency(t *testing.T) {
	for _, tt := range []struct {
		load, rate  float64
		least, most int // 3/(rate − load/n) ≤ 100ms from least on; below half of the goal one fewer would do
	}{
		{10, 100, 1, 1},
		{100, 50, 5, 8},  // load/n ≤ 20
		{300, 100, 5, 8}, // load/n ≤ 70
		{900, 100, 13, 16},
	} {
		w := paced(t, 20)
		w.offer(0, tt.rate, 5*time.Second)
		changes := w.offer(tt.load, tt.rate, 3*time.Minute)
		if n := w.in.Plan.Deployment("api").Called.Want; n < tt.least || n > tt.most {
			t.Errorf("%v a second over instances of %v: %d instances, want %d to %d", tt.load, tt.rate, n, tt.least, tt.most)
		}
		if changes > 12 {
			t.Errorf("%v a second over instances of %v: %d changes in 3 minutes", tt.load, tt.rate, changes)
		}
		if changes := w.offer(tt.load, tt.rate, 2*time.Minute); changes > 2 {
			t.Errorf("%v a second over instances of %v: %d changes while nothing changes", tt.load, tt.rate, changes)
		}
		w.offer(0, tt.rate, time.Minute)
		if n := w.in.Plan.Deployment("api").Called.Want; n != 1 {
			t.Errorf("%d instances a minute after the load, want 1", n)
		}
	}
}

// TestLatencyOfSomethingElse: when more instances do not help there is one step, and one more each scale.idle; and it is said.
func TestLatencyOfSomethingElse(t *testing.T) {
	w := paced(t, 20)
	w.settle()
	for until := w.in.Now.Add(18 * time.Second); w.in.Now.Before(until); {
		w.nodes["node-1"].Demand = []system.Demand{{Service: "api", Inflight: 10, Latency: 1}}
		w.decide()
		w.obey()
	}
	if n := w.in.Plan.Deployment("api").Called.Want; n != 2 {
		t.Errorf("%d instances after 18s, want 2: the second did not help", n)
	}
	in := w.input()
	why := Why(in, "api")
	for _, want := range []string{"2 instances", "1s on node-1", "100ms is the goal", "the last step, from 1, did not make them faster"} {
		if !strings.Contains(why, want) {
			t.Errorf("Why = %q, want %q", why, want)
		}
	}
}
