package route

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"servent/system"
)

// divided is a table's locator: n instances over so many nodes that own partitions in turn, and one more that owns none.
func divided(t *testing.T, n, nodes, copies int, away ...system.InstanceID) *Partitioned {
	t.Helper()
	d := system.Deployment{Service: system.Service{Name: "db", Architecture: system.Partitioned, Key: "/kv/{key}", Copies: copies},
		Parts: &system.Parts{Owner: make([]int, system.Partitions)}}
	seen := map[system.NodeID]*system.Seen{}
	for i := range n + 1 {
		id, node := system.Instance("db", i+1), system.NodeID(fmt.Sprintf("node-%d", i%nodes+1))
		d.Parts.Instances = append(d.Parts.Instances, id)
		d.Assignments = append(d.Assignments, system.Assignment{Instance: id, Node: node, Goal: system.GoalRun})
		if seen[node] == nil {
			seen[node] = &system.Seen{Node: node}
		}
		state := system.StateReady
		if slices.Contains(away, id) {
			state = system.StateStarting
		}
		seen[node].Instances = append(seen[node].Instances, system.InstanceSeen{Instance: id, State: state})
	}
	for p := range d.Parts.Owner {
		d.Parts.Owner[p] = p % n
	}
	var all []system.Seen
	for _, s := range seen {
		all = append(all, *s)
	}
	at, ok := Build(&system.Plan{Generation: 7, Services: []system.Deployment{d}}, all, "node-1").Services["db"].Locator.(*Partitioned)
	if !ok {
		t.Fatal("the service has no locator")
	}
	return at
}

func TestOwners(t *testing.T) {
	for _, tt := range []struct{ n, nodes, copies, want int }{
		{3, 3, 0, 1}, {3, 3, 1, 1}, {3, 3, 3, 3}, {5, 5, 3, 3}, {6, 3, 3, 3}, {4, 2, 3, 3}, {2, 2, 3, 2},
	} {
		at := divided(t, tt.n, tt.nodes, tt.copies)
		for p := range system.Partitions {
			owners := at.Owners(p)
			on := map[system.NodeID]bool{}
			for i, id := range owners {
				on[at.Nodes[id]] = true
				if slices.Index(owners, id) != i || id == system.Instance("db", tt.n+1) {
					t.Fatalf("%+v: partition %d has owners %v", tt, p, owners)
				}
			}
			if len(owners) != tt.want || owners[0] != at.Parts.Of(p) || len(on) < min(tt.nodes, tt.want) {
				t.Fatalf("%+v: partition %d has owners %v on %d nodes", tt, p, owners, len(on))
			}
		}
	}
}

// TestLocateAmongCopies: with copies another owner answers for one that is away; without, nobody does.
func TestLocateAmongCopies(t *testing.T) {
	for _, copies := range []int{1, 2} {
		at := divided(t, 3, 3, copies, "db/1")
		for i := range 300 {
			key := Key(fmt.Sprint(i))
			owners := at.Owners(Partition(key))
			want := owners[0]
			if want == "db/1" && copies > 1 {
				want = owners[1]
			}
			got, err := at.Locate(t.Context(), key)
			if err != nil || got.Instance != want || got.Node != at.Nodes[want] {
				t.Fatalf("copies %d: key %s of %v is at %+v, %v, want %s", copies, key, owners, got, err, want)
			}
			for _, id := range at.Parts.Instances {
				if err := at.Owns(key, id, 7); (err == nil) != slices.Contains(owners, id) {
					t.Fatalf("copies %d: %s owns key %s of %v: %v", copies, id, key, owners, err)
				}
			}
		}
	}
}

// Where one owner orders the requests of a key, no other may be asked.
func TestOrderedOwners(t *testing.T) {
	at := &Partitioned{Parts: &system.Parts{Instances: []system.InstanceID{"db/1", "db/2", "db/3"}, Owner: make([]int, system.Partitions)},
		Nodes: map[system.InstanceID]system.NodeID{"db/1": "a", "db/2": "b", "db/3": "c"}, Copies: 3, Epoch: 4, own: []system.InstanceID{"db/1", "db/2", "db/3"}}
	for _, tt := range []struct {
		ordered bool
		ready   []system.InstanceID
		owns    []system.InstanceID
		first   system.InstanceID
	}{
		{false, []system.InstanceID{"db/1", "db/2"}, []system.InstanceID{"db/1", "db/2", "db/3"}, "db/1"},
		{true, []system.InstanceID{"db/1", "db/2"}, []system.InstanceID{"db/1"}, "db/1"},
		{true, []system.InstanceID{"db/2", "db/3"}, []system.InstanceID{"db/2"}, "db/2"},
		{true, nil, []system.InstanceID{"db/1"}, "db/1"},
	} {
		at.Ordered, at.Ready = tt.ordered, map[system.InstanceID]bool{}
		for _, id := range tt.ready {
			at.Ready[id] = true
		}
		var owns []system.InstanceID
		for _, id := range at.Parts.Instances {
			if at.Owns("key", id, 4) == nil {
				owns = append(owns, id)
			}
		}
		if first := at.First(Partition("key")); first != tt.first || !slices.Equal(owns, tt.owns) {
			t.Errorf("%+v: first %s, owns %v", tt, first, owns)
		}
		if err := at.Owns("key", "db/4", 5); !errors.Is(err, ErrBehind) {
			t.Errorf("asked by a newer view: %v, want %v", err, ErrBehind)
		}
	}
}

func TestBuildOrdered(t *testing.T) {
	for _, cas := range []bool{false, true} {
		plan := &system.Plan{Generation: 1, Services: []system.Deployment{{
			Service: system.Service{Name: "db", Architecture: system.Partitioned, Key: "/kv/{key}", CAS: cas}, Spec: "s",
			Parts: &system.Parts{Instances: []system.InstanceID{"db/1"}, Owner: make([]int, system.Partitions)}}}}
		table := Build(plan, nil, "node-1")
		if at := table.Services["db"].Locator.(*Partitioned); at.Ordered != cas || table.Door("db").Once != cas {
			t.Errorf("cas %v: ordered %v, once %v", cas, at.Ordered, table.Door("db").Once)
		}
	}
}
