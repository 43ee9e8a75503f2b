package link

import (
	"context"
	"errors"
	"math"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/system"

	"pgregory.net/rapid"
)

// load keeps clients busy at the station for a time and returns how many turns ended in it. each is
// what the program takes.
func load(t *testing.T, s *Station, clients int, length, each time.Duration) int64 {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	var all sync.WaitGroup
	for range clients {
		all.Go(func() {
			for {
				turn, err := s.Serve(ctx)
				if err != nil {
					return
				}
				time.Sleep(each)
				if turn.End(ctx) != nil {
					return
				}
			}
		})
	}
	all.Wait()
	return s.Report().Served
}

func TestStationThroughputIsExact(t *testing.T) {
	for workers := 1; workers <= 8; workers++ {
		synctest.Test(t, func(t *testing.T) {
			s := NewStation(system.Capacity{Rate: 50, Workers: workers})
			got := load(t, s, 4*workers, 10*time.Second-time.Millisecond, 0)
			// The last turn of each worker began inside the time and ends with it.
			if want := int64(500 * workers); got != want {
				t.Errorf("%d workers served %d in 10s, want %d", workers, got, want)
			}
			if r := s.Report(); r.Late != 0 || math.Abs(r.Busy-1) > 0.001 || r.Workers != workers || r.Rate != 50 {
				t.Errorf("report %+v, want all busy, none late", r)
			}
		})
	}
}

// TestStationForgetsOversleep: the host wakes callers late, in random measure, and capacity stays what it is.
func TestStationForgetsOversleep(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		lates := rapid.SliceOfN(rapid.IntRange(0, 9), 50, 50).Draw(rt, "late ms")
		synctest.Test(t, func(t *testing.T) {
			s := NewStation(system.Capacity{Rate: 100})
			began := time.Now()
			var all sync.WaitGroup
			for _, late := range lates { // all are there at once: the queue is never empty
				all.Go(func() {
					turn, err := s.Serve(t.Context())
					if err != nil {
						t.Error(err)
					}
					time.Sleep(time.Duration(late) * ms)
					if err := turn.End(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if got, want := time.Since(began), 500*ms; got != want {
				t.Errorf("50 turns at 100/s took %v, want %v", got, want)
			}
		})
	})
}

func TestStationIsFirstComeFirstServed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 10, Workers: 2})
		began := time.Now()
		var mu sync.Mutex
		var order []int
		var starts []time.Duration
		var all sync.WaitGroup
		for i := range 6 {
			all.Go(func() {
				turn, err := s.Serve(t.Context())
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				order, starts = append(order, i), append(starts, time.Since(began))
				mu.Unlock()
				turn.End(t.Context())
			})
			time.Sleep(ms) // they come one after the other
		}
		all.Wait()
		if want := []int{0, 1, 2, 3, 4, 5}; !slices.Equal(order, want) {
			t.Errorf("order %v, want %v", order, want)
		}
		if want := []time.Duration{0, ms, 100 * ms, 101 * ms, 200 * ms, 201 * ms}; !slices.Equal(starts, want) {
			t.Errorf("starts %v, want %v", starts, want)
		}
	})
}

func TestStationTakesBackALastPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 10})
		first, err := s.Serve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		if _, err := s.Serve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Serve() = %v, want the deadline", err)
		}
		if _, err := s.Serve(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Serve() after the deadline = %v", err)
		}
		first.End(t.Context())
		if _, err := s.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(began), 100*ms; got != want {
			t.Errorf("the next began after %v, want %v: the place was not given back", got, want)
		}
	})
}

func TestStationKeepsAPlaceWithOneBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 10})
		s.Serve(t.Context())
		began := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 50*ms)
		defer cancel()
		go s.Serve(ctx)
		synctest.Wait()
		if _, err := s.Serve(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(began), 200*ms; got != want {
			t.Errorf("the third began after %v, want %v", got, want)
		}
	})
}

func TestStationCharges(t *testing.T) {
	for _, tt := range []struct {
		name string
		cap  system.Capacity
		want time.Duration // of 100 requests sent onward
	}{
		{"ten times the rate", system.Capacity{Rate: 100}, 100 * ms},
		{"as the file says", system.Capacity{Rate: 100, Pass: 200}, 500 * ms},
		{"by two workers", system.Capacity{Rate: 100, Workers: 2}, 50 * ms},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStation(tt.cap)
				began := time.Now()
				var all sync.WaitGroup
				for range 100 {
					all.Go(func() {
						if err := s.Pass(t.Context()); err != nil {
							t.Error(err)
						}
					})
				}
				all.Wait()
				if got := time.Since(began); got != tt.want {
					t.Errorf("took %v, want %v", got, tt.want)
				}
				if got := s.Report(); got.Passed != 100 || got.Served != 0 {
					t.Errorf("report %+v, want 100 passed", got)
				}
			})
		})
	}
}

func TestLateProgramIsFoundOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 100})
		load(t, s, 1, 10*time.Second, 25*ms) // the program does 40/s, the station is to do 100/s
		r := s.Report()
		if r.LateShare != 1 || r.LateMax != 15*ms {
			t.Errorf("late share %v, at most %v, want 1, 15ms", r.LateShare, r.LateMax)
		}
		if r.ValidRate > 40 || r.ValidRate < 40*15/16. {
			t.Errorf("valid rate %v, want 40 or up to 1/16 less", r.ValidRate)
		}
		// At the rate that it names, the point is valid.
		again := NewStation(system.Capacity{Rate: r.ValidRate})
		load(t, again, 3, 10*time.Second, 25*ms)
		if r := again.Report(); r.Late != 0 || r.Busy < 0.99 {
			t.Errorf("at the valid rate: %+v, want none late", r)
		}
	})
}

func TestFewLateTurnsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 100})
		for i := range 1000 {
			turn, err := s.Serve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if i%50 == 0 {
				time.Sleep(12 * ms)
			}
			turn.End(t.Context())
		}
		if r := s.Report(); r.Late != 20 || r.LateShare != 0.02 || r.LateMax != 2*ms {
			t.Errorf("late %d, share %v, at most %v, want 20, 0.02, 2ms", r.Late, r.LateShare, r.LateMax)
		}
	})
}

func TestStationBusyAndReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := NewStation(system.Capacity{Rate: 100, Workers: 2})
		for range 10 { // 10 ms of work every 40 ms, for one of two workers
			turn, _ := s.Serve(t.Context())
			turn.End(t.Context())
			time.Sleep(30 * ms)
		}
		if got, want := s.Report().Busy, 0.125; math.Abs(got-want) > 1e-9 {
			t.Errorf("busy %v, want %v", got, want)
		}
		for range 4 { // 20 ms of work for each worker, none of it done
			go s.Serve(t.Context())
		}
		synctest.Wait()
		s.Reset()
		if r := s.Report(); r.Served != 0 || r.ValidRate != 0 || r.Busy != 0 {
			t.Errorf("after Reset: %+v", r)
		}
		time.Sleep(40 * ms)
		if got, want := s.Report().Busy, 0.5; math.Abs(got-want) > 1e-9 {
			t.Errorf("busy %v, want %v: what was sold before Reset is worked off behind it", got, want)
		}
	})
}

func TestNoStation(t *testing.T) {
	s := NewStation(system.Capacity{Workers: 3})
	if s != nil {
		t.Fatal("a node without a rate got a station")
	}
	turn, err := s.Serve(t.Context())
	if err != nil || turn.End(t.Context()) != nil || s.Pass(t.Context()) != nil {
		t.Error("no station, but an error")
	}
	s.Reset()
	if got := s.Report(); got != (StationReport{}) {
		t.Errorf("Report() = %+v, want zeros", got)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Serve(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("Serve() = %v, want ctx's error", err)
	}
}

func TestSpans(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfN(rapid.Int64Range(0, int64(time.Hour)), 1, 300).Draw(t, "spans")
		share := rapid.Float64Range(0.01, 1).Draw(t, "share")
		var s spans
		for _, d := range all {
			s.add(time.Duration(d))
		}
		slices.Sort(all)
		exact := time.Duration(all[int(math.Ceil(share*float64(len(all))))-1])
		got := s.at(share)
		if got < exact || got > exact+exact/16 {
			t.Fatalf("at(%v) = %d, want %d or up to 1/16 more", share, got, exact)
		}
	})
	var s spans
	if got := s.at(0.99); got != 0 {
		t.Errorf("empty: %v, want 0", got)
	}
	s.add(-1)
	s.add(math.MaxInt64)
	if got := s.at(1); got != math.MaxInt64 {
		t.Errorf("at(1) = %d, want the largest duration", got)
	}
}

func BenchmarkStation(b *testing.B) {
	s := NewStation(system.Capacity{Rate: 1e9, Workers: 4})
	for b.Loop() {
		turn, err := s.Serve(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		turn.End(b.Context())
	}
}

// A program that waits for another service is not slow; one that works too long is, whatever it waits for.
func TestStationDoesNotCountCalls(t *testing.T) {
	for _, tt := range []struct {
		name  string
		calls []time.Duration // of one turn, one after the other
		work  time.Duration   // of its program, in all
		late  int64
	}{
		{"a long call", []time.Duration{500 * ms}, 10 * ms, 0},
		{"three calls", []time.Duration{30 * ms, 30 * ms, 30 * ms}, 19 * ms, 0},
		{"slow, and a call", []time.Duration{30 * ms}, 30 * ms, 1},
		{"slow without one", nil, 30 * ms, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := NewStation(system.Capacity{Rate: 50})
				turn, err := s.Serve(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				time.Sleep(tt.work)
				for _, d := range tt.calls {
					back := s.Call()
					time.Sleep(d)
					back()
				}
				if err := turn.End(t.Context()); err != nil {
					t.Error(err)
				}
				r := s.Report()
				if own := time.Duration(float64(time.Second) / r.ValidRate); r.Late != tt.late || own < tt.work || own > tt.work*17/16 {
					t.Errorf("report %+v: the program took %v, want %v and %d late", r, own, tt.work, tt.late)
				}
			})
		})
	}
}

// Turns that overlap share what their calls leave: one after the other, or all at once, none is late that
// works 5 ms and waits for the rest. A turn that was dropped has no share any more.
func TestStationSharesCalls(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		gaps := rapid.SliceOfN(rapid.IntRange(0, 40), 1, 20).Draw(rt, "ms between turns")
		waits := rapid.SliceOfN(rapid.IntRange(0, 300), len(gaps), len(gaps)).Draw(rt, "ms of each call")
		synctest.Test(t, func(t *testing.T) {
			s := NewStation(system.Capacity{Rate: 1000, Workers: 100})
			gone, err := s.Serve(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			gone.Drop()
			var all sync.WaitGroup
			for i := range gaps {
				time.Sleep(time.Duration(gaps[i]) * ms)
				all.Go(func() {
					turn, err := s.Serve(t.Context())
					if err != nil {
						t.Error(err)
					}
					back := s.Call() // the program does nothing but wait
					time.Sleep(time.Duration(waits[i]) * ms)
					back()
					if err := turn.End(t.Context()); err != nil {
						t.Error(err)
					}
				})
			}
			all.Wait()
			if r := s.Report(); r.Late > 0 || r.Served != int64(len(gaps)) {
				t.Errorf("%d of %d turns were late by up to %v, though no program worked", r.Late, r.Served, r.LateMax)
			}
			s.Call()()
			if s.open != 0 || s.calls != 0 {
				t.Errorf("%d turns and %d calls are open, want none", s.open, s.calls)
			}
		})
	})
}
