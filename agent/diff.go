package agent

import (
	"cmp"
	"slices"

	"servent/system"
)

// Phase is how far this node is with an instance.
type Phase int

const (
	Running  Phase = iota // supervised: also while it is prepared, waits for its next try or has failed
	Draining              // supervised, gets no new requests, is stopped when the open ones have ended
	Stopping              // being stopped; nothing else may happen to it until it is gone
	Idle                  // drained and gone, but still named by the plan
)

// Have is what [Diff] must know of an instance that this node has.
type Have struct {
	Spec   system.Digest
	Port   int
	Folder string
	Phase  Phase
}

// Verb is what is to be done to an instance.
type Verb string

const (
	Start  Verb = "start"
	Drain  Verb = "drain"
	Resume Verb = "resume" // it was draining and may stay
	Stop   Verb = "stop"
	Forget Verb = "forget" // an idle one that the plan names no more
)

// Action is one step towards the plan.
type Action struct {
	Do         Verb
	Instance   system.InstanceID
	Assignment *system.Assignment // of start: part of the plan, read only
	Service    *system.Service    // of start: what the instance is made from, read only
	Why        string             // in words
}

// Diff says what a node that has these instances must do next to make its part of the plan true. An
// instance whose spec, port or folder changed is stopped here and started by a later Diff, when it is gone;
// nor is one started on a port that another has not left yet. So two copies never share a port or a folder.
// Actions are sorted by instance, ends before starts. Assignments that wait are never started.
func Diff(have map[system.InstanceID]Have, plan *system.Plan, node system.NodeID) []Action {
	var out []Action
	named := map[system.InstanceID]bool{}
	taken := map[int]bool{}
	for _, h := range have {
		taken[h.Port] = taken[h.Port] || h.Phase != Idle
	}
	for i := range plan.Services {
		d := &plan.Services[i]
		for j := range d.Assignments {
			as := &d.Assignments[j]
			if as.Node != node {
				continue
			}
			named[as.Instance] = true
			h, ok := have[as.Instance]
			a := next(h, ok, as)
			if a.Do == "" || a.Do == Start && taken[as.Port] {
				continue
			}
			a.Instance = as.Instance
			if a.Do == Start {
				a.Assignment, a.Service = as, made(d, as)
			}
			out = append(out, a)
		}
	}
	for id, h := range have {
		if named[id] {
			continue
		}
		switch h.Phase {
		case Running, Draining:
			out = append(out, Action{Do: Stop, Instance: id, Why: "the plan names it no more"})
		case Idle:
			out = append(out, Action{Do: Forget, Instance: id})
		}
	}
	slices.SortFunc(out, func(a, b Action) int {
		return cmp.Or(cmp.Compare(a.order(), b.order()), compare(a.Instance, b.Instance))
	})
	return out
}

// next compares one assignment with what there is.
func next(h Have, ok bool, as *system.Assignment) Action {
	same := h.Spec == as.Spec && h.Port == as.Port && h.Folder == as.Folder
	runs := ok && (h.Phase == Running || h.Phase == Draining)
	switch {
	case as.Goal == system.GoalRun && (!ok || h.Phase == Idle):
		return Action{Do: Start, Why: as.Reason}
	case as.Goal == system.GoalRun && runs && !same:
		return Action{Do: Stop, Why: changed(h, as)}
	case as.Goal == system.GoalRun && runs && h.Phase == Draining:
		return Action{Do: Resume, Why: "the plan wants it again"}
	case as.Goal == system.GoalDrain && ok && h.Phase == Running:
		return Action{Do: Drain, Why: "the plan lets it go"}
	case as.Goal == system.GoalWait && runs:
		return Action{Do: Stop, Why: as.Waits}
	case as.Goal == system.GoalWait && ok && h.Phase == Idle:
		return Action{Do: Forget}
	}
	return Action{}
}

func changed(h Have, as *system.Assignment) string {
	switch {
	case h.Spec != as.Spec:
		return "it is made from a newer version"
	case h.Port != as.Port:
		return "it has another port"
	}
	return "it has another folder"
}

// made returns the service as an assignment's instance is made from it.
func made(d *system.Deployment, as *system.Assignment) *system.Service {
	if as.Made != nil {
		return as.Made
	}
	return &d.Service
}

func (a Action) order() int {
	if a.Do == Start {
		return 1
	}
	return 0
}

// compare sorts instances by service, then by number.
func compare(a, b system.InstanceID) int {
	as, an, _ := a.Split()
	bs, bn, _ := b.Split()
	return cmp.Or(cmp.Compare(as, bs), cmp.Compare(an, bn), cmp.Compare(a, b))
}
