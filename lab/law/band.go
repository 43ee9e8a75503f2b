package law

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
)

// replicates of a bootstrap: percentiles of 2.5 and 97.5 stand on 25 values at each end.
const replicates = 1000

// bootstrap refits the model to its own curve with its residuals drawn anew. Residuals are centred and
// widened by √(n/(n−p)), since a fit makes them smaller than what it was drawn from. Where there is nothing
// left to draw from (as many parameters as samples) the band is the curve itself.
func (f *Fit) bootstrap(d data, seed uint64) {
	rnd := rand.New(rand.NewPCG(seed, uint64(curveParams(f.Model))<<32|uint64(len(f.Model))))
	n := len(d.n)
	fitted, left := make([]float64, n), make([]float64, n)
	mean := 0.0
	for i := range d.n {
		fitted[i] = math.Log(f.Params.at(f.Model, d.n[i]))
		left[i] = d.logX[i] - fitted[i]
		mean += left[i] / float64(n)
	}
	widen := math.Sqrt(float64(n) / float64(max(1, n-curveParams(f.Model))))
	again := make([]float64, n)
	f.ensemble = make([]Params, replicates)
	for r := range f.ensemble {
		for i := range again {
			again[i] = fitted[i] + (left[rnd.IntN(n)]-mean)*widen
		}
		f.ensemble[r], _ = d.least(f.Model, again, &f.Params)
	}
}

// band is the middle 95 % of a figure over the bootstrapped parameters.
func (f *Fit) band(of func(Params) float64) (low, high float64) {
	xs := make([]float64, len(f.ensemble))
	for i, p := range f.ensemble {
		xs[i] = of(p)
	}
	slices.Sort(xs)
	return percentile(xs, (1-Level)/2), percentile(xs, (1+Level)/2)
}

// percentile is a value that occurs, so that +Inf among them does no harm.
func percentile(s []float64, p float64) float64 {
	return s[min(len(s)-1, int(math.Round(p*float64(len(s)-1))))]
}

// Value of a curve with its 95 % band.
type Value struct {
	N               int
	Rate, Low, High float64
}

// ErrTooFar says that a curve was asked for where nothing was measured.
var ErrTooFar = errors.New("too far from what was measured")

// At is the curve at n nodes. It is refused past twice the largest measured N. A USL fitted to N ≤ 8 of a
// system that grew linearly foretold 136/s [72, 10778] at N=256, where it made 11,319. Farther points come
// from [Validation.Extrapolate].
func (f *Fit) At(n int) (Value, error) {
	if n < 1 || n > 2*f.Largest {
		return Value{}, fmt.Errorf("%s at %d nodes, measured up to %d: %w", f.Model, n, f.Largest, ErrTooFar)
	}
	x := float64(n)
	v := Value{N: n, Rate: f.Params.at(f.Model, x)}
	v.Low, v.High = f.band(func(p Params) float64 { return p.at(f.Model, x) })
	// The percentiles of a curve that is often on an edge need not hold the estimate.
	v.Low, v.High = math.Min(v.Low, v.Rate), math.Max(v.High, v.Rate)
	return v, nil
}

// Efficiency is the throughput of one node at the largest measured N as a share of what it is at the smallest,
// with its 95 % band.
func (f *Fit) Efficiency() (share, low, high float64) {
	first, last := float64(f.Smallest), float64(f.Largest)
	of := func(p Params) float64 { return p.shape(f.Model, last) / last * first / p.shape(f.Model, first) }
	low, high = f.band(of)
	share = of(f.Params)
	return share, math.Min(low, share), math.Max(high, share)
}

// Linear says whether the word may be used: the 95 % band of the efficiency at the largest measured N lies
// above 1 − [Effect], so that a loss worth the name is excluded. That a loss was not shown would not be enough.
func (f *Fit) Linear() bool {
	_, low, _ := f.Efficiency()
	return low >= 1-Effect
}

// Figure is one parameter of a law by name, with its 95 % band.
type Figure struct {
	Name             string // lambda; cap, knee; alpha, beta
	Value, Low, High float64
}

// Figures are the finite parameters of a law. No cap and no knee are left out; a band's end that is infinite
// is the greatest float64, as JSON knows no infinity.
func (f *Fit) Figures() []Figure {
	var out []Figure
	add := func(name string, of func(Params) float64) {
		v := of(f.Params)
		if math.IsInf(v, 0) {
			return
		}
		low, high := f.band(of)
		out = append(out, Figure{name, v, math.Min(math.Min(low, v), math.MaxFloat64), math.Min(math.Max(high, v), math.MaxFloat64)})
	}
	add("lambda", func(p Params) float64 { return p.Lambda })
	if f.Model == Capped {
		add("cap", func(p Params) float64 { return p.Cap(Capped) })
		add("knee", func(p Params) float64 { return p.Knee })
		return out
	}
	add("alpha", func(p Params) float64 { return p.Alpha })
	if f.Model == USL {
		add("beta", func(p Params) float64 { return p.Beta })
	}
	return out
}

// Text is the law in words.
func (f *Fit) Text() string {
	share, low, _ := f.Efficiency()
	p := f.Params
	switch {
	case f.Linear():
		return fmt.Sprintf("grows linearly to N=%d, the largest measured: %s of ideal [%s or more]", f.Largest, percent(share), percent(low))
	case f.Model == Capped && math.IsInf(p.Knee, 1):
		return fmt.Sprintf("no cap seen to N=%d; a loss of %s or more is not excluded: %s of ideal at least", f.Largest, percent(Effect), percent(low))
	case f.Model == Capped && p.Knee <= float64(f.Smallest):
		return fmt.Sprintf("flat at %s/s", figure(p.Cap(Capped)))
	case f.Model == Capped:
		return fmt.Sprintf("grows linearly to N=%s, then flat at %s/s", figure(p.Knee), figure(p.Cap(Capped)))
	case p.Beta > 0:
		peak := math.Sqrt((1 - p.Alpha) / p.Beta)
		if peak <= 1 {
			return fmt.Sprintf("every node added costs throughput: contention %s, coherency %s", percent(p.Alpha), percent(p.Beta))
		}
		where := "greatest"
		if peak > float64(2*f.Largest) {
			return fmt.Sprintf("grows ever slower: contention %s, coherency %s; its peak lies beyond twice the largest measured N", percent(p.Alpha), percent(p.Beta))
		}
		if peak > float64(f.Largest) {
			where = "would be greatest"
		}
		return fmt.Sprintf("grows ever slower and falls in the end: contention %s, coherency %s; %s at N=%.0f with %s/s",
			percent(p.Alpha), percent(p.Beta), where, peak, figure(p.Cap(f.Model)))
	case p.Alpha > 0:
		return fmt.Sprintf("grows ever slower: %s of the work is serial, never above %s/s", percent(p.Alpha), figure(p.Cap(f.Model)))
	default:
		return fmt.Sprintf("no serial share seen to N=%d; a loss of %s or more is not excluded: %s of ideal at least", f.Largest, percent(Effect), percent(low))
	}
}

func percent(share float64) string { return figure(100*share) + " %" }
