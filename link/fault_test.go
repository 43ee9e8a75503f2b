package link

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"servent/system"

	"pgregory.net/rapid"
)

func TestFaultsAddUp(t *testing.T) {
	for _, tt := range []struct {
		name       string
		f, g, want Fault
	}{
		{"none", Fault{}, Fault{}, Fault{}},
		{"one", Fault{Cut: true, Slow: ms, Jitter: ms, Rate: 5}, Fault{}, Fault{Cut: true, Slow: ms, Jitter: ms, Rate: 5}},
		{"the other", Fault{}, Fault{Cut: true, Rate: 5}, Fault{Cut: true, Rate: 5}},
		{"both", Fault{Slow: ms, Rate: 7}, Fault{Slow: 2 * ms, Jitter: ms, Rate: 9}, Fault{Slow: 3 * ms, Jitter: ms, Rate: 7}},
		{"the lower rate", Fault{Rate: 9}, Fault{Rate: 7}, Fault{Rate: 7}},
	} {
		if got := tt.f.And(tt.g); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

// TestFaultsTravel: what a node is told is what its parent said.
func TestFaultsTravel(t *testing.T) {
	want := Faults{"a": {Cut: true}, "b": {Slow: ms, Jitter: ms, Rate: 8e6}}
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got Faults
	if err := json.Unmarshal(text, &got); err != nil || len(got) != 2 || got["a"] != want["a"] || got["b"] != want["b"] {
		t.Errorf("%s became %v, %v", text, got, err)
	}
}

func TestSetFaultsReplacesAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		ours, theirs := connect(t, h, Tunnel)
		a := h.links["a"]
		silent := func(after string) {
			t.Helper()
			io.WriteString(ours, "held")
			theirs.SetReadDeadline(time.Now().Add(time.Minute))
			if _, err := theirs.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("%s: Read() = %v, want silence", after, err)
			}
			theirs.SetReadDeadline(time.Time{})
			say(t, theirs, ours, "the other direction is open")
		}
		heard := func(after string) {
			t.Helper()
			got := make([]byte, len("held"))
			if _, err := io.ReadFull(theirs, got); string(got) != "held" || err != nil {
				t.Fatalf("%s: %q, %v, want what was held", after, got, err)
			}
		}
		a.SetFaults(Faults{"b": {Cut: true}})
		silent("cut")
		a.SetFaults(Faults{"c": {Cut: true}})
		heard("another is cut")
		a.FaultSite("ap", Fault{Cut: true})
		a.SetFaults(nil)
		silent("its site is cut")
		a.FaultSite("ap", Fault{})
		heard("all is well")
		if w := ours.(*conn).stream.(*wire); w.slow() {
			t.Error("a healed way still queues")
		}
	})
}

// TestCutBothWays: dials from either end wait, and both go on.
func TestCutBothWays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 20 * ms}, Path{Delay: 30 * ms}))
		h.links["a"].Accept(Tunnel)
		h.links["b"].Accept(Tunnel)
		set := func(fault Fault) {
			h.links["a"].SetFaults(Faults{"b": fault})
			h.links["b"].SetFaults(Faults{"a": fault})
		}
		set(Fault{Cut: true})
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { set(Fault{}) })
		done := make(chan time.Duration, 2)
		for from, to := range map[system.NodeID]system.NodeID{"a": "b", "b": "a"} {
			go func() {
				c, err := h.links[from].Dial(t.Context(), to, Tunnel)
				if err != nil {
					t.Error(err)
				} else {
					defer c.Close()
				}
				done <- time.Since(began)
			}()
		}
		for range 2 {
			if got, want := <-done, 5*time.Second+50*ms; got != want {
				t.Errorf("dialled after %v, want the cut and one time there and back, %v", got, want)
			}
		}
	})
}

// TestSlowComesOnTop of an emulated link, in both of its figures.
func TestSlowComesOnTop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 20 * ms, Rate: 8e6}, Path{}))
		ours, theirs := connect(t, h, Tunnel)
		h.links["a"].SetFaults(Faults{"b": {Slow: 100 * ms, Rate: 8e5}}) // 100 kB/s behind 1 MB/s
		began := time.Now()
		go ours.Write(make([]byte, 10_000))
		if _, err := io.ReadFull(theirs, make([]byte, 10_000)); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(began), 10*ms+100*ms+120*ms; got != want {
			t.Errorf("10 kB took %v, want %v: its time on both rates, and both delays", got, want)
		}
	})
}

func TestJitter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 5 * ms}, Path{}))
		ours, theirs := connect(t, h, Tunnel)
		h.links["a"].SetFaults(Faults{"b": {Slow: 100 * ms, Jitter: 20 * ms}})
		least, most := time.Hour, time.Duration(0)
		for range 400 {
			began := time.Now()
			say(t, ours, theirs, "x")
			took := time.Since(began)
			least, most = min(least, took), max(most, took)
		}
		if least < 85*ms || most > 125*ms {
			t.Errorf("%v to %v, want within 105ms ± 20ms", least, most)
		}
		if least > 90*ms || most < 120*ms { // 400 draws miss an eighth of the range once in 10^23
			t.Errorf("%v to %v: the range is not used", least, most)
		}
	})
	if got := (Fault{Slow: ms, Jitter: time.Hour}).delay(); got < 0 {
		t.Errorf("a delay of %v", got)
	}
}

// TestHealedRateHoldsNothingBack: what a slow stretch would have kept for minutes arrives when it heals, and
// not before.
func TestHealedRateHoldsNothingBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 10 * ms}, Path{}))
		ours, theirs := connect(t, h, Tunnel)
		h.links["a"].SetFaults(Faults{"b": {Rate: 8e3, Slow: time.Minute}}) // 1 kB/s
		began := time.Now()
		time.AfterFunc(2*time.Second, func() { h.links["a"].SetFaults(nil) })
		ours.Write(make([]byte, 200_000))
		if _, err := io.ReadFull(theirs, make([]byte, 200_000)); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(began), 2*time.Second+10*ms; got != want {
			t.Errorf("healed after 2s, arrived after %v, want %v", got, want)
		}
		// What is written later is timed by what holds then, not by a change long ago.
		h.links["a"].SetFaults(Faults{"b": {Slow: time.Second}})
		time.Sleep(time.Hour)
		began = time.Now()
		say(t, ours, theirs, "x")
		if got, want := time.Since(began), 1010*ms; got != want {
			t.Errorf("slowed an hour ago, took %v, want %v", got, want)
		}
	})
}

// TestDialIsRetimed: a dial that is under way when a fault heals does not serve its old time, and one that
// is cut off begins anew.
func TestDialIsRetimed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 10 * ms}, Path{Delay: 10 * ms}))
		h.links["b"].Accept(Tunnel)
		a := h.links["a"]
		a.SetFaults(Faults{"b": {Slow: time.Hour}})
		began := time.Now()
		time.AfterFunc(time.Second, func() { a.SetFaults(Faults{"b": {Cut: true}}) })
		time.AfterFunc(3*time.Second, func() { a.SetFaults(nil) })
		c, err := a.Dial(t.Context(), "b", Tunnel)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, want := time.Since(began), 3020*ms; got != want {
			t.Errorf("dialled after %v, want %v", got, want)
		}
	})
}

func TestDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		em := Emulation{To: map[system.Site]Path{"ap": {Delay: 20 * ms, Rate: 8e6}}}
		hub := NewHub()
		t.Cleanup(hub.Close)
		a := hub.LinkAt(id("a"), "eu", em)
		far, near := a.towards("b", "ap"), a.towards("c", "eu")
		sent := func(w *way, n int) time.Duration {
			now := time.Now()
			due, lost := w.datagram(now, n)
			if lost {
				return -1
			}
			return due.Sub(now)
		}
		for _, tt := range []struct {
			name      string
			fault     Fault
			far, near time.Duration // -1: lost
		}{
			{"well", Fault{}, 21 * ms, 0},
			{"cut", Fault{Cut: true}, -1, -1},
			{"slow", Fault{Slow: 100 * ms}, 121 * ms, 100 * ms},
			{"bounded", Fault{Rate: 8e5}, 31 * ms, 10 * ms},
			{"healed", Fault{}, 21 * ms, 0},
		} {
			a.SetFaults(Faults{"b": tt.fault, "c": tt.fault})
			if got := sent(far, 1000); got != tt.far {
				t.Errorf("%s: to another site %v, want %v", tt.name, got, tt.far)
			}
			if got := sent(near, 1000); got != tt.near {
				t.Errorf("%s: to the same site %v, want %v", tt.name, got, tt.near)
			}
			time.Sleep(time.Second)
		}
		if got := sent(a.towards("a", "eu"), 1000); got != 0 {
			t.Errorf("to itself %v, want at once", got)
		}
		// A queue has a bound: 100 kB/s for a second, and the one that overflows.
		a.SetFaults(Faults{"c": {Rate: 8e5}})
		got := 0
		for range 500 {
			if sent(near, 1000) >= 0 {
				got++
			}
		}
		if got != 101 {
			t.Errorf("%d of 500 datagrams got on, want 101", got)
		}
	})
}

// TestFaultsWhileAllWrite: faults change under load from many sides, and nothing is lost, doubled or stuck.
func TestFaultsWhileAllWrite(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seq := rapid.SliceOfN(rapid.SampledFrom([]Faults{nil, {"b": {Cut: true}}, {"b": {Slow: 50 * ms, Jitter: 50 * ms}}, {"b": {Rate: 8e4}},
			{"b": {Slow: time.Second, Rate: 8e3}}, {"c": {Cut: true}}}), 1, 10).Draw(rt, "faults")
		synctest.Test(t, func(t *testing.T) {
			h := memories(t, nil)
			ours, theirs := connect(t, h, Tunnel)
			other, others := connect(t, h, Alive)
			for _, c := range []Conn{ours, other} {
				go func() {
					defer c.CloseWrite()
					for i := range 300 {
						if _, err := c.Write([]byte{byte(i)}); err != nil {
							t.Error(err)
						}
						time.Sleep(ms)
					}
				}()
			}
			go func() {
				for _, f := range seq {
					time.Sleep(25 * ms)
					h.links["a"].SetFaults(f)
				}
				time.Sleep(25 * ms)
				h.links["a"].SetFaults(nil)
			}()
			began := time.Now()
			for _, c := range []Conn{theirs, others} {
				b, err := io.ReadAll(c)
				for i := range b {
					if b[i] != byte(i) {
						t.Fatalf("byte %d is %d", i, b[i])
					}
				}
				if len(b) != 300 || err != nil {
					t.Fatalf("%d bytes, %v, want 300", len(b), err)
				}
			}
			if got, most := time.Since(began), 300*ms+25*ms*time.Duration(len(seq)+1); got > most {
				t.Errorf("all came after %v, want %v: healed, nothing waits", got, most)
			}
		})
	})
}
