package sysfile

import (
	"math"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"

	"servent/system"
	"servent/system/notation"
	"servent/system/sysfile/schema"
)

// compare reads x-servent.compare as written; package lab gives it meaning.
func compare(v value, s *system.System) *system.Compare {
	c := &system.Compare{Service: system.ServiceName(v.key("service").text()), Pos: v.f.keyPos(v.at)}
	if c.Service != "" && s.Service(c.Service) == nil {
		v.key("service").wrong("%s", unknownService(string(c.Service), s))
	}
	variants(v.key("variants"), c, s)
	load := v.key("load")
	c.Load = system.Load{
		Open:      read(load.key("open"), notation.Arrivals),
		Closed:    read(load.key("closed"), notation.Clients),
		Keys:      read(load.key("keys"), notation.Keys),
		Send:      load.key("send").text(),
		Expect:    read(load.key("expect"), notation.Expect),
		Preload:   read(load.key("preload"), notation.Truth),
		Mix:       mix(load.key("mix")),
		From:      from(load.key("from"), s),
		Resolvers: int(read(load.key("resolvers"), notation.Count)),
	}
	if c.Load.Open != "" && c.Load.Closed != "" {
		load.key("closed").wrong("want an open or a closed load, have both")
	}
	if c.Load.Send != "" && len(c.Load.Mix) > 0 {
		load.key("send").wrong("want a mix of HTTP requests or what is sent over TCP, have both")
	}
	c.Check = v.key("check").text()
	goal := v.key("goal")
	for _, name := range goal.keys() {
		if c.Goal == nil {
			c.Goal = map[string]string{}
		}
		c.Goal[name] = goal.key(name).text()
	}
	return c
}

// variants reads both forms: a path with the list of values it takes, and a name with its own paths and values.
func variants(v value, c *system.Compare, s *system.System) {
	for _, key := range v.keys() {
		one := v.key(key)
		if _, named := one.raw.(map[string]any); !named {
			varied(one, key, one.items(), c.Service, s)
			c.Axes = append(c.Axes, system.Axis{Path: key, Values: one.texts()})
			continue
		}
		set := map[string]string{}
		for _, p := range one.keys() {
			varied(one.key(p), p, []value{one.key(p)}, c.Service, s)
			set[p] = one.key(p).text()
		}
		c.Variants = append(c.Variants, system.Variant{Name: key, Set: set})
	}
}

// varied checks a path and the values it takes against the schema.
func varied(v value, text string, values []value, service system.ServiceName, s *system.System) {
	_, r, err := schema.Resolve(s, service, text)
	if err != nil {
		v.f.found.problem(v.f.keyPos(v.at), v.at, "%s", err)
		return
	}
	for _, one := range values {
		found, depth := spots(v.f.main, one.at)
		if depth < len(one.at) || len(found) == 0 {
			continue
		}
		at := found[len(found)-1]
		pos := at.pos()
		w := walk{src: at.src, found: v.f.found, left: 100}
		w.value(r, nil, &yaml.Node{Kind: yaml.ScalarNode, Value: one.text(), Line: pos.Line, Column: pos.Col}, one.at)
	}
}

// mix reads requests and their weights.
func mix(v value) []system.MixEntry {
	var all []system.MixEntry
	sum := 0.0
	for _, req := range v.keys() {
		entry := v.key(req)
		if _, err := notation.Request(req); err != nil {
			v.f.found.problem(v.f.keyPos(entry.at), entry.at, "%s", err)
			continue
		}
		weight := read(entry, notation.Amount)
		sum += weight
		all = append(all, system.MixEntry{Request: req, Weight: weight})
	}
	if len(all) > 0 && sum == 0 {
		v.wrong("want some weight above 0")
	}
	return all
}

// from reads the shares of the sites that clients are at.
func from(v value, s *system.System) map[string]float64 {
	if len(v.keys()) == 0 {
		return nil
	}
	all, sum, known := map[string]float64{}, 0.0, sites(s.Nodes)
	for _, site := range v.keys() {
		at := v.key(site).at
		if !slices.Contains(known, site) {
			v.f.found.problem(v.f.keyPos(at), at, "want the site of some nodes, one of %s; have %q%s", strings.Join(known, ", "), site, notation.Suggest(site, known))
		}
		all[site] = read(v.key(site), notation.Share)
		sum += all[site]
	}
	if math.Abs(sum-1) > 1e-6 {
		v.wrong("want shares of 100%% together, have %.4g%%", sum*100)
	}
	return all
}
