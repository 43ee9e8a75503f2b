package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"servent/system"
)

func serve(t testing.TB, h http.HandlerFunc) []Site {
	srv := httptest.NewServer(h)
	t.Cleanup(srv.Close)
	return []Site{{Doors: func() []string { return []string{srv.Listener.Addr().String()} }}}
}

func mix(t testing.TB, words ...string) []Entry {
	m, err := ParseMix(words...)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// One seed sends the same requests, whatever order they end in; another seed sends others.
func TestSameSeedSameRequests(t *testing.T) {
	sites := serve(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	sent := func(seed uint64) []string {
		res, err := Run(t.Context(), Options{Sites: sites, Mix: mix(t, "GET /c/{key}=3", "PUT /c/{key}=1"), Keys: Keys{Kind: "zipf", S: 0.99, N: 50},
			Clients: 7, Count: 300, Seed: seed, Keep: true})
		if err != nil || res.Good != 300 || len(res.Records) != 300 {
			t.Fatalf("Run = %+v, %v; want 300 right answers", res, err)
		}
		slices.SortFunc(res.Records, func(a, b Record) int { return a.N - b.N })
		var out []string
		for _, r := range res.Records {
			if r.Method == "PUT" && (string(r.Body) != r.Value || r.Value == "") {
				t.Errorf("request %d sent %q and the answer is %q", r.N, r.Value, r.Body)
			}
			out = append(out, r.Method+" "+r.Path+" "+r.Value)
		}
		return out
	}
	one, two, other := sent(1), sent(1), sent(2)
	if !slices.Equal(one, two) {
		t.Error("two runs of one seed sent different requests")
	}
	if slices.Equal(one, other) {
		t.Error("two seeds sent the same requests")
	}
}

// A server that stops for a second makes all that should have been asked meanwhile late: of 300 requests at
// 100/s, the 100 that fall into that second. So p99 must be near a second, whatever the machine does. A closed
// loop asks nothing meanwhile: of its 400 requests one is slow, which p99 hides and only the maximum tells.
func TestAStallShows(t *testing.T) {
	stalls := func() []Site {
		var gate sync.Mutex // one request at a time is answered: the stall is everyone's
		n := 0
		return serve(t, func(w http.ResponseWriter, r *http.Request) {
			gate.Lock()
			defer gate.Unlock()
			if n++; n == 50 {
				<-time.After(time.Second)
			}
		})
	}
	open, err := Run(t.Context(), Options{Sites: stalls(), Mix: mix(t, "GET /"), Rate: Rate{From: 100}, Duration: 3 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	if open.NotSent != 0 || open.Good != 300 || open.Asked != 300 || open.Window != 3*time.Second {
		t.Errorf("%d asked in %v, %d right, %d not sent; want 300 in 3s, 300 and 0", open.Asked, open.Window, open.Good, open.NotSent)
	}
	if p, most := open.Latency.Quantile(0.99), open.Latency.Max(); p < 900*time.Millisecond || most < 980*time.Millisecond {
		t.Errorf("open loop: p99 = %v, max = %v of 3 s with a stall of 1 s, want 0.9s and 0.98s or more", p, most)
	}
	closed, err := Run(t.Context(), Options{Sites: stalls(), Mix: mix(t, "GET /"), Clients: 1, Count: 400})
	if err != nil {
		t.Fatal(err)
	}
	if p, most := closed.Latency.Quantile(0.99), closed.Latency.Max(); p > 500*time.Millisecond || most < 980*time.Millisecond {
		t.Errorf("closed loop: p99 = %v, max = %v; want the stall in the maximum alone", p, most)
	}
}

func TestWhatIsNotSentIsCounted(t *testing.T) {
	hold := make(chan struct{})
	sites := serve(t, func(w http.ResponseWriter, r *http.Request) { <-hold })
	time.AfterFunc(500*time.Millisecond, func() { close(hold) })
	res, err := Run(t.Context(), Options{Sites: sites, Mix: mix(t, "GET /"), Rate: Rate{From: 200}, Count: 60, Inflight: 5})
	if err != nil {
		t.Fatal(err)
	}
	if res.NotSent == 0 || res.Sent+res.NotSent != 60 {
		t.Errorf("%d sent and %d not, want 60 in all and some not sent", res.Sent, res.NotSent)
	}
}

// In a closed loop, clients = rate × latency (Little).
func TestLittle(t *testing.T) {
	sites := serve(t, func(w http.ResponseWriter, r *http.Request) { <-time.After(5 * time.Millisecond) })
	res, err := Run(t.Context(), Options{Sites: sites, Mix: mix(t, "GET /"), Clients: 8, Count: 800})
	if err != nil {
		t.Fatal(err)
	}
	if n := res.Busy.Seconds() / res.Took.Seconds(); math.Abs(n/8-1) > 0.1 {
		t.Errorf("N = X·R gives %.2f clients, want 8", n)
	}
}

func TestErrorsHaveAClass(t *testing.T) {
	cut := func(after string) []Site {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { ln.Close() })
		go func() { // ends with the listener
			for {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				_, _ = bufio.NewReader(c).ReadString('\n')
				_, _ = io.WriteString(c, after)
				_ = c.(*net.TCPConn).CloseWrite()
			}
		}()
		return []Site{{Doors: func() []string { return []string{ln.Addr().String()} }}}
	}
	nobody, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nobody.Close()
	for _, tt := range []struct {
		name  string
		sites []Site
		want  string
	}{
		{"nobody listens", []Site{{Doors: func() []string { return []string{nobody.Addr().String()} }}}, Refused},
		{"no door", []Site{{Doors: func() []string { return nil }}}, NoDoor},
		{"ends at once", cut(""), NoAnswer},
		{"ends in the head", cut("HTTP/1.1 200 OK\r\nContent-"), Cut},
		{"ends in the body", cut("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"), Cut},
		{"speaks something else", cut("SSH-2.0\r\n"), Malformed},
		{"hangs", serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() }), Timeout},
		{"answers 500", serve(t, func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(500) }), Status},
	} {
		t.Run(tt.name, func(t *testing.T) {
			res, err := Run(t.Context(), Options{Sites: tt.sites, Mix: mix(t, "GET /"), Clients: 1, Count: 3, Timeout: 100 * time.Millisecond, Keep: true})
			if err != nil {
				t.Fatal(err)
			}
			if res.Errors[tt.want] != 3 || res.Good != 0 || res.Failed() != 3 {
				t.Errorf("errors %v, %d right; want 3 × %q", res.Errors, res.Good, tt.want)
			}
		})
	}
}

func TestOverTCP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // ends with the listener
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				for r := bufio.NewReader(c); ; {
					var n int
					if _, err := fmt.Fscanln(r, &n); err != nil {
						return
					}
					fmt.Fprintln(c, n+1)
				}
			}()
		}
	}()
	for _, each := range []bool{false, true} {
		res, err := Run(t.Context(), Options{Sites: []Site{{Doors: func() []string { return []string{ln.Addr().String()} }}},
			TCP: &TCP{Send: "{n}\n", Each: each}, Clients: 3, Count: 50, Keep: true})
		if err != nil || res.Good != 50 {
			t.Fatalf("each=%v: %+v, %v; want 50 right answers", each, res, err)
		}
		for _, r := range res.Records {
			if got, want := strings.TrimSpace(string(r.Body)), fmt.Sprint(r.N+1); got != want {
				t.Errorf("each=%v: sent %d, got %q, want %s", each, r.N, got, want)
			}
		}
	}
}

func TestEndOfContextGivesUp(t *testing.T) {
	sites := serve(t, func(w http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	res, err := Run(ctx, Options{Sites: sites, Mix: mix(t, "GET /"), Clients: 4, Count: 1000})
	if err != nil || res.Sent != 0 {
		t.Errorf("Run = %+v, %v; want nothing counted", res, err)
	}
}

func TestRunRefuses(t *testing.T) {
	site := []Site{{Doors: func() []string { return nil }}}
	for name, o := range map[string]Options{
		"no site":         {Mix: []Entry{{Method: "GET", Path: "/"}}, Clients: 1, Count: 1},
		"nothing to send": {Sites: site, Clients: 1, Count: 1},
		"no end":          {Sites: site, Mix: []Entry{{Method: "GET", Path: "/"}}, Clients: 1},
		"no pace":         {Sites: site, Mix: []Entry{{Method: "GET", Path: "/"}}, Count: 1},
		"bad method":      {Sites: site, Mix: []Entry{{Method: "G T", Path: "/"}}, Clients: 1, Count: 1},
		"bad path":        {Sites: site, Mix: []Entry{{Method: "GET", Path: "x y"}}, Clients: 1, Count: 1},
		"named keys":      {Sites: site, Mix: []Entry{{Method: "GET", Path: "/"}}, Keys: Keys{Kind: "zipf", N: 9, Only: []int64{4}}, Clients: 1, Count: 1},
		"bad keys":        {Sites: site, Mix: []Entry{{Method: "GET", Path: "/"}}, Keys: Keys{Kind: "odd"}, Clients: 1, Count: 1},
	} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// Keys are drawn as often as their distribution says, within five standard deviations.
func TestKeysAreDrawnAsSaid(t *testing.T) {
	const n, draws = 100, 200_000
	for _, words := range []string{"uniform of 100", "zipf 0 of 100", "zipf 0.99 of 100", "zipf 1 of 100", "zipf 2.5 of 100"} {
		k, err := ParseKeys(words)
		if err != nil {
			t.Fatal(err)
		}
		s, err := newSampler(k)
		if err != nil {
			t.Fatal(err)
		}
		count, sum := make([]float64, n), 0.0
		for i := range draws {
			count[s.key(7, uint64(i))]++
		}
		for i := range n {
			sum += math.Pow(float64(i+1), -k.S)
		}
		for i, got := range count {
			p := math.Pow(float64(i+1), -k.S) / sum
			want, sd := draws*p, math.Sqrt(draws*p*(1-p))
			if math.Abs(got-want) > 5*sd+1 {
				t.Errorf("%s: key %d was drawn %.0f times, want %.0f ± %.0f", words, i, got, want, 5*sd)
			}
		}
	}
}

// Keys that are named are asked for in their order, each as often as the others.
func TestNamedKeys(t *testing.T) {
	s, err := newSampler(Keys{Kind: "sequential", Only: []int64{3, 17, 5}})
	if err != nil {
		t.Fatal(err)
	}
	var got []int64
	for n := range uint64(6) {
		got = append(got, s.key(1, 300+n))
	}
	if want := []int64{3, 17, 5, 3, 17, 5}; !slices.Equal(got, want) {
		t.Errorf("keys %v, want %v", got, want)
	}
}

// Above a million keys they are drawn by rejection, which must agree with the shares of the first ones.
func TestManyKeys(t *testing.T) {
	const n, draws = 5_000_000, 300_000
	k := Keys{Kind: "zipf", S: 1.1, N: n}
	s, err := newSampler(k)
	if err != nil {
		t.Fatal(err)
	}
	count, sum := map[int64]float64{}, 0.0
	for i := range draws {
		count[s.key(3, uint64(i))]++
	}
	for i := range n {
		sum += math.Pow(float64(i+1), -k.S)
	}
	for i := range int64(10) {
		p := math.Pow(float64(i+1), -k.S) / sum
		want, sd := draws*p, math.Sqrt(draws*p*(1-p))
		if math.Abs(count[i]-want) > 5*sd {
			t.Errorf("key %d was drawn %.0f times, want %.0f ± %.0f", i, count[i], want, 5*sd)
		}
	}
}

func TestScheduleOfAClimb(t *testing.T) {
	s := schedule{rate: Rate{From: 10, To: 30}, climb: 10}
	n := 0
	for s.at() < 10*time.Second {
		n++
	}
	if n < 199 || n > 201 {
		t.Errorf("a climb from 10/s to 30/s over 10 s sends %d, want 200", n)
	}
}

func TestParse(t *testing.T) {
	for _, bad := range []string{"", "zipf of 10", "uniform of 0", "zipf -1 of 10", "odd 1 of 10"} {
		if _, err := ParseKeys(bad); err == nil {
			t.Errorf("ParseKeys(%q) = nil, want an error", bad)
		}
	}
	for _, bad := range []string{"", "fast", "10..5/s", "-1/s"} {
		if _, err := ParseRate(bad); err == nil {
			t.Errorf("ParseRate(%q) = nil, want an error", bad)
		}
	}
	for _, bad := range []string{"GET", "GET x", "GET /=x"} {
		if _, err := ParseMix(bad); err == nil {
			t.Errorf("ParseMix(%q) = nil, want an error", bad)
		}
	}
	m, err := ParseMix("GET /find?id={key}=95")
	if err != nil || m[0].Path != "/find?id={key}" || m[0].Weight != 95 {
		t.Errorf("ParseMix = %+v, %v", m, err)
	}
	r, err := ParseRate("50..2000/s")
	if err != nil || r.String() != "50..2000/s" {
		t.Errorf("ParseRate = %v, %v", r, err)
	}
	if e, err := ParseExpect("8"); err != nil || e.String() != "8" {
		t.Errorf("ParseExpect = %v, %v", e, err)
	}
	if s, err := ParseSend(`41\n\x41`); err != nil || s != "41\nA" {
		t.Errorf("ParseSend = %q, %v", s, err)
	}
	if _, err := MixOf([]system.MixEntry{{Request: "GET /", Weight: 0}}); err == nil {
		t.Error("a mix without weight is taken")
	}
}

// No answer makes the reader panic or read without end.
func FuzzReadHTTP(f *testing.F) {
	for _, s := range []string{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
		"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.0 404 x\r\nServer-Timing: node;desc=\"a\\\"b\", hops;desc=3\r\n\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a := answer{keep: true}
		err := readHTTP(bufio.NewReader(strings.NewReader(string(b))), "GET", &a)
		if err == nil && (a.status < 200 || a.status > 599) {
			t.Errorf("status %d was read from %q", a.status, b)
		}
	})
}
