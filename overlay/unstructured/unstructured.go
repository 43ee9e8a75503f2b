// Package unstructured is an overlay without structure as a state machine: a graph that grows by each newcomer linking with m
// members, drawn evenly (random) or by how many links they have (scale-free: Barabási and Albert, Science 286, 1999); and the
// search in it for a node that has something, by flood as in Gnutella 0.4, by floods that widen, or by random walkers (Lv, Cao,
// Cohen, Li and Shenker, ICS 2002). Data stays where it is. It never reads a clock, sends or starts anything. Start at
// [Unstructured.Handle]; links.go keeps the graph, search.go asks.
//
// Who links and where is decided by walkers, too: a random walk is at a node as often as that has links, which is preferential
// attachment; one that turns back from better linked nodes as Metropolis and Hastings have it is everywhere equally often.
// Each node keeps m links of its own and makes new ones when their other ends die, so the graph of N nodes has m·N.
package unstructured

import "servent/peer"

// Options of a [New] overlay. Times are nanoseconds.
type Options struct {
	Links     int                           // m: of its own that a node keeps; 1 to 32; 0 means 2
	ScaleFree bool                          // who has many links gets more; else all are equal
	Walk      int                           // steps until the walker that looks for a link ends; 0 means 20
	Contacts  int                           // members remembered for when links are missing; 0 means 8
	Period    int64                         // between two looks at one's links; 0 means 1 s
	Holds     func(peer.Slot, peer.ID) bool // the node has what is searched for; it is called for several slots at a time; nil: none has
	Search    Search                        // how to search
	Far       int                           // links that a flood goes; 0 means as far as there are nodes
	Walkers   int                           // of a search by walkers; up to 64; 0 means 16
	Steps     int                           // after which a walker gives up; 0 means 4096
	Hop       int64                         // that a message takes at most, about; 0 means 200 ms
	Wait      int64                         // for an answer to a flood without bounds; 0 means 10 s
	Searches  int                           // open ones of each slot; a power of two up to 4096; 0 means 16
	Seen      int                           // floods that each slot remembers; 0 means 64
}

// Search is a way to search.
type Search uint8

const (
	Flood Search = iota // all neighbours are asked, who ask theirs, who …: each node once
	Widen               // a flood that goes one link, then one that goes two, …, until something is found: an expanding ring
	Walk                // walkers go from neighbour to neighbour, and ask every fourth step whether they still should
)

// Words are those for each Search, in order.
func Words() []string { return []string{"flood", "widen", "walk"} }

const second = 1_000_000_000

// Timers.
const (
	look = peer.Timers + iota // at the links
	due                       // a search's answer
)

// Messages.
const (
	seek   = peer.Travels + iota // a walker goes Hops steps more, for a node that wants a link, Peers[0], and has the question Tag; Num: links of who sends it
	offer                        // to who wanted one, Tag: link with me. Flags: no
	part                         // I am no neighbour of yours any more
	ping                         // to the other end of a link of one's own: are you there?
	pong                         // to ping. Flags: no. Peers: somebody else, in case all die
	flood                        // who has Key? Peers[0] asks, Tag; Hops links from there so far; Num more, 0 is any number
	walker                       // who has Key? Peers[0] asks, Tag; Hops steps so far; Num is the walker's number
	check                        // from where a walker is, to who asks: shall it go on? Num, Hops and Tag are the walker's; Peers[0] is where it came from
	goOn                         // to check: it shall, but not back to Peers[0]
	hit                          // I have Key, Tag, which is Hops away
)

// no, in the Flags of an answer: I take no part, or will not.
const no uint8 = 1

// Unstructured is the machine.
type Unstructured struct {
	o        Options
	nodes    []node
	links    [][]link    // by slot: few have very many
	known    []peer.Peer // Contacts of each slot
	searches []search    // Searches of each slot
	seen     []flooded   // Seen of each slot
}

// node is one slot's state.
type node struct {
	in     bool
	knows  uint8 // of known
	next   uint8 // of known to be overwritten
	free   uint16
	timer  peer.Tag
	wanted peer.Tag // of the walkers that are out for links
	sought int64    // when they were sent; 0: they have come back with nothing
	floods uint32   // remembered so far
}

// New makes the machine of n slots, which know nobody.
func New(n int, o Options) *Unstructured {
	peer.Within(&o.Links, 2, 32)
	peer.Within(&o.Walk, 20, 1000)
	peer.Within(&o.Contacts, 8, 255)
	peer.Default(&o.Period, second)
	peer.Within(&o.Walkers, 16, 64)
	peer.Within(&o.Steps, 4096, 60_000)
	peer.Default(&o.Hop, second/5)
	peer.Default(&o.Wait, 10*second)
	peer.Within(&o.Searches, 16, 4096)
	peer.Within(&o.Seen, 64, 1<<16)
	o.Far = min(max(o.Far, 0), 60_000)
	if o.Searches&(o.Searches-1) != 0 {
		panic("unstructured: searches are no power of two")
	}
	if o.Holds == nil {
		o.Holds = func(peer.Slot, peer.ID) bool { return false }
	}
	u := &Unstructured{o: o, nodes: make([]node, n), links: make([][]link, n), known: make([]peer.Peer, n*o.Contacts),
		searches: make([]search, n*o.Searches), seen: make([]flooded, n*o.Seen)}
	for s := range u.nodes {
		u.Reset(peer.Slot(s))
	}
	return u
}

// Reset makes a slot forget all, as a process that ends does.
func (u *Unstructured) Reset(self peer.Slot) {
	u.nodes[self], u.links[self] = node{}, u.links[self][:0]
	for i := range u.open(self) {
		u.open(self)[i] = search{next: uint16(i + 1)}
	}
	clear(u.remembered(self))
}

// act is one slot handling one event.
type act struct {
	u    *Unstructured
	env  *peer.Env
	self peer.Slot
	now  int64
	n    *node
	me   peer.Peer
}

// Handle implements [peer.Protocol].
func (u *Unstructured) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	a := act{u, env, self, ev.At, &u.nodes[self], env.Self()}
	switch ev.Kind {
	case peer.Know:
		a.n.knows = uint8(env.Sample(u.contacts(self), ev.Peers))
	case peer.Join:
		a.join()
	case peer.Leave:
		a.leave()
	case peer.Locate:
		a.locate(ev)
	case look:
		if a.n.in && ev.Tag == a.n.timer {
			a.look()
		}
	case due:
		a.due(ev.Tag)
	case hit, check:
		a.hear(ev) // those who take no part may ask, too
	default:
		switch {
		case ev.Kind < peer.Travels:
			panic("unstructured: an unknown command or timer")
		case a.n.in:
			a.hear(ev)
		case ev.Kind == ping:
			env.Send(ev.From, peer.Event{Kind: pong, Flags: no})
		}
	}
}

// hear takes a message.
func (a act) hear(ev *peer.Event) {
	if len(ev.Peers) > 1 {
		return // made up
	}
	switch ev.Kind {
	case ping:
		a.onPing(ev.From)
	case pong:
		a.onPong(ev)
	case offer:
		a.onOffer(ev)
	case part:
		a.cut(ev.From)
	case hit:
		a.onHit(ev)
	case check:
		a.onCheck(ev)
	}
	if len(ev.Peers) == 0 {
		return
	}
	switch ev.Kind {
	case seek:
		a.onSeek(ev)
	case flood:
		a.onFlood(ev)
	case walker:
		a.onWalker(ev)
	case goOn:
		a.step(*ev, ev.From, ev.Peers[0])
	}
}

// Drop implements [peer.Protocol].
func (u *Unstructured) Drop(p peer.Peer) {
	for s := range u.nodes {
		self, n := peer.Slot(s), &u.nodes[s]
		if i := u.index(self, p); i >= 0 {
			u.remove(self, i)
		}
		known := u.contacts(self)[:n.knows]
		for i := len(known) - 1; i >= 0; i-- {
			if known[i] == p {
				n.knows--
				known[i] = known[n.knows]
			}
		}
		for i := range u.remembered(self) {
			if x := &u.remembered(self)[i]; x.who == p {
				x.who = peer.Nobody
			}
		}
	}
}

// draw is evenly from 0 to n−1.
func (a act) draw(n int) int { return int(a.env.Rand() % uint64(n)) }

// See says what a slot knows: After are its neighbours. It has no range.
func (u *Unstructured) See(dir peer.Directory, self peer.Slot) peer.View {
	n := &u.nodes[self]
	v := peer.View{Member: n.in, To: dir.ID(dir.Self(self)), Before: peer.Nobody, After: u.Links(self, nil)}
	switch {
	case !n.in:
		v.Why = "it takes no part"
	case u.own(self) < u.o.Links && n.knows > 0:
		v.Why = "it still looks for neighbours"
	}
	v.Whole = v.Why == ""
	return v
}

// OfSearch says whether a message is a search's; the others are upkeep.
func OfSearch(k peer.Kind) bool { return k >= flood && k <= hit }

// Asks says whether a message carries a search from neighbour to neighbour; the others of a search go straight to or from who asked.
func Asks(k peer.Kind) bool { return k == flood || k == walker }
