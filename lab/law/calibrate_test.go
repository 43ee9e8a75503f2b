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
	far, err := v.Extrapolate(ring(64, service))
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
		if _, err := v.Extrapolate(ring(64, service)); (err != nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrNotValidated) {
			t.Errorf("%s: extrapolate: %v", tt.name, err)
		}
	}
	none, err := c.HoldOut(nil)
	if err != nil || none.Why == "" {
		t.Errorf("nothing held out: %+v, %v", none, err)
	}
	if _, err := none.Extrapolate(ring(64, service)); !errors.Is(err, ErrNotValidated) {
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
