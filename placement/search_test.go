package placement

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/system"
)

// drawProblem makes a small problem of any shape.
func drawProblem(t *rapid.T) *problem {
	n := rapid.IntRange(1, 4).Draw(t, "nodes")
	p := &problem{nsites: 2, kind: map[system.ServiceName]int{}}
	bounded := rapid.Bool().Draw(t, "bounded")
	for v := range n {
		p.every = append(p.every, v)
		p.site = append(p.site, rapid.IntRange(0, 1).Draw(t, "site"))
		memory := int64(noBound)
		if bounded {
			memory = rapid.Int64Range(0, 6).Draw(t, "memory")
		}
		p.memory, p.cpus = append(p.memory, memory), append(p.cpus, noBound)
		p.total = append(p.total, rapid.IntRange(0, 2).Draw(t, "total"))
	}
	left := 6
	for k := range rapid.IntRange(1, 3).Draw(t, "kinds") {
		q := kind{items: rapid.IntRange(0, min(3, left)).Draw(t, "items"), near: -1}
		left -= q.items
		q.most = rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "most")
		q.need.memory = rapid.Int64Range(0, 3).Draw(t, "need")
		for range n {
			q.ok = append(q.ok, rapid.IntRange(0, 4).Draw(t, "ok") > 0)
			own := rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "own")
			q.own = append(q.own, own)
			q.at = append(q.at, own+rapid.SampledFrom([]int{0, 0, 0, 1}).Draw(t, "old"))
		}
		for range rapid.SampledFrom([]int{0, 0, 1, 2}).Draw(t, "labels") {
			groups := make([]int, n)
			for v := range groups {
				groups[v] = rapid.IntRange(0, min(n, 2)-1).Draw(t, "group")
			}
			q.groups = append(q.groups, groups)
		}
		for d := range k {
			if rapid.Bool().Draw(t, "dep") {
				q.deps = append(q.deps, d)
			}
		}
		if k > 0 && rapid.Bool().Draw(t, "near") {
			q.near = rapid.IntRange(0, k-1).Draw(t, "near to")
		}
		p.kinds = append(p.kinds, q)
	}
	p.prepare()
	return p
}

// dumb tries every node, and none, for every item, and knows nothing of bounds, marginals or order.
func dumb(p *problem) Cost {
	var kindOf []int
	for k := range p.kinds {
		for range p.kinds[k].items {
			kindOf = append(kindOf, k)
		}
	}
	where := make([]int, len(kindOf))
	best, found := Cost{}, false
	var try func(i int)
	try = func(i int) {
		if i < len(where) {
			for v := -1; v < len(p.every); v++ {
				where[i] = v
				try(i + 1)
			}
			return
		}
		if c, ok := whole(p, kindOf, where); ok && (!found || c.Compare(best) < 0) {
			best, found = c, true
		}
	}
	try(0)
	return best
}

// whole computes an answer's cost from nothing: sums of squares before and after, and distances.
func whole(p *problem, kindOf, where []int) (c Cost, ok bool) {
	n := len(p.every)
	total, memory := slices.Clone(p.total), slices.Clone(p.memory)
	own, at := make([][]int, len(p.kinds)), make([][]int, len(p.kinds))
	for k := range p.kinds {
		own[k], at[k] = slices.Clone(p.kinds[k].own), slices.Clone(p.kinds[k].at)
	}
	for i, v := range where {
		k := kindOf[i]
		if v < 0 {
			c[missing]++
			continue
		}
		total[v]++
		own[k][v]++
		at[k][v]++
		memory[v] -= p.kinds[k].need.memory
		q := p.kinds[k]
		if !q.ok[v] || q.most > 0 && own[k][v] > q.most || q.need.memory > 0 && memory[v] < 0 {
			return c, false
		}
	}
	squares := func(counts []int) (s int) {
		for _, x := range counts {
			s += x * x
		}
		return s
	}
	by := func(group, counts []int) []int {
		sums := make([]int, max(n, p.nsites))
		for v, g := range group {
			sums[g] += counts[v]
		}
		return sums
	}
	far := func(d, v int) int {
		best := 3
		for u, x := range at[d] {
			switch {
			case x == 0:
			case u == v:
				best = min(best, 0)
			case p.site[u] == p.site[v]:
				best = min(best, 1)
			default:
				best = min(best, 2)
			}
		}
		return best % 3
	}
	c[all] = squares(total) - squares(p.total)
	for k, q := range p.kinds {
		c[sites] += squares(by(p.site, own[k])) - squares(by(p.site, q.own))
		c[nodes] += squares(own[k]) - squares(q.own)
		for l, g := range q.groups {
			c[labels+l] += squares(by(g, own[k])) - squares(by(g, q.own))
		}
	}
	for i, v := range where {
		if v < 0 {
			continue
		}
		q := p.kinds[kindOf[i]]
		if q.near >= 0 {
			c[near] += far(q.near, v)
		}
		for _, d := range q.deps {
			c[distance] += far(d, v)
		}
	}
	return c, true
}

func TestSearchIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProblem(t)
		want := dumb(p)
		fresh := *p
		fresh.kinds = slices.Clone(p.kinds)
		for k := range fresh.kinds {
			fresh.kinds[k].own, fresh.kinds[k].at = slices.Clone(p.kinds[k].own), slices.Clone(p.kinds[k].at)
		}
		fresh.total, fresh.memory = slices.Clone(p.total), slices.Clone(p.memory)
		var kindOf, where []int
		for k, nodes := range p.solve() {
			for _, v := range nodes {
				kindOf, where = append(kindOf, k), append(where, v)
			}
		}
		got, ok := whole(&fresh, kindOf, where)
		if !ok {
			t.Fatalf("the answer %v does not fit", where)
		}
		if got != want {
			t.Fatalf("the answer %v costs %s, the best costs %s", where, got, want)
		}
	})
}

// drawSystem makes a small fleet and file.
func drawSystem(t *rapid.T) *world {
	var all []system.Seen
	for i := range rapid.IntRange(1, 4).Draw(t, "nodes") {
		n := node(system.NodeID(fmt.Sprintf("n%d", i)), system.Site(rapid.SampledFrom([]string{"eu", "ap"}).Draw(t, "site")))
		n.Labels = map[string]string{"disk": rapid.SampledFrom([]string{"ssd", "hdd"}).Draw(t, "disk")}
		n.Resources.Memory = rapid.SampledFrom([]int64{0, 4, 8}).Draw(t, "memory")
		all = append(all, n)
	}
	return newWorld(t, drawFile(t), all...)
}

func drawFile(t *rapid.T) *system.System {
	var services []system.Service
	for _, name := range []system.ServiceName{"a", "b", "c"} {
		if rapid.IntRange(0, 5).Draw(t, "leave out") == 0 {
			continue
		}
		services = append(services, service(name, rapid.IntRange(1, 4).Draw(t, "replicas"), version1(rapid.SampledFrom([]string{"1", "2", "3"}).Draw(t, "version")), func(s *system.Service) {
			if name == "c" {
				tied(s)
			}
			if name != "a" && rapid.Bool().Draw(t, "depends") {
				s.DependsOn = []system.Dependency{{Service: "a", Condition: rapid.SampledFrom([]string{"started", "healthy"}).Draw(t, "condition")}}
			}
			s.Reserve.Memory = rapid.Int64Range(0, 2).Draw(t, "reserve")
			s.Placement.MaxPerNode = rapid.SampledFrom([]int{0, 0, 2}).Draw(t, "most")
			s.Update.Parallelism = rapid.IntRange(0, 2).Draw(t, "parallelism")
			s.Update.Failure = rapid.SampledFrom([]string{"", "rollback", "continue"}).Draw(t, "failure")
			if rapid.IntRange(0, 4).Draw(t, "constrained") == 0 {
				s.Placement.Constraints = []system.Constraint{{Attribute: "node.labels.disk", Value: "ssd", Not: rapid.Bool().Draw(t, "not")}}
			}
		}))
	}
	return sys(services...)
}

func TestOneMoreIsOneMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawSystem(t)
		w.settle()
		before := assignmentsOf(w.in.Plan)
		file := *w.in.System
		file.Services = slices.Clone(file.Services)
		if len(file.Services) == 0 || len(w.in.Plan.Refused) > 0 {
			t.Skip("nothing to add to, or no room already")
		}
		s := &file.Services[rapid.IntRange(0, len(file.Services)-1).Draw(t, "which")]
		s.Replicas++
		w.in.System = &file
		w.settle()
		after := assignmentsOf(w.in.Plan)
		added := 0
		for id, b := range after {
			if a, ok := before[id]; !ok {
				added++
			} else if a.Node != b.Node || a.Port != b.Port || a.Spec != b.Spec {
				t.Fatalf("%s moved from %s to %s", id, a.Node, b.Node)
			}
		}
		if missing := len(w.in.Plan.Refused); added+missing != 1 || len(after) != len(before)+added {
			t.Fatalf("%d were added and %d refused, want one in all:\n%s", added, missing, show(w.in.Plan))
		}
	})
}

func TestLosingANodeMovesOnlyItsInstances(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawSystem(t)
		w.settle()
		before := assignmentsOf(w.in.Plan)
		lost := w.input().Nodes[rapid.IntRange(0, len(w.nodes)-1).Draw(t, "lost")].Node
		w.dead[lost] = true
		w.settle()
		for id, a := range before {
			b, ok := assignmentsOf(w.in.Plan)[id]
			if !ok || a.Node != lost && b.Node != a.Node || b.Port != a.Port {
				t.Fatalf("%s was on %s and is on %q, though %s was lost:\n%s", id, a.Node, b.Node, lost, show(w.in.Plan))
			}
		}
		delete(w.dead, lost)
		w.nodes[lost].Instances = nil
		before = assignmentsOf(w.in.Plan)
		w.settle()
		for id, a := range before {
			if b := assignmentsOf(w.in.Plan)[id]; b.Node != a.Node {
				t.Fatalf("%s moved from %s to %s as %s came back", id, a.Node, b.Node, lost)
			}
		}
	})
}

func assignmentsOf(p *system.Plan) map[system.InstanceID]system.Assignment {
	m := map[system.InstanceID]system.Assignment{}
	for _, d := range p.Services {
		for _, a := range d.Assignments {
			m[a.Instance] = a
		}
	}
	return m
}

// TestAnyFaults lets files change, versions break and nodes die and return at any time. [world.decide]
// checks every plan: no instance twice, none tied off its holder, offsets unique, idempotent. When the
// faults end, all that is wanted and has room runs.
func TestAnyFaults(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := drawSystem(t)
		bad := ""
		w.broken = func(a *system.Assignment) system.State {
			for _, d := range w.in.Plan.Services {
				made := &d.Service
				for _, b := range d.Assignments {
					if b.Instance == a.Instance && b.Made != nil {
						made = b.Made
					}
				}
				if name, _, _ := a.Instance.Split(); name == d.Service.Name && made.Environment["VERSION"] == bad {
					return system.StateFailed
				}
			}
			return ""
		}
		for range rapid.IntRange(1, 25).Draw(t, "steps") {
			switch rapid.IntRange(0, 7).Draw(t, "what") {
			case 0:
				w.in.System = drawFile(t)
			case 1, 2:
				id := w.anyNode(t)
				if w.dead[id] {
					delete(w.dead, id)
					w.nodes[id].Instances = nil
				} else {
					w.dead[id] = true
				}
			case 3:
				bad = rapid.SampledFrom([]string{"", "2"}).Draw(t, "bad version")
			case 4:
				w.nodes[w.anyNode(t)].Cordoned = rapid.Bool().Draw(t, "cordoned")
			}
			w.decide()
			if w.in.Plan != nil {
				w.obey()
			}
		}
		bad = ""
		for id, n := range w.nodes {
			if w.dead[id] {
				delete(w.dead, id)
				n.Instances = nil
			}
			n.Cordoned = false
			for i := range n.Instances {
				if n.Instances[i].State == system.StateFailed {
					n.Instances[i].State = system.StateStarting // as if its agent were restarted
				}
			}
		}
		p := w.settle()
		for _, s := range w.in.System.Services {
			missing := 0
			for _, r := range p.Refused {
				if r.Service == s.Name {
					missing += r.Missing
				}
			}
			waiting := 0
			for _, a := range p.Deployment(s.Name).Assignments {
				if a.Goal == system.GoalWait {
					waiting++
				}
			}
			if got := w.ready(s.Name) + missing + waiting; got < s.Replicas {
				t.Fatalf("%s: %d ready, %d without a place, %d waiting; want %d in all:\n%s", s.Name, w.ready(s.Name), missing, waiting, s.Replicas, show(p))
			}
		}
	})
}

func (w *world) anyNode(t *rapid.T) system.NodeID {
	var ids []system.NodeID
	for id := range w.nodes {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return rapid.SampledFrom(ids).Draw(t, "node")
}

// big is 100 nodes in 5 sites and 300 instances of 20 services with reservations and dependencies.
func big() Input {
	var fleet []system.Seen
	for i := range 100 {
		n := node(system.NodeID(fmt.Sprintf("node-%03d", i)), system.Site(fmt.Sprintf("site-%d", i%5)))
		n.Resources = system.Resources{Memory: 8 << 30, CPUs: 4}
		fleet = append(fleet, n)
	}
	var services []system.Service
	for i := range 20 {
		services = append(services, service(system.ServiceName(fmt.Sprintf("s%02d", i)), 15, func(s *system.Service) {
			s.Reserve = system.Resources{Memory: int64(1+i%3) << 30, CPUs: 0.5}
			if i > 0 {
				s.DependsOn = []system.Dependency{{Service: system.ServiceName(fmt.Sprintf("s%02d", i/2))}}
			}
		}))
	}
	return Input{System: sys(services...), Nodes: fleet, Now: time.Unix(1, 0)}
}

func TestBigSystem(t *testing.T) {
	in := big()
	d := Next(in)
	n := 0
	for _, s := range d.Plan.Services {
		n += len(s.Assignments)
	}
	if n != 300 || len(d.Plan.Refused) != 0 {
		t.Errorf("%d of 300 placed, refused %v", n, d.Plan.Refused)
	}
	if again := Next(in); show(again.Plan) != show(d.Plan) {
		t.Error("the same question has two answers")
	}
}

func BenchmarkNext(b *testing.B) {
	in := big()
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			Next(in)
		}
	})
	in.Plan = Next(in).Plan
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			Next(in)
		}
	})
	lost := in
	lost.Nodes = in.Nodes[1:]
	b.Run("a node lost", func(b *testing.B) {
		for b.Loop() {
			Next(lost)
		}
	})
}
