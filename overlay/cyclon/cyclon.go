// Package cyclon is Cyclon as a state machine (Voulgaris, Gavidia and van Steen, JNSM 13(2), 2005): each node knows a few others,
// its view, and once a cycle swaps some of them with the one that it has known longest. That keeps the overlay a random graph,
// spreads newcomers evenly and forgets the dead. It has no keys and answers no lookup. It never reads a clock, sends or starts
// anything. Start at [Cyclon.Handle]; view.go keeps what is known.
//
// Differs from the paper: ages stop at 255 cycles, since they travel as bytes; a node whose view has room takes a newcomer
// without giving anybody up; and when an answer leaves room, since what came was known already, the one who answered stays
// known: else few nodes that all know each other would lose a link with every exchange.
package cyclon

import "servent/peer"

// Options of a [New] Cyclon. Times are nanoseconds.
type Options struct {
	View     int   // nodes that each knows, c in the paper; 2 to 64; 0 means 20
	Exchange int   // of them that travel in an exchange, l in the paper; up to View and 12, for more do not fit a datagram with long names; 0 means 8
	Walk     int   // steps until a newcomer's walk ends; 0 means 5, about the mean distance of two nodes
	Contacts int   // members known from outside that are asked when nobody else is left; 0 means 8
	Period   int64 // of a cycle; 0 means 10 s
}

const (
	second = 1_000_000_000
	most   = 12 // peers of a message
)

// Timers.
const cycle = peer.Timers + iota // time for an exchange

// Messages. Data has the age of each of the Peers, in cycles, a byte each.
const (
	offer  = peer.Travels + iota // Peers: some of mine, and I; give me some of yours
	answer                       // to offer
	enter                        // I am new: send walkers about
	walk                         // Peers[0] is new; go Num steps more
	give                         // to the newcomer, where a walk ended: the one whose place it took
)

// Cyclon is the machine.
type Cyclon struct {
	o     Options
	nodes []node
	views []peer.Peer // View of each slot
	ages  []uint8     // of those in views
	sent  []peer.Peer // Exchange of each slot: what its open offer gave away
	known []peer.Peer // Contacts of each slot
}

// node is one slot's state.
type node struct {
	in    bool
	has   uint8    // of views
	gave  uint8    // of sent
	knows uint8    // of known
	timer peer.Tag //
	offer peer.Tag // that is open; 0: none
}

// New makes the machine of n slots, which know nobody.
func New(n int, o Options) *Cyclon {
	peer.Within(&o.View, 20, 64)
	o.View = max(o.View, 2)
	peer.Within(&o.Exchange, 8, min(o.View, most))
	peer.Within(&o.Walk, 5, 255)
	peer.Within(&o.Contacts, 8, 255)
	peer.Default(&o.Period, 10*second)
	return &Cyclon{o: o, nodes: make([]node, n), views: make([]peer.Peer, n*o.View), ages: make([]uint8, n*o.View),
		sent: make([]peer.Peer, n*o.Exchange), known: make([]peer.Peer, n*o.Contacts)}
}

// Reset makes a slot forget all, as a process that ends does.
func (c *Cyclon) Reset(self peer.Slot) { c.nodes[self] = node{} }

// act is one slot handling one event.
type act struct {
	c    *Cyclon
	env  *peer.Env
	self peer.Slot
	n    *node
	me   peer.Peer
}

// Handle implements [peer.Protocol].
func (c *Cyclon) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	a := act{c, env, self, &c.nodes[self], env.Self()}
	switch ev.Kind {
	case peer.Know:
		a.n.knows = uint8(env.Sample(c.known[int(self)*c.o.Contacts:][:c.o.Contacts], ev.Peers))
	case peer.Join:
		a.join()
	case peer.Leave:
		a.n.in, a.n.timer, a.n.offer = false, 0, 0 // the paper has no farewell: the others forget who does not answer
	case peer.Locate:
		env.Done(peer.Event{Kind: peer.Locate, Flags: peer.Lost, Tag: ev.Tag, Key: ev.Key}) // there are no keys
	case cycle:
		if a.n.in && ev.Tag == a.n.timer {
			a.cycle()
		}
	case offer, answer, enter, walk, give:
		if a.n.in {
			a.hear(ev)
		}
	default:
		if ev.Kind < peer.Travels {
			panic("cyclon: an unknown command or timer")
		}
	}
}

// hear takes a message.
func (a act) hear(ev *peer.Event) {
	if len(ev.Data) != len(ev.Peers) || len(ev.Peers) > a.c.o.Exchange {
		return // made up
	}
	switch ev.Kind {
	case offer:
		a.onOffer(ev)
	case answer:
		if ev.Tag == a.n.offer && ev.Tag != 0 {
			a.n.offer = 0
			a.take(ev, a.c.sent[int(a.self)*a.c.o.Exchange:][:a.n.gave])
			if a.c.index(a.self, ev.From) < 0 && ev.From != a.me {
				a.c.add(a.self, ev.From, 0) // if there is room
			}
		}
	case enter:
		for range a.c.o.View {
			a.onward(ev.From, uint64(a.c.o.Walk))
		}
	case walk:
		if len(ev.Peers) == 1 {
			a.onward(ev.Peers[0], min(ev.Num, uint64(a.c.o.Walk)))
		}
	case give:
		a.take(ev, nil)
	}
}

// Drop implements [peer.Protocol].
func (c *Cyclon) Drop(p peer.Peer) {
	for s := range c.nodes {
		n, self := &c.nodes[s], peer.Slot(s)
		if i := c.index(self, p); i >= 0 {
			c.remove(self, i)
		}
		known := c.known[s*c.o.Contacts:][:n.knows]
		for i := len(known) - 1; i >= 0; i-- {
			if known[i] == p {
				n.knows--
				known[i] = known[n.knows]
			}
		}
		sent := c.sent[s*c.o.Exchange:][:n.gave]
		for i := range sent {
			if sent[i] == p {
				sent[i] = peer.Nobody
			}
		}
	}
}

func (a act) join() {
	if a.n.in {
		return
	}
	a.n.in = true
	if a.n.has == 0 {
		a.enter()
	}
	a.arm(1 + int64(a.env.Rand()%uint64(a.c.o.Period))) // so that members do not act in step
}

// enter asks a member to send walkers about: where they end, nodes make room for this one.
func (a act) enter() {
	if known := a.c.known[int(a.self)*a.c.o.Contacts:][:a.n.knows]; len(known) > 0 {
		a.env.Send(known[a.draw(len(known))], peer.Event{Kind: enter})
	}
}

func (a act) arm(wait int64) {
	a.n.timer = peer.Tag(a.env.Rand()) | 1
	a.env.After(wait, peer.Event{Kind: cycle, Tag: a.n.timer})
}

// draw is evenly from 0 to n−1.
func (a act) draw(n int) int { return int(a.env.Rand() % uint64(n)) }

// cycle is the active part of what the paper calls an enhanced shuffle: the oldest neighbour is given up, and gets to know this node instead.
// If it is dead, it is forgotten in that way.
func (a act) cycle() {
	a.arm(a.c.o.Period)
	if a.n.has == 0 {
		a.enter()
		return
	}
	view, ages := a.c.view(a.self)
	oldest := 0
	for i := range ages {
		if ages[i] < 255 {
			ages[i]++
		}
		if ages[i] > ages[oldest] {
			oldest = i
		}
	}
	to := view[oldest]
	a.c.remove(a.self, oldest)
	n := a.shuffle(a.c.o.Exchange - 1)
	a.n.gave, a.n.offer = uint8(n), peer.Tag(a.env.Rand())|1
	view, ages = a.c.view(a.self)
	var peers [most]peer.Peer
	var old [most]byte
	copy(a.c.sent[int(a.self)*a.c.o.Exchange:], view[:n])
	copy(peers[:], view[:n])
	copy(old[:], ages[:n])
	peers[n], old[n] = a.me, 0
	a.env.Send(to, peer.Event{Kind: offer, Tag: a.n.offer, Data: old[:n+1]}, peers[:n+1]...)
}

// onOffer is the passive part: some of one's own in return, whose places those that came may take.
func (a act) onOffer(ev *peer.Event) {
	n := a.shuffle(a.c.o.Exchange)
	view, ages := a.c.view(a.self)
	a.env.Send(ev.From, peer.Event{Kind: answer, Tag: ev.Tag, Data: ages[:n]}, view[:n]...)
	var gave [most]peer.Peer
	a.take(ev, gave[:copy(gave[:], view[:n])])
}

// onward sends a newcomer's walker a step on, or ends its walk: the newcomer takes the place of a neighbour, drawn evenly, and
// gets to know that one, so that nobody else is known less.
func (a act) onward(newcomer peer.Peer, steps uint64) {
	view, ages := a.c.view(a.self)
	if steps > 0 && len(view) > 0 {
		a.env.Send(view[a.draw(len(view))], peer.Event{Kind: walk, Num: steps - 1, Data: []byte{0}}, newcomer)
		return
	}
	if newcomer == a.me || a.env.ID(newcomer) == a.env.ID(a.me) || a.c.index(a.self, newcomer) >= 0 {
		return
	}
	if a.c.add(a.self, newcomer, 0) {
		a.env.Send(newcomer, peer.Event{Kind: give, Data: []byte{0}}, a.me)
		return
	}
	i := a.draw(len(view))
	a.env.Send(newcomer, peer.Event{Kind: give, Data: []byte{ages[i]}}, view[i])
	view[i], ages[i] = newcomer, 0
}

// See says what a slot knows: After is its view. It has no range.
func (c *Cyclon) See(dir peer.Directory, self peer.Slot) peer.View {
	n := &c.nodes[self]
	view, _ := c.view(self)
	v := peer.View{Member: n.in, To: dir.ID(dir.Self(self)), Before: peer.Nobody, After: append([]peer.Peer(nil), view...)}
	switch {
	case !n.in:
		v.Why = "it takes no part"
	case n.has == 0 && n.knows > 0:
		v.Why = "nobody has answered yet"
	}
	v.Whole = v.Why == ""
	return v
}
