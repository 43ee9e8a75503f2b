package sysfile

import (
	"slices"
	"strings"

	"servent/system"
	"servent/system/notation"
)

// maxNodesOfSystem is what one machine can emulate: each node has its own slice of ports.
const maxNodesOfSystem = 200

// nodes reads x-servent.nodes. Without it a system has three nodes of the group "node" at the site
// "local". The i-th node of a group is GROUP-i: so node-1, node-2 and node-3.
func nodes(v value) []system.NodeGroup {
	if len(v.keys()) == 0 {
		if v.given() {
			v.wrong("want at least one group of nodes")
		}
		return []system.NodeGroup{{Name: "node", Count: 3, Site: "local"}}
	}
	var groups []system.NodeGroup
	total := 0
	for _, name := range v.keys() {
		g := v.key(name)
		group := system.NodeGroup{
			Name:  name,
			Count: max(1, read(g.key("count"), notation.Count)),
			Site:  system.Site(name),
			Capacity: system.Capacity{
				Rate:    read(g.key("capacity").key("rate"), notation.Rate),
				Workers: read(g.key("capacity").key("workers"), notation.Count),
				Pass:    read(g.key("capacity").key("pass"), notation.Rate),
			},
			Labels: labels(g.key("labels")),
			Price:  read(g.key("price"), notation.Price),
			Pos:    v.f.keyPos(g.at),
		}
		if site := g.key("site"); site.given() {
			group.Site = system.Site(site.text())
		}
		for _, to := range g.key("links").keys() {
			l := g.key("links").key(to)
			group.Links = append(group.Links, system.LinkSpec{
				To: system.Site(to), Latency: read(l.key("latency"), notation.Duration), Rate: read(l.key("rate"), notation.Bits),
			})
		}
		if total += group.Count; total > maxNodesOfSystem && total-group.Count <= maxNodesOfSystem {
			g.key("count").wrong("want at most %d nodes in all, have %d with this group", maxNodesOfSystem, total)
		}
		groups = append(groups, group)
	}
	known := sites(groups)
	for _, g := range groups {
		for _, l := range g.Links {
			if !slices.Contains(known, string(l.To)) {
				at := v.key(g.Name).key("links").key(string(l.To)).at
				v.f.found.problem(v.f.keyPos(at), at, "want the site of some nodes, one of %s; have %q%s", strings.Join(known, ", "), l.To, notation.Suggest(string(l.To), known))
			}
		}
	}
	return groups
}

// sites of all groups, each once, in the order of groups.
func sites(groups []system.NodeGroup) []string {
	var all []string
	for _, g := range groups {
		if !slices.Contains(all, string(g.Site)) {
			all = append(all, string(g.Site))
		}
	}
	return all
}

// labels are a mapping or a list of NAME=value.
func labels(v value) map[string]string {
	if !v.given() {
		return nil
	}
	all := map[string]string{}
	for _, name := range v.keys() {
		all[name] = v.key(name).text()
	}
	if _, ok := v.raw.([]any); ok {
		for _, one := range v.texts() {
			name, val, _ := strings.Cut(one, "=")
			all[name] = val
		}
	}
	return all
}
