package law

import (
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// observe is a system as it "really" is: with overhead and a service of its own, and draws of its own.
func observe(s Setup, overhead time.Duration, scale float64) Observed {
	real := s
	real.Seed += 1000
	real.Overhead = overhead
	real.Service = s.Service.Scaled(scale)
	o, err := Simulate(real)
	if err != nil {
		panic(err)
	}
	return Observed{Setup: s, Rate: o.Rate, P50: o.P50}
}

func ring(n int, service Sampler) Setup {
	return Setup{Architecture: system.Ring, Nodes: n, Service: service, Pass: 2 * ms, Link: ms, Clients: 2 * n, Requests: 10_000}
}

// Calibrated on one and two nodes, the simulation finds the overhead again and foretells 4 to 32 within 5 %.
func TestCalibrateFindsOverhead(t *testing.T) {
	service := LogNormal(20*ms, 0.5)
	points := []Observed{observe(ring(1, service), 3*ms, 1), observe(ring(2, service), 3*ms, 1)}
	c, err := Calibrate(points, NothingUnknown)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(float64(c.Overhead-3*ms)) > float64(500*time.Microsecond) || c.Scale != 1 || c.Left > 0.02 {
		t.Errorf("got %+v, want an overhead of 3ms", c)
	}
	var held []Observed
	for _, n := range []int{4, 8, 16, 32} {
		held = append(held, observe(ring(n, service), 3*ms, 1))
	}
	v, err := c.HoldOut(held)
	if err != nil || v.Why != "" || v.RateError > 0.03 || v.P50Error > 0.05 || len(v.Held) != 4 {
		t.Fatalf("%+v, %v", v, err)
	}
	far, err := v.Extrapolate(ring(64, service), Goal{})
	truth := observe(ring(64, service), 3*ms, 1)
	if err != nil || far.Low > truth.Rate || far.High < truth.Rate || far.High > 1.1*far.Low {
		t.Errorf("64 nodes: %+v, %v; truth %v", far, err, truth.Rate)
	}
	if _, err := c.HoldOut(points); err == nil {
		t.Error("points that were calibrated on were held out")
	}
}

// A real queue whose service is 1.4 times what one client saw.
func TestCalibrateFindsService(t *testing.T) {
	service := Empirical([]time.Duration{5 * ms, 8 * ms, 10 * ms, 13 * ms, 30 * ms})
	quick := func(n, clients int) Setup {
		return Setup{Architecture: system.Replicated, Nodes: n, Service: service, Clients: clients, Requests: 1000}
	}
	c, err := Calibrate([]Observed{observe(quick(1, 1), 2*ms, 1.4), observe(quick(1, 8), 2*ms, 1.4), observe(quick(2, 2), 2*ms, 1.4)}, ServiceUnknown)
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(c.Scale-1.4) > 0.06 || math.Abs(float64(c.Overhead-2*ms)) > float64(ms) {
		t.Errorf("got %+v, want a scale of 1.4 and an overhead of 2ms", c)
	}
}

// What the simulation does not know of, it does not foretell, and then it refuses to go on.
func TestHoldOutRefuses(t *testing.T) {
	service := Fixed(20 * ms)
	ring := func(n int, service Sampler) Setup {
		s := ring(n, service)
		s.Requests = 2000
		return s
	}
	c, err := Calibrate([]Observed{observe(ring(1, service), ms, 1), observe(ring(2, service), ms, 1)}, NothingUnknown)
	if err != nil {
		t.Fatal(err)
	}
	good := observe(ring(8, service), ms, 1)
	for _, tt := range []struct {
		name      string
		rate, p50 float64
		want      string
	}{
		{"as foretold", 1, 1, ""},
		{"a hidden bottleneck", 0.7, 1, "misses held-out throughput"},
		{"within 5 and 10 %", 0.98, 1.05, ""},
		{"latency", 1, 1.2, "misses the held-out median latency"},
	} {
		o := good
		o.Rate *= tt.rate
		o.P50 = time.Duration(float64(o.P50) * tt.p50)
		v, err := c.HoldOut([]Observed{o})
		if err != nil || (v.Why == "") != (tt.want == "") || !strings.Contains(v.Why, tt.want) {
			t.Errorf("%s: %q, %v", tt.name, v.Why, err)
		}
		if _, err := v.Extrapolate(ring(64, service), Goal{}); (err != nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrNotValidated) {
			t.Errorf("%s: extrapolate: %v", tt.name, err)
		}
	}
	none, err := c.HoldOut(nil)
	if err != nil || none.Why == "" {
		t.Errorf("nothing held out: %+v, %v", none, err)
	}
	if _, err := none.Extrapolate(ring(64, service), Goal{}); !errors.Is(err, ErrNotValidated) {
		t.Errorf("nothing held out: %v", err)
	}
	for _, bad := range []Observed{{Setup: ring(4, service)}, {Setup: ring(4, service), Rate: 5}, {Setup: Setup{Nodes: -1}, Rate: 5, P50: ms}} {
		if _, err := c.HoldOut([]Observed{bad}); err == nil {
			t.Errorf("held out %+v", bad)
		}
		if _, err := Calibrate([]Observed{bad}, NothingUnknown); err == nil {
			t.Errorf("calibrated on %+v", bad)
		}
	}
	if _, err := Calibrate(nil, NothingUnknown); err == nil {
		t.Error("calibrated on nothing")
	}
}

// One worker that serves in a fixed time: the greatest rate that keeps p99 is where the wait of M/D/1 leaves
// it, and half of the nodes have half of it.
func TestGreatest(t *testing.T) {
	goal := Goal{Quantile: 0.99, Latency: 100 * ms}
	setup := func(n int) Setup {
		return Setup{Architecture: system.Partitioned, Nodes: n, Service: Fixed(20 * ms), Poisson: true, Requests: 100_000 * n, Pass: 0, Policy: "random"}
	}
	one, err := Greatest(setup(1), goal)
	if err != nil {
		t.Fatal(err)
	}
	at := func(rate float64) float64 {
		q, err := MD1(rate, 50)
		if err != nil {
			t.Fatal(err)
		}
		return q.WaitQuantile(0.99) + 0.02
	}
	if at(one.Rate*0.97) > 0.1 || at(one.Rate*1.03) < 0.1 {
		t.Errorf("greatest rate %.1f: at 3 %% less and more p99 is %.0f and %.0f ms by M/D/1, want 100 between them", one.Rate, 1000*at(one.Rate*0.97), 1000*at(one.Rate*1.03))
	}
	four, err := Greatest(setup(4), goal)
	if err != nil || math.Abs(four.Rate/one.Rate/4-1) > 0.03 {
		t.Errorf("four nodes keep the goal at %.1f, %v; one at %.1f, want four times that", four.Rate, err, one.Rate)
	}
	if _, err := Greatest(setup(1), Goal{Quantile: 0.99, Latency: 10 * ms}); !errors.Is(err, ErrNoRate) {
		t.Errorf("a goal below the service time: %v", err)
	}
	for _, bad := range []Goal{{}, {Quantile: 1, Latency: ms}, {Quantile: 0.9}} {
		if _, err := Greatest(setup(1), bad); err == nil {
			t.Errorf("goal %+v", bad)
		}
	}
	if _, err := Greatest(Setup{Architecture: system.Single, Nodes: 1}, goal); err == nil {
		t.Error("a service without a time")
	}
}

// Points that were found under a goal calibrate by their latency and are foretold by a search.
func TestCalibrateUnderGoal(t *testing.T) {
	goal := Goal{Quantile: 0.99, Latency: 100 * ms}
	setup := func(n int) Setup {
		return Setup{Seed: uint64(n), Architecture: system.Replicated, Policy: "random", Nodes: n, Service: Fixed(20 * ms), Pass: 2 * ms, Poisson: true}
	}
	see := func(n int) Observed {
		real := setup(n)
		real.Seed += 1000
		real.Overhead = 2 * ms
		o, err := Greatest(real, goal)
		if err != nil {
			t.Fatal(err)
		}
		return Observed{Setup: setup(n), Goal: goal, Rate: o.Rate, P50: o.P50}
	}
	c, err := Calibrate([]Observed{see(1), see(2)}, NothingUnknown)
	if err != nil || math.Abs(float64(c.Overhead-2*ms)) > float64(ms) {
		t.Fatalf("%+v, %v; want an overhead of 2ms", c, err)
	}
	v, err := c.HoldOut([]Observed{see(4), see(8)})
	if err != nil || v.Why != "" {
		t.Fatalf("%+v, %v", v, err)
	}
	far, err := v.Extrapolate(setup(16), goal)
	if truth := see(16).Rate; err != nil || far.Low > truth || far.High < truth {
		t.Errorf("16 nodes: %+v, %v; truth %.0f", far, err, truth)
	}
}
