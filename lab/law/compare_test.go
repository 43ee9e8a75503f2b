package law

import (
	"fmt"
	"math"
	"math/bits"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func near(got, want, relative float64) bool {
	return math.Abs(got-want) <= relative*math.Max(math.Abs(want), 1e-300)
}

func TestMedian(t *testing.T) {
	for _, tt := range []struct {
		n         int
		low, high float64
		coverage  float64
	}{
		{1, 1, 1, 0},
		{2, 1, 2, 0.5},
		{3, 1, 3, 0.75},
		{5, 1, 5, 0.9375},
		{6, 1, 6, 1 - 2.0/64},
		{8, 1, 8, 1 - 2.0/256},                 // 2…7 would be 1 − 2·9/256 = 0.93
		{9, 2, 8, 1 - 2*10.0/512},              // 0.961
		{10, 2, 9, 1 - 2*11.0/1024},            // 0.979
		{20, 6, 15, 1 - 2*21700.0/1048576},     // Σ_{i≤5} C(20,i) = 21700: 0.9586
		{25, 8, 18, 1 - 2*726206.0/33554432},   // Σ_{i≤7} C(25,i) = 726206: 0.9567
		{30, 10, 21, 1 - 2*22964087.0/(1<<30)}, // Σ_{i≤9} C(30,i) = 22964087: 0.9572
	} {
		t.Run(fmt.Sprint(tt.n), func(t *testing.T) {
			xs := make([]float64, tt.n)
			for i := range xs {
				xs[i] = float64(tt.n - i)
			}
			got := Median(xs)
			if got.Median != float64(tt.n+1)/2 || got.Low != tt.low || got.High != tt.high || !near(got.Coverage, tt.coverage, 1e-12) && got.Coverage != tt.coverage {
				t.Errorf("Median(1…%d) = %+v, want [%v, %v] covering %v", tt.n, got, tt.low, tt.high, tt.coverage)
			}
			if got.Sure() != (tt.n >= 6) {
				t.Errorf("%d values: Sure() = %v", tt.n, got.Sure())
			}
		})
	}
	if got := Median(nil); !math.IsNaN(got.Median) || got.Sure() {
		t.Errorf("Median of nothing = %+v", got)
	}
}

func TestIntervalText(t *testing.T) {
	for _, tt := range []struct {
		xs   []float64
		want string
	}{
		{[]float64{47, 48, 48, 48, 49, 48}, "48 [47, 49]"},
		{[]float64{1234.4, 1250.2, 1240}, "1240 [1234, 1250] (range of 3 values, 75 % sure)"},
		{[]float64{0.1234, 0.1234, 0.1234, 0.1234, 0.1234, 0.1234}, "0.123 [0.123, 0.123]"},
		{[]float64{12.345, 12.345, 12.345, 12.345, 12.345, 12.345}, "12.3 [12.3, 12.3]"},
	} {
		if got := Median(tt.xs).Text(); got != tt.want {
			t.Errorf("%v: %q, want %q", tt.xs, got, tt.want)
		}
	}
}

// The interval of a median holds the true one as often as it says: counted over all orders of signs, since
// only the number of values below the truth matters.
func TestMedianCoverageByEnumeration(t *testing.T) {
	for n := 1; n <= 14; n++ {
		held := 0
		for signs := range 1 << n {
			xs := make([]float64, n)
			for i := range xs {
				xs[i] = float64(i + 1)
				if signs>>i&1 == 1 {
					xs[i] = -xs[i]
				}
			}
			if in := Median(xs); in.Low <= 0 && 0 <= in.High {
				held++
			}
		}
		want := float64(held) / float64(int(1)<<n)
		if got := Median(make([]float64, n)).Coverage; math.Abs(got-want) > 1e-12 {
			t.Errorf("n = %d: Coverage = %v, counted %v", n, got, want)
		}
	}
}

func TestMannWhitneyAgainstR(t *testing.T) {
	// The data of R's own examples, ?wilcox.test. Airquality's ozone in May and August has ties.
	placenta := []float64{0.80, 0.83, 1.89, 1.04, 1.45, 1.38, 1.91, 1.64, 0.73, 1.46}
	later := []float64{1.15, 0.88, 0.90, 0.74, 1.21}
	may := []float64{41, 36, 12, 18, 28, 23, 19, 8, 7, 16, 11, 14, 18, 14, 34, 6, 30, 11, 1, 11, 4, 32, 23, 45, 115, 37}
	august := []float64{39, 9, 16, 78, 35, 66, 122, 89, 110, 44, 28, 65, 22, 59, 23, 31, 44, 21, 9, 45, 168, 73, 76, 118, 84, 85}
	for _, tt := range []struct {
		name string
		a, b []float64
		u    float64
		p    string
	}{
		{"placental permeability", placenta, later, 35, "0.2544"}, // Hollander and Wolfe, p. 69; R prints W = 35, one-sided p = 0.1272
		{"ozone", may, august, 127.5, "0.0001208"},                // R prints W = 127.5, p-value = 0.0001208
	} {
		u, _ := rankSum(tt.a, tt.b)
		if got := fmt.Sprintf("%.4g", MannWhitney(tt.a, tt.b)); u != tt.u || got != tt.p {
			t.Errorf("%s: U = %v, p = %s; want %v, %s", tt.name, u, got, tt.u, tt.p)
		}
		if x, y := MannWhitney(tt.a, tt.b), MannWhitney(tt.b, tt.a); !near(x, y, 1e-12) {
			t.Errorf("%s: p depends on the order: %v, %v", tt.name, x, y)
		}
	}
}

// Exact p for all results of small samples, against a count over all C(n+m, n) orders.
func TestMannWhitneyByEnumeration(t *testing.T) {
	for n := 1; n <= 6; n++ {
		for m := 1; m <= 6; m++ {
			us := map[int]float64{}
			var orders []uint
			all := 0.0
			for mask := range uint(1) << (n + m) {
				if bits.OnesCount(mask) != n {
					continue
				}
				u, below := 0, 0
				for i := range n + m {
					if mask>>i&1 == 1 {
						u += below
					} else {
						below++
					}
				}
				us[u]++
				all++
				orders = append(orders, mask)
			}
			for _, mask := range orders {
				var a, b []float64
				for i := range n + m {
					if mask>>i&1 == 1 {
						a = append(a, float64(i))
					} else {
						b = append(b, float64(i))
					}
				}
				u, _ := rankSum(a, b)
				var lo, hi float64
				for v, c := range us {
					if v <= int(u) {
						lo += c
					}
					if v >= int(u) {
						hi += c
					}
				}
				want := min(1, 2*min(lo, hi)/all)
				if got := MannWhitney(a, b); !near(got, want, 1e-12) {
					t.Fatalf("%v against %v: p = %v, want %v", a, b, got, want)
				}
			}
			if got, want := SmallestP(n, m), min(1, 2/all); !near(got, want, 1e-12) {
				t.Errorf("SmallestP(%d, %d) = %v, want %v", n, m, got, want)
			}
		}
	}
	if got := SmallestP(6, 6); !near(got, 2.0/924, 1e-12) {
		t.Errorf("SmallestP(6, 6) = %v, want 2/924", got)
	}
}

func TestMannWhitneyEdges(t *testing.T) {
	same := []float64{5, 5, 5, 5, 5, 5}
	if got := MannWhitney(same, same); got != 1 {
		t.Errorf("equal constants: p = %v, want 1", got)
	}
	if got := MannWhitney(nil, same); got != 1 {
		t.Errorf("nothing: p = %v, want 1", got)
	}
	// Just above the limit of the exact count, both ways agree.
	var a, b []float64
	for i := range 25 {
		a = append(a, float64(i))
		b = append(b, float64(i)+7.5)
	}
	exact, approx := MannWhitney(a, b), MannWhitney(append(a, 12.25), append(b, 19.75))
	if exact < approx/2 || exact > approx*2 {
		t.Errorf("exact %v and approximate %v are far apart", exact, approx)
	}
}

func TestHolm(t *testing.T) {
	for _, tt := range []struct{ ps, want []float64 }{
		{nil, []float64{}},
		{[]float64{0.03}, []float64{0.03}},
		{[]float64{0.01, 0.02, 0.03, 0.04, 0.05}, []float64{0.05, 0.08, 0.09, 0.09, 0.09}}, // R: p.adjust(…, "holm")
		{[]float64{0.04, 0.01, 0.03}, []float64{0.06, 0.03, 0.06}},
		{[]float64{0.9, 0.6}, []float64{1, 1}},
	} {
		got := Holm(tt.ps)
		for i := range tt.want {
			if len(got) != len(tt.want) || !near(got[i], tt.want[i], 1e-9) {
				t.Errorf("Holm(%v) = %v, want %v", tt.ps, got, tt.want)
			}
		}
	}
}

// Holm rejects what the step-down procedure rejects: while the k-th smallest p is ≤ level/(n−k+1).
func TestHolmAgainstStepDown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ps := rapid.SliceOfN(rapid.Float64Range(0, 1), 1, 12).Draw(t, "ps")
		level := rapid.Float64Range(0.001, 0.5).Draw(t, "level")
		got := Holm(ps)
		sorted := slices.Sorted(slices.Values(ps))
		cut := -1.0
		for k, p := range sorted {
			if float64(len(ps)-k)*p > level {
				break
			}
			cut = p
		}
		for i, p := range ps {
			if (got[i] <= level) != (p <= cut) {
				t.Fatalf("Holm(%v)[%d] = %v at level %v, but the step-down's last is %v", ps, i, got[i], level, cut)
			}
			if got[i] < p {
				t.Fatalf("Holm(%v)[%d] = %v is smaller than p", ps, i, got[i])
			}
		}
	})
}

func TestCompare(t *testing.T) {
	up := func(base, step float64) (xs []float64) {
		for i := range 6 {
			xs = append(xs, base+float64(i)*step)
		}
		return xs
	}
	got := Compare([]Pair{
		{up(190, 1), up(48, .2)},  // far apart
		{up(105, .1), up(100, 1)}, // significant by ranks, too small an effect
		{up(48, .2), up(190, 1)},  // the other way
	})
	for i, want := range []struct{ a, b bool }{{true, false}, {false, false}, {false, true}} {
		if got[i].A != want.a || got[i].B != want.b || !got[i].CanShow {
			t.Errorf("pair %d: %+v, want A %v, B %v", i, got[i], want.a, want.b)
		}
	}
	if !near(got[0].P, 2.0/924, 1e-12) || !near(got[0].Adjusted, 6.0/924, 1e-12) {
		t.Errorf("p = %v, adjusted %v; want 2/924 and 6/924", got[0].P, got[0].Adjusted)
	}
	three := Compare([]Pair{{[]float64{9, 10, 11}, []float64{1, 2, 3}}})[0]
	if three.A || three.CanShow {
		t.Errorf("three repeats a side can show nothing, got %+v", three)
	}
	if !Better(0.01, 110.0/100-1) || Better(0.01, 0.099) || Better(0.05, 1) {
		t.Error("Better: want exactly 10 % enough, 9.9 % and p = 0.05 not")
	}
}

func TestGini(t *testing.T) {
	for _, tt := range []struct {
		loads []float64
		want  float64
	}{
		{nil, 0}, {[]float64{0, 0}, 0}, {[]float64{7}, 0}, {[]float64{3, 3, 3}, 0},
		{[]float64{0, 0, 0, 1}, 0.75}, {[]float64{1, 3}, 0.25}, {[]float64{1, 2, 3, 4, 5}, 4.0 / 15},
	} {
		if got := Gini(tt.loads); math.Abs(got-tt.want) > 1e-12 {
			t.Errorf("Gini(%v) = %v, want %v", tt.loads, got, tt.want)
		}
	}
}

func TestGiniAgainstPairs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		xs := rapid.SliceOfN(rapid.Float64Range(0, 1000), 1, 20).Draw(t, "loads")
		var diff, sum float64
		for _, x := range xs {
			sum += x
			for _, y := range xs {
				diff += math.Abs(x - y)
			}
		}
		if sum < 1e-6 {
			return
		}
		want := diff / (2 * float64(len(xs)) * sum)
		if got := Gini(xs); math.Abs(got-want) > 1e-9 {
			t.Fatalf("Gini(%v) = %v, want %v", xs, got, want)
		}
	})
}
