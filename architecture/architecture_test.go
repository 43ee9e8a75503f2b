package architecture

import (
	"strings"
	"testing"

	"servent/system"
)

// Every row answers both questions, and says enough to be shown and refused.
func TestTableIsWhole(t *testing.T) {
	seen := map[system.Architecture]bool{}
	for _, r := range Table {
		if seen[r.Word] {
			t.Errorf("%s stands twice", r.Word)
		}
		seen[r.Word] = true
		if r.Where == "" || r.Way == "" || r.Textbook == "" || r.Theory == "" || r.Drawing == "" || len(r.Data) == 0 || len(r.By) == 0 {
			t.Errorf("%s: a column is empty: %+v", r.Word, r)
		}
		if r.Copies != Never && r.Key == Never {
			t.Errorf("%s: copies of keys without keys", r.Word)
		}
		got, ok := Of(r.Word)
		if !ok || got.Word != r.Word {
			t.Errorf("Of(%s) = %v, %v", r.Word, got.Word, ok)
		}
	}
	for _, word := range []system.Architecture{system.Single, system.Replicated, system.Partitioned, system.Ring, system.Chord, system.Pastry,
		system.Kademlia, system.Unstructured, system.Superpeer, system.Swarm, system.Edge, system.Function} {
		if !seen[word] {
			t.Errorf("%s has no row", word)
		}
	}
	if _, ok := Of("rign"); ok {
		t.Error("Of(rign) found a row")
	}
}

func TestUnbuiltNamesWhatRuns(t *testing.T) {
	row, _ := Of(system.Superpeer)
	got := row.Unbuilt()
	for _, want := range []string{`"superpeer"`, "not built yet", "single", "replicated"} {
		if !strings.Contains(got, want) {
			t.Errorf("Unbuilt() = %q, want %s in it", got, want)
		}
	}
}

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		name     string
		service  system.Service
		eligible int
		want     int
	}{
		{"single", system.Service{Architecture: system.Single, Replicas: 3}, 5, 1},
		{"replicated by default", system.Service{Architecture: system.Replicated}, 5, 2},
		{"replicated as deployed", system.Service{Architecture: system.Replicated, Replicas: 4}, 5, 4},
		{"scale beats deploy", system.Service{Architecture: system.Replicated, Replicas: 4, Scale: system.Scale{Min: 3}}, 5, 3},
		{"more than nodes", system.Service{Architecture: system.Partitioned, Replicas: 9}, 2, 9},
		{"overlay: every node", system.Service{Architecture: system.Chord, Replicas: 2}, 5, 5},
		{"edge: every node", system.Service{Architecture: system.Edge}, 3, 3},
		{"function: none until called", system.Service{Architecture: system.Function, Scale: system.Scale{Max: 9}}, 3, 0},
		{"function kept warm", system.Service{Architecture: system.Function, Scale: system.Scale{Min: 1}}, 3, 1},
		{"unknown word", system.Service{Architecture: "rign"}, 3, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := Count(&tt.service, tt.eligible); got != tt.want {
				t.Errorf("Count = %d, want %d", got, tt.want)
			}
		})
	}
}
