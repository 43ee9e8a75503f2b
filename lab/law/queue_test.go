package law

import (
	"errors"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestQueues(t *testing.T) {
	must := func(q Queue, err error) Queue {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return q
	}
	mm1, md1 := must(MM1(40, 50)), must(MD1(40, 50))
	if !near(mm1.Response, 0.1, 1e-12) || !near(mm1.Wait, 0.08, 1e-12) || !near(mm1.Length, 3.2, 1e-12) {
		t.Errorf("M/M/1 at 0.8 of 50/s: %+v, want 100 ms, of which 80 waiting", mm1)
	}
	if !near(md1.Wait, mm1.Wait/2, 1e-12) {
		t.Errorf("M/D/1 waits %v, want half of M/M/1's %v", md1.Wait, mm1.Wait)
	}
	// P(W > t) = ρe^{−(μ−λ)t}
	if got, want := mm1.WaitQuantile(0.99), math.Log(0.8/0.01)/10; !near(got, want, 1e-9) {
		t.Errorf("M/M/1 p99 wait %v, want %v", got, want)
	}
	if got := mm1.WaitQuantile(0.19); got != 0 {
		t.Errorf("M/M/1: 20 %% do not wait, but p19 is %v", got)
	}
	// Erlang C in tables: Bolch et al., Queueing Networks and Markov Chains, eq. 6.28; by hand for c = 2: 2ρ²/(1+ρ).
	for _, rho := range []float64{0.1, 0.5, 0.9} {
		if got, want := ErlangC(2*rho, 2), 2*rho*rho/(1+rho); !near(got, want, 1e-12) {
			t.Errorf("C(2, %v) = %v, want %v", 2*rho, got, want)
		}
	}
	if got := ErlangC(900, 1000); !(got > 0 && got < 1e-3) {
		t.Errorf("C(1000, 900) = %v", got)
	}
	for _, q := range []func() (Queue, error){
		func() (Queue, error) { return MM1(50, 50) },
		func() (Queue, error) { return MD1(60, 50) },
		func() (Queue, error) { return MMC(200, 50, 4) },
	} {
		if _, err := q(); !errors.Is(err, ErrOverloaded) {
			t.Errorf("overload: %v", err)
		}
	}
	for _, q := range []func() (Queue, error){
		func() (Queue, error) { return MM1(0, 50) },
		func() (Queue, error) { return MD1(math.NaN(), 50) },
		func() (Queue, error) { return MMC(1, 50, 0) },
		func() (Queue, error) { return MM1(1, math.Inf(1)) },
	} {
		if _, err := q(); err == nil || errors.Is(err, ErrOverloaded) {
			t.Errorf("nonsense: %v", err)
		}
	}
}

// Erlang's C against its sum: (a^c/c!)/(1−ρ) over Σ_{k<c} a^k/k! + that.
func TestErlangCAgainstSum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.IntRange(1, 40).Draw(t, "c")
		a := rapid.Float64Range(0.01, 0.99).Draw(t, "rho") * float64(c)
		term, sum := 1.0, 0.0
		for k := range c {
			sum += term
			term *= a / float64(k+1)
		}
		last := term / (1 - a/float64(c))
		if got, want := ErlangC(a, c), last/(sum+last); !near(got, want, 1e-9) {
			t.Fatalf("C(%d, %v) = %v, want %v", c, a, got, want)
		}
	})
}

// The wait of M/D/1 has the right mean, the exact sum meets the tail, and below one service time it is
// (1−ρ)e^{ρx}.
func TestMD1Distribution(t *testing.T) {
	for _, rho := range []float64{0.1, 0.3, 0.5, 0.8, 0.95, 0.99} {
		q, err := MD1(rho, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := q.wait(0.5), (1-rho)*math.Exp(rho/2); !near(got, want, 1e-12) {
			t.Errorf("ρ %v: P(W ≤ ½) = %v, want %v", rho, got, want)
		}
		if exact, tail := 1-md1Wait(rho, md1Exact), md1Tail(rho)(md1Exact); math.Abs(exact-tail) > 1e-8 {
			t.Errorf("ρ %v: at %d the sum leaves %v, the tail %v", rho, md1Exact, exact, tail)
		}
		const step = 0.01
		mean, last := 0.0, 1-rho
		for x := step; x < 2000; x += step {
			p := q.wait(x)
			if p < last-1e-8 || p > 1+1e-8 {
				t.Fatalf("ρ %v: P(W ≤ %v) = %v after %v", rho, x, p, last)
			}
			mean += step * (1 - (p+last)/2)
			last = p
			if 1-p < 1e-9 {
				break
			}
		}
		if !near(mean, q.Wait, 1e-3) {
			t.Errorf("ρ %v: mean of the distribution %v, by Pollaczek and Khinchine %v", rho, mean, q.Wait)
		}
		for _, p := range []float64{0.5, 0.9, 0.99, 0.999} {
			w := q.WaitQuantile(p)
			if got := q.wait(w); got < p || w > 0 && q.wait(w*(1-1e-9)) > p+1e-6 {
				t.Errorf("ρ %v: quantile %v is %v, but P(W ≤ it) = %v", rho, p, w, got)
			}
		}
	}
}

func TestUpIsNeverSlower(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.IntRange(1, 32).Draw(t, "c")
		mu := rapid.Float64Range(1, 100).Draw(t, "mu")
		lambda := rapid.Float64Range(0.01, 0.99).Draw(t, "rho") * mu * float64(c)
		up, out, err := UpAndOut(lambda, mu, c)
		if err != nil {
			t.Fatal(err)
		}
		if up.Response > out.Response*(1+1e-9) || c == 1 && !near(up.Response, out.Response, 1e-9) {
			t.Fatalf("up %v, out %v", up.Response, out.Response)
		}
	})
	if _, _, err := UpAndOut(100, 50, 2); !errors.Is(err, ErrOverloaded) {
		t.Errorf("overload: %v", err)
	}
}

func TestAvailability(t *testing.T) {
	for _, tt := range []struct{ got, want float64 }{
		{AnyOf(3, 0.9), 0.999}, {AllOf(3, 0.9), 0.729}, {AtLeast(2, 3, 0.9), 0.972},
		{AtLeast(1, 3, 0.9), 0.999}, {AtLeast(3, 3, 0.9), 0.729}, {AtLeast(0, 3, 0.2), 1},
		{AtLeast(2, 3, 1), 1}, {AtLeast(1, 3, 0), 0}, {AtLeast(4, 3, 0.9), 0}, {AnyOf(0, 0.9), 0},
	} {
		if math.Abs(tt.got-tt.want) > 1e-9 {
			t.Errorf("got %v, want %v", tt.got, tt.want)
		}
	}
}

func TestHarmonic(t *testing.T) {
	for _, tt := range []struct {
		n     int
		theta float64
		want  float64
	}{{1, 0.99, 1}, {4, 1, 25.0 / 12}, {10, 0, 10}, {1000, 1, 7.485470860550345}, {3, 2, 1 + 0.25 + 1.0/9}} {
		if got := Harmonic(tt.n, tt.theta); !near(got, tt.want, 1e-12) {
			t.Errorf("H(%d, %v) = %v, want %v", tt.n, tt.theta, got, tt.want)
		}
	}
}

func TestMVA(t *testing.T) {
	one := []Station{{Demand: 0.02}}
	// The machine repairman with one repairman, M/M/1//K: P(0) = 1/Σ K!/(K−k)!·(D/Z)^k and X = (1−P(0))/D.
	for _, k := range []int{1, 2, 5, 20} {
		sum, term := 0.0, 1.0
		for i := 0; i <= k; i++ {
			sum += term
			term *= float64(k-i) * 0.02 / 0.1
		}
		got, err := MVA(one, k, 0.1)
		if err != nil || !near(got.Throughput, (1-1/sum)/0.02, 1e-9) {
			t.Errorf("%d clients: X = %v, %v; want %v", k, got.Throughput, err, (1-1/sum)/0.02)
		}
	}
	// N balanced stations and c clients without thinking: X = c/(N+c−1)/D (Denning and Buzen, balanced systems).
	for _, n := range []int{1, 3, 10} {
		for _, c := range []int{1, 4, 40} {
			stations := make([]Station, n)
			for i := range stations {
				stations[i].Demand = 0.02 / float64(n)
			}
			got, _ := MVA(stations, c, 0)
			if want := float64(c) / float64(n+c-1) / (0.02 / float64(n)); !near(got.Throughput, want, 1e-9) {
				t.Errorf("%d stations, %d clients: X = %v, want %v", n, c, got.Throughput, want)
			}
		}
	}
	// As many workers as clients: nobody waits.
	got, _ := MVA([]Station{{Demand: 0.02, Workers: 8}}, 8, 0.03)
	if !near(got.Response, 0.02, 1e-9) || !near(got.Throughput, 160, 1e-9) || !near(got.Utilisation[0], 0.4, 1e-9) {
		t.Errorf("8 workers for 8 clients: %+v", got)
	}
	for _, bad := range []func() (Closed, error){
		func() (Closed, error) { return MVA(nil, 1, 0) },
		func() (Closed, error) { return MVA(one, 0, 0) },
		func() (Closed, error) { return MVA(one, 1, -1) },
		func() (Closed, error) { return MVA([]Station{{Demand: -1}}, 1, 0) },
		func() (Closed, error) { return MVA([]Station{{}}, 1, 0) },
	} {
		if _, err := bad(); err == nil {
			t.Error("nonsense was analysed")
		}
	}
}

// One station with c workers and thinking clients is a birth and death process whose equilibrium can be summed.
func TestMVAOfSeveralWorkers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.IntRange(1, 6).Draw(t, "workers")
		k := rapid.IntRange(1, 20).Draw(t, "clients")
		d := rapid.Float64Range(0.01, 1).Draw(t, "demand")
		z := rapid.Float64Range(0.05, 2).Draw(t, "think")
		p, sum, served := 1.0, 0.0, 0.0
		for i := 0; i <= k; i++ {
			sum += p
			served += p * float64(min(i, c)) / d
			p *= float64(k-i) / z * d / float64(min(i+1, c))
		}
		got, err := MVA([]Station{{Demand: d, Workers: c}}, k, z)
		if err != nil || !near(got.Throughput, served/sum, 1e-6) {
			t.Fatalf("X = %v, %v; want %v", got.Throughput, err, served/sum)
		}
	})
}

func TestMVAWithinBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stations []Station
		alone := 0.0
		for range rapid.IntRange(1, 6).Draw(t, "stations") {
			s := Station{Demand: rapid.Float64Range(0.001, 0.1).Draw(t, "demand"), Workers: rapid.IntRange(0, 4).Draw(t, "workers")}
			stations = append(stations, s)
			alone += s.Demand
		}
		z := rapid.Float64Range(0, 0.5).Draw(t, "think")
		last := 0.0
		for c := 1; c <= 30; c++ {
			got, err := MVA(stations, c, z)
			if err != nil {
				t.Fatal(err)
			}
			if bound := Bound(c, alone, z, stations); got.Throughput > bound*(1+1e-9) || got.Throughput < last*(1-1e-9) {
				t.Fatalf("%d clients: X = %v, bound %v, before %v", c, got.Throughput, bound, last)
			}
			if !near(got.Throughput*(got.Response+z), float64(c), 1e-9) {
				t.Fatalf("Little's law: %v·(%v+%v) ≠ %d", got.Throughput, got.Response, z, c)
			}
			last = got.Throughput
		}
	})
}
