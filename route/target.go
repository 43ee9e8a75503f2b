package route

import (
	"slices"

	"servent/system"
)

// Target is who may take a request or a connection under one table.
type Target struct {
	Service system.ServiceName
	Policy  string
	Sticky  string // none or empty, cookie, key, source
	Model   string // of the door: see [ModelOne]
	Proxy   string // what connections to an instance begin with: none or empty, v1, v2
	Among   []Instance
	Leaving []Instance // only for clients that stay with one of them
	Coming  bool       // one is planned that is not ready yet
	Called  bool       // its instances follow its calls: they are counted
	Timed   bool       // and follow how long answers take: that is counted, too
	Each    int        // requests that one node gives an instance at a time; 0: no bound
	Why     string     // when Among is empty: why, in words
	Key     KeyRule
	Locator Locator // set when a key decides who of Among it is; then see [Table.Owner]
	Once    bool    // no write may be sent again unless nobody has seen it
	Seeks   bool    // who owns the key could not be found out just now: it is worth asking again
}

// Door is what a service's door leads to.
func (t *Table) Door(name system.ServiceName) Target {
	svc := t.Services[name]
	if svc == nil {
		return Target{Service: name, Why: "the plan that this node follows does not name it"}
	}
	among := svc.Instances
	if svc.Switch.By == system.ByName {
		if among = own(among); len(among) == 0 {
			among = svc.Instances
		}
	}
	return Target{Service: name, Policy: svc.Switch.Policy, Sticky: svc.Switch.Sticky, Model: svc.Switch.Model, Proxy: svc.Switch.Proxy, Among: among, Leaving: svc.Leaving,
		Coming: svc.Coming, Called: svc.Called, Timed: svc.Timed, Each: svc.Each, Why: svc.Why, Key: svc.Key, Locator: svc.Locator, Once: svc.Once}
}

// own are the instances on this node. Who looked a service up by name came to them; only a client whose answer is out
// of date comes where there is none, and is sent on, as are programs of this node.
func own(all []Instance) []Instance {
	return slices.DeleteFunc(slices.Clone(all), func(in Instance) bool { return !in.Local })
}

// Owner narrows a target to the instance where a locator found a key. When that one is not ready, Among
// is empty and Why says why, for this key alone.
func (t *Table) Owner(to Target, at Location) Target {
	all := to.Among
	to.Among, to.Coming, to.Why = nil, false, ""
	to.Seeks = at.Instance == "" // an overlay changes its mind without a new table
	is := func(id system.InstanceID, node system.NodeID) bool {
		return id == at.Instance || at.Instance == "" && node == at.Node
	}
	for i, in := range all {
		if is(in.ID, in.Node) {
			to.Among = all[i : i+1 : i+1]
			return to
		}
	}
	owner := string(at.Instance)
	if owner == "" {
		owner = string(at.Node)
	}
	to.Why = owner + ", which owns the key, has no instance"
	if svc := t.Services[to.Service]; svc != nil {
		for _, a := range svc.Absent {
			if is(a.ID, a.Node) {
				to.Coming, to.Why = a.Coming, "the owner of the key is away: "+a.Why
			}
		}
	}
	return to
}

// One is what a door to a single instance leads to: the one that pick names, or none for now.
func (t *Table) One(pick func(*Table) (Instance, bool)) Target {
	in, ok := pick(t)
	name, _, err := in.ID.Split()
	if err != nil {
		return Target{Why: "no such instance"}
	}
	to := t.Door(name)
	to.Locator, to.Sticky, to.Leaving = nil, "", nil // the instance is chosen already
	if ok {
		to.Among = []Instance{in}
		return to
	}
	if to.Among = nil; to.Why == "" {
		to.Why = string(in.ID) + " is not ready"
	}
	return to
}
