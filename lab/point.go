package lab

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"servent/admin"
	"servent/lab/check"
	"servent/lab/law"
	"servent/lab/load"
	"servent/lab/result"
	"servent/meter"
	"servent/system"
)

// at names a point: a variant on so many nodes.
type at struct {
	variant string
	nodes   int
}

// point is what was measured of one.
type point struct {
	at
	clients   int     // closed loop
	offered   float64 // requests a second, open loop
	repeats   []result.Repeat
	latency   meter.Latency
	late      meter.Latency
	requests  int64
	errors    int64
	notSent   int64
	hops      int64
	lookups   int64
	asked     int64         // requests whose key's owner had to be asked for
	inside    []float64     // requests open on average, of every repeat
	took      time.Duration // of all turns, as nodes counted
	metered   int64         // requests, as nodes counted: warm-ups, too
	bytes     float64       // between nodes, above what an idle system says
	load      map[system.NodeID]result.Share
	turns     int64 // of stations
	slow      int64 // of them: the program was slower
	validRate float64
	check     *check.Checker
	trace     []result.Step
	traceWhat string
}

// drive runs a load to its end: one that was cut short has measured nothing.
func drive(ctx context.Context, o load.Options) (*load.Result, error) {
	res, err := load.Run(ctx, o)
	if err == nil {
		err = ctx.Err()
	}
	return res, err
}

// repeat is one turn of a variant: the load, and what nodes counted meanwhile. Its first requests, so many,
// are answered and judged but not measured.
func (r *run) repeat(ctx context.Context, p *point, s *stage, o load.Options, warm int) ([]load.Record, error) {
	before, err := s.meters(ctx)
	if err != nil {
		return nil, err
	}
	began := time.Since(r.began).Seconds()
	res, err := r.paced(ctx, o)
	if err != nil {
		return nil, err
	}
	after, err := s.meters(ctx)
	if err != nil {
		return nil, err
	}
	p.check.Add(res.Records)
	p.took += res.Took
	p.metered += res.Sent
	p.count(before, after)
	p.draw(res.Records, s)
	measured := res
	if warm > 0 {
		measured = recount(slices.DeleteFunc(slices.Clone(res.Records), func(rec load.Record) bool { return rec.N < o.First+warm }))
		measured.NotSent, measured.Busy, measured.Took = res.NotSent, res.Busy, res.Took
	}
	p.add(measured, began)
	return res.Records, nil
}

// add counts a run in.
func (p *point) add(res *load.Result, began float64) {
	rate, open := steady(res, p.clients)
	p.inside = append(p.inside, open)
	ms := func(q float64) float64 { return float64(res.Latency.Quantile(q)) / 1e6 }
	p.repeats = append(p.repeats, result.Repeat{At: began, Seconds: res.Took.Seconds(), Requests: res.Sent, Errors: res.Failed(),
		Rate: rate, P50: ms(0.5), P90: ms(0.9), P99: ms(0.99)})
	p.latency, p.late = p.latency.Plus(res.Latency), p.late.Plus(res.Late)
	p.requests += res.Sent
	p.errors += res.Failed()
	p.notSent += res.NotSent
	for _, rec := range res.Records {
		p.hops += int64(rec.Hops + rec.Lookup)
		p.lookups += int64(rec.Lookup)
		if rec.Lookup > 0 {
			p.asked++
		}
	}
}

// steady is the rate of right answers between the first tenth and the last tenth of them, and how many
// requests were open meanwhile on average. While the queues fill, and from when the first of so many clients
// of a closed loop has nothing left to send, fewer workers than there are have work; so the time ends with
// the last answer that still makes its client send, if that comes before the last tenth. An open loop has no
// clients.
func steady(res *load.Result, clients int) (rate, open float64) {
	good := slices.DeleteFunc(slices.Clone(res.Records), func(rec load.Record) bool { return !rec.Good })
	slices.SortFunc(good, func(a, b load.Record) int { return cmp.Compare(a.Done, b.Done) })
	n := len(good)
	first, last := n/10, n-1-max(n/10, clients)
	if n < 20 || last <= first || good[last].Done <= good[first].Done {
		return res.Rate(), res.Busy.Seconds() / max(res.Took.Seconds(), 1e-9)
	}
	from, to := good[first].Done, good[last].Done
	inside := time.Duration(0)
	for _, rec := range res.Records {
		inside += max(0, min(rec.Done, to)-max(rec.Intended, from))
	}
	return float64(last-first) / (to - from).Seconds(), float64(inside) / float64(to-from)
}

// count adds what each node counted during a run.
func (p *point) count(before, after map[system.NodeID]admin.NodeMeter) {
	if p.load == nil {
		p.load = map[system.NodeID]result.Share{}
	}
	for id, m := range after {
		b, ok := before[id]
		if !ok || m.Station == nil || b.Station == nil {
			continue
		}
		share := p.load[id]
		share.Node = id
		share.Served += m.Station.Served - b.Station.Served
		share.Passed += m.Station.Passed - b.Station.Passed
		p.load[id] = share
		p.turns += m.Station.Served - b.Station.Served
		p.slow += m.Station.Late - b.Station.Late
		if late := m.Station.Late - b.Station.Late; late > 0 && (p.validRate == 0 || m.Station.ValidRate < p.validRate) {
			p.validRate = m.Station.ValidRate // of the slowest node
		}
		p.bytes += float64(m.Link.Sent - b.Link.Sent)
	}
}

// draw keeps one request as messages: the first that went the longest way seen.
func (p *point) draw(records []load.Record, s *stage) {
	best, most := -1, -1
	for i, rec := range records {
		if rec.Good && rec.Hops+rec.Lookup > most {
			best, most = i, rec.Hops+rec.Lookup
		}
	}
	if best < 0 || p.trace != nil {
		return
	}
	rec, entry := records[best], "entry"
	st, _ := s.look()
	for _, d := range st.Doors {
		if d.Address == rec.Door {
			entry = string(d.Node)
		}
	}
	p.trace, p.traceWhat = steps(rec, entry), rec.Method+" "+rec.Path
}

// steps is one request as messages. When it was sent and answered is measured at the client, which nodes it
// met is said by them, but for those between that only sent a lookup on: they are counted. Between these moments it
// is drawn evenly.
func steps(rec load.Record, entry string) []result.Step {
	what := rec.Method + " " + rec.Path
	var out []result.Step
	out = append(out, result.Step{From: "client", To: entry, What: what})
	from := entry
	for i := range rec.Lookup {
		to := fmt.Sprintf("neighbour %d", i+1)
		if i == rec.Lookup-1 {
			to = rec.Node
		}
		out = append(out, result.Step{From: from, To: to, What: "lookup"})
		from = to
	}
	if rec.Lookup > 0 {
		out = append(out, result.Step{From: rec.Node, To: entry, What: "it is me"})
	}
	if rec.Node != entry && rec.Node != "" {
		out = append(out, result.Step{From: entry, To: rec.Node, What: what})
	}
	out = append(out, result.Step{From: rec.Node, To: rec.Instance, What: what}, result.Step{From: rec.Instance, To: rec.Node, What: fmt.Sprint(rec.Status)})
	if rec.Node != entry && rec.Node != "" {
		out = append(out, result.Step{From: rec.Node, To: entry, What: fmt.Sprint(rec.Status)})
	}
	out = append(out, result.Step{From: entry, To: "client", What: fmt.Sprint(rec.Status)})
	for i := range out {
		out[i].AtMS = float64(rec.Done-rec.Sent) / 1e6 * float64(i) / float64(len(out)-1)
	}
	return out
}

// little is by how much clients = rate × latency is off, as a share: Little's law. In a time of finite length
// it holds exactly only when rate × latency is the requests' time that lies within it, so what was open when it
// began counts from then on, and what was open when it ended until then (Little, Operations Research 59(3), 2011).
// No closed loop can break it: where it seems broken, clients were not sending all the time, or
// something was not counted.
func (p *point) little() float64 {
	if p.clients == 0 || len(p.inside) == 0 {
		return 0
	}
	return math.Abs(law.Median(p.inside).Median/float64(p.clients) - 1)
}

// result is the point as it stands in the file.
func (p *point) result(r *run) result.Point {
	rates := make([]float64, len(p.repeats))
	for i, rep := range p.repeats {
		rates[i] = rep.Rate
	}
	m := law.Median(rates)
	ms := func(q float64) float64 { return float64(p.latency.Quantile(q)) / 1e6 }
	out := result.Point{Nodes: p.nodes, Mode: result.Emulated, Valid: true, Clients: p.clients, Offered: p.offered, Repeats: p.repeats,
		Rate:      result.Interval{Median: m.Median, Low: m.Low, High: m.High},
		LatencyMS: result.Latency{P50: ms(0.5), P90: ms(0.9), P99: ms(0.99), Max: float64(p.latency.Max()) / 1e6},
		Requests:  p.requests, Errors: p.errors, NotSent: p.notSent, LateMS: float64(p.late.Quantile(0.99)) / 1e6, NodeLoad: []result.Share{}}
	for _, b := range p.latency {
		out.Bins = append(out.Bins, result.Bin{Micros: b.Micros, Count: b.Count})
	}
	if n := float64(p.requests); n > 0 {
		out.Hops, out.Lookup = float64(p.hops)/n, float64(p.lookups)/n
		out.Bytes = p.bytes / max(float64(p.metered), 1)
	}
	var served []float64
	passed := int64(0)
	for _, share := range p.load {
		passed += share.Passed
		share.Busy = r.busy(share, p.took)
		out.NodeLoad = append(out.NodeLoad, share)
		served = append(served, float64(share.Served))
	}
	slices.SortFunc(out.NodeLoad, func(a, b result.Share) int { return strings.Compare(string(a.Node), string(b.Node)) })
	if len(served) > 0 {
		out.Gini = law.Gini(served)
	}
	if p.requests > 0 && p.metered > 0 {
		// What is passed on is a request, which is answered the same way, or a lookup, which its owner alone answers.
		onward := float64(passed)/float64(p.metered) - out.Lookup
		out.Messages = max(0, 2*onward) + out.Lookup + float64(p.asked)/float64(p.requests)
	}
	if p.turns > 0 {
		out.Station = result.Station{LateShare: float64(p.slow) / float64(p.turns), ValidRate: p.validRate * r.pace()}
	}
	wants := r.wants(p)
	switch {
	case out.Station.LateShare > slowMost:
		out.Valid, out.Why = false, fmt.Sprintf("the program was slower than its node in %.1f %% of turns; %s per node would be valid", 100*out.Station.LateShare, perSecond(out.Station.ValidRate))
	case r.host.Ceiling > 0 && wants/r.pace() > ceiling*r.host.Ceiling:
		out.Valid, out.Why = false, r.tooMuch(p, wants)
	case float64(p.errors) > r.goal.Errors*float64(p.requests)+1:
		out.Valid, out.Why = false, fmt.Sprintf("%d of %d requests failed", p.errors, p.requests)
	case len(p.repeats) < r.repeats:
		out.Why = fmt.Sprintf("%d of %d repeats", len(p.repeats), r.repeats)
	}
	return out
}

// wants is what the emulated nodes of a point could serve together, in a second.
func (r *run) wants(p *point) float64 {
	for _, v := range r.variants {
		if v.Name == p.variant {
			return r.most(v, p.nodes)
		}
	}
	return 0
}

// tooMuch says why emulated nodes that want more than the machine has to spare show nothing, and what would.
func (r *run) tooMuch(p *point, wants float64) string {
	has := ceiling * r.host.Ceiling * r.pace()
	return fmt.Sprintf("%s want %s, more than a quarter of the %s that this machine switches; %s per node would be valid, or --slow %d",
		some(p.nodes, "node"), perSecond(wants), perSecond(r.host.Ceiling), perSecond(roundDown(has/float64(p.nodes))), int(math.Ceil(r.pace()*wants/has)))
}

// busy is the share of a node's time that it was at work.
func (r *run) busy(s result.Share, took time.Duration) float64 {
	for _, g := range r.base.Nodes {
		if strings.HasPrefix(string(s.Node), g.Name+"-") && took > 0 {
			return (float64(s.Served)/g.Capacity.Rate + float64(s.Passed)/pass(g.Capacity)) / float64(max(1, g.Capacity.Workers)) / took.Seconds()
		}
	}
	return 0
}

// sites are the clients of a stage: at the file's sites and shares, or all at one place.
func (r *run) sites(s *stage) []load.Site {
	byName := s.sys.Service(r.service).Switch.By == system.ByName
	if len(r.from) == 0 {
		all := []load.Site{{Doors: func() []string { return s.doors("") }}}
		if byName {
			all[0].Find = s.find("", r.resolvers)
		}
		return all
	}
	var out []load.Site
	for site, share := range r.from {
		out = append(out, load.Site{Name: string(site), Share: share, Doors: func() []string {
			if near := s.doors(site); len(near) > 0 {
				return near
			}
			return s.doors("") // no live node is near
		}})
	}
	for i := range out {
		if byName {
			out[i].Find = s.find(system.Site(out[i].Name), r.resolvers)
		}
	}
	slices.SortFunc(out, func(a, b load.Site) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// options of a load on a stage. number is of its first request.
func (r *run) options(s *stage, number int) load.Options {
	return load.Options{Sites: r.sites(s), Mix: r.mix, TCP: r.tcp, Keys: r.keys, Seed: r.seed, First: number, Keep: true}
}
