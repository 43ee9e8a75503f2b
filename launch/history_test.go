package launch

import (
	"fmt"
	"os"
	"testing"
	"time"

	"servent/system"
)

// Only what differs is written down, only the newest are kept, and what cannot be read is left out.
func TestRemember(t *testing.T) {
	f := FolderOf(t.TempDir())
	sys := func(n int) *system.System {
		return &system.System{Name: "s", Services: []system.Service{{Name: "a", Environment: map[string]string{"N": fmt.Sprint(n)}}}}
	}
	for i := range 30 {
		for range 2 {
			if err := f.remember(sys(i), time.Now()); err != nil {
				t.Fatal(err)
			}
		}
	}
	all, err := f.revisions()
	if err != nil || len(all) != historyKeep || all[0].N != 11 || all[19].N != 30 {
		t.Errorf("%d revisions, %d to %d, %v", len(all), all[0].N, all[len(all)-1].N, err)
	}
	if err := os.WriteFile(f.revision(30), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if all, err = f.revisions(); err != nil || len(all) != historyKeep-1 {
		t.Errorf("with one that is broken: %d, %v", len(all), err)
	}
}

func TestChanged(t *testing.T) {
	was := &system.System{Services: []system.Service{{Name: "a"}, {Name: "b", Replicas: 1}, {Name: "c"}}}
	is := &system.System{Services: []system.Service{{Name: "a", Environment: map[string]string{"X": "1"}}, {Name: "b", Replicas: 2}, {Name: "d"}}}
	if got := changed(was, is); got != "a is made of something else, b is run otherwise, d is new, c is gone" {
		t.Error(got)
	}
	moved := &system.System{Services: []system.Service{{Name: "a", Pos: system.Pos{Line: 9}}, {Name: "b", Replicas: 1}, {Name: "c"}}}
	if got := changed(was, moved); got != "its nodes, or what is not of a service" {
		t.Error(got)
	}
}
