// Package sim runs one peer-to-peer machine with any number of slots on virtual time: the code that peer/wire
// runs on datagrams, for up to some million nodes. It never decides anything about the protocol, reads no
// clock, and one seed is one run, event for event, however many shards there are. Start at [Sim.Run].
//
// There is no queue by priority. Time is cut into windows as wide as the least delay of a link, so that
// within a window no node can touch another: the window's events are sorted by destination, and each node
// takes its own in order of time (conservative lookahead: Chandy and Misra, IEEE TSE 5(5), 1979, with the
// scheduler of a calendar queue, Brown, CACM 31(10), 1988). Slots are divided over shards, a goroutine each;
// they meet once a window. The price: no link is faster than a window, and a timer that would end within the
// window in which it starts ends at the next one's edge.
package sim

import (
	"context"
	"math"
	"runtime"
	"slices"
	"sync"

	"servent/peer"
)

// Options of a Sim. Machine and Places are needed.
type Options struct {
	Machine peer.Protocol // of len(Places) slots; several goroutines call it, each for slots of its own
	Places  []peer.ID     // by slot, which is also the number of its peer; sorted ones keep neighbours close in memory
	Seed    uint64
	Links   Links   // nil means Uniform of 10 to 100 ms
	Loss    float64 // part of the messages that are lost, 0 to 1
	Shards  int     // 0 means one below 10^5 slots, then as many as there are processors
	Address int     // bytes of an address within a message; 0 means 12
}

// small is how many slots are not worth meeting for once a window.
const small = 100_000

// Sim is a network on virtual time, in nanoseconds; it begins one window after 0, which means never to a
// machine. One goroutine uses it.
type Sim struct {
	o      Options
	width  int64 // of a window
	last   int64 // number of the window that was handled last
	nodes  []node
	side   []uint8 // of a cut; nil: there is none
	shards []*shard
	span   int // slots of a shard; the last one may have fewer
	seed   uint64
	loss   uint64 // a message whose draw is below is lost
}

// node is what the network knows of a slot.
type node struct {
	sentBytes uint64
	sent      uint32
	received  uint32
	count     uint32 // of effects: makes their order and their draws its own
	life      uint8  // timers of an earlier one are not delivered
	down      bool
}

// New makes a network of nodes that are up and have been told nothing.
func New(o Options) *Sim {
	if o.Links == nil {
		o.Links = Uniform{10_000_000, 100_000_000}
	}
	if o.Address <= 0 {
		o.Address = 12
	}
	n := len(o.Places)
	if o.Shards <= 0 {
		o.Shards = 1
		if n >= small {
			o.Shards = runtime.GOMAXPROCS(0)
		}
	}
	width := o.Links.Least()
	if width <= 0 || width > math.MaxUint32 {
		panic("sim: the least delay of a link must be above 0 and below 4.3 s")
	}
	if n == 0 || n >= int(peer.Nobody) {
		panic("sim: want 1 to 2^32−2 slots")
	}
	s := &Sim{o: o, width: width, nodes: make([]node, n), seed: mix(o.Seed ^ links), loss: part(o.Loss)}
	s.span = (n + o.Shards - 1) / o.Shards
	drawn := make([]uint32, n)
	for i := range o.Shards {
		s.shards = append(s.shards, newShard(s, i, o.Shards, peer.NewEnv(s, o.Seed, drawn)))
	}
	return s
}

// part is a share of 2^64.
func part(p float64) uint64 {
	if p >= 1 {
		return math.MaxUint64
	}
	return uint64(max(p, 0) * (1 << 63) * 2)
}

// Self implements [peer.Directory].
func (s *Sim) Self(slot peer.Slot) peer.Peer { return peer.Peer(slot) }

// ID implements [peer.Directory].
func (s *Sim) ID(p peer.Peer) peer.ID { return s.o.Places[p] }

// Now is the beginning of the next window: nothing has happened from then on.
func (s *Sim) Now() int64 { return (s.last + 1) * s.width }

// Command gives ev to a slot at a time; one in the past means now. A node that is down when it is due does
// not hear it.
func (s *Sim) Command(at int64, slot peer.Slot, ev peer.Event) {
	ev.From = peer.Nobody
	sh, n := s.shards[int(slot)/s.span], &s.nodes[slot]
	n.count++
	sh.post(max(at, s.Now()), uint32(slot), n, &ev)
}

// Run lets time go by until all windows that begin before a time are over, and returns nil; or, when ctx
// ends, its error at the end of a window. In either case it may be called again.
func (s *Sim) Run(ctx context.Context, until int64) error {
	end := (until + s.width - 1) / s.width
	first := int64(math.MaxInt64)
	for _, sh := range s.shards {
		first = min(first, sh.next(s.last))
	}
	m := meeting{n: len(s.shards), ctx: ctx}
	m.cond.L = &m.mu
	if len(s.shards) == 1 {
		s.shards[0].run(first, end, &m)
	} else {
		var wg sync.WaitGroup
		for _, sh := range s.shards {
			wg.Go(func() { sh.run(first, end, &m) })
		}
		wg.Wait()
	}
	for _, sh := range s.shards {
		sh.take()
		s.last = max(s.last, sh.now)
	}
	if m.err == nil {
		s.last = max(s.last, end-1)
	}
	for _, sh := range s.shards {
		sh.now = s.last
	}
	return m.err
}

// meeting is where shards wait for each other at the end of a window.
type meeting struct {
	mu    sync.Mutex // guards what follows
	cond  sync.Cond
	n     int
	here  int
	round int
	least int64 // of the next windows that those here want
	next  int64 // agreed
	err   error
	ctx   context.Context //nolint:containedctx // of one Run
}

// wait tells the shard's next window and returns that of all.
func (m *meeting) wait(mine int64) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.here == 0 {
		m.least = mine
	}
	m.least = min(m.least, mine)
	m.here++
	if m.here < m.n {
		for round := m.round; round == m.round; {
			m.cond.Wait()
		}
		return m.next
	}
	m.here, m.next = 0, m.least
	if m.err = m.ctx.Err(); m.err != nil {
		m.next = math.MaxInt64
	}
	m.round++
	m.cond.Broadcast()
	return m.next
}

// Answer is what a machine said to a command.
type Answer struct {
	At    int64
	Key   peer.ID
	Slot  peer.Slot
	Tag   peer.Tag
	Peer  peer.Peer // the first one; Nobody if there is none
	Hops  uint16
	Flags uint8
}

// Answers are those since the last call, by tag.
func (s *Sim) Answers() []Answer {
	var all []Answer
	for _, sh := range s.shards {
		all = append(all, sh.answers...)
		sh.answers = sh.answers[:0]
	}
	slices.SortFunc(all, func(a, b Answer) int { return int(int64(a.Tag) - int64(b.Tag)) })
	return all
}

// Counters are sums since the start.
type Counters struct {
	Events   uint64      // that machines handled
	Hash     uint64      // of those events: equal runs have equal ones
	Messages [256]uint64 // sent, by kind
	Bytes    [256]uint64 // of those, as peer.Append would write them with addresses of Options.Address bytes
	Onward   uint64      // of the messages, lookups on their way
	Lost     uint64      // of the messages, by Loss or a cut
	Missed   uint64      // events for nodes that were down
}

// Counters returns sums since the start.
func (s *Sim) Counters() Counters {
	var c Counters
	for _, sh := range s.shards {
		d := &sh.count
		c.Events += d.Events
		c.Hash += d.Hash
		c.Onward += d.Onward
		c.Lost += d.Lost
		c.Missed += d.Missed
		for k := range c.Messages {
			c.Messages[k] += d.Messages[k]
			c.Bytes[k] += d.Bytes[k]
		}
	}
	return c
}

// Load is what one node had to do since the start.
type Load struct {
	Sent, Received uint32 // messages
	SentBytes      uint64
}

// Load returns what one node had to do since the start.
func (s *Sim) Load(slot peer.Slot) Load {
	n := &s.nodes[slot]
	return Load{Sent: n.sent, Received: n.received, SentBytes: n.sentBytes}
}
