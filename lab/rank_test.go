package lab

import (
	"testing"

	"servent/lab/check"
	"servent/lab/law"
	"servent/lab/result"
	"servent/system"
)

// kinds of systems whose rates on four nodes differ by much, by little and not at all.
var kinds = []struct {
	name  string
	setup law.Setup
}{
	{"single", law.Setup{Architecture: system.Single}},
	{"p2c", law.Setup{Architecture: system.Replicated}},
	{"random", law.Setup{Architecture: system.Replicated, Policy: "random"}},
	{"partitioned", law.Setup{Architecture: system.Partitioned}},
	{"partitioned too", law.Setup{Architecture: system.Partitioned}},
	{"hot keys", law.Setup{Architecture: system.Partitioned, Keys: law.Keys{Count: 50, Theta: 0.6}}},
	{"leastconn", law.Setup{Architecture: system.Replicated, Policy: "leastconn"}},
}

// comparison is one of all kinds under one seed: six short turns each, as quick ones are, with
// draws of their own.
func comparison(t *testing.T, seed uint64, spoilt string) *result.Result {
	t.Helper()
	sys := shop()
	sys.Nodes = sys.Nodes[:1]
	r := &run{plan: &plan{base: sys, service: "cart", nodes: []int{4}, repeats: fewest, checks: check.None, goal: result.Goal{Errors: 0.001}}, points: map[at]*point{}, survival: map[string]*result.Survival{}}
	for i, k := range kinds {
		p := &point{at: at{k.name, 4}, check: check.New(check.None, check.Options{}), requests: 1}
		for turn := range fewest {
			s := k.setup
			s.Seed = (seed*uint64(len(kinds))+uint64(i))*fewest + uint64(turn) + 1
			s.Nodes, s.Clients, s.Requests, s.Warm = 4, 16, 100, 16
			s.Service, s.Pass = law.LogNormal(20_000_000, 0.3), 2_000_000
			o, err := law.Simulate(s)
			if err != nil {
				t.Fatal(err)
			}
			p.repeats = append(p.repeats, result.Repeat{Rate: o.Rate})
		}
		if k.name == spoilt { // too slow for its nodes
			p.turns, p.slow = 100, 50
		}
		r.points[p.at] = p
		r.variants = append(r.variants, Variant{Name: k.name, System: sys})
	}
	return r.conclude()
}

// Two runs never contradict each other: over many seeds no pair is ever ranked both ways, although the
// medians of those that are alike come in both orders.
func TestSeedsDoNotContradict(t *testing.T) {
	better := map[[2]string]uint64{} // pair → a seed that ranked it so
	first := map[string]bool{}
	ranked := 0
	for seed := range uint64(60) {
		v := comparison(t, seed, "").Verdict
		if len(v.Tests) == 0 {
			t.Fatalf("seed %d: %+v, want tests", seed, v)
		}
		first[v.Tests[0].A] = true
		for _, test := range v.Tests {
			if !test.Better {
				continue
			}
			ranked++
			better[[2]string{test.A, test.B}] = seed
			if other, both := better[[2]string{test.B, test.A}]; both {
				t.Errorf("%s is better than %s under seed %d, and worse under seed %d", test.A, test.B, seed, other)
			}
		}
	}
	if len(first) < 2 || ranked < 60 {
		t.Errorf("always first is %v, and %d pairs were ranked: this shows nothing", first, ranked)
	}
	if _, ok := better[[2]string{"partitioned", "partitioned too"}]; ok {
		t.Error("a system is better than itself")
	}
}

// A point that is not valid stands in no ranking, be it the fastest or the slowest.
func TestInvalidIsNeverRanked(t *testing.T) {
	for _, k := range kinds {
		res := comparison(t, 1, k.name)
		for _, test := range res.Verdict.Tests {
			if test.A == k.name || test.B == k.name {
				t.Errorf("%s is not valid, and %s is tested", k.name, test.Pair)
			}
		}
		for _, v := range res.Variants {
			if v.Name == k.name && v.Verdict != "unranked" {
				t.Errorf("%s is not valid, and said to be %s", k.name, v.Verdict)
			}
		}
		if res.Verdict.Best == k.name {
			t.Errorf("%s is not valid, and best", k.name)
		}
	}
}

// Of two variants one is better exactly when the other is worse, and medians that differ by less than a tenth
// make none better, however surely they differ.
func TestBetterIsOneWay(t *testing.T) {
	one := []float64{95, 97, 99, 101, 103, 105}
	other := []float64{95.5, 97.5, 99.5, 101.5, 103.5, 105.5}
	for shift := -0.2; shift <= 0.2; shift += 0.01 {
		scaled := make([]float64, len(other))
		for i := range other {
			scaled[i] = other[i] * (1 + shift)
		}
		got := law.Compare([]law.Pair{{A: one, B: scaled}, {A: scaled, B: one}})
		if got[0].A && got[0].B || got[0].A != got[1].B || got[0].B != got[1].A {
			t.Errorf("shifted by %.2f: %+v", shift, got)
		}
		if (got[0].A || got[0].B) && shift > -0.08 && shift < 0.08 {
			t.Errorf("shifted by %.2f one is better: %+v", shift, got[0])
		}
	}
}
