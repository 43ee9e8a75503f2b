package law

import (
	"math"

	"gonum.org/v1/gonum/optimize"
)

// lowest finds a minimum of f near start by the simplex of Nelder and Mead (Computer Journal 7, 1965), which
// needs no derivative and is deterministic. It starts again where it ended, since a simplex can collapse, and
// ends when a search gains less than the given share.
func lowest(f func([]float64) float64, start []float64, step, share float64) ([]float64, float64) {
	best, low := start, f(start)
	for range 3 {
		result, err := optimize.Minimize(
			optimize.Problem{Func: f}, best,
			&optimize.Settings{FuncEvaluations: 400 * len(start), Converger: &optimize.FunctionConverge{Absolute: 1e-14, Relative: share, Iterations: 10 * len(start)}},
			&optimize.NelderMead{SimplexSize: step},
		)
		if result == nil || err != nil && math.IsNaN(result.F) || !(result.F < low) {
			break
		}
		gained := low - result.F
		best, low = result.X, result.F
		if gained <= 10*share*math.Abs(low) {
			break
		}
	}
	return best, low
}
