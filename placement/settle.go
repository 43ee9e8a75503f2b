package placement

import (
	"cmp"
	"slices"
	"strings"

	"servent/system"
)

// aim sets what the service's instances should be made from: the file's version, or the one before it
// when an update was rolled back.
func (t *turn) aim(p *part) {
	p.target = version{spec: p.spec}
	if p.was == nil || p.removed {
		return
	}
	var older *system.Assignment // the lowest ordinal that still has an older version
	var failing *system.Assignment
	for _, a := range p.was.Assignments {
		p.rebase(&a)
		switch {
		case a.Goal == system.GoalDrain:
		case a.Made != nil:
			if older == nil || ordinal(a.Instance) < ordinal(older.Instance) {
				older = &a
			}
		case failing == nil && t.failing(p, &a) != "":
			failing = &a
		}
	}
	if older == nil {
		return
	}
	if r := t.refusal(p, rolledBack); r != nil && p.was.Spec == p.spec {
		t.refused = append(t.refused, *r)
		p.back, p.target = true, version{older.Spec, older.Made}
	} else if failing != nil && p.svc.Update.Failure == "rollback" {
		t.refuse(p, 0, rolledBack+string(failing.Instance)+" "+t.failing(p, failing)+"; the version before runs on")
		p.back, p.target = true, version{older.Spec, older.Made}
	} else {
		p.holds = failing != nil && !t.ignoresFailure(p)
	}
}

// refusal is what the plan as it stands refuses the service with a reason that begins so, or nil.
func (t *turn) refusal(p *part, prefix string) *system.Refusal {
	if t.in.Plan == nil {
		return nil
	}
	for i := range t.in.Plan.Refused {
		if r := &t.in.Plan.Refused[i]; r.Service == p.svc.Name && strings.HasPrefix(r.Reason, prefix) {
			return r
		}
	}
	return nil
}

func (t *turn) refuse(p *part, missing int, reason string) {
	t.refused = append(t.refused, system.Refusal{Service: p.svc.Name, Missing: missing, Reason: reason})
}

// rebase makes the assignment say its version against the file of now: Made is set when it is older.
func (p *part) rebase(a *system.Assignment) {
	switch {
	case p.removed:
	case a.Spec == p.spec:
		a.Made = nil
	case a.Made == nil:
		was := p.was.Service
		a.Made = &was
	}
}

// remake gives an assignment that does not run the version that it should have.
func (p *part) remake(a *system.Assignment) { a.Spec, a.Made = p.target.spec, p.target.made }

// settle says what becomes of each instance that is there, whatever else is wanted.
func (t *turn) settle(p *part) {
	if p.was == nil {
		return
	}
	for _, a := range p.was.Assignments {
		p.rebase(&a)
		where := t.fleet.presence(a.Node)
		switch {
		case a.Goal == system.GoalDrain && (where == gone || t.fleet.stopped(&a)):
			p.freed = append(p.freed, &a)
		case a.Goal == system.GoalDrain:
			p.drains = append(p.drains, &a)
		case p.removed && (a.Goal == system.GoalWait || where == gone):
		case p.removed:
			t.drain(p, &a, unwanted)
		default:
			t.keep(p, &a, where)
		}
	}
}

// keep settles an instance that is wanted where it is.
func (t *turn) keep(p *part, a *system.Assignment, where presence) {
	if a.Spec == p.target.spec && t.ended(a, where) {
		p.active = append(p.active, a)
		return
	}
	if !p.holds && (a.Goal == system.GoalWait || where == gone && p.of(a).Tied()) {
		p.remake(a)
	}
	if p.of(a).Tied() {
		t.keepTied(p, a, where)
		return
	}
	switch {
	case where == gone:
		p.lost = append(p.lost, a)
	case a.Goal == system.GoalWait && !waitsForDependency(a):
		a.Goal, a.Waits = system.GoalRun, ""
		fallthrough
	default:
		p.active = append(p.active, a)
	}
}

// ended settles a job that has finished: it is not started again, not even on another node.
func (t *turn) ended(a *system.Assignment, where presence) bool {
	done := t.fleet.is(a, system.StateDone)
	if done {
		a.Reason = finished
	}
	if a.Reason != finished {
		return false
	}
	if where != away && !done {
		a.Goal, a.Waits = system.GoalWait, "finished on "+string(a.Node)+"; a job runs once"
	}
	return true
}

// keepTied settles an instance whose data lies on a node: it runs there or waits.
func (t *turn) keepTied(p *part, a *system.Assignment, where presence) {
	holder, held := t.holders[a.Instance]
	switch {
	case !held && where == gone && a.Goal == system.GoalWait:
		p.lost = append(p.lost, a) // the user gave its data up
		return
	case !held:
		t.hold(p, a.Instance, a.Node)
	case holder != a.Node && (where == gone || a.Goal == system.GoalWait):
		return // made anew where its data is
	case holder != a.Node:
		t.drain(p, a, "its data is on "+string(holder))
		return
	}
	p.active = append(p.active, a)
	switch {
	case waitsForDependency(a), where == away:
	case where == gone:
		a.Goal, a.Waits = system.GoalWait, waitsForNode(a.Node)
	case a.Goal == system.GoalWait:
		t.wake(p, a)
	}
}

// wake lets a tied instance on a live node run, if the node can run it.
func (t *turn) wake(p *part, a *system.Assignment) {
	if why := lacks(t.fleet.nodes[t.fleet.index[a.Node]], p.svc); why != "" {
		a.Goal, a.Waits = system.GoalWait, string(a.Node)+" holds its data, but "+why
		return
	}
	a.Goal, a.Waits = system.GoalRun, ""
}

// hold notes which node holds an instance's data, before it first starts there.
func (t *turn) hold(p *part, id system.InstanceID, node system.NodeID) {
	if t.holders[id] == node {
		return
	}
	t.holders[id] = node
	t.written = append(t.written, system.Holder{Service: p.svc.Name, Instance: id, Node: node, Since: t.in.Now})
}

func waitsForNode(n system.NodeID) string {
	return "waiting for " + string(n) + ", which holds its data"
}

// drain moves an instance from the active to those on their way out. One that does not run just goes.
func (t *turn) drain(p *part, a *system.Assignment, why string) {
	p.active = slices.DeleteFunc(p.active, func(b *system.Assignment) bool { return a == b })
	switch {
	case a.Goal == system.GoalWait:
	case t.fleet.stopped(a):
		p.freed = append(p.freed, a)
	default:
		a.Goal, a.Reason = system.GoalDrain, "stops: "+why
		p.drains = append(p.drains, a)
	}
}

// letStart releases the first instances of a service when what it depends on is as it should be. Once
// a service has run, its dependencies hold it back no more.
func (t *turn) letStart(p *part) {
	unmet := ""
	if p.fresh {
		unmet = t.unmet(p.svc)
	}
	for _, a := range p.active {
		switch {
		case unmet != "":
			a.Goal, a.Waits = system.GoalWait, unmet
		case !waitsForDependency(a):
		case p.svc.Tied() && t.fleet.presence(a.Node) != alive:
			a.Waits = waitsForNode(a.Node)
		case p.svc.Tied():
			t.wake(p, a)
		default:
			a.Goal, a.Waits = system.GoalRun, ""
		}
	}
}

// unmet says which dependency is not as it should be, and how. Empty: all are.
func (t *turn) unmet(s *system.Service) string {
	for _, d := range s.DependsOn {
		i := slices.IndexFunc(t.parts, func(p *part) bool { return p.svc.Name == d.Service })
		if i < 0 || t.parts[i].removed || t.parts[i].want == 0 {
			continue
		}
		dep := t.parts[i]
		count := func(is func(*system.Assignment) bool) (n int) {
			for _, a := range dep.active {
				if is(a) {
					n++
				}
			}
			return n
		}
		if d.Optional && count(func(a *system.Assignment) bool { return t.failing(dep, a) != "" }) > 0 {
			continue
		}
		word, ok := "has not started", false
		switch d.Condition {
		case "healthy":
			word, ok = "is not healthy", count(func(a *system.Assignment) bool { return t.fleet.is(a, system.StateReady) }) > 0
		case "completed":
			word, ok = "has not completed", count(func(a *system.Assignment) bool { return a.Reason == finished }) >= dep.want
		default:
			ok = count(t.started) > 0
		}
		if !ok {
			return string(d.Service) + " " + word + yet
		}
	}
	return ""
}

func (t *turn) started(a *system.Assignment) bool {
	s := t.fleet.state(a)
	return a.Reason == finished || s != nil && s.State != system.StatePreparing && s.State != system.StateWaiting && s.State != system.StateStopped
}

// byOrdinal sorts assignments by their instances' numbers.
func byOrdinal(as []*system.Assignment) {
	slices.SortFunc(as, func(a, b *system.Assignment) int { return cmp.Compare(ordinal(a.Instance), ordinal(b.Instance)) })
}
