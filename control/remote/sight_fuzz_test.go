package remote

import (
	"bytes"
	"encoding/json"
	"slices"
	"testing"

	"servent/control"
	"servent/system"
)

// Whatever stands in control, an edge reads no byte of a service that has no instance on it, nor of other nodes' instances.
func FuzzSight(f *testing.F) {
	f.Add([]byte(`{"service":{"name":"x"},"assignments":[{"instance":"x/1","node":"OTHER"},{"instance":"x/2","node":"edge"}]}`), []byte(`{"plan":{"doors":[{"service":"OTHER","offset":2}]},"services":["OTHER"]}`))
	f.Add([]byte(`{"service":{"name":"OTHER"},"assignments":[{"instance":"x/1","node":"OTHER"}]}`), []byte(`{}`))
	f.Fuzz(func(t *testing.T, part, head []byte) {
		s := &sight{node: "edge", runs: map[system.ServiceName]bool{}, told: map[system.ServiceName]bool{}}
		b := s.batch(control.Batch{Rev: 3, Changes: []control.Change{{KV: control.KV{Key: "plan/meta", Value: head}}, {KV: control.KV{Key: control.PlanKey("OTHER"), Value: part}}}})
		for _, c := range b.Changes {
			if control.PlanHead(c.KV.Key) {
				if !s.runs["OTHER"] && bytes.Contains(c.KV.Value, []byte(`"service":"OTHER"`)) {
					t.Errorf("the head names it: %s", c.KV.Value)
				}
				continue
			}
			if !s.runs["OTHER"] {
				t.Errorf("sent what has no instance here: %s", c.KV.Value)
			}
			var d system.Deployment
			if err := json.Unmarshal(c.KV.Value, &d); err != nil || slices.ContainsFunc(d.Assignments, func(a system.Assignment) bool { return a.Node != "edge" }) {
				t.Errorf("sent another node's instance, or what is no plan: %s (%v)", c.KV.Value, err)
			}
		}
	})
}
