package sim

import (
	"cmp"
	"encoding/binary"
	"math"
	"math/bits"
	"slices"

	"servent/peer"
)

// event is a [peer.Event] that waits: half a cache line, without pointers. Key, number, peers and data, if
// any, lie as words in the arena of its window.
type event struct {
	at    uint32 // ns since the window began
	to    uint32
	from  uint32
	tag   uint32
	count uint32 // the sender's: with from it tells events apart that are due at one time
	body  uint32
	kind  uint8
	flags uint8
	hops  uint16
	peers uint8
	has   uint8 // hasKey, hasNum, and the life of the slot whose timer it is
	data  uint16
}

const (
	hasKey = 1 << iota
	hasNum
	lifeAt = iota // first bit of the life
	lives  = 1 << (8 - lifeAt)
)

// words is how long an event's body is.
func (e *event) words() int {
	return int(e.has&hasKey)*5 + int(e.has&hasNum) + int(e.peers) + (int(e.data)+3)/4
}

const (
	ringSize  = 4096 // windows ahead for which there is a bucket
	chunkSize = 256  // events
	slabSize  = 2048 // words; a body lies in one slab
)

type (
	chunk [chunkSize]event
	slab  [slabSize]uint32
)

// bucket holds a window's events. Its chunks go back to the shard when the window is over.
type bucket struct {
	chunks []*chunk
	slabs  []*slab
	n      int // events
	used   int // words of the last slab
}

func (b *bucket) event(i uint32) *event { return &b.chunks[i/chunkSize][i%chunkSize] }

func (b *bucket) body(e *event) []uint32 {
	n := e.words()
	if n == 0 {
		return nil
	}
	return b.slabs[e.body/slabSize][e.body%slabSize:][:n]
}

// box holds events for later windows that no bucket can take yet: another shard's, or far ahead.
type box struct {
	windows []int64
	events  []event
	words   []uint32
	least   int64 // of windows
}

func (b *box) reset() {
	b.windows, b.events, b.words, b.least = b.windows[:0], b.events[:0], b.words[:0], math.MaxInt64
}

func (b *box) add(window int64, e event, body []uint32) {
	e.body = uint32(len(b.words))
	b.windows, b.events, b.words, b.least = append(b.windows, window), append(b.events, e), append(b.words, body...), min(b.least, window)
}

// shard is a range of slots and what is due at them. During a Run one goroutine has it.
type shard struct {
	sim     *Sim
	index   int
	base    uint32 // first slot
	slots   int
	env     *peer.Env
	now     int64 // window that is being handled, or was last
	ring    []bucket
	far     box
	spare   box
	turn    int64    // window from which far must be looked through
	out     [2][]box // to each shard: one is filled while the other is emptied
	phase   int
	chunks  []*chunk
	slabs   []*slab
	keys    []uint64
	other   []uint64
	words   []uint32
	ev      peer.Event
	peers   []peer.Peer
	data    []byte
	answers []Answer
	count   Counters
}

func newShard(s *Sim, i, of int, env *peer.Env) *shard {
	base := min(i*s.span, len(s.nodes))
	sh := &shard{sim: s, index: i, base: uint32(base), slots: min(s.span, len(s.nodes)-base), env: env, ring: make([]bucket, ringSize), turn: ringSize / 2}
	sh.far.reset()
	sh.spare.reset()
	for p := range sh.out {
		sh.out[p] = make([]box, of)
		for j := range sh.out[p] {
			sh.out[p][j].reset()
		}
	}
	return sh
}

// run handles windows from one that all shards agree on until they agree on one at or after end.
func (s *shard) run(window, end int64, m *meeting) {
	for window < end {
		s.take()
		s.phase ^= 1
		s.now = window
		if window >= s.turn {
			s.unfar()
		}
		s.handleAll()
		mine := s.next(window)
		for i := range s.out[s.phase] {
			mine = min(mine, s.out[s.phase][i].least)
		}
		window = m.wait(mine)
	}
}

// take empties what the shards have put out for this one in the last window.
func (s *shard) take() {
	for _, from := range s.sim.shards {
		b := &from.out[s.phase][s.index]
		for i := range b.events {
			e := b.events[i]
			s.put(b.windows[i], e, b.words[e.body:][:e.words()])
		}
		b.reset()
	}
}

// unfar moves what is far ahead no longer into buckets.
func (s *shard) unfar() {
	old := s.far
	s.far, s.turn = s.spare, s.now+ringSize/2
	for i := range old.events {
		e := old.events[i]
		body := old.words[e.body:][:e.words()]
		if old.windows[i] == s.now {
			s.fill(s.now, e, body)
			continue
		}
		s.put(old.windows[i], e, body)
	}
	old.reset()
	s.spare = old
}

// next is the first window after one in which something is due.
func (s *shard) next(after int64) int64 {
	for w := after + 1; w < after+ringSize; w++ {
		if s.ring[w%ringSize].n > 0 {
			return min(w, s.far.least)
		}
	}
	return s.far.least
}

// put keeps an event for a later window of this shard.
func (s *shard) put(window int64, e event, body []uint32) {
	if window >= s.now+ringSize {
		s.far.add(window, e, body)
		return
	}
	s.fill(window, e, body)
}

func (s *shard) fill(window int64, e event, body []uint32) {
	b := &s.ring[window%ringSize]
	if b.n%chunkSize == 0 {
		if n := len(s.chunks); n > 0 {
			b.chunks, s.chunks = append(b.chunks, s.chunks[n-1]), s.chunks[:n-1]
		} else {
			b.chunks = append(b.chunks, new(chunk))
		}
	}
	if len(body) > 0 {
		if len(b.slabs) == 0 || b.used+len(body) > slabSize {
			if n := len(s.slabs); n > 0 {
				b.slabs, s.slabs = append(b.slabs, s.slabs[n-1]), s.slabs[:n-1]
			} else {
				b.slabs = append(b.slabs, new(slab))
			}
			b.used = 0
		}
		last := len(b.slabs) - 1
		e.body = uint32(last*slabSize + b.used)
		b.used += copy(b.slabs[last][b.used:], body)
	}
	b.chunks[b.n/chunkSize][b.n%chunkSize] = e
	b.n++
}

// handleAll has each node take what is due at it in the window, in order.
func (s *shard) handleAll() {
	b, start := &s.ring[s.now%ringSize], s.now*s.sim.width
	if b.n == 0 {
		return
	}
	keys := s.sort(b)
	for i := 0; i < len(keys); {
		j := i + 1
		for j < len(keys) && keys[j]>>32 == keys[i]>>32 {
			j++
		}
		if j-i > 1 {
			b.order(keys[i:j])
		}
		for _, k := range keys[i:j] {
			s.handle(start, b, b.event(uint32(k)))
		}
		i = j
	}
	s.chunks, s.slabs = append(s.chunks, b.chunks...), append(s.slabs, b.slabs...)
	b.chunks, b.slabs, b.n, b.used = b.chunks[:0], b.slabs[:0], 0, 0
}

// sort returns the numbers of a bucket's events by destination: destination within the shard above, number
// below.
func (s *shard) sort(b *bucket) []uint64 {
	keys := slices.Grow(s.keys[:0], b.n)
	for c, left := 0, b.n; left > 0; c, left = c+1, left-chunkSize {
		for i := range b.chunks[c][:min(left, chunkSize)] {
			keys = append(keys, uint64(b.chunks[c][i].to-s.base)<<32|uint64(c*chunkSize+i))
		}
	}
	s.keys = keys
	if len(keys) < 128 {
		slices.Sort(keys)
		return keys
	}
	digit := 11
	if len(keys) < 4096 {
		digit = 8
	}
	other := slices.Grow(s.other[:0], len(keys))[:len(keys)]
	for shift := 32; shift < 32+bits.Len(uint(s.slots-1)); shift += digit {
		var counts [1 << 11]uint32
		mask := uint64(1)<<digit - 1
		for _, k := range keys {
			counts[k>>shift&mask]++
		}
		sum := uint32(0)
		for i := range counts[:1<<digit] {
			sum, counts[i] = sum+counts[i], sum
		}
		for _, k := range keys {
			c := &counts[k>>shift&mask]
			other[*c] = k
			*c++
		}
		keys, other = other, keys
	}
	s.keys, s.other = keys, other
	return keys
}

// order sorts the events of one node: by time, then by sender, its own timers last, then as they were sent.
func (b *bucket) order(keys []uint64) {
	less := func(x, y *event) int {
		return cmp.Or(cmp.Compare(x.at, y.at), cmp.Compare(x.from, y.from), cmp.Compare(x.count, y.count))
	}
	if len(keys) > 24 { // a node that everybody talks to
		slices.SortFunc(keys, func(x, y uint64) int { return less(b.event(uint32(x)), b.event(uint32(y))) })
		return
	}
	for i := 1; i < len(keys); i++ {
		k := keys[i]
		e, j := b.event(uint32(k)), i
		for ; j > 0 && less(e, b.event(uint32(keys[j-1]))) < 0; j-- {
			keys[j] = keys[j-1]
		}
		keys[j] = k
	}
}

// handle has the machine take one event, and applies what it wants.
func (s *shard) handle(start int64, b *bucket, e *event) {
	n := &s.sim.nodes[e.to]
	if n.down || e.from == uint32(peer.Nobody) && e.has>>lifeAt != n.life {
		s.count.Missed++
		return
	}
	body := b.body(e)
	s.count.Events++
	s.count.Hash += hash(start, e, body)
	if e.kind >= uint8(peer.Travels) {
		n.received++
	}
	ev, self := &s.ev, peer.Slot(e.to)
	s.unpack(start, e, body)
	s.env.Begin(self)
	s.sim.o.Machine.Handle(s.env, self, ev)
	now, effects := ev.At, s.env.Effects()
	for i := range effects {
		f := &effects[i]
		n.count++
		switch f.Action {
		case peer.Timer:
			f.Event.From = peer.Nobody
			s.post(max(now+max(f.After, 0), start+s.sim.width), e.to, n, &f.Event)
		case peer.Send, peer.Forward:
			s.send(now, e.to, n, f)
		case peer.Answer:
			a := Answer{At: now, Key: f.Event.Key, Slot: self, Tag: f.Event.Tag, Peer: peer.Nobody, Hops: f.Event.Hops, Flags: f.Event.Flags}
			if len(f.Event.Peers) > 0 {
				a.Peer = f.Event.Peers[0]
			}
			s.answers = append(s.answers, a)
		}
	}
}

// unpack makes the event that the machine sees.
func (s *shard) unpack(start int64, e *event, body []uint32) {
	ev := &s.ev
	ev.At, ev.From, ev.Kind, ev.Flags = start+int64(e.at), peer.Peer(e.from), peer.Kind(e.kind), e.flags
	ev.Hops, ev.Tag, ev.Num, ev.Key, ev.Peers, ev.Data = e.hops, peer.Tag(e.tag), 0, peer.ID{}, s.peers[:0], nil
	if e.has&hasKey != 0 {
		for i := range 5 {
			binary.BigEndian.PutUint32(ev.Key[4*i:], body[i])
		}
		body = body[5:]
	}
	if e.has&hasNum != 0 {
		ev.Num = uint64(body[0])<<32 | uint64(body[1])
		body = body[2:]
	}
	for _, p := range body[:e.peers] {
		ev.Peers = append(ev.Peers, peer.Peer(p))
	}
	s.peers = ev.Peers
	if e.data > 0 {
		s.data = s.data[:0]
		for _, w := range body[e.peers:] {
			s.data = binary.BigEndian.AppendUint32(s.data, w)
		}
		ev.Data = s.data[:e.data]
	}
}

// pack makes an event and, in s.words, its body.
func (s *shard) pack(to uint32, count uint32, ev *peer.Event) event {
	if len(ev.Peers) > 255 || len(ev.Data) > peer.MaxDatagram {
		panic("sim: an event with more than 255 peers or more data than a datagram holds")
	}
	e := event{to: to, from: uint32(ev.From), tag: uint32(ev.Tag), count: count, kind: uint8(ev.Kind), flags: ev.Flags,
		hops: ev.Hops, peers: uint8(len(ev.Peers)), data: uint16(len(ev.Data))}
	w := s.words[:0]
	if ev.Key != (peer.ID{}) {
		e.has |= hasKey
		for i := range 5 {
			w = append(w, binary.BigEndian.Uint32(ev.Key[4*i:]))
		}
	}
	if ev.Num != 0 {
		e.has |= hasNum
		w = append(w, uint32(ev.Num>>32), uint32(ev.Num))
	}
	for _, p := range ev.Peers {
		w = append(w, uint32(p))
	}
	for data := ev.Data; len(data) > 0; data = data[min(4, len(data)):] {
		var four [4]byte
		copy(four[:], data)
		w = append(w, binary.BigEndian.Uint32(four[:]))
	}
	s.words = w
	return e
}

// post has ev come to a slot of this shard as a timer or command.
func (s *shard) post(at int64, to uint32, n *node, ev *peer.Event) {
	e := s.pack(to, n.count, ev)
	e.has |= n.life << lifeAt
	window := at / s.sim.width
	e.at = uint32(at - window*s.sim.width)
	s.put(window, e, s.words)
}

// send has a message go its way.
func (s *shard) send(now int64, from uint32, n *node, f *peer.Effect) {
	sim, ev := s.sim, &f.Event
	ev.From = peer.Peer(from)
	size := uint64(peer.Size(ev, sim.o.Address))
	n.sent++
	n.sentBytes += size
	s.count.Messages[ev.Kind]++
	s.count.Bytes[ev.Kind] += size
	if f.Action == peer.Forward {
		s.count.Onward++
	}
	draw := mix(sim.seed + uint64(from)<<32 + uint64(n.count))
	if draw < sim.loss || sim.side != nil && sim.side[from] != sim.side[f.To] {
		s.count.Lost++
		return
	}
	at := now + max(sim.o.Links.Delay(ev.From, f.To, mix(draw+golden)), sim.width)
	e := s.pack(uint32(f.To), n.count, ev)
	window := at / sim.width
	e.at = uint32(at - window*sim.width)
	if to := int(f.To) / sim.span; to != s.index {
		s.out[s.phase][to].add(window, e, s.words)
		return
	}
	s.put(window, e, s.words)
}

// hash is one event's part of the run's.
func hash(start int64, e *event, body []uint32) uint64 {
	h := uint64(start) + uint64(e.at)
	h = fold(h, uint64(e.to)<<32|uint64(e.from))
	h = fold(h, uint64(e.tag)<<32|uint64(e.count))
	h = fold(h, uint64(e.kind)<<56|uint64(e.flags)<<48|uint64(e.hops)<<32|uint64(e.peers)<<24|uint64(e.has)<<16|uint64(e.data))
	for _, w := range body {
		h = fold(h, uint64(w))
	}
	return mix(h)
}

func fold(h, x uint64) uint64 {
	h = (h ^ x) * golden
	return h ^ h>>32
}

const (
	golden = 0x9e3779b97f4a7c15
	links  = 0x6c696e6b73 // makes the draws of links others than those of nodes
)

// mix is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014).
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
