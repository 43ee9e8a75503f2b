package lab

import (
	"cmp"
	"fmt"
	"slices"

	"servent/architecture"
	"servent/system"
)

// scaled is a system on so many nodes, in the proportions of its groups, with as many instances of the
// compared service as its architecture can use: one a node. What is published is published nowhere, since
// several stages stand side by side; the load enters by the nodes' own doors. Scaled up instead of out it
// is one node, with so many times the workers.
func (v *Variant) scaled(service system.ServiceName, nodes int) *system.System {
	sys := v.System
	out := *sys
	out.Compare = nil
	out.Nodes, out.Web = nil, nil
	for i, n := range divide(sys.Nodes, nodes) {
		g := sys.Nodes[i]
		if v.Up {
			g.Count, g.Capacity.Workers = 1, nodes*max(1, g.Capacity.Workers)
			out.Nodes = append(out.Nodes, g)
			nodes = 1
			break
		}
		if n > 0 {
			g.Count = n
			out.Nodes = append(out.Nodes, g)
		}
	}
	out.Services = slices.Clone(sys.Services)
	for i := range out.Services {
		s := &out.Services[i]
		s.Ports = slices.Clone(s.Ports)
		for p := range s.Ports {
			s.Ports[p].Published, s.Ports[p].App = 0, "" // by HTTP: TLS costs every variant the same
		}
		if s.Name != service {
			continue
		}
		if !s.Public() { // the load is no call of a program
			s.Ports = []system.Port{{Protocol: "tcp"}}
		}
		if row, _ := architecture.Of(s.Architecture); row.Where == architecture.SomeNodes {
			s.Replicas, s.Scale.Min, s.Scale.Max = nodes, nodes, nodes
			s.Placement.MaxPerNode = 0
		}
		if row, _ := architecture.Of(s.Architecture); row.Where == architecture.WhenCalled {
			s.Scale.Min, s.Scale.Max = min(s.Scale.Min, nodes), nodes
			s.Placement.MaxPerNode = 1
		}
	}
	return &out
}

// apart is a scaled system as it runs until a node is killed: what has one instance in all does not stand on
// the first node, which answers for control, too. The killed node must be another, for what an architecture
// survives is measured, not what control does. It is no rule for what comes then: before the node dies the
// system is wanted without it, so that the instance may go wherever there is room.
func apart(sys *system.System, service system.ServiceName) *system.System {
	out := *sys
	out.Services = slices.Clone(sys.Services)
	s := out.Service(service)
	if row, _ := architecture.Of(s.Architecture); row.Where == architecture.OneNode && (len(out.Nodes) > 1 || out.Nodes[0].Count > 1) {
		first := out.Nodes[0].Name + "-1"
		s.Placement.Constraints = append(slices.Clone(s.Placement.Constraints), system.Constraint{Attribute: "node.id", Not: true, Value: first})
	}
	return &out
}

// divide gives n nodes to the groups in their proportions: each gets the whole part of its share, and
// what is left goes to the largest remainders (Hamilton's method). The first group gets the first node.
func divide(groups []system.NodeGroup, n int) []int {
	total := 0
	for _, g := range groups {
		total += max(1, g.Count)
	}
	counts, rest := make([]int, len(groups)), n
	order := make([]int, len(groups))
	for i, g := range groups {
		counts[i] = n * max(1, g.Count) / total
		rest -= counts[i]
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int {
		return cmp.Compare(n*max(1, groups[b].Count)%total, n*max(1, groups[a].Count)%total)
	})
	for _, i := range order[:rest] {
		counts[i]++
	}
	return counts
}

// typed says whether every group's capacity stands in the file.
func typed(groups []system.NodeGroup) bool {
	return !slices.ContainsFunc(groups, func(g system.NodeGroup) bool { return g.Capacity.Rate <= 0 })
}

// ideal is what so many nodes serve in a second if none ever waits.
func ideal(groups []system.NodeGroup, nodes int) (sum float64) {
	for i, n := range divide(groups, nodes) {
		c := groups[i].Capacity
		sum += float64(n) * c.Rate * float64(max(1, c.Workers))
	}
	return sum
}

// workers is how many requests so many nodes serve at once.
func workers(groups []system.NodeGroup, nodes int) (sum int) {
	for i, n := range divide(groups, nodes) {
		sum += n * max(1, groups[i].Capacity.Workers)
	}
	return sum
}

// pass is what a group's nodes send onward in a second.
func pass(c system.Capacity) float64 {
	if c.Pass > 0 {
		return c.Pass
	}
	return 10 * c.Rate
}

func perSecond(x float64) string { return fmt.Sprintf("%.4g/s", x) }
