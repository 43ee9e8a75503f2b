package lab

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"servent/architecture"
	"servent/lab/check"
	"servent/lab/host"
	"servent/lab/load"
	"servent/lab/result"
	"servent/system"
)

// run is a comparison under way.
type run struct {
	*plan
	o        Options
	stagings stagings
	began    time.Time
	host     result.Host
	measured bool // the capacity, since the file has none
	late     time.Duration
	points   map[at]*point
	tried    map[at][]*point // full: at other rates than the one found
	tops     map[at]float64  // full: the rate that a search begins below
	survival map[string]*result.Survival
	ran      map[string]*result.Runs // by variant, where they differ in what runs them
	spent    float64                 // of the time that it will take in all, about, in seconds
	total    float64
}

const (
	turnFor   = 425 * time.Millisecond // that a turn of a point takes where nothing bounds the variant
	turnLeast = 24                     // requests of a turn, and twice the clients
	warmUp    = 16                     // requests before the first turn: connections are made, programs are warm
	ceiling   = 0.25                   // of what the machine can switch: emulated nodes together want no more
)

// measure runs every number of nodes with all variants side by side.
func (r *run) measure(ctx context.Context) error {
	switched := r.host.Ceiling
	r.host = host.Describe()
	r.host.Ceiling = switched
	w := host.Watch(ctx)
	defer func() {
		seen := w.End()
		r.host.Busy, r.late = seen.Busy, seen.Late
	}()
	for _, n := range r.nodes {
		r.total += r.sideSeconds(n) + stageSeconds
		if n == r.nodes[len(r.nodes)-1] && r.kills(n) {
			r.total += float64(len(r.variants)) * faultSeconds
		}
	}
	if r.depth == result.Full {
		r.o.Tell(Progress{Text: r.promise(), Left: time.Duration(r.total) * time.Second, Stays: true})
	}
	for _, n := range r.nodes {
		if err := r.side(ctx, n); err != nil {
			return err
		}
	}
	return nil
}

// sideSeconds is about how long so many nodes are loaded.
func (r *run) sideSeconds(nodes int) (sum float64) {
	for _, v := range r.variants {
		if r.depth == result.Full {
			sum += r.searchSeconds(v, nodes)
		} else {
			sum += r.turnSeconds(v, nodes) * float64(r.repeats)
		}
		sum += r.preloadSeconds(v, nodes)
	}
	return sum
}

// preloadSeconds is about how long it takes to write every key once, where the file asks for it.
func (r *run) preloadSeconds(v Variant, nodes int) float64 {
	if !r.preload {
		return 0
	}
	return float64(r.keys.N) / r.top(v, nodes) * r.pace()
}

// stageSeconds is about what it takes to start and end the stages of one number of nodes.
const stageSeconds = 4

// kills says that a node is killed at so many nodes. Control's clocks, which a recovery takes, are not
// stretched with the emulated time, so then none is.
func (r *run) kills(nodes int) bool {
	return !r.o.NoFault && r.pace() == 1 && r.goal.Survive > 0 && nodes > 1 && nodes == r.nodes[len(r.nodes)-1]
}

// requests of one turn: the same for every variant.
func (r *run) requests(nodes int) int {
	return max(int(ideal(r.base.Nodes, nodes)*turnFor.Seconds()), turnLeast, 2*r.per*workers(r.base.Nodes, nodes))
}

// turnSeconds is about how long a turn takes.
func (r *run) turnSeconds(v Variant, nodes int) float64 {
	return float64(r.requests(nodes)) / r.most(v, nodes) * r.pace()
}

// most is what the nodes with an instance serve in a second if none ever waits.
func (r *run) most(v Variant, nodes int) float64 {
	if row, _ := architecture.Of(v.System.Service(r.service).Architecture); row.Where == architecture.OneNode && !v.Up {
		return ideal(r.base.Nodes, 1)
	}
	return ideal(r.base.Nodes, nodes)
}

// tell says how far the comparison is.
func (r *run) tell(seconds float64, format string, args ...any) {
	r.spent += seconds
	share := math.Min(1, r.spent/math.Max(r.total, 1))
	left := time.Duration(math.Max(0, r.total-r.spent) * float64(time.Second)).Round(time.Second)
	r.o.Tell(Progress{Text: fmt.Sprintf(format, args...), Share: share, Left: left})
}

// side measures all variants on so many nodes, in turns.
func (r *run) side(ctx context.Context, nodes int) error {
	r.tell(0, "%s: starting %s", some(nodes, "node"), some(len(r.variants), "system"))
	want := map[string]*system.System{}
	for i := range r.variants {
		want[stageName(i, nodes)] = stretched(apart(r.variants[i].scaled(r.service, nodes), r.service), r.pace())
	}
	stages, err := r.stagings.openAll(ctx, want, r.service)
	if err != nil {
		return err
	}
	defer closeAll(stages)
	r.tell(stageSeconds, "%s: all ready", some(nodes, "node"))
	records := map[string][]load.Record{} // of the service's whole life so far, where a node is killed later
	last := r.repeats
	if r.depth == result.Full {
		last = 0 // only warmed up here
	}
	for turn := -1; turn < last; turn++ {
		for i := range r.variants {
			k := (i + max(turn, 0)) % len(r.variants) // A B C, B C A, …: nobody is always first
			v := r.variants[k]
			if err := r.turn(ctx, v, stages[stageName(k, nodes)], nodes, turn, records); err != nil {
				return fmt.Errorf("%s on %s: %w", v.Name, some(nodes, "node"), err)
			}
		}
	}
	if r.depth == result.Full {
		if err := r.search(ctx, stages, nodes, records); err != nil {
			return err
		}
	}
	if !r.kills(nodes) {
		return nil
	}
	for i, v := range r.variants {
		r.tell(faultSeconds, "%s: a node of %s is killed", some(nodes, "node"), v.Name)
		s, err := r.kill(ctx, v, stages[stageName(i, nodes)], nodes, records[v.Name])
		if err != nil {
			return fmt.Errorf("kill a node of %s: %w", v.Name, err)
		}
		r.survival[v.Name] = s
	}
	return nil
}

// stageName is a folder for a variant.
func stageName(variant, nodes int) string { return fmt.Sprintf("v%d-n%d", variant+1, nodes) }

// turn is one repeat of one variant; turn -1 warms it up.
func (r *run) turn(ctx context.Context, v Variant, s *stage, nodes, turn int, records map[string][]load.Record) error {
	key := at{v.Name, nodes}
	p := r.points[key]
	if p == nil {
		p = &point{at: key, clients: r.per * workers(r.base.Nodes, nodes), check: check.New(r.checks, r.looks)}
		r.points[key] = p
	}
	n := r.requests(nodes)
	o := r.options(s, warmUp+turn*n)
	o.Clients, o.Count = p.clients, n
	if turn < 0 {
		if err := r.prepare(ctx, v, s, p, records); err != nil {
			return err
		}
		o.First, o.Count = 0, warmUp
		res, err := r.paced(ctx, o)
		if err != nil {
			return err
		}
		p.check.Add(res.Records)
		records[v.Name] = joined(records[v.Name], res.Records)
		return r.answers(v, s, res)
	}
	seconds := r.turnSeconds(v, nodes)
	r.tell(0, "%s: %s, turn %d of %d", some(nodes, "node"), v.Name, turn+1, r.repeats)
	got, err := r.repeat(ctx, p, s, o, 0)
	r.tell(seconds, "%s: %s, turn %d of %d", some(nodes, "node"), v.Name, turn+1, r.repeats)
	if r.kills(nodes) {
		records[v.Name] = joined(records[v.Name], got)
	}
	return err
}

// answers says what is wrong when a service does not answer a single request right.
func (r *run) answers(v Variant, s *stage, res *load.Result) error {
	if res.Good > 0 {
		return nil
	}
	why := "nothing"
	for class, n := range res.Errors {
		why = fmt.Sprintf("%d × %s", n, class)
	}
	for status, n := range res.Statuses {
		why += fmt.Sprintf(", %d × status %d", n, status)
	}
	for _, rec := range res.Records {
		if len(rec.Body) > 0 {
			why += fmt.Sprintf("; the first answer: %q", strings.TrimSpace(string(rec.Body)))
			break
		}
	}
	return &system.Hint{Err: fmt.Errorf("no request was answered right: %s", why), Next: "x-servent.compare.load.mix says what is sent; try it by hand: servent up, then curl"}
}

// prepare writes every key once, where the file asks for it.
func (r *run) prepare(ctx context.Context, v Variant, s *stage, p *point, records map[string][]load.Record) error {
	if !r.preload {
		return nil
	}
	i := slices.IndexFunc(r.mix, func(e load.Entry) bool { return e.Method == "PUT" && strings.Contains(e.Path, "{key}") })
	if i < 0 {
		return &system.Hint{Err: fmt.Errorf("preload writes every key by PUT, and the mix has none"), Next: "leave x-servent.compare.load.preload out, or add a PUT to the mix"}
	}
	o := r.options(s, preloadFirst)
	o.Mix, o.Keys = r.mix[i:i+1], load.Keys{Kind: "sequential", N: r.keys.N}
	o.Clients, o.Count = p.clients, int(r.keys.N)
	what := fmt.Sprintf("%s: %s, every key is written", some(p.nodes, "node"), p.variant)
	r.tell(0, "%s", what)
	res, err := r.paced(ctx, o)
	if err != nil {
		return err
	}
	r.tell(r.preloadSeconds(v, p.nodes), "%s", what)
	for j := range res.Records {
		res.Records[j].Entry = i
	}
	p.check.Add(res.Records)
	if res.Good < r.keys.N {
		return fmt.Errorf("preload: %d of %d keys were not acknowledged: %v", r.keys.N-res.Good, r.keys.N, res.Errors)
	}
	records[p.variant] = joined(records[p.variant], res.Records)
	return nil
}

// Numbers of requests: values that are sent are made from them, so no two runs of one stage share any.
const (
	faultFirst   = 1 << 40
	finalFirst   = 1 << 41
	preloadFirst = 1 << 42
)

// capacity finds the nodes' capacity where the file has none: what one client gets from one instance that
// nothing slows, with room for its variation, and so little that all emulated nodes together stay below a
// quarter of what this machine can switch. A full comparison goes so far that it asks what the machine can
// switch in any case.
func (r *run) capacity(ctx context.Context) error {
	given := typed(r.base.Nodes)
	if given && r.depth != result.Full {
		return nil
	}
	r.measured = !given
	text := "measuring the program, since the file has no capacity"
	if given {
		text = "measuring what this machine can switch"
	}
	r.o.Tell(Progress{Text: text})
	v := r.variants[0]
	free := v.scaled(r.service, 1)
	for i := range free.Nodes {
		free.Nodes[i].Capacity = system.Capacity{} // nothing slows it
	}
	s, err := r.stagings.open(ctx, "capacity", free, r.service)
	if err != nil {
		return err
	}
	defer s.close()
	one := r.options(s, 0)
	one.Clients, one.Count, one.Duration = 1, 400, time.Second
	alone, err := drive(ctx, one)
	if err == nil {
		err = r.answers(v, s, alone)
	}
	if err != nil {
		return err
	}
	all := r.options(s, 1000)
	all.Clients, all.Count, all.Duration = 16, 20_000, time.Second
	many, err := drive(ctx, all)
	if err != nil {
		return err
	}
	r.host.Ceiling = many.Rate()
	if given {
		return nil
	}
	rate := roundDown(min(0.5/alone.Latency.Quantile(0.99).Seconds(), r.pace()*ceiling*many.Rate()/float64(r.nodes[len(r.nodes)-1])))
	if rate < 1 {
		return &system.Hint{Err: fmt.Errorf("one request takes %s and this machine switches %s: too slow for %s", short(alone.Latency.Quantile(0.99)), perSecond(many.Rate()), some(r.nodes[len(r.nodes)-1], "emulated node")),
			Next: "servent compare --nodes 1,2   (or type a capacity: x-servent.nodes.NAME.capacity.rate)"}
	}
	for i := range r.variants {
		sys := *r.variants[i].System
		sys.Nodes = slices.Clone(sys.Nodes)
		for j := range sys.Nodes {
			if sys.Nodes[j].Capacity.Rate <= 0 {
				sys.Nodes[j].Capacity.Rate = rate
			}
		}
		r.variants[i].System = &sys
	}
	r.base = r.variants[0].System
	return nil
}

// roundDown keeps one digit: 83.7 is 80.
func roundDown(x float64) float64 {
	if x < 1 {
		return 0
	}
	p := math.Pow(10, math.Floor(math.Log10(x)))
	return math.Floor(x/p) * p
}

// capacities of the groups as they stand in a result.
func (r *run) capacities() []result.Capacity {
	var out []result.Capacity
	for _, g := range r.base.Nodes {
		c := result.Capacity{Group: g.Name, Site: string(g.Site), Rate: g.Capacity.Rate, Workers: max(1, g.Capacity.Workers), Pass: pass(g.Capacity), Source: "typed", Where: g.Pos.String()}
		if r.measured {
			c.Source, c.Where = "measured", ""
		}
		for _, l := range g.Links {
			c.Latency = append(c.Latency, []string{string(l.To), l.Latency.String()})
		}
		if g.Price.Amount > 0 {
			c.Price = &result.Price{Amount: g.Price.Amount, Currency: g.Price.Currency, Per: g.Price.Per}
		}
		out = append(out, c)
	}
	return out
}

// serve is how long the fastest node takes for a request.
func (r *run) serve() time.Duration {
	fastest := 0.0
	for _, g := range r.base.Nodes {
		fastest = math.Max(fastest, g.Capacity.Rate)
	}
	return time.Duration(float64(time.Second) / math.Max(fastest, 1))
}
