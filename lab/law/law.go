// Package law says what may be concluded from measured figures: medians with intervals, whether one variant
// is better than another, which law throughput follows as nodes are added, what queueing theory expects, and
// what a calibrated queueing simulation predicts. All of it is pure: the same input and seed give the same
// answer. It reads no clock and no file, and knows nothing of variants, services or reports.
//
// Start at [Median] and [Compare] for measured figures, at [Describe] for laws, at [Expect] for theory and at
// [Simulate] for predictions.
package law

import (
	"fmt"
	"math"
	"slices"
)

// Level is the confidence of every interval here.
const Level = 0.95

// Interval is a median with a distribution-free confidence interval.
type Interval struct {
	Median   float64
	Low      float64
	High     float64
	Coverage float64 // probability that the interval holds the true median; below Level for fewer than 6 values
	N        int     // values it was made from
}

// Sure says whether the interval reaches [Level].
func (i Interval) Sure() bool { return i.Coverage >= Level }

// Text is the interval in words: 48 [47, 49].
func (i Interval) Text() string {
	s := fmt.Sprintf("%s [%s, %s]", figure(i.Median), figure(i.Low), figure(i.High))
	if !i.Sure() {
		s += fmt.Sprintf(" (range of %d values, %.0f %% sure)", i.N, math.Floor(100*i.Coverage))
	}
	return s
}

// Median takes the l-th smallest and l-th largest value as its interval, with the greatest l whose coverage
// is still at least [Level]. The number of values below the true median is binomial with p = ½, so the
// coverage is 1 − 2·P(Bin(n, ½) < l) whatever the distribution is; ties only raise it (David and Nagaraja,
// Order Statistics, 3rd ed., §7.1; benchstat's benchmath does the same). Fewer than six values cannot reach
// 95 %: five reach 1 − 2/32 = 93.75 % at most. Then the interval is their range and Coverage says so. No
// values give NaN with no coverage.
func Median(xs []float64) Interval {
	n := len(xs)
	if n == 0 {
		return Interval{Median: math.NaN(), Low: math.NaN(), High: math.NaN()}
	}
	s := slices.Sorted(slices.Values(xs))
	i := Interval{Median: middle(s), Low: s[0], High: s[n-1], Coverage: 1 - 2*math.Exp2(-float64(n)), N: n}
	below := math.Exp2(-float64(n)) // P(B ≤ l−1)
	term := below
	for l := 2; 2*l <= n; l++ {
		term *= float64(n-l+2) / float64(l-1) // P(B = l−1)
		below += term
		if 1-2*below < Level {
			break
		}
		i.Low, i.High, i.Coverage = s[l-1], s[n-l], 1-2*below
	}
	return i
}

// middle is the median of sorted values.
func middle(s []float64) float64 {
	n := len(s)
	if n == 0 {
		return math.NaN()
	}
	return (s[(n-1)/2] + s[n/2]) / 2
}

// quantile of sorted values, between them by straight lines (type 7 of Hyndman and Fan, The American
// Statistician 50(4), 1996).
func quantile(s []float64, p float64) float64 {
	h := p * float64(len(s)-1)
	lo := int(h)
	if lo+1 >= len(s) {
		return s[len(s)-1]
	}
	return s[lo] + (h-float64(lo))*(s[lo+1]-s[lo])
}

// Gini is how unevenly loads are spread: 0 when all are equal, (n−1)/n when one bears everything. It is half
// the mean absolute difference of two loads drawn at random, relative to their mean (Gini 1912). No load, or
// no loads, is even.
func Gini(loads []float64) float64 {
	s := slices.Sorted(slices.Values(loads))
	n := float64(len(s))
	var sum, weighted float64
	for i, x := range s {
		sum += x
		weighted += (2*float64(i+1) - n - 1) * x // Σ_{j<k}(x_k − x_j), x_i's part
	}
	if sum == 0 {
		return 0
	}
	return weighted / (n * sum)
}

// figure writes a number for people: three significant digits, whole from 100 on.
func figure(x float64) string {
	if math.Abs(x) >= 100 {
		return fmt.Sprintf("%.0f", x)
	}
	return fmt.Sprintf("%.3g", x)
}
