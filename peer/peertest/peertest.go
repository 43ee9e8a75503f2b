// Package peertest is a small deterministic simulation for the tests of peer-to-peer machines: virtual time, messages
// that take 5 to 40 ms and may be lost, nodes that die, and a sorted list of the members to compare with. It is made
// for hundreds of nodes, not for speed. Start at [New].
package peertest

import (
	"bytes"
	"container/heap"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"

	"servent/peer"
	"servent/peer/keyspace"
)

// Spans of virtual time, in nanoseconds.
const (
	Millisecond = 1_000_000
	Second      = 1000 * Millisecond
)

// T is what a World asks of a test: [testing.T] and rapid's have it.
type T interface {
	Helper()
	Errorf(format string, args ...any)
	Fatalf(format string, args ...any)
}

// Machine is a protocol whose members divide the keys of a circle.
type Machine interface {
	peer.Protocol
	See(peer.Directory, peer.Slot) peer.View
}

// World is one machine that hosts every node. Slot and Peer are the same number.
type World struct {
	T          T
	Seed       uint64
	Machine    Machine
	Successors int // that each member keeps
	Env        *peer.Env
	Rnd        *rand.Rand
	IDs        []peer.ID
	Down       []bool                    // neither hears nor acts
	Loss       float64                   // share of the messages
	Cut        func(a, b peer.Peer) bool // messages from a to b do not arrive; nil: all do
	Now        int64                     // nanoseconds
	Done       map[peer.Tag]peer.Event   // answers of commands
	Onward     int                       // messages that were forwarded, and so are paid for
	Hash       uint64                    // of all events
	asleep     []pending                 // timers of those that are down
	queue      queue
	seq        int
	last       peer.Tag
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

// Self implements [peer.Directory].
func (w *World) Self(s peer.Slot) peer.Peer { return peer.Peer(s) }

// ID implements [peer.Directory].
func (w *World) ID(p peer.Peer) peer.ID { return w.IDs[p] }

// New makes a World of nodes at the given places, none of which takes part yet.
func New(t T, seed uint64, ids []peer.ID, m Machine, successors int) *World {
	w := &World{T: t, Seed: seed, Machine: m, Successors: successors, Rnd: rand.New(rand.NewPCG(seed, 1)), IDs: ids,
		Down: make([]bool, len(ids)), Done: map[peer.Tag]peer.Event{}}
	w.Env = peer.NewEnv(w, seed, make([]uint32, len(ids)))
	return w
}

// Places draws n identifiers.
func Places(seed uint64, n int) []peer.ID {
	ids := make([]peer.ID, n)
	for i := range ids {
		ids[i] = keyspace.Of(fmt.Sprint("node ", seed, " ", i))
	}
	return ids
}

func (w *World) push(at int64, to peer.Slot, ev peer.Event) {
	w.seq++
	ev.Peers, ev.Data = slices.Clone(ev.Peers), slices.Clone(ev.Data)
	heap.Push(&w.queue, pending{at, w.seq, to, ev})
}

// Command gives ev to a node now.
func (w *World) Command(s peer.Slot, ev peer.Event) {
	ev.From, ev.At = peer.Nobody, w.Now
	w.Handle(s, &ev)
}

// Handle gives ev to a node and applies what it wants.
func (w *World) Handle(s peer.Slot, ev *peer.Event) {
	for _, x := range [...]uint64{uint64(ev.At), uint64(s), uint64(ev.From), uint64(ev.Kind), uint64(ev.Flags), uint64(ev.Hops), uint64(ev.Tag), ev.Num} {
		w.Hash = (w.Hash ^ x) * 1099511628211 // FNV, a word at a time
	}
	w.Env.Begin(s)
	w.Machine.Handle(w.Env, s, ev)
	for _, f := range w.Env.Effects() {
		e := f.Event
		switch f.Action {
		case peer.Timer:
			e.From = peer.Nobody
			w.push(w.Now+f.After, s, e)
		case peer.Answer:
			e.Peers, e.Data = slices.Clone(e.Peers), slices.Clone(e.Data)
			w.Done[e.Tag] = e
		case peer.Send, peer.Forward:
			if f.Action == peer.Forward {
				w.Onward++
			}
			delay := 5*Millisecond + w.Rnd.Int64N(35*Millisecond)
			lost := w.Rnd.Float64() < w.Loss || w.Cut != nil && w.Cut(peer.Peer(s), f.To)
			if e.From = peer.Peer(s); !lost {
				w.push(w.Now+delay, peer.Slot(f.To), e)
			}
		}
	}
}

// Run lets time go by.
func (w *World) Run(ns int64) {
	end := w.Now + ns
	for len(w.queue) > 0 && w.queue[0].at <= end {
		p := heap.Pop(&w.queue).(pending)
		w.Now, p.ev.At = p.at, p.at
		switch {
		case !w.Down[p.to]:
			w.Handle(p.to, &p.ev)
		case p.ev.From == peer.Nobody:
			w.asleep = append(w.asleep, p)
		}
	}
	w.Now = end
}

// Wake ends a pause: the timers that were due then are due now.
func (w *World) Wake(s peer.Slot) {
	w.Down[s] = false
	w.asleep = slices.DeleteFunc(w.asleep, func(p pending) bool {
		if p.to == s {
			w.push(w.Now, s, p.ev)
		}
		return p.to == s
	})
}

// Until lets time go by until cond holds, and returns how long it took; it fails after most.
func (w *World) Until(what string, most int64, cond func() error) int64 {
	w.T.Helper()
	start := w.Now
	for {
		err := cond()
		if err == nil {
			return w.Now - start
		}
		if w.Now-start >= most {
			w.T.Fatalf("%s: not after %d ms: %v (seed %d, %d events, hash %x)", what, most/Millisecond, err, w.Seed, w.seq, w.Hash)
		}
		w.Run(50 * Millisecond)
	}
}

// Members are the nodes that take part and live, by their place.
func (w *World) Members() (all []peer.Slot) {
	for s := range w.IDs {
		if !w.Down[s] && w.Machine.See(w, peer.Slot(s)).Member {
			all = append(all, peer.Slot(s))
		}
	}
	slices.SortFunc(all, func(a, b peer.Slot) int { return bytes.Compare(w.IDs[a][:], w.IDs[b][:]) })
	return all
}

// Owner is the dumb twin: the first member at or above a key, in a sorted list.
func (w *World) Owner(key peer.ID) peer.Peer {
	all := w.Members()
	for _, s := range all {
		if bytes.Compare(w.IDs[s][:], key[:]) >= 0 {
			return peer.Peer(s)
		}
	}
	return peer.Peer(all[0])
}

// Ring says what is wrong with the members' neighbours and ranges, compared with the sorted list.
func (w *World) Ring() error { return w.compare(w.Successors) }

// Closed compares the nearest successors alone.
func (w *World) Closed() error { return w.compare(1) }

func (w *World) compare(successors int) error {
	all := w.Members()
	for i, s := range all {
		v := w.Machine.See(w, s)
		before := peer.Peer(all[(i+len(all)-1)%len(all)])
		if len(all) == 1 {
			before = peer.Nobody
		}
		want := []peer.Peer{}
		for j := 1; j < len(all) && len(want) < successors; j++ {
			want = append(want, peer.Peer(all[(i+j)%len(all)]))
		}
		low := w.IDs[all[(i+len(all)-1)%len(all)]]
		switch {
		case v.Before != before:
			return fmt.Errorf("node %d: predecessor %d, want %d", s, v.Before, before)
		case !slices.Equal(v.After[:min(len(v.After), successors)], want):
			return fmt.Errorf("node %d: successors %d, want %d", s, v.After, want)
		case !v.Owns || v.From != low || v.To != w.IDs[s]:
			return fmt.Errorf("node %d: owns %v (%x, %x], want (%x, %x]", s, v.Owns, v.From[:4], v.To[:4], low[:4], w.IDs[s][:4])
		}
	}
	return nil
}

// Whole says which member does not think that the ring is.
func (w *World) Whole() error {
	if err := w.Ring(); err != nil {
		return err
	}
	for _, s := range w.Members() {
		if v := w.Machine.See(w, s); !v.Whole {
			return fmt.Errorf("node %d: %s", s, v.Why)
		}
	}
	return nil
}

// Ask begins a lookup at a node; [World.Answered] returns its answer.
func (w *World) Ask(s peer.Slot, key peer.ID, flags uint8) peer.Tag {
	w.last++
	w.Command(s, peer.Event{Kind: peer.Locate, Tag: w.last, Key: key, Flags: flags})
	return w.last
}

// Answered returns the answer to a lookup, letting time go by.
func (w *World) Answered(tag peer.Tag) peer.Event {
	w.T.Helper()
	w.Until("lookup", 20*Second, func() error {
		if _, ok := w.Done[tag]; !ok {
			return fmt.Errorf("no answer to %d", tag)
		}
		return nil
	})
	return w.Done[tag]
}

// Lookups has n keys looked up at nodes drawn from among, a few at a time, and returns the mean number of
// hops; every answer must be the twin's.
func (w *World) Lookups(n int, among []peer.Slot) float64 {
	w.T.Helper()
	hops, wrong := 0, []string{}
	for i := 0; i < n; i += 50 {
		tags, keys := []peer.Tag{}, []peer.ID{}
		for j := i; j < min(n, i+50); j++ {
			key := keyspace.Of(fmt.Sprint("key ", w.Seed, " ", w.Now, " ", j))
			keys = append(keys, key)
			tags = append(tags, w.Ask(among[w.Rnd.IntN(len(among))], key, 0))
			w.Run(10 * Millisecond)
		}
		for j, tag := range tags {
			ev := w.Answered(tag)
			if ev.Flags != peer.Found || ev.Peers[0] != w.Owner(keys[j]) || ev.Key != keys[j] {
				wrong = append(wrong, fmt.Sprintf("%x: %+v, want owner %d", keys[j][:4], ev, w.Owner(keys[j])))
			}
			hops += int(ev.Hops)
		}
	}
	if len(wrong) > 0 {
		w.T.Errorf("%d of %d lookups are wrong:\n%s", len(wrong), n, strings.Join(wrong[:min(3, len(wrong))], "\n"))
	}
	return float64(hops) / float64(n)
}

// Start has all nodes know all others and take part.
func (w *World) Start() {
	all := make([]peer.Peer, len(w.IDs))
	for i := range all {
		all[i] = peer.Peer(i)
	}
	for s := range w.IDs {
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Know, Peers: all})
		w.Command(peer.Slot(s), peer.Event{Kind: peer.Join})
	}
}
