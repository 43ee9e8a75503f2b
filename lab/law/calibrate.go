package law

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"
)

// What a simulation must foretell on held-out points before farther ones are believed: medians of the
// absolute errors.
const (
	RateError    = 0.05
	LatencyError = 0.10
)

// Observed is a measured point, with the setup that describes how it was measured.
type Observed struct {
	Setup Setup
	Goal  Goal    // that Rate is the greatest to keep; zero: Rate is what came of Setup's clients
	Rate  float64 // answers a second
	P50   time.Duration
}

// offered is the setup with the rate that was measured, where it is the greatest to keep a goal.
func (p Observed) offered() Setup {
	if p.Goal != (Goal{}) {
		p.Setup.Clients, p.Setup.Rate = 0, p.Rate
	}
	return p.Setup
}

// Calibration is what a simulation must know of the host to be like what was measured.
type Calibration struct {
	Overhead time.Duration // of each way between two parties; see [Setup.Overhead]
	Scale    float64       // of the service times; 1 where they are known
	Left     float64       // root of the mean squared relative error on the points it was made from
	Nodes    []int         // of those points
}

// Unknown says what is not known of the service times.
type Unknown int

const (
	NothingUnknown Unknown = iota // stations are emulated: service is what was typed
	ServiceUnknown                // a real queue: the shape is known from a run with one client, but not how load stretches it
)

// Calibrate finds the overhead, and the scale of service where it is unknown, with which the simulation comes
// nearest to rate and median latency of the points, by their logarithms. Those are small systems, N = 1 and
// 2; larger ones are held out, for [Calibration.HoldOut]. A point with a goal is simulated at its own Rate:
// what it says of the host is its latency. The draws are the same in every try, so nearer is not luck.
//
// With clients enough to keep every worker busy, overhead hides behind the queue: it moves neither rate nor
// latency, and what is found for it says nothing. At least one point should leave workers idle.
func Calibrate(points []Observed, unknown Unknown) (Calibration, error) {
	if len(points) == 0 {
		return Calibration{}, errors.New("calibrate: no points")
	}
	most := time.Duration(math.MaxInt64)
	var nodes []int
	for _, p := range points {
		if !(p.Rate > 0) || math.IsInf(p.Rate, 0) || p.P50 <= 0 {
			return Calibration{}, fmt.Errorf("calibrate: %v/s with a median of %v at %d nodes is no measurement", p.Rate, p.P50, p.Setup.Nodes)
		}
		if _, err := Simulate(p.offered()); err != nil {
			return Calibration{}, fmt.Errorf("calibrate: %w", err)
		}
		most = min(most, p.P50)
		nodes = append(nodes, p.Setup.Nodes)
	}
	off := func(c Calibration) float64 {
		sum := 0.0
		for _, p := range points {
			o, err := Simulate(c.Apply(p.offered()))
			if err != nil {
				return math.Inf(1)
			}
			sum += square(math.Log(o.Rate/p.Rate)) + square(math.Log(float64(o.P50)/float64(p.P50)))
		}
		return sum
	}
	// Every request goes two ways at least, so half of the smallest median is more than any overhead.
	overhead := func(scale float64) (time.Duration, float64) {
		at := golden(func(x float64) float64 { return off(Calibration{Overhead: time.Duration(x), Scale: scale}) }, 0, float64(most/2), float64(most)/1e4)
		d := time.Duration(math.Round(at))
		left := off(Calibration{Overhead: d, Scale: scale})
		if none := off(Calibration{Scale: scale}); none <= left {
			return 0, none
		}
		return d, left
	}
	scale := 1.0
	if unknown == ServiceUnknown {
		// A factor of four either way; the best overhead for each scale is found within.
		scale = math.Exp2(golden(func(x float64) float64 { _, left := overhead(math.Exp2(x)); return left }, -2, 2, 0.01))
	}
	c := Calibration{Scale: scale, Nodes: nodes}
	var left float64
	c.Overhead, left = overhead(scale)
	c.Left = math.Sqrt(left / float64(2*len(points)))
	return c, nil
}

func square(x float64) float64 { return x * x }

// Apply returns the setup as this host runs it.
func (c Calibration) Apply(s Setup) Setup {
	s.Overhead += c.Overhead
	if c.Scale != 1 {
		s.Service = s.Service.Scaled(c.Scale)
	}
	return s
}

// Foretell simulates a system as this host runs it; with a goal, at the greatest rate that keeps it.
func (c Calibration) Foretell(s Setup, g Goal) (Outcome, error) { return foretell(c.Apply(s), g) }

// Held is a point that the calibration did not see, as measured and as foretold.
type Held struct {
	Nodes             int
	Rate, Simulated   float64
	RateError         float64 // simulated/measured − 1
	P50, SimulatedP50 time.Duration
	P50Error          float64
}

// Validation is how well a calibrated simulation foretells.
type Validation struct {
	Held      []Held
	RateError float64 // median of the absolute errors
	P50Error  float64
	WorstRate float64 // greatest absolute error
	Why       string  // not empty: farther points are refused, and why
	from      Calibration
}

// HoldOut compares the calibrated simulation with points that it has not seen. Points of a number of nodes
// that it was calibrated on are refused: they would prove nothing.
func (c Calibration) HoldOut(points []Observed) (Validation, error) {
	v := Validation{from: c}
	var rates, latencies []float64
	for _, p := range points {
		if slices.Contains(c.Nodes, p.Setup.Nodes) {
			return v, fmt.Errorf("hold out: the simulation was calibrated on %d nodes", p.Setup.Nodes)
		}
		if !(p.Rate > 0) || math.IsInf(p.Rate, 0) || p.P50 <= 0 {
			return v, fmt.Errorf("hold out: %v/s with a median of %v at %d nodes is no measurement", p.Rate, p.P50, p.Setup.Nodes)
		}
		o, err := c.Foretell(p.Setup, p.Goal)
		if err != nil {
			return v, fmt.Errorf("hold out: %w", err)
		}
		h := Held{Nodes: p.Setup.Nodes, Rate: p.Rate, Simulated: o.Rate, P50: p.P50, SimulatedP50: o.P50}
		h.RateError = h.Simulated/h.Rate - 1
		h.P50Error = float64(h.SimulatedP50)/float64(h.P50) - 1
		v.Held = append(v.Held, h)
		rates = append(rates, math.Abs(h.RateError))
		latencies = append(latencies, math.Abs(h.P50Error))
		v.WorstRate = math.Max(v.WorstRate, math.Abs(h.RateError))
	}
	v.RateError, v.P50Error = Median(rates).Median, Median(latencies).Median
	switch {
	case len(points) == 0:
		v.Why = "no point was held out, so nothing shows that the simulation foretells anything"
	case v.RateError > RateError:
		v.Why = fmt.Sprintf("the simulation misses held-out throughput by %s in the median, more than %s", percent(v.RateError), percent(RateError))
	case v.P50Error > LatencyError:
		v.Why = fmt.Sprintf("the simulation misses the held-out median latency by %s in the median, more than %s", percent(v.P50Error), percent(LatencyError))
	}
	return v, nil
}

// ErrNotValidated says that a simulation has not shown that it foretells what is measured.
var ErrNotValidated = errors.New("not validated")

// seeds of an extrapolated point: as many as an interval of 95 % needs.
const seeds = 6

// Extrapolate foretells a system that was not measured. The band is the interval of the simulation over six
// seeds, widened by the worst error on held-out points.
func (v Validation) Extrapolate(s Setup, g Goal) (Value, error) {
	if v.Why != "" || len(v.Held) == 0 {
		return Value{}, fmt.Errorf("%d nodes: %s: %w", s.Nodes, v.Why, ErrNotValidated)
	}
	s = v.from.Apply(s)
	rates := make([]float64, seeds)
	for i := range rates {
		s.Seed = mix(s.Seed + uint64(i)*0x9e3779b97f4a7c15 + 1)
		o, err := foretell(s, g)
		if err != nil {
			return Value{}, err
		}
		rates[i] = o.Rate
	}
	in := Median(rates)
	return Value{N: s.Nodes, Rate: in.Median, Low: in.Low * (1 - v.WorstRate), High: in.High * (1 + v.WorstRate)}, nil
}
