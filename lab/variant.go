package lab

import (
	"fmt"
	"reflect"
	"slices"
	"strings"

	"servent/architecture"
	"servent/system"
)

// Scale says how variants grow: out to more nodes, which is what they do by themselves; up to more workers on one
// node; or both, each variant beside its twin NAME up. What cannot grow on one node is kept with the reason, and so is a
// twin that would be another's: on one node every architecture of one place has one instance.
func Scale(all []Variant, service system.ServiceName, how string) ([]Variant, error) {
	switch how {
	case "", "out":
		return all, nil
	case "up", "both":
	default:
		return nil, fmt.Errorf("scale: want out, up or both, have %q", how)
	}
	var out, ups []Variant
	for _, v := range all {
		if how == "both" || v.System == nil {
			out = append(out, v)
		}
		if v.System == nil {
			continue
		}
		v.Name, v.Up = v.Name+" up", true
		why := bound(v.System, service)
		for _, u := range ups {
			if why == "" && reflect.DeepEqual(alone(u.System, service), alone(v.System, service)) {
				why = "on one node it has one instance, as " + u.Name + " has"
			}
		}
		if why != "" {
			v.System, v.Refused = nil, why
		} else {
			ups = append(ups, v)
		}
		out = append(out, v)
	}
	return out, nil
}

// bound says why a system cannot grow on one node, or "".
func bound(sys *system.System, service system.ServiceName) string {
	svc := sys.Service(service)
	if svc == nil {
		return ""
	}
	row, _ := architecture.Of(svc.Architecture)
	switch {
	case len(sys.Nodes) > 1:
		return fmt.Sprintf("its nodes are in %d groups: which of them would grow? Scaling up is compared where all nodes are alike", len(sys.Nodes))
	case row.Where == architecture.EveryNode:
		return fmt.Sprintf("%s is made of many nodes: on one there is nobody to ask", svc.Architecture)
	case row.Where == architecture.WhenCalled:
		return fmt.Sprintf("%s has as many instances as calls need already", svc.Architecture)
	}
	return ""
}

// alone is a system of which the service has one instance, whatever its architecture is.
func alone(sys *system.System, service system.ServiceName) *system.System {
	out := *sys
	out.Services = slices.Clone(sys.Services)
	if s := out.Service(service); s != nil {
		s.Architecture, s.Replicas, s.Scale, s.Placement.MaxPerNode = system.Single, 0, system.Scale{}, 0
	}
	return &out
}

// unlike says in what a variant's nodes are not those of the first, or "". Load, capacity and cost are those of
// all variants, so figures of unlike nodes could not stand side by side.
func unlike(first, v Variant) string {
	group := func(sys *system.System) map[string]system.NodeGroup {
		all := map[string]system.NodeGroup{}
		for _, g := range sys.Nodes {
			all[g.Name] = g
		}
		return all
	}
	a, b := group(first.System), group(v.System)
	var why []string
	say := func(format string, args ...any) { why = append(why, fmt.Sprintf(format, args...)) }
	for _, g := range v.System.Nodes {
		was, ok := a[g.Name]
		if !ok {
			say("%s has no group %s", first.Name, g.Name)
			continue
		}
		if x, y := max(1, g.Count), max(1, was.Count); x != y {
			say("%d nodes in %s, not %d", x, g.Name, y)
		}
		if g.Site != was.Site {
			say("%s is at %s, not %s", g.Name, g.Site, was.Site)
		}
		if x, y := capacity(g), capacity(was); x != y {
			say("%s serves %s, not %s", g.Name, x, y)
		}
		if !slices.Equal(g.Links, was.Links) {
			say("the links of %s differ", g.Name)
		}
		if g.Price != was.Price {
			say("a node of %s costs %v %s, not %v %s", g.Name, g.Price.Amount, g.Price.Currency, was.Price.Amount, was.Price.Currency)
		}
	}
	for _, g := range first.System.Nodes {
		if _, ok := b[g.Name]; !ok {
			say("it has no group %s", g.Name)
		}
	}
	if len(why) == 0 {
		return ""
	}
	return fmt.Sprintf("its nodes are not those of %s: %s", first.Name, strings.Join(why, "; "))
}

// foreign says why a variant cannot be sent the first one's load, or "". All variants get the same requests, and
// one whose file says what is sent over TCP gets those bytes where the other gets requests of HTTP. A connection carries requests,
// too, so HTTP without such a word is no reason.
func foreign(first, v Variant, service system.ServiceName) string {
	a, b := first.System.Service(service).Switch.By, v.System.Service(service).Switch.By
	if overTCP(first.System, service) == overTCP(v.System, service) {
		return ""
	}
	return fmt.Sprintf("it is switched by %s and %s by %s: what is sent to the one is no request to the other", b, first.Name, a)
}

// overTCP says that a service's load is bytes over TCP.
func overTCP(sys *system.System, service system.ServiceName) bool {
	return sys.Service(service).Switch.By != system.ByRequest && sys.Compare != nil && sys.Compare.Load.Send != ""
}

// capacity of a group's nodes in words.
func capacity(g system.NodeGroup) string {
	if g.Capacity.Rate <= 0 {
		return "what is measured"
	}
	return fmt.Sprintf("%s with %s, %s onward", perSecond(g.Capacity.Rate), some(max(1, g.Capacity.Workers), "worker"), perSecond(pass(g.Capacity)))
}
