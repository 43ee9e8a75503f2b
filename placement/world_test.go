package placement

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// world is a fleet whose nodes obey the plan, one tick at a time.
type world struct {
	t      failer
	in     Input
	nodes  map[system.NodeID]*system.Seen
	dead   map[system.NodeID]bool
	broken func(a *system.Assignment) system.State // what becomes of an instance instead of ready; "" is ready
	events []system.Event
}

type failer interface {
	Fatalf(string, ...any)
	Helper()
}

func newWorld(t failer, sys *system.System, nodes ...system.Seen) *world {
	w := &world{t: t, nodes: map[system.NodeID]*system.Seen{}, dead: map[system.NodeID]bool{}}
	w.in = Input{System: sys, Fence: 7, Now: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)}
	for _, n := range nodes {
		w.nodes[n.Node] = &n
	}
	return w
}

func node(id system.NodeID, site system.Site) system.Seen {
	return system.Seen{Node: id, Role: "node", Site: site, Drivers: map[string]string{"process": ""}}
}

func fleetOf(n int) []system.Seen {
	var out []system.Seen
	for i := range n {
		out = append(out, node(system.NodeID(fmt.Sprintf("node-%d", i+1)), system.Site([]string{"eu", "ap"}[i%2])))
	}
	return out
}

func service(name system.ServiceName, replicas int, change ...func(*system.Service)) system.Service {
	s := system.Service{Name: name, Architecture: system.Replicated, Replicas: replicas, Software: system.Software{Kind: system.Process, Run: []string{"./" + string(name)}}}
	for _, f := range change {
		f(&s)
	}
	return s
}

func tied(s *system.Service) { s.Data.Kind = system.DataHard }

func version1(v string) func(*system.Service) {
	return func(s *system.Service) { s.Environment = map[string]string{"VERSION": v} }
}

func sys(services ...system.Service) *system.System {
	slices.SortFunc(services, func(a, b system.Service) int { return len(a.Name) - len(b.Name) })
	slices.SortStableFunc(services, func(a, b system.Service) int {
		if a.Name < b.Name {
			return -1
		}
		return 1
	})
	return &system.System{Name: "shop", Services: services}
}

// input is what a conductor would ask now.
func (w *world) input() Input {
	in := w.in
	in.Nodes = nil
	for _, id := range slices.Sorted(maps.Keys(w.nodes)) {
		if !w.dead[id] {
			n := *w.nodes[id]
			n.Instances = slices.Clone(n.Instances)
			in.Nodes = append(in.Nodes, n)
		}
	}
	in.Holders = slices.Clone(w.in.Holders)
	return in
}

// decide makes one step and checks that a second one changes nothing.
func (w *world) decide() Decision {
	w.t.Helper()
	in := w.input()
	before := w.allReady()
	d := Next(in)
	if d.Changed {
		w.in.Plan, w.in.Holders = d.Plan, append(w.in.Holders, d.Holders...)
		w.events = append(w.events, d.Events...)
		again := w.input()
		if d2 := Next(again); d2.Changed {
			w.t.Fatalf("Next on its own output changes it again:\n%s", show(d.Plan)+"→\n"+show(d2.Plan))
		}
	}
	w.check()
	w.checkReady(before)
	return d
}

// allReady counts the ready instances of each service.
func (w *world) allReady() map[system.ServiceName]int {
	m := map[system.ServiceName]int{}
	if w.in.Plan != nil {
		for _, d := range w.in.Plan.Services {
			m[d.Service.Name] = w.ready(d.Service.Name)
		}
	}
	return m
}

// checkReady holds that a decision takes no ready instance from a stateless service that it needs, but
// where there is no room for its successor beside it.
func (w *world) checkReady(before map[system.ServiceName]int) {
	w.t.Helper()
	if w.in.System == nil {
		return
	}
	for _, s := range w.in.System.Services {
		d := w.in.Plan.Deployment(s.Name)
		if s.Tied() || s.Update.Order == "stop-first" || s.Update.Failure == "continue" || slices.ContainsFunc(d.Assignments, func(a system.Assignment) bool {
			return strings.Contains(a.Reason, "no room") || a.Made != nil && a.Made.Tied()
		}) {
			continue
		}
		if got, want := w.ready(s.Name), min(before[s.Name], s.Replicas); got < want {
			w.t.Fatalf("%s: the decision leaves %d ready of %d, want %d:\n%s", s.Name, got, before[s.Name], want, show(w.in.Plan))
		}
	}
}

// obey lets every live node follow the plan and come one state further.
func (w *world) obey() {
	w.in.Now = w.in.Now.Add(time.Second)
	for id, n := range w.nodes {
		if w.dead[id] {
			continue
		}
		have := map[system.InstanceID]system.InstanceSeen{}
		for _, i := range n.Instances {
			have[i.Instance] = i
		}
		n.Instances, n.Plan = nil, w.in.Plan.Generation
		for _, d := range w.in.Plan.Services {
			for _, a := range d.Assignments {
				if a.Node != id {
					continue
				}
				if s, ok := w.advance(have[a.Instance], &a); ok {
					n.Instances = append(n.Instances, s)
				}
			}
		}
	}
}

func (w *world) advance(s system.InstanceSeen, a *system.Assignment) (system.InstanceSeen, bool) {
	was := s.State
	s.Instance = a.Instance
	switch {
	case a.Goal == system.GoalWait:
		s.State = system.StateWaiting
	case a.Goal == system.GoalDrain && was == system.StateDraining, a.Goal == system.GoalDrain && was == "":
		return s, false
	case a.Goal == system.GoalDrain:
		s.State = system.StateDraining
	case s.Spec != a.Spec || was == "" || was == system.StateWaiting:
		s.State, s.Restarts = system.StateStarting, 0
	case was == system.StateStarting:
		s.State = system.StateReady
		if w.broken != nil {
			if b := w.broken(a); b != "" {
				s.State, s.Exit = b, "exit 1"
				if b == system.StateBackoff {
					s.Restarts++
				}
			}
		}
	case was == system.StateBackoff:
		s.State = system.StateStarting
	}
	s.Spec = a.Spec
	if s.State != was {
		s.Since = w.in.Now
	}
	return s, true
}

// settle steps until nothing changes any more.
func (w *world) settle() *system.Plan {
	w.t.Helper()
	for range 200 {
		d := w.decide()
		if w.in.Plan == nil {
			return nil
		}
		before := show(w.in.Plan) + fmt.Sprint(w.input().Nodes)
		w.obey()
		if !d.Changed && before == show(w.in.Plan)+fmt.Sprint(w.input().Nodes) {
			return w.in.Plan
		}
	}
	w.t.Fatalf("did not settle:\n%s", show(w.in.Plan))
	return nil
}

// check holds what must be true of every plan.
func (w *world) check() {
	w.t.Helper()
	if w.in.Plan == nil {
		return
	}
	offsets := map[int]string{}
	take := func(o int, who string) {
		if o < firstOffset || offsets[o] != "" {
			w.t.Fatalf("offset %d of %s is not free (%q):\n%s", o, who, offsets[o], show(w.in.Plan))
		}
		offsets[o] = who
	}
	for _, d := range w.in.Plan.Doors {
		take(d.Offset, "door "+string(d.Service))
	}
	holders := map[system.InstanceID]system.NodeID{}
	for _, h := range w.in.Holders {
		if was, ok := holders[h.Instance]; ok && was != h.Node {
			w.t.Fatalf("two holders of %s: %s and %s", h.Instance, was, h.Node)
		}
		holders[h.Instance] = h.Node
	}
	for _, d := range w.in.Plan.Services {
		ids := map[system.InstanceID]bool{}
		for _, a := range d.Assignments {
			if ids[a.Instance] {
				w.t.Fatalf("two assignments of %s:\n%s", a.Instance, show(w.in.Plan))
			}
			ids[a.Instance] = true
			take(a.Port, string(a.Instance))
			take(a.Port+1, string(a.Instance))
			made := &d.Service
			if a.Made != nil {
				made = a.Made
			}
			if made.Spec() != a.Spec {
				w.t.Fatalf("%s: Spec is not that of what it is made from:\n%s", a.Instance, show(w.in.Plan))
			}
			if made.Tied() && a.Goal != system.GoalDrain && holders[a.Instance] != a.Node {
				w.t.Fatalf("%s on %s, held by %q:\n%s", a.Instance, a.Node, holders[a.Instance], show(w.in.Plan))
			}
			if a.Reason == "" || a.Goal == system.GoalWait && a.Waits == "" {
				w.t.Fatalf("%s has no reason:\n%s", a.Instance, show(w.in.Plan))
			}
		}
	}
}

// ready counts the instances of a service that get requests now.
func (w *world) ready(name system.ServiceName) (n int) {
	d := w.in.Plan.Deployment(name)
	if d == nil {
		return 0
	}
	for _, a := range d.Assignments {
		if a.Goal != system.GoalRun || w.dead[a.Node] {
			continue
		}
		for _, s := range w.nodes[a.Node].Instances {
			if s.Instance == a.Instance && s.State == system.StateReady {
				n++
			}
		}
	}
	return n
}

// text returns the kinds and texts of all events so far.
func (w *world) told() (out []string) {
	for _, e := range w.events {
		out = append(out, string(cmpOr(string(e.Instance), string(e.Service)))+": "+e.Text)
	}
	return out
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// show writes a plan in few lines.
func show(p *system.Plan) string {
	if p == nil {
		return "no plan\n"
	}
	out := ""
	for _, d := range p.Services {
		for _, a := range d.Assignments {
			old := ""
			if a.Made != nil {
				old = " old"
			}
			out += fmt.Sprintf("%s %s %s%s :%d %s %s\n", a.Instance, a.Node, a.Goal, old, a.Port, a.Reason, a.Waits)
		}
	}
	for _, r := range p.Refused {
		out += fmt.Sprintf("refused %s %d: %s\n", r.Service, r.Missing, r.Reason)
	}
	return out
}

// brief is a plan's instances and nodes: api/1@node-1 db/1@node-2(wait).
func brief(p *system.Plan) (out []string) {
	for _, d := range p.Services {
		for _, a := range d.Assignments {
			s := string(a.Instance) + "@" + string(a.Node)
			if a.Goal != system.GoalRun {
				s += "(" + string(a.Goal) + ")"
			}
			out = append(out, s)
		}
	}
	return out
}

func wantBrief(t *testing.T, p *system.Plan, want ...string) {
	t.Helper()
	if got := brief(p); !slices.Equal(got, want) {
		t.Errorf("plan is %v, want %v\n%s", got, want, show(p))
	}
}
