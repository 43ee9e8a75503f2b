package admin

import (
	"cmp"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strconv"
	"time"

	"servent/architecture"
	"servent/control"
	"servent/system"
)

// State is a running system as a user sees it: what `servent ps` prints and the console draws.
type State struct {
	System     string           `json:"system"`
	Context    string           `json:"context"` // laptop, fleet
	Generation int64            `json:"generation"`
	Settled    bool             `json:"settled"`            // everything wanted runs
	Control    string           `json:"control"`            // "" when control answers, else why not
	Voters     []Voter          `json:"voters,omitempty"`   // of a fleet: the servers that agree, as they were last heard of
	Survives   string           `json:"survives,omitempty"` // which losses of them control survives, in words
	Nodes      []NodeState      `json:"nodes"`
	Services   []ServiceState   `json:"services"`
	Instances  []InstanceState  `json:"instances"`
	Refused    []system.Refusal `json:"refused"`
	Published  []Published      `json:"published"`
	Doors      []DoorState      `json:"doors"`             // one a node and service
	Console    string           `json:"console,omitempty"` // URL
}

// NodeState is one node.
type NodeState struct {
	Node     system.NodeID     `json:"node"`
	Role     string            `json:"role"`
	Site     system.Site       `json:"site"`
	State    string            `json:"state"` // starting, joining, up, paused, gone, stopped; see [NodeState.Runs]
	Why      string            `json:"why,omitempty"`
	Address  string            `json:"address"`
	Pid      int               `json:"pid,omitempty"`
	Emulated bool              `json:"emulated"`
	Capacity system.Capacity   `json:"capacity"`
	Labels   map[string]string `json:"labels,omitempty"`
	Drained  bool              `json:"drained,omitempty"` // it gets nothing, and keeps what is tied to its data
	Plan     int64             `json:"plan"`              // generation that it follows
	Since    time.Time         `json:"since"`             // of its process when it is up, else of its state
	Names    string            `json:"names,omitempty"`   // host:port of its name server; empty: nothing is switched by name
	Alarms   []system.Alarm    `json:"alarms,omitempty"`  // what will hurt it before long
}

// States of a node.
const (
	nodeUp      = "up"
	nodeJoining = "joining" // its process serves, and has not reported yet
	nodeGone    = "gone"
)

// Runs says that what the node reports is of its present life.
func (n *NodeState) Runs() bool { return n.State == nodeUp }

// ServiceState is one service.
type ServiceState struct {
	Service      system.ServiceName   `json:"service"`
	Architecture system.Architecture  `json:"architecture"`
	Software     system.SoftwareKind  `json:"software"`
	Wanted       int                  `json:"wanted"`              // instances planned
	Ready        int                  `json:"ready"`               // of Wanted: healthy, or done
	Called       *system.Called       `json:"called,omitempty"`    // of a function: how many instances its calls need
	Preparing    int                  `json:"preparing,omitempty"` // of a function: nodes that cannot make an instance of it yet
	Why          string               `json:"why,omitempty"`       // of a function: why none can be made
	URLs         []string             `json:"urls"`
	DependsOn    []system.ServiceName `json:"depends_on,omitempty"`
}

// InstanceState is one instance. ps --json is an array of these.
type InstanceState struct {
	Service      system.ServiceName  `json:"service"`
	Instance     system.InstanceID   `json:"instance"`
	Node         system.NodeID       `json:"node"`
	Architecture system.Architecture `json:"architecture"`
	State        system.State        `json:"state"`
	Healthy      bool                `json:"healthy"`
	URL          string              `json:"url"` // of its service, as published; "" when internal
	Since        time.Time           `json:"since"`
	Restarts     int                 `json:"restarts"`
	Tied         bool                `json:"tied,omitempty"` // it stays on the node that has its data
	Pid          int                 `json:"pid,omitempty"`
	Endpoint     string              `json:"endpoint,omitempty"`
	Reason       string              `json:"reason"`         // why here
	Why          string              `json:"why,omitempty"`  // why not ready
	Next         string              `json:"next,omitempty"` // command to try when it is not ready
}

// Published is a way in from outside.
type Published struct {
	Service system.ServiceName `json:"service"`
	URL     string             `json:"url"`
	Node    system.NodeID      `json:"node,omitempty"` // set when the way in is one node's own
}

// DoorState is where one node answers for one service.
type DoorState struct {
	Node    system.NodeID      `json:"node"`
	Service system.ServiceName `json:"service"`
	Address string             `json:"address"` // host:port
}

// NewState folds a view into what a user sees. published are the ways in that the caller holds open,
// machines the nodes that it started: both may know more than control does, above all while control does
// not answer and the view is old. So an instance runs only where its machine does not know better.
func NewState(v *control.View, machines []NodeState, published []Published) State {
	s := State{Published: slices.Clone(published), Nodes: slices.Clone(machines), Services: []ServiceState{}, Instances: []InstanceState{}, Refused: []system.Refusal{}, Doors: []DoorState{}}
	if s.Published == nil {
		s.Published = []Published{}
	}
	s.addNodes(v)
	if v.Wanted != nil {
		s.System = v.Wanted.Name
	}
	if v.Plan == nil {
		return s
	}
	s.System, s.Generation = v.Plan.System, v.Plan.Generation
	s.Refused = append(s.Refused, v.Plan.Refused...)
	for i := range v.Plan.Services {
		s.addService(v, &v.Plan.Services[i])
	}
	for _, seen := range v.Seen {
		if !s.node(seen.Node).Runs() {
			continue
		}
		if v.Plan.Names > 0 {
			s.node(seen.Node).Names = net.JoinHostPort(seen.Address, strconv.Itoa(seen.PortBase+v.Plan.Names))
		}
		for _, d := range v.Plan.Doors {
			s.Doors = append(s.Doors, DoorState{seen.Node, d.Service, net.JoinHostPort(seen.Address, strconv.Itoa(seen.PortBase+d.Offset))})
		}
	}
	s.Settled = settled(v, &s)
	return s
}

// tooManyRestarts of one instance while the system settles.
const tooManyRestarts = 3

// Hopeless is why it is of no use to wait longer for the system to settle, or nil.
func (s *State) Hopeless() error {
	for _, in := range s.Instances {
		if in.State == system.StateFailed || in.State == system.StateBackoff && in.Restarts >= tooManyRestarts {
			return &system.Hint{Err: fmt.Errorf("%s does not run on %s: %s", in.Instance, in.Node, in.Why), Next: "servent logs " + string(in.Instance)}
		}
	}
	for _, svc := range s.Services {
		if svc.Why != "" {
			return &system.Hint{Err: fmt.Errorf("%s cannot be called: %s", svc.Service, svc.Why), Next: "servent explain " + string(svc.Service)}
		}
	}
	for _, r := range s.Refused {
		return &system.Hint{Err: fmt.Errorf("no room for %s of %s: %s", plural(r.Missing), r.Service, r.Reason), Next: "servent explain " + string(r.Service)}
	}
	return nil
}

func plural(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return strconv.Itoa(n) + " instances"
}

// node returns a node, or nil.
func (s *State) node(id system.NodeID) *NodeState {
	for i := range s.Nodes {
		if s.Nodes[i].Node == id {
			return &s.Nodes[i]
		}
	}
	return nil
}

// addNodes lists the nodes that are started here, that are seen, and that the plan counts on.
func (s *State) addNodes(v *control.View) {
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.Runs() && v.Node(n.Node) == nil {
			n.State, n.Why = nodeJoining, cmp.Or(n.Why, "it has not reported yet")
		}
	}
	for _, seen := range v.Seen {
		n := s.node(seen.Node)
		if n == nil {
			s.Nodes = append(s.Nodes, NodeState{Node: seen.Node, State: nodeUp})
			n = &s.Nodes[len(s.Nodes)-1]
		}
		n.Role, n.Site, n.Address, n.Emulated = seen.Role, seen.Site, seen.Address, seen.Emulated
		n.Capacity, n.Labels, n.Plan, n.Alarms = seen.Capacity, seen.Labels, seen.Plan, seen.Alarms
		if host, _, err := net.SplitHostPort(seen.Link); err == nil {
			n.Address = host
		}
		if n.Runs() {
			n.Since = seen.Started
		}
	}
	for _, m := range v.Members {
		if s.node(m.Node) == nil {
			s.Nodes = append(s.Nodes, NodeState{Node: m.Node, Role: m.Role, Site: m.Site, Labels: m.Labels, Address: m.From, State: nodeGone, Why: "it is not seen"})
		}
	}
	for _, d := range v.Drains {
		if n := s.node(d.Node); n != nil {
			n.Drained = true
		}
	}
	if v.Plan != nil {
		for _, d := range v.Plan.Services {
			for _, a := range d.Assignments {
				if s.node(a.Node) == nil {
					s.Nodes = append(s.Nodes, NodeState{Node: a.Node, State: nodeGone, Why: "it is not seen"})
				}
			}
		}
	}
	if s.Nodes == nil {
		s.Nodes = []NodeState{}
	}
	slices.SortFunc(s.Nodes, func(a, b NodeState) int {
		return cmp.Or(cmp.Compare(len(a.Node), len(b.Node)), cmp.Compare(a.Node, b.Node)) // node-2 before node-10
	})
}

func (s *State) addService(v *control.View, d *system.Deployment) {
	svc := ServiceState{Service: d.Service.Name, Architecture: d.Service.Architecture, Software: d.Service.Software.Kind, Called: d.Called, URLs: []string{}}
	for _, dep := range d.Service.DependsOn {
		svc.DependsOn = append(svc.DependsOn, dep.Service)
	}
	if architecture.Wakes(&d.Service) {
		svc.Preparing, svc.Why = s.preparing(v, d)
	}
	for _, p := range s.Published {
		if p.Service == svc.Service {
			svc.URLs = append(svc.URLs, p.URL)
		}
	}
	for _, a := range d.Assignments {
		in := instance(v, d, a, s.node(a.Node))
		if len(svc.URLs) > 0 {
			in.URL = svc.URLs[0]
		}
		if a.Goal != system.GoalDrain {
			svc.Wanted++
			if in.Healthy || in.State == system.StateDone {
				svc.Ready++
			}
		}
		s.Instances = append(s.Instances, in)
	}
	s.Services = append(s.Services, svc)
}

// preparing counts the nodes on which a function is not prepared yet, and says why it cannot be on one.
func (s *State) preparing(v *control.View, d *system.Deployment) (n int, why string) {
	for i := range v.Seen {
		seen := &v.Seen[i]
		if cannot, ok := seen.Drivers[string(d.Service.Software.Kind)]; !ok || cannot != "" || !s.node(seen.Node).Runs() {
			continue
		}
		at := slices.IndexFunc(seen.Prepared, func(p system.Prepared) bool { return p.Service == d.Service.Name && p.Spec == d.Spec })
		if at < 0 {
			n++
		} else if text := seen.Prepared[at].Why; text != "" && why == "" {
			why = text
		}
	}
	return n, why
}

// instance is what its node says of it, where that can be believed and is of what the plan asks for.
func instance(v *control.View, d *system.Deployment, a system.Assignment, on *NodeState) InstanceState {
	in := InstanceState{Service: d.Service.Name, Instance: a.Instance, Node: a.Node, Architecture: d.Service.Architecture, Reason: a.Reason, State: system.StatePreparing, Tied: d.Service.Tied()}
	seen := v.Instance(a.Node, a.Instance)
	if seen != nil && seen.Spec == a.Spec {
		in.State, in.Why, in.Since, in.Restarts = seen.State, seen.Why, seen.Since, seen.Restarts
		in.Pid, in.Endpoint = seen.Pid, seen.Endpoint
	}
	switch {
	case a.Goal == system.GoalWait:
		in.State, in.Why = system.StateWaiting, a.Waits
	case !on.Runs():
		in.State, in.Why = system.StateWaiting, "for "+string(a.Node)+", which is "+on.State
	case a.Goal == system.GoalDrain && seen == nil:
		in.State, in.Why = system.StateStopped, a.Reason
	case a.Goal == system.GoalDrain:
		in.State, in.Why = system.StateDraining, a.Reason
	}
	if in.State == system.StateWaiting {
		in.Since, in.Pid, in.Endpoint = time.Time{}, 0, ""
		if on.State == nodeGone {
			in.Since = on.Since
		}
	}
	if in.Healthy = in.State.Healthy(); !in.Healthy {
		in.Next = next(in, d)
	}
	return in
}

// next is the command that helps with an instance that is not ready; empty: it needs none.
func next(in InstanceState, d *system.Deployment) string {
	switch in.State {
	case system.StateWaiting:
		if d.Service.Tied() {
			return "servent restart " + string(in.Node)
		}
		return "servent explain " + string(in.Instance)
	case system.StateBackoff, system.StateFailed, system.StateUnhealthy:
		return "servent logs " + string(in.Instance)
	}
	return ""
}

// due is how many instances a deployment should have.
func due(want *system.Service, d *system.Deployment) int {
	if d.Called != nil {
		return d.Called.Want
	}
	return architecture.Count(want, len(d.Assignments))
}

// settled says that the plan answers what is wanted, that every node follows it, and that everything in it
// has come to rest, well.
func settled(v *control.View, s *State) bool {
	if v.Wanted == nil || len(v.Plan.Refused) > 0 || len(v.Plan.Services) == 0 || len(v.Plan.Services) != len(v.Wanted.Services) {
		return false
	}
	for i := range v.Wanted.Services {
		want := &v.Wanted.Services[i]
		d := v.Plan.Deployment(want.Name)
		if d == nil || d.Spec != want.Spec() || !reflect.DeepEqual(&d.Service, want) || len(d.Assignments) != due(want, d) {
			return false
		}
		for _, a := range d.Assignments {
			if a.Goal != system.GoalRun || a.Spec != d.Spec {
				return false
			}
		}
	}
	for _, n := range s.Nodes {
		if n.Runs() && n.Plan < v.Plan.Generation {
			return false
		}
	}
	for _, in := range s.Instances {
		if in.State != system.StateReady && in.State != system.StateDone {
			return false
		}
	}
	for _, svc := range s.Services {
		if svc.Wanted == 0 && svc.Called == nil || svc.Preparing > 0 || svc.Why != "" {
			return false
		}
	}
	return true
}
