package placement

import (
	"cmp"
	"slices"
	"time"

	"servent/system"
)

const (
	restartsFail = 3           // ends after which a new version that is not ready counts as failed
	patience     = time.Minute // after its start period, until one that never got healthy counts as failed

	// Why instances stop.
	unneeded = "no longer needed"
	unwanted = "its service is no longer wanted"
	replaced = "the new version has taken its place"
)

// roll says how many instances of a service this step adds and which it drains: to have as many as are
// wanted, made from the version that is wanted, where it is wanted.
//
// A stateless service keeps its old instances until new ones are ready (start-first). One that is tied
// to its data, or wants stop-first, gives each instance's place to its successor. Either way at most
// Update.Parallelism are under way at a time.
func (t *turn) roll(p *part) {
	byOrdinal(p.active)
	byOrdinal(p.lost)
	next, old := t.split(p)
	t.pause(p, next, old)
	spare := 0 // new ones that do not yet stand for an old one
	if len(old) > 0 && !t.stopsFirst(p) {
		spare = t.unsettled(p, next)
	}
	for len(p.lost) > 0 && len(p.lost)+len(p.active)-spare > p.want {
		p.lost = p.lost[:len(p.lost)-1]
	}
	if t.stopsFirst(p) {
		t.shrink(p, len(p.active)-p.want, unneeded, p.active)
		t.stopSome(p, len(p.lost)+t.short(p))
		t.add(p, t.short(p), false)
		return
	}
	t.shrink(p, len(next)-p.want, unneeded, next)
	next, old = t.split(p)
	if len(old) > 0 {
		t.shrink(p, len(old)-max(0, p.want-len(next)+t.unsettled(p, next)), replaced, old)
		next, old = t.split(p)
	}
	t.add(p, max(0, p.want-len(p.active)-len(p.lost)), false)
	if len(old) == 0 || p.paused != "" || t.early(p, next) {
		return
	}
	coming, atOnce := len(p.items), max(1, p.svc.Update.Parallelism)
	t.add(p, min(len(old),
		p.want-len(next)-coming,                           // no more than are wanted
		atOnce-t.unsettled(p, next)-coming,                // no more under way than allowed
		p.want+atOnce-len(p.active)-coming-len(p.drains)), // nor beside one another
		true)
}

// short is how many instances a service lacks whose old ones give their places to new ones: those on
// their way out are not missed yet.
func (t *turn) short(p *part) int {
	return max(0, p.want-len(p.active)-len(p.lost)-len(p.drains))
}

// stopSome drains as many old instances as may be under way; their places are filled when they are gone.
func (t *turn) stopSome(p *part, coming int) {
	next, old := t.split(p)
	if p.paused != "" || t.early(p, next) {
		return
	}
	n := min(len(old), max(1, p.svc.Update.Parallelism)-len(p.drains)-coming-t.unsettled(p, next))
	slices.SortStableFunc(old, func(a, b *system.Assignment) int { return cmp.Compare(truth(t.serves(a)), truth(t.serves(b))) })
	for i := range max(0, n) {
		t.drain(p, old[i], "the new version takes its place")
	}
}

// split parts the active into those as they should be and those that must be replaced: of another
// version, or on a node where the file does not want them.
func (t *turn) split(p *part) (next, old []*system.Assignment) {
	onNode := map[system.NodeID]int{}
	for _, a := range p.active {
		if a.Spec != p.target.spec || t.misplaced(p, a, onNode) {
			old = append(old, a)
		} else {
			next = append(next, a)
		}
	}
	return next, old
}

// misplaced says that a stateless instance stands on a live node that is to be emptied, or that the file rules out for it. onNode
// counts those that may stay.
func (t *turn) misplaced(p *part, a *system.Assignment, onNode map[system.NodeID]int) bool {
	i, ok := t.fleet.index[a.Node]
	if !ok || p.of(a).Tied() || a.Reason == finished {
		return false
	}
	if t.fleet.nodes[i].Draining || violates(t.fleet.nodes[i], p.svc) != "" || most(p.svc) > 0 && onNode[a.Node] >= most(p.svc) {
		return true
	}
	onNode[a.Node]++
	return false
}

// stopsFirst says that an instance's place must be free before its successor takes it.
func (t *turn) stopsFirst(p *part) bool {
	return p.svc.Tied() || p.svc.Update.Order == "stop-first" || everywhere(p.svc) ||
		slices.ContainsFunc(p.active, func(a *system.Assignment) bool { return p.of(a).Tied() }) ||
		slices.ContainsFunc(slices.Concat(p.drains, p.freed), func(a *system.Assignment) bool { return p.of(a).Tied() })
}

// shrink drains n of those given. Tied ones go by number alone, since a number is a folder with data;
// of others the ones that do not serve go first, then those where nobody calls, then those on crowded nodes.
func (t *turn) shrink(p *part, n int, why string, among []*system.Assignment) {
	among = slices.Clone(among)
	for range n {
		onNode := map[system.NodeID]int{}
		for _, a := range p.active {
			onNode[a.Node]++
		}
		last := slices.MaxFunc(among, func(a, b *system.Assignment) int {
			byNumber := cmp.Compare(ordinal(a.Instance), ordinal(b.Instance))
			if p.svc.Tied() {
				return byNumber
			}
			return cmp.Or(cmp.Compare(truth(!t.serves(a)), truth(!t.serves(b))), cmp.Compare(truth(t.draining(a.Node)), truth(t.draining(b.Node))),
				cmp.Compare(truth(t.uncalled(p, a.Node)), truth(t.uncalled(p, b.Node))), cmp.Compare(onNode[a.Node], onNode[b.Node]), byNumber)
		})
		t.drain(p, last, why)
		among = slices.DeleteFunc(among, func(a *system.Assignment) bool { return a == last })
	}
}

// draining says that a node is to be emptied.
func (t *turn) draining(id system.NodeID) bool {
	i, ok := t.fleet.index[id]
	return ok && t.fleet.nodes[i].Draining
}

func truth(b bool) int {
	if b {
		return 1
	}
	return 0
}

// serves says that the instance answers requests, as far as is known: one on a silent node may.
func (t *turn) serves(a *system.Assignment) bool {
	return t.fleet.presence(a.Node) == away || t.fleet.is(a, system.StateReady) || t.fleet.is(a, system.StateDone)
}

// unsettled counts the new instances that are still under way: not certainly ready, or not for as long as
// they are monitored. Of those that share no folder with an old one, the waiting ones count too.
func (t *turn) unsettled(p *part, next []*system.Assignment) (n int) {
	for _, a := range next {
		switch {
		case a.Reason == finished, a.Goal == system.GoalWait && t.stopsFirst(p):
		case t.fleet.is(a, system.StateReady) && t.in.Now.Sub(t.fleet.state(a).Since) >= p.svc.Update.Monitor:
		case t.ignoresFailure(p) && t.failing(p, a) != "":
		default:
			n++
		}
	}
	return n
}

// early says that the delay between two steps of an update has not passed, or that keys are still on their way after the last.
func (t *turn) early(p *part, next []*system.Assignment) bool {
	return t.moving(p) || slices.ContainsFunc(next, func(a *system.Assignment) bool {
		s := t.fleet.state(a)
		return s != nil && s.State == system.StateReady && t.in.Now.Sub(s.Since) < p.svc.Update.Delay
	})
}

// failing says in words how an instance fails that should become ready. Empty: it may yet.
func (t *turn) failing(p *part, a *system.Assignment) string {
	s := t.fleet.state(a)
	if s == nil || a.Goal != system.GoalRun {
		return ""
	}
	tail := cmp.Or(s.Why, s.Exit)
	if tail != "" {
		tail = ": " + tail
	}
	limit := p.svc.Health.StartPeriod + patience
	switch s.State {
	case system.StateReady, system.StateDone, system.StateDraining, system.StateStopped, system.StateWaiting:
		return ""
	case system.StateFailed:
		return "failed" + tail
	}
	if s.Restarts >= restartsFail {
		return "keeps ending" + tail
	}
	if (s.State == system.StateStarting || s.State == system.StateUnhealthy) && t.in.Now.Sub(s.Since) > limit {
		return "is not healthy after " + limit.String()
	}
	return ""
}

// pause stops an update whose new instance fails.
func (t *turn) pause(p *part, next, old []*system.Assignment) {
	i := slices.IndexFunc(next, func(a *system.Assignment) bool { return t.failing(p, a) != "" })
	if i < 0 || len(old) == 0 || p.back || t.ignoresFailure(p) {
		return
	}
	p.instead = version{old[0].Spec, old[0].Made}
	head := paused + string(next[i].Instance) + " "
	if r := t.refusal(p, head); r != nil { // its words stay the same while its state goes to and fro
		p.paused = r.Reason
	} else {
		p.paused = head + t.failing(p, next[i]) + "; the version before runs on; correct the file, or set it back, and run: servent up"
	}
	t.refuse(p, 0, p.paused)
}

func (t *turn) ignoresFailure(p *part) bool { return p.svc.Update.Failure == "continue" }

// add notes the instances that need a node: those that lost theirs, and n more.
func (t *turn) add(p *part, n int, surge bool) {
	at := p.target
	if p.paused != "" {
		at = p.instead
	}
	if !surge {
		for _, a := range p.lost {
			i := &item{id: a.Instance, port: a.Port, from: a, at: p.target}
			if p.paused != "" {
				i.at = version{a.Spec, a.Made}
			}
			p.items = append(p.items, i)
		}
	}
	used := map[int]bool{}
	for _, a := range slices.Concat(p.active, p.drains, p.lost) {
		used[ordinal(a.Instance)] = true
	}
	for _, i := range p.items {
		used[ordinal(i.id)] = true
	}
	byOrdinal(p.freed)
	for number := 1; n > 0; n-- {
		i := &item{at: at, surge: surge}
		if k := slices.IndexFunc(p.freed, func(a *system.Assignment) bool { return !used[ordinal(a.Instance)] }); k >= 0 && t.stopsFirst(p) {
			i.id, i.port, i.from = p.freed[k].Instance, p.freed[k].Port, p.freed[k]
		} else {
			for used[number] {
				number++
			}
			i.id = system.Instance(p.svc.Name, number)
		}
		used[ordinal(i.id)] = true
		p.items = append(p.items, i)
	}
}
