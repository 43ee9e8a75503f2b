package link

import (
	"errors"
	"io"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/system"

	"pgregory.net/rapid"
)

const ms = time.Millisecond

// far is two sites: a at eu and b at ap, with a path each way.
func far(there, back Path) map[system.NodeID]Emulation {
	return map[system.NodeID]Emulation{
		"a": {To: map[system.Site]Path{"ap": there}, From: map[system.Site]Path{"ap": back}},
		"b": {To: map[system.Site]Path{"eu": back}, From: map[system.Site]Path{"eu": there}},
	}
}

func TestDelayIsExact(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 120 * ms}, Path{Delay: 80 * ms}))
		began := time.Now()
		ours, theirs := connect(t, h, Tunnel)
		if got, want := time.Since(began), 200*ms; got != want {
			t.Errorf("set-up took %v, want one time there and back, %v", got, want)
		}
		began = time.Now()
		say(t, ours, theirs, "there")
		if got, want := time.Since(began), 120*ms; got != want {
			t.Errorf("there took %v, want %v", got, want)
		}
		began = time.Now()
		say(t, theirs, ours, "back")
		if got, want := time.Since(began), 80*ms; got != want {
			t.Errorf("back took %v, want %v", got, want)
		}
		began = time.Now()
		ours.Close()
		if _, err := theirs.Read(make([]byte, 1)); err != io.EOF || time.Since(began) != 120*ms {
			t.Errorf("the end came after %v as %v, want %v, EOF", time.Since(began), err, 120*ms)
		}
	})
}

// TestTLSPaysForItsHandshake: TCP one round trip, TLS 1.3 one more, and the first byte its own way.
// On real sockets only lower bounds hold.
func TestTLSPaysForItsHandshake(t *testing.T) {
	h := secures(t, far(Path{Delay: 30 * ms}, Path{Delay: 20 * ms}))
	began := time.Now()
	ours, theirs := connect(t, h, Tunnel)
	if got, least := time.Since(began), 2*50*ms; got < least {
		t.Errorf("set-up took %v, want at least two round trips, %v", got, least)
	}
	began = time.Now()
	say(t, ours, theirs, "there")
	if got, least := time.Since(began), 30*ms; got < least {
		t.Errorf("there took %v, want at least %v", got, least)
	}
	began = time.Now()
	say(t, theirs, ours, "back")
	if got, least := time.Since(began), 20*ms; got < least {
		t.Errorf("back took %v, want at least %v", got, least)
	}
}

func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: 10 * ms, Rate: 8e6}, Path{})) // 1 MB/s
		ours, theirs := connect(t, h, Tunnel)
		other, others := connect(t, h, Alive)
		began := time.Now()
		go ours.Write(make([]byte, 1_000_000))
		if _, err := io.ReadFull(theirs, make([]byte, 1_000_000)); err != nil {
			t.Fatal(err)
		}
		if got, want := time.Since(began), 1010*ms; (got - want).Abs() > time.Microsecond {
			t.Errorf("1 MB over 1 MB/s and 10ms took %v, want %v", got, want)
		}
		// Both connections share the way.
		began = time.Now()
		go ours.Write(make([]byte, 500_000))
		go other.Write(make([]byte, 500_000))
		var both sync.WaitGroup
		for _, c := range []Conn{theirs, others} {
			both.Go(func() { io.ReadFull(c, make([]byte, 500_000)) })
		}
		both.Wait()
		if got, want := time.Since(began), 1010*ms; (got - want).Abs() > time.Microsecond {
			t.Errorf("two halves of 1 MB took %v, want %v", got, want)
		}
	})
}

func TestFullQueueHoldsTheWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, far(Path{Delay: time.Second, Rate: 8e3}, Path{}))
		ours, _ := connect(t, h, Tunnel)
		ours.SetWriteDeadline(time.Now().Add(time.Second))
		n, err := ours.Write(make([]byte, 2<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Write() = %v, want the deadline", err)
		}
		if n != minRoom {
			t.Errorf("%d bytes were taken, want %d", n, minRoom)
		}
	})
}

// TestOrderUnderChangingFaults: whatever is slowed, cut and healed meanwhile, bytes arrive whole and in
// order, and never before their delay.
func TestOrderUnderChangingFaults(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		faults := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) Fault {
			return Fault{
				Cut:  rapid.Bool().Draw(t, "cut"),
				Slow: time.Duration(rapid.IntRange(0, 200).Draw(t, "slow")) * ms,
				Rate: rapid.SampledFrom([]int64{0, 8e4, 8e6}).Draw(t, "rate"),
			}
		}), 1, 12).Draw(rt, "faults")
		delay := time.Duration(rapid.IntRange(0, 50).Draw(rt, "delay")) * ms
		synctest.Test(t, func(t *testing.T) {
			h := memories(t, far(Path{Delay: delay}, Path{}))
			ours, theirs := connect(t, h, Tunnel)
			sent := make(chan time.Time, 200)
			go func() {
				defer ours.CloseWrite()
				for i := range cap(sent) {
					sent <- time.Now()
					if _, err := ours.Write([]byte{byte(i)}); err != nil {
						t.Error(err)
					}
					time.Sleep(3 * ms)
				}
			}()
			go func() {
				for i, f := range faults {
					time.Sleep(time.Duration(20+i*7%30) * ms)
					h.links["a"].Fault("b", f)
				}
				time.Sleep(50 * ms)
				h.links["a"].Fault("b", Fault{})
			}()
			for i := range cap(sent) {
				got := make([]byte, 1)
				if _, err := io.ReadFull(theirs, got); err != nil || got[0] != byte(i) {
					t.Fatalf("byte %d is %d, %v", i, got[0], err)
				}
				if took := time.Since(<-sent); took < delay {
					t.Fatalf("byte %d took %v, less than %v", i, took, delay)
				}
			}
			if _, err := theirs.Read(make([]byte, 1)); err != io.EOF {
				t.Errorf("then %v, want EOF", err)
			}
		})
	})
}

func TestClosedUnderACutIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		ours, theirs := connect(t, h, Tunnel)
		h.links["a"].Fault("b", Fault{Cut: true})
		io.WriteString(ours, "never")
		ours.Close()
		began := time.Now()
		if n, err := theirs.Read(make([]byte, 1)); n != 0 || err != io.EOF {
			t.Errorf("Read() = %d, %v", n, err)
		}
		if got := time.Since(began); got != linger {
			t.Errorf("given up after %v, want %v", got, linger)
		}
	})
}

func TestClosedUnderACutGoesOnWhenHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		ours, theirs := connect(t, h, Tunnel)
		h.links["a"].Fault("b", Fault{Cut: true})
		io.WriteString(ours, "last words")
		ours.Close()
		time.Sleep(linger / 2)
		h.links["a"].Fault("b", Fault{})
		if got, err := io.ReadAll(theirs); string(got) != "last words" || err != nil {
			t.Errorf("ReadAll() = %q, %v", got, err)
		}
	})
}

func TestDialWaitsUntilHealed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		h.links["b"].Accept(Tunnel)
		h.links["a"].FaultSite("ap", Fault{Cut: true})
		began := time.Now()
		time.AfterFunc(5*time.Second, func() { h.links["a"].FaultSite("ap", Fault{Slow: 7 * ms}) })
		c, err := h.links["a"].Dial(t.Context(), "b", Tunnel)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if got, want := time.Since(began), 5*time.Second+7*ms; got != want {
			t.Errorf("dialled after %v, want %v", got, want)
		}
	})
}

func TestFreeWayStartsNothing(t *testing.T) {
	h := memories(t, nil)
	ours, theirs := connect(t, h, Tunnel)
	say(t, ours, theirs, "x")
	w := ours.(*conn).stream.(*wire)
	if w.slow() || w.queue != nil || !w.last.IsZero() {
		t.Error("a free way queued a write")
	}
}
