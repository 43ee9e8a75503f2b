package admin

import (
	"cmp"
	"net"
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
	Settled    bool             `json:"settled"` // everything wanted runs
	Control    string           `json:"control"` // "" when control answers, else why not
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
	State    string            `json:"state"` // starting, joining, up, gone, stopped
	Why      string            `json:"why,omitempty"`
	Address  string            `json:"address"`
	Pid      int               `json:"pid,omitempty"`
	Emulated bool              `json:"emulated"`
	Capacity system.Capacity   `json:"capacity"`
	Labels   map[string]string `json:"labels,omitempty"`
	Plan     int64             `json:"plan"` // generation that it follows
	Since    time.Time         `json:"since"`
}

// ServiceState is one service.
type ServiceState struct {
	Service      system.ServiceName   `json:"service"`
	Architecture system.Architecture  `json:"architecture"`
	Software     system.SoftwareKind  `json:"software"`
	Wanted       int                  `json:"wanted"` // instances planned
	Ready        int                  `json:"ready"`
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
// machines the nodes that it started: both may know more than control does.
func NewState(v *control.View, machines []NodeState, published []Published) State {
	s := State{Published: published, Nodes: machines, Services: []ServiceState{}, Instances: []InstanceState{}, Refused: []system.Refusal{}, Doors: []DoorState{}}
	if s.Nodes == nil {
		s.Nodes = []NodeState{}
	}
	if s.Published == nil {
		s.Published = []Published{}
	}
	for _, seen := range v.Seen {
		s.addNode(seen)
	}
	for i := range s.Nodes {
		if n := &s.Nodes[i]; n.State == "up" && v.Node(n.Node) == nil {
			n.State, n.Why = "joining", "it has not reported yet"
		}
	}
	slices.SortFunc(s.Nodes, func(a, b NodeState) int {
		return cmp.Or(cmp.Compare(len(a.Node), len(b.Node)), cmp.Compare(a.Node, b.Node))
	})
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
		for _, d := range v.Plan.Doors {
			s.Doors = append(s.Doors, DoorState{seen.Node, d.Service, net.JoinHostPort(seen.Address, strconv.Itoa(seen.PortBase+d.Offset))})
		}
	}
	s.Settled = settled(v, &s)
	return s
}

func (s *State) addNode(seen system.Seen) {
	i := slices.IndexFunc(s.Nodes, func(n NodeState) bool { return n.Node == seen.Node })
	if i < 0 {
		s.Nodes = append(s.Nodes, NodeState{Node: seen.Node})
		i = len(s.Nodes) - 1
	}
	n := &s.Nodes[i]
	n.Role, n.Site, n.Address, n.Emulated = seen.Role, seen.Site, seen.Address, seen.Emulated
	n.Capacity, n.Labels, n.Plan, n.Since = seen.Capacity, seen.Labels, seen.Plan, seen.Started
	if n.State == "" {
		n.State = "up"
	}
}

func (s *State) addService(v *control.View, d *system.Deployment) {
	svc := ServiceState{Service: d.Service.Name, Architecture: d.Service.Architecture, Software: d.Service.Software.Kind, URLs: []string{}}
	for _, dep := range d.Service.DependsOn {
		svc.DependsOn = append(svc.DependsOn, dep.Service)
	}
	for _, p := range s.Published {
		if p.Service == svc.Service {
			svc.URLs = append(svc.URLs, p.URL)
		}
	}
	for _, a := range d.Assignments {
		in := instance(v, d, a)
		if len(svc.URLs) > 0 {
			in.URL = svc.URLs[0]
		}
		if a.Goal != system.GoalDrain {
			svc.Wanted++
		}
		if in.Healthy || in.State == system.StateDone {
			svc.Ready++
		}
		s.Instances = append(s.Instances, in)
	}
	s.Services = append(s.Services, svc)
}

func instance(v *control.View, d *system.Deployment, a system.Assignment) InstanceState {
	in := InstanceState{Service: d.Service.Name, Instance: a.Instance, Node: a.Node, Architecture: d.Service.Architecture, Reason: a.Reason, State: system.StatePreparing}
	seen := v.Instance(a.Node, a.Instance)
	switch {
	case a.Goal == system.GoalWait:
		in.State, in.Why = system.StateWaiting, a.Waits
	case v.Node(a.Node) == nil:
		in.State, in.Why = system.StateWaiting, "for "+string(a.Node)+", which is gone"
	case seen != nil && seen.Spec == a.Spec:
		in.State, in.Why, in.Since, in.Restarts = seen.State, seen.Why, seen.Since, seen.Restarts
		in.Pid, in.Endpoint = seen.Pid, seen.Endpoint
	}
	if in.Healthy = in.State.Healthy(); !in.Healthy {
		in.Next = next(in, d)
	}
	return in
}

// next is the command that helps with an instance that is not ready.
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

// settled says that the plan answers what is wanted and everything in it has come to rest, well.
func settled(v *control.View, s *State) bool {
	if v.Wanted == nil || len(v.Plan.Refused) > 0 || len(v.Plan.Services) != len(v.Wanted.Services) {
		return false
	}
	for i := range v.Wanted.Services {
		want := &v.Wanted.Services[i]
		d := v.Plan.Deployment(want.Name)
		if d == nil || d.Spec != want.Spec() || len(d.Assignments) != architecture.Count(want, len(d.Assignments)) {
			return false
		}
		for _, a := range d.Assignments {
			if a.Goal != system.GoalRun || a.Spec != d.Spec {
				return false
			}
		}
	}
	for _, in := range s.Instances {
		if in.State != system.StateReady && in.State != system.StateDone {
			return false
		}
	}
	for _, svc := range s.Services {
		if svc.Wanted == 0 && svc.Architecture != system.Function {
			return false
		}
	}
	return len(v.Plan.Services) > 0
}
