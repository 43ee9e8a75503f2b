package lab

import (
	"math"
	"testing"

	"servent/architecture"
	"servent/system"
)

// Every row that can be run has a formula with its source; a row without one has no theory at all.
func TestTheoryOfEveryRow(t *testing.T) {
	for _, row := range architecture.Table {
		r := fullRun(enough, row.Word)
		got := r.theory(r.variants[0], r.variants[0].System.Service("cart"))
		if row.Built && got == nil {
			t.Errorf("%s: no theory", row.Word)
		}
		if got == nil {
			continue
		}
		if got.Formula == "" || got.Source == "" || len(got.Curve) != len(r.nodes) || got.Curve[0].Rate <= 0 {
			t.Errorf("%s: %+v, want formula, source and a rate for every number of nodes", row.Word, got)
		}
		if row.Word == system.Chord {
			if hops := got.Hops[len(got.Hops)-1]; hops.Nodes != 8 || hops.Rate != 1.25 { // 1 + ½ − 2/8
				t.Errorf("8 nodes under chord have %+v mean hops, want 1.25", hops)
			}
		}
		if row.Word != system.Ring {
			continue
		}
		for i, n := range r.nodes { // the way to the owner is (N−1)/2 datagrams long, then the request makes its hop
			nodes := float64(n)
			h := (nodes-1)/2 + (nodes-1)/nodes
			if want := nodes * 50 / (1 + h/10); math.Abs(got.Curve[i].Rate-want) > 1e-9 {
				t.Errorf("ring of %d: %v/s, want %v", n, got.Curve[i].Rate, want)
			}
		}
		if hops := got.Hops[len(got.Hops)-1]; hops.Nodes != 8 || hops.Rate != 3.5 {
			t.Errorf("a ring of 8 has %+v mean hops, want 3.5", hops)
		}
	}
}
