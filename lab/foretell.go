package lab

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"servent/lab/law"
	"servent/lab/result"
	"servent/link"
	"servent/system"
)

const (
	simulatedTurns    = 30     // of a closed loop, at least
	simulatedRequests = 10_000 // in all turns, about
)

const calibratedTo = 2 // nodes: smaller systems calibrate the simulation, larger ones are held out

// foretell simulates every variant that the simulation knows of: on the numbers of nodes that were
// measured, to show how well it foretells those that it has not seen, and, where it does, on more. It
// is calibrated on 1 and 2 nodes of all variants together, since what it must know is the host. When ctx ends,
// it leaves the rest out.
func (r *run) foretell(ctx context.Context, res *result.Result) {
	var seen []law.Observed
	held := make([][]law.Observed, len(r.variants))
	for i := range r.variants {
		for _, p := range res.Variants[i].Points {
			o, err := r.observed(r.variants[i], p)
			switch {
			case err != nil || !p.Valid || p.Tried || len(p.Repeats) == 0:
			case p.Nodes <= calibratedTo:
				seen = append(seen, o)
			default:
				held[i] = append(held[i], o)
			}
		}
	}
	if len(seen) == 0 || ctx.Err() != nil {
		return
	}
	r.o.Tell(Progress{Text: "simulating", Share: 1})
	c, err := law.Calibrate(seen, law.NothingUnknown)
	if err != nil {
		return // a point that is no measurement is not simulated
	}
	f := &result.Foretold{Calibrated: slices.Compact(slices.Sorted(slices.Values(c.Nodes))), OverheadMS: float64(c.Overhead) / 1e6}
	var off []float64
	var far []string
	for i, v := range r.variants {
		validation, err := c.HoldOut(held[i])
		if err != nil || ctx.Err() != nil {
			continue
		}
		for _, h := range validation.Held {
			off = append(off, math.Abs(h.RateError))
			if l := res.Variants[i].Law; l != nil {
				l.HeldOut = append(l.HeldOut, result.HeldOut{Nodes: h.Nodes, Measured: h.Rate, Simulated: h.Simulated, Error: h.RateError})
			}
		}
		if r.draw(ctx, &res.Variants[i], v, c, validation); validation.Why == "" {
			far = append(far, v.Name)
		}
	}
	f.HeldOut = len(off)
	f.Text = "simulation calibrated on " + nodesWord(f.Calibrated)
	if len(off) == 0 {
		f.Text += "; nothing was held out, so nothing shows that it foretells anything"
	} else {
		f.Error = law.Median(off).Median
		f.Text += fmt.Sprintf("; off by %.1f %% in the median of %s that it had not seen", 100*f.Error, some(len(off), "point"))
	}
	switch {
	case len(off) == 0 || len(far) == len(r.variants):
	case len(far) == 0:
		f.Text += "; so no variant is simulated on more"
	default:
		f.Text += "; only " + strings.Join(far, ", ") + " was foretold well enough to be simulated on more"
	}
	res.Foretold = f
}

// draw adds a variant's simulated points, and those beyond what was measured if the simulation is believed.
func (r *run) draw(ctx context.Context, out *result.Variant, v Variant, c law.Calibration, validation law.Validation) {
	for _, n := range r.nodes {
		s, goal, err := r.setup(v, n)
		if err != nil || ctx.Err() != nil {
			return
		}
		if o, err := c.Foretell(s, goal); err == nil {
			out.Points = append(out.Points, simulated(n, s, goal, o, result.Interval{Median: o.Rate, Low: o.Rate, High: o.Rate}))
		}
	}
	for _, n := range r.beyond() {
		s, goal, err := r.setup(v, n)
		if err != nil || validation.Why != "" || ctx.Err() != nil {
			return
		}
		o, err := c.Foretell(s, goal)
		if err != nil {
			return
		}
		value, err := validation.Extrapolate(s, goal)
		if err != nil {
			return
		}
		out.Points = append(out.Points, simulated(n, s, goal, o, result.Interval{Median: value.Rate, Low: value.Low, High: value.High}))
		if out.Law != nil {
			out.Law.Further = append(out.Law.Further, result.CurvePoint{Nodes: n, Rate: value.Rate, Low: value.Low, High: value.High, Mode: result.Simulated})
		}
	}
}

// beyond are the numbers of nodes that are only simulated.
func (r *run) beyond() []int {
	most := r.nodes[len(r.nodes)-1]
	if r.depth == result.Full {
		return []int{2 * most, 4 * most}
	}
	return []int{2 * most}
}

// observed is a measured point as the simulation would have to give it.
func (r *run) observed(v Variant, p result.Point) (law.Observed, error) {
	s, goal, err := r.setup(v, p.Nodes)
	return law.Observed{Setup: s, Goal: goal, Rate: p.Rate.Median, P50: time.Duration(p.LatencyMS.P50 * 1e6)}, err
}

// setup is a variant on so many nodes as the simulation takes it, with the load that it was under. What the
// simulation does not know of is refused.
func (r *run) setup(v Variant, nodes int) (law.Setup, law.Goal, error) {
	svc := v.System.Service(r.service)
	groups := r.base.Nodes
	c := groups[0].Capacity
	here := link.Emulate(groups[0].Name, groups)
	for _, g := range groups[1:] {
		if g.Capacity != c || g.Site != groups[0].Site {
			return law.Setup{}, law.Goal{}, fmt.Errorf("%s: nodes differ in capacity or place", v.Name)
		}
	}
	switch {
	case svc.Switch.Sticky != "" && svc.Switch.Sticky != "none":
		return law.Setup{}, law.Goal{}, fmt.Errorf("%s: clients stay with an instance", v.Name)
	case svc.Architecture == system.Replicated && slices.Contains([]string{"nearest", "hash", "maglev"}, svc.Switch.Policy):
		return law.Setup{}, law.Goal{}, fmt.Errorf("%s: the policy goes by where a request comes from", v.Name)
	case here.To[groups[0].Site].Rate > 0:
		return law.Setup{}, law.Goal{}, fmt.Errorf("%s: links have a rate", v.Name)
	case r.tcp != nil && r.tcp.Each, len(v.System.Services) > 1:
		return law.Setup{}, law.Goal{}, fmt.Errorf("%s: other services, or connections, take their time, too", v.Name)
	}
	s := law.Setup{Seed: r.seed, Architecture: svc.Architecture, Nodes: nodes, Workers: max(1, c.Workers), Policy: svc.Switch.Policy,
		Service: law.Fixed(perRequest(c.Rate)), Pass: perRequest(pass(c)), Link: here.To[groups[0].Site].Delay}
	if v.Up {
		s.Nodes, s.Workers = 1, nodes*s.Workers
	} else if r.keyed() && divides(svc.Architecture) {
		s.Shares = r.shares(svc.Architecture, nodes)
	}
	if r.depth == result.Full {
		s.Poisson = true
		return s, law.Goal{Quantile: r.goal.Percentile / 100, Latency: time.Duration(r.goal.LatencyMS * 1e6)}, nil
	}
	// A turn is so short that queues are still growing when it ends: it is simulated as it is measured, from
	// empty queues, between the same answers as in steady.
	s.Clients = r.per * nodes * max(1, c.Workers)
	n := r.requests(nodes)
	s.Warm = n/10 + 1
	s.Requests = max(2, n-max(n/10, s.Clients)-s.Warm)
	s.Turns = max(simulatedTurns, simulatedRequests/s.Requests)
	return s, law.Goal{}, nil
}

func perRequest(rate float64) time.Duration { return time.Duration(float64(time.Second) / rate) }

// simulated is a point as it stands in a result.
func simulated(nodes int, s law.Setup, goal law.Goal, o law.Outcome, rate result.Interval) result.Point {
	ms := func(d time.Duration) float64 { return float64(d) / 1e6 }
	p := result.Point{Nodes: nodes, Mode: result.Simulated, Valid: true, Clients: s.Clients, Repeats: []result.Repeat{}, Rate: rate,
		LatencyMS: result.Latency{P50: ms(o.P50), P90: ms(o.P90), P99: ms(o.P99), Max: ms(o.Max)}, Hops: o.Hops, Lookup: o.Lookups, NodeLoad: []result.Share{}}
	if goal != (law.Goal{}) {
		p.Offered = o.Rate
	}
	for i := range o.Served {
		p.Requests += o.Served[i]
	}
	return p
}
