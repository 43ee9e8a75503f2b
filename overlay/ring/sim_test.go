package ring

import (
	"context"
	"math"
	"testing"

	"servent/peer"
	"servent/peer/keyspace"
	"servent/peer/sim"
)

// The simulator and this package's own small world, which shares no line with it, agree on the same nodes:
// hops have one mean and one deviation, and a quarter that dies is repaired as soon.
func TestSimAgrees(t *testing.T) {
	const n, lookups = 64, 5000
	ids := sim.Places(4, n)
	w := newWorld(t, 4, ids, Options{Questions: 64})
	w.Start()
	w.Until("one ring", 5*second, w.Whole)

	r := New(n, Options{Questions: 64})
	s := sim.New(sim.Options{Machine: r, Places: ids, Seed: 4, Links: sim.Uniform{From: 5 * millisecond, To: 40 * millisecond}})
	r.Settle(s)
	for i := range n {
		s.Command(0, peer.Slot(i), peer.Event{Kind: peer.Join})
	}
	for i := range lookups {
		s.Command(3*second+int64(i)*10*millisecond, peer.Slot(w.Rnd.IntN(n)), peer.Event{Kind: peer.Locate, Tag: peer.Tag(i), Key: keyspace.Of(string(rune(i)) + "key")})
	}
	run := func(until int64) {
		if err := s.Run(context.Background(), until); err != nil {
			t.Fatal(err)
		}
	}
	run(70 * second)
	mean, answers := 0.0, s.Answers()
	for _, a := range answers {
		if a.Flags != peer.Found || a.Peer != w.Owner(a.Key) {
			t.Fatalf("answer %+v, want owner %d", a, w.Owner(a.Key))
		}
		mean += float64(a.Hops) / lookups
	}
	if len(answers) != lookups {
		t.Errorf("%d answers, want %d", len(answers), lookups)
	}
	theirs, deviation := w.Lookups(lookups, w.Members()), math.Sqrt(float64(n*n-1)/12)
	if off := math.Abs(mean - theirs); off > 3.5*deviation*math.Sqrt(2.0/lookups) {
		t.Errorf("%.3f hops in the simulator, %.3f in the small world", mean, theirs)
	}
	t.Logf("%.3f hops in the simulator, %.3f in the small world, theory %.1f", mean, theirs, float64(n-1)/2)

	start := s.Now()
	w.Now = max(w.Now, start)
	for _, victim := range w.Rnd.Perm(n)[:n/4] {
		s.Kill(peer.Slot(victim))
		w.Down[victim] = true
	}
	small := w.Until("whole again", 6*second, w.Closed)
	for w.Machine = r; w.Closed() != nil; { // the sorted list judges the simulator's machine, too
		if s.Now()-start > 6*second {
			t.Fatalf("not whole again after 6 s: %v", w.Closed())
		}
		run(s.Now() + 50*millisecond)
	}
	t.Logf("whole again after %d ms in the simulator, %d in the small world", (s.Now()-start)/millisecond, small/millisecond)
}
