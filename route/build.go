package route

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"servent/architecture"
	"servent/system"
)

// named is how many instances a sentence of [Service.Why] names before it counts the rest.
const named = 3

// crowd is how many times scale.inflight a node gives to one instance of a function at most. What waits at the
// node instead goes to the next one that is made.
const crowd = 2

// Build makes the table of node self. An instance gets requests when the plan lets it run, its node is
// seen, and the node says that it is ready as the assignment specifies it. A nil plan gives a table
// without services. A [Ring] among the locators gets its overlay from who runs it, before the table is used.
func Build(plan *system.Plan, seen []system.Seen, self system.NodeID) *Table {
	t := &Table{Self: self, Services: map[system.ServiceName]*Service{}, Nodes: []system.NodeID{self}}
	nodes := make(map[system.NodeID]*system.Seen, len(seen))
	for i := range seen {
		nodes[seen[i].Node] = &seen[i]
		t.Nodes = append(t.Nodes, seen[i].Node)
	}
	slices.Sort(t.Nodes)
	t.Nodes = slices.Compact(t.Nodes)
	if plan == nil {
		return t
	}
	t.Generation = plan.Generation
	if plan.Web != nil {
		t.Trust = plan.Web.Trust
	}
	for i := range plan.Services {
		d := &plan.Services[i]
		t.Services[d.Service.Name] = service(plan, d, nodes, self)
		for _, r := range d.Service.Routes {
			path, prefix := strings.CutSuffix(r.Path, "*")
			t.Web = append(t.Web, Web{Host: strings.ToLower(r.Host), Path: path, Prefix: prefix, Service: d.Service.Name})
		}
	}
	slices.SortFunc(t.Web, compareWeb)
	return t
}

func service(plan *system.Plan, d *system.Deployment, nodes map[system.NodeID]*system.Seen, self system.NodeID) *Service {
	s := &Service{Name: d.Service.Name, Switch: d.Service.Switch}
	s.Door, _ = plan.Door(s.Name)
	var site system.Site
	if here := nodes[self]; here != nil {
		site = here.Site
	}
	var calls architecture.Calls
	calls, s.Called = architecture.CallsOf(&d.Service)
	s.Timed = calls.Latency > 0
	wakes := architecture.Wakes(&d.Service)
	if wakes {
		s.Each = crowd * calls.Inflight
	}
	s.Coming = wakes && !slices.ContainsFunc(d.Assignments, stands) && !slices.ContainsFunc(plan.Refused, func(r system.Refusal) bool { return r.Service == s.Name })
	var why []string
	for i := range d.Assignments {
		a := &d.Assignments[i]
		f := find(a, nodes[a.Node])
		if f.ready {
			at := nodes[a.Node]
			s.Instances = append(s.Instances, Instance{ID: a.Instance, Node: a.Node, Site: at.Site, Address: f.seen.Endpoint,
				Local: a.Node == self, SameSite: at.Site == site, Ready: f.seen.Since})
			continue
		}
		if at := nodes[a.Node]; a.Goal == system.GoalDrain && f.seen != nil && (f.seen.State == system.StateReady || f.seen.State == system.StateDraining) {
			s.Leaving = append(s.Leaving, Instance{ID: a.Instance, Node: a.Node, Site: at.Site, Address: f.seen.Endpoint,
				Local: a.Node == self, SameSite: at.Site == site})
		}
		away := Absent{ID: a.Instance, Node: a.Node, Coming: coming(d, a, f), Why: f.words(a)}
		s.Absent = append(s.Absent, away)
		s.Coming = s.Coming || away.Coming
		why = append(why, away.Why)
	}
	slices.SortFunc(s.Instances, func(a, b Instance) int { return byOrdinal(a.ID, b.ID) })
	weigh(s.Instances, nodes)
	if len(s.Instances) == 0 {
		s.Why = reason(plan, s.Name, why)
		if wakes && s.Coming && len(why) == 0 {
			s.Why = "no instance runs, and the first call makes one"
		}
	}
	s.keyed(plan, d)
	return s
}

// stands says that an assignment is not on its way out.
func stands(a system.Assignment) bool { return a.Goal != system.GoalDrain }

// weigh gives every instance its part of its node's capacity, which the instances there share: requests a
// second where nodes have a rate, processors where they have none. When one node says neither, nobody has a weight.
func weigh(among []Instance, nodes map[system.NodeID]*system.Seen) {
	for _, capacity := range []func(*system.Seen) float64{
		func(n *system.Seen) float64 { return n.Capacity.Rate * float64(max(1, n.Capacity.Workers)) },
		func(n *system.Seen) float64 { return n.Resources.CPUs },
	} {
		if slices.ContainsFunc(among, func(in Instance) bool { return capacity(nodes[in.Node]) <= 0 }) {
			continue
		}
		there := map[system.NodeID]float64{}
		for _, in := range among {
			there[in.Node]++
		}
		for i := range among {
			among[i].Weight = capacity(nodes[among[i].Node]) / there[among[i].Node]
		}
		return
	}
}

// keyed says where the key stands and, for a service whose keys the plan divides, who owns which.
func (s *Service) keyed(plan *system.Plan, d *system.Deployment) {
	rule, err := ParseKey(d.Service.Key)
	if err != nil {
		return // there is none
	}
	rule.Any = d.Service.NoKey == "any"
	s.Key = rule
	row, _ := architecture.Of(d.Service.Architecture)
	if row.Key != architecture.Must {
		return // the key decides nothing, unless clients stay with an instance by it
	}
	nodes, epoch := map[system.InstanceID]system.NodeID{}, uint64(plan.Generation)
	for _, a := range d.Assignments {
		nodes[a.Instance] = a.Node
	}
	switch {
	case d.Parts != nil:
		at := &Partitioned{Parts: d.Parts, Nodes: nodes, Epoch: epoch}
		at.copied(d, s.Instances)
		s.Locator, s.Once = at, at.Ordered
		s.Moves = Moves{d.Service.Data.Export, d.Service.Data.Import}
	case d.Ring != nil:
		s.Locator = &Ring{Ranges: row.Owner.Ranges(d.Ring), Nodes: nodes, Tied: d.Service.Tied(), Epoch: epoch}
	}
}

// found is what is seen of an assignment.
type found struct {
	alive bool                 // its node is seen
	seen  *system.InstanceSeen // nil: its node does not name it, or not yet as specified
	ready bool
}

func find(a *system.Assignment, at *system.Seen) found {
	f := found{alive: at != nil}
	if at == nil {
		return f
	}
	for i := range at.Instances {
		if in := &at.Instances[i]; in.Instance == a.Instance && in.Spec == a.Spec {
			f.seen = in
			f.ready = in.State.Healthy() && a.Goal == system.GoalRun
		}
	}
	return f
}

// coming says that waiting may help: the instance starts, recovers or is being replaced. It does not
// when data is away with its node, when the program has ended for good, or when nothing is to follow.
func coming(d *system.Deployment, a *system.Assignment, f found) bool {
	switch a.Goal {
	case system.GoalRun:
		if !f.alive {
			return !d.Service.Tied() // the conductor will move it
		}
		return f.seen == nil || f.seen.State != system.StateFailed && f.seen.State != system.StateDone
	case system.GoalDrain:
		return a.Spec != d.Spec // an older version makes room for the new one
	default:
		return f.alive // waits for another service, not for its node
	}
}

func (f found) words(a *system.Assignment) string {
	text := fmt.Sprintf("%s on %s ", a.Instance, a.Node)
	why := ""
	if f.seen != nil {
		why = cmp.Or(f.seen.Why, f.seen.Exit)
	}
	switch {
	case a.Goal == system.GoalWait:
		return fmt.Sprintf("%s is %s", a.Instance, cmp.Or(a.Waits, "waiting"))
	case !f.alive:
		return text + "is lost: its node is not seen"
	case a.Goal == system.GoalDrain:
		return text + "is draining"
	case f.seen == nil:
		return text + "has not started yet"
	case f.seen.State == system.StateBackoff:
		text += "ended and starts again soon"
	default:
		text += "is " + string(f.seen.State)
	}
	if why != "" {
		text += ": " + why
	}
	return text
}

func reason(plan *system.Plan, name system.ServiceName, why []string) string {
	for _, r := range plan.Refused {
		if r.Service == name {
			why = append(why, fmt.Sprintf("%d without a place: %s", r.Missing, r.Reason))
		}
	}
	if len(why) == 0 {
		return "no instance is planned"
	}
	if more := len(why) - named; more > 0 {
		why = append(why[:named:named], fmt.Sprintf("and %d more", more))
	}
	return strings.Join(why, "; ")
}
