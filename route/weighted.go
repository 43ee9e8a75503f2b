package route

import (
	"sync"

	"servent/system"
)

// weighted gives every instance turns in proportion to its weight, evenly mixed: smooth weighted round robin
// as nginx has it (commit 52327e0627f4, 2012). Where one has no weight all have the same. It begins anew when the
// instances or their weights change.
type weighted struct {
	mu    sync.Mutex                       // guards turns
	turns map[system.InstanceID]weightTurn // of all instances, as they were
}

type weightTurn struct {
	weight float64
	owed   float64 // all add up to nothing
}

func (w *weighted) Pick(a Ask) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.changed(a.All) {
		// What is owed among those that were is no debt among those that are.
		w.turns = make(map[system.InstanceID]weightTurn, len(a.All))
		for _, in := range a.All {
			w.turns[in.ID] = weightTurn{weight: in.Weight}
		}
	}
	equal := false
	for _, in := range a.Among {
		equal = equal || in.Weight <= 0
	}
	best, most, total := 0, 0.0, 0.0
	for i, in := range a.Among {
		weight := in.Weight
		if equal {
			weight = 1
		}
		t := w.turns[in.ID]
		t.owed += weight
		w.turns[in.ID] = t
		if total += weight; i == 0 || t.owed > most {
			best, most = i, t.owed
		}
	}
	t := w.turns[a.Among[best].ID]
	t.owed -= total
	w.turns[a.Among[best].ID] = t
	return best
}

func (w *weighted) changed(all []Instance) bool {
	if len(all) != len(w.turns) {
		return true
	}
	for _, in := range all {
		if t, ok := w.turns[in.ID]; !ok || t.weight != in.Weight {
			return true
		}
	}
	return false
}
