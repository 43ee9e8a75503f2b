package ring

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"pgregory.net/rapid"

	"servent/peer"
	"servent/peer/keyspace"
)

const second = 1000 * millisecond

// world is a small deterministic simulation: one Ring that hosts every node, virtual time, messages that
// take 5…40 ms, and whatever else a test wants to happen to them. Slot and Peer are the same number.
type world struct {
	t       rapid.TB
	seed    uint64
	r       *Ring
	env     *peer.Env
	rnd     *rand.Rand
	ids     []peer.ID
	down    []bool    // neither hears nor acts
	asleep  []pending // timers of those that are down
	loss    float64
	cut     func(a, b peer.Peer) bool
	now     int64
	queue   queue
	seq     int
	sent    int
	done    map[peer.Tag]peer.Event // answers of commands
	lastTag peer.Tag
	hash    uint64
}

type pending struct {
	at  int64
	seq int
	to  peer.Slot
	ev  peer.Event
}

type queue []pending

func (q queue) Len() int { return len(q) }
func (q queue) Less(i, j int) bool {
	return q[i].at < q[j].at || q[i].at == q[j].at && q[i].seq < q[j].seq
}
func (q queue) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *queue) Push(x any)   { *q = append(*q, x.(pending)) }
func (q *queue) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

func (w *world) Self(s peer.Slot) peer.Peer { return peer.Peer(s) }
func (w *world) ID(p peer.Peer) peer.ID     { return w.ids[p] }

func newWorld(t rapid.TB, seed uint64, ids []peer.ID, o Options) *world {
	w := &world{t: t, seed: seed, r: New(len(ids), o), rnd: rand.New(rand.NewPCG(seed, 1)), ids: ids,
		down: make([]bool, len(ids)), done: map[peer.Tag]peer.Event{}}
	w.env = peer.NewEnv(w, seed, make([]uint32, len(ids)))
	return w
}

// places draws n identifiers.
func places(seed uint64, n int) []peer.ID {
	ids := make([]peer.ID, n)
	for i := range ids {
		ids[i] = keyspace.Of(fmt.Sprint("node ", seed, " ", i))
	}
	return ids
}

func (w *world) push(at int64, to peer.Slot, ev peer.Event) {
	w.seq++
	ev.Peers = slices.Clone(ev.Peers)
	heap.Push(&w.queue, pending{at, w.seq, to, ev})
}

// command gives ev to a node now.
func (w *world) command(s peer.Slot, ev peer.Event) {
	ev.From, ev.At = peer.Nobody, w.now
	w.handle(s, &ev)
}

func (w *world) handle(s peer.Slot, ev *peer.Event) {
	for _, x := range [...]uint64{uint64(ev.At), uint64(s), uint64(ev.From), uint64(ev.Kind), uint64(ev.Flags), uint64(ev.Hops), uint64(ev.Tag), ev.Num} {
		w.hash = (w.hash ^ x) * 1099511628211 // FNV, a word at a time
	}
	w.env.Begin(s)
	w.r.Handle(w.env, s, ev)
	for _, f := range w.env.Effects() {
		e := f.Event
		switch f.Action {
		case peer.Timer:
			e.From = peer.Nobody
			w.push(w.now+f.After, s, e)
		case peer.Answer:
			e.Peers = slices.Clone(e.Peers)
			w.done[e.Tag] = e
		case peer.Send, peer.Forward:
			w.sent++
			delay := 5*millisecond + w.rnd.Int64N(35*millisecond)
			lost := w.rnd.Float64() < w.loss || w.cut != nil && w.cut(peer.Peer(s), f.To)
			if e.From = peer.Peer(s); !lost {
				w.push(w.now+delay, peer.Slot(f.To), e)
			}
		}
	}
}

// run lets time go by.
func (w *world) run(ns int64) {
	end := w.now + ns
	for len(w.queue) > 0 && w.queue[0].at <= end {
		p := heap.Pop(&w.queue).(pending)
		w.now, p.ev.At = p.at, p.at
		switch {
		case !w.down[p.to]:
			w.handle(p.to, &p.ev)
		case p.ev.From == peer.Nobody:
			w.asleep = append(w.asleep, p)
		}
	}
	w.now = end
}

// wake ends a pause: the timers that were due then are due now.
func (w *world) wake(s peer.Slot) {
	w.down[s] = false
	w.asleep = slices.DeleteFunc(w.asleep, func(p pending) bool {
		if p.to == s {
			w.push(w.now, s, p.ev)
		}
		return p.to == s
	})
}

// until lets time go by until cond holds, and returns how long it took; it fails after most.
func (w *world) until(what string, most int64, cond func() error) int64 {
	w.t.Helper()
	start := w.now
	for {
		err := cond()
		if err == nil {
			return w.now - start
		}
		if w.now-start >= most {
			w.t.Fatalf("%s: not after %d ms: %v (seed %d, %d events, hash %x)", what, most/millisecond, err, w.seed, w.seq, w.hash)
		}
		w.run(50 * millisecond)
	}
}

// members are the nodes that take part and live, by their place.
func (w *world) members() (all []peer.Slot) {
	for s := range w.ids {
		if !w.down[s] && w.r.nodes[s].in {
			all = append(all, peer.Slot(s))
		}
	}
	slices.SortFunc(all, func(a, b peer.Slot) int { return bytes.Compare(w.ids[a][:], w.ids[b][:]) })
	return all
}

// owner is the dumb twin: the first member at or above a key, in a sorted list.
func (w *world) owner(key peer.ID) peer.Peer {
	all := w.members()
	for _, s := range all {
		if bytes.Compare(w.ids[s][:], key[:]) >= 0 {
			return peer.Peer(s)
		}
	}
	return peer.Peer(all[0])
}

// ring says what is wrong with the members' neighbours and ranges, compared with the sorted list.
func (w *world) ring() error { return w.compare(w.r.o.Successors) }

// closed compares the nearest successors alone.
func (w *world) closed() error { return w.compare(1) }

func (w *world) compare(successors int) error {
	all := w.members()
	for i, s := range all {
		v := w.r.See(w, s)
		before := peer.Peer(all[(i+len(all)-1)%len(all)])
		if len(all) == 1 {
			before = peer.Nobody
		}
		want := []peer.Peer{}
		for j := 1; j < len(all) && len(want) < successors; j++ {
			want = append(want, peer.Peer(all[(i+j)%len(all)]))
		}
		low := w.ids[all[(i+len(all)-1)%len(all)]]
		switch {
		case v.Before != before:
			return fmt.Errorf("node %d: predecessor %d, want %d", s, v.Before, before)
		case !slices.Equal(v.After[:min(len(v.After), successors)], want):
			return fmt.Errorf("node %d: successors %d, want %d", s, v.After, want)
		case !v.Owns || v.From != low || v.To != w.ids[s]:
			return fmt.Errorf("node %d: owns %v (%x, %x], want (%x, %x]", s, v.Owns, v.From[:4], v.To[:4], low[:4], w.ids[s][:4])
		}
	}
	return nil
}

// whole says which member does not think that the ring is.
func (w *world) whole() error {
	if err := w.ring(); err != nil {
		return err
	}
	for _, s := range w.members() {
		if v := w.r.See(w, s); !v.Whole {
			return fmt.Errorf("node %d: %s", s, v.Why)
		}
	}
	return nil
}

func (w *world) ask(s peer.Slot, key peer.ID, flags uint8) peer.Tag {
	w.lastTag++
	w.command(s, peer.Event{Kind: peer.Locate, Tag: w.lastTag, Key: key, Flags: flags})
	return w.lastTag
}

// answered returns the answer to a lookup, letting time go by.
func (w *world) answered(tag peer.Tag) peer.Event {
	w.t.Helper()
	w.until("lookup", 20*second, func() error {
		if _, ok := w.done[tag]; !ok {
			return fmt.Errorf("no answer to %d", tag)
		}
		return nil
	})
	return w.done[tag]
}

// lookups has n keys looked up at nodes drawn from among, a few at a time, and returns the mean number of
// hops; every answer must be the twin's.
func (w *world) lookups(n int, among []peer.Slot) float64 {
	w.t.Helper()
	hops, wrong := 0, []string{}
	for i := 0; i < n; i += 50 {
		tags, keys := []peer.Tag{}, []peer.ID{}
		for j := i; j < min(n, i+50); j++ {
			key := keyspace.Of(fmt.Sprint("key ", w.seed, " ", w.now, " ", j))
			keys = append(keys, key)
			tags = append(tags, w.ask(among[w.rnd.IntN(len(among))], key, 0))
			w.run(10 * millisecond)
		}
		for j, tag := range tags {
			ev := w.answered(tag)
			if ev.Flags != peer.Found || ev.Peers[0] != w.owner(keys[j]) || ev.Key != keys[j] {
				wrong = append(wrong, fmt.Sprintf("%x: %+v, want owner %d", keys[j][:4], ev, w.owner(keys[j])))
			}
			hops += int(ev.Hops)
		}
	}
	if len(wrong) > 0 {
		w.t.Errorf("%d of %d lookups are wrong:\n%s", len(wrong), n, strings.Join(wrong[:min(3, len(wrong))], "\n"))
	}
	return float64(hops) / float64(n)
}

// start has all nodes know all others and take part.
func (w *world) start() {
	all := make([]peer.Peer, len(w.ids))
	for i := range all {
		all[i] = peer.Peer(i)
	}
	for s := range w.ids {
		w.command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: all})
		w.command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
}
