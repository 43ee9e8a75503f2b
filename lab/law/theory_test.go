package law

import (
	"math"
	"testing"

	"pgregory.net/rapid"
	"servent/system"
)

func TestExpect(t *testing.T) {
	free := math.Inf(1)
	for _, tt := range []struct {
		name    string
		a       system.Architecture
		c       Cluster
		rate    float64
		passes  float64
		lookups float64
	}{
		{"single is flat", system.Single, Cluster{Nodes: 4, Rate: 50}, 50, 0.75, 0},
		{"single with 4 workers", system.Single, Cluster{Nodes: 1, Workers: 4, Rate: 50}, 200, 0, 0},
		{"replicated, free passing", system.Replicated, Cluster{Nodes: 4, Rate: 50, Pass: free}, 200, 0.75, 0},
		{"replicated", system.Replicated, Cluster{Nodes: 4, Rate: 50}, 200 / 1.075, 0.75, 0},
		{"replicated behind a switch", system.Replicated, Cluster{Nodes: 4, Rate: 50, Switch: 250}, 200, 0, 0},
		{"the switch is the bound", system.Replicated, Cluster{Nodes: 8, Rate: 50, Switch: 250}, 250, 0, 0},
		{"partitioned", system.Partitioned, Cluster{Nodes: 2, Rate: 50}, 100 / 1.05, 0.5, 0},
		{"hottest owner", system.Partitioned, Cluster{Nodes: 2, Rate: 50, Pass: free, Shares: []float64{0.8, 0.2}}, 62.5, 0.5, 0},
		{"hottest key", system.Partitioned, Cluster{Nodes: 2, Rate: 50, Pass: free, Hottest: 1 / Harmonic(4, 1)}, 100, 0.5, 0},
		{"hottest key bounds", system.Partitioned, Cluster{Nodes: 8, Rate: 50, Pass: free, Hottest: 1 / Harmonic(4, 1)}, 50 * 25.0 / 12, 7.0 / 8, 0},
		{"ring of one", system.Ring, Cluster{Nodes: 1, Rate: 50}, 50, 0, 0},
		{"ring of four", system.Ring, Cluster{Nodes: 4, Rate: 50}, 200 / 1.225, 2.25, 1.5},
		{"ring of four, replies too", system.Ring, Cluster{Nodes: 4, Rate: 50, RingReply: true}, 200 / 1.3, 3, 1.5},
		{"ring of four, all datagrams", system.Ring, Cluster{Nodes: 4, Rate: 50, RingReply: true, RingAck: true}, 200 / 1.45, 4.5, 1.5},
		{"ring of 32, two workers", system.Ring, Cluster{Nodes: 32, Workers: 2, Rate: 50}, 3200 / (1 + (15.5+31.0/32)/10), 15.5 + 31.0/32, 15.5},
		// 1 + ½·log2(N/4) − (1 + log2(N/4))/N hops among a power of two: overlay/chord's test of mean hops derives it.
		{"pastry of one", system.Pastry, Cluster{Nodes: 1, Rate: 50}, 50, 0, 0},
		{"pastry of four", system.Pastry, Cluster{Nodes: 4, Rate: 50}, 200 / 1.15, 1.5, 0.75},
		{"kademlia of one", system.Kademlia, Cluster{Nodes: 1, Rate: 50}, 50, 0, 0},
		{"kademlia of four", system.Kademlia, Cluster{Nodes: 4, Rate: 50}, 200 / 1.15, 1.5, 0.75},
		{"chord of one", system.Chord, Cluster{Nodes: 1, Rate: 50}, 50, 0, 0},
		{"chord of four", system.Chord, Cluster{Nodes: 4, Rate: 50}, 200 / 1.15, 1.5, 0.75},
		{"chord of 16", system.Chord, Cluster{Nodes: 16, Rate: 50}, 800 / 1.275, 2.75, 1.8125},
		{"chord of 1,024", system.Chord, Cluster{Nodes: 1024, Rate: 50}, 1024 * 50 / (1 + (5-9.0/1024+1023.0/1024)/10), 5 - 9.0/1024 + 1023.0/1024, 5 - 9.0/1024},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e, err := Expect(tt.a, tt.c)
			if err != nil {
				t.Fatal(err)
			}
			if !near(e.Rate, tt.rate, 1e-9) || math.Abs(e.Passes-tt.passes) > 1e-9 || math.Abs(e.Lookups-tt.lookups) > 1e-9 {
				t.Errorf("got %v/s, h = %v, lookups %v; want %v, %v, %v", e.Rate, e.Passes, e.Lookups, tt.rate, tt.passes, tt.lookups)
			}
			if e.Formula == "" || e.Source == "" {
				t.Errorf("no words: %+v", e)
			}
		})
	}
	for _, tt := range []struct {
		a system.Architecture
		c Cluster
	}{
		{system.Superpeer, Cluster{Nodes: 4, Rate: 50}},
		{system.Pastry, Cluster{Nodes: 4, Rate: 50, Switch: 250}},
		{system.Kademlia, Cluster{Nodes: 4, Rate: 50, RingAck: true}},
		{system.Chord, Cluster{Nodes: 4, Rate: 50, Switch: 250}},
		{system.Chord, Cluster{Nodes: 4, Rate: 50, RingReply: true}},
		{system.Ring, Cluster{Nodes: 4, Rate: 50, Switch: 250}},
		{system.Single, Cluster{Nodes: 0, Rate: 50}},
		{system.Single, Cluster{Nodes: 4}},
		{system.Partitioned, Cluster{Nodes: 2, Rate: 50, Shares: []float64{1}}},
		{system.Partitioned, Cluster{Nodes: 2, Rate: 50, Shares: []float64{0.5, 0.4}}},
		{system.Partitioned, Cluster{Nodes: 2, Rate: 50, Shares: []float64{1.5, -0.5}}},
		{system.Partitioned, Cluster{Nodes: 2, Rate: 50, Pass: -1}},
	} {
		if e, err := Expect(tt.a, tt.c); err == nil {
			t.Errorf("%s %+v: expected %+v", tt.a, tt.c, e)
		}
	}
}

// The demands against walking every lookup: each entry, each owner, node by node.
func TestDemandsAgainstWalking(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 24).Draw(t, "nodes")
		shares := rapid.SliceOfN(rapid.Float64Range(0, 1), n, n).Draw(t, "weights")
		sum := 0.0
		for _, p := range shares {
			sum += p
		}
		if sum < 0.01 {
			return
		}
		for i := range shares {
			shares[i] /= sum
		}
		reply, ack := rapid.Bool().Draw(t, "reply"), rapid.Bool().Draw(t, "ack")
		for _, a := range []system.Architecture{system.Partitioned, system.Ring, system.Chord} {
			if a == system.Chord {
				reply, ack = false, false
			}
			const serve, pass = 0.02, 0.003
			want := make([]float64, n)
			hops := 0.0
			for entry := range n {
				for owner, p := range shares {
					weight := p / float64(n)
					if a == system.Ring {
						for at := entry; at != owner; at = (at + 1) % n {
							want[at] += weight * pass
							hops += weight
							if ack {
								want[(at+1)%n] += weight * pass
							}
						}
						if reply && owner != entry {
							want[owner] += weight * pass
						}
					}
					if a == system.Chord {
						for at := entry; at != owner; at = chordHop(n, at, owner) {
							want[at] += weight * pass
							hops += weight
						}
					}
					if owner != entry {
						want[entry] += weight * pass
					}
					want[owner] += weight * serve
				}
			}
			e, err := Expect(a, Cluster{Nodes: n, Rate: 1 / serve, Pass: 1 / pass, Shares: shares, RingReply: reply, RingAck: ack})
			if err != nil {
				t.Fatal(err)
			}
			busiest := 0.0
			for i := range want {
				busiest = max(busiest, want[i])
				if math.Abs(e.Demands[i]-want[i]) > 1e-12 {
					t.Fatalf("%s: demands %v, want %v", a, e.Demands, want)
				}
			}
			if !near(e.Rate, 1/busiest, 1e-9) || math.Abs(e.Lookups-hops) > 1e-9 {
				t.Fatalf("%s: %v/s and %v lookups, want %v and %v", a, e.Rate, e.Lookups, 1/busiest, hops)
			}
		}
	})
}

// chordHop is the next of n members that a lookup asks: the owner among four successors, else the last one before it
// that is a successor or the first at or beyond a half, a quarter, … of the circle ahead.
func chordHop(n, at, owner int) int {
	ahead := (owner - at + n) % n
	if ahead <= 4 {
		return owner
	}
	best := 4
	for part := 2; part <= 64; part *= 2 {
		for m := 1; m < ahead; m++ {
			if m*part >= n {
				best = max(best, m)
				break
			}
		}
	}
	return (at + best) % n
}

func TestKeys(t *testing.T) {
	even, err := Keys{}.Shares(4)
	if err != nil || even[0] != 0.25 {
		t.Errorf("no keys: %v, %v", even, err)
	}
	k := Keys{Count: 1000, Theta: 0.99}
	for n := 1; n <= 32; n *= 2 {
		shares, err := k.Shares(n)
		if err != nil {
			t.Fatal(err)
		}
		sum, most := 0.0, 0.0
		for _, p := range shares {
			sum += p
			most = max(most, p)
		}
		if !near(sum, 1, 1e-9) || most < k.Hottest() {
			t.Errorf("%d nodes: shares add up to %v, the most is %v, the hottest key draws %v", n, sum, most, k.Hottest())
		}
	}
	if got := (Keys{Count: 4, Theta: 1}).Hottest(); !near(got, 12.0/25, 1e-12) {
		t.Errorf("hottest of 4: %v, want 12/25", got)
	}
	mine := Keys{Count: 100, Partitions: 2, Owners: []int{1, 1}}
	if got, err := mine.Shares(3); err != nil || !near(got[1], 1, 1e-9) || got[0] != 0 {
		t.Errorf("all partitions at node 1: %v, %v", got, err)
	}
	for _, bad := range []Keys{{Count: -1}, {Theta: -1}, {Theta: math.NaN()}, {Partitions: 2, Owners: []int{0}}, {Partitions: 1, Owners: []int{3}}} {
		if _, err := bad.Shares(3); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if _, err := (Keys{}).Shares(0); err == nil {
		t.Error("no nodes were taken")
	}
}
