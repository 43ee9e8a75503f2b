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
	for _, p := range v.key("variants").keys() {
		c.Variants = append(c.Variants, variant(v.key("variants").key(p), p))
	}
	load := v.key("load")
	c.Load = system.Load{
		Open:    read(load.key("open"), notation.Arrivals),
		Closed:  read(load.key("closed"), notation.Clients),
		Keys:    read(load.key("keys"), notation.Keys),
		Send:    load.key("send").text(),
		Expect:  read(load.key("expect"), notation.Expect),
		Preload: read(load.key("preload"), notation.Truth),
		Mix:     mix(load.key("mix")),
		From:    from(load.key("from"), s),
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

// variant checks a key of a service's x-servent, or a path from the top of the file, and the values that it takes
// against the schema.
func variant(v value, name string) system.Variant {
	r := schema.Rules().At(strings.Split(AbsolutePath("a", name), ".")...)
	if r == nil {
		var known []string
		for key := range schema.Rules().At("services", "a", "x-servent").Props {
			known = append(known, key)
		}
		slices.Sort(known)
		v.f.found.problem(v.f.keyPos(v.at), v.at, "want a key of a service's x-servent, or a path like services.web.environment.NAME, have %q%s", name, notation.Suggest(name, known))
		return system.Variant{Path: name, Values: v.texts()}
	}
	for _, one := range v.items() {
		found, depth := spots(v.f.main, one.at)
		if depth < len(one.at) || len(found) == 0 {
			continue
		}
		at := found[len(found)-1]
		pos := at.pos()
		w := walk{src: at.src, found: v.f.found, left: 100}
		w.value(r, nil, &yaml.Node{Kind: yaml.ScalarNode, Value: one.text(), Line: pos.Line, Column: pos.Col}, one.at)
	}
	return system.Variant{Path: name, Values: v.texts()}
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
