package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/system"
)

// assign makes a plan of one service per argument list, all instances on node-1 unless said otherwise.
func planOf(generation int64, as ...system.Assignment) *system.Plan {
	p := &system.Plan{System: "shop", Generation: generation, Fence: 1}
	for _, a := range as {
		name, n, err := a.Instance.Split()
		if err != nil {
			panic(err)
		}
		d := p.Deployment(name)
		if d == nil {
			p.Services = append(p.Services, system.Deployment{Spec: "new", Service: system.Service{
				Name: name, Software: system.Software{Kind: "fake"}, Switch: system.Switch{By: system.ByRequest}}})
			p.Doors = append(p.Doors, system.Door{Service: name, Offset: len(p.Services) + 1})
			d = p.Deployment(name)
		}
		if a.Node == "" {
			a.Node = "node-1"
		}
		if a.Spec == "" {
			a.Spec = "new"
		}
		if a.Goal == "" {
			a.Goal = system.GoalRun
		}
		if a.Port == 0 {
			a.Port = 10*len(p.Services) + 2*n
		}
		if a.Folder == "" {
			a.Folder = string(a.Instance[len(name)+1:])
		}
		d.Assignments = append(d.Assignments, a)
	}
	return p
}

func TestDiff(t *testing.T) {
	run := func(id system.InstanceID) system.Assignment { return system.Assignment{Instance: id} }
	goal := func(id system.InstanceID, g system.Goal) system.Assignment {
		return system.Assignment{Instance: id, Goal: g, Waits: "db is not healthy yet"}
	}
	in := func(p Phase) Have { return Have{Spec: "new", Port: 12, Folder: "1", Phase: p} }
	type have = map[system.InstanceID]Have
	for _, tt := range []struct {
		name string
		have have
		plan []system.Assignment
		want []string
	}{
		{"nothing to do", nil, nil, nil},
		{"start", nil, []system.Assignment{run("api/1"), run("api/2")}, []string{"start api/1", "start api/2"}},
		{"elsewhere", nil, []system.Assignment{{Instance: "api/1", Node: "node-2"}}, nil},
		{"runs", have{"api/1": in(Running)}, []system.Assignment{run("api/1")}, nil},
		{"not named", have{"api/1": in(Running)}, nil, []string{"stop api/1: the plan names it no more"}},
		{"moved away", have{"api/1": in(Running)}, []system.Assignment{{Instance: "api/1", Node: "node-2"}}, []string{"stop api/1: the plan names it no more"}},
		{"draining and not named", have{"api/1": in(Draining)}, nil, []string{"stop api/1: the plan names it no more"}},
		{"stopping and not named", have{"api/1": in(Stopping)}, nil, nil},
		{"idle and not named", have{"api/1": in(Idle)}, nil, []string{"forget api/1"}},
		{"drain", have{"api/1": in(Running)}, []system.Assignment{goal("api/1", system.GoalDrain)}, []string{"drain api/1: the plan lets it go"}},
		{"drains", have{"api/1": in(Draining)}, []system.Assignment{goal("api/1", system.GoalDrain)}, nil},
		{"drained", have{"api/1": in(Idle)}, []system.Assignment{goal("api/1", system.GoalDrain)}, nil},
		{"nothing to drain", nil, []system.Assignment{goal("api/1", system.GoalDrain)}, nil},
		{"drain an old one", have{"api/1": {Spec: "old", Port: 12, Folder: "1"}}, []system.Assignment{goal("api/1", system.GoalDrain)}, []string{"drain api/1: the plan lets it go"}},
		{"resume", have{"api/1": in(Draining)}, []system.Assignment{run("api/1")}, []string{"resume api/1: the plan wants it again"}},
		{"wanted again too late", have{"api/1": in(Stopping)}, []system.Assignment{run("api/1")}, nil},
		{"wanted again when gone", have{"api/1": in(Idle)}, []system.Assignment{run("api/1")}, []string{"start api/1"}},
		{"newer version", have{"api/1": {Spec: "old", Port: 12, Folder: "1"}}, []system.Assignment{run("api/1")}, []string{"stop api/1: it is made from a newer version"}},
		{"newer version while draining", have{"api/1": {Spec: "old", Port: 12, Folder: "1", Phase: Draining}}, []system.Assignment{run("api/1")}, []string{"stop api/1: it is made from a newer version"}},
		{"newer version, old one stops", have{"api/1": {Spec: "old", Port: 12, Folder: "1", Phase: Stopping}}, []system.Assignment{run("api/1")}, nil},
		{"other port", have{"api/1": {Spec: "new", Port: 2, Folder: "1"}}, []system.Assignment{run("api/1")}, []string{"stop api/1: it has another port"}},
		{"other folder", have{"api/1": {Spec: "new", Port: 12, Folder: "7"}}, []system.Assignment{run("api/1")}, []string{"stop api/1: it has another folder"}},
		{"port not free yet", have{"old/1": in(Stopping)}, []system.Assignment{run("api/1"), run("api/2")}, []string{"start api/2"}},
		{"port of an idle one", have{"old/1": in(Idle)}, []system.Assignment{run("api/1")}, []string{"forget old/1", "start api/1"}},
		{"waits", nil, []system.Assignment{goal("api/1", system.GoalWait)}, nil},
		{"waits but runs", have{"api/1": in(Running)}, []system.Assignment{goal("api/1", system.GoalWait)}, []string{"stop api/1: db is not healthy yet"}},
		{"waits and was drained", have{"api/1": in(Idle)}, []system.Assignment{goal("api/1", system.GoalWait)}, []string{"forget api/1"}},
		{"unknown goal", nil, []system.Assignment{goal("api/1", "fly")}, nil},
		{"ends before starts, by number", have{"z/1": {Port: 90}, "z/10": {Port: 91}, "z/9": {Port: 92}}, []system.Assignment{run("api/10"), run("api/9")},
			[]string{"stop z/1: the plan names it no more", "stop z/9: the plan names it no more", "stop z/10: the plan names it no more", "start api/9", "start api/10"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			plan := planOf(1, tt.plan...)
			var got []string
			for _, a := range Diff(tt.have, plan, "node-1") {
				word := string(a.Do) + " " + string(a.Instance)
				if a.Why != "" {
					word += ": " + a.Why
				}
				got = append(got, word)
				if a.Do == Start && (a.Assignment.Instance != a.Instance || a.Service.Name != "api") {
					t.Errorf("start of %s carries %v, %v", a.Instance, a.Assignment, a.Service)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("actions (-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffStartsAnOlderVersionAsItWasMade(t *testing.T) {
	old := &system.Service{Name: "api", Restarts: 7}
	plan := planOf(1, system.Assignment{Instance: "api/1", Spec: "old", Made: old})
	plan.Services[0].Assignments[0].Reason = "stays: it ran here"
	got := Diff(nil, plan, "node-1")
	if len(got) != 1 || got[0].Service != old || got[0].Why != "stays: it ran here" {
		t.Errorf("Diff() = %v, want a start of the older service, with the plan's reason", got)
	}
}
