package placement

import (
	"cmp"
	"slices"
	"strings"

	"servent/system"
)

// place finds a node for each item of each part, and says why, or why there is none.
func (t *turn) place() {
	prob := t.problem()
	for _, p := range t.parts {
		p.items = slices.DeleteFunc(p.items, func(i *item) bool { return t.fixed(p, i, prob) })
		prob.kinds[prob.kind[p.svc.Name]].items = len(p.items)
	}
	answer := prob.solve()
	for _, p := range t.parts {
		where := answer[prob.kind[p.svc.Name]]
		slices.SortStableFunc(where, func(a, b int) int { return cmp.Compare(truth(a < 0), truth(b < 0)) })
		left := 0
		for n, i := range p.items {
			if v := where[n]; v >= 0 {
				t.assign(p, i, t.fleet.nodes[v].Node, t.reason(p, prob, v, i))
				continue
			}
			if i.surge {
				p.stuck++
				continue
			}
			left++
			if i.from != nil && t.fleet.presence(i.from.Node) == gone {
				p.active = append(p.active, i.from) // should its node come back, it is where it was
			}
		}
		if left -= len(p.drains); left > 0 { // each that is on its way out makes room for one
			t.refuse(p, left, t.nowhere(p, prob))
		}
		if p.stuck > 0 && p.stuck == len(p.items) && len(p.drains) == 0 {
			t.makeRoom(p, prob)
		}
	}
	for _, p := range t.parts {
		if !p.removed {
			t.letStart(p)
		}
	}
}

// makeRoom goes on with an update for which there is no room beside the old instances: one of them ends
// first, if that makes the room. Else the update waits, and says for what.
func (t *turn) makeRoom(p *part, prob *problem) {
	next, old := t.split(p)
	if t.unsettled(p, next) > 0 {
		return
	}
	k := prob.kind[p.svc.Name]
	for _, a := range old {
		v, ok := t.fleet.index[a.Node]
		if !ok {
			continue
		}
		prob.room(k, v, +1)
		fits := slices.ContainsFunc(prob.every, func(v int) bool { return prob.fits(k, v) })
		prob.room(k, v, -1)
		if fits {
			t.drain(p, a, "there is no room for the new version beside it")
			return
		}
	}
	t.refuse(p, 0, "update waits for room beside the version before: "+t.nowhere(p, prob))
}

// fixed places an item that has only one place: where its data is, where it ran when it was stopped to
// be made anew, or where it is called. It returns false when the search must place it.
func (t *turn) fixed(p *part, i *item, prob *problem) bool {
	svc := i.at.made
	if svc == nil {
		svc = p.svc
	}
	k := prob.kind[p.svc.Name]
	if holder, ok := t.holders[i.id]; ok && svc.Tied() {
		a := t.assign(p, i, holder, "holds its data")
		v, alive := t.fleet.index[holder]
		if !alive {
			a.Goal, a.Waits = system.GoalWait, waitsForNode(holder)
			return true
		}
		prob.put(k, v, +1)
		t.wake(p, a)
		return true
	}
	if i.from == nil {
		return t.beside(p, i, prob)
	}
	v, ok := t.fleet.index[i.from.Node]
	if !ok || !t.stopsFirst(p) || !prob.fits(k, v) {
		return false
	}
	prob.put(k, v, +1)
	t.assign(p, i, i.from.Node, "stays: it ran here")
	return true
}

// assign puts an item on a node. Of a tied one it is noted that the node holds its data.
func (t *turn) assign(p *part, i *item, node system.NodeID, reason string) *system.Assignment {
	_, folder, _ := strings.Cut(string(i.id), "/") // its ordinal
	a := &system.Assignment{
		Instance: i.id, Node: node, Spec: i.at.spec, Made: i.at.made, Port: i.port,
		Goal: system.GoalRun, Folder: folder, Reason: reason,
	}
	if p.of(a).Tied() {
		t.hold(p, i.id, node)
	}
	p.active = append(p.active, a)
	return a
}

// problem describes the nodes and what is on them.
func (t *turn) problem() *problem {
	prob := &problem{kind: map[system.ServiceName]int{}}
	site := map[system.Site]int{}
	for v, n := range t.fleet.nodes {
		if _, ok := site[n.Site]; !ok {
			site[n.Site] = len(site)
		}
		prob.every = append(prob.every, v)
		prob.site = append(prob.site, site[n.Site])
		memory, cpus := n.Resources.Memory, n.Resources.CPUs
		if memory == 0 {
			memory = noBound
		}
		if cpus == 0 {
			cpus = noBound
		}
		prob.memory, prob.cpus = append(prob.memory, memory), append(prob.cpus, cpus)
	}
	prob.nsites, prob.total = len(site), make([]int, len(prob.every))
	for k, p := range t.parts {
		prob.kind[p.svc.Name] = k
		prob.kinds = append(prob.kinds, t.kind(p, prob))
		q := &prob.kinds[k]
		_, old := t.split(p)
		for _, a := range slices.Concat(p.active, p.drains) {
			v, ok := t.fleet.index[a.Node]
			if !ok {
				continue
			}
			prob.room(k, v, -1)
			if a.Goal != system.GoalDrain {
				q.at[v]++
				if !slices.Contains(old, a) {
					q.own[v]++
					prob.total[v]++
				}
			}
		}
	}
	prob.prepare()
	return prob
}

func (t *turn) kind(p *part, prob *problem) kind {
	count := len(prob.every)
	q := kind{
		items: len(p.items), most: most(p.svc), need: room{p.svc.Reserve.Memory, p.svc.Reserve.CPUs},
		ok: make([]bool, count), own: make([]int, count), at: make([]int, count), near: -1,
	}
	for v, n := range t.fleet.nodes {
		q.ok[v] = !n.Cordoned && lacks(n, p.svc) == ""
	}
	for _, label := range p.svc.Placement.Spread {
		groups, names := make([]int, count), map[string]int{}
		for v, n := range t.fleet.nodes {
			value, _ := attribute(n, label)
			if _, ok := names[value]; !ok {
				names[value] = len(names)
			}
			groups[v] = names[value]
		}
		q.groups = append(q.groups, groups)
	}
	if k, ok := prob.kind[system.ServiceName(p.svc.Near)]; ok && k < len(prob.kinds) {
		q.near = k
	}
	for _, name := range dependencies(p.svc) {
		if k, ok := prob.kind[name]; ok && k < len(prob.kinds) {
			q.deps = append(q.deps, k)
		}
	}
	return q
}
