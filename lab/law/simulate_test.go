package law

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
	"servent/route"
	"servent/system"
)

const ms = time.Millisecond

func run(t *testing.T, s Setup) Outcome {
	t.Helper()
	o, err := Simulate(s)
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// One node that takes 20 ms for each serves 50/s, and four clients wait for four turns: exactly.
func TestOneNodeIsExact(t *testing.T) {
	o := run(t, Setup{Architecture: system.Single, Nodes: 1, Service: Fixed(20 * ms), Clients: 4, Requests: 5000})
	if o.Rate != 50 || o.P50 != 80*ms || o.P99 != 80*ms || o.Max != 80*ms || o.Response != 80*ms || o.Busy[0] != 1 {
		t.Errorf("got %v/s, p50 %v, p99 %v, mean %v, busy %v; want 50/s, 80ms, busy 1", o.Rate, o.P50, o.P99, o.Response, o.Busy)
	}
	o = run(t, Setup{Architecture: system.Single, Nodes: 1, Workers: 4, Service: Fixed(20 * ms), Clients: 4})
	if o.Rate != 200 || o.Max != 20*ms {
		t.Errorf("four workers: %v/s, max %v; want 200/s, 20ms", o.Rate, o.Max)
	}
	o = run(t, Setup{Architecture: system.Single, Nodes: 1, Service: Fixed(20 * ms), Clients: 1, Access: 3 * ms, Overhead: 2 * ms, Think: Fixed(10 * ms)})
	if o.Rate != 25 || o.Max != 30*ms {
		t.Errorf("one client with think time: %v/s, max %v; want 25/s, 30ms", o.Rate, o.Max)
	}
	o = run(t, Setup{Architecture: system.Single, Nodes: 1, Service: Fixed(10 * ms), Rate: 80, Requests: 1000})
	if math.Abs(o.Rate-80) > 0.1 || o.Max != 10*ms {
		t.Errorf("evenly spaced below capacity: %v/s, max %v; nobody waits", o.Rate, o.Max)
	}
}

// Open queues against their closed forms, within what simulation errs by.
func TestSimulateAgainstQueues(t *testing.T) {
	for _, tt := range []struct {
		name    string
		service Sampler
		workers int
		rate    float64
		queue   func() (Queue, error)
	}{
		{"M/M/1 at 0.5", Exponential(20 * ms), 1, 25, func() (Queue, error) { return MM1(25, 50) }},
		{"M/M/1 at 0.8", Exponential(20 * ms), 1, 40, func() (Queue, error) { return MM1(40, 50) }},
		{"M/D/1 at 0.8", Fixed(20 * ms), 1, 40, func() (Queue, error) { return MD1(40, 50) }},
		{"M/M/4 at 0.8", Exponential(20 * ms), 4, 160, func() (Queue, error) { return MMC(160, 50, 4) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			q, err := tt.queue()
			if err != nil {
				t.Fatal(err)
			}
			o := run(t, Setup{Seed: 1, Architecture: system.Single, Nodes: 1, Workers: tt.workers, Service: tt.service, Rate: tt.rate, Poisson: true, Requests: 120_000})
			if !near(o.Response.Seconds(), q.Response, 0.04) || !near(o.Rate, tt.rate, 0.01) || !near(o.Busy[0], q.Utilisation, 0.02) {
				t.Errorf("response %v at %v/s, busy %v; theory %.4fs, %v", o.Response, o.Rate, o.Busy[0], q.Response, q.Utilisation)
			}
			if tt.name[:5] == "M/D/1" { // all are served in the same time, so responses are waits and that
				for _, p := range []float64{0.5, 0.9, 0.99} {
					got, known := o.Quantile(p)
					if want := q.WaitQuantile(p) + 0.020; !known || !near(got.Seconds(), want, 0.06) {
						t.Errorf("p%v = %v, want %.4fs", 100*p, got, want)
					}
				}
			}
		})
	}
}

// Closed loops against exact mean value analysis.
func TestSimulateAgainstMVA(t *testing.T) {
	for _, tt := range []struct {
		name    string
		setup   Setup
		station []Station
		think   float64
	}{
		{"one station, thinking clients", Setup{Architecture: system.Single, Nodes: 1, Clients: 8, Think: Exponential(100 * ms)}, []Station{{Demand: 0.02}}, 0.1},
		{"four workers", Setup{Architecture: system.Single, Nodes: 1, Workers: 4, Clients: 6, Think: Exponential(50 * ms)}, []Station{{Demand: 0.02, Workers: 4}}, 0.05},
		{"four nodes at random", Setup{Architecture: system.Replicated, Policy: "random", Nodes: 4, Clients: 6}, []Station{{Demand: .005}, {Demand: .005}, {Demand: .005}, {Demand: .005}}, 0},
		{"shares", Setup{Architecture: system.Partitioned, Shares: []float64{0.7, 0.2, 0.1}, Nodes: 3, Clients: 10}, []Station{{Demand: .014}, {Demand: .004}, {Demand: .002}}, 0},
		{"delay on the way", Setup{Architecture: system.Single, Nodes: 1, Clients: 3, Access: 15 * ms}, []Station{{Demand: 0.02}}, 0.03},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.setup.Service, tt.setup.Requests = Exponential(20*ms), 50_000
			want, err := MVA(tt.station, tt.setup.Clients, tt.think)
			if err != nil {
				t.Fatal(err)
			}
			o := run(t, tt.setup)
			if !near(o.Rate, want.Throughput, 0.015) {
				t.Errorf("%v/s, mean value analysis says %v/s", o.Rate, want.Throughput)
			}
			for i, busy := range want.Utilisation {
				if !near(o.Busy[i], busy, 0.05) {
					t.Errorf("node %d is busy %v, want %v", i, o.Busy[i], busy)
				}
			}
		})
	}
}

// Saturated systems against what work alone allows.
func TestSimulateAgainstExpect(t *testing.T) {
	zipf := Keys{Count: 1000, Theta: 0.99}
	for _, tt := range []struct {
		a     system.Architecture
		setup Setup
	}{
		{system.Single, Setup{Nodes: 4}},
		{system.Replicated, Setup{Nodes: 4}},
		{system.Replicated, Setup{Nodes: 8, Switch: 4 * ms}},
		{system.Replicated, Setup{Nodes: 4, Switch: 4 * ms}},
		{system.Replicated, Setup{Nodes: 4, Workers: 2, Policy: "leastconn"}},
		{system.Partitioned, Setup{Nodes: 8}},
		{system.Partitioned, Setup{Nodes: 8, Keys: zipf}},
		{system.Ring, Setup{Nodes: 4}},
		{system.Ring, Setup{Nodes: 16}},
		{system.Ring, Setup{Nodes: 16, RingReply: true}},
		{system.Ring, Setup{Nodes: 8, RingReply: true, RingAck: true}},
		{system.Ring, Setup{Nodes: 8, Keys: zipf}},
		{system.Chord, Setup{Nodes: 4}},
		{system.Chord, Setup{Nodes: 16}},
		{system.Chord, Setup{Nodes: 11, Keys: zipf}},
	} {
		t.Run(fmt.Sprintf("%s %d %v %v", tt.a, tt.setup.Nodes, tt.setup.Switch, tt.setup.Keys.Count), func(t *testing.T) {
			t.Parallel()
			s := tt.setup
			s.Architecture, s.Service, s.Pass = tt.a, Fixed(20*ms), 2*ms
			s.Clients = 256 * s.Nodes // enough to do for every station
			s.Requests, s.Warm = 20_000, 15_000
			c := Cluster{Nodes: s.Nodes, Workers: s.Workers, Rate: 50, RingReply: s.RingReply, RingAck: s.RingAck}
			if s.Keys.Count > 0 {
				shares, err := s.Keys.Shares(s.Nodes)
				if err != nil {
					t.Fatal(err)
				}
				c.Shares = shares
			}
			if s.Switch > 0 {
				c.Switch = 1 / s.Switch.Seconds()
			}
			want, err := Expect(tt.a, c)
			if err != nil {
				t.Fatal(err)
			}
			o := run(t, s)
			if !near(o.Rate, want.Rate, 0.02) {
				t.Errorf("%v/s, theory %v/s (%s)", o.Rate, want.Rate, want.Formula)
			}
			if !near(o.Lookups, want.Lookups, 0.03) && want.Lookups > 0 || want.Lookups == 0 && o.Lookups != 0 {
				t.Errorf("%v lookups, theory %v", o.Lookups, want.Lookups)
			}
			if o.Rate > Bound(s.Clients, 0.02, 0, []Station{{Demand: 1 / want.Rate}})*1.02 {
				t.Errorf("%v/s is above the bound", o.Rate)
			}
		})
	}
}

// A single queue against Lindley's recursion with the same draws: every response, to the nanosecond.
func TestSimulateAgainstRecursion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := Setup{
			Seed: rapid.Uint64().Draw(t, "seed"), Architecture: system.Single, Nodes: 1, Workers: rapid.IntRange(1, 3).Draw(t, "workers"),
			Service: LogNormal(20*ms, rapid.Float64Range(0.1, 3).Draw(t, "cv")), Poisson: rapid.Bool().Draw(t, "poisson"),
			Rate: rapid.Float64Range(10, 200).Draw(t, "rate"), Requests: 200, Warm: -1,
			Access: time.Duration(rapid.IntRange(0, 5000).Draw(t, "µs")) * time.Microsecond,
		}
		o, err := Simulate(s)
		if err != nil {
			t.Fatal(err)
		}
		free := make([]int64, s.Workers)
		var now int64
		var want []int64
		for i := range uint64(s.Requests) {
			if s.Poisson {
				now += int64(Exponential(time.Second).Scaled(1 / s.Rate).At(unit(draw(s.Seed, i, drawArrival))))
			} else {
				now = int64(math.Round(float64(i) * 1e9 / s.Rate))
			}
			slices.Sort(free)
			free[0] = max(free[0], now+int64(s.Access)) + int64(s.Service.At(unit(draw(s.Seed, i, drawService))))
			want = append(want, free[0]+int64(s.Access)-now)
		}
		slices.Sort(want)
		if !slices.Equal(o.sorted, want) {
			t.Fatalf("responses differ: %v, want %v", o.sorted[:5], want[:5])
		}
	})
}

// Same setup, same events in the same order; what should not matter does not, what should does.
func TestSameSeedSameEvents(t *testing.T) {
	s := Setup{Seed: 7, Architecture: system.Ring, Nodes: 8, Keys: Keys{Count: 100, Theta: 0.99}, Service: LogNormal(20*ms, 1), Pass: 2 * ms, Link: ms, Clients: 40}
	a, b := run(t, s), run(t, s)
	if a.Hash != b.Hash || a.Events != b.Events || a.Rate != b.Rate {
		t.Errorf("two runs differ: %x, %x", a.Hash, b.Hash)
	}
	other := s
	other.Seed = 8
	if c := run(t, other); c.Hash == a.Hash {
		t.Error("another seed has the same events")
	}
	// Without logarithms the hash is the same on every machine.
	s.Service = Fixed(20 * ms)
	s.Keys.Theta = 0
	const golden = uint64(0x2c8ecbebe489eb6b)
	if got := run(t, s).Hash; got != golden {
		t.Errorf("hash of events %#x, want %#x: another order of events, or other draws", got, golden)
	}
}

// Common random numbers: the same request takes as long under every architecture, whoever serves it.
func TestCommonRandomNumbers(t *testing.T) {
	base := Setup{Seed: 3, Service: Exponential(20 * ms), Clients: 1, Requests: 2000, Warm: -1}
	var rates []float64
	for _, a := range []system.Architecture{system.Single, system.Replicated, system.Partitioned, system.Ring} {
		s := base
		s.Architecture, s.Nodes = a, 4
		rates = append(rates, run(t, s).Rate)
	}
	for _, r := range rates {
		if r != rates[0] {
			t.Errorf("one client, nothing but service: %v", rates)
		}
	}
}

func TestOverloadServesCapacity(t *testing.T) {
	o := run(t, Setup{Architecture: system.Replicated, Nodes: 4, Service: Fixed(20 * ms), Rate: 400, Poisson: true, Requests: 20_000})
	if !near(o.Rate, 200, 0.01) || o.Max < 20*time.Second {
		t.Errorf("%v/s, max %v; want the capacity of 200/s and a queue that grew", o.Rate, o.Max)
	}
}

func TestFasterChoices(t *testing.T) {
	p90 := func(policy string) time.Duration {
		return run(t, Setup{Seed: 1, Architecture: system.Replicated, Policy: policy, Nodes: 8, Switch: time.Microsecond, Service: Exponential(20 * ms), Rate: 320, Poisson: true, Requests: 50_000}).P90
	}
	random, two, least := p90("random"), p90("p2c"), p90("leastconn")
	if !(least < two && two < random) {
		t.Errorf("p90: least connections %v, two choices %v, random %v; want it in this order", least, two, random)
	}
	// Random: each node is an M/M/1 of its own, whose responses are exponential with mean 1/(μ−λ/N).
	if want := math.Log(10) / 10; !near(random.Seconds(), want, 0.05) {
		t.Errorf("random: p90 %v, want %.3fs", random, want)
	}
}

// The pickers are those of package route.
func TestPickersAreRoutes(t *testing.T) {
	for _, policy := range []string{"p2c", "roundrobin", "random", "leastconn", "weighted"} {
		rapid.Check(t, func(t *rapid.T) {
			n := rapid.IntRange(1, 8).Draw(t, "nodes")
			s := simulation{Setup: Setup{Nodes: n, Policy: policy}, turn: make([]int, 1)}
			s.inflight.shape(1, n)
			among := make([]route.Instance, n)
			for i := range among {
				among[i].ID = system.InstanceID(fmt.Sprint(i))
			}
			picker := route.NewPicker(policy)
			for range 50 {
				rnd := rapid.Uint64().Draw(t, "rnd")
				in, _ := route.Choose(picker, route.Ask{Rnd: rnd, Among: among, Load: func(id system.InstanceID) route.Load {
					i := slices.IndexFunc(among, func(in route.Instance) bool { return in.ID == id })
					return route.Load{Inflight: int(s.inflight.at(0, i))}
				}}, nil)
				got := s.pick(0, rnd)
				if fmt.Sprint(got) != string(in.ID) && n > 1 {
					t.Fatalf("%s: picked %d, route picks %s", policy, got, in.ID)
				}
				s.inflight.add(0, got, 1)
				if rapid.Bool().Draw(t, "ends") {
					s.inflight.add(0, got, -1)
				}
			}
		})
	}
}

func TestGaugesOfManyNodes(t *testing.T) {
	var small, large gauges
	small.shape(10, 10)
	large.shape(10, 1<<20)
	for i := range 1000 {
		x := draw(1, uint64(i), drawPick)
		entry, node, by := int(x%10), int(x>>8%10), int32(x>>16%3)-1
		small.add(entry, node, by)
		large.add(entry, node, by)
	}
	for e := range 10 {
		for n := range 10 {
			if small.at(e, n) != large.at(e, n) {
				t.Fatalf("%d → %d: %d and %d", e, n, small.at(e, n), large.at(e, n))
			}
		}
	}
	if small.table == nil || large.far == nil {
		t.Error("the two were not kept differently")
	}
}

func TestHeapSorts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var h events
		var twin []event
		seq := uint64(0)
		for range rapid.IntRange(0, 200).Draw(t, "steps") {
			if len(twin) > 0 && rapid.IntRange(0, 2).Draw(t, "pop") == 0 {
				least := 0
				for i := range twin {
					if twin[i].before(&twin[least]) {
						least = i
					}
				}
				if got := h.pop(); got != twin[least] {
					t.Fatalf("popped %+v, want %+v", got, twin[least])
				}
				twin = slices.Delete(twin, least, least+1)
				continue
			}
			seq++
			e := event{at: int64(rapid.IntRange(0, 20).Draw(t, "at")), seq: seq}
			h.push(e)
			twin = append(twin, e)
		}
	})
}

func TestSimulateRefuses(t *testing.T) {
	good := Setup{Architecture: system.Replicated, Nodes: 2, Service: Fixed(ms), Clients: 1}
	run(t, good)
	for name, spoil := range map[string]func(*Setup){
		"no nodes":           func(s *Setup) { s.Nodes = 0 },
		"negative workers":   func(s *Setup) { s.Workers = -1 },
		"one request":        func(s *Setup) { s.Requests = 1 },
		"negative time":      func(s *Setup) { s.Link = -1 },
		"no load":            func(s *Setup) { s.Clients = 0 },
		"not a rate":         func(s *Setup) { s.Clients, s.Rate = 0, math.NaN() },
		"nothing takes time": func(s *Setup) { s.Service = Sampler{} },
		"policy":             func(s *Setup) { s.Policy = "fastest" },
		"architecture":       func(s *Setup) { s.Architecture = system.Pastry },
		"chord and replies":  func(s *Setup) { s.Architecture, s.RingReply = system.Chord, true },
		"shares":             func(s *Setup) { s.Architecture, s.Shares = system.Partitioned, []float64{1} },
		"negative share":     func(s *Setup) { s.Architecture, s.Shares = system.Partitioned, []float64{1, -1} },
		"no share":           func(s *Setup) { s.Architecture, s.Shares = system.Ring, []float64{0, 0} },
		"keys":               func(s *Setup) { s.Architecture, s.Keys.Theta = system.Ring, -1 },
		"too many lookups":   func(s *Setup) { s.Architecture, s.Nodes = system.Ring, 1_000_000 },
		"ring and switch":    func(s *Setup) { s.Architecture, s.Switch = system.Ring, ms },
	} {
		s := good
		spoil(&s)
		if _, err := Simulate(s); err == nil {
			t.Errorf("%s: simulated", name)
		}
	}
}

func TestSamplers(t *testing.T) {
	measured := Empirical([]time.Duration{30 * ms, 10 * ms, 20 * ms})
	for _, tt := range []struct {
		name string
		s    Sampler
		mean time.Duration
		cv   float64
	}{
		{"fixed", Fixed(20 * ms), 20 * ms, 0},
		{"exponential", Exponential(20 * ms), 20 * ms, 1},
		{"lognormal", LogNormal(20*ms, 0.5), 20 * ms, 0.5},
		{"empirical", measured, 20 * ms, 10 / math.Sqrt(3) / 20}, // uniform from 10 to 30
		{"scaled", measured.Scaled(2), 40 * ms, 10 / math.Sqrt(3) / 20},
		{"lognormal scaled", LogNormal(10*ms, 0.5).Scaled(2), 20 * ms, 0.5},
		{"one value", Empirical([]time.Duration{7 * ms}), 7 * ms, 0},
		{"none", Empirical(nil), 0, 0},
	} {
		var sum, squares float64
		const n = 200_000
		last := time.Duration(0)
		for i := range n {
			d := tt.s.At((float64(i) + 0.5) / n)
			if d < last {
				t.Fatalf("%s: %v after %v", tt.name, d, last)
			}
			last = d
			sum += float64(d)
			squares += float64(d) * float64(d)
		}
		mean := sum / n
		cv := math.Sqrt(math.Max(0, squares/n-mean*mean)) / math.Max(mean, 1)
		if !near(mean, float64(tt.mean), 0.002) || math.Abs(cv-tt.cv) > 0.01 || tt.s.Mean() != tt.mean {
			t.Errorf("%s: mean %v (says %v), cv %v; want %v, %v", tt.name, time.Duration(mean), tt.s.Mean(), cv, tt.mean, tt.cv)
		}
	}
}

// Draws of different requests, seeds and purposes are unrelated enough: each bit is set half the time.
func TestDraws(t *testing.T) {
	var set [64]int
	seen := map[uint64]bool{}
	const n = 20_000
	for i := range uint64(n) {
		x := draw(1, i, drawService) ^ draw(1, i, drawKey) // also their difference
		for b := range set {
			set[b] += int(x >> b & 1)
		}
		seen[draw(i, 1, drawPick)] = true
	}
	for b, c := range set {
		if math.Abs(float64(c)-n/2) > 5*math.Sqrt(n)/2 {
			t.Errorf("bit %d is set %d times of %d", b, c, n)
		}
	}
	if len(seen) != n {
		t.Errorf("%d different of %d", len(seen), n)
	}
	if u := unit(0); u <= 0 {
		t.Errorf("unit(0) = %v", u)
	}
	if u := unit(math.MaxUint64); u >= 1 {
		t.Errorf("unit(max) = %v", u)
	}
}

func BenchmarkSimulate(b *testing.B) {
	var events int64
	for b.Loop() {
		o, err := Simulate(Setup{Architecture: system.Ring, Nodes: 32, Service: Fixed(20 * ms), Pass: 2 * ms, Clients: 128, Requests: 20_000})
		if err != nil {
			b.Fatal(err)
		}
		events += o.Events
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(events), "ns/event")
}

// Several turns are the single ones put together: the median of their rates, all responses, and nothing that one
// turn leaves for the next.
func TestSimulateTurns(t *testing.T) {
	setup := Setup{Architecture: system.Partitioned, Nodes: 4, Service: Fixed(20 * ms), Pass: 2 * ms, Clients: 16, Requests: 70, Warm: 10, Turns: 5}
	all, err := Simulate(setup)
	if err != nil {
		t.Fatal(err)
	}
	var rates, responses []float64
	for i := range 5 {
		one := setup
		one.Turns, one.Seed = 1, mix(uint64(i)*0x9e3779b97f4a7c15)
		o, err := Simulate(one)
		if err != nil {
			t.Fatal(err)
		}
		rates = append(rates, o.Rate)
		for _, d := range o.sorted {
			responses = append(responses, float64(d))
		}
	}
	served := int64(0)
	for _, n := range all.Served {
		served += n
	}
	if all.Rate != Median(rates).Median || len(all.sorted) != 350 || served < 300 {
		t.Errorf("rate %v of %v, %d responses, %d served", all.Rate, rates, len(all.sorted), served)
	}
	if got, want := float64(all.P50), Median(responses).Median; math.Abs(got/want-1) > 0.02 {
		t.Errorf("median response %v, want %v", all.P50, time.Duration(want))
	}
	if again, err := Simulate(setup); err != nil || again.Hash != all.Hash {
		t.Errorf("the same setup gives another run: %v", err)
	}
	setup.Nodes = 0
	if _, err := Simulate(setup); err == nil {
		t.Error("no nodes")
	}
}
