package law

import (
	"errors"
	"fmt"
	"math"
)

// Queue is an open queue in equilibrium, in seconds. Arrivals are Poisson, served first come first served.
type Queue struct {
	Utilisation float64 // share of the workers' time, ρ
	Waits       float64 // probability of having to wait at all
	Wait        float64 // mean, before service
	Response    float64 // mean, with service
	Length      float64 // mean number waiting, by Little's law (Operations Research 9(3), 1961)

	wait func(t float64) float64 // P(W ≤ t)
}

// ErrOverloaded says that a queue has no equilibrium: it grows as long as the load lasts.
var ErrOverloaded = errors.New("overloaded")

// WaitQuantile is the waiting time that a share p of all arrivals does not exceed.
func (q Queue) WaitQuantile(p float64) float64 {
	if p <= 1-q.Waits {
		return 0
	}
	high := q.Wait + 1e-12
	for q.wait(high) < p && !math.IsInf(high, 1) {
		high *= 2
	}
	low := 0.0
	for range 200 {
		mid := (low + high) / 2
		if mid == low || mid == high {
			break
		}
		if q.wait(mid) < p {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

func stable(lambda, mu float64, c int) error {
	if !(lambda > 0) || !(mu > 0) || c < 1 || math.IsInf(lambda, 0) || math.IsInf(mu, 0) {
		return fmt.Errorf("queue of %d workers, %v arrivals and %v services a second: want positive figures", c, lambda, mu)
	}
	if lambda >= float64(c)*mu {
		return fmt.Errorf("%s arrivals a second at %d workers that serve %s a second each: %w", figure(lambda), c, figure(mu), ErrOverloaded)
	}
	return nil
}

// MM1 is one worker with exponential service: response 1/(μ−λ) (Kleinrock, Queueing Systems I, §3.2).
func MM1(lambda, mu float64) (Queue, error) { return MMC(lambda, mu, 1) }

// MMC is c workers behind one queue with exponential service. An arrival waits with Erlang's C, and then
// exponentially with rate cμ−λ (Kleinrock, Queueing Systems I, §3.5).
func MMC(lambda, mu float64, c int) (Queue, error) {
	if err := stable(lambda, mu, c); err != nil {
		return Queue{}, err
	}
	waits := ErlangC(lambda/mu, c)
	spare := float64(c)*mu - lambda
	q := Queue{
		Utilisation: lambda / (float64(c) * mu), Waits: waits, Wait: waits / spare,
		wait: func(t float64) float64 { return 1 - waits*math.Exp(-spare*t) },
	}
	return q.with(lambda, 1/mu), nil
}

// ErlangC is the probability of waiting with c workers and offered load a = λ/μ < c. It comes from Erlang's B by
// B(0) = 1, B(k) = aB(k−1)/(k + aB(k−1)), which neither over- nor underflows; C = B/(1 − ρ(1−B)).
func ErlangC(a float64, c int) float64 {
	b := 1.0
	for k := 1; k <= c; k++ {
		b = a * b / (float64(k) + a*b)
	}
	return b / (1 - a/float64(c)*(1-b))
}

// MD1 is one worker that takes the same time for each: half the mean wait of M/M/1, ρ/(2μ(1−ρ)) by
// Pollaczek and Khinchine (Kleinrock, Queueing Systems I, §5.6).
func MD1(lambda, mu float64) (Queue, error) {
	if err := stable(lambda, mu, 1); err != nil {
		return Queue{}, err
	}
	rho := lambda / mu
	tail := md1Tail(rho)
	q := Queue{
		Utilisation: rho, Waits: rho, Wait: rho / (2 * mu * (1 - rho)),
		wait: func(t float64) float64 {
			if x := t * mu; x < md1Exact {
				return md1Wait(rho, x)
			}
			return 1 - tail(t*mu)
		},
	}
	return q.with(lambda, 1/mu), nil
}

func (q Queue) with(lambda, serve float64) Queue {
	q.Response, q.Length = q.Wait+serve, lambda*q.Wait
	return q
}

// md1Exact is how many service times the alternating sum of [md1Wait] is used for: its terms grow like
// e^x, and up to here it is right to 1e-8.
const md1Exact = 15

// md1Wait is P(W ≤ x) in service times: (1−ρ) Σ_{k=0}^{⌊x⌋} (−ρ(x−k))^k/k! · e^{ρ(x−k)} (Erlang 1909; Tijms, A
// First Course in Stochastic Models, ch. 9).
func md1Wait(rho, x float64) float64 {
	sum := 0.0
	for k := 0.0; k <= x; k++ {
		y := rho * (x - k)
		term := math.Exp(y)
		for i := 1.0; i <= k; i++ {
			term *= -y / i
		}
		sum += term
	}
	return (1 - rho) * sum
}

// md1Tail is P(W > x) for large x: (1−ρ)/(ρe^η−1) · e^{−ηx}, where η > 0 solves η = ρ(e^η−1): the Cramér–Lundberg
// form for M/G/1 (Tijms, ch. 8), whose error falls exponentially.
func md1Tail(rho float64) func(x float64) float64 {
	low, high := -math.Log(rho), 1.0 // at low ρe^η = 1: the difference is least there, and the root lies beyond
	for high < low || rho*math.Expm1(high) < high {
		high *= 2
	}
	for range 200 {
		mid := (low + high) / 2
		if rho*math.Expm1(mid) < mid {
			low = mid
		} else {
			high = mid
		}
	}
	eta := (low + high) / 2
	factor := (1 - rho) / (rho*math.Exp(eta) - 1)
	return func(x float64) float64 { return factor * math.Exp(-eta*x) }
}

// UpAndOut compares scaling up with scaling out at equal cost and load: one node with c workers behind one
// queue, against c nodes with one worker each, to which requests are dealt at random. Up is never slower, since
// no worker is idle while somebody waits elsewhere (Kleinrock, Queueing Systems II, ch. 5); out survives a node.
func UpAndOut(lambda, mu float64, c int) (up, out Queue, err error) {
	if up, err = MMC(lambda, mu, c); err != nil {
		return up, out, err
	}
	out, err = MM1(lambda/float64(c), mu)
	return up, out, err
}

// AnyOf is the availability of n replicas of which one is enough, each up with probability p.
func AnyOf(n int, p float64) float64 { return 1 - math.Pow(1-p, float64(n)) }

// AllOf is the availability of a chain or a ring without repair: all n must be up.
func AllOf(n int, p float64) float64 { return math.Pow(p, float64(n)) }

// AtLeast is the availability of a quorum: k or more of n are up.
func AtLeast(k, n int, p float64) float64 {
	sum := 0.0
	for i := max(k, 0); i <= n; i++ {
		lg := func(x int) float64 { v, _ := math.Lgamma(float64(x) + 1); return v }
		switch {
		case p <= 0 && i > 0, p >= 1 && i < n:
		case p <= 0 || p >= 1:
			sum++
		default:
			sum += math.Exp(lg(n) - lg(i) - lg(n-i) + float64(i)*math.Log(p) + float64(n-i)*math.Log1p(-p))
		}
	}
	return math.Min(1, sum)
}

// Harmonic is H(n, θ) = Σ_{i≤n} i^−θ. The hottest of n Zipf keys draws 1/H of all requests (Knuth, TAOCP 3,
// §6.1).
func Harmonic(n int, theta float64) float64 {
	sum := 0.0
	for i := n; i >= 1; i-- { // smallest first
		sum += math.Pow(float64(i), -theta)
	}
	return sum
}
