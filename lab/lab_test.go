package lab

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"servent/lab/check"
	"servent/lab/load"
	"servent/lab/result"
	"servent/meter"
	"servent/system"
)

// Whatever the groups, all nodes are given, nobody gets more than the next whole number above its share, and
// with as many nodes as the file has each group gets its own.
func TestDivide(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		counts := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 5).Draw(t, "counts")
		n := rapid.IntRange(1, 40).Draw(t, "nodes")
		var groups []system.NodeGroup
		total := 0
		for _, c := range counts {
			groups = append(groups, system.NodeGroup{Count: c})
			total += c
		}
		got := divide(groups, n)
		sum := 0
		for i, g := range got {
			sum += g
			if share := float64(n*counts[i]) / float64(total); math.Abs(float64(g)-share) >= 1 {
				t.Fatalf("%d nodes over %v: %v; group %d has %d, its share is %.2f", n, counts, got, i, g, share)
			}
		}
		if sum != n {
			t.Fatalf("%d nodes over %v: %v", n, counts, got)
		}
		if n == total && !slices.Equal(got, counts) {
			t.Fatalf("as many as the file has, %v: %v", counts, got)
		}
	})
}

func shop() *system.System {
	return &system.System{Name: "shop", Services: []system.Service{
		{Name: "api", Architecture: system.Replicated, Replicas: 2, Ports: []system.Port{{Published: 8080}}},
		{Name: "cart", Architecture: system.Partitioned, Key: "/c/{key}", Replicas: 7},
	}, Nodes: []system.NodeGroup{{Name: "eu", Count: 3, Capacity: system.Capacity{Rate: 50}}, {Name: "ap", Count: 1, Capacity: system.Capacity{Rate: 50}}}}
}

func TestScaled(t *testing.T) {
	v := Variant{System: shop()}
	got := v.scaled("cart", 4)
	if s := got.Service("cart"); s.Replicas != 4 || s.Scale.Min != 4 || s.Scale.Max != 4 {
		t.Errorf("cart has %d replicas of %+v, want 4", s.Replicas, s.Scale)
	}
	if v.System.Service("cart").Public() || !got.Service("cart").Public() {
		t.Error("the load's requests to cart would count as calls of a program: its door is to be one for everybody")
	}
	if s := got.Service("api"); s.Replicas != 2 || s.Ports[0].Published != 0 {
		t.Errorf("api has %d replicas, published at %d; want 2, as the file has, and no fixed port", s.Replicas, s.Ports[0].Published)
	}
	if v.System.Services[0].Ports[0].Published != 8080 || v.System.Service("cart").Replicas != 7 {
		t.Error("the file's own system was changed")
	}
	v.System.Services[1].Architecture = system.Single
	two := v.scaled("cart", 2)
	if c := apart(two, "cart").Service("cart").Placement.Constraints; len(c) != 1 || c[0].Value != "eu-1" || !c[0].Not {
		t.Errorf("a single instance begins on %v, want not the node that answers for control", c)
	}
	if c := two.Service("cart").Placement.Constraints; len(c) != 0 {
		t.Errorf("when its node is dead, a single instance may stand on %v, want anywhere", c)
	}
	if c := apart(v.scaled("cart", 1), "cart").Service("cart").Placement.Constraints; len(c) != 0 {
		t.Errorf("on one node a single instance may stand on %v, want there", c)
	}
	v.Up = true
	if up := v.scaled("cart", 4); len(up.Nodes) != 1 || up.Nodes[0].Count != 1 || up.Nodes[0].Capacity.Workers != 4 {
		t.Errorf("scaled up: %+v, want one node with four workers", up.Nodes)
	}
}

// What is sent over TCP may be written with the escapes of C, or hold the bytes themselves.
func TestOverTCP(t *testing.T) {
	for _, tt := range []struct {
		send, check, expect string
		want                string
		kind                check.Kind // "" means an error
	}{
		{`41\n`, "", "", "41\n", check.Hash},
		{"41\n", "auto", "line", "41\n", check.Hash},
		{`INCR {key}\r\n`, "counter", "line", "INCR {key}\r\n", check.Counter},
		{"SET {key} {value}\r\n", "", "5", "SET {key} {value}\r\n", check.None},
		{`41\q`, "", "", "", ""},
		{"41\n", "", "word", "", ""},
		{"", "", "", "", ""},
	} {
		sys := shop()
		sys.Services[0].Switch.By = system.ByConnection
		sys.Compare = &system.Compare{Check: tt.check, Load: system.Load{Send: tt.send, Expect: tt.expect}}
		p, err := newPlan(Options{Variants: []Variant{{Name: "a", System: sys}}, Service: "api", Repeats: 1})
		if err != nil || tt.kind == "" {
			if (err == nil) != (tt.kind != "") {
				t.Errorf("send %q, expect %q: %v", tt.send, tt.expect, err)
			}
			continue
		}
		if p.tcp == nil || p.tcp.Send != tt.want || p.checks != tt.kind {
			t.Errorf("send %q: %+v, checked by %s; want %q by %s", tt.send, p.tcp, p.checks, tt.want, tt.kind)
		}
	}
}

func TestSubject(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*system.System)
		want   string // "" means an error
	}{
		{"the only one with a key", func(*system.System) {}, "cart"},
		{"named", func(s *system.System) { s.Compare = &system.Compare{Service: "api"} }, "api"},
		{"the only public one", func(s *system.System) { s.Services[1].Key = "" }, "api"},
		{"two with a key", func(s *system.System) { s.Services[0].Key = "header:X" }, ""},
		{"none", func(s *system.System) { s.Services = nil }, ""},
	} {
		sys := shop()
		tt.change(sys)
		got, err := Subject(sys)
		if string(got) != tt.want || (err != nil) != (tt.want == "") {
			t.Errorf("%s: %q, %v; want %q", tt.name, got, err, tt.want)
		}
	}
}

func TestArchitectures(t *testing.T) {
	s := shop().Service("cart")
	for _, tt := range []struct {
		key   string
		depth result.Depth
		want  []string
	}{
		{s.Key, result.Quick, []string{"single", "replicated", "partitioned", "ring"}},
		{s.Key, result.Full, []string{"single", "replicated", "partitioned", "ring", "chord", "pastry", "kademlia"}},
		{"", result.Quick, []string{"single", "replicated"}},
	} {
		s.Key = tt.key
		if got := Architectures(s, tt.depth); !slices.Equal(got, tt.want) {
			t.Errorf("key %q, %s: %v, want %v", tt.key, tt.depth, got, tt.want)
		}
	}
}

func TestGoal(t *testing.T) {
	g, err := goal(&system.Compare{Goal: map[string]string{"p90": "50ms", "p99": "0.2s", "errors": "0.5%", "survive": "2 nodes"}})
	if err != nil || g.Percentile != 99 || g.LatencyMS != 200 || g.Errors != 0.005 || g.Survive != 2 {
		t.Errorf("goal = %+v, %v", g, err)
	}
	if g, _ = goal(nil); g.Percentile != 90 || g.LatencyMS != 100 {
		t.Errorf("without a goal: %+v, want p90 < 100 ms", g)
	}
}

// tenths of a run at 100/s: so many good and bad in each tenth of a second.
func tenths(good ...int) *load.Result {
	res := &load.Result{Errors: map[string]int64{}}
	for i, n := range good {
		t := load.Tick{Good: max(0, n)}
		if n < 0 {
			t.Errors = -n
			res.Sent -= int64(n)
		}
		res.Sent += int64(t.Good)
		res.Good += int64(t.Good)
		res.Ticks = append(res.Ticks, t)
		for range t.Good {
			res.Records = append(res.Records, load.Record{Key: "k", Good: true, Sent: time.Duration(i) * load.TickLength, Done: time.Duration(i)*load.TickLength + 10*time.Millisecond})
		}
	}
	return res
}

func TestSurvived(t *testing.T) {
	even := func(n int) []int { return slices.Repeat([]int{10}, n) }
	for _, tt := range []struct {
		name             string
		res              *load.Result
		errors, recovery float64
	}{
		{"nobody noticed", tenths(even(30)...), 0, 0},
		{"half a second of errors", tenths(append(append(even(10), -5, -5, -5, -5, -5), even(15)...)...), 0.5, 0.5},
		{"silence, then all at once", tenths(append(append(even(10), 0, 0, 0, 0, 0, 0, 0, 0), even(12)...)...), 0, 0.8},
		{"never back", tenths(append(even(10), slices.Repeat([]int{-5}, 20)...)...), 2, -1},
		{"errors before the fault do not count", tenths(append([]int{-5}, even(29)...)...), 0, 0},
	} {
		s := survived(tt.res, 1, 100)
		if math.Abs(s.ErrorsFor-tt.errors) > 0.11 || math.Abs(s.Recovery-tt.recovery) > 0.11 {
			t.Errorf("%s: errors for %.1f s, back after %.1f s; want %.1f and %.1f", tt.name, s.ErrorsFor, s.Recovery, tt.errors, tt.recovery)
		}
	}
}

// What is read after a fault is what something was written to.
func TestWritten(t *testing.T) {
	before := []load.Record{{Method: "POST", Key: load.Key(9)}, {Method: "GET", Key: load.Key(3)}, {Method: "PUT", Key: load.Key(1_234_567)}}
	during := []load.Record{{Method: "DELETE", Key: load.Key(0)}, {Method: "POST", Key: load.Key(9)}, {Method: "POST"}}
	if got, want := written(before, during), []int64{0, 9, 1_234_567}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

// Runs have clocks of their own. What is read after a fault is held against the last write of the last run, not against that
// which was furthest into a run.
func TestLostByOneClock(t *testing.T) {
	put := func(value string, sent time.Duration) load.Record {
		return load.Record{Method: "PUT", Path: "/kv/a", Key: "k000001", Value: value, Status: 204, Good: true, Intended: sent, Sent: sent, Done: sent + time.Millisecond}
	}
	get := func(value string) load.Record {
		return load.Record{Method: "GET", Path: "/kv/a", Key: "k000001", Body: []byte(value), Status: 200, Good: true, Done: time.Millisecond}
	}
	var before []load.Record
	for _, run := range [][]load.Record{{put("first", 900*time.Millisecond)}, {put("second", 500*time.Millisecond)}, {put("third", 10*time.Millisecond)}} {
		before = joined(before, run)
	}
	lost := func(during []load.Record, read string) int {
		return check.Lost(check.KV, check.Fault{Before: shifted(before, -ended(before)), During: during, At: time.Second, After: []load.Record{get(read)}}).Lost
	}
	for _, tt := range []struct {
		during []load.Record
		read   string
		want   int
	}{
		{nil, "third", 0},
		{nil, "second", 1},
		{nil, "first", 1},
		{[]load.Record{put("fourth", time.Millisecond)}, "fourth", 0},
		{[]load.Record{put("fourth", time.Millisecond)}, "third", 1},
	} {
		if got := lost(tt.during, tt.read); got != tt.want {
			t.Errorf("%d writes around the fault, then %s is read: %d lost, want %d", len(tt.during), tt.read, got, tt.want)
		}
	}
}

// judged is a comparison with so many requests a second, by variant, at 4 nodes.
func judged(t *testing.T, rates map[string][]float64, wrong ...string) *result.Result {
	t.Helper()
	sys := shop()
	sys.Nodes = sys.Nodes[:1]
	r := &run{plan: &plan{base: sys, service: "cart", nodes: []int{1, 4}, repeats: 6, checks: check.Counter, goal: result.Goal{Errors: 0.001}},
		points: map[at]*point{}, survival: map[string]*result.Survival{}, began: time.Now()}
	for _, name := range []string{"a", "b", "c"} {
		if rates[name] == nil {
			continue
		}
		r.variants = append(r.variants, Variant{Name: name, System: sys})
		for _, n := range r.nodes {
			p := &point{at: at{name, n}, clients: 4, check: check.New(check.Counter, check.Options{})}
			for i, x := range rates[name] {
				h := meter.Histogram{}
				h.Record(time.Duration(4 / x * float64(time.Second)))
				p.latency = p.latency.Plus(h.Latency())
				p.repeats = append(p.repeats, result.Repeat{Rate: x, Requests: 10})
				p.requests += 10
				body := []byte("1")
				if !slices.Contains(wrong, name) {
					body = []byte(string(rune('1' + i)))
				}
				p.check.Add([]load.Record{{N: i, Method: "POST", Path: "/c/k", Key: "k", Status: 200, Good: true, Body: body, Sent: 1, Done: 2}})
			}
			r.points[at{name, n}] = p
		}
	}
	return r.conclude()
}

func TestVerdict(t *testing.T) {
	slow, fast := []float64{50, 50, 51, 49, 50, 50}, []float64{100, 101, 99, 100, 102, 100}
	nearly := []float64{100, 101, 100, 99, 100, 101}
	for _, tt := range []struct {
		name  string
		rates map[string][]float64
		wrong []string
		kind  string
		best  string
		note  string
	}{
		{"one is faster", map[string][]float64{"a": slow, "b": fast}, nil, "winner", "b", ""},
		{"no difference", map[string][]float64{"a": fast, "b": nearly}, nil, "same", "", ""},
		{"fast and wrong", map[string][]float64{"a": slow, "b": fast}, []string{"b"}, "winner", "a", "b is faster and WRONG"},
		{"as fast and wrong", map[string][]float64{"a": slow, "b": fast, "c": nearly}, []string{"c"}, "winner", "b", "c is as fast and WRONG"},
		{"all wrong", map[string][]float64{"a": slow}, []string{"a"}, "none", "", ""},
	} {
		v := judged(t, tt.rates, tt.wrong...).Verdict
		if v.Kind != tt.kind || tt.best != "" && v.Best != tt.best || tt.note != "" && !slices.Contains(v.Notes, tt.note) {
			t.Errorf("%s: %+v; want %s %s %s", tt.name, v, tt.kind, tt.best, tt.note)
		}
	}
}

// A machine that was the bottleneck refuses the ranking, whatever the figures.
func TestBusyMachineRefuses(t *testing.T) {
	sys := shop()
	r := &run{plan: &plan{base: sys, service: "cart", nodes: []int{1}}, points: map[at]*point{}}
	r.host.Busy = 0.97
	res := r.conclude()
	if res.Verdict.Kind != "refused" || !strings.Contains(res.Verdict.Sentence, "97 % busy") {
		t.Errorf("verdict %+v, want refused and why", res.Verdict)
	}
	r.host.Busy, r.late = 0.2, time.Second
	if res = r.conclude(); res.Verdict.Kind != "refused" || !strings.Contains(res.Verdict.Sentence, "wakes up") {
		t.Errorf("verdict %+v, want refused since the host wakes up late", res.Verdict)
	}
}

// A point whose program was slower than its node is not valid, says which rate would be, and is not ranked.
func TestSlowProgramIsNotRanked(t *testing.T) {
	p := &point{at: at{"a", 1}, repeats: []result.Repeat{{Rate: 1}}, turns: 100, slow: 5, validRate: 30, requests: 100}
	sys := shop()
	got := p.result(&run{plan: &plan{base: sys, repeats: 1, goal: result.Goal{Errors: 0.001}}})
	if got.Valid || !strings.Contains(got.Why, "30/s per node would be valid") {
		t.Errorf("point %+v, want not valid, and why", got)
	}
}

// The steady rate leaves out how a closed loop begins and ends.
func TestSteady(t *testing.T) {
	res := &load.Result{Took: 20 * time.Second, Good: 100}
	for i := range 100 {
		res.Records = append(res.Records, load.Record{Good: true, Done: time.Duration(i) * 100 * time.Millisecond})
	}
	res.Records[99].Done = 20 * time.Second
	if got, _ := steady(res, 0); math.Abs(got-10) > 0.01 {
		t.Errorf("steady rate %.2f, want 10", got)
	}
}

// Sixteen clients whose requests fall on four nodes by chance keep sixteen requests open, however long the
// longest queue grows in a short turn: until the first of them has nothing left to send.
func TestSteadyKeepsLittlesLaw(t *testing.T) {
	const clients, nodes, count = 16, 4, 100
	serve := 20 * time.Millisecond
	for seed := range uint64(20) {
		res := &load.Result{}
		var free [nodes]time.Duration
		var ready [clients]time.Duration // when each sends next
		rnd := rand.New(rand.NewPCG(seed, 1))
		for range count {
			c := 0
			for i := range ready {
				if ready[i] < ready[c] {
					c = i
				}
			}
			node := rnd.IntN(nodes)
			sent := ready[c]
			free[node] = max(free[node], sent) + serve
			ready[c] = free[node]
			res.Records = append(res.Records, load.Record{Good: true, Intended: sent, Sent: sent, Done: free[node]})
			res.Took = max(res.Took, free[node])
		}
		p := point{clients: clients, check: check.New(check.None, check.Options{})}
		p.add(res, 0)
		if off := p.little(); off > 1e-9 {
			t.Errorf("seed %d: Little's law is off by %.1f %%", seed, 100*off)
		}
		res.Records = slices.DeleteFunc(res.Records, func(rec load.Record) bool { return rec.Sent > serve && rnd.IntN(10) == 0 })
		lossy := point{clients: clients, check: check.New(check.None, check.Options{})}
		if lossy.add(res, 0); lossy.little() < 0.01 {
			t.Errorf("seed %d: a tenth of the requests is not counted, and Little's law is off by %.1f %%", seed, 100*lossy.little())
		}
	}
}

// Shares of keys add up, and a hot key's owner has the most.
func TestShares(t *testing.T) {
	r := &run{plan: &plan{service: "cart", keys: load.Keys{Kind: "zipf", S: 2, N: 1000}}}
	shares, sum := r.shares(system.Partitioned, 4), 0.0
	for _, s := range shares {
		sum += s
	}
	if math.Abs(sum-1) > 1e-9 || slices.Max(shares) < 0.6 {
		t.Errorf("shares %v of keys whose first takes 61 %%", shares)
	}
}

func TestLatest(t *testing.T) {
	dir := t.TempDir()
	if got := Latest(dir); got != "" {
		t.Errorf("Latest of nothing = %q", got)
	}
	one, err := Folder(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := (&result.Result{Version: result.Version}).Write(one); err != nil {
		t.Fatal(err)
	}
	two, err := Folder(dir)
	if err != nil || two == one {
		t.Fatalf("Folder = %s again, %v", two, err)
	}
	if got := Latest(dir); got != one {
		t.Errorf("Latest = %q, want %q: the other has no result", got, one)
	}
	if _, err := result.Read(one); err != nil {
		t.Errorf("Read = %v", err)
	}
	if _, err := result.Parse("x", []byte(`{"version": 99}`)); err == nil || !strings.Contains(err.Error(), "99") {
		t.Errorf("another version: %v", err)
	}
}
