// Package pastry is Pastry as a state machine (Rowstron and Druschel, Middleware 2001): a key belongs to the member whose
// identifier is numerically nearest to it. A node knows its neighbours on both sides, the leaf set, and in each row of its
// table one member for each digit that may follow a prefix of its own identifier; a lookup goes, node to node, to one
// that shares a longer prefix with the key. It never reads a clock, sends or starts anything. Start at [Pastry.Handle];
// tables.go keeps what is known, lookup.go walks it.
//
// Differs from the paper: each hop of a lookup is acknowledged, and one that is not goes to another member (Castro et al.,
// Performance and dependability of structured peer-to-peer overlays, DSN 2004, do so). Nearness in the network does not yet
// choose entries of the table, so there is no neighbourhood set.
package pastry

import (
	"slices"

	"servent/peer"
	"servent/peer/keyspace"
)

// Options of a [New] Pastry. Times are nanoseconds. A digit has four bits.
type Options struct {
	Leaves   int   // on both sides together; even, at most 24; 0 means [Leaves], for more do not fit a datagram with long names
	Rows     int   // of the table, up to 40; 0 means 8, enough for 16^8 members
	Lookups  int   // open ones of each slot; a power of two up to 4096; 0 means 16
	Contacts int   // members known from outside that are asked when nobody else is left; 0 means 8
	Period   int64 // between two looks at a leaf; 0 means 500 ms
	Timeout  int64 // the least wait for an acknowledgement; 0 means 250 ms
	Wait     int64 // for a lookup's answer, before it is asked again; 0 means 2 s
	Tries    int   // of a question to a leaf, or of a hop, before who is silent is taken for dead; 0 means 1, as in the paper
	Listed   bool  // members known from outside are all there are: no lookup finds a node's place, see [act.confirm]
}

const (
	// Leaves are known to each member, where [Options] do not say otherwise.
	Leaves = 8

	millisecond = 1_000_000
	second      = 1000 * millisecond
	digits      = 16 // values of one
	tries       = 4  // of a lookup
	mostHops    = 64
	buried      = 100 // periods in which a dead member that others tell of is not believed
	graves      = 24
	rowMost     = 12 // entries of a row in a message
	hidden      = 6  // the same as buried, where members are listed: they come back, or the list changes
	lonely      = 6  // periods in which nobody listed answers, until a node takes itself for the only one
)

// Timers.
const (
	tick    = peer.Timers + iota // look at the next leaf
	silent                       // the acknowledgement of a hop is due
	overdue                      // the answer of a lookup is due
	dumb                         // a leaf's answer is due; Num is the leaf
)

// Messages.
const (
	route       = peer.Travels + iota // Key, Hops, Tag, Num of the hop, Peers: who asks
	ack                               // Num of the hop; Flags: out
	answer                            // to route: the sender owns the key. Hops, Num epoch
	ask                               // who are your leaves? If Num is not 0, your row Num−1 instead
	tell                              // Peers; Flags: out, joined
	routeUpkeep                       // route of a node that joins: each on the way tells its row, the last one its leaves
	ackUpkeep                         // to routeUpkeep
)

// Flags of messages.
const (
	client uint8 = 1 // the sender takes no part
	out    uint8 = 2 // I take no part
	joined uint8 = 4 // tell: these are the leaves of who owns your place
)

// Pastry is the machine.
type Pastry struct {
	o     Options
	nodes []node
	table []peer.Peer  // Rows of 16 of each slot
	leafs []peer.Peer  // Leaves of each slot: those above it, then those below, the nearest first
	known []peer.Peer  // Contacts of each slot
	dead  []peer.Grave // of each slot
	asked []lookup     // Lookups of each slot
}

// node is one slot's state.
type node struct {
	in, placed bool
	large      bool  // the overlay has far more members than leaves
	ups, downs uint8 // of leafs
	knows      uint8
	graves     uint8
	turn       uint16
	free       uint16
	timer      peer.Tag
	leaf       peer.Tag     // of the question to a leaf
	asked      uint8        // how often it was
	alone      uint8        // periods without any leaf
	met        [2]peer.Peer // who answered last; see [act.confirm]
	count      uint64       // of hops
	epoch      uint64
	rtt        peer.RoundTrip
	hops       []hop // that are not acknowledged
}

// New makes the machine of n slots, which know nobody.
func New(n int, o Options) *Pastry {
	peer.Within(&o.Leaves, Leaves, 24)
	peer.Within(&o.Rows, 8, 40)
	peer.Within(&o.Lookups, 16, 4096)
	peer.Within(&o.Contacts, 8, 255)
	peer.Default(&o.Period, 500*millisecond)
	peer.Default(&o.Timeout, 250*millisecond)
	peer.Default(&o.Wait, 2*second)
	peer.Default(&o.Tries, 1)
	if o.Lookups&(o.Lookups-1) != 0 || o.Leaves%2 != 0 {
		panic("pastry: lookups are no power of two, or leaves are odd")
	}
	p := &Pastry{o: o, nodes: make([]node, n), table: make([]peer.Peer, n*o.Rows*digits), leafs: make([]peer.Peer, n*o.Leaves),
		known: make([]peer.Peer, n*o.Contacts), dead: make([]peer.Grave, n*graves), asked: make([]lookup, n*o.Lookups)}
	for s := range p.nodes {
		p.Reset(peer.Slot(s))
	}
	return p
}

// Reset makes a slot forget all, as a process that ends does.
func (p *Pastry) Reset(self peer.Slot) {
	p.nodes[self] = node{met: [2]peer.Peer{peer.Nobody, peer.Nobody}}
	for i := range p.entries(self) {
		p.entries(self)[i] = peer.Nobody
	}
	p.buried(self).Empty()
	for i := range p.open(self) {
		p.open(self)[i] = lookup{next: uint16(i + 1)}
	}
}

// act is one slot handling one event.
type act struct {
	p    *Pastry
	env  *peer.Env
	self peer.Slot
	now  int64
	n    *node
	me   peer.Peer
	id   peer.ID
}

// Handle implements [peer.Protocol].
func (p *Pastry) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	a := act{p, env, self, ev.At, &p.nodes[self], env.Self(), peer.ID{}}
	a.id = env.ID(a.me)
	switch ev.Kind {
	case peer.Know:
		a.know(ev.Peers)
	case peer.Join:
		a.join(ev.Num)
	case peer.Leave:
		a.leave()
	case peer.Locate:
		a.locate(ev)
	case tick:
		if a.n.in && ev.Tag == a.n.timer {
			a.tick()
		}
	case silent:
		a.silent(ev.Num)
	case overdue:
		a.overdue(ev.Tag)
	case dumb:
		if ev.Tag == a.n.leaf && ev.Tag != 0 {
			a.dumb(peer.Peer(ev.Num))
		}
	case route, routeUpkeep:
		a.onRoute(ev)
	case ack, ackUpkeep:
		a.onAck(ev)
	case answer:
		a.onAnswer(ev)
	case ask:
		a.onAsk(ev)
	case tell:
		a.onTell(ev)
	default:
		if ev.Kind < peer.Travels {
			panic("pastry: an unknown command or timer")
		}
	}
}

// Drop implements [peer.Protocol].
func (p *Pastry) Drop(q peer.Peer) {
	for s := range p.nodes {
		n, self := &p.nodes[s], peer.Slot(s)
		p.remove(self, q)
		known := p.known[s*p.o.Contacts:][:n.knows]
		for i := len(known) - 1; i >= 0; i-- {
			if known[i] == q {
				n.knows--
				known[i] = known[n.knows]
			}
		}
		p.buried(self).Rise(q)
		for i := range n.met {
			if n.met[i] == q {
				n.met[i] = peer.Nobody
			}
		}
		kept := n.hops[:0]
		for _, h := range n.hops {
			if h.to != q && h.l.asker != q {
				kept = append(kept, h)
			}
		}
		n.hops = kept
	}
}

// join routes to the node's own place by way of a member that is known (§2.4).
func (a act) join(epoch uint64) {
	if a.n.in {
		return
	}
	a.n.in, a.n.epoch = true, max(a.n.epoch, epoch)
	if a.n.placed { // a member for long, by Settle
		a.arm(int64(a.env.Rand() % uint64(a.p.o.Period)))
		return
	}
	if a.p.o.Listed {
		a.n.met, a.n.alone = [2]peer.Peer{peer.Nobody, peer.Nobody}, 0
		a.confirm()
	} else {
		a.seek()
	}
	a.arm(a.p.o.Period)
}

// leave takes no part any more. Those who ask are told; where members are listed, so are the leaves, for it was planned.
func (a act) leave() {
	if a.n.in && a.p.o.Listed {
		for _, side := range [][]peer.Peer{a.p.ups(a.self), a.p.downs(a.self)} {
			for _, q := range side {
				a.env.Send(q, peer.Event{Kind: tell, Flags: out})
			}
		}
	}
	a.n.in, a.n.placed, a.n.timer = false, false, 0
}

// confirm asks the nearest leaf on either side until both have answered since this node joined: then they know of it, and
// keep none of its keys. Differs from §2.4, where a node joins by a lookup for its own place: where all nodes of a system
// begin together there is nobody yet who could answer that, but they have the plan's list.
func (a act) confirm() {
	n := a.n
	if n.leaf != 0 {
		return
	}
	for _, side := range [][]peer.Peer{a.p.ups(a.self), a.p.downs(a.self)} {
		if len(side) > 0 && !slices.Contains(n.met[:], side[0]) {
			n.alone = 0
			a.question(side[0], 0)
			return
		}
	}
	if n.ups+n.downs == 0 && n.knows > 0 && n.alone < lonely {
		return
	}
	n.placed = true
	n.epoch++
}

// seek asks for this node's place.
func (a act) seek() {
	known := a.p.known[int(a.self)*a.p.o.Contacts:][:a.n.knows]
	if len(known) == 0 {
		a.n.placed = true // there is nobody else, as far as is known
		return
	}
	via := known[a.env.Rand()%uint64(len(known))]
	a.env.Send(via, peer.Event{Kind: routeUpkeep, Hops: 1, Key: a.id}, a.me)
}

func (a act) arm(wait int64) {
	a.n.timer = peer.Tag(a.env.Rand()) | 1
	a.env.After(wait-int64(a.env.Rand()%uint64(wait/8+1)), peer.Event{Kind: tick, Tag: a.n.timer}) // so that members do not fall into step
}

// tick asks a leaf for its leaves, the nearest on either side every other time; or, now and then, an entry of the table for its row.
func (a act) tick() {
	a.arm(a.p.o.Period)
	n, ups, downs := a.n, a.p.ups(a.self), a.p.downs(a.self)
	switch missing := len(ups)+len(downs) == 0 && n.knows > 0; {
	case a.p.o.Listed && (missing || !n.placed):
		if missing && n.alone < lonely {
			n.alone++
		}
		a.recall()
		a.confirm()
		return
	case missing, !n.placed:
		a.seek()
		return
	}
	if n.leaf != 0 || len(ups)+len(downs) == 0 {
		return
	}
	n.turn++
	i, to := int(n.turn), peer.Nobody
	switch all := len(ups) + len(downs); {
	case i%4 == 0 && len(ups) > 0:
		to = ups[0]
	case i%4 == 2 && len(downs) > 0:
		to = downs[0]
	default:
		if j := i / 2 % all; j < len(ups) {
			to = ups[j]
		} else {
			to = downs[j-len(ups)]
		}
	}
	row := uint64(0)
	if i%8 == 6 {
		if at := a.env.Rand() % uint64(a.p.o.Rows*digits); a.p.entries(a.self)[at] != peer.Nobody {
			to, row = a.p.entries(a.self)[at], at/digits+1
		}
	}
	a.question(to, row)
}

// question asks a member for its leaves or, where row is not 0, for a row.
func (a act) question(to peer.Peer, row uint64) {
	a.n.leaf, a.n.asked = peer.Tag(a.env.Rand())|1, 0
	a.ask(to, row)
}

func (a act) ask(to peer.Peer, row uint64) {
	a.n.asked++
	a.env.Send(to, peer.Event{Kind: ask, Tag: a.n.leaf, Num: row})
	a.env.After(2*a.wait(), peer.Event{Kind: dumb, Tag: a.n.leaf, Num: uint64(to)})
}

// dumb is a member's silence.
func (a act) dumb(who peer.Peer) {
	if int(a.n.asked) < a.p.o.Tries {
		a.ask(who, 0)
		return
	}
	a.n.leaf = 0
	a.lose(who)
}

func (a act) onAsk(ev *peer.Event) {
	if !a.n.in {
		a.env.Send(ev.From, peer.Event{Kind: tell, Flags: out, Tag: ev.Tag})
		return
	}
	a.p.buried(a.self).Rise(ev.From)
	a.learn(ev.From)
	if ev.Num > 0 {
		a.tellRow(ev.From, int(min(ev.Num, uint64(a.p.o.Rows))-1), ev.Tag)
		return
	}
	a.tellLeaves(ev.From, 0, ev.Tag)
}

func (a act) tellLeaves(to peer.Peer, flags uint8, tag peer.Tag) {
	var some [24]peer.Peer
	a.env.Send(to, peer.Event{Kind: tell, Flags: flags, Tag: tag}, append(append(some[:0], a.p.ups(a.self)...), a.p.downs(a.self)...)...)
}

func (a act) tellRow(to peer.Peer, row int, tag peer.Tag) {
	var some [digits]peer.Peer
	list := some[:0]
	for _, q := range a.p.entries(a.self)[row*digits:][:digits] {
		if q != peer.Nobody && q != to && len(list) < rowMost {
			list = append(list, q)
		}
	}
	a.env.Send(to, peer.Event{Kind: tell, Tag: tag}, list...)
}

// onTell learns members. Answers to nobody's question come while this node joins; they are only told of, so are asked.
func (a act) onTell(ev *peer.Event) {
	n := a.n
	if ev.Tag != 0 && ev.Tag == n.leaf {
		n.leaf = 0
	} else if n.placed && ev.Flags&(joined|out) == 0 {
		return // late, or made up
	}
	if ev.Flags&out != 0 {
		a.lose(ev.From)
		return
	}
	a.p.buried(a.self).Rise(ev.From)
	a.learn(ev.From)
	for _, q := range ev.Peers {
		if !a.p.buried(a.self).Dead(q, a.now) {
			a.learn(q)
		}
	}
	n.met = [2]peer.Peer{ev.From, n.met[0]}
	if a.p.o.Listed && n.in && !n.placed {
		a.confirm()
		return
	}
	if ev.Flags&joined != 0 && n.in && !n.placed { // all leaves and entries shall know of this node (§2.4)
		n.placed = true
		n.epoch++
		for _, list := range [][]peer.Peer{a.p.ups(a.self), a.p.downs(a.self), a.p.entries(a.self)} {
			for _, q := range list {
				if q != peer.Nobody {
					a.env.Send(q, peer.Event{Kind: ask})
				}
			}
		}
	}
}

// See says what a slot's place looks like from inside: it owns what is nearer to it than to its neighbours.
func (p *Pastry) See(dir peer.Directory, self peer.Slot) peer.View {
	n, ups, downs := &p.nodes[self], p.ups(self), p.downs(self)
	id := dir.ID(dir.Self(self))
	v := peer.View{Member: n.in, From: id, To: id, Owns: n.in && n.placed, Epoch: n.epoch, Before: peer.Nobody, After: append([]peer.Peer(nil), ups...)}
	if len(ups) > 0 && len(downs) > 0 {
		v.Before = downs[0]
		v.From, v.To = keyspace.Middle(dir.ID(downs[0]), id), keyspace.Middle(id, dir.ID(ups[0]))
	}
	switch {
	case !n.in:
		v.Why = "it takes no part"
	case !n.placed:
		v.Why = "it does not know its neighbours yet"
	case len(ups)+len(downs) == 0 && n.knows > 0:
		v.Why = "nobody answers"
	}
	v.Whole = v.Why == ""
	return v
}

// OfLookup says whether a message is a lookup's, on its way or back; the others are upkeep.
func OfLookup(k peer.Kind) bool { return k == route || k == answer || k == ack }
