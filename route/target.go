package route

import "servent/system"

// Target is who may take a request or a connection under one table.
type Target struct {
	Service system.ServiceName
	Policy  string
	Among   []Instance
	Coming  bool   // one is planned that is not ready yet
	Why     string // when Among is empty: why, in words
}

// Door is what a service's door leads to.
func (t *Table) Door(name system.ServiceName) Target {
	svc := t.Services[name]
	if svc == nil {
		return Target{Service: name, Why: "the plan that this node follows does not name it"}
	}
	return Target{Service: name, Policy: svc.Switch.Policy, Among: svc.Instances, Coming: svc.Coming, Why: svc.Why}
}

// One is what a door to a single instance leads to: the one that pick names, or none for now.
func (t *Table) One(pick func(*Table) (Instance, bool)) Target {
	in, ok := pick(t)
	name, _, err := in.ID.Split()
	if err != nil {
		return Target{Why: "no such instance"}
	}
	to := t.Door(name)
	if ok {
		to.Among = []Instance{in}
		return to
	}
	if to.Among = nil; to.Why == "" {
		to.Why = string(in.ID) + " is not ready"
	}
	return to
}
