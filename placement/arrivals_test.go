package placement

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"servent/architecture"
	"servent/system"
)

// lived is how a function fared whose calls came with such times between them: how many of the later half of the calls found no instance,
// and for which share of that time there was one.
func lived(t *testing.T, warm time.Duration, gaps []time.Duration) (cold, held float64) {
	t.Helper()
	w := newWorld(t, function(func(s *system.Service) { s.Scale.Warm = warm }), fleetOf(3)...)
	w.settle()
	const step = time.Second
	began, there, calls, missed := time.Time{}, 0.0, 0, 0
	for i, gap := range gaps {
		if i == len(gaps)/2 {
			began = w.in.Now
		}
		if !began.IsZero() {
			calls++
			if w.want() == 0 {
				missed++
			}
		}
		w.ask("node-2", 0.125) // one short call, told of for half of the idle time
		for passed := time.Duration(0); passed < gap; passed += step {
			if passed >= 15*time.Second {
				w.ask("node-2", 0)
			}
			w.decide()
			w.obey() // a second
			if !began.IsZero() {
				there += float64(w.want()) * step.Seconds()
			}
		}
	}
	return float64(missed) / float64(calls), there / w.in.Now.Sub(began).Seconds()
}

// drawn are times between calls of a distribution.
func drawn(n int, of func(r *rand.Rand) time.Duration) (gaps []time.Duration) {
	r := rand.New(rand.NewPCG(1, 2))
	for range n {
		gaps = append(gaps, of(r))
	}
	return gaps
}

// Calls with a pattern find an instance when they come; calls without one are served as by a fixed time.
func TestArrivalsAreLearnt(t *testing.T) {
	every := func(r *rand.Rand) time.Duration {
		return 270*time.Second + time.Duration(r.Float64()*float64(time.Minute))
	}
	atRandom := func(r *rand.Rand) time.Duration {
		return time.Duration(math.Exp(math.Log(60)+r.Float64()*math.Log(60)) * float64(time.Second)) // from a minute to an hour, alike on a scale of powers
	}
	for _, tt := range []struct {
		name              string
		of                func(*rand.Rand) time.Duration
		fixed, learnt     float64 // share of calls that find none, at the most and at the least
		heldFixed, mostly float64
	}{
		{"every five minutes", every, 1, 0, 0.10, 0.40},
		{"without a pattern", atRandom, 1, 1, 0.05, 0.05},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gaps := drawn(60, tt.of)
			cold, held := lived(t, 0, gaps)
			t.Logf("kept for 30s: %.0f %% find none, there for %.0f %% of the time", 100*cold, 100*held)
			if cold != tt.fixed || held > tt.heldFixed+0.02 {
				t.Errorf("fixed: %.2f find none, there for %.2f; want %.2f and about %.2f", cold, held, tt.fixed, tt.heldFixed)
			}
			cold, held = lived(t, 2*time.Hour, gaps)
			t.Logf("learnt: %.0f %% find none, there for %.0f %% of the time", 100*cold, 100*held)
			if cold != tt.learnt || held > tt.mostly+0.02 {
				t.Errorf("learnt: %.2f find none, there for %.2f; want %.2f and %.2f at the most", cold, held, tt.learnt, tt.mostly)
			}
		})
	}
}

// With calls at random one kept for T is missed by e^(−λT) of them, and is there for 1 − e^(−λT) of the time: what compare prints.
func TestFixedKeepingIsAsInTheory(t *testing.T) {
	const mean, idle = 60.0, 30.0
	cold, held := lived(t, 0, drawn(600, func(r *rand.Rand) time.Duration { return time.Duration(r.ExpFloat64() * mean * float64(time.Second)) }))
	want := math.Exp(-idle / mean)
	t.Logf("%.3f find none, theory %.3f; there for %.3f of the time, theory %.3f", cold, want, held, 1-want)
	if math.Abs(cold-want) > 0.07 || math.Abs(held-(1-want)) > 0.07 {
		t.Errorf("%.3f find none, there for %.3f of the time; want %.3f and %.3f within 0.07", cold, held, want, 1-want)
	}
}

func TestExpected(t *testing.T) {
	calls := architecture.Calls{Warm: time.Hour, Idle: 30 * time.Second}
	of := func(seconds ...float64) *system.Arrivals {
		a := &system.Arrivals{}
		for _, s := range seconds {
			a.Gaps = counted(a.Gaps, time.Duration(s*float64(time.Second)))
		}
		return a
	}
	many := func(n int, seconds ...float64) (all []float64) {
		for range n {
			all = append(all, seconds...)
		}
		return all
	}
	for _, tt := range []struct {
		name string
		a    *system.Arrivals
		ok   bool
		from float64
		till float64
	}{
		{"nothing", nil, false, 0, 0},
		{"too few", of(many(9, 300)...), false, 0, 0},
		{"enough", of(many(10, 300)...), true, 0.9 * 256, 1.1 * 304.4},
		{"mostly longer than is learnt", of(append(many(10, 300), many(11, 7000)...)...), false, 0, 0},
		{"a tail beyond", of(append(many(99, 300), 7000)...), true, 0.9 * 256, 1.1 * 304.4},
		{"never past what is learnt", of(many(10, 3500)...), true, 0.9 * 3444, 3600},
		{"everywhere", of(many(2, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3, 6, 12, 24, 48, 96, 192)...), false, 0, 0},
	} {
		from, until, ok := expected(tt.a, calls)
		if ok != tt.ok || math.Abs(from.Seconds()-tt.from) > 1 || math.Abs(until.Seconds()-tt.till) > 1 {
			t.Errorf("%s: %v to %v, %v; want %.0fs to %.0fs, %v", tt.name, from, until, ok, tt.from, tt.till, tt.ok)
		}
	}
}

// It is said why an instance is there that nobody calls, and being there is no waking.
func TestKeptReadyIsSaid(t *testing.T) {
	w := newWorld(t, function(func(s *system.Service) { s.Scale.Warm = time.Hour }), fleetOf(3)...)
	w.settle()
	for range 12 {
		w.ask("node-1", 1)
		w.decide()
		w.obey()
		w.ask("node-1", 0)
		for range 300 {
			w.decide()
			w.obey()
		}
	}
	c := w.in.Plan.Deployment("fn").Called
	if c.Want != 1 || c.Wakes > 11 {
		t.Errorf("%+v, want one instance that is ready, and no waking by it", c)
	}
	if why := Why(w.input(), "fn"); !strings.Contains(why, "nobody calls; of 11 times without calls nearly all took") {
		t.Errorf("why: %s", why)
	}
}
