// Package peer says what a peer-to-peer protocol is: a machine that turns events into effects and keeps the
// state of many nodes in flat arrays. It knows no protocol, no clock and no socket; packages of overlay are
// the machines, and drivers (peer/wire in real time) deliver events and apply effects. Start at [Protocol].
package peer

type (
	Slot    uint32   // a node hosted here: 0 in a servent process, 0…n−1 in a simulation
	Peer    uint32   // a node known here; drivers intern addresses, so that tables hold four bytes a node
	ID      [20]byte // a place on the ring of identifiers, the highest byte first
	Address string   // how a driver reaches a peer: the name of its node; at most MaxAddress bytes
	Kind    uint8    // what an event is
	Tag     uint32   // number of a question; answers and timers repeat it
)

// Nobody is no peer.
const Nobody = ^Peer(0)

// Commands are kinds of events that the driver makes. A protocol's own timers come after them, from [Timers]
// to Travels−1, and its messages from [Travels] on: what comes off the wire can be neither command nor timer.
const (
	Know   Kind = 1 + iota // Peers are the members known from outside, in place of those told before
	Join                   // take part; Num is above every epoch of this node's earlier lives
	Leave                  // stop taking part, and say so
	Locate                 // find who owns Key; ends in one Done with the same Tag
	Timers                 // first kind of a protocol's own timers

	Travels Kind = 128 // first kind of messages: these alone travel in datagrams
)

// Around, in the Flags of a Locate, makes a member ask for its own ID from its successor on, once round:
// the hops of the answer are the number of members, and the owner is the one who asks if the ring is whole.
const Around uint8 = 1

// Outcomes stand in the Flags of what [Env.Done] is given for a Locate.
const (
	Found   uint8 = iota // Peers[0] owns Key; Hops datagrams led to it; Num is the owner's epoch
	Vacant               // Peers[0] would be next to own Key, but must not: the data is with a member that is away
	Lost                 // nobody answered, though asked again
	Crowded              // too many questions are open
)

// Event is all that can happen to a node: a datagram, a timer, a command. Which fields count is up to its kind.
type Event struct {
	At    int64  // nanoseconds on the driver's clock, never less than before at the same slot
	From  Peer   // who sent the datagram; Nobody for timers and commands
	Kind  Kind   //
	Flags uint8  //
	Hops  uint16 // datagrams from node to node so far
	Tag   Tag    //
	Num   uint64 // a number: epoch, limit
	Key   ID     //
	Peers []Peer // borrowed until Handle returns
	Data  []byte // borrowed until Handle returns
}

// Protocol is a machine: the state of every slot that it hosts, in flat arrays indexed by slot.
type Protocol interface {
	// Handle takes an event at a slot. An unknown command or timer panics: our own code made it. A message
	// is from the wire, so it may hold anything. A simulation handles different slots at the same time, so
	// what slots share is only read.
	Handle(env *Env, self Slot, ev *Event)
	// Drop forgets a peer, whose number the driver will use for another.
	Drop(p Peer)
}

// View is what a node's place in an overlay looks like from inside.
type View struct {
	Member bool
	From   ID     // owns the keys after it …
	To     ID     // … up to and including this, its own ID; all of them when both are the same
	Mask   ID     // by XOR: of those, the keys alone that have To's bits wherever Mask has ones
	Owns   bool   // the range holds: false before the node knows where its keys begin
	Epoch  uint64 // number of the range: higher whenever it changes
	Before Peer   // predecessor, or Nobody
	After  []Peer // successors, the nearest first
	Whole  bool   // the ring has no gap as far as seen from here
	Why    string // when not: what is missing, in words
}

// Directory is what a machine may know of peers.
type Directory interface {
	Self(Slot) Peer
	ID(Peer) ID
}
