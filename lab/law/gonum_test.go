package law

import (
	"math"
	"testing"

	"gonum.org/v1/gonum/optimize"
	"pgregory.net/rapid"
)

// lowest is the judge of our own search: gonum's simplex (Nelder and Mead, Computer Journal 7, 1965), started again
// where it ended, since a simplex can collapse.
func lowest(f func([]float64) float64, start []float64, step float64) ([]float64, float64) {
	best, low := start, f(start)
	for range 5 {
		result, err := optimize.Minimize(
			optimize.Problem{Func: f}, best,
			&optimize.Settings{FuncEvaluations: 1000, Converger: &optimize.FunctionConverge{Absolute: 1e-16, Relative: 1e-12, Iterations: 40}},
			&optimize.NelderMead{SimplexSize: step},
		)
		if result == nil || err != nil && math.IsNaN(result.F) || !(result.F < low) {
			break
		}
		best, low = result.X, result.F
	}
	return best, low
}

// Our search for α and β leaves no more than gonum's from several starts.
func TestUSLAgainstGonum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s []Sample
		truth := Params{Lambda: 50, Alpha: rapid.Float64Range(0, 0.5).Draw(t, "alpha"), Beta: rapid.Float64Range(0, 0.05).Draw(t, "beta")}
		for _, n := range powers[:rapid.IntRange(3, 6).Draw(t, "counts")] {
			for range rapid.IntRange(1, 3).Draw(t, "repeats") {
				s = append(s, Sample{n, truth.at(USL, float64(n)) * rapid.Float64Range(0.6, 1.4).Draw(t, "noise")})
			}
		}
		d, err := tidy(s)
		if err != nil {
			t.Fatal(err)
		}
		params := func(x []float64) Params { return Params{Alpha: min(1, x[0]*x[0]), Beta: x[1] * x[1]} }
		f := func(x []float64) float64 { _, r := plain(d, USL, params(x)); return r }
		got, rss := d.least(USL, d.logX, nil)
		for _, start := range [][]float64{{0.1, 0.01}, {0.7, 0.001}, {0.01, 0.2}} {
			if x, r := lowest(f, start, 0.05); r < rss-1e-9 {
				t.Fatalf("gonum leaves %v with %+v, we %v with %+v", r, params(x), rss, got)
			}
		}
		if again, r := d.least(USL, d.logX, &got); r > rss+1e-12 {
			t.Fatalf("from its own result %+v the search went to %+v", got, again)
		}
	})
}
