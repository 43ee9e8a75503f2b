package sim

import (
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"slices"
	"testing"

	"servent/overlay/ring"
	"servent/peer"
	"servent/peer/keyspace"
)

const (
	ms     = 1_000_000
	second = 1000 * ms
)

// chatter is a machine whose every event wants a few others, and which notes what it hears.
type chatter struct {
	heard [][]heard // by slot
}

type heard struct {
	at   int64
	from peer.Peer
	tag  peer.Tag
	sum  uint64
}

func (c *chatter) Drop(peer.Peer) {}

func (c *chatter) Reset(s peer.Slot) { c.heard[s] = append(c.heard[s], heard{at: -1}) }

func (c *chatter) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	sum := ev.Num + uint64(ev.Flags)<<8 + uint64(ev.Hops)<<16 + binary.BigEndian.Uint64(ev.Key[12:])
	for _, p := range ev.Peers {
		sum = sum*31 + uint64(p)
	}
	for _, b := range ev.Data {
		sum = sum*31 + uint64(b)
	}
	c.heard[self] = append(c.heard[self], heard{ev.At, ev.From, ev.Tag, sum})
	r := env.Rand()
	next := peer.Event{Tag: ev.Tag + 1, Flags: uint8(r), Hops: uint16(r >> 8), Num: (ev.Num + r>>40) * (r >> 39 & 1)}
	if r>>38&1 == 1 {
		next.Key[19], next.Key[13] = byte(r), byte(r>>8)
	}
	next.Data = []byte("datagram")[:r%9]
	to := func(x uint64) peer.Peer { return peer.Peer(x % uint64(len(c.heard))) }
	switch {
	case ev.Kind < peer.Travels:
		next.Kind = peer.Timers
		env.After(int64(r%(300*ms)), next)
		next.Kind = peer.Travels
		env.Send(to(r>>20), next, to(r>>10), to(r>>30))
		env.Send(to(r>>20)/8, next) // the first ones hear much
		if r%64 == 0 {
			env.After(45*second, peer.Event{Kind: peer.Timers + 1, Data: next.Data}) // far ahead
		}
	case ev.Tag%4 != 0:
		next.Kind = ev.Kind + 1
		env.Forward(to(r>>20), next, to(r))
	default:
		env.Done(next, ev.From)
	}
}

func run(t *testing.T, s *Sim, until int64) {
	t.Helper()
	if err := s.Run(t.Context(), until); err != nil {
		t.Fatal(err)
	}
}

// shardCounts begins and ends with one: the same run again is the same, too.
func shardCounts() []int {
	if testing.Short() {
		return []int{1, 3, 16}
	}
	return []int{1, 2, 3, 7, 16, 1}
}

// What each node hears, and when, is the same for any number of shards, and in order.
func TestShards(t *testing.T) {
	var want [][]heard
	var first Counters
	for _, shards := range shardCounts() {
		c := &chatter{heard: make([][]heard, 80)}
		s := New(Options{Machine: c, Places: Places(1, 80), Seed: 7, Shards: shards, Loss: 0.01})
		for i := range 80 {
			s.Command(int64(i)*ms/3, peer.Slot(i), peer.Event{Kind: peer.Join, Tag: peer.Tag(i)})
		}
		run(t, s, second)
		for i := range peer.Slot(20) {
			s.Kill(i * 3)
		}
		run(t, s, 2*second)
		for i := range peer.Slot(20) {
			s.Restart(i * 3)
			s.Command(0, i*3, peer.Event{Kind: peer.Join})
		}
		run(t, s, 50*second)
		got := s.Counters()
		for slot, all := range c.heard {
			for i := 1; i < len(all); i++ {
				if all[i].at >= 0 && all[i].at < all[i-1].at {
					t.Fatalf("%d shards: node %d heard of %d after %d", shards, slot, all[i].at, all[i-1].at)
				}
			}
		}
		if want == nil {
			want, first = c.heard, got
			t.Logf("%d events, %d lost, %d missed, hash %x", got.Events, got.Lost, got.Missed, got.Hash)
			if got.Events < 100_000 || got.Lost == 0 || got.Missed == 0 || got.Messages[peer.Travels] == 0 || got.Bytes[peer.Travels] == 0 || got.Onward == 0 {
				t.Errorf("too little happened: %+v", got)
			}
			continue
		}
		if got != first {
			t.Errorf("%d shards: %d events, hash %x; one: %d, %x", shards, got.Events, got.Hash, first.Events, first.Hash)
		}
		for slot := range want {
			if !slices.Equal(want[slot], c.heard[slot]) {
				t.Fatalf("%d shards: node %d heard something else", shards, slot)
			}
		}
	}
}

// The windows deliver what a list sorted by time does: every message once, after its delay, nothing made up.
func TestDelivery(t *testing.T) {
	p := &probe{sent: map[peer.Tag]int64{}, got: map[peer.Tag]int64{}, plane: Plane{5 * ms, 50 * ms, 3}}
	s := New(Options{Machine: p, Places: Places(2, 64), Links: p.plane})
	for i := range 64 {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join, Tag: peer.Tag(i) << 16})
	}
	run(t, s, 20*second)
	if len(p.sent) < 10_000 {
		t.Errorf("%d messages, want more", len(p.sent))
	}
	open := 0
	for tag, at := range p.sent {
		if got, ok := p.got[tag]; !ok && at < s.Now() {
			t.Fatalf("message %x was due at %d and did not come", tag, at)
		} else if ok && got != at {
			t.Fatalf("message %x was due at %d and came at %d", tag, at, got)
		} else if !ok {
			open++
		}
	}
	if len(p.got)+open != len(p.sent) {
		t.Errorf("%d came and %d are on their way, of %d", len(p.got), open, len(p.sent))
	}
}

// probe notes when messages must come by the plane's distances, and when they do; one shard alone.
type probe struct {
	plane     Plane
	sent, got map[peer.Tag]int64
}

func (p *probe) Drop(peer.Peer) {}

func (p *probe) Handle(env *peer.Env, self peer.Slot, ev *peer.Event) {
	if ev.Kind == peer.Travels {
		p.got[ev.Tag] = ev.At
		return
	}
	to := peer.Peer(env.Rand() % 64)
	p.sent[ev.Tag] = ev.At + p.plane.Delay(peer.Peer(self), to, 0)
	env.Send(to, peer.Event{Kind: peer.Travels, Tag: ev.Tag})
	env.After(int64(env.Rand()%(200*ms)), peer.Event{Kind: peer.Timers, Tag: ev.Tag + 1})
}

// A run that is cut into pieces, or stopped and taken up again, is the same run.
func TestPieces(t *testing.T) {
	hash := func(step int64, stop bool) uint64 {
		c := &chatter{heard: make([][]heard, 50)}
		s := New(Options{Machine: c, Places: Places(1, 50), Shards: 3})
		for i := range 50 {
			s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
		}
		ended, cancel := context.WithCancel(context.Background())
		cancel()
		for s.Now() < 5*second {
			if before := s.Now(); stop {
				if err := s.Run(ended, 5*second); err == nil || s.Now() <= before {
					t.Fatalf("a run whose context has ended: %v at %d", err, s.Now())
				}
			}
			run(t, s, min(s.Now()+step, 5*second))
		}
		return s.Counters().Hash
	}
	want := hash(5*second, false)
	for _, step := range []int64{1, 35 * ms, 1111 * ms} {
		for _, stop := range []bool{false, true} {
			if got := hash(step, stop); got != want {
				t.Errorf("steps of %d ns, stopped %v: hash %x, want %x", step, stop, got, want)
			}
		}
	}
}

func TestCut(t *testing.T) {
	c := &chatter{heard: make([][]heard, 10)}
	s := New(Options{Machine: c, Places: Places(1, 10)})
	s.Cut([]uint8{0, 0, 0, 0, 0, 1, 1, 1, 1, 1})
	for i := range 10 {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
	}
	run(t, s, second)
	crossed := func(since int64) (n int) {
		for slot, all := range c.heard {
			for _, h := range all {
				if h.from != peer.Nobody && h.at >= since && (slot < 5) != (h.from < 5) {
					n++
				}
			}
		}
		return n
	}
	if n := crossed(0); n > 0 {
		t.Errorf("%d messages crossed the cut", n)
	}
	s.Cut(nil)
	run(t, s, 2*second)
	if crossed(second) == 0 {
		t.Error("nothing crosses after the cut")
	}
}

// With means of 30 s up and 10 s down, a quarter is down, and each changes every 20 s.
func TestChurn(t *testing.T) {
	c := &chatter{heard: make([][]heard, 2000)}
	s := New(Options{Machine: c, Places: Places(1, 2000)})
	churn := NewChurn(s, 30*second, 10*second)
	changes, down := 0, 0.0
	for s.Now() < 200*second {
		run(t, s, s.Now()+100*ms)
		churn.Step(func(peer.Slot, bool) { changes++ })
		if s.Now() > 100*second {
			n := 0
			for slot := range peer.Slot(2000) {
				if s.Down(slot) {
					n++
				}
			}
			down += float64(n) / 2000 / 1000
		}
	}
	if got, want := float64(changes), 2000.0*200/20; math.Abs(got-want) > 0.1*want {
		t.Errorf("%.0f changes, want about %.0f", got, want)
	}
	if math.Abs(down-0.25) > 0.02 {
		t.Errorf("%.3f are down, want a quarter", down)
	}
}

func TestLoss(t *testing.T) {
	c := &chatter{heard: make([][]heard, 100)}
	s := New(Options{Machine: c, Places: Places(1, 100), Loss: 0.2})
	for i := range 100 {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
	}
	run(t, s, 10*second)
	got, sent := s.Counters(), uint64(0)
	for _, n := range got.Messages {
		sent += n
	}
	load := uint64(0)
	for slot := range peer.Slot(100) {
		load += uint64(s.Load(slot).Sent)
	}
	if share := float64(got.Lost) / float64(sent); math.Abs(share-0.2) > 0.005 || load != sent {
		t.Errorf("%.4f of %d are lost, want 0.2; the nodes have sent %d", share, sent, load)
	}
}

// A uniform link's delays are spread evenly over its range, and no message is faster than a window.
func TestUniform(t *testing.T) {
	u, n := Uniform{10 * ms, 110 * ms}, [10]int{}
	for i := range uint64(100_000) {
		d := u.Delay(0, 0, mix(i*golden))
		if d < u.From || d >= u.To {
			t.Fatalf("%d ns, want within the range", d)
		}
		n[(d-u.From)/(10*ms)]++
	}
	for i, k := range n {
		if math.Abs(float64(k)-10_000) > 500 {
			t.Errorf("%d of 100000 are in tenth %d", k, i)
		}
	}
}

func ringOf(n int, o ring.Options, so Options) (*ring.Ring, *Sim) {
	r := ring.New(n, o)
	so.Machine, so.Places = r, Places(so.Seed, n)
	s := New(so)
	r.Settle(s)
	for i := range n {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
	}
	return r, s
}

// A settled ring stays as it is, and everyone sees that it is whole.
func TestSettledRing(t *testing.T) {
	for _, n := range []int{1, 2, 3, 5, 9, 100} {
		r, s := ringOf(n, ring.Options{}, Options{})
		for range 10 {
			run(t, s, s.Now()+2*second)
			for i := range n {
				v := r.See(s, peer.Slot(i))
				if !v.Member || !v.Owns || !v.Whole || n > 1 && (v.Before != peer.Peer((i+n-1)%n) || v.After[0] != peer.Peer((i+1)%n) || v.From != s.ID(v.Before)) || v.Epoch != 1 {
					t.Fatalf("%d nodes: at %d ms node %d sees %+v", n, s.Now()/ms, i, v)
				}
			}
		}
	}
}

// The ring in the simulator: the same hash on every run and for any number of shards, with loss and deaths.
func TestRingOverShards(t *testing.T) {
	var want Counters
	for _, shards := range shardCounts() {
		_, s := ringOf(100, ring.Options{Questions: 64, Wait: 20 * second}, Options{Seed: 3, Loss: 0.001, Shards: shards})
		for i := range 100 {
			s.Command(second, peer.Slot(i), peer.Event{Kind: peer.Locate, Tag: peer.Tag(i), Key: keyspace.Of(fmt.Sprint(i))})
		}
		run(t, s, 5*second)
		for i := range peer.Slot(10) {
			s.Kill(i * 9)
		}
		run(t, s, 40*second)
		got := s.Counters()
		if want.Events == 0 {
			want = got
			t.Logf("%d events, hash %x, %d answers", got.Events, got.Hash, len(s.Answers()))
		} else if got != want {
			t.Errorf("%d shards: %d events, hash %x, want %d, %x", shards, got.Events, got.Hash, want.Events, want.Hash)
		}
	}
}
