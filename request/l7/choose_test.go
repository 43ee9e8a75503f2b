package l7

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"servent/system"
)

// One that answers badly again and again is left out; when all do, all are asked.
func TestBadAnswersEject(t *testing.T) {
	bad := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })
	for _, tt := range []struct {
		name     string
		handlers []http.Handler
		want     []int64 // requests of 60
	}{
		{"one of three", []http.Handler{bad, text("x"), text("x")}, []int64{5, 28, 27}},
		{"all", []http.Handler{bad, bad, bad}, []int64{20, 20, 20}},
		{"what is not built is not at fault", []http.Handler{http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotImplemented) }), text("x"), text("x")}, []int64{20, 20, 20}},
		{"what is not there is not at fault", []http.Handler{http.NotFoundHandler(), text("x"), text("x")}, []int64{20, 20, 20}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, 3)
			var programs []*program
			for i, h := range tt.handlers {
				programs = append(programs, f.run(system.NodeID(fmt.Sprint("node-", i+1)), i+1, h))
			}
			f.change(func() { f.service("api").Switch.Policy = "roundrobin" })
			door, c := f.door("node-1"), client(t)
			for i := range 60 {
				if i == 30 {
					f.change(func() {}) // a new table forgets nothing of this
				}
				ask(t, c, "GET", door, nil)
			}
			var got []int64
			for _, p := range programs {
				got = append(got, p.hits.Load())
			}
			if tt.want[0] == 5 { // who of the two others is first is the counter's affair
				if got[0] != 5 || got[1]+got[2] != 55 {
					t.Errorf("asked %v times, want 5 of the bad one", got)
				}
			} else if slices.Min(got) < 18 { // before all are bad some are, for a turn
				t.Errorf("asked %v times, want about %v", got, tt.want)
			}
		})
	}
	// It comes back with a new life.
	f := newFleet(t, 1)
	f.run("node-1", 1, bad)
	good := f.run("node-1", 2, text("x"))
	f.change(func() { f.service("api").Switch.Policy = "roundrobin" })
	door, c := f.door("node-1"), client(t)
	for range 20 {
		ask(t, c, "GET", door, nil)
	}
	before := good.hits.Load()
	f.change(func() { f.service("api").Instances[0].Ready = time.Now().Add(-time.Hour) })
	for range 4 {
		ask(t, c, "GET", door, nil)
	}
	if got := good.hits.Load() - before; before != 15 || got != 2 {
		t.Errorf("the good one had %d of 20, then %d of 4; want 15, then 2", before, got)
	}
}

// Requests that break everywhere are repeated, but not for ever more of them.
func TestRetriesHaveABudget(t *testing.T) {
	f := newFleet(t, 1)
	var hits []*program
	for n := 1; n <= 3; n++ {
		hits = append(hits, f.run("node-1", n, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })))
	}
	door, c := f.door("node-1"), client(t)
	const n = 100
	refused := 0
	for range n {
		res, body := ask(t, c, "GET", door, nil)
		if res.StatusCode != http.StatusBadGateway {
			t.Fatalf("status %d: %s", res.StatusCode, body)
		}
		if strings.Contains(body, "too many requests are being repeated already") {
			refused++
		}
	}
	asked := hits[0].hits.Load() + hits[1].hits.Load() + hits[2].hits.Load()
	if refused == 0 || asked > n+100+n/5+20 { // 20: two seconds' worth, should the test take so long
		t.Errorf("%d requests were asked %d times, %d without a retry; want at most %d", n, asked, refused, n+100+n/5)
	}
	if asked < n+90 {
		t.Errorf("%d requests were asked %d times; want the budget used", n, asked)
	}
}

// The shares of nodes of different capacity.
func TestWeightedByCapacity(t *testing.T) {
	f := newFleet(t, 2)
	big, small := f.run("node-1", 1, text("big")), f.run("node-2", 2, text("small"))
	f.change(func() {
		svc := f.service("api")
		svc.Switch.Policy = "weighted"
		svc.Instances[0].Weight, svc.Instances[1].Weight = 300, 100
	})
	for _, node := range []system.NodeID{"node-1", "node-2"} {
		door, c := f.door(node), client(t)
		b, s := big.hits.Load(), small.hits.Load()
		for range 40 {
			ask(t, c, "GET", door, nil)
		}
		if b, s = big.hits.Load()-b, small.hits.Load()-s; b != 30 || s != 10 {
			t.Errorf("by %s: %d and %d, want 30 and 10", node, b, s)
		}
	}
	f.change(func() { f.service("api").Switch.Policy = "nearest"; f.service("api").Instances[0].Local = true })
	b := big.hits.Load()
	door, c := f.door("node-1"), client(t)
	for range 10 {
		if res, _ := ask(t, c, "GET", door, nil); !strings.Contains(res.Header.Get("Server-Timing"), `why;desc="policy"`) {
			t.Errorf("Server-Timing: %s, want the policy", res.Header.Get("Server-Timing"))
		}
	}
	if got := big.hits.Load() - b; got != 10 {
		t.Errorf("nearest gave its own node %d of 10", got)
	}
}
