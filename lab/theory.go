package lab

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"servent/architecture"
	"servent/lab/law"
	"servent/lab/load"
	"servent/lab/result"
	"servent/placement"
	"servent/route"
	"servent/system"
)

// theory is what the textbook expects of a variant, from the nodes' capacity and the load's keys alone. It
// is stated where all nodes are alike; of an architecture without a formula there is none.
func (r *run) theory(v Variant, svc *system.Service) *result.Theory {
	out := &result.Theory{}
	for _, n := range r.nodes {
		e, err := r.expect(v, svc, n)
		if err != nil {
			return nil
		}
		out.Formula, out.Source = e.Formula, e.Source
		if v.Up {
			out.Formula = "N·c·μ"
		}
		out.Curve = append(out.Curve, result.CurvePoint{Nodes: n, Rate: e.Rate, Low: e.Rate, High: e.Rate})
		if e.Lookups > 0 {
			out.Hops = append(out.Hops, result.CurvePoint{Nodes: n, Rate: e.Lookups, Low: e.Lookups, High: e.Lookups})
		}
	}
	r.named(v, svc, out)
	if row, _ := architecture.Of(svc.Architecture); v.Up || row.Where == architecture.SomeNodes {
		r.queues(v, r.base.Nodes[0].Capacity, out)
	}
	return out
}

// named is what caching resolvers make of switching by name. Each sends its clients to one instance until the TTL is over: where R of
// them fall on N instances at random, N·(1−(1−1/N)^R) instances have work on average (the occupancy problem). The others idle,
// however many clients wait. It bounds a closed loop; in an open one the busiest instance is the bound.
func (r *run) named(v Variant, svc *system.Service, out *result.Theory) {
	if svc.Switch.By != system.ByName || svc.Architecture != system.Replicated || v.Up {
		return
	}
	ttl, node := svc.Switch.TTL, r.base.Nodes[0].Capacity
	kept := ttl > 0 && r.depth != result.Full
	for i := range out.Curve {
		c := &out.Curve[i]
		n := float64(c.Nodes)
		c.Rate = n * node.Rate * float64(max(1, node.Workers)) // nothing is sent onward
		if kept {
			c.Rate *= 1 - math.Pow(1-1/n, float64(r.resolvers))
		}
		c.Low, c.High = c.Rate, c.Rate
	}
	out.Formula = "N·c·μ"
	if kept {
		out.Formula += fmt.Sprintf("·(1−(1−1/N)^R), R = %s that keep an answer for %s, at random", some(r.resolvers, "resolver"), ttl)
		out.Source += "; the occupancy problem, Feller, An Introduction to Probability Theory and Its Applications, vol. 1"
	}
	out.Formula += fmt.Sprintf("; a death costs 1/N of the requests until it is noticed, and for up to %s more", ttl)
}

// queues sets one queue for all workers beside a queue at every node, where variants are scaled both ways. In a
// closed loop with exponential service at N nodes of c workers it is mean value analysis of one M/M/(N·c) station
// against N stations M/M/c that each get an equal share at random: at one node workers idle while requests wait at another.
func (r *run) queues(v Variant, c system.Capacity, out *result.Theory) {
	n := r.nodes[len(r.nodes)-1]
	if n < 2 || !slices.ContainsFunc(r.variants, func(v Variant) bool { return v.Up }) {
		return
	}
	w, clients := max(1, c.Workers), r.per*workers(r.base.Nodes, n)
	one, err := law.MVA([]law.Station{{Demand: 1 / c.Rate, Workers: n * w}}, clients, 0)
	if err != nil {
		return
	}
	many, err := law.MVA(slices.Repeat([]law.Station{{Demand: 1 / c.Rate / float64(n), Workers: w}}, n), clients, 0)
	if err != nil {
		return
	}
	up := fmt.Sprintf("one queue, M/M/%d: %s", n*w, perSecond(one.Throughput))
	side := fmt.Sprintf("%d queues, %[1]d·M/M/%d at random: %s", n, w, perSecond(many.Throughput))
	if v.Up {
		up, side = side, up
	}
	out.Formula += fmt.Sprintf("; %s with %d clients, against %s", side, clients, up)
	out.Source += "; mean value analysis, Reiser and Lavenberg, JACM 27(2), 1980"
}

var errUnlike = errors.New("nodes differ in their capacity")

// expect is what the textbook expects on so many nodes.
func (r *run) expect(v Variant, svc *system.Service, nodes int) (law.Expected, error) {
	c := r.base.Nodes[0].Capacity
	for _, g := range r.base.Nodes[1:] {
		if g.Capacity != c {
			return law.Expected{}, errUnlike
		}
	}
	cl := law.Cluster{Nodes: nodes, Workers: max(1, c.Workers), Rate: c.Rate, Pass: pass(c)}
	if v.Up {
		cl.Nodes, cl.Workers = 1, nodes*cl.Workers
	} else if divides(svc.Architecture) && r.keyed() {
		cl.Shares = r.shares(svc.Architecture, nodes)
	}
	if row, _ := architecture.Of(svc.Architecture); row.Where == architecture.WhenCalled { // one instance a node, all of them warm
		e, err := law.Expect(system.Replicated, cl)
		e.Formula += ", warm"
		return e, err
	}
	return law.Expect(svc.Architecture, cl)
}

// mostWeighed is how many keys are weighed one by one; what is beyond them is spread evenly enough.
const mostWeighed = 1_000_000

// divides says whether keys have their owners under an architecture.
func divides(a system.Architecture) bool {
	row, _ := architecture.Of(a)
	return row.Way == architecture.ToOwner || row.Circle()
}

// shares is how much of the load each of n instances gets when the keys are divided among them: on a circle
// in the order of its members.
func (r *run) shares(a system.Architecture, n int) []float64 {
	ids := make([]system.InstanceID, n)
	at := map[system.InstanceID]int{}
	for i := range ids {
		ids[i] = system.Instance(r.service, i+1)
		at[ids[i]] = i
	}
	var owner func(route.Key) system.InstanceID
	if row, _ := architecture.Of(a); row.Circle() {
		ring := row.Owner.Ranges(placement.Circle(nil, ids))
		owner = func(key route.Key) system.InstanceID { return ring.Of(route.Place(key)) }
	} else {
		parts := placement.Divide(nil, ids, true)
		owner = func(key route.Key) system.InstanceID { return parts.Of(route.Partition(key)) }
	}
	out, sum := make([]float64, n), 0.0
	for i := range min(r.keys.N, mostWeighed) {
		w := weight(r.keys, i)
		out[at[owner(route.Key(load.Key(i)))]] += w
		sum += w
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}

// weight is how often a key is asked for, against the others.
func weight(k load.Keys, i int64) float64 {
	switch k.Kind {
	case "zipf":
		return math.Pow(float64(i+1), -k.S)
	case "hot":
		if hot := max(1, k.Hot); i < hot {
			return k.Share / float64(hot)
		} else if k.N > hot {
			return (1 - k.Share) / float64(k.N-hot)
		}
	}
	return 1
}
