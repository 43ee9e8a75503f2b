// Package wire runs one peer-to-peer machine in real time, on datagrams that the link carries between nodes.
// It never decides anything about the protocol and never opens a socket: it decodes, keeps timers, merges the
// questions of this process, and applies what the machine wants. Start at [Wire.Run]; [Wire.Locate] is what
// the request path asks.
package wire

import (
	"cmp"
	"container/heap"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"servent/peer"
	"servent/system"
)

const (
	inbound  = 1024 // datagrams that wait to be handled; more are dropped, as a network would
	outbound = 1024 // datagrams that wait to be sent; more are dropped
	passing  = 4096 // lookups that wait for the node's capacity; more are dropped, and their askers try again
)

// Datagrams carries messages between the nodes of one overlay. It vouches for the sender and seals what it
// carries; it may lose, double, delay and reorder.
type Datagrams interface {
	// Send may wait a moment, and keeps nothing of b. Its error says that b was not sent; the machine takes
	// that for one that was lost.
	Send(to system.NodeID, b []byte) error
	// Receive waits for the next datagram, whose bytes are the caller's. Its error ends the overlay on this
	// node; when ctx has ended, it is ctx's.
	Receive(ctx context.Context) (from system.NodeID, b []byte, err error)
}

// Machine is a protocol that owns a range of keys on each node.
type Machine interface {
	peer.Protocol
	See(peer.Directory, peer.Slot) peer.View
}

// Options of a Wire. Self, Machine and Datagrams are needed.
type Options struct {
	Self      system.NodeID
	Machine   Machine // of one slot; the Wire owns it from now on
	Datagrams Datagrams
	Pass      func(context.Context) error // waits for the node's capacity before a lookup goes onward; nil: it is free
	Cache     time.Duration               // an answer is repeated for so long; 0 means 100ms, negative never
	Open      int                         // different keys that are looked for at once; 0 means 4096. The machine has a bound of its own
	Log       *slog.Logger                // nil discards
}

// Member is a node's place, as the plan has it.
type Member struct {
	Node     system.NodeID
	Position peer.ID
}

// View is what this node sees of the overlay.
type View struct {
	Member   bool
	From, To peer.ID // owns the keys after From up to and including To, if Owns
	Mask     peer.ID // by XOR: of those, the keys alone that have To's bits wherever it has ones
	Owns     bool
	Epoch    uint64
	Before   *Member // predecessor, if one is known
	After    []Member
	Whole    bool   // no gap is seen from here
	Why      string // when not: what is missing
}

// Counters are sums since the start.
type Counters struct {
	Sent     Traffic `json:"sent"`
	Received Traffic `json:"received"`
	Onward   int64   `json:"onward"`  // of Sent, lookups on their way: each is charged as a pass
	Refused  int64   `json:"refused"` // datagrams that could not be read, or contradict the plan
	Dropped  int64   `json:"dropped"` // datagrams for which a queue was full
	Lookups  int64   `json:"lookups"` // asked of the overlay
	Shared   int64   `json:"shared"`  // answered by another's lookup of the same key, or by the cache
	Failed   int64   `json:"failed"`  // of Lookups
}

// Traffic is one direction, before the link seals it.
type Traffic struct {
	Messages int64 `json:"messages"`
	Bytes    int64 `json:"bytes"`
}

// Wire is one node's place in one overlay.
type Wire struct {
	o     Options
	start time.Time
	view  atomic.Pointer[View]

	packets chan packet
	sends   chan packet
	wanted  chan *flight // cannot fill: one for each of flights
	told    chan struct{}
	slots   chan struct{} // of lookups that pass
	passes  sync.WaitGroup

	mu      sync.Mutex // guards what follows, up to cache
	ran     bool
	ended   bool
	members []Member // by position
	flights map[question]*flight
	cache   map[peer.ID]*flight

	count struct {
		sent, sentBytes, received, receivedBytes, onward, refused, dropped, lookups, shared, failed atomic.Int64
	}

	loop loop
}

// loop belongs to the goroutine of Run.
type loop struct {
	env    *peer.Env
	book   *book
	timers timers
	seq    int
	tag    peer.Tag
	asked  map[peer.Tag]*flight
	seen   peer.View
	ev     peer.Event // reused by decoding
}

type packet struct {
	node system.NodeID
	b    []byte
}

type timer struct {
	at  int64
	seq int
	ev  peer.Event
}

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].seq < t[j].seq
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	last := len(*t) - 1
	x := (*t)[last]
	*t = (*t)[:last]
	return x
}

// New makes a node's place in an overlay. Before [Wire.Members] names this node it takes no part, and asks
// those who do.
func New(o Options) *Wire {
	o.Open = cmp.Or(max(o.Open, 0), 4096)
	o.Cache = cmp.Or(o.Cache, 100*time.Millisecond)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w := &Wire{
		o: o, start: time.Now(),
		packets: make(chan packet, inbound), sends: make(chan packet, outbound), wanted: make(chan *flight, o.Open),
		told: make(chan struct{}, 1), slots: make(chan struct{}, passing),
		flights: map[question]*flight{}, cache: map[peer.ID]*flight{},
	}
	w.view.Store(&View{Why: "it takes no part"})
	w.loop.book = newBook(o.Self, o.Machine.Drop, w.now)
	w.loop.env = peer.NewEnv(w.loop.book, rand.Uint64(), make([]uint32, 1))
	w.loop.asked = map[peer.Tag]*flight{}
	return w
}

// now is the machine's clock: never 0, which means never to it.
func (w *Wire) now() int64 { return int64(time.Since(w.start)) + 1 }

// View returns what this node sees of the overlay now.
func (w *Wire) View() View { return *w.view.Load() }

// Counters returns sums since the start.
func (w *Wire) Counters() Counters {
	c := &w.count
	return Counters{
		Sent: Traffic{c.sent.Load(), c.sentBytes.Load()}, Received: Traffic{c.received.Load(), c.receivedBytes.Load()},
		Onward: c.onward.Load(), Refused: c.refused.Load(), Dropped: c.dropped.Load(),
		Lookups: c.lookups.Load(), Shared: c.shared.Load(), Failed: c.failed.Load(),
	}
}

// Members says which nodes take part by the current plan, and where. A node that is among them joins; one
// that is no longer leaves, and asks the others from then on. Those that are named here are never forgotten.
func (w *Wire) Members(members []Member) {
	members = slices.Clone(members)
	slices.SortFunc(members, func(a, b Member) int {
		return cmp.Or(slices.Compare(a.Position[:], b.Position[:]), cmp.Compare(a.Node, b.Node))
	})
	w.mu.Lock()
	w.members = members
	w.mu.Unlock()
	select {
	case w.told <- struct{}{}:
	default: // Run has not looked yet, and will see these
	}
}

// Run takes part until ctx ends, then leaves politely and returns nil, having failed all open lookups. It
// returns sooner, with an error, when the datagrams fail. It is called once.
func (w *Wire) Run(ctx context.Context) error {
	w.mu.Lock()
	again := w.ran
	w.ran = true
	w.mu.Unlock()
	if again {
		return errors.New("run overlay: it has run before")
	}
	inner, cancel := context.WithCancel(context.WithoutCancel(ctx))
	failed := make(chan error, 1)
	var receiving, sending sync.WaitGroup
	receiving.Go(func() { failed <- w.receive(inner) })
	sending.Go(w.transmitAll)
	err := w.turn(ctx, inner, failed)
	w.command(inner, peer.Event{Kind: peer.Leave})
	w.publish()
	cancel()
	receiving.Wait()
	w.passes.Wait()
	close(w.sends)
	sending.Wait()
	w.end()
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// turn handles one event after the other. What waits for capacity ends with inner.
func (w *Wire) turn(ctx, inner context.Context, failed <-chan error) error {
	alarm := time.NewTimer(time.Hour)
	defer alarm.Stop()
	for {
		next := time.Hour
		if t := w.loop.timers; len(t) > 0 {
			next = time.Duration(t[0].at - w.now())
		}
		alarm.Reset(next)
		select {
		case <-ctx.Done():
			return nil
		case err := <-failed:
			return fmt.Errorf("receive datagrams of the overlay: %w", err)
		case p := <-w.packets:
			w.packet(inner, p)
		case f := <-w.wanted:
			w.ask(inner, f)
		case <-w.told:
			w.plan(inner)
		case <-alarm.C:
			w.due(inner)
		}
		w.publish()
	}
}

func (w *Wire) receive(ctx context.Context) error {
	for {
		from, b, err := w.o.Datagrams.Receive(ctx)
		if err != nil {
			return err
		}
		w.count.received.Add(1)
		w.count.receivedBytes.Add(int64(len(b)))
		select {
		case w.packets <- packet{from, b}:
		default:
			w.count.dropped.Add(1)
		}
	}
}

func (w *Wire) packet(ctx context.Context, p packet) {
	l := &w.loop
	if err := peer.Decode(p.b, peer.Address(p.node), l.book, &l.ev); err != nil {
		w.count.refused.Add(1)
		w.o.Log.Debug("datagram refused", "peer", p.node, "err", err)
		return
	}
	if l.ev.From == self {
		w.count.refused.Add(1) // nobody sends to itself
		return
	}
	w.handle(ctx, &l.ev)
}

func (w *Wire) due(ctx context.Context) {
	l := &w.loop
	for now := w.now(); len(l.timers) > 0 && l.timers[0].at <= now; {
		t := heap.Pop(&l.timers).(timer)
		w.handle(ctx, &t.ev)
	}
}

func (w *Wire) command(ctx context.Context, ev peer.Event) {
	ev.From = peer.Nobody
	w.handle(ctx, &ev)
}

// plan tells the machine who is to take part.
func (w *Wire) plan(ctx context.Context) {
	w.mu.Lock()
	members := w.members
	w.mu.Unlock()
	l := &w.loop
	at := slices.IndexFunc(members, func(m Member) bool { return m.Node == w.o.Self })
	if at < 0 || l.book.ID(self) != members[at].Position {
		w.command(ctx, peer.Event{Kind: peer.Leave})
	}
	if at >= 0 {
		l.book.settle(members[at].Position)
	}
	w.command(ctx, peer.Event{Kind: peer.Know, Peers: l.book.pin(members)})
	if at >= 0 {
		w.command(ctx, peer.Event{Kind: peer.Join, Num: uint64(time.Now().UnixNano())})
	}
}

// handle has the machine handle an event and applies what it wants.
func (w *Wire) handle(ctx context.Context, ev *peer.Event) {
	l := &w.loop
	ev.At = w.now()
	l.env.Begin(0)
	w.o.Machine.Handle(l.env, 0, ev)
	for _, f := range l.env.Effects() {
		switch f.Action {
		case peer.Timer:
			l.seq++
			f.Event.From, f.Event.Peers, f.Event.Data = peer.Nobody, nil, slices.Clone(f.Event.Data)
			heap.Push(&l.timers, timer{ev.At + f.After, l.seq, f.Event})
		case peer.Answer:
			w.answer(&f.Event)
		case peer.Send, peer.Forward:
			b, err := peer.Append(nil, l.book, self, &f.Event)
			if err != nil { // a node's name is too long to be told to others
				w.count.dropped.Add(1)
				w.o.Log.Warn("message dropped", "node", w.o.Self, "err", err)
				continue
			}
			w.send(ctx, packet{system.NodeID(l.book.Address(f.To)), b}, f.Action == peer.Forward)
		}
	}
}

// send never waits: what does not fit a queue is lost, as on any network.
func (w *Wire) send(ctx context.Context, p packet, onward bool) {
	if onward {
		w.count.onward.Add(1)
	}
	if !onward || w.o.Pass == nil {
		select {
		case w.sends <- p:
		default:
			w.count.dropped.Add(1)
		}
		return
	}
	select {
	case w.slots <- struct{}{}:
	default:
		w.count.dropped.Add(1)
		return
	}
	w.passes.Go(func() { // a goroutine each: all stand in the node's queue at once, each in its own place
		defer func() { <-w.slots }()
		if w.o.Pass(ctx) == nil {
			w.transmit(p)
		}
	})
}

func (w *Wire) transmitAll() {
	for p := range w.sends {
		w.transmit(p)
	}
}

func (w *Wire) transmit(p packet) {
	if err := w.o.Datagrams.Send(p.node, p.b); err != nil {
		w.o.Log.Debug("datagram not sent", "peer", p.node, "err", err)
		return
	}
	w.count.sent.Add(1)
	w.count.sentBytes.Add(int64(len(p.b)))
}

// publish shows what the machine sees, if that has changed.
func (w *Wire) publish() {
	l := &w.loop
	v := w.o.Machine.See(l.book, 0)
	old := l.seen
	same := v.Member == old.Member && v.From == old.From && v.To == old.To && v.Mask == old.Mask && v.Owns == old.Owns && v.Epoch == old.Epoch &&
		v.Before == old.Before && slices.Equal(v.After, old.After) && v.Why == old.Why
	if same {
		return
	}
	l.seen = v
	out := &View{Member: v.Member, From: v.From, To: v.To, Mask: v.Mask, Owns: v.Owns, Epoch: v.Epoch, Whole: v.Whole, Why: v.Why}
	if v.Before != peer.Nobody {
		out.Before = l.book.member(v.Before)
	}
	for _, p := range v.After {
		out.After = append(out.After, *l.book.member(p))
	}
	w.view.Store(out)
	if v.Why != old.Why {
		w.o.Log.Info("overlay as seen from here", "node", w.o.Self, "err", cmp.Or(v.Why, "in one piece"))
	}
}
