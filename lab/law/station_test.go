package law

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/link"
	"servent/system"
)

// The simulation against emulated stations themselves, on a bubble's clock: clients, nodes and rings that sleep, with the
// same draws. Where no two arrive at once, every response is the same to the nanosecond.
func TestSimulateAgainstStations(t *testing.T) {
	for _, tt := range []struct {
		name  string
		setup Setup
	}{
		{"one worker", Setup{Architecture: system.Single, Nodes: 1, Clients: 5}},
		{"three workers of one node, entered at three", Setup{Architecture: system.Single, Nodes: 3, Workers: 3, Clients: 20}},
		{"partitioned", Setup{Architecture: system.Partitioned, Nodes: 4, Clients: 16, Keys: Keys{Count: 50, Theta: 0.99}}},
		{"random", Setup{Architecture: system.Replicated, Policy: "random", Nodes: 4, Workers: 2, Clients: 24}},
		{"ring", Setup{Architecture: system.Ring, Nodes: 6, Clients: 30}},
		{"ring with replies, entered in turn", Setup{Architecture: system.Ring, Nodes: 5, Clients: 30, RingReply: true, InTurn: true}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := tt.setup
			s.Seed, s.Service, s.Pass = 11, Fixed(20*ms), 2*ms
			s.Access, s.Link, s.Overhead = 3*ms, 5*ms, time.Millisecond/10
			s.Think = LogNormal(30*ms, 1) // no two clients at the same nanosecond, or their order would be chance
			const rounds = 40
			s.Requests, s.Warm = rounds*s.Clients/2, -1
			o, err := Simulate(s)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				want := emulate(t, s, rounds)
				if s.Architecture == system.Ring {
					// Two that have left one station and taken as many steps since meet at the same
					// nanosecond. Who is first then is chance with real stations, and moves what follows.
					if got, want := meanOf(o.sorted), meanOf(want); !near(got, want, 0.03) {
						t.Errorf("mean response %v simulated, %v emulated", time.Duration(got), time.Duration(want))
					}
					return
				}
				if !slices.Equal(o.sorted, want) {
					t.Errorf("the first %d responses differ: median %v simulated, %v emulated", len(want), time.Duration(middleOf(o.sorted)), time.Duration(middleOf(want)))
				}
			})
		})
	}
}

func meanOf(s []int64) float64 {
	sum := 0.0
	for _, d := range s {
		sum += float64(d)
	}
	return sum / float64(len(s))
}

func middleOf(s []int64) int64 { return s[len(s)/2] }

// emulate runs the clients of a setup against link's stations and returns the first responses, sorted.
func emulate(t *testing.T, s Setup, rounds int) []int64 {
	stations := make([]*link.Station, s.Nodes)
	for i := range stations {
		stations[i] = link.NewStation(system.Capacity{Rate: 50, Workers: s.Workers, Pass: 500})
	}
	ctx := t.Context()
	var sim simulation // for its draws alone
	sim.Setup = s
	if err := sim.prepare(); err != nil {
		t.Fatal(err)
	}
	type done struct{ at, took int64 }
	var mu sync.Mutex
	var all []done
	first := int64(1 << 62) // when the first client has ended
	var wg sync.WaitGroup
	began := time.Now()
	for client := range s.Clients {
		wg.Go(func() {
			time.Sleep(s.Think.At(unit(draw(s.Seed, ^uint64(client), drawThink))))
			for round := range rounds {
				r := request{id: uint64(round*s.Clients + client)}
				r.entry = int32(below(draw(s.Seed, r.id, drawEntry), s.Nodes))
				if s.InTurn {
					r.entry = int32(client % s.Nodes)
				}
				owner, start := sim.choose(&r), time.Now()
				time.Sleep(s.Access + s.Overhead)
				hop := func() { time.Sleep(s.Link + s.Overhead) }
				pass := func(node int32) {
					if err := stations[node].Pass(ctx); err != nil {
						t.Error(err)
					}
				}
				if owner != r.entry {
					if s.Architecture == system.Ring {
						for at := r.entry; at != owner; {
							pass(at)
							hop()
							at = (at + 1) % int32(s.Nodes)
						}
						if s.RingReply {
							pass(owner)
						}
						hop()
					}
					pass(r.entry)
					hop()
				}
				turn, err := stations[owner].Serve(ctx)
				if err != nil || turn.End(ctx) != nil {
					t.Error(err)
				}
				if owner != r.entry {
					hop()
				}
				time.Sleep(s.Access + s.Overhead)
				mu.Lock()
				all = append(all, done{int64(time.Since(began)), int64(time.Since(start))})
				mu.Unlock()
				time.Sleep(s.Think.At(unit(draw(s.Seed, r.id, drawThink))))
			}
			mu.Lock()
			first = min(first, int64(time.Since(began)))
			mu.Unlock()
		})
	}
	wg.Wait()
	slices.SortFunc(all, func(a, b done) int { return int(a.at - b.at) })
	all = all[:rounds*s.Clients/2]
	if last := all[len(all)-1].at; last > first {
		t.Fatalf("a client ended after %v, before the %d responses that are compared (%v)", time.Duration(first), len(all), time.Duration(last))
	}
	var out []int64
	for _, d := range all {
		out = append(out, d.took)
	}
	slices.Sort(out)
	return out
}
