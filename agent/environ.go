package agent

import (
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"

	"servent/system"
)

// Place is what a program is told of where it runs.
type Place struct {
	Node     system.NodeID
	Site     system.Site
	Host     string   // address of this node's doors and instances
	PortBase int      // that offsets of the plan count from
	Base     []string // PATH, HOME, …: what every program gets
	Dir      string   // its private folder, where it is started
	Data     string   // its data folder, SERVENT_DATA
	Temp     string   // TMPDIR
	Bundle   string   // read-only bundle; empty: none
	Mounts   []string // SERVENT_VOLUME_…, SERVENT_CONFIG_…, SERVENT_SECRET_…
	Inside   bool     // of a container: it reaches other services by their names
	Enclosed bool     // in a virtual machine, which has folders of its own
}

// Environ is the whole environment of one instance, as NAME=value. Later layers win over earlier ones:
// the base; <NAME>_URL, <NAME>_HOST and <NAME>_PORT of every service's door on this node, TMPDIR and HOST;
// the user's own; PORT and all SERVENT_… that we set. Users' values are literal: interpolation is done.
//
// SERVENT_PEERS lists every instance of the program's own service, itself too, by number. All but its own
// are doors on this node that lead there. SERVENT_NEXT leads to the next live one, in a ring.
func Environ(plan *system.Plan, as *system.Assignment, service *system.Service, at Place) []string {
	e := layers{values: map[string]string{}}
	for _, kv := range at.Base {
		if len(kv) == 0 {
			continue
		}
		// Windows keeps working folders of drives as =C:=C:\dir.
		if i := strings.IndexByte(kv[1:], '='); i >= 0 {
			e.set(kv[:i+1], kv[i+2:])
		}
	}
	for _, d := range plan.Doors {
		other := plan.Deployment(d.Service)
		if other == nil {
			continue
		}
		name := d.Service.EnvName()
		door := at
		if at.Inside {
			door.Host = string(d.Service)
		}
		e.set(name+"_URL", door.url(&other.Service, d.Offset))
		e.set(name+"_HOST", door.Host)
		e.set(name+"_PORT", strconv.Itoa(at.PortBase+d.Offset))
	}
	if at.Inside || at.Enclosed {
		e.set("HOST", "0.0.0.0")
	} else {
		e.set("HOST", at.Host)
		for _, name := range []string{"TMPDIR", "TMP", "TEMP"} { // POSIX, and what Windows programs ask for
			e.set(name, at.Temp)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(service.Environment)) {
		e.set(k, service.Environment[k])
	}
	e.set("PORT", strconv.Itoa(at.PortBase+as.Port))
	e.set("SERVENT_NODE", string(at.Node))
	e.set("SERVENT_SITE", string(at.Site))
	e.set("SERVENT_SERVICE", string(service.Name))
	e.set("SERVENT_INSTANCE", string(as.Instance))
	e.set("SERVENT_SELF", at.url(service, as.Port))
	e.set("SERVENT_PEERS", strings.Join(peers(plan, service, at), ","))
	e.set("SERVENT_NEXT", at.url(service, as.Port+1))
	if !at.Enclosed {
		e.set("SERVENT_DATA", at.Data)
	}
	if at.Bundle != "" {
		e.set("SERVENT_BUNDLE", at.Bundle)
	}
	for _, kv := range at.Mounts {
		k, v, _ := strings.Cut(kv, "=")
		e.set(k, v)
	}
	out := make([]string, len(e.names))
	for i, k := range e.names {
		out[i] = k + "=" + e.values[k]
	}
	return out
}

// peers are those that run or hold their place; who is leaving is none.
func peers(plan *system.Plan, service *system.Service, at Place) []string {
	d := plan.Deployment(service.Name)
	if d == nil {
		return nil
	}
	all := slices.DeleteFunc(slices.Clone(d.Assignments), func(a system.Assignment) bool { return a.Goal == system.GoalDrain })
	slices.SortFunc(all, func(a, b system.Assignment) int { return compare(a.Instance, b.Instance) })
	urls := make([]string, len(all))
	for i, a := range all {
		urls[i] = at.url(service, a.Port)
	}
	return urls
}

// url is where an offset of this node answers, in the words of the service's protocol.
func (at Place) url(s *system.Service, offset int) string {
	scheme := "http://"
	if s.Switch.By != system.ByRequest {
		scheme = "tcp://"
	}
	return scheme + net.JoinHostPort(at.Host, strconv.Itoa(at.PortBase+offset))
}

// layers keeps each name where it first stood, with the newest value.
type layers struct {
	names  []string
	values map[string]string
}

func (l *layers) set(name, value string) {
	if _, ok := l.values[name]; !ok {
		l.names = append(l.names, name)
	}
	l.values[name] = value
}

// envName makes any name one that an environment variable may have: DB_PASSWORD of db-password.
func envName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(s))
}
