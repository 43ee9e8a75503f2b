package law

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Model is a law that throughput may follow as nodes are added.
type Model string

const (
	Capped Model = "linear-with-cap" // min(λN, C): a hard bottleneck
	Amdahl Model = "amdahl"          // λN/(1+α(N−1)): a serial share α (Amdahl, AFIPS 1967)
	USL    Model = "usl"             // λN/(1+α(N−1)+βN(N−1)): and β for keeping each other informed (Gunther, Guerrilla Capacity Planning, §4)
)

// Models in the order of how little they suppose; of two that describe equally well the earlier is taken.
var Models = []Model{Capped, Amdahl, USL}

// Sample is one measured throughput. Repeats are further samples with the same N.
type Sample struct {
	N int
	X float64
}

// Params of a law. A field that the model does not have is 0.
type Params struct {
	Lambda float64 // throughput of the first node
	Alpha  float64 // contention: share of the work that only one can do at a time, 0…1
	Beta   float64 // coherency: cost of each pair, ≥ 0
	Knee   float64 // N from which it is flat; +Inf: no cap was seen
}

// Cap is the throughput that is never passed: C, λ/α, or the USL's peak; +Inf if there is none.
func (p Params) Cap(m Model) float64 {
	switch {
	case m == Capped:
		return p.Lambda * p.Knee
	case p.Beta > 0:
		peak := math.Max(1, math.Sqrt((1-p.Alpha)/p.Beta)) // Gunther: N* = √((1−σ)/κ)
		return p.at(m, peak)
	default:
		return p.Lambda / p.Alpha
	}
}

func (p Params) at(m Model, n float64) float64 { return p.Lambda * p.shape(m, n) }

// shape is the law relative to one node's throughput λ.
func (p Params) shape(m Model, n float64) float64 {
	if m == Capped {
		return math.Min(n, p.Knee)
	}
	return n / (1 + p.Alpha*(n-1) + p.Beta*n*(n-1))
}

// Fit is one law fitted to measured throughput.
type Fit struct {
	Model    Model
	Params   Params
	AICc     float64 // NaN: undefined for so few samples
	RSS      float64 // of log residuals
	Smallest int     // N that was measured
	Largest  int
	Why      string // not empty: it could not be chosen, and why
	Low      Params // 95 % by bootstrap, each parameter alone
	High     Params
	ensemble []Params // bootstrapped, for bands of the curve
}

// Description is what a set of measured points says of the law behind them.
type Description struct {
	Best Fit
	Fits []Fit  // every model, in the order of Models
	Also string // what else must be said: no AICc, or another model describes it as well
}

// ErrTooFew says that no law can be told from the samples.
var ErrTooFew = errors.New("too few node counts")

// Describe fits every model to at least three different node counts: through two points goes every law, so
// two cannot establish that anything is linear. Least squares on the logarithms, since throughput is
// measured to a share of itself; the best is chosen by AICc (Hurvich and Tsai, Biometrika 76, 1989; Burnham
// and Anderson, Model Selection, §2.4) among the models with fewer parameters than there are node counts,
// because one with as many goes through all of them and cannot be wrong. Where AICc is undefined (n ≤ k+1) the model that
// supposes least is shown, and Also says so. Intervals are percentiles of residual bootstrap (Efron and
// Tibshirani, An Introduction to the Bootstrap, ch. 9) with the given seed.
//
// A law describes what was measured. It is no prediction: see [Fit.At].
func Describe(samples []Sample, seed uint64) (Description, error) {
	d, err := tidy(samples)
	if err != nil {
		return Description{}, err
	}
	var out Description
	for _, m := range Models {
		out.Fits = append(out.Fits, d.fit(m))
	}
	out.choose(d)
	for i := range out.Fits {
		out.Fits[i].bootstrap(d, seed)
		if out.Fits[i].Model == out.Best.Model {
			out.Best = out.Fits[i]
		}
	}
	return out, nil
}

func (out *Description) choose(d data) {
	best := -1
	for i, f := range out.Fits {
		if f.Why != "" || math.IsNaN(f.AICc) {
			continue
		}
		// Equal but for rounding is equal: the one that supposes less stays.
		if best < 0 || f.AICc < out.Fits[best].AICc-1e-6 {
			best = i
		}
	}
	if best < 0 {
		out.Best = out.Fits[0]
		out.Also = fmt.Sprintf("AICc is undefined for %d samples: the simplest model is shown, it was not chosen", len(d.n))
		return
	}
	out.Best = out.Fits[best]
	for i, f := range out.Fits {
		// Burnham and Anderson, §2.6: models within 2 of the best have substantial support.
		if i != best && f.Why == "" && f.AICc-out.Best.AICc < 2 {
			if out.Also != "" {
				out.Also += "; "
			}
			out.Also += fmt.Sprintf("%s describes it as well", f.Model)
		}
	}
}

// data are samples by N.
type data struct {
	n, logX []float64 // of each sample
	counts  []float64 // different N, ascending
}

func (d data) largest() float64 { return d.counts[len(d.counts)-1] }

func tidy(samples []Sample) (data, error) {
	var d data
	s := slices.Clone(samples)
	slices.SortStableFunc(s, func(a, b Sample) int { return a.N - b.N })
	for _, p := range s {
		if p.N < 1 || !(p.X > 0) || math.IsInf(p.X, 0) {
			return data{}, fmt.Errorf("fit a law: throughput of %v at %d nodes; want a positive figure at 1 or more nodes", p.X, p.N)
		}
		if n := float64(p.N); len(d.counts) == 0 || d.counts[len(d.counts)-1] != n {
			d.counts = append(d.counts, n)
		}
		d.n = append(d.n, float64(p.N))
		d.logX = append(d.logX, math.Log(p.X))
	}
	if len(d.counts) < 3 {
		return data{}, fmt.Errorf("fit a law: measured at %d different numbers of nodes, want 3 or more: %w", len(d.counts), ErrTooFew)
	}
	return d, nil
}

// floorSD is the least standard deviation that AICc believes: no throughput is known to better than 0.1 %, and two
// models that both miss by less are equally good. Without it exact data would be told apart by rounding.
const floorSD = 1e-3

func curveParams(m Model) int {
	if m == USL {
		return 3
	}
	return 2
}

func (d data) fit(m Model) Fit {
	f := Fit{Model: m, Smallest: int(d.counts[0]), Largest: int(d.largest())}
	f.Params, f.RSS = d.least(m, d.logX, nil)
	n := float64(len(d.n))
	k := float64(curveParams(m) + 1) // and the variance
	f.AICc = math.NaN()
	if n-k-1 > 0 {
		f.AICc = n*math.Log(math.Max(f.RSS/n, floorSD*floorSD)) + 2*k + 2*k*(k+1)/(n-k-1)
	}
	if curveParams(m) >= len(d.counts) {
		f.Why = fmt.Sprintf("%s has %d parameters: it goes through any %d points", m, curveParams(m), len(d.counts))
	} else if math.IsNaN(f.AICc) {
		f.Why = fmt.Sprintf("AICc of %s is undefined for %d samples, it needs %d", m, len(d.n), int(k)+2)
	}
	return f
}

// least minimises the sum of squared log residuals of a model; from (nil: anywhere) is where to look first.
func (d data) least(m Model, logX []float64, from *Params) (Params, float64) {
	g := d.grouped(logX)
	switch m {
	case Capped:
		return g.leastCapped()
	case Amdahl:
		return g.leastAmdahl(from)
	default:
		return g.leastUSL(from)
	}
}

// groups are the logarithms of the samples of each N by number and mean: a law has one value for each N, so
// nothing else of them decides. within is what no law can explain.
type groups struct {
	n, logN, mean, count []float64
	within               float64
}

func (d data) grouped(logX []float64) groups {
	size := len(d.counts)
	all := make([]float64, 3*size)
	g := groups{n: d.counts, logN: all[:size], mean: all[size : 2*size], count: all[2*size:]}
	at := 0
	for i, n := range d.n { // ascending, like counts
		if n != g.n[at] {
			at++
		}
		gap := logX[i] - g.mean[at]
		g.count[at]++
		g.mean[at] += gap / g.count[at] // Welford, Technometrics 4(3), 1962
		g.within += gap * (logX[i] - g.mean[at])
	}
	for i, n := range g.n {
		g.logN[i] = math.Log(n)
	}
	return g
}

func (g groups) largest() float64 { return g.n[len(g.n)-1] }

// scale returns the best λ for a shape and what is left: on logarithms λ is a mean, and the rest a variance.
func (g groups) scale(m Model, p Params) (Params, float64) {
	var mean, count float64
	rss := g.within
	for i, n := range g.n {
		r := g.mean[i] - math.Log(p.shape(m, n))
		gap := r - mean
		count += g.count[i]
		mean += gap * g.count[i] / count
		rss += g.count[i] * gap * (r - mean)
	}
	p.Lambda = math.Exp(mean)
	return p, rss
}

// leastCapped is exact. Between two node counts the rising and the flat samples are independent means, whose
// knee holds if it falls between the two; else the best knee of that stretch is at one of its ends.
func (g groups) leastCapped() (Params, float64) {
	best, rss := Params{}, math.Inf(1)
	try := func(knee float64) {
		if p, r := g.scale(Capped, Params{Knee: knee}); r < rss*(1-1e-12) {
			best, rss = p, r
		}
	}
	// From the right, so that a cap is only seen where it helps.
	for i := len(g.n) - 1; i > 0; i-- {
		try(g.n[i])
		var rise, rising, flat, flats float64
		for j := range g.n {
			if j < i {
				rise += g.count[j] * (g.mean[j] - g.logN[j])
				rising += g.count[j]
			} else {
				flat += g.count[j] * g.mean[j]
				flats += g.count[j]
			}
		}
		if knee := math.Exp(flat/flats - rise/rising); knee > g.n[i-1] && knee < g.n[i] {
			try(knee)
		}
	}
	try(g.n[0])
	if best.Knee >= g.largest() {
		best.Knee = math.Inf(1)
	}
	return best, rss
}

// leastAmdahl looks along √α, coarsely and then by golden section: α is often 0 and seldom large.
func (g groups) leastAmdahl(from *Params) (Params, float64) {
	f := func(a float64) float64 {
		_, r := g.scale(Amdahl, Params{Alpha: a * a})
		return r
	}
	steps, width := 64, 1e-10
	if from != nil { // a bootstrap needs no more digits than its percentiles have
		steps, width = 16, 1e-6
	}
	at, low := 0, math.Inf(1)
	for i := range steps + 1 {
		if r := f(float64(i) / float64(steps)); r < low {
			at, low = i, r
		}
	}
	a := golden(f, math.Max(0, float64(at-1)/float64(steps)), math.Min(1, float64(at+1)/float64(steps)), width)
	if f(0) <= f(a) {
		a = 0
	}
	return g.scale(Amdahl, Params{Alpha: a * a})
}

// golden is the minimum of f between a and b by golden section, to within width.
func golden(f func(float64) float64, a, b, width float64) float64 {
	const ratio = 0.6180339887498949
	x, y := b-ratio*(b-a), a+ratio*(b-a)
	fx, fy := f(x), f(y)
	for b-a > width {
		if fx <= fy {
			b, y, fy = y, x, fx
			x = b - ratio*(b-a)
			fx = f(x)
		} else {
			a, x, fx = x, y, fy
			y = a + ratio*(b-a)
			fy = f(y)
		}
	}
	return (a + b) / 2
}

// leastUSL starts where Amdahl's law is best and at three more places; the surface has few hollows.
func (g groups) leastUSL(from *Params) (Params, float64) {
	if from != nil { // a bootstrap's samples are near the ones that it knows
		return g.descend(*from)
	}
	amdahl, _ := g.leastAmdahl(nil)
	last := g.largest()
	best, rss := g.descend(amdahl)
	for _, start := range []Params{{Beta: 1 / (last * last)}, {Alpha: 0.01, Beta: 1 / last}, {Alpha: 0.3, Beta: 0.1 / (last * last)}} {
		if p, r := g.descend(start); r < rss {
			best, rss = p, r
		}
	}
	return best, rss
}

// descend follows Levenberg and Marquardt (SIAM J. Appl. Math. 11(2), 1963) from a USL to one nearby that leaves
// least, within 0 ≤ α ≤ 1 and 0 ≤ β: what would leave these bounds stops at them, and what pushes against one
// is held there. λ is eliminated at every step (variable projection: Golub and Pereyra, SIAM J. Numer. Anal.
// 10(2), 1973), which on logarithms means that residuals and slopes are taken about their means.
func (g groups) descend(p Params) (Params, float64) {
	p, rss := g.scale(USL, p)
	damping := 1e-3
	for range 200 {
		h, slope := g.slopes(p)
		freeA := !(p.Alpha <= 0 && slope[0] >= 0) && !(p.Alpha >= 1 && slope[0] <= 0)
		freeB := !(p.Beta <= 0 && slope[1] >= 0)
		a, b := h[0]*(1+damping), h[2]*(1+damping)
		next := p
		switch det := a*b - h[1]*h[1]; {
		case freeA && freeB && det > 0:
			next.Alpha -= (b*slope[0] - h[1]*slope[1]) / det
			next.Beta -= (a*slope[1] - h[1]*slope[0]) / det
		case freeA && a > 0:
			next.Alpha -= slope[0] / a
		case freeB && b > 0:
			next.Beta -= slope[1] / b
		default:
			return p, rss
		}
		next.Alpha, next.Beta = math.Min(math.Max(next.Alpha, 0), 1), math.Max(next.Beta, 0)
		next, left := g.scale(USL, next)
		if !(left < rss) {
			if damping *= 8; damping > 1e12 {
				break
			}
			continue
		}
		gained := rss - left
		p, rss, damping = next, left, damping/8
		if gained <= 1e-13*rss {
			break
		}
	}
	return p, rss
}

// slopes are those of half the squares left by a USL towards α and β, with the three different entries of the
// Gauss–Newton matrix.
func (g groups) slopes(p Params) (h [3]float64, slope [2]float64) {
	var count, r, a, b float64 // weighted means so far, by Welford
	for i, n := range g.n {
		below := 1 + p.Alpha*(n-1) + p.Beta*n*(n-1)
		w := g.count[i]
		count += w
		dr := g.mean[i] - g.logN[i] + math.Log(below) - r
		da, db := (n-1)/below-a, n*(n-1)/below-b
		r, a, b = r+dr*w/count, a+da*w/count, b+db*w/count
		w *= 1 - w/count // the part of the product of two gaps that is left once the means have moved
		h[0], h[1], h[2] = h[0]+w*da*da, h[1]+w*da*db, h[2]+w*db*db
		slope[0], slope[1] = slope[0]+w*dr*da, slope[1]+w*dr*db
	}
	return h, slope
}
