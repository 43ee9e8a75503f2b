package route

import (
	"testing"

	"servent/system"
)

// Who looked a service up came to the instance's node; who came to another one is sent on.
func TestDoorByNamePrefersItsOwn(t *testing.T) {
	here, there := Instance{ID: "api/1", Node: "a", Local: true}, Instance{ID: "api/2", Node: "b"}
	for _, tt := range []struct {
		name         string
		by           system.By
		all, leaving []Instance
		among, still int
	}{
		{"one here, one there", system.ByName, []Instance{here, there}, nil, 1, 0},
		{"only there", system.ByName, []Instance{there}, nil, 1, 0},
		{"here it leaves", system.ByName, []Instance{there}, []Instance{here}, 1, 1},
		{"by connection", system.ByConnection, []Instance{here, there}, nil, 2, 0},
	} {
		table := &Table{Services: map[system.ServiceName]*Service{"api": {Name: "api", Switch: system.Switch{By: tt.by}, Instances: tt.all, Leaving: tt.leaving}}}
		got := table.Door("api")
		if len(got.Among) != tt.among || len(got.Leaving) != tt.still {
			t.Errorf("%s: among %v, leaving %v", tt.name, got.Among, got.Leaving)
		}
		if tt.by == system.ByName && len(tt.all) == 2 && got.Among[0].ID != "api/1" {
			t.Errorf("%s: %v", tt.name, got.Among)
		}
	}
}
