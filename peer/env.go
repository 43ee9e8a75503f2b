package peer

// Env is a machine's world while it handles one event: it collects effects, which the driver applies in order
// after Handle has returned. One goroutine uses it.
type Env struct {
	dir   Directory
	seed  uint64
	drawn []uint32 // random numbers that each slot has used
	self  Slot
	out   []Effect
	peers []Peer // of effects
	data  []byte // of effects
}

// Action is what an effect asks of the driver.
type Action uint8

const (
	Send    Action = iota // Event to the peer To
	Forward               // the same, as work for a lookup, which costs what the node's capacity says
	Timer                 // Event to this slot, After nanoseconds from now; it cannot be stopped, so stale ones are known by Tag
	Answer                // Event to whoever gave the command with its Tag
)

// Effect is one wish of a machine. Its slices are valid until the next [Env.Begin].
type Effect struct {
	Action Action
	To     Peer
	After  int64
	Event  Event
}

// NewEnv makes the world of the slots that drawn has an entry for. Random numbers depend on seed, slot and
// drawn alone, so they are the same however slots are divided over environments.
func NewEnv(dir Directory, seed uint64, drawn []uint32) *Env {
	return &Env{dir: dir, seed: seed, drawn: drawn}
}

// Begin prepares for an event at a slot and forgets the effects of the one before.
func (e *Env) Begin(self Slot) {
	e.self, e.out, e.peers, e.data = self, e.out[:0], e.peers[:0], e.data[:0]
}

// Effects are those since Begin.
func (e *Env) Effects() []Effect { return e.out }

// Self is the slot's own peer.
func (e *Env) Self() Peer { return e.dir.Self(e.self) }

// ID is a peer's place.
func (e *Env) ID(p Peer) ID { return e.dir.ID(p) }

// Send sends a message with peers; it may be lost, late or doubled. Peers stand apart from ev, whose own are
// not looked at, so that a list made for the call stays off the heap.
func (e *Env) Send(to Peer, ev Event, peers ...Peer) {
	e.add(Effect{Action: Send, To: to, Event: ev}, peers)
}

// Forward is Send of a lookup that goes on to the next node: the driver charges for it.
func (e *Env) Forward(to Peer, ev Event, peers ...Peer) {
	e.add(Effect{Action: Forward, To: to, Event: ev}, peers)
}

// After brings ev back to this slot as a timer, ns nanoseconds from now or a little later.
func (e *Env) After(ns int64, ev Event) {
	e.add(Effect{Action: Timer, To: Nobody, After: ns, Event: ev}, nil)
}

// Done ends the command with ev's Tag; peers are as for Send.
func (e *Env) Done(ev Event, peers ...Peer) {
	e.add(Effect{Action: Answer, To: Nobody, Event: ev}, peers)
}

func (e *Env) add(f Effect, peers []Peer) {
	n, m := len(e.peers), len(e.data)
	e.peers, e.data = append(e.peers, peers...), append(e.data, f.Event.Data...)
	f.Event.Peers, f.Event.Data = e.peers[n:len(e.peers):len(e.peers)], e.data[m:len(e.data):len(e.data)]
	e.out = append(e.out, f)
}

// Rand is uniform: SplitMix64 (Steele, Lea and Flood, OOPSLA 2014) of seed, slot and the numbers drawn before.
func (e *Env) Rand() uint64 {
	e.drawn[e.self]++
	return mix(mix(e.seed+uint64(e.self)*golden) + uint64(e.drawn[e.self])*golden)
}

const golden = 0x9e3779b97f4a7c15

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// Shuffled are the same peers in an order drawn evenly.
func (e *Env) Shuffled(peers []Peer) []Peer {
	out := append([]Peer(nil), peers...)
	for i := len(out) - 1; i > 0; i-- {
		j := e.Rand() % uint64(i+1)
		out[i], out[j] = out[j], out[i]
	}
	return out
}
