package remote

import (
	"context"
	"encoding/json"
	"slices"

	"servent/control"
	"servent/identity"
	"servent/system"
)

// sight is what an edge sees of the plan: its own part. Of services that it does not run it learns nothing, not even their names, and of
// those that it runs not where else they are. All other roles have none and see whatever their rights name.
type sight struct {
	node system.NodeID
	runs map[system.ServiceName]bool // services that have an instance on the node
	told map[system.ServiceName]bool // services that the edge knows of: it hears when they leave, and of no others
}

// sightOf returns nil when the caller sees all.
func sightOf(ctx context.Context, store control.Store, id identity.ID) (*sight, error) {
	if id.Role != identity.Edge {
		return nil, nil
	}
	s := &sight{node: id.Node, runs: map[system.ServiceName]bool{}, told: map[system.ServiceName]bool{}}
	kvs, _, err := store.Range(ctx, control.PlanKey(""))
	if err != nil {
		return nil, err
	}
	for _, kv := range kvs {
		if _, ok := s.learn(control.Change{KV: kv}); ok {
			name, _ := control.PlannedBy(kv.Key)
			s.told[name] = true
		}
	}
	return s, nil
}

// learn takes in a change of a service's part of the plan, and returns the edge's part of it; false: there is none.
func (s *sight) learn(c control.Change) (control.KV, bool) {
	name, ok := control.PlannedBy(c.KV.Key)
	if !ok {
		return c.KV, true
	}
	delete(s.runs, name)
	var d system.Deployment
	if c.Deleted || json.Unmarshal(c.KV.Value, &d) != nil {
		return c.KV, false
	}
	d.Assignments = slices.DeleteFunc(d.Assignments, func(a system.Assignment) bool { return a.Node != s.node })
	if len(d.Assignments) == 0 {
		return c.KV, false
	}
	s.runs[name] = true
	d.Parts, d.Ring, d.Called = nil, nil, nil
	c.KV.Value, _ = json.Marshal(d) // it has just been read
	return c.KV, true
}

// head is the edge's part of what the plan says of all services.
func (s *sight) head(kv control.KV) (control.KV, bool) {
	value, err := control.NarrowPlan(kv.Value, func(name system.ServiceName) bool { return s.runs[name] })
	kv.Value = value
	return kv, err == nil
}

// list leaves out of what stands what the caller does not see.
func (s *sight) list(kvs []control.KV) []control.KV {
	if s == nil {
		return kvs
	}
	out := kvs[:0]
	for _, kv := range kvs {
		if mine, ok := s.see(control.Change{KV: kv}); ok && !mine.Deleted {
			out = append(out, mine.KV)
		}
	}
	return out
}

// batch leaves out of a batch what the caller does not see. A service that left the node is deleted there.
func (s *sight) batch(b control.Batch) control.Batch {
	if s == nil {
		return b
	}
	for _, c := range b.Changes { // the plan's head may stand before its services
		s.learn(c)
	}
	out := control.Batch{Rev: b.Rev}
	for _, c := range b.Changes {
		if mine, ok := s.see(c); ok {
			out.Changes = append(out.Changes, mine)
		}
	}
	return out
}

// see is the edge's part of a change; false: it has none, and never had.
func (s *sight) see(c control.Change) (control.Change, bool) {
	if control.PlanHead(c.KV.Key) && !c.Deleted {
		kv, ok := s.head(c.KV)
		return control.Change{KV: kv}, ok
	}
	name, ok := control.PlannedBy(c.KV.Key)
	if !ok {
		return c, true
	}
	ran := s.told[name]
	kv, runs := s.learn(c)
	s.told[name] = runs
	if !runs {
		return control.Change{KV: control.KV{Key: kv.Key, Modified: kv.Modified}, Deleted: true}, ran
	}
	return control.Change{KV: kv}, true
}
