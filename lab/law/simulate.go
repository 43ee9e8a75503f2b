package law

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"servent/system"
)

// Setup is a system and its load, to be simulated.
type Setup struct {
	Seed         uint64
	Architecture system.Architecture // single, replicated, partitioned, ring, chord
	Nodes        int
	Workers      int           // of one node; 0 means 1
	Service      Sampler       // of one request, where it is answered
	Pass         time.Duration // of a worker, for each request and datagram sent onward, queued like a request; 0: free
	Policy       string        // replicated: p2c, roundrobin, weighted, random, leastconn; empty means p2c
	Keys         Keys          // partitioned, ring, chord: who owns what is asked for
	Shares       []float64     // instead of Keys: of requests that each node owns
	Switch       time.Duration // of one request at a switch through which all enter; 0: every node is one
	RingReply    bool          // ring: the owner's answer to a lookup is charged as a pass, too
	RingAck      bool          // ring: and each neighbour's acknowledgement of one, before it sends it on

	Access   time.Duration // one way between a client and where it enters
	Link     time.Duration // one way between two nodes
	Overhead time.Duration // of the host, for each of those ways: sockets, scheduling

	Clients  int     // closed loop: so many, each with one request at a time
	Think    Sampler // between an answer and the client's next request, and before its first
	Rate     float64 // open loop, where Clients is 0: requests a second
	Poisson  bool    // open loop: random arrivals, else evenly spaced
	InTurn   bool    // a client (open: a request) enters at the node of its number, else anywhere at random
	Requests int     // that are measured; 0 means 10,000
	Warm     int     // before them; 0 means a tenth, negative none
	Turns    int     // so many runs, each with empty queues and draws of its own; 0 means 1
}

// Outcome is what a simulation measured.
type Outcome struct {
	Rate     float64       // answers a second
	Response time.Duration // mean, from the intended start to the answer at the client
	P50      time.Duration
	P90      time.Duration
	P99      time.Duration
	Max      time.Duration
	Served   []int64   // requests by node
	Passed   []int64   // sent onward by node
	Busy     []float64 // share of each node's workers' time; a switch is the last
	Hops     float64   // node to node on the way to the owner, mean a request: lookups and the request itself
	Lookups  float64   // of them, datagrams until the owner was known
	Events   int64     // processed
	Hash     uint64    // of all events in their order: the same for the same Setup

	sorted []int64 // responses, ns
}

// Quantile of the response time, and whether so many requests tell it: want 100 beyond it.
func (o Outcome) Quantile(p float64) (d time.Duration, known bool) {
	if len(o.sorted) == 0 {
		return 0, false
	}
	i := int(math.Ceil(p*float64(len(o.sorted)))) - 1
	return time.Duration(o.sorted[min(max(i, 0), len(o.sorted)-1)]), float64(len(o.sorted))*(1-p) >= 100-1e-6
}

// request in flight. Slots are used again.
type request struct {
	id     uint64
	start  int64 // intended
	client int32
	entry  int32
	owner  int32
	hops   int32
	looked int32
}

type simulation struct {
	Setup
	now      int64
	seq      uint64
	queue    events
	slots    []request
	unused   []int32
	free     []int64 // of each worker of each node, when it is; link.Station's rule
	sold     []int64 // by node
	keys     []float64
	left     []int32 // chord: see chordSteps
	turn     []int   // round robin, by entry
	inflight gauges  // as each entry sees them
	gauged   bool    // the policy reads them
	rounds   []int64 // of each client
	made     uint64  // requests of an open loop

	counting bool
	since    int64
	soldThen []int64
	done     int // answers, all
	inWindow int // open loop: answers while measured requests were sent
	windowed int64
	hops     int64
	looked   int64
	out      Outcome
}

// Simulate runs a system on virtual time, event by event. Every node is a station with the rule of an
// emulated one: whatever arrives, be it a request to serve or one to send onward, takes the earliest free
// worker, first come first served; answers pass free. Closed loop: it ends with the last measured answer. Open
// loop: it ends when all have been answered, and the rate is that of the time in which measured requests
// were sent.
//
// It leaves out what real runs have: other work of the host, errors, retries, and p2c's look at latencies. A
// lookup on a ring costs an event a hop, so a request costs N/2 of them. A closed loop starts with all its
// clients at once: Warm should be several times Clients.
//
// Of several turns the rate is the median, as of the repeats of a measured point; responses stand together, and
// what was counted is added up.
//
// The same Setup gives the same [Outcome.Hash] on every machine whose logarithm rounds alike; time is whole
// nanoseconds.
func Simulate(setup Setup) (Outcome, error) {
	if setup.Turns > 1 {
		return simulateTurns(setup)
	}
	s := &simulation{Setup: setup}
	if err := s.prepare(); err != nil {
		return Outcome{}, err
	}
	s.begin()
	want := s.Warm + s.Requests
	for len(s.queue) > 0 && s.done < want {
		e := s.queue.pop()
		s.now = e.at
		s.out.Events++
		s.out.Hash = mix(s.out.Hash ^ uint64(e.at)*0x9e3779b97f4a7c15 ^ uint64(e.node)<<8 ^ uint64(e.what))
		s.handle(e)
	}
	return s.finish(), nil
}

func simulateTurns(setup Setup) (all Outcome, err error) {
	turns, seed := setup.Turns, setup.Seed
	setup.Turns = 1
	rates := make([]float64, turns)
	for i := range turns {
		setup.Seed = mix(seed + uint64(i)*0x9e3779b97f4a7c15)
		o, err := Simulate(setup)
		if err != nil {
			return Outcome{}, err
		}
		if i == 0 {
			all.Served, all.Passed, all.Busy = make([]int64, len(o.Served)), make([]int64, len(o.Passed)), make([]float64, len(o.Busy))
		}
		rates[i] = o.Rate
		all.sorted = append(all.sorted, o.sorted...)
		for n := range o.Served {
			all.Served[n] += o.Served[n]
			all.Passed[n] += o.Passed[n]
			all.Busy[n] += o.Busy[n] / float64(turns)
		}
		all.Hops += o.Hops / float64(turns) // turns have equally many requests
		all.Lookups += o.Lookups / float64(turns)
		all.Events += o.Events
		all.Hash = mix(all.Hash ^ o.Hash)
	}
	all.Rate = Median(rates).Median
	all.summarise()
	return all, nil
}

// summarise reads the figures off the responses.
func (o *Outcome) summarise() {
	sum := 0.0
	for _, d := range o.sorted {
		sum += float64(d)
	}
	slices.Sort(o.sorted)
	o.Response = time.Duration(math.Round(sum / float64(len(o.sorted))))
	o.P50, _ = o.Quantile(0.50)
	o.P90, _ = o.Quantile(0.90)
	o.P99, _ = o.Quantile(0.99)
	o.Max, _ = o.Quantile(1)
}

func (s *simulation) prepare() error {
	if s.Workers == 0 {
		s.Workers = 1
	}
	if s.Requests == 0 {
		s.Requests = 10_000
	}
	if s.Warm == 0 {
		s.Warm = s.Requests / 10
	}
	s.Warm = max(0, s.Warm)
	switch {
	case s.Nodes < 1 || s.Nodes > math.MaxInt32/2 || s.Workers < 1 || s.Requests < 2:
		return fmt.Errorf("simulate: want 1 or more nodes and workers, and 2 or more requests; have %d, %d, %d", s.Nodes, s.Workers, s.Requests)
	case s.Pass < 0 || s.Switch < 0 || s.Access < 0 || s.Link < 0 || s.Overhead < 0:
		return errors.New("simulate: a time is negative")
	case s.Clients < 0 || s.Clients > math.MaxInt32/2 || s.Clients == 0 && (!(s.Rate > 0) || s.Rate > 1e9):
		return fmt.Errorf("simulate: want clients, or a rate up to 10⁹/s; have %d and %v", s.Clients, s.Rate)
	case s.Clients > 0 && s.Service.mean+s.Think.mean+float64(s.Access+s.Overhead+s.Switch) < 1:
		return errors.New("simulate: a closed loop in which nothing takes time")
	}
	if err := s.prepareOwners(); err != nil {
		return fmt.Errorf("simulate: %w", err)
	}
	nodes := s.Nodes
	if s.Switch > 0 {
		nodes++ // the switch is the last, with one worker
	}
	s.free, s.sold, s.soldThen = make([]int64, nodes*s.Workers), make([]int64, nodes), make([]int64, nodes)
	s.out.Served, s.out.Passed = make([]int64, nodes), make([]int64, nodes)
	s.out.sorted = make([]int64, 0, s.Requests)
	s.turn = make([]int, nodes)
	if s.gauged {
		s.inflight.shape(nodes, s.Nodes)
	}
	s.windowed = -1
	return nil
}

// mostLookups is how many steps a ring may take: some minutes' worth.
const mostLookups = 1e9

func (s *simulation) prepareOwners() error {
	switch s.Architecture {
	case system.Single:
	case system.Replicated:
		switch s.Policy {
		case "", "p2c", "leastconn":
			s.gauged = true
		case "roundrobin", "weighted", "random":
		default:
			return fmt.Errorf("policy %q; want p2c, roundrobin, weighted, random or leastconn", s.Policy)
		}
	case system.Partitioned, system.Ring, system.Chord:
		if onCircle(s.Architecture) && s.Switch > 0 {
			return errors.New("a ring is entered at any of its nodes, not by a switch")
		}
		if s.Architecture == system.Chord {
			if s.RingReply || s.RingAck {
				return errors.New("of chord nothing but the way to the owner is paid for")
			}
			s.left = chordSteps(s.Nodes)
		}
		if n := float64(s.Nodes) / 2 * float64(s.Requests+s.Warm); s.Architecture == system.Ring && n > mostLookups {
			return fmt.Errorf("a ring of %d nodes passes %d requests on %.1g times; want fewer of either", s.Nodes, s.Requests+s.Warm, n)
		}
		if s.Shares != nil && len(s.Shares) != s.Nodes {
			return fmt.Errorf("shares of %d nodes, want %d", len(s.Shares), s.Nodes)
		}
		if err := s.Keys.check(s.Nodes); err != nil {
			return err
		}
		if s.Keys.Count > 0 {
			s.keys = s.Keys.cumulative()
		}
		if s.Shares != nil {
			sum := 0.0
			s.keys = make([]float64, s.Nodes)
			for i, p := range s.Shares {
				if !(p >= 0) || math.IsInf(p, 0) {
					return fmt.Errorf("%v is no share", p)
				}
				sum += p
				s.keys[i] = sum
			}
			if sum == 0 {
				return errors.New("no node has a share")
			}
			for i := range s.keys {
				s.keys[i] /= sum
			}
		}
	default:
		return fmt.Errorf("architecture %q; want single, replicated, partitioned, ring or chord", s.Architecture)
	}
	return nil
}
