package load

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log"
	"math"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A secure server is reached over HTTP/1.1 with kept connections, and only with a certificate that is trusted.
func TestOverTLS(t *testing.T) {
	var opened atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor != 1 || r.TLS == nil {
			t.Errorf("%s with TLS %v, want HTTP/1.1 and TLS", r.Proto, r.TLS)
		}
		fmt.Fprintln(w, strings.Repeat("a", 1000))
	}))
	srv.EnableHTTP2 = true
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			opened.Add(1)
		}
	}
	srv.StartTLS()
	defer srv.Close()
	trusted := x509.NewCertPool()
	trusted.AddCert(srv.Certificate())
	site := Site{Doors: func() []string { return []string{srv.Listener.Addr().String()} }, TLS: &tls.Config{RootCAs: trusted}}
	if class, err := Knock(t.Context(), site, 5*time.Second); err != nil {
		t.Errorf("Knock = %s, %v", class, err)
	}
	opened.Store(0)
	// The pauses are longer than a connection is taken for alive without a look.
	res, err := Run(t.Context(), Options{Sites: []Site{site}, Mix: mix(t, "GET /"), Clients: 3, Count: 60, Think: 2 * fresh})
	if err != nil || res.Good != 60 {
		t.Fatalf("Run = %+v, %v; want 60 right answers", res, err)
	}
	if n := opened.Load(); n < 1 || n > 3 {
		t.Errorf("%d connections for 3 clients, want one each at most", n)
	}
	if res.Got < 60*1000 || res.Got > 60*1500 || res.Wrote < 60*20 {
		t.Errorf("%d bytes sent, %d received; want the heads and 60 bodies of 1001", res.Wrote, res.Got)
	}
	site.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	if class, err := Knock(t.Context(), site, 5*time.Second); err == nil || class != TLS {
		t.Errorf("nobody trusted: Knock = %q, %v; want class tls", class, err)
	}
	res, err = Run(t.Context(), Options{Sites: []Site{site}, Mix: mix(t, "GET /"), Clients: 1, Count: 2})
	if err != nil || res.Errors[TLS] != 2 || !strings.Contains(res.Examples[TLS], "unknown authority") {
		t.Errorf("nobody trusted: %v %v, %v; want 2 × tls with the reason", res.Errors, res.Examples, err)
	}
}

// A client thinks between an answer and its next request: n clients send n/(latency + think) a second.
func TestThink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		res, err := Run(t.Context(), Options{Sites: []Site{inMemory(30 * time.Millisecond)}, Mix: mix(t, "GET /"),
			Clients: 10, Think: 70 * time.Millisecond, Duration: 10 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		if rate := float64(res.Good) / res.Window.Seconds(); math.Abs(rate/100-1) > 0.02 {
			t.Errorf("%.1f requests a second, want 10/(30ms + 70ms)", rate)
		}
		if p := res.Latency.Quantile(0.5); p < 29*time.Millisecond || p > 31*time.Millisecond {
			t.Errorf("p50 = %v, want 30ms: thinking is no latency", p)
		}
		began := time.Now()
		res, err = Run(t.Context(), Options{Sites: []Site{inMemory(0)}, Mix: mix(t, "GET /"), Clients: 2, Think: time.Hour, Duration: time.Second})
		if err != nil || time.Since(began) > 2*time.Second || res.Window != time.Second {
			t.Errorf("Run took %v, window %v, %v; want the end of its second, whoever thinks", time.Since(began), res.Window, err)
		}
	})
}

// inMemory is a site whose server answers after some time, over pipes, so that virtual time may pass.
func inMemory(takes time.Duration) Site {
	return Site{Doors: func() []string { return []string{"memory:1"} }, Dial: func(context.Context, string, string) (net.Conn, error) {
		client, server := net.Pipe()
		go func() { // ends with the connection
			defer server.Close()
			buf := make([]byte, 4096)
			for {
				if _, err := server.Read(buf); err != nil {
					return
				}
				time.Sleep(takes) // the bubble's clock
				if _, err := io.WriteString(server, "HTTP/1.1 204 No Content\r\n\r\n"); err != nil {
					return
				}
			}
		}()
		return client, nil
	}}
}

// A replay sends the recorded requests, each at its moment, faster or slower as asked.
func TestReplay(t *testing.T) {
	type seen struct {
		at   time.Duration
		what string
	}
	var mu sync.Mutex
	var got []seen
	var began time.Time
	recorded := []Recorded{{0, "GET", "/a?x={key}"}, {100 * time.Millisecond, "HEAD", "/b"}, {100 * time.Millisecond, "PUT", "/c"}, {700 * time.Millisecond, "GET", "/d%20e"}}
	run := func(o Options) *Result {
		got = nil
		o.Sites = serve(t, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			mu.Lock()
			defer mu.Unlock()
			got = append(got, seen{time.Since(began), r.Method + " " + r.RequestURI + " " + string(body)})
		})
		o.Mix = []Entry{{Method: "GET", Path: "/"}, {Method: "HEAD", Path: "/"}, {Method: "PUT", Path: "/", Body: "hello"}}
		o.Replay, o.Keep = recorded, true
		began = time.Now()
		res, err := Run(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		slices.SortFunc(got, func(a, b seen) int { return strings.Compare(a.what, b.what) })
		return res
	}
	for _, tt := range []struct {
		speed float64
		last  time.Duration
	}{{0, 700 * time.Millisecond}, {2, 350 * time.Millisecond}, {0.5, 1400 * time.Millisecond}} {
		res := run(Options{Speed: tt.speed})
		var what []string
		var last time.Duration
		for _, s := range got {
			what, last = append(what, s.what), max(last, s.at)
		}
		if want := []string{"GET /a?x={key} ", "GET /d%20e ", "HEAD /b ", "PUT /c hello"}; !slices.Equal(what, want) {
			t.Errorf("speed %v: the server saw %q, want %q", tt.speed, what, want)
		}
		if last < tt.last || res.Window != tt.last || res.Good != 4 {
			t.Errorf("speed %v: the last of %d came after %v, window %v; want 4 and %v", tt.speed, res.Good, last, res.Window, tt.last)
		}
		for _, rec := range res.Records {
			want := recorded[rec.N].At
			if tt.speed != 0 {
				want = time.Duration(float64(want) / tt.speed)
			}
			if rec.Intended != want {
				t.Errorf("request %d was meant for %v, want %v", rec.N, rec.Intended, want)
			}
		}
	}
	if res := run(Options{Duration: 50 * time.Millisecond}); res.Sent != 1 || res.Window != 50*time.Millisecond {
		t.Errorf("%d sent in %v, want 1 in 50ms", res.Sent, res.Window)
	}
	if res := run(Options{Count: 2}); res.Sent != 2 {
		t.Errorf("%d sent, want 2", res.Sent)
	}
	site := []Site{{Doors: func() []string { return nil }}}
	for name, o := range map[string]Options{
		"unknown method": {Replay: []Recorded{{0, "DELETE", "/"}}},
		"bad path":       {Replay: []Recorded{{0, "GET", "/a b"}}},
		"out of order":   {Replay: []Recorded{{time.Second, "GET", "/"}, {0, "GET", "/"}}},
		"with clients":   {Replay: recorded, Clients: 1},
		"backwards":      {Replay: recorded, Speed: -1},
	} {
		o.Sites, o.Mix = site, mix(t, "GET /", "HEAD /", "PUT /")
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// A server that answers when the other end says no more is told so.
func TestAnswerUntilTheEnd(t *testing.T) {
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
				all, _ := io.ReadAll(c) // ends when the client says no more
				_, _ = c.Write(bytes.ToUpper(all))
			}()
		}
	}()
	res, err := Run(t.Context(), Options{Sites: []Site{{Doors: func() []string { return []string{ln.Addr().String()} }}},
		TCP: &TCP{Send: "abc", Expect: Expect{End: true}}, Clients: 2, Count: 10, Timeout: 5 * time.Second, Keep: true})
	if err != nil || res.Good != 10 || string(res.Records[0].Body) != "ABC" || res.Wrote != 30 || res.Got != 30 {
		t.Fatalf("Run = %+v, %v; want 10 × ABC, 30 bytes each way", res, err)
	}
}

// A run says how far it is, twice a second.
func TestTells(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var told []Progress
		res, err := Run(t.Context(), Options{Sites: []Site{inMemory(time.Millisecond)}, Mix: mix(t, "GET /"), Rate: Rate{From: 100}, Duration: 3 * time.Second,
			Tell: func(p Progress) { told = append(told, p) }})
		if err != nil || res.Good != 300 {
			t.Fatalf("Run = %+v, %v", res, err)
		}
		if len(told) < 5 || len(told) > 6 {
			t.Fatalf("told %d times in 3 s, want twice a second", len(told))
		}
		for i, p := range told {
			if at := time.Duration(i+1) * 500 * time.Millisecond; p.At != at || p.Asked < int64(50*(i+1)) || p.Sent > p.Asked || p.Open != p.Asked-p.Sent {
				t.Errorf("after %v: %+v", at, p)
			}
		}
	})
}

func TestParseMixOfOneWord(t *testing.T) {
	m, err := ParseMix("GET /a/{key}=95, PUT /a/{key}=5", "GET /x,y?a=1,2")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range m {
		got = append(got, fmt.Sprintf("%s %s %v", e.Method, e.Path, e.Weight))
	}
	if want := []string{"GET /a/{key} 95", "PUT /a/{key} 5", "GET /x,y?a=1,2 1"}; !slices.Equal(got, want) {
		t.Errorf("ParseMix = %q, want %q", got, want)
	}
}
