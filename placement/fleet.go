package placement

import (
	"cmp"
	"slices"
	"strings"

	"servent/system"
)

// fleet is what a decision knows of the nodes. Nothing of it changes during a turn.
type fleet struct {
	nodes []*system.Seen // alive, sorted by name
	index map[system.NodeID]int
	away  map[system.NodeID]bool
	seen  map[spot]*system.InstanceSeen
}

type spot struct {
	node     system.NodeID
	instance system.InstanceID
}

// presence is what is known of a node.
type presence int

const (
	gone  presence = iota
	away           // not seen, but its grace has not ended
	alive          // seen
)

func newFleet(in *Input) *fleet {
	f := &fleet{index: map[system.NodeID]int{}, away: map[system.NodeID]bool{}, seen: map[spot]*system.InstanceSeen{}}
	for i := range in.Nodes {
		n := &in.Nodes[i]
		f.nodes = append(f.nodes, n)
		for j := range n.Instances {
			f.seen[spot{n.Node, n.Instances[j].Instance}] = &n.Instances[j]
		}
	}
	slices.SortFunc(f.nodes, func(a, b *system.Seen) int { return cmp.Compare(a.Node, b.Node) })
	for i, n := range f.nodes {
		f.index[n.Node] = i
	}
	for _, id := range in.Away {
		f.away[id] = true
	}
	if len(f.nodes) == 0 && in.Plan != nil { // nowhere to move anything to: leave all be until somebody is seen
		for _, d := range in.Plan.Services {
			for _, a := range d.Assignments {
				f.away[a.Node] = true
			}
		}
	}
	return f
}

func (f *fleet) presence(id system.NodeID) presence {
	if _, ok := f.index[id]; ok {
		return alive
	}
	if f.away[id] {
		return away
	}
	return gone
}

// state is what is seen of the assignment's instance, made from the assignment's version; nil: nothing.
func (f *fleet) state(a *system.Assignment) *system.InstanceSeen {
	s := f.seen[spot{a.Node, a.Instance}]
	if s == nil || s.Spec != "" && s.Spec != a.Spec {
		return nil
	}
	return s
}

func (f *fleet) is(a *system.Assignment, state system.State) bool {
	s := f.state(a)
	return s != nil && s.State == state
}

// stopped says that the assignment's instance certainly does not run: its node lives and names it as
// ended, or does not name it. A node that follows an older plan and has just started it stops it as soon
// as it sees that the plan names it no more.
func (f *fleet) stopped(a *system.Assignment) bool {
	if f.presence(a.Node) != alive {
		return false
	}
	s := f.seen[spot{a.Node, a.Instance}]
	return s == nil || slices.Contains([]system.State{system.StateStopped, system.StateFailed, system.StateDone, system.StateWaiting}, s.State)
}

// lacks says why a node can never run an instance of the service: no driver, or a constraint. Empty: it can.
func lacks(n *system.Seen, s *system.Service) string {
	if why, ok := n.Drivers[string(s.Software.Kind)]; !ok {
		return "has no driver for " + string(s.Software.Kind)
	} else if why != "" {
		return "cannot run " + string(s.Software.Kind) + ": " + why
	}
	if why := outside(n, s); why != "" {
		return why
	}
	return violates(n, s)
}

// outside says why an edge does not run a service: it stands where others may reach into it, so it gets what asks for an edge, and nothing that must
// know of other nodes. Empty: it may.
func outside(n *system.Seen, s *system.Service) string {
	if n.Role != system.RoleEdge {
		return ""
	}
	if s.Architecture != system.Single && s.Architecture != system.Replicated {
		return "is an edge, which runs single and replicated services alone"
	}
	for _, c := range s.Placement.Constraints { // not its name: that is its own choice, and may be another machine's of old
		if strings.TrimPrefix(c.Attribute, "node.") == "role" && c.Value == system.RoleEdge && !c.Not {
			return ""
		}
	}
	return "is an edge; want the constraint node.role == edge"
}

// violates says which constraint of the service's placement a node does not meet. Empty: it meets all.
func violates(n *system.Seen, s *system.Service) string {
	for _, c := range s.Placement.Constraints {
		have, known := attribute(n, c.Attribute)
		if known && (have == c.Value) != c.Not {
			continue
		}
		name := attributeName(c.Attribute)
		switch {
		case !known:
			return "knows no " + c.Attribute + "; want node.id, node.site, node.group, node.role or node.labels.NAME"
		case c.Not:
			return name + " is " + have + ", want another"
		case have == "":
			return "has no " + name + ", want " + c.Value
		default:
			return name + " is " + have + ", want " + c.Value
		}
	}
	return ""
}

// attribute is a node's value for node.id, node.labels.disk or site; false when there is no such attribute.
func attribute(n *system.Seen, path string) (string, bool) {
	path = strings.TrimPrefix(path, "node.")
	if label, ok := strings.CutPrefix(path, "labels."); ok {
		return n.Labels[label], true
	}
	switch path {
	case "id":
		return string(n.Node), true
	case "site":
		return string(n.Site), true
	case "group":
		return n.Group, true
	case "role":
		return n.Role, true
	}
	return "", false
}

// attributeName is how words name an attribute: label disk, site.
func attributeName(path string) string {
	path = strings.TrimPrefix(path, "node.")
	if label, ok := strings.CutPrefix(path, "labels."); ok {
		return "label " + label
	}
	return path
}
