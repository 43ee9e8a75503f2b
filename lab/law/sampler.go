package law

import (
	"math"
	"math/bits"
	"slices"
	"time"
)

// Sampler is a distribution of times. It holds no state: a time is made from a number that the caller draws,
// so that the same request takes as long under every architecture. The zero Sampler takes no time.
type Sampler struct {
	kind   kind
	mean   float64 // ns
	mu, sd float64 // of the logarithm, for lognormal
	sorted []time.Duration
}

type kind int

const (
	fixed kind = iota
	exponential
	lognormal
	empirical
)

// Fixed always takes d.
func Fixed(d time.Duration) Sampler { return Sampler{mean: float64(d)} }

// Exponential has the given mean and forgets how long it has taken already.
func Exponential(mean time.Duration) Sampler { return Sampler{kind: exponential, mean: float64(mean)} }

// LogNormal has the given mean and coefficient of variation (standard deviation / mean).
func LogNormal(mean time.Duration, cv float64) Sampler {
	v := math.Log1p(cv * cv)
	return Sampler{kind: lognormal, mean: float64(mean), mu: math.Log(float64(mean)) - v/2, sd: math.Sqrt(v)}
}

// Empirical draws from measured times, between them by straight lines. None take no time.
func Empirical(times []time.Duration) Sampler {
	s := Sampler{kind: empirical, sorted: slices.Sorted(slices.Values(times))}
	if len(times) == 0 {
		return Sampler{}
	}
	for i, d := range s.sorted { // the lines' mean: both ends count half
		weight := 1.0
		if len(s.sorted) > 1 && (i == 0 || i == len(s.sorted)-1) {
			weight = 0.5
		}
		s.mean += weight * float64(d)
	}
	s.mean /= math.Max(1, float64(len(s.sorted)-1))
	return s
}

// Mean of the distribution.
func (s Sampler) Mean() time.Duration { return time.Duration(math.Round(s.mean)) }

// Scaled takes k times as long.
func (s Sampler) Scaled(k float64) Sampler {
	s.mean *= k
	s.mu += math.Log(k)
	s.sorted = slices.Clone(s.sorted)
	for i := range s.sorted {
		s.sorted[i] = time.Duration(math.Round(k * float64(s.sorted[i])))
	}
	return s
}

// At is the time that a share u of all times do not exceed, 0 < u < 1.
func (s Sampler) At(u float64) time.Duration {
	var ns float64
	switch s.kind {
	case exponential:
		ns = -s.mean * math.Log1p(-u)
	case lognormal:
		ns = math.Exp(s.mu + float64(s.sd*math.Sqrt2*math.Erfinv(2*u-1)))
	case empirical:
		h := u * float64(len(s.sorted)-1)
		i := int(h)
		if i+1 >= len(s.sorted) {
			return s.sorted[len(s.sorted)-1]
		}
		ns = float64(s.sorted[i]) + float64((h-float64(i))*float64(s.sorted[i+1]-s.sorted[i]))
	default:
		ns = s.mean
	}
	return time.Duration(math.Min(math.Round(ns), math.MaxInt64/4))
}

// purpose of a draw: each has its own numbers, so that one draw more here shifts none there.
type purpose uint64

const (
	drawService purpose = iota + 1
	drawKey
	drawEntry
	drawPick
	drawArrival
	drawThink
)

// draw is the number that belongs to a request and a purpose under a seed: common random numbers (Law and Kelton,
// Simulation Modeling and Analysis, §11.2). Two rounds of the finaliser of splitmix64 (Steele et al., OOPSLA
// 2014).
func draw(seed, request uint64, p purpose) uint64 {
	return mix(mix(seed+uint64(p)*0x9e3779b97f4a7c15) ^ request*0xd1342543de82ef95)
}

func mix(x uint64) uint64 {
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// unit is a number between 0 and 1, never one of them.
func unit(x uint64) float64 { return (float64(x>>12) + 0.5) / (1 << 52) }

// below is a whole number under n without a division (Lemire, ACM TOMACS 29(1), 2019; a bias of n/2⁶⁴ is left).
func below(x uint64, n int) int {
	hi, _ := bits.Mul64(x, uint64(n))
	return int(hi)
}
