package load

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"slices"
	"sync"
	"time"

	"servent/meter"
)

// Site is clients at one place.
type Site struct {
	Name  string
	Share float64                                                           // of the clients or requests; sites without one share alike
	Find  func(ctx context.Context, client uint64) (string, error)          // instead of Doors, for clients that look the one door up by name; nil: they do not
	Doors func() []string                                                   // host:port of what lets them in now
	Dial  func(ctx context.Context, network, addr string) (net.Conn, error) // nil: as the machine does
	TLS   *tls.Config                                                       // nil: plain; its ServerName, if empty, is the door's host
}

// Options of [Run]. Sites and either Mix or TCP must be set, and an end: Count or Duration.
type Options struct {
	Sites    []Site
	Mix      []Entry
	TCP      *TCP
	Keys     Keys
	Rate     Rate           // open loop; not read when there are Clients
	Poisson  bool           // open loop: exponential gaps instead of equal ones
	Clients  int            // closed loop: each sends as its last request is answered
	Think    time.Duration  // closed loop: between an answer and the client's next request; the first ones are spread over it
	Replay   []Recorded     // sent at their moments instead of by a rate, by the mix's entry that has their method
	Speed    float64        // of the replay: 2 is twice as fast; 0 means 1
	Count    int            // requests in all; 0: no bound
	Duration time.Duration  // after which nothing more is sent; 0: no bound
	Timeout  time.Duration  // of one request; 0 means 10s
	Inflight int            // open loop: requests open at once, further ones are not sent and counted; 0 means 1024
	Seed     uint64         // of every draw: the same seed sends the same requests in the same order
	First    int            // number of the first request: later runs of one seed go on where an earlier one ended
	Keep     bool           // keep a record of every request
	Tell     func(Progress) // called twice a second from one goroutine; nil: nobody
}

// Result is what clients got.
type Result struct {
	Asked    int64 // that the schedule or the clients wanted; those that the end of ctx cut short, too
	Sent     int64
	Good     int64             // answered, with a status that is right
	NotSent  int64             // the schedule wanted them, and too many were open
	Errors   map[string]int64  // by class
	Examples map[string]string // by class, the first error in words; none of Status, which Statuses tells
	Statuses map[int]int64
	Wrote    int64         // bytes of requests; with TLS, what is inside
	Got      int64         // bytes of answers, heads and all
	Window   time.Duration // over which requests were to be sent
	Took     time.Duration // from the start to the last answer
	Busy     time.Duration // clients' time from sending to the answer, all added up: Little's N is Busy/Took
	Latency  meter.Latency // of right answers, from the intended start
	Late     meter.Latency // by how much requests were sent later than intended
	Ticks    []Tick        // one a tenth of a second
	Records  []Record      // in the order in which they ended; empty without Keep
}

// Tick is a tenth of a second of a run, by when requests ended.
type Tick struct {
	Good, Errors int
	Latency      meter.Latency // of the good ones
}

// TickLength is the length of a [Tick].
const TickLength = 100 * time.Millisecond

// Failed is how many requests that were sent have no right answer.
func (r *Result) Failed() int64 { return r.Sent - r.Good }

// Rate is right answers a second.
func (r *Result) Rate() float64 {
	if r.Took <= 0 {
		return 0
	}
	return float64(r.Good) / r.Took.Seconds()
}

const timeout = 10 * time.Second

// Inflight is how many requests of an open loop may be open at once, when nothing else is said.
const Inflight = 1024

// Run sends requests until the count or the duration is reached, or ctx ends, and waits for the open ones.
// When ctx ends, open ones are given up and count for nothing. Latency is measured from the moment that the
// schedule intended, not from that of sending: a system that stalls must not slow the questions down
// (Tene's coordinated omission; Schroeder et al., NSDI 2006, on open and closed systems).
func Run(ctx context.Context, o Options) (*Result, error) {
	r, err := newRunner(o)
	if err != nil {
		return nil, err
	}
	defer r.close()
	stop := context.AfterFunc(ctx, r.close) // open requests end
	defer stop()
	r.start = time.Now()
	defer r.tell()()
	if o.Clients > 0 {
		r.closedLoop(ctx)
	} else {
		r.openLoop(ctx)
	}
	return r.result(), nil
}

// Check says what is wrong with options, as [Run] would.
func (o Options) Check() error {
	r, err := newRunner(o)
	if err == nil {
		r.close()
	}
	return err
}

type runner struct {
	o       Options
	kinds   []*kind
	sums    []float64 // of weights, up to each entry
	keys    *sampler
	methods map[string]int // of a replay: the entry that sends a method
	pools   []*pool
	share   []float64 // of sites, summed up
	send    template  // of TCP
	start   time.Time
	shots   sync.Pool

	latency, late meter.Histogram

	mu  sync.Mutex // guards what follows
	res Result
}

func newRunner(o Options) (*runner, error) {
	r := &runner{o: o, res: Result{Errors: map[string]int64{}, Examples: map[string]string{}, Statuses: map[int]int64{}}}
	if r.o.Timeout == 0 {
		r.o.Timeout = timeout
	}
	if r.o.Inflight == 0 {
		r.o.Inflight = Inflight
	}
	switch {
	case len(o.Sites) == 0:
		return nil, errors.New("load: want clients at one site at least")
	case (len(o.Mix) == 0) == (o.TCP == nil):
		return nil, errors.New("load: want a mix of HTTP requests or one over TCP")
	case len(o.Replay) > 0 && (o.TCP != nil || o.Clients > 0):
		return nil, errors.New("load: a replay is of HTTP requests, at their own moments: want neither TCP nor clients")
	case o.Count <= 0 && o.Duration <= 0 && len(o.Replay) == 0:
		return nil, errors.New("load: want a count or a duration: a load without end is none")
	case o.Clients <= 0 && o.Rate.From <= 0 && o.Rate.To <= 0 && len(o.Replay) == 0:
		return nil, errors.New("load: want clients or a rate")
	}
	if err := o.Rate.check(o.Duration); o.Clients <= 0 && err != nil {
		return nil, err
	}
	var err error
	if r.keys, err = newSampler(o.Keys); err != nil {
		return nil, err
	}
	if o.TCP != nil {
		r.send = parseTemplate(o.TCP.Send)
	}
	sum, alike := 0.0, !slices.ContainsFunc(o.Mix, func(e Entry) bool { return e.Weight > 0 })
	for _, e := range o.Mix {
		k, err := prepare(e)
		if err != nil {
			return nil, err
		}
		if sum += e.Weight; alike {
			sum++
		}
		r.kinds, r.sums = append(r.kinds, k), append(r.sums, sum)
	}
	if err := r.checkReplay(); err != nil {
		return nil, err
	}
	sum, alike = 0, !slices.ContainsFunc(o.Sites, func(s Site) bool { return s.Share > 0 })
	for _, s := range o.Sites {
		if sum += s.Share; alike {
			sum++
		}
		r.pools, r.share = append(r.pools, newPool(s)), append(r.share, sum)
	}
	r.shots.New = func() any { return &shot{seed: o.Seed, answer: answer{keep: o.Keep}} }
	return r, nil
}

func (r *runner) close() {
	for _, p := range r.pools {
		p.close()
	}
}

// among finds the part that a draw falls into; sums are the parts' sizes, summed up.
func among(sums []float64, h uint64) int {
	x := unit(h) * sums[len(sums)-1]
	i, found := slices.BinarySearch(sums, x)
	if found {
		i++
	}
	return min(i, len(sums)-1)
}

// done says that no further request is to be sent.
func (r *runner) done(i int, at time.Duration) bool {
	return r.o.Count > 0 && i >= r.o.Count || len(r.o.Replay) > 0 && i >= len(r.o.Replay) || r.o.Duration > 0 && at >= r.o.Duration
}

// openLoop sends by the schedule, whatever the answers.
func (r *runner) openLoop(ctx context.Context) {
	wait := newPacer()
	defer wait.close()
	s := &schedule{rate: r.o.Rate, climb: r.o.Duration.Seconds(), poisson: r.o.Poisson, seed: r.o.Seed, replay: r.o.Replay, speed: r.o.Speed}
	room := make(chan struct{}, r.o.Inflight)
	var open sync.WaitGroup
	defer open.Wait()
	for i := 0; ; i++ {
		at := s.at()
		if r.done(i, at) {
			r.window(at)
			return
		}
		if !wait.until(ctx, r.start.Add(at)) {
			r.window(time.Since(r.start))
			return
		}
		r.asked()
		select {
		case room <- struct{}{}:
			open.Go(func() {
				defer func() { <-room }()
				r.one(ctx, r.o.First+i, 0, at)
			})
		default:
			r.mu.Lock()
			r.res.NotSent++
			r.mu.Unlock()
		}
	}
}

// closedLoop lets each client send its next request as its last is answered.
func (r *runner) closedLoop(ctx context.Context) {
	var mu sync.Mutex
	next := 0
	var all sync.WaitGroup
	for c := range r.o.Clients {
		all.Go(func() {
			pause := time.NewTimer(r.pause(time.Duration(unit(draw(r.o.Seed, uint64(c), drawThink)) * float64(r.o.Think))))
			defer pause.Stop()
			for r.o.Think <= 0 || thought(ctx, pause) {
				if ctx.Err() != nil {
					return
				}
				at := time.Since(r.start)
				mu.Lock()
				i := next
				next++
				mu.Unlock()
				if r.done(i, at) {
					r.window(at)
					return
				}
				r.asked()
				r.one(ctx, r.o.First+i, c, at)
				pause.Reset(r.pause(r.o.Think))
			}
		})
	}
	all.Wait()
	if ctx.Err() != nil {
		r.window(time.Since(r.start))
	}
}

// pause is how long a client thinks: not past the end of the run.
func (r *runner) pause(think time.Duration) time.Duration {
	if r.o.Duration > 0 {
		think = min(think, r.o.Duration-time.Since(r.start))
	}
	return think
}

// thought waits for the end of a client's pause, and says whether it came before ctx ended.
func thought(ctx context.Context, pause *time.Timer) bool {
	select {
	case <-pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// asked counts a request that is due.
func (r *runner) asked() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Asked++
}

// window notes when sending was over: at the moment of the request that is not sent any more, but not after
// the time that was given.
func (r *runner) window(at time.Duration) {
	if r.o.Duration > 0 {
		at = min(at, r.o.Duration)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.res.Window = max(r.res.Window, at)
}

// one sends a request and counts what came of it.
func (r *runner) one(ctx context.Context, n, client int, intended time.Duration) {
	s := r.shots.Get().(*shot)
	defer r.shots.Put(s)
	r.aim(s, n, client)
	site := among(r.share, draw(r.o.Seed, uint64(n), drawSite))
	sent := time.Since(r.start)
	door, f := r.exchange(ctx, r.pools[site], s)
	took := time.Since(r.start)
	if f != nil && (f.class == stopped || ctx.Err() != nil) {
		return
	}
	r.count(s, f, door, r.o.Sites[site].Name, intended, sent, took)
}

// aim draws what is sent.
func (r *runner) aim(s *shot, n, client int) {
	s.n, s.client, s.entry, s.kind = n, client, 0, nil
	s.begin()
	s.key, s.path, s.value = s.key[:0], s.path[:0], s.value[:0]
	s.status, s.wrote, s.got = 0, 0, 0
	keyed := false
	if len(r.o.Replay) > 0 {
		s.recorded = &r.o.Replay[n-r.o.First]
		s.entry = r.methods[s.recorded.Method]
		s.kind = r.kinds[s.entry]
		keyed = s.kind.keyed
	} else if r.o.TCP == nil {
		s.entry = among(r.sums, draw(r.o.Seed, uint64(n), drawEntry))
		s.kind = r.kinds[s.entry]
		keyed = s.kind.keyed
	} else {
		keyed = r.send.has('k')
	}
	if keyed {
		s.key = appendKey(s.key, r.keys.key(r.o.Seed, uint64(n)))
	}
}

// exchange sends the request and reads the answer. A kept connection that had ended before anything of an
// answer came is tried once more on a new one, if asking twice does no harm.
func (r *runner) exchange(ctx context.Context, p *pool, s *shot) (door string, f *failure) {
	deadline := time.Now().Add(r.o.Timeout)
	pick := draw(r.o.Seed, uint64(s.n), drawDoor)
	who := pick
	if r.o.Clients > 0 {
		who = uint64(s.client)
	}
	for anew := r.o.TCP != nil && r.o.TCP.Each; ; anew = true {
		c, f := p.get(ctx, pick, who, anew, deadline)
		if f != nil {
			return f.door, f
		}
		old := c.used
		if f = r.talk(c, s, deadline); f == nil {
			if s.reuse && !(r.o.TCP != nil && r.o.TCP.Each) {
				p.put(c)
			} else {
				p.drop(c)
			}
			return c.door, nil
		}
		p.drop(c)
		safe := s.kind != nil && s.kind.safe
		if !old || anew || s.begun || !safe || f.class != Reset && f.class != NoAnswer {
			return c.door, f
		}
	}
}

func (r *runner) talk(c *conn, s *shot, deadline time.Time) *failure {
	before := c.got
	defer func() { s.got += c.got - before }()
	fail := func(err error) *failure { return &failure{class: classify(err, s.begun), door: c.door, err: err} }
	if err := c.SetDeadline(deadline); err != nil {
		return fail(err)
	}
	if s.kind != nil {
		s.render(c.door)
	} else {
		s.out = r.send.append(s.out[:0], s)
	}
	n, err := c.Write(s.out)
	s.wrote += int64(n)
	if err != nil {
		return fail(err)
	}
	if s.kind != nil {
		err = readHTTP(c.rd, s.kind.Method, &s.answer)
	} else if err = readTCP(c, r.o.TCP.Expect, &s.answer); err == nil {
		s.status = 200
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

func (r *runner) count(s *shot, f *failure, door, site string, intended, sent, took time.Duration) {
	good := f == nil && (s.kind == nil || s.kind.good(s.status))
	if good {
		r.latency.Record(took - intended)
	}
	r.late.Record(max(0, sent-intended))
	r.mu.Lock()
	defer r.mu.Unlock()
	res := &r.res
	res.Sent++
	res.Busy += took - sent
	res.Wrote += s.wrote
	res.Got += s.got
	res.Took = max(res.Took, took)
	tick := int(took / TickLength)
	for len(res.Ticks) <= tick {
		res.Ticks = append(res.Ticks, Tick{})
	}
	class := ""
	switch {
	case good:
		res.Good++
		res.Ticks[tick].Good++
		res.Ticks[tick].Latency.Add(took - intended)
	case f != nil:
		if class = f.class; res.Examples[class] == "" && f.err != nil {
			res.Examples[class] = f.err.Error()
		}
	default:
		class = Status
	}
	if class != "" {
		res.Errors[class]++
		res.Ticks[tick].Errors++
	}
	if f == nil {
		res.Statuses[s.status]++
	}
	if !r.o.Keep {
		return
	}
	rec := Record{N: s.n, Client: s.client, Entry: s.entry, Method: "TCP", Key: string(s.key), Value: string(s.value), Intended: intended, Sent: sent, Done: took,
		Site: site, Door: door, Good: good, Node: string(s.timing.node), Instance: string(s.timing.instance), Hops: s.timing.hops, Lookup: s.timing.lookup}
	if s.kind != nil {
		rec.Method, rec.Path = s.kind.Method, string(s.path)
	}
	if f == nil {
		rec.Status, rec.Body, rec.Hash = s.status, slices.Clone(s.body), s.hash
	} else {
		rec.Err = f.class
	}
	res.Records = append(res.Records, rec)
}

func (r *runner) result() *Result {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := r.res
	out.Errors, out.Statuses, out.Examples = maps.Clone(out.Errors), maps.Clone(out.Statuses), maps.Clone(out.Examples)
	out.Latency, out.Late = r.latency.Latency(), r.late.Latency()
	return &out
}

// String says what is sent over TCP.
func (t TCP) String() string { return fmt.Sprintf("TCP: send %q, expect %s", t.Send, t.Expect) }
