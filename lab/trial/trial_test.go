package trial

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/lab/load"
	"servent/lab/result"
)

func site(t *testing.T, h http.HandlerFunc) []load.Site {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return []load.Site{{Doors: func() []string { return []string{srv.Listener.Addr().String()} }}}
}

var get = []load.Entry{{Method: "GET", Path: "/"}}

func check(r *result.Load, name string) result.Check {
	i := slices.IndexFunc(r.Validity.Checks, func(c result.Check) bool { return c.Name == name })
	if i < 0 {
		return result.Check{}
	}
	return r.Validity.Checks[i]
}

func shown(t *testing.T, r *result.Load) string {
	t.Helper()
	var b strings.Builder
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every figure of the result is that of the clients.
func TestRun(t *testing.T) {
	n := 0
	var mu sync.Mutex
	sites := site(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		if n++; n%10 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(make([]byte, 1000))
	})
	r, err := Run(t.Context(), Options{Target: "http://target", Words: "some load", Version: "1.2",
		Load: load.Options{Sites: sites, Mix: get, Rate: load.Rate{From: 200}, Duration: time.Second, Seed: 7}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Version != result.LoadVersion || r.Target != "http://target" || r.Servent != "1.2" || r.Seed != 7 || r.Partial != "" || r.Host.CPUs < 1 {
		t.Errorf("head: %+v", r)
	}
	if r.Asked != 200 || r.Requests != 200 || r.Errors != 20 || r.NotSent != 0 || r.Offered != 200 || r.SentRate != 200 || r.Seconds != 1 || r.Rate > 180 || r.Rate < 20 {
		t.Errorf("asked %d, sent %d, failed %d, not sent %d, %v/s and %v/s and %v/s in %vs; want 200, 200, 20, 0, 200/s, 200/s, 180/s at most, 1s",
			r.Asked, r.Requests, r.Errors, r.NotSent, r.Offered, r.SentRate, r.Rate, r.Seconds)
	}
	if want := []result.Errors{{Kind: "status", Count: 20}}; !slices.Equal(r.Kinds, want) {
		t.Errorf("kinds = %v, want %v", r.Kinds, want)
	}
	if want := []result.Status{{Code: 200, Count: 180}, {Code: 503, Count: 20}}; !slices.Equal(r.Statuses, want) {
		t.Errorf("statuses = %v, want %v", r.Statuses, want)
	}
	bins := int64(0)
	for _, b := range r.Bins {
		bins += b.Count
	}
	l := r.LatencyMS
	if bins != 180 || l.P50 <= 0 || l.P50 > l.P90 || l.P90 > l.P99 || l.P99 > l.P999 || l.P999 > l.Max || r.Received < 200_000 || r.Sent < 200*20 {
		t.Errorf("%d in bins, latency %+v, %d bytes sent, %d received", bins, l, r.Sent, r.Received)
	}
	text := shown(t, r)
	for _, want := range []string{"http://target · some load\n", "asked          200  200.0/s\n", "status 503 × 20", "KiB received", "processor"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if _, err := Run(t.Context(), Options{}); err == nil {
		t.Error("no load is taken")
	}
}

// A load that was interrupted keeps what it measured, and says that it is not whole.
func TestInterrupted(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	n := 0
	sites := site(t, func(w http.ResponseWriter, r *http.Request) {
		if n++; n == 20 {
			stop()
		}
	})
	r, err := Run(ctx, Options{Load: load.Options{Sites: sites, Mix: get, Clients: 1, Duration: time.Minute}})
	if err != nil || r.Requests < 19 || !strings.HasPrefix(r.Partial, "interrupted after ") || !strings.HasSuffix(r.Partial, " of 1m0s") {
		t.Fatalf("%+v, %v; want 19 requests or more, marked partial", r, err)
	}
	if text := shown(t, r); !strings.Contains(text, "PARTIAL: interrupted after") {
		t.Errorf("it is not marked:\n%s", text)
	}
}

// A target that answers too slowly is told by what could not be sent.
func TestTargetIsTheBottleneck(t *testing.T) {
	hold := make(chan struct{})
	sites := site(t, func(w http.ResponseWriter, r *http.Request) { <-hold })
	time.AfterFunc(time.Second, func() { close(hold) })
	r, err := Run(t.Context(), Options{Load: load.Options{Sites: sites, Mix: get, Rate: load.Rate{From: 100}, Count: 80, Inflight: 10}})
	if err != nil {
		t.Fatal(err)
	}
	c := check(r, "not sent")
	if r.NotSent == 0 || r.Validity.OK || c.OK || !strings.Contains(c.Text, "because 10 were open: the target answered more slowly") {
		t.Errorf("%d not sent, %+v; want a check that says so", r.NotSent, c)
	}
	if text := shown(t, r); !strings.Contains(text, "\nbut: "+c.Text+"\n") {
		t.Errorf("%q does not stand in\n%s", c.Text, text)
	}
}

// A machine that was made busy on purpose is told.
func TestMachineIsTheBottleneck(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("how busy the machine is is known on Linux alone")
	}
	sites := site(t, func(w http.ResponseWriter, r *http.Request) {})
	ctx, stop := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for range 2 * runtime.NumCPU() {
		all.Go(func() {
			for ctx.Err() == nil {
			}
		})
	}
	r, err := Run(t.Context(), Options{Load: load.Options{Sites: sites, Mix: get, Rate: load.Rate{From: 20}, Duration: time.Second}})
	stop()
	all.Wait()
	if err != nil {
		t.Fatal(err)
	}
	if r.Host.Busy < 0.9 {
		t.Skipf("this process has not all processors: it made them %.0f %% busy", 100*r.Host.Busy)
	}
	if c := check(r, "machine"); c.OK || r.Validity.OK || !strings.Contains(c.Text, "bounded by it") {
		t.Errorf("%.2f busy, %+v; want a check that says so", r.Host.Busy, c)
	}
}

// The checks go by the figures alone.
func TestValidity(t *testing.T) {
	quiet := result.Load{Host: result.Host{Busy: 0.2}, LatencyMS: result.Tail{P50: 10}, LateMS: 0.5, WakeMS: 2, Asked: 100, Requests: 100}
	for _, tt := range []struct {
		name    string
		change  func(*result.Load)
		clients int
		bad     string
	}{
		{"all is well", func(*result.Load) {}, 0, ""},
		{"the machine was busy", func(r *result.Load) { r.Host.Busy = 0.95 }, 0, "machine"},
		{"not known how busy", func(r *result.Load) { r.Host.Busy = -1 }, 0, ""},
		{"sent late", func(r *result.Load) { r.LateMS = 1.5 }, 0, "generator"},
		{"a closed loop cannot be late", func(r *result.Load) { r.LateMS = 1.5 }, 4, ""},
		{"wakes up late", func(r *result.Load) { r.WakeMS = 30 }, 4, "clock"},
		{"late for a slow target is not late", func(r *result.Load) { r.WakeMS, r.LatencyMS.P50 = 30, 400 }, 4, ""},
		{"not sent", func(r *result.Load) { r.NotSent = 1 }, 0, "not sent"},
	} {
		r := quiet
		tt.change(&r)
		v := validity(&r, load.Options{Clients: tt.clients})
		var bad []string
		for _, c := range v.Checks {
			if !c.OK {
				bad = append(bad, c.Name)
			}
		}
		if got := strings.Join(bad, ", "); got != tt.bad || v.OK != (tt.bad == "") {
			t.Errorf("%s: %q is not right and OK is %v, want %q", tt.name, got, v.OK, tt.bad)
		}
	}
}

// What users and servers say moves no cursor.
func TestWordsAreCleaned(t *testing.T) {
	r := &result.Load{Target: "http://a\x1b[2J", Load: "x\ny", Asked: 3, Requests: 2, Errors: 2, Kinds: []result.Errors{{Kind: "dial", Count: 1, Example: "\x1b]0;t\a"}, {Kind: "cut", Count: 1}},
		Replay: &result.Replay{File: "a\rb", Requests: 1, Skipped: 1234, Bad: 2}}
	text := shown(t, r)
	if strings.ContainsAny(text, "\x1b\r\a") || !strings.Contains(text, "log      a b: 1 request, 1,234 skipped for their method, 2 lines bad") ||
		!strings.Contains(text, "given up         1") || strings.Contains(text, "p99.9") {
		t.Errorf("%q", text)
	}
	if _, err := json.Marshal(r); err != nil {
		t.Error(err)
	}
}

func TestFigures(t *testing.T) {
	for ms, want := range map[float64]string{0: "0ms", 0.254: "0.25ms", 1.04: "1ms", 9.96: "10ms", 31.4: "31ms", 999.4: "999ms", 1240: "1.24s", 60000: "60s"} {
		if got := figure(ms); got != want {
			t.Errorf("figure(%v) = %s, want %s", ms, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0B", 1023: "1023B", 1024: "1.0KiB", 150 << 10: "150KiB", 3 << 30: "3.0GiB"} {
		if got := size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567"} {
		if got := grouped(n); got != want {
			t.Errorf("grouped(%d) = %s, want %s", n, got, want)
		}
	}
}
