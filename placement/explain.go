package placement

import (
	"slices"

	"servent/architecture"
	"servent/system"
)

// Choice is one instance's place, and all that could have been.
type Choice struct {
	Instance system.InstanceID `json:"instance"` // empty: wanted, but without a place
	Node     system.NodeID     `json:"node,omitempty"`
	Goal     system.Goal       `json:"goal,omitempty"`
	Reason   string            `json:"reason"`
	Waits    string            `json:"waits,omitempty"`
	Cost     Cost              `json:"cost"`             // of the node, all others as they are
	Second   *Considered       `json:"second,omitempty"` // the best of the other nodes; nil: none fits
	Nodes    []Considered      `json:"nodes"`            // every live node, sorted by name
}

// Considered is a node as a place for an instance.
type Considered struct {
	Node system.NodeID `json:"node"`
	Fits bool          `json:"fits"`
	Why  string        `json:"why,omitempty"` // it does not fit
	Cost Cost          `json:"cost"`          // when it fits
}

// Explain says of each instance of a service, as the next plan has them, where it is, why, and what was
// considered. One more choice without an instance stands for those that have no place.
func Explain(in Input, service system.ServiceName) []Choice {
	before := map[system.InstanceID]*system.Assignment{}
	if in.Plan != nil {
		before = assignments(in.Plan.Deployment(service))
	}
	d := Next(in)
	in.Plan, in.Holders = d.Plan, slices.Concat(in.Holders, d.Holders)
	t := begin(in)
	t.place()
	i := slices.IndexFunc(t.parts, func(p *part) bool { return p.svc.Name == service })
	if i < 0 {
		return nil
	}
	p, prob := t.parts[i], t.problem()
	var out []Choice
	all := slices.Concat(p.active, p.drains)
	byOrdinal(all)
	_, old := t.split(p)
	for _, a := range all {
		c := Choice{Instance: a.Instance, Node: a.Node, Goal: a.Goal, Reason: a.Reason, Waits: a.Waits}
		if b := before[a.Instance]; b != nil && a.Goal == system.GoalRun && b.Goal == system.GoalRun && b.Node == a.Node {
			c.Reason = "stays: it ran here; it came here because: " + a.Reason
		}
		if d := in.Plan.Deployment(service); d.Parts != nil {
			c.Reason += "; owns " + percent(float64(d.Parts.Share(a.Instance))/system.Partitions) + " of the keys"
		} else if d.Ring != nil {
			row, _ := architecture.Of(p.svc.Architecture)
			c.Reason += "; owns " + percent(row.Owner.Ranges(d.Ring).Share(a.Instance)) + " of the ring"
		}
		v, ok := t.fleet.index[a.Node]
		counted := ok && a.Goal != system.GoalDrain && !slices.Contains(old, a)
		if counted {
			prob.put(prob.kind[service], v, -1)
		}
		t.consider(p, prob, &c)
		if counted {
			prob.put(prob.kind[service], v, +1)
		}
		out = append(out, c)
	}
	for _, r := range t.refused {
		if r.Service == service && r.Missing > 0 {
			c := Choice{Reason: r.Reason}
			t.consider(p, prob, &c)
			out = append(out, c)
		}
	}
	return out
}

func (t *turn) consider(p *part, prob *problem, c *Choice) {
	for v, n := range t.fleet.nodes {
		x := Considered{Node: n.Node, Why: t.lack(p, prob, v)}
		x.Fits = x.Why == ""
		if x.Fits {
			x.Cost = prob.marginal(prob.kind[p.svc.Name], v)
		}
		c.Nodes = append(c.Nodes, x)
	}
	for i := range c.Nodes {
		x := &c.Nodes[i]
		switch {
		case x.Node == c.Node:
			c.Cost = prob.marginal(prob.kind[p.svc.Name], i)
		case x.Fits && (c.Second == nil || x.Cost.Compare(c.Second.Cost) < 0):
			c.Second = x
		}
	}
}
