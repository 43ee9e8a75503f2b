package lab

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/lab/check"
	"servent/lab/law"
	"servent/lab/load"
	"servent/lab/result"
	"servent/meter"
	"servent/system"
)

var goal99 = result.Goal{Percentile: 99, LatencyMS: 100, Errors: 0.001}

// answers fills a point as if so many requests had come back after so long.
func (p *point) answers(n int, took time.Duration) {
	var h meter.Histogram
	for range n {
		h.Record(took)
	}
	p.latency = p.latency.Plus(h.Latency())
	p.requests += int64(n)
	p.repeats = append(p.repeats, result.Repeat{Requests: int64(n), Rate: p.offered})
}

// A system that keeps the goal up to a sharp limit: the search ends within its bounds, and what it finds is
// the highest rate of the ladder that keeps it, or one that is judged and stands walk rungs below at most.
func TestHuntFindsTheLimit(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		limit := rapid.Float64Range(0.001, 2).Draw(t, "limit")
		h := &hunt{base: &point{}, top: 100, at: rapid.IntRange(0, rungs-1).Draw(t, "first"), kept: rungs, lost: -1, single: map[int]*point{}, judged: map[int]*point{}}
		ask := func(p *point) {
			took := 50 * time.Millisecond
			if p.offered > limit*100 {
				took = 200 * time.Millisecond
			}
			p.answers(1000, took)
		}
		for !h.narrow() {
			if h.tries > mostTries {
				t.Fatalf("%d tries", h.tries)
			}
			p := h.try()
			ask(p)
			h.learn(goal99, p)
		}
		for rounds := 1; !h.done; rounds++ {
			if rounds > mostRounds {
				t.Fatalf("%d rounds", rounds)
			}
			for range fewest {
				ask(h.judge())
			}
			h.decide(goal99)
		}
		got := h.found(goal99, fewest)
		switch {
		case limit*100 < h.rate(rungs-1):
			if got.keeps(goal99) {
				t.Fatalf("%.3g/s is said to keep a goal that nothing keeps", got.offered)
			}
		case !got.keeps(goal99), got.offered > limit*100, got.offered < min(limit*100, h.top)*math.Pow(rung, walk+1)*0.999:
			t.Fatalf("found %.4g/s, kept: %v; the limit is %.4g/s", got.offered, got.keeps(goal99), limit*100)
		}
	})
}

// What an interrupted search has measured is kept: a rate with all its repeats before one with a few.
func TestHuntInterrupted(t *testing.T) {
	r := &run{plan: &plan{repeats: fewest, goal: goal99}, points: map[at]*point{}, tried: map[at][]*point{}}
	base := &point{at: at{"a", 2}}
	r.points[base.at] = base
	h := &hunt{base: base, top: 100, at: 20, kept: rungs, lost: -1, single: map[int]*point{}, judged: map[int]*point{}}
	r.keep(h)
	if r.points[base.at] != base || len(r.tried[base.at]) != 0 {
		t.Error("before its first turn a search has found something")
	}
	one := h.try()
	one.answers(10, time.Millisecond)
	h.learn(goal99, one)
	r.keep(h)
	if tried := r.tried[base.at]; r.points[base.at] != base || len(tried) != 1 || tried[0] != one {
		t.Errorf("after one turn %+v was tried, want that one", tried)
	}
	whole := h.judge()
	for range fewest {
		whole.answers(100, time.Second) // not kept
	}
	h.decide(goal99)
	h.judge().answers(100, time.Millisecond)
	r.keep(h)
	if r.points[base.at] != whole || len(r.tried[base.at]) != 2 {
		t.Errorf("found %.3g/s and tried %d others, want the one that has all repeats", r.points[base.at].offered, len(r.tried[base.at]))
	}
	for range fewest - 1 {
		h.judge().answers(100, time.Millisecond)
	}
	if h.decide(goal99); !h.done || h.found(goal99, fewest) == whole {
		t.Error("a lower rate keeps the goal, and the search goes on, or it is not found")
	}
}

func TestKeeps(t *testing.T) {
	good := point{}
	good.answers(10_000, 50*time.Millisecond)
	for _, tt := range []struct {
		name   string
		change func(*point)
		want   bool
	}{
		{"fast and right", func(*point) {}, true},
		{"one in a hundred slow", func(p *point) { p.answers(101, time.Second) }, true},
		{"two in a hundred slow", func(p *point) { p.answers(205, time.Second) }, false},
		{"one in a thousand failed", func(p *point) { p.errors = 10 }, true},
		{"two in a thousand failed", func(p *point) { p.errors = 20 }, false},
		{"all failed", func(p *point) { p.errors = p.requests }, false},
		{"one that was not sent", func(p *point) { p.notSent = 1 }, false},
	} {
		p := good
		tt.change(&p)
		if got := p.keeps(goal99); got != tt.want {
			t.Errorf("%s: keeps the goal: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// fullRun is a comparison at full depth of the shop's cart on nodes that are alike.
func fullRun(samples int, variants ...system.Architecture) *run {
	sys := shop()
	sys.Nodes = sys.Nodes[:1]
	r := &run{plan: &plan{base: sys, service: "cart", depth: result.Full, nodes: []int{1, 2, 4, 8}, repeats: fewest, samples: samples, per: perWorker, goal: goal99, seed: 1, checks: check.None},
		points: map[at]*point{}, tried: map[at][]*point{}, tops: map[at]float64{}, survival: map[string]*result.Survival{}, began: time.Now()}
	r.o.Tell = func(Progress) {}
	for _, a := range variants {
		own := *sys
		own.Services = slices.Clone(sys.Services[1:])
		own.Services[0].Architecture = a
		r.variants = append(r.variants, Variant{Name: string(a), System: &own})
	}
	return r
}

// The numbers of requests are those of the slowest variant, and the time that is promised follows the rates.
func TestFullCounts(t *testing.T) {
	r := fullRun(enough, system.Single, system.Partitioned)
	if got := r.each(8); got != 1667 {
		t.Errorf("a turn has %d requests, want a sixth of 10,000", got)
	}
	r.base.Nodes[0].Capacity.Rate = 1 // a turn at 0.7/s would take forty minutes
	r.tops = map[at]float64{}
	if got := r.each(8); got != int(turnMost.Seconds()*guessRate) {
		t.Errorf("a turn at 1/s has %d requests, want as many as it answers in %s", got, turnMost)
	}
	one, eight := r.searchSeconds(r.variants[1], 1), r.searchSeconds(r.variants[1], 8)
	if eight > one || eight < one/8 {
		t.Errorf("1 node takes %.0f s, 8 nodes %.0f s; want less, and not less than an eighth", one, eight)
	}
	r.plan.slow = 4
	if got := r.searchSeconds(r.variants[1], 1); math.Abs(got/one-4) > 1e-9 {
		t.Errorf("stretched by 4 it takes %.2f times as long", got/one)
	}
}

// A machine that cannot switch four times what the emulated nodes want makes the point invalid and says which
// rate, or which stretch, would be valid.
func TestFullCeiling(t *testing.T) {
	r := fullRun(enough, system.Single, system.Partitioned)
	r.host.Ceiling = 400
	pt := func(name string, n int) result.Point {
		p := &point{at: at{name, n}, offered: 10, check: check.New(check.None, check.Options{})}
		for range fewest {
			p.answers(100, time.Millisecond)
		}
		return p.result(r)
	}
	if got := pt("partitioned", 2); !got.Valid || got.Offered != 10 {
		t.Errorf("100/s of 400/s: %+v", got.Why)
	}
	got := pt("partitioned", 8)
	if want := "8 nodes want 400/s, more than a quarter of the 400/s that this machine switches; 10/s per node would be valid, or --slow 4"; got.Valid || got.Why != want {
		t.Errorf("400/s of 400/s: valid %v, %q; want %q", got.Valid, got.Why, want)
	}
	if got := pt("single", 8); !got.Valid {
		t.Errorf("single wants 50/s on any number of nodes: %q", got.Why)
	}
	r.plan.slow = 4
	if got := pt("partitioned", 8); !got.Valid {
		t.Errorf("stretched by 4 it wants 100/s: %q", got.Why)
	}
}

// pretend puts down what a system answers that is as the simulation says, but for its draws and an overhead
// of the host, times a factor from 4 nodes on.
func (r *run) pretend(t *testing.T, factor float64) {
	t.Helper()
	for _, v := range r.variants {
		for _, n := range r.nodes {
			s, goal, err := r.setup(v, n)
			if err != nil {
				t.Fatal(err)
			}
			s.Seed += 77
			s.Overhead, s.Requests = time.Millisecond, 50_000
			o, err := law.Greatest(s, goal)
			if err != nil {
				t.Fatal(err)
			}
			if n > calibratedTo {
				o.Rate *= factor
			}
			p := &point{at: at{v.Name, n}, offered: o.Rate, check: check.New(check.None, check.Options{})}
			for i := range fewest {
				p.answers(100, o.P50)
				p.repeats[i].Rate = o.Rate * (1 + 0.002*float64(i))
			}
			r.points[p.at] = p
			lower := &point{at: p.at, offered: o.Rate * 0.9, check: p.check}
			lower.answers(100, o.P50)
			r.tried[p.at] = []*point{lower}
		}
	}
}

// The simulation foretells what it was not calibrated on, and stands beside what was measured, never among it.
func TestForetell(t *testing.T) {
	if testing.Short() {
		t.Skip("simulates for minutes under the race detector, on one goroutine")
	}
	r := fullRun(enough, system.Single, system.Partitioned)
	r.nodes = []int{1, 2, 4}
	r.pretend(t, 1)
	res := r.conclude()
	r.foretell(t.Context(), res)
	if f := res.Foretold; f == nil || f.HeldOut != 2 || f.Error > 0.05 || !slices.Equal(f.Calibrated, []int{1, 2}) {
		t.Fatalf("foretold %+v, want two points on 4 nodes within 5 %%", f)
	}
	for _, v := range res.Variants {
		var emulated, tried, simulated []int
		for i, p := range v.Points {
			switch {
			case p.Mode == result.Simulated:
				simulated = append(simulated, p.Nodes)
				if p.Offered <= 0 || len(p.Repeats) > 0 || p.LatencyMS.P99 > 101 {
					t.Errorf("%s: simulated point %+v", v.Name, p)
				}
			case p.Tried:
				tried = append(tried, p.Nodes)
			default:
				if emulated = append(emulated, p.Nodes); i >= 3 {
					t.Errorf("%s: the found points do not stand first", v.Name)
				}
			}
		}
		if !slices.Equal(emulated, r.nodes) || !slices.Equal(tried, r.nodes) || !slices.Equal(simulated, []int{1, 2, 4, 8, 16}) {
			t.Errorf("%s: emulated on %v, tried on %v, simulated on %v", v.Name, emulated, tried, simulated)
		}
		if len(v.Law.HeldOut) != 1 || len(v.Law.Further) != 2 {
			t.Errorf("%s: law has %d held-out and %d further points, want 1 and 2", v.Name, len(v.Law.HeldOut), len(v.Law.Further))
		}
	}
	if res.Verdict.Best != "partitioned" || len(res.Verdict.Tests) != 1 || res.Verdict.Tests[0].Nodes != 4 {
		t.Errorf("verdict %+v, want that of the points found on 4 nodes", res.Verdict)
	}
}

// A bottleneck that the simulation does not know of: the error is told, and nothing is drawn beyond.
func TestForetellRefuses(t *testing.T) {
	r := fullRun(enough, system.Partitioned)
	r.pretend(t, 0.7)
	res := r.conclude()
	r.foretell(t.Context(), res)
	v := res.Variants[0]
	if res.Foretold == nil || res.Foretold.Error < 0.3 || len(v.Law.Further) != 0 {
		t.Fatalf("foretold %+v, further %v; want a large error, and nothing further", res.Foretold, v.Law.Further)
	}
	for _, p := range v.Points {
		if p.Nodes > 8 {
			t.Errorf("a point on %d nodes is simulated", p.Nodes)
		}
	}
	r.variants[0].System.Services[0].Switch.Sticky = "cookie"
	again := r.conclude()
	if r.foretell(t.Context(), again); again.Foretold != nil {
		t.Errorf("clients that stay with an instance are simulated: %+v", again.Foretold)
	}
}

// What is stretched comes back in the file's time.
func TestStretched(t *testing.T) {
	sys := shop()
	sys.Nodes[0].Links = []system.LinkSpec{{To: "ap", Latency: 10 * time.Millisecond, Rate: 1000}}
	got := stretched(sys, 4)
	if g := got.Nodes[0]; g.Capacity.Rate != 12.5 || g.Capacity.Pass != 0 || g.Links[0].Latency != 40*time.Millisecond || g.Links[0].Rate != 250 {
		t.Errorf("stretched by 4: %+v", g)
	}
	if sys.Nodes[0].Capacity.Rate != 50 || sys.Nodes[0].Links[0].Latency != 10*time.Millisecond {
		t.Error("the file's own system was changed")
	}
	if stretched(sys, 1) != sys {
		t.Error("stretched by 1 it is another system")
	}
}

func TestRecount(t *testing.T) {
	records := []load.Record{
		{Good: true, Status: 200, Intended: 0, Sent: time.Millisecond, Done: 11 * time.Millisecond},
		{Status: 503, Done: time.Millisecond},
		{Err: "timeout", Done: time.Second},
	}
	got := recount(records)
	if got.Sent != 3 || got.Good != 1 || got.Errors["timeout"] != 1 || got.Errors[load.Status] != 1 || got.Statuses[503] != 1 || got.Statuses[0] != 0 ||
		got.Latency.Count() != 1 || got.Latency.Quantile(1) < 11*time.Millisecond || got.Late.Quantile(1) < time.Millisecond {
		t.Errorf("recount = %+v", got)
	}
}

// A quick turn is simulated as it is measured: the same clients, the same answers from empty queues on.
func TestQuickIsSimulatedAsMeasured(t *testing.T) {
	r := fullRun(enough, system.Partitioned)
	r.depth = result.Quick
	s, goal, err := r.setup(r.variants[0], 4)
	if err != nil || goal != (law.Goal{}) || s.Clients != 16 || s.Warm != 9 || s.Requests != 60 || s.Turns < 100 {
		t.Errorf("setup %+v, goal %+v, %v; want 16 clients and the 60 answers after the 9th of a hundred", s, goal, err)
	}
}

// A variant whose goal was kept at no rate is not valid there, and in no ranking.
func TestNotKeptIsNotRanked(t *testing.T) {
	r := fullRun(enough, system.Single, system.Partitioned)
	r.nodes = []int{4}
	for _, v := range r.variants {
		p := &point{at: at{v.Name, 4}, offered: 30, check: check.New(check.None, check.Options{})}
		for range fewest {
			p.answers(100, map[string]time.Duration{"single": time.Second, "partitioned": time.Millisecond}[v.Name])
		}
		r.points[p.at] = p
	}
	res := r.conclude()
	if p := res.Variants[0].Points[0]; p.Valid || p.Why != "the goal was kept at no rate that was judged; 30/s was the lowest" {
		t.Errorf("single: valid %v, %q", p.Valid, p.Why)
	}
	if !res.Variants[1].Points[0].Valid || len(res.Verdict.Tests) != 0 || res.Verdict.Kind != "refused" {
		t.Errorf("verdict %+v, want none: one variant alone has a valid point", res.Verdict)
	}
}

// Where the goal is lost far below what the single turns promised, each step down is twice the one before.
func TestDecideGoesDownFaster(t *testing.T) {
	h := &hunt{base: &point{}, top: 100, at: 10, kept: 10, lost: 9, single: map[int]*point{}, judged: map[int]*point{}}
	var rungsJudged []int
	for !h.done {
		rungsJudged = append(rungsJudged, h.at)
		h.judge().answers(100, time.Second)
		h.decide(goal99)
	}
	if !slices.Equal(rungsJudged, []int{10, 12, 16, 24}) {
		t.Errorf("judged rungs %v, want 10, 12, 16, 24", rungsJudged)
	}
	if got := h.found(goal99, 1); got != h.judged[24] {
		t.Errorf("found %.3g/s, want the lowest that was judged", got.offered)
	}
}

// The time left follows what searches really take.
func TestReckon(t *testing.T) {
	r := &run{total: 100}
	h := &hunt{budget: 10}
	if r.reckon(h, h.budget-4); r.total != 100 || h.budget != 6 {
		t.Errorf("within its budget: %v in all, %v left", r.total, h.budget)
	}
	if r.reckon(h, h.budget-9); r.total != 103 || h.budget != 0 {
		t.Errorf("3 s beyond it: %v in all, %v left; want 103 and 0", r.total, h.budget)
	}
}

// What is said before a search takes half to twice as long as it is said, where queues of a fixed service time (20 ms, so
// that a wait of 80 ms is too long) or a sharp limit end a rate, on a machine that does not add to it.
func TestPromiseHolds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := fullRun(rapid.IntRange(600, enough).Draw(t, "samples"), system.Single, system.Partitioned)
		limit := rapid.Float64Range(0.5, 0.95).Draw(t, "limit")
		sharp := rapid.Bool().Draw(t, "sharp")
		slow := func(rho float64) float64 { // share of requests beyond the goal
			switch {
			case sharp && rho <= limit:
				return 0
			case sharp || rho >= 1:
				return 1
			}
			return math.Exp(-8 * (1 - rho) / rho)
		}
		promised, took := 0.0, 0.0
		for i, v := range r.variants {
			for _, n := range r.nodes {
				h := &hunt{variant: i, base: &point{at: at{v.Name, n}}, top: r.top(v, n), at: firstRung, kept: rungs, lost: -1, single: map[int]*point{}, judged: map[int]*point{}}
				h.at = r.hint(v, n, h)
				promised += r.searchSeconds(v, n)
				ask := func(p *point) {
					share := min(1, slow(p.offered/h.top)*rapid.Float64Range(0.8, 1.25).Draw(t, "luck"))
					late := int(math.Round(share * 1000))
					p.answers(1000-late, 50*time.Millisecond)
					p.answers(late, 200*time.Millisecond)
					p.repeats = p.repeats[:len(p.repeats)-1]
					took += r.offerSeconds(n, p.offered)
				}
				for !h.narrow() {
					p := h.try()
					ask(p)
					h.learn(r.goal, p)
				}
				for !h.done {
					for range r.repeats {
						ask(h.judge())
					}
					h.decide(r.goal)
				}
				r.keep(h)
			}
		}
		if took > 2*promised || took < promised/2 {
			t.Fatalf("said %.0f s, took %.0f s", promised, took)
		}
	})
}

// The time that it takes to write every key before a point is part of what is said.
func TestPromiseCountsThePreload(t *testing.T) {
	r := fullRun(enough, system.Single, system.Partitioned)
	r.keys = load.Keys{N: 10_000}
	without := r.sideSeconds(4)
	r.preload = true
	single, four := 10_000.0/50, 10_000/r.top(r.variants[1], 4)
	if got := r.sideSeconds(4) - without; math.Abs(got-single-four) > 1e-6 {
		t.Errorf("10,000 keys take %.1f s, want %.1f by one node and %.1f by four", got, single, four)
	}
}
