// Package kademlia is Kademlia as a state machine (Maymounkov and Mazières, IPTPS 2002): the distance of two
// identifiers is their XOR, a key belongs to the member nearest to it, and a node knows up to k members of each
// subtree that it is not in, its k-buckets. A lookup asks the nearest members known so far, α at a time, for those
// that they know nearer still. It never reads a clock, sends or starts anything. Start at [Kademlia.Handle];
// buckets.go keeps what is known, lookup.go asks.
//
// Differs from the paper: who does not answer is left out of a bucket after the second time, whether another waits for
// its place or not; and a time-out follows what answers take (RFC 6298), instead of being fixed.
package kademlia

import (
	"math/bits"
	"slices"

	"servent/peer"
	"servent/peer/keyspace"
)

// Options of a [New] Kademlia. Times are nanoseconds.
type Options struct {
	K         int   // contacts of a bucket, and members that a lookup ends with; at most 32; 0 means [K], as BEP 5 has it, for more do not fit a datagram with long names
	Alpha     int   // questions of a lookup at a time; 0 means 3
	Buckets   int   // of each slot, up to 160; the last one holds all nearer ones, too; 0 means 32
	Lookups   int   // open ones of each slot; a power of two up to 4096; 0 means 16
	Contacts  int   // members known from outside that are asked when nobody else is left; 0 means 8
	Period    int64 // between two lookups that refresh a bucket; 0 means 30 s
	Timeout   int64 // the least wait for an answer; 0 means 250 ms
	FirstWait int64 // the wait before any answer has come; 0 means 1 s
	Watch     int64 // between two looks at a contact of each bucket, so that a node knows soon which keys are its own; 0 means never
	Value     bool  // a lookup ends when a member says that the key is its own, as FIND_VALUE ends at the value (§2.3)
}

const (
	// K is how many contacts a bucket has, where [Options] do not say otherwise.
	K = 8

	millisecond = 1_000_000
	second      = 1000 * millisecond
)

// Timers.
const (
	refresh = peer.Timers + iota // the next bucket's turn
	late                         // Num's answer to a lookup's question, Tag, is due
	silent                       // the answer to a ping is due
	watch                        // look at the buckets
)

// Messages.
const (
	find        = peer.Travels + iota // who is near Key? FIND_NODE
	found                             // Peers: the k nearest that are known; Num: epoch; Flags: out
	findUpkeep                        // find, to refresh a bucket or join
	foundUpkeep                       // to findUpkeep
	ping                              // are you there?
	pong                              // to ping
)

// Flags of messages.
const (
	client uint8 = 1 // find: the sender takes no part, so nobody should remember it
	out    uint8 = 2 // found, pong: I take no part
	mine   uint8 = 4 // found: the key is my own, by my own view
)

// Kademlia is the machine.
type Kademlia struct {
	o        Options
	nodes    []node
	contacts []peer.Peer // K of each bucket of each slot, the one heard of last at the end (§2.2)
	counts   []uint8     // by bucket
	stale    []uint32    // by bucket: a bit for each contact whose last answer did not come
	known    []peer.Peer // Contacts of each slot
	lookups  []lookup    // Lookups of each slot
}

// node is one slot's state.
type node struct {
	in      bool
	knows   uint8 // of known
	turn    uint8 // the bucket to refresh next, the nearest first: 0 is the node's own place
	round   bool  // all buckets have been refreshed since it joined
	placed  bool  // those near its place know of it
	alone   uint8 // looks at its own place that nobody answered
	free    uint16
	timer   peer.Tag
	epoch   uint64
	rtt     peer.RoundTrip
	pinged  peer.Peer   // the least recently seen of a full bucket, while it is asked
	waits   peer.Peer   // for its place
	ping    peer.Tag    // 0: none is open
	pinging int64       // when the last one began
	watch   peer.Tag    // of the last look at the buckets
	watched []peer.Peer // whose answers to it are missing
}

// New makes the machine of n slots, which know nobody.
func New(n int, o Options) *Kademlia {
	peer.Within(&o.K, K, 32)
	peer.Within(&o.Alpha, 3, 32)
	peer.Within(&o.Buckets, 32, 160)
	peer.Within(&o.Lookups, 16, 4096)
	peer.Within(&o.Contacts, 8, 255)
	peer.Default(&o.Period, 30*second)
	peer.Default(&o.Timeout, 250*millisecond)
	peer.Default(&o.FirstWait, second)
	if o.Lookups&(o.Lookups-1) != 0 {
		panic("kademlia: lookups are no power of two")
	}
	k := &Kademlia{o: o, nodes: make([]node, n), contacts: make([]peer.Peer, n*o.Buckets*o.K), counts: make([]uint8, n*o.Buckets),
		stale: make([]uint32, n*o.Buckets), known: make([]peer.Peer, n*o.Contacts), lookups: make([]lookup, n*o.Lookups)}
	for s := range k.nodes {
		k.Reset(peer.Slot(s))
	}
	return k
}

// Reset makes a slot forget all, as a process that ends does.
func (k *Kademlia) Reset(self peer.Slot) {
	k.nodes[self] = node{pinged: peer.Nobody, waits: peer.Nobody}
	for b := range k.o.Buckets {
		k.counts[int(self)*k.o.Buckets+b], k.stale[int(self)*k.o.Buckets+b] = 0, 0
	}
	for i := range k.open(self) {
		k.open(self)[i] = lookup{next: uint16(i + 1)}
	}
}

// act is one slot handling one event.
type act struct {
	k    *Kademlia
	env  *peer.Env
	self peer.Slot
	now  int64
	n    *node
	me   peer.Peer
	id   peer.ID
}

// Handle implements [peer.Protocol].
func (k *Kademlia) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	a := act{k, env, self, ev.At, &k.nodes[self], env.Self(), peer.ID{}}
	a.id = env.ID(a.me)
	switch ev.Kind {
	case peer.Know:
		a.know(ev.Peers)
	case peer.Join:
		a.join(ev.Num)
	case peer.Leave:
		a.n.in, a.n.timer, a.n.watch, a.n.round, a.n.placed = false, 0, 0, false, false // the paper has no farewell: those who ask are told
	case peer.Locate:
		a.locate(ev)
	case refresh:
		if a.n.in && ev.Tag == a.n.timer {
			a.refresh()
		}
	case late:
		a.late(ev.Tag, peer.Peer(ev.Num))
	case silent:
		if ev.Tag == a.n.ping && ev.Tag != 0 {
			a.evict()
		}
	case watch:
		if a.n.in && ev.Tag == a.n.watch {
			a.watch()
		}
	case find, findUpkeep, ping:
		a.onQuestion(ev)
	case found, foundUpkeep:
		a.onFound(ev)
	case pong:
		a.onPong(ev)
	default:
		if ev.Kind < peer.Travels {
			panic("kademlia: an unknown command or timer")
		}
	}
}

// Drop implements [peer.Protocol].
func (k *Kademlia) Drop(p peer.Peer) {
	for s := range k.nodes {
		n, self := &k.nodes[s], peer.Slot(s)
		for b := range k.o.Buckets {
			k.remove(self, b, p)
		}
		known := k.known[s*k.o.Contacts:][:n.knows]
		for i := len(known) - 1; i >= 0; i-- {
			if known[i] == p {
				n.knows--
				known[i] = known[n.knows]
			}
		}
		if n.pinged == p || n.waits == p {
			n.ping, n.pinged, n.waits = 0, peer.Nobody, peer.Nobody
		}
		n.watched = slices.DeleteFunc(n.watched, func(q peer.Peer) bool { return q == p })
		for i := range k.open(self) {
			k.open(self)[i].drop(p)
		}
	}
}

// know remembers members known from outside, until they do not answer.
func (a act) know(members []peer.Peer) {
	a.n.knows = uint8(a.env.Sample(a.k.known[int(a.self)*a.k.o.Contacts:][:a.k.o.Contacts], members))
	if len(members) > a.k.o.K { // a bucket may not hold all: any of its subtree, not the first ones
		members = a.env.Shuffled(members)
	}
	for _, p := range members {
		if p != a.me && a.env.ID(p) != a.id {
			a.hope(p)
		}
	}
}

// join begins with a lookup for the node's own place (§2.3), then refreshes one bucket after the other.
func (a act) join(epoch uint64) {
	if a.n.in {
		return
	}
	a.n.in, a.n.epoch, a.n.turn, a.n.alone = true, max(a.n.epoch, epoch), 0, 0
	if a.k.o.Watch > 0 {
		a.watch()
	}
	if a.n.round { // a member for long, by Settle
		a.arm(int64(a.env.Rand() % uint64(a.k.o.Period)))
		return
	}
	a.refresh()
}

func (a act) arm(wait int64) {
	a.n.timer = peer.Tag(a.env.Rand()) | 1
	a.env.After(wait, peer.Event{Kind: refresh, Tag: a.n.timer})
}

// refresh looks up a place in the bucket whose turn it is.
func (a act) refresh() {
	n := a.n
	last := a.depth()
	if last < 0 { // nobody is known: those from outside again
		for _, p := range a.k.known[int(a.self)*a.k.o.Contacts:][:n.knows] {
			a.hope(p)
		}
		last, n.turn = a.depth(), 0
		a.unanswered()
	}
	key := a.id
	if n.turn > 0 && last >= int(n.turn)-1 {
		key = a.somewhere(last - int(n.turn) + 1)
	}
	if last >= 0 {
		a.begin(peer.Event{Kind: peer.Locate, Key: key}, true)
	}
	if n.turn++; int(n.turn) > last+1 {
		n.round, n.turn = last >= 0, 0
	}
	wait := a.k.o.Period
	if !n.round {
		wait = min(wait, second)
	}
	a.arm(wait - int64(a.env.Rand()%uint64(wait/8+1))) // so that members do not fall into step
}

// somewhere draws a place in a bucket's subtree: it shares the first b bits with this node's, and no more.
func (a act) somewhere(b int) peer.ID {
	key := a.id
	for i := range key {
		if 8*i+8 > b {
			drawn := byte(a.env.Rand())
			keep := byte(0) // bits that stay
			if free := 8*i + 8 - b; free < 8 {
				keep = ^byte(0) << free
			}
			key[i] = key[i]&keep | drawn&^keep
		}
	}
	bit := byte(1) << (7 - b%8)
	key[b/8] = key[b/8]&^bit | ^a.id[b/8]&bit
	return key
}

// onQuestion answers, and remembers who asks.
func (a act) onQuestion(ev *peer.Event) {
	reply := peer.Event{Kind: ev.Kind + 1, Tag: ev.Tag}
	if !a.n.in {
		reply.Flags = out
		a.env.Send(ev.From, reply)
		return
	}
	if ev.Kind != ping {
		var some [32]candidate
		var peers [32]peer.Peer
		near := a.nearest(some[:0], ev.Key, ev.From)
		for i := range near {
			peers[i] = near[i].who
		}
		reply.Num = a.n.epoch
		if a.k.o.Value && a.n.placed && a.k.holds(a.env, a.self, a.id, ev.Key) {
			reply.Flags = mine
		}
		a.env.Send(ev.From, reply, peers[:len(near)]...)
	} else {
		a.env.Send(ev.From, reply)
	}
	if ev.Flags&client == 0 {
		a.heard(ev.From)
	}
}

// lonely is how many looks at a node's own place nobody answers until it takes itself for the only one.
const lonely = 6

// unanswered counts those looks.
func (a act) unanswered() {
	if a.n.alone++; a.n.knows == 0 || a.n.alone >= lonely {
		a.n.placed = true
	}
}

// mask has ones for the bits by which a node's contacts part from it. Whatever member has a bit that is not the node's,
// the bits before it alike, is nearer than the node to every key that has that bit, too. Of each subtree that has members a
// node knows some, so the keys that are its own are those that agree with it in these bits.
func (k *Kademlia) mask(dir places, self peer.Slot, id peer.ID) (mask peer.ID) {
	for b := range k.o.Buckets {
		for _, p := range k.bucket(self, b) {
			if i := shared(dir.ID(p), id); i < 8*len(id) {
				mask[i/8] |= 0x80 >> (i % 8)
			}
		}
	}
	return mask
}

// places says where peers stand.
type places interface{ ID(peer.Peer) peer.ID }

func (k *Kademlia) holds(dir places, self peer.Slot, id, key peer.ID) bool {
	return keyspace.Alike(id, key, k.mask(dir, self, id))
}

// See says what a slot knows: After are its nearest contacts. The keys nearest to it by XOR lie in several pieces of the
// circle; Mask tells them from others.
func (k *Kademlia) See(dir peer.Directory, self peer.Slot) peer.View {
	n := &k.nodes[self]
	id := dir.ID(dir.Self(self))
	v := peer.View{Member: n.in, From: id, To: id, Mask: k.mask(dir, self, id), Owns: n.in && n.placed, Epoch: n.epoch, Before: peer.Nobody}
	var some [64]candidate
	near := some[:0]
	for b := k.o.Buckets - 1; b >= 0 && len(near) < k.o.K; b-- {
		for _, p := range k.bucket(self, b) {
			near = append(near, candidate{who: p, id: dir.ID(p), far: distance(dir.ID(p), id)})
		}
	}
	order(near)
	for _, c := range near[:min(len(near), k.o.K)] {
		v.After = append(v.After, c.who)
	}
	switch {
	case !n.in:
		v.Why = "it takes no part"
	case len(near) == 0 && n.knows > 0:
		v.Why = "nobody answers"
	case !n.round && n.knows > 0:
		v.Why = "it is still getting to know the others"
	}
	v.Whole = v.Why == ""
	return v
}

// OfLookup says whether a message is a lookup's, on its way or back; the others are upkeep.
func OfLookup(k peer.Kind) bool { return k == find || k == found }

// shared is how many leading bits two identifiers have in common.
func shared(a, b peer.ID) int {
	for i := range a {
		if x := a[i] ^ b[i]; x != 0 {
			return 8*i + bits.LeadingZeros8(x)
		}
	}
	return 8 * len(a)
}
