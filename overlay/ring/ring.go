// Package ring is a ring of nodes as a state machine: each knows its predecessor and a few successors, and a
// lookup goes from neighbour to neighbour to the node that owns the key. It is Chord without fingers (Stoica
// et al., Chord, IEEE/ACM ToN 11(1), 2003, §IV: consistent hashing, successor lists, stabilisation). It
// never reads a clock, sends or starts anything, and knows no node but those it is told of. Start at
// [Ring.Handle]; stabilise.go keeps the ring, lookup.go walks it.
//
// One rule closes the ring, joins it, repairs it and heals a partition: of the members that a node hears of,
// the nearest one above it that answers is its successor. Differs from Chord §IV.E, where a node joins by a
// lookup: that needs a ring to ask, and when all nodes of a system start together there is none.
package ring

import (
	"servent/peer"
)

// Successors are kept by each member, where [Options] do not say otherwise.
const Successors = 4

// Options of a [New] ring. Times are nanoseconds.
type Options struct {
	Successors int   // kept by each member: the ring survives that many neighbours dying together, less one; 0 means [Successors]
	Contacts   int   // members known from outside that each keeps; 0 means 8
	Questions  int   // open lookups of each; a power of two, at most 4096; 0 means 4
	Period     int64 // between two looks at the neighbours; 0 means 500 ms
	Timeout    int64 // the least wait for a neighbour's answer, and the first; 0 means 250 ms
	Tries      int   // questions without an answer that make a neighbour dead; 0 means 4
	Wait       int64 // the least wait for a lookup's answer, two and four times that after further tries; 0 means 300 ms
	Hops       int   // most datagrams of a lookup; 0 means 4096
	Fixed      bool  // a member answers for no key before the known member below it: data that does not move when a node dies
	Above      Above // a machine built on this one; nil: lookups go from neighbour to neighbour
}

// Above is a machine that is built on a ring, which keeps its neighbours and walks its lookups: what it adds is
// members farther away. Every lookup then goes to the known member that lies the nearest before the key, and to
// the owner itself when that is among the successors.
type Above interface {
	// Far are a slot's members beyond its successors, with Nobody where one is missing; the ring only reads them.
	Far(peer.Slot) []peer.Peer
	// Located ends a Locate whose Flags are [Upkeep], as Done does for others.
	Located(env *peer.Env, self peer.Slot, ev *peer.Event)
}

// Upkeep, in the Flags of a Locate, is a question of the machine above for itself: nobody is charged for it. Where
// Peers names one, that one is taken for the owner and asked, twice; else the lookup is as any.
const Upkeep uint8 = 2

// Timers is the first kind of timers that the ring leaves to a machine above.
const Timers = overdue + 1

const (
	millisecond = 1_000_000
	quiet       = 6 // periods without any neighbour until a member takes itself for the only one
	fresh       = 2 // periods that a successor may take to be settled itself; then all are new, as when a system starts
	buried      = 6 // periods until a dead peer may be asked again
)

// Timers.
const (
	tick    = peer.Timers + iota // look at the neighbours
	late                         // a neighbour's answer is due
	overdue                      // a lookup's answer is due
)

// Messages.
const (
	ask          = peer.Travels + iota // who are your neighbours? Flags: notify
	tell                               // Peers: predecessor (to itself, the one before it; if there is none, the teller), successors; Flags: accepted, out, settled
	look                               // Key, Hops, Num most hops, Peers: who asks; Flags: which way, and how
	answer                             // to look. Hops, Num epoch; Flags: an outcome. The sender is the owner
	leave                              // Key: owned the keys after it, if Flags say so; Peers: its successors
	lookUpkeep                         // look, for a machine above: apart, so that a study tells upkeep from lookups
	answerUpkeep                       // to lookUpkeep
)

// Flags.
const (
	notify   uint8 = 1 // ask: I take you for my successor
	accepted uint8 = 1 // tell: I take you for my predecessor
	out      uint8 = 2 // tell: I take no part
	settled  uint8 = 4 // tell: my own successor has accepted me
	owned    uint8 = 1 // leave
)

// Ring is the machine.
type Ring struct {
	o         Options
	nodes     []node
	next      []peer.Peer  // Successors of each slot, the nearest first
	contacts  []peer.Peer  // Contacts of each slot, the first half the nearest above it
	graves    []peer.Grave // Contacts and Successors of each slot: peers taken for dead
	questions []question
}

// node is one slot's state. It holds no pointer.
type node struct {
	in       bool // takes part
	owns     bool // low is known
	agreed   bool // the successor has accepted this node
	limited  bool // limit is known
	hoped    bool // who was asked last was not the successor
	nexts    uint8
	known    uint8  // contacts
	turn     uint16 // the contact to ask next when there is no successor
	graves   uint16 // next to be overwritten
	free     uint16
	pred     peer.Peer
	older    peer.Peer // the one before pred, when pred came between: its keys begin there
	heard    int64     // when pred was
	lonely   int64     // since when there is no neighbour
	waits    int64     // since when the successor has accepted this node, while it is not settled itself
	low      peer.ID   // owns the keys after it
	limit    peer.ID   // the known member below; see Options.Fixed
	epoch    uint64
	tick     peer.Tag
	ask      asked // the successor, or who might be a nearer one
	check    asked // the predecessor
	rtt      peer.RoundTrip
	lookTime peer.RoundTrip
}

// asked is a question to a neighbour; tag 0 means none is open.
type asked struct {
	to    peer.Peer
	tag   peer.Tag
	tries uint8
	flags uint8
	at    int64 // of the last try
}

// New makes the machine of n slots, all of them outside the ring.
func New(n int, o Options) *Ring {
	peer.Default(&o.Successors, Successors)
	peer.Default(&o.Contacts, 8)
	peer.Default(&o.Questions, 4)
	peer.Default(&o.Tries, 4)
	peer.Default(&o.Hops, 4096)
	peer.Default(&o.Period, 500*millisecond)
	peer.Default(&o.Timeout, 250*millisecond)
	peer.Default(&o.Wait, 300*millisecond)
	o.Successors, o.Contacts, o.Tries, o.Hops = min(o.Successors, 16), min(o.Contacts, 255), min(o.Tries, 255), min(o.Hops, 1<<16-1)
	if o.Questions > 4096 || o.Questions&(o.Questions-1) != 0 {
		panic("ring: questions are no power of two up to 4096")
	}
	r := &Ring{
		o: o, nodes: make([]node, n), next: make([]peer.Peer, n*o.Successors), contacts: make([]peer.Peer, n*o.Contacts),
		graves: make([]peer.Grave, n*(o.Contacts+o.Successors)), questions: make([]question, n*o.Questions),
	}
	for s := range r.nodes {
		r.Reset(peer.Slot(s))
	}
	return r
}

// Handle implements [peer.Protocol].
func (r *Ring) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	a := act{r, env, self, ev.At, &r.nodes[self], env.Self(), peer.ID{}}
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
		if a.n.in && ev.Tag == a.n.tick {
			a.tick()
		}
	case late:
		a.late(ev.Tag)
	case overdue:
		a.overdue(ev.Tag)
	case ask:
		a.onAsk(ev)
	case tell:
		a.onTell(ev)
	case look, lookUpkeep:
		if len(ev.Peers) == 1 {
			a.route(lookup{ev.Key, ev.Peers[0], ev.Tag, ev.Hops, min(ev.Num, uint64(r.o.Hops)), ev.Flags & ways, ev.Flags &^ ways}, ev.From)
		}
	case answer, answerUpkeep:
		a.onAnswer(ev)
	case leave:
		a.onLeave(ev)
	default:
		if ev.Kind < peer.Travels {
			panic("ring: an unknown command or timer")
		}
	}
}

// act is one slot handling one event.
type act struct {
	r    *Ring
	env  *peer.Env
	self peer.Slot
	now  int64
	n    *node
	me   peer.Peer
	id   peer.ID
}

// Drop implements [peer.Protocol].
func (r *Ring) Drop(p peer.Peer) {
	for s := range r.nodes {
		n, self := &r.nodes[s], peer.Slot(s)
		if n.pred == p {
			n.pred = peer.Nobody
		}
		if n.older == p {
			n.older = peer.Nobody
		}
		if n.ask.to == p {
			n.ask = asked{}
		}
		if n.check.to == p {
			n.check = asked{}
		}
		n.nexts = without(r.nexts(self), p)
		n.known = without(r.known(self), p)
		r.dead(self).Rise(p)
	}
	for i := range r.questions {
		if q := &r.questions[i]; q.tries > 0 && q.via == p {
			q.via = peer.Nobody
		}
	}
}

// without removes a peer in place and returns how many are left.
func without(peers []peer.Peer, p peer.Peer) (n uint8) {
	for _, q := range peers {
		if q != p {
			peers[n] = q
			n++
		}
	}
	return n
}

func (r *Ring) nexts(s peer.Slot) []peer.Peer {
	return r.next[int(s)*r.o.Successors:][:r.nodes[s].nexts]
}

func (r *Ring) known(s peer.Slot) []peer.Peer {
	return r.contacts[int(s)*r.o.Contacts:][:r.nodes[s].known]
}

// Member says whether a slot takes part.
func (r *Ring) Member(s peer.Slot) bool { return r.nodes[s].in }

// Successors are those of a slot, the nearest first, valid until its next event.
func (r *Ring) Successors(s peer.Slot) []peer.Peer { return r.nexts(s) }

func (r *Ring) far(s peer.Slot) []peer.Peer {
	if r.o.Above == nil {
		return nil
	}
	return r.o.Above.Far(s)
}

func (r *Ring) dead(s peer.Slot) peer.Graves {
	n := r.o.Contacts + r.o.Successors
	return r.graves[int(s)*n:][:n]
}

func (r *Ring) open(s peer.Slot) []question {
	return r.questions[int(s)*r.o.Questions:][:r.o.Questions]
}
