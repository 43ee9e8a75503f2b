package placement

import (
	"cmp"
	"slices"

	"servent/architecture"
	"servent/system"
)

// divide says who owns which of the service's partitions from now on. Partitions belong to instances: one
// that is lost with its node, or waits for its data, keeps its own and takes them with it. Those of an
// instance that is on its way out go to the others at once. A new one gets its share when it is ready, and
// takes it from the others only when no update is under way and no keys are, and never where keys stand for data on disk:
// what its owner holds must not be out of reach.
func (t *turn) divide(p *part) *system.Parts {
	if row, _ := architecture.Of(p.svc.Architecture); row.Way != architecture.ToOwner || p.removed {
		return nil
	}
	var was *system.Parts
	if p.was != nil {
		was = p.was.Parts
	}
	stay := map[system.InstanceID]bool{}
	byOrdinal(p.active)
	var owners []system.InstanceID
	for _, a := range p.active {
		stay[a.Instance] = true
		if was == nil || was.Share(a.Instance) > 0 || t.fleet.is(a, system.StateReady) {
			owners = append(owners, a.Instance)
		}
	}
	if len(owners) == 0 { // none of the new ones is ready, and all of the old ones go
		for _, a := range p.active {
			owners = append(owners, a.Instance)
		}
	}
	if len(owners) == 0 {
		return was // nobody is there: whoever comes next under the same name has them still
	}
	_, old := t.split(p)
	return Divide(was, owners, len(old) == 0 && !p.svc.Tied() && !t.moving(p))
}

// moving says that keys of the service's program are on their way to an owner, or that one may not know yet that they are.
func (t *turn) moving(p *part) bool {
	if p.svc.Data.Export == "" || p.was == nil || p.was.Parts == nil {
		return false
	}
	return slices.ContainsFunc(p.active, func(a *system.Assignment) bool {
		i, ok := t.fleet.index[a.Node]
		if !ok {
			return false
		}
		n := t.fleet.nodes[i]
		return n.Plan < t.in.Plan.Generation || slices.Contains(n.Moving, a.Instance)
	})
}

// moved says in words what becomes of keys when a plan gives partitions to other owners, all the way to
// its end. Empty: they stay.
func moved(was, is *system.Deployment) string {
	if was.Parts == nil || is.Parts == nil {
		return turned(was, is)
	}
	var owners []system.InstanceID
	for _, a := range is.Assignments {
		if a.Goal != system.GoalDrain {
			owners = append(owners, a.Instance)
		}
	}
	if len(owners) == 0 {
		return ""
	}
	next, n := Divide(was.Parts, owners, !is.Service.Tied()), 0
	for p := range system.Partitions {
		if next.Of(p) != was.Parts.Of(p) {
			n++
		}
	}
	return leave(is, float64(n)/system.Partitions)
}

// leave says what it means that a share of the keys, 0 to 1, get another owner.
func leave(is *system.Deployment, share float64) string {
	if share == 0 {
		return ""
	}
	text := percent(share) + " of its keys get another owner"
	switch {
	case is.Service.Data.Export != "" && is.Parts != nil:
		return text + ", and move there"
	case is.Service.Data.Kind == system.DataNone:
		return text
	}
	return text + "; what the old one holds of them is lost to requests: a program's keys do not move"
}

// percent writes a share of 0 to 1: 25 %, 33.3 %.
func percent(share float64) string { return number(100*share) + " %" }

// Divide gives every partition an owner, moving as few as it can. Partitions whose owner is not among
// owners go to those that have the fewest. With level, those that have more than their share give some up
// too, so that each ends with ⌊P/n⌋ or ⌈P/n⌉ of the P partitions: for n owners no other division that is
// as even moves fewer. owners is sorted by number and not empty; was may be nil.
func Divide(was *system.Parts, owners []system.InstanceID, level bool) *system.Parts {
	next := &system.Parts{Instances: slices.Clone(owners), Owner: make([]int, system.Partitions)}
	count := make([]int, len(owners))
	free := 0
	for p := range next.Owner {
		next.Owner[p] = -1
		if i := slices.Index(owners, was.Of(p)); i >= 0 {
			next.Owner[p] = i
			count[i]++
		} else {
			free++
		}
	}
	goal := goals(count, level, free)
	for p, i := range next.Owner {
		if i >= 0 && count[i] > goal[i] {
			count[i]--
			next.Owner[p] = -1
		}
	}
	// What is free goes round the owners that lack some, so that neighbouring partitions part.
	turn := 0
	for p, i := range next.Owner {
		if i >= 0 {
			continue
		}
		for count[turn] >= goal[turn] {
			turn = (turn + 1) % len(owners)
		}
		next.Owner[p] = turn
		count[turn]++
		turn = (turn + 1) % len(owners)
	}
	return next
}

// goals is how many partitions each owner is to have. The larger shares go to those that have most, who
// then give up least.
func goals(count []int, level bool, free int) []int {
	goal := slices.Clone(count)
	if !level { // pour what is free in, the lowest first
		for ; free > 0; free-- {
			low := 0
			for i := range goal {
				if goal[i] <= goal[low] { // of equals the newest, which in an update takes the place of one that goes
					low = i
				}
			}
			goal[low]++
		}
		return goal
	}
	order := make([]int, len(count))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(count[b], count[a]) })
	for rank, i := range order {
		goal[i] = system.Partitions / len(count)
		if rank < system.Partitions%len(count) {
			goal[i]++
		}
	}
	return goal
}
