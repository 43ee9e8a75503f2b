package placement

import (
	"math"
	"slices"
	"strconv"
	"time"

	"servent/architecture"
	"servent/system"
)

// A function is kept warm by when its calls come: the hybrid histogram policy of Shahrad et al., "Serverless in the Wild"
// (USENIX ATC 2020), §4. Of the times for which nobody called, the head says when an instance must be there at the
// earliest, the tail until when it must stay. The paper has 240 bins of a minute; ours grow by a fourth root of two, so
// that seconds and hours are seen alike.
const (
	mostGaps  = 64   // bins: from 1 s to 18 h
	fewGaps   = 10   // with fewer nothing is known
	agedGaps  = 256  // from so many on, half of them is forgotten
	headShare = 0.05 // §4.2
	tailShare = 0.99
	margin    = 0.1 // on either side
	leastCV   = 2   // coefficient of variation of the bins, below which there is no pattern (§4.2)
)

// arrivals notes that somebody calls, or nobody.
func (t *turn) arrivals(was *system.Arrivals, calls architecture.Calls, called bool) *system.Arrivals {
	switch {
	case calls.Warm <= 0:
		return nil
	case was == nil && !called, len(t.in.Away) > 0: // what their doors are asked is not known
		return was
	case was == nil:
		return &system.Arrivals{}
	case called == was.Quiet.IsZero():
		return was
	case !called:
		return &system.Arrivals{Quiet: t.in.Now, Gaps: was.Gaps}
	}
	return &system.Arrivals{Gaps: counted(was.Gaps, t.quiet(was, calls))}
}

// quiet is for how long nobody has called: nodes say so half of the idle time later.
func (t *turn) quiet(a *system.Arrivals, calls architecture.Calls) time.Duration {
	return t.in.Now.Sub(a.Quiet) + calls.Idle/2
}

// counted adds one time without calls.
func counted(gaps []int, took time.Duration) []int {
	i := min(max(0, int(4*math.Log2(took.Seconds()))), mostGaps-1)
	next := make([]int, max(len(gaps), i+1))
	copy(next, gaps)
	next[i]++
	if total(next) >= agedGaps {
		for j := range next {
			next[j] /= 2
		}
	}
	return next
}

func total(gaps []int) (n int) {
	for _, g := range gaps {
		n += g
	}
	return n
}

// edge is where a bin begins.
func edge(i int) time.Duration {
	return time.Duration(math.Pow(2, float64(i)/4) * float64(time.Second))
}

// expected says when the next call is to be expected, counted from the last one. It is false when too little is known, when
// most times without calls are longer than is to be learnt, or when they have no pattern: then an instance is kept for the idle time, as without.
func expected(a *system.Arrivals, calls architecture.Calls) (from, until time.Duration, ok bool) {
	if a == nil || calls.Warm <= 0 {
		return 0, 0, false
	}
	within := slices.Clone(a.Gaps)
	for i := range within {
		if edge(i) > calls.Warm {
			within = within[:i]
			break
		}
	}
	n := total(within)
	if n < fewGaps || 2*n < total(a.Gaps) || variation(within) < leastCV {
		return 0, 0, false
	}
	seen := 0
	head, tail := -1, 0
	for i, g := range within {
		seen += g
		if head < 0 && float64(seen) >= headShare*float64(n) {
			head = i
		}
		if g > 0 && float64(seen-g) < tailShare*float64(n) {
			tail = i
		}
	}
	from = time.Duration((1 - margin) * float64(edge(head)))
	until = min(time.Duration((1+margin)*float64(edge(tail+1))), calls.Warm)
	return from, until, true
}

// variation is the coefficient of variation of the counts of all bins.
func variation(gaps []int) float64 {
	n := float64(total(gaps))
	if n == 0 {
		return 0
	}
	mean, sum := n/mostGaps, 0.0
	for i := range mostGaps {
		g := 0.0
		if i < len(gaps) {
			g = float64(gaps[i])
		}
		sum += (g - mean) * (g - mean)
	}
	return math.Sqrt(sum/mostGaps) / mean
}

// times is how many are known, in words.
func times(a *system.Arrivals) string { return strconv.Itoa(total(a.Gaps)) + " times" }

func rough(d time.Duration) string { return d.Round(time.Second).String() }
