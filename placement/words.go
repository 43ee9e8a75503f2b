package placement

import (
	"cmp"
	"slices"
	"strconv"
	"strings"

	"servent/system"
)

// reason says why an item that the search put on node v is there.
func (t *turn) reason(p *part, prob *problem, v int, i *item) string {
	k := prob.kind[p.svc.Name]
	prob.put(k, v, -1)
	why := t.compare(p, prob, v)
	prob.put(k, v, +1)
	if i.from != nil && t.fleet.presence(i.from.Node) == gone {
		return "moved from " + string(i.from.Node) + ", which is gone: " + why
	}
	return why
}

// compare says what node v has before the others, for one more instance of the service: goal by goal, what
// set it apart from those that were as good until then.
func (t *turn) compare(p *part, prob *problem, v int) string {
	k := prob.kind[p.svc.Name]
	mine := prob.marginal(k, v)
	var rivals []Cost
	for u := range prob.every {
		if u != v && prob.fits(k, u) {
			rivals = append(rivals, prob.marginal(k, u))
		}
	}
	if len(rivals) == 0 {
		return t.only(p, v)
	}
	var words []string
	for level := range mine {
		if slices.ContainsFunc(rivals, func(c Cost) bool { return c[level] < mine[level] }) {
			words = append(words, "leaves room for the others")
			rivals = nil
		}
		left := slices.DeleteFunc(slices.Clone(rivals), func(c Cost) bool { return c[level] > mine[level] })
		if len(left) < len(rivals) {
			words = append(words, t.virtue(p, prob, v, level))
		}
		rivals = left
	}
	if len(words) == 0 {
		return "first of " + strconv.Itoa(len(rivals)+1) + " nodes that are alike"
	}
	return strings.Join(words, "; ")
}

// virtue names what node v costs less at than others, on one level of [Cost].
func (t *turn) virtue(p *part, prob *problem, v, level int) string {
	k, node := prob.kind[p.svc.Name], t.fleet.nodes[v]
	q, site := &prob.kinds[k], string(node.Site)
	spread := func(n int) string {
		return "spread: fewest instances of " + string(p.svc.Name) + " (" + strconv.Itoa(n) + ")"
	}
	switch level {
	case sites:
		return spread(q.bySite[prob.site[v]]) + " in site " + site
	case nodes:
		return spread(q.own[v])
	case near:
		return beside(prob.distance(q.near, v), site) + p.svc.Near + ", as the file asks"
	case all:
		return "fewest instances in all (" + strconv.Itoa(prob.total[v]) + ")"
	case distance:
		d := slices.MinFunc(q.deps, func(a, b int) int { return cmp.Compare(prob.distance(a, v), prob.distance(b, v)) })
		return beside(prob.distance(d, v), site) + string(t.parts[d].svc.Name) + ", which it depends on"
	}
	attr := p.svc.Placement.Spread[level-labels]
	value, _ := attribute(node, attr)
	return spread(q.byGroup[level-labels][q.groups[level-labels][v]]) + " where " + attributeName(attr) + " is " + cmp.Or(value, "not set")
}

func beside(distance int, site string) string {
	if distance == 0 {
		return "beside "
	}
	return "in site " + site + ", like "
}

// only says why no other node but v would do.
func (t *turn) only(p *part, v int) string {
	if len(t.fleet.nodes) == 1 {
		return "the only node"
	}
	for _, c := range p.svc.Placement.Constraints {
		if c.Not {
			continue
		}
		others := slices.DeleteFunc(slices.Clone(t.fleet.nodes), func(n *system.Seen) bool {
			value, _ := attribute(n, c.Attribute)
			return n == t.fleet.nodes[v] || value != c.Value
		})
		if len(others) == 0 {
			return "only node with " + attributeName(c.Attribute) + "=" + c.Value
		}
	}
	return "only node that fits"
}

// lack says why node v cannot take one more of the service now. Empty: it can.
func (t *turn) lack(p *part, prob *problem, v int) string {
	n, k := t.fleet.nodes[v], prob.kind[p.svc.Name]
	q := &prob.kinds[k]
	if why := lacks(n, p.svc); why != "" {
		return why
	}
	switch {
	case n.Draining:
		return "is drained"
	case n.Cordoned:
		return "is cordoned"
	case q.most > 0 && q.own[v] >= q.most:
		return "has " + strconv.Itoa(q.own[v]) + " of " + string(p.svc.Name) + " and may have no more"
	case q.need.memory > 0 && q.need.memory > prob.memory[v]:
		return "needs " + bytes(q.need.memory) + ", " + bytes(max(0, prob.memory[v])) + " free"
	case !prob.hasRoom(k, v):
		return "needs " + number(q.need.cpus) + " CPUs, " + number(max(0, prob.cpus[v])) + " free"
	}
	return ""
}

// nowhere says of each node why it does not take one more of the service; like nodes stand together.
func (t *turn) nowhere(p *part, prob *problem) string {
	if len(t.fleet.nodes) == 0 {
		return "no node is there"
	}
	var order []string
	names := map[string][]string{}
	for v, n := range t.fleet.nodes {
		why := cmp.Or(t.lack(p, prob, v), "has room now")
		if names[why] == nil {
			order = append(order, why)
		}
		names[why] = append(names[why], string(n.Node))
	}
	for i, why := range order {
		who := names[why]
		if len(who) > 4 {
			who = append(who[:3:3], strconv.Itoa(len(who)-3)+" more")
		}
		order[i] = strings.Join(who, ", ") + ": " + why
	}
	return strings.Join(order, "; ")
}

// bytes writes an amount of memory: 2 GiB, 1.2 GiB, 512 MiB.
func bytes(n int64) string {
	units := []string{"B", "KiB", "MiB", "GiB", "TiB"}
	x, i := float64(n), 0
	for ; x >= 1024 && i < len(units)-1; i++ {
		x /= 1024
	}
	return number(x) + " " + units[i]
}

// number writes one digit after the point, if it is not 0.
func number(x float64) string { return strings.TrimSuffix(strconv.FormatFloat(x, 'f', 1, 64), ".0") }
