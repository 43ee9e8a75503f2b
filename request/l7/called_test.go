package l7

import (
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"servent/meter"
	"servent/route"
	"servent/system"
)

// demand is what a node's switch tells of calls now.
func demand(c *route.Calls) float64 {
	d, _ := c.Sample(time.Now(), func(system.ServiceName) time.Duration { return time.Minute })
	if len(d) == 0 {
		return 0
	}
	return d[0].Inflight
}

// A call that finds no instance is told of, waits, and says how long; the next one does not.
func TestFirstCallWakes(t *testing.T) {
	calls := route.NewCalls()
	f := newFleet(t, 1, func(o *Options) { o.Calls = calls })
	f.change(func() { s := f.service("api"); s.Called, s.Coming, s.Each = true, true, 2 })
	door, c := f.door("node-1"), client(t)
	got := make(chan *http.Response, 1)
	go func() {
		res, err := c.Get(door)
		if err != nil {
			t.Error(err)
		} else {
			_, _ = io.Copy(io.Discard, res.Body)
			res.Body.Close()
		}
		got <- res
	}()
	select {
	case <-calls.Asked():
	case <-time.After(5 * time.Second):
		t.Fatal("nobody is told that a call waits")
	}
	if n := demand(calls); n != 1 {
		t.Errorf("told %v, want the one that waits", n)
	}
	f.run("node-1", 1, text("awake"))
	if res := <-got; res == nil || res.StatusCode != 200 || !strings.Contains(res.Header.Get("Server-Timing"), "cold;dur=") {
		t.Errorf("the one that waited got %+v, want 200 and how long it waited", res)
	}
	res, _ := ask(t, c, "GET", door, nil)
	if timing := res.Header.Get("Server-Timing"); strings.Contains(timing, "cold") {
		t.Errorf("the next one: %s, want it warm", timing)
	}
	sum := meter.Total(f.nodes["node-1"].meter.Snapshot())
	if sum.Cold != 1 || sum.Held != 1 || sum.Requests != 2 {
		t.Errorf("counted %+v, want one cold of two", sum)
	}
}

// An instance is given so many at a time; the others wait, and go to the next one as soon as it is there.
func TestBusyInstanceIsLeftAlone(t *testing.T) {
	calls := route.NewCalls()
	f := newFleet(t, 1, func(o *Options) { o.Calls = calls })
	f.change(func() { s := f.service("api"); s.Called, s.Each = true, 2 })
	free := make(chan struct{})
	var now, most, second atomic.Int64
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-free
	}))
	door, c := f.door("node-1"), client(t)
	var all sync.WaitGroup
	sw := f.nodes["node-1"].sw
	for n := range int64(6) { // one after the other: of those that come at once a few more may pass
		all.Go(func() {
			res, err := c.Get(door)
			if err != nil {
				t.Error(err)
				return
			}
			if res.Body.Close(); res.StatusCode != 200 {
				t.Error(res.Status)
			}
		})
		eventually(t, "each is taken or waits", func() bool { return now.Load()+sw.waiting.Load() == n+1 })
	}
	eventually(t, "two are answered and four wait", func() bool { return now.Load() == 2 && sw.waiting.Load() == 4 })
	f.run("node-1", 2, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { second.Add(1) }))
	eventually(t, "the four are answered by the next", func() bool { return second.Load() == 4 && sw.waiting.Load() == 0 })
	close(free)
	all.Wait()
	if most.Load() != 2 {
		t.Errorf("%d at a time were given to one, want 2", most.Load())
	}
	eventually(t, "nothing is under way", func() bool {
		_, busy := calls.Sample(time.Now(), func(system.ServiceName) time.Duration { return 0 })
		return !busy
	})
}
