// Package placement decides which instance goes to which node, and why, in words. It turns what is
// wanted, the plan as it stands and what is seen into the next plan, one step at a time: targets,
// moves off dead nodes, data ties, rolling updates, ports. It never asks for the time, never blocks and
// remembers nothing; everything it needs to know later stands in the plan. Start at [Next].
//
// A decision has six parts, one file each: settle.go says what becomes of the instances that are there,
// called.go and paced.go how many a service's calls and its goal of latency need, roll.go how many are added and drained in this step,
// search.go where the added ones go, divide.go and circle.go which keys are whose, words.go why.
package placement

import (
	"cmp"
	"encoding/json"
	"slices"
	"strings"
	"time"

	"servent/architecture"
	"servent/system"
)

// Input is all that a decision depends on. Next changes nothing of it.
type Input struct {
	System  *system.System  // wanted; nil: nothing
	Plan    *system.Plan    // as it stands; nil at first
	Nodes   []system.Seen   // alive now
	Away    []system.NodeID // in the plan, not seen, but still within their grace: their instances are left be
	Holders []system.Holder
	Fence   int64     // of the conductor that asks
	Now     time.Time // for events and holders, and to see how long an instance has been as it is
}

// Decision is one step of the loop.
type Decision struct {
	Plan    *system.Plan    // the input's own when nothing changed
	Holders []system.Holder // new ones; they must be written with the plan
	Events  []system.Event
	Changed bool
}

// rounds bounds how often [Next] looks again at what it decided itself.
const rounds = 8

// Next makes one step: from the plan as it stands towards what is wanted. It is idempotent: on its own
// output, with an unchanged world, it changes nothing; progress comes from what nodes report. To be so, it
// takes as many turns as change something: one decision may make room for another.
func Next(in Input) Decision {
	if in.Plan == nil && in.System == nil {
		return Decision{}
	}
	d, was := Decision{Plan: in.Plan}, in.Plan
	for range rounds {
		t := begin(in)
		t.place()
		plan := t.assemble()
		d.Holders = append(d.Holders, t.written...)
		if in.Plan != nil && len(t.written) == 0 && equal(in.Plan, plan) && (d.Changed || !later(in.Nodes, was)) {
			break
		}
		d.Plan, d.Changed = plan, true
		in.Plan, in.Holders = plan, slices.Concat(in.Holders, t.written)
	}
	if d.Changed {
		d.Plan.Fence, d.Plan.Generation = in.Fence, follows(in.Nodes, was)+1
		d.Events = events(was, d.Plan, in.Now)
	}
	return d
}

// follows is the greatest generation that is known: of the plan as it stands, or of one that a node has. A node has a later one when control began anew from a
// backup; it goes on with that one until there is a plan that is later still.
func follows(nodes []system.Seen, was *system.Plan) (most int64) {
	if was != nil {
		most = was.Generation
	}
	for _, n := range nodes {
		if n.Role != system.RoleEdge { // it is not trusted with the others' plan
			most = max(most, n.Plan)
		}
	}
	return most
}

// later says whether a node follows a later plan than the one that stands.
func later(nodes []system.Seen, was *system.Plan) bool {
	return was != nil && follows(nodes, was) > was.Generation
}

// turn is one look at the world.
type turn struct {
	in      Input
	fleet   *fleet
	holders map[system.InstanceID]system.NodeID
	written []system.Holder
	parts   []*part // services after those that they depend on
	refused []system.Refusal
}

// part is one service's part of a turn.
type part struct {
	svc     *system.Service // as wanted; of a removed service, as it was
	spec    system.Digest
	was     *system.Deployment
	removed bool
	fresh   bool    // has never run: its first instances wait for its dependencies
	holds   bool    // the file's version fails: those that do not run keep the one before
	back    bool    // rolled back: target is an older version than the file's
	target  version // what instances should be made from
	want    int
	called  *system.Called // set when calls say how many are wanted

	active  []*system.Assignment // run or wait where they are
	drains  []*system.Assignment // on their way out
	freed   []*system.Assignment // were draining and have stopped: their names and places are free
	lost    []*system.Assignment // were on nodes that are gone, and may move
	items   []*item              // to be placed in this turn
	stuck   int                  // items of an update for which there is no room
	paused  string               // why the update does not go on
	instead version              // what new instances are made from while it is paused
}

// version is what an instance is made from.
type version struct {
	spec system.Digest
	made *system.Service // nil: the deployment's own service
}

// item is one instance that needs a node.
type item struct {
	id    system.InstanceID
	port  int                // 0: not given yet
	from  *system.Assignment // where it was until now; nil: it is new
	at    version
	surge bool // one more than wanted, for an update
}

// begin reads the input and settles what is there.
func begin(in Input) *turn {
	t := &turn{in: in, fleet: newFleet(&in), holders: map[system.InstanceID]system.NodeID{}}
	for _, h := range in.Holders {
		t.holders[h.Instance] = h.Node
	}
	t.parts = partsOf(in)
	for _, p := range t.parts {
		t.aim(p)
		t.settle(p)
	}
	for _, p := range t.parts {
		if !p.removed {
			if calls, ok := architecture.CallsOf(p.svc); ok {
				p.called = t.follow(p, calls)
			}
			p.want = t.count(p)
			t.resume(p)
			t.roll(p)
		}
	}
	return t
}

// partsOf pairs what is wanted with what is planned, dependencies first.
func partsOf(in Input) []*part {
	byName := map[system.ServiceName]*part{}
	var parts []*part
	if in.System != nil {
		for i := range in.System.Services {
			s := &in.System.Services[i]
			p := &part{svc: s, spec: s.Spec(), fresh: true}
			byName[s.Name], parts = p, append(parts, p)
		}
	}
	if in.Plan != nil {
		for i := range in.Plan.Services {
			was := &in.Plan.Services[i]
			p := byName[was.Service.Name]
			if p == nil {
				p = &part{svc: &was.Service, spec: was.Spec, removed: true}
				parts = append(parts, p)
			}
			p.was = was
			p.fresh = !p.removed && !slices.ContainsFunc(was.Assignments, func(a system.Assignment) bool { return !waitsForDependency(&a) })
		}
	}
	slices.SortFunc(parts, func(a, b *part) int { return cmp.Compare(a.svc.Name, b.svc.Name) })
	return dependenciesFirst(parts)
}

// dependenciesFirst orders parts so that each stands after those it depends on or wants to be near to.
// Where these go round in a circle, the name that sorts first breaks it.
func dependenciesFirst(parts []*part) []*part {
	ordered, state := make([]*part, 0, len(parts)), map[*part]bool{}
	var visit func(*part)
	visit = func(p *part) {
		if state[p] {
			return
		}
		state[p] = true
		for _, name := range append(dependencies(p.svc), system.ServiceName(p.svc.Near)) {
			i, ok := slices.BinarySearchFunc(parts, name, func(p *part, n system.ServiceName) int { return cmp.Compare(p.svc.Name, n) })
			if ok {
				visit(parts[i])
			}
		}
		ordered = append(ordered, p)
	}
	for _, p := range parts {
		visit(p)
	}
	return ordered
}

func dependencies(s *system.Service) []system.ServiceName {
	names := make([]system.ServiceName, 0, len(s.DependsOn)+1)
	for _, d := range s.DependsOn {
		names = append(names, d.Service)
	}
	return names
}

// count is how many instances the service should have on the nodes there are.
func (t *turn) count(p *part) int {
	if p.called != nil {
		return p.called.Want
	}
	eligible := map[system.NodeID]bool{}
	for _, n := range t.fleet.nodes {
		if lacks(n, p.svc) == "" && !n.Cordoned {
			eligible[n.Node] = true
		}
	}
	for _, a := range p.active { // a cordoned or silent node that has one keeps it
		if !t.draining(a.Node) || p.of(a).Tied() {
			eligible[a.Node] = true
		}
	}
	if p.svc.Tied() {
		for _, h := range t.in.Holders {
			if h.Service == p.svc.Name {
				eligible[h.Node] = true
			}
		}
	}
	return architecture.Count(p.svc, len(eligible))
}

// most is how many instances of the service one node may have; 0 is no bound.
func most(s *system.Service) int {
	if everywhere(s) {
		return 1
	}
	return s.Placement.MaxPerNode
}

// everywhere says that the service has an instance on every eligible node, and so no room for a second one
// beside it.
func everywhere(s *system.Service) bool {
	row, ok := architecture.Of(s.Architecture)
	return ok && row.Where == architecture.EveryNode
}

// of returns what an assignment's instance is made from.
func (p *part) of(a *system.Assignment) *system.Service {
	if a.Made != nil {
		return a.Made
	}
	return p.svc
}

// assemble makes the plan of what the turn decided: sorted, with doors and ports.
func (t *turn) assemble() *system.Plan {
	plan := &system.Plan{Doors: []system.Door{}, Services: []system.Deployment{}, Refused: t.refused}
	if t.in.System != nil {
		plan.System, plan.Web = t.in.System.Name, t.in.System.Web
	} else if t.in.Plan != nil {
		plan.System = t.in.Plan.System
	}
	for _, p := range t.parts {
		all := slices.Concat(p.active, p.drains)
		if p.removed && len(all) == 0 {
			continue
		}
		d := system.Deployment{Service: *p.svc, Spec: p.spec, Assignments: []system.Assignment{}, Called: p.called}
		for _, a := range all {
			d.Assignments = append(d.Assignments, *a)
		}
		slices.SortFunc(d.Assignments, func(a, b system.Assignment) int {
			return cmp.Compare(ordinal(a.Instance), ordinal(b.Instance))
		})
		d.Parts, d.Ring = t.divide(p), t.circle(p)
		plan.Services = append(plan.Services, d)
	}
	slices.SortFunc(plan.Services, func(a, b system.Deployment) int { return cmp.Compare(a.Service.Name, b.Service.Name) })
	slices.SortStableFunc(plan.Refused, func(a, b system.Refusal) int { return cmp.Compare(a.Service, b.Service) })
	givePorts(t.in.Plan, plan)
	return plan
}

// equal compares plans as they are written, but for who wrote them and when.
func equal(a, b *system.Plan) bool {
	write := func(p *system.Plan) string {
		c := *p
		c.Generation, c.Fence = 0, 0
		out, err := json.Marshal(c)
		if err != nil {
			panic("placement: a plan cannot be written as JSON: " + err.Error())
		}
		return string(out)
	}
	return write(a) == write(b)
}

func ordinal(id system.InstanceID) int {
	_, n, err := id.Split()
	if err != nil {
		panic("placement: " + err.Error())
	}
	return n
}

// Words that the next turn reads again. They stand in the plan, where a colleague reads them too.
const (
	finished   = "finished here; a job runs once"
	rolledBack = "rolled back: "
	paused     = "update paused: "
	yet        = " yet"
)

func waitsForDependency(a *system.Assignment) bool {
	return a.Goal == system.GoalWait && strings.HasSuffix(a.Waits, yet)
}
