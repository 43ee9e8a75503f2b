package law

import (
	"math"
	"slices"
)

// What one variant must show to be called better than another.
const (
	Significance = 0.05 // adjusted p below this
	Effect       = 0.10 // and medians apart by at least this share
)

// exactUpTo is the greatest n+m whose counts of arrangements are whole numbers in a float64:
// C(50, 25) ≈ 1.3·10^14 < 2^53.
const exactUpTo = 50

// MannWhitney is the two-sided p of the Mann–Whitney U test (Mann and Whitney, Ann. Math. Stat. 18, 1947):
// how likely are samples at least as far apart, when both come from one distribution. Without ties and for
// n+m ≤ 50 it is exact, twice the smaller tail as in R's wilcox.test; otherwise the normal approximation
// with continuity and tie correction (Lehmann, Nonparametrics, §1.4), also as in R. A sample without values
// shows nothing: p is 1.
//
// Few repeats limit what p can say, however far apart they are: see [SmallestP].
func MannWhitney(a, b []float64) float64 {
	n, m := len(a), len(b)
	if n == 0 || m == 0 {
		return 1
	}
	u, ties := rankSum(a, b)
	if ties == 0 && n+m <= exactUpTo {
		counts := arrangements(n, m)
		lo := min(int(u), n*m-int(u))
		var tail, all float64
		for i, c := range counts {
			all += c
			if i <= lo {
				tail += c
			}
		}
		return min(1, 2*tail/all)
	}
	fn, fm, all := float64(n), float64(m), float64(n+m)
	sigma := math.Sqrt(fn * fm / 12 * (all + 1 - ties/(all*(all-1))))
	if sigma == 0 {
		return 1 // all values are equal
	}
	z := math.Abs(u-fn*fm/2) - 0.5
	return min(1, math.Erfc(max(0, z)/sigma/math.Sqrt2))
}

// SmallestP is the smallest two-sided p that n against m values can show: 2/C(n+m, n), when all of one lie
// above all of the other. It is 2/924 = 0.0022 for six against six, 2/252 = 0.0079 for five against five and
// 0.1 for three against three, which can never be significant. Holm's correction multiplies the smallest by
// the number of pairs: with six repeats up to 23 pairs can still be told apart at 0.05.
func SmallestP(n, m int) float64 {
	p := 2.0
	for i := 1; i <= n; i++ {
		p *= float64(i) / float64(m+i)
	}
	return min(1, p)
}

// rankSum is U of a, the number of pairs in which a's value is the greater with a draw as ½, and Σ(t³−t)
// over groups of t equal values.
func rankSum(a, b []float64) (u, ties float64) {
	all := slices.Concat(a, b)
	slices.Sort(all)
	rank := func(x float64) float64 {
		lo, _ := slices.BinarySearch(all, x)
		hi := lo
		for hi < len(all) && all[hi] == x {
			hi++
		}
		return float64(lo+hi+1) / 2 // the mean of lo+1 … hi
	}
	for _, x := range a {
		u += rank(x)
	}
	n := float64(len(a))
	u -= n * (n + 1) / 2
	for i := 0; i < len(all); {
		j := i
		for j < len(all) && all[j] == all[i] {
			j++
		}
		t := float64(j - i)
		ties += t*t*t - t
		i = j
	}
	return u, ties
}

// arrangements counts, for each U, the orders of n and m values that have it: the coefficients of the
// Gaussian binomial (n+m over n), each factor (1−q^(m+i))/(1−q^i) in turn.
func arrangements(n, m int) []float64 {
	c := make([]float64, n*m+1)
	c[0] = 1
	for i := 1; i <= n; i++ {
		for u := n * m; u >= m+i; u-- {
			c[u] -= c[u-m-i]
		}
		for u := i; u <= n*m; u++ {
			c[u] += c[u-i]
		}
	}
	return c
}

// Holm corrects p values of one family for their number, in the order given: the k-th smallest of n is
// multiplied by n−k+1, and none may be smaller than one before it (Holm, Scand. J. Statist. 6, 1979). The
// chance that any true "no difference" is denied stays below the level.
func Holm(ps []float64) []float64 {
	order := make([]int, len(ps))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int {
		switch {
		case ps[i] < ps[j]:
			return -1
		case ps[i] > ps[j]:
			return 1
		}
		return 0
	})
	adjusted := make([]float64, len(ps))
	worst := 0.0
	for k, i := range order {
		worst = max(worst, min(1, float64(len(ps)-k)*ps[i]))
		adjusted[i] = worst
	}
	return adjusted
}

// Pair is two samples of the same figure, of which more is better.
type Pair struct{ A, B []float64 }

// Tested is what a comparison of a pair showed.
type Tested struct {
	Effect   float64 // median(A)/median(B) − 1
	P        float64 // Mann–Whitney, two-sided
	Adjusted float64 // by Holm over all pairs of the comparison
	A, B     bool    // this one is better
	CanShow  bool    // so many values could have shown a difference at all
}

// Compare tests all pairs of one family. One side is better when its adjusted p is below [Significance] and
// its median at least [Effect] above the other's; anything else is no difference shown, which is not the
// same as no difference.
func Compare(pairs []Pair) []Tested {
	ps := make([]float64, len(pairs))
	for i, p := range pairs {
		ps[i] = MannWhitney(p.A, p.B)
	}
	tested := make([]Tested, len(pairs))
	for i, adjusted := range Holm(ps) {
		a, b := Median(pairs[i].A).Median, Median(pairs[i].B).Median
		tested[i] = Tested{
			Effect: a/b - 1, P: ps[i], Adjusted: adjusted,
			A:       Better(adjusted, a/b-1),
			B:       Better(adjusted, b/a-1),
			CanShow: SmallestP(len(pairs[i].A), len(pairs[i].B))*float64(len(pairs)) < Significance,
		}
	}
	return tested
}

// Better says whether an effect may be called one. The rounding of a share that is exactly [Effect] does not
// count against it.
func Better(adjusted, effect float64) bool {
	return adjusted < Significance && effect >= Effect-1e-12
}
