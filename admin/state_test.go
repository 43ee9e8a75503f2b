package admin

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"servent/control"
	"servent/system"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// shop is a system of two services as it stands when all is well: api twice, data once.
func shop() *control.View {
	api := system.Service{Name: "api", Architecture: system.Replicated, Replicas: 2, Software: system.Software{Kind: system.Process, Run: []string{"./api"}}}
	data := system.Service{Name: "data", Architecture: system.Single, Software: system.Software{Kind: system.Process, Run: []string{"./data"}}, Data: system.Data{Kind: system.DataHard}}
	api.DependsOn = []system.Dependency{{Service: "data"}}
	a, d := api.Spec(), data.Spec()
	assign := func(id system.InstanceID, node system.NodeID, spec system.Digest) system.Assignment {
		return system.Assignment{Instance: id, Node: node, Spec: spec, Goal: system.GoalRun, Reason: "room"}
	}
	seen := func(node system.NodeID, in ...system.InstanceSeen) system.Seen {
		return system.Seen{Node: node, Role: "node", Site: "eu", Address: "127.0.0.1", PortBase: 20000, Plan: 7, Started: t0, Instances: in}
	}
	ready := func(id system.InstanceID, spec system.Digest) system.InstanceSeen {
		return system.InstanceSeen{Instance: id, Spec: spec, State: system.StateReady, Since: t0, Pid: 42, Endpoint: "127.0.0.1:20005"}
	}
	return &control.View{
		Wanted: &system.System{Name: "shop", Services: []system.Service{api, data}, Nodes: []system.NodeGroup{{Name: "node", Count: 2}}},
		Plan: &system.Plan{System: "shop", Generation: 7, Doors: []system.Door{{Service: "api", Offset: 2}}, Services: []system.Deployment{
			{Service: api, Spec: a, Assignments: []system.Assignment{assign("api/1", "node-1", a), assign("api/2", "node-2", a)}},
			{Service: data, Spec: d, Assignments: []system.Assignment{assign("data/1", "node-2", d)}},
		}},
		Seen: []system.Seen{seen("node-1", ready("api/1", a)), seen("node-2", ready("api/2", a), ready("data/1", d))},
	}
}

func TestStateSaysWhatRuns(t *testing.T) {
	up := []NodeState{{Node: "node-1", State: "up", Pid: 1}, {Node: "node-2", State: "up", Pid: 2}}
	type row struct {
		ID      system.InstanceID
		State   system.State
		Why     string
		Next    string
		Healthy bool
	}
	well := []row{{"api/1", "ready", "", "", true}, {"api/2", "ready", "", "", true}, {"data/1", "ready", "", "", true}}
	but := func(i int, r row) []row { rows := slices.Clone(well); rows[i] = r; return rows }
	gone := []row{well[0], {"api/2", "waiting", "for node-2, which is gone", "servent explain api/2", false},
		{"data/1", "waiting", "for node-2, which is gone", "servent restart node-2", false}}
	for _, tt := range []struct {
		name     string
		edit     func(*control.View)
		machines []NodeState
		settled  bool
		ready    int // of api
		rows     []row
	}{
		{"all is well", func(*control.View) {}, up, true, 2, well},
		{"a fleet, whose machines are others'", func(*control.View) {}, nil, true, 2, well},
		{"done counts as ready", func(v *control.View) { v.Seen[0].Instances[0].State = system.StateDone }, up, true, 2, but(0, row{"api/1", "done", "", "", false})},
		{"an instance starts", func(v *control.View) { v.Seen[0].Instances[0].State = system.StateStarting }, up, false, 1, but(0, row{"api/1", "starting", "", "", false})},
		{"an instance is not reported yet", func(v *control.View) { v.Seen[0].Instances = nil }, up, false, 1, but(0, row{"api/1", "preparing", "", "", false})},
		{"the old version still runs", func(v *control.View) { v.Seen[0].Instances[0].Spec = "sha256:old" }, up, false, 1, but(0, row{"api/1", "preparing", "", "", false})},
		{"a program crashes", func(v *control.View) {
			in := &v.Seen[0].Instances[0]
			in.State, in.Why = system.StateBackoff, "exit 1"
		}, up, false, 1, but(0, row{"api/1", "backoff", "exit 1", "servent logs api/1", false})},
		{"a node is not seen", func(v *control.View) { v.Seen = v.Seen[:1] }, []NodeState{up[0], {Node: "node-2", State: "gone"}}, false, 1, gone},
		{"a node of a fleet is not seen", func(v *control.View) { v.Seen = v.Seen[:1] }, nil, false, 1, gone},
		{"control is away and the view is old, the machine knows better", func(*control.View) {}, []NodeState{up[0], {Node: "node-2", State: "gone"}}, false, 1, gone},
		{"a node starts again, and its report is of its life before", func(*control.View) {}, []NodeState{up[0], {Node: "node-2", State: "starting"}}, false, 1,
			[]row{well[0], {"api/2", "waiting", "for node-2, which is starting", "servent explain api/2", false}, {"data/1", "waiting", "for node-2, which is starting", "servent restart node-2", false}}},
		{"a process serves and has not reported", func(v *control.View) { v.Seen = v.Seen[:1] }, up, false, 1,
			[]row{well[0], {"api/2", "waiting", "for node-2, which is joining", "servent explain api/2", false}, {"data/1", "waiting", "for node-2, which is joining", "servent restart node-2", false}}},
		{"data wait for their node", func(v *control.View) {
			a := &v.Plan.Services[1].Assignments[0]
			a.Goal, a.Waits = system.GoalWait, "for node-2, which holds its data"
		}, up, false, 2, but(2, row{"data/1", "waiting", "for node-2, which holds its data", "servent restart node-2", false})},
		{"an instance drains and is not counted", func(v *control.View) {
			v.Plan.Services[0].Assignments[1].Goal, v.Plan.Services[0].Assignments[1].Reason = system.GoalDrain, "stops: too many"
		}, up, false, 1, but(1, row{"api/2", "draining", "stops: too many", "", false})},
		{"an instance has drained", func(v *control.View) {
			v.Plan.Services[0].Assignments[1].Goal, v.Plan.Services[0].Assignments[1].Reason = system.GoalDrain, "stops: too many"
			v.Seen[1].Instances = v.Seen[1].Instances[1:]
		}, up, false, 1, but(1, row{"api/2", "stopped", "stops: too many", "", false})},
		{"a service is refused", func(v *control.View) {
			v.Plan.Refused = []system.Refusal{{Service: "api", Missing: 1, Reason: "no room"}}
		}, up, false, 2, well},
		{"the plan does not answer a new number yet", func(v *control.View) { v.Wanted.Services[0].Replicas = 3 }, up, false, 2, well},
		{"the plan does not answer a new program yet", func(v *control.View) { v.Wanted.Services[0].Software.Run = []string{"./new"} }, up, false, 2, well},
		{"the plan does not answer a new route yet", func(v *control.View) { v.Wanted.Services[0].Routes = []system.Route{{Path: "/new"}} }, up, false, 2, well},
		{"a node does not follow the plan yet", func(v *control.View) { v.Seen[0].Plan = 6 }, up, false, 2, well},
		{"nothing is wanted", func(v *control.View) { v.Wanted = nil }, up, false, 2, well},
		{"a service is not planned yet", func(v *control.View) {
			v.Wanted.Services = append(v.Wanted.Services, system.Service{Name: "web"})
		}, up, false, 2, well},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v := shop()
			tt.edit(v)
			s := NewState(v, tt.machines, nil)
			var got []row
			for _, in := range s.Instances {
				got = append(got, row{in.Instance, in.State, in.Why, in.Next, in.Healthy})
				if !in.Healthy && in.State == system.StateWaiting && (in.Pid != 0 || in.Endpoint != "") {
					t.Errorf("%s waits and has pid %d at %q", in.Instance, in.Pid, in.Endpoint)
				}
			}
			if diff := cmp.Diff(got, tt.rows); diff != "" {
				t.Errorf("instances (-got +want):\n%s", diff)
			}
			if s.Settled != tt.settled {
				t.Errorf("Settled = %v, want %v", s.Settled, tt.settled)
			}
			if s.Services[0].Ready != tt.ready {
				t.Errorf("api: %d ready, want %d", s.Services[0].Ready, tt.ready)
			}
		})
	}
}

func TestStateListsNodes(t *testing.T) {
	v := shop()
	v.Seen = append(v.Seen, system.Seen{Node: "node-10", Plan: 7, Started: t0, Address: "127.0.0.9", PortBase: 20000})
	gone := t0.Add(time.Hour)
	s := NewState(v, []NodeState{{Node: "node-2", State: "gone", Why: "killed", Since: gone}, {Node: "node-3", State: "starting"}},
		[]Published{{Service: "api", URL: "http://127.0.0.1:1/"}, {URL: "http://127.0.0.1:2"}})
	type row struct {
		Node  system.NodeID
		State string
		Since time.Time
	}
	var got []row
	for _, n := range s.Nodes {
		got = append(got, row{n.Node, n.State, n.Since})
	}
	want := []row{{"node-1", "up", t0}, {"node-2", "gone", gone}, {"node-3", "starting", time.Time{}}, {"node-10", "up", t0}}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("nodes (-got +want):\n%s", diff)
	}
	if diff := cmp.Diff(s.Doors, []DoorState{{"node-1", "api", "127.0.0.1:20002"}, {"node-10", "api", "127.0.0.9:20002"}}); diff != "" {
		t.Errorf("doors, of nodes that are up (-got +want):\n%s", diff)
	}
	if s.Instances[0].URL != "http://127.0.0.1:1/" || s.Instances[2].URL != "" {
		t.Errorf("urls %q and %q: want api's own, and none for data", s.Instances[0].URL, s.Instances[2].URL)
	}
}

// Before a first plan there is a state, too, without a null in it.
func TestStateOfNothing(t *testing.T) {
	s := NewState(&control.View{}, nil, nil)
	if s.Settled || s.Nodes == nil || s.Services == nil || s.Instances == nil || s.Refused == nil || s.Published == nil || s.Doors == nil {
		t.Errorf("%+v: want lists, and not settled", s)
	}
}
