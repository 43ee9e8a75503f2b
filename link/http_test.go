package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// spoken is one version of HTTP over a link.
type spoken struct {
	name      string
	serve     func(context.Context, Link, http.Handler, *slog.Logger) error
	transport func(Link) *Transport
	proto     Proto
}

var versions = []spoken{
	{"HTTP/1.1", ServeHTTP1, func(l Link) *Transport { return HTTPTransport(l, HTTPOptions{}) }, HTTP},
	{"HTTP/2.0", ServeHTTP2, func(l Link) *Transport { return HTTP2Transport(l) }, HTTP2},
}

// web runs a test on both versions over both links.
func web(t *testing.T, h http.Handler, test func(t *testing.T, h house, v spoken, client *http.Client, stop func() error)) {
	for _, v := range versions {
		t.Run(v.name, func(t *testing.T) {
			both(t, func(t *testing.T, house house) {
				ctx, cancel := context.WithCancel(context.Background())
				ready, done := make(chan struct{}), make(chan error, 1)
				go func() {
					done <- v.serve(ctx, announced{house.links["b"], ready}, h, nil)
				}()
				<-ready
				stop := sync.OnceValue(func() error { cancel(); return <-done })
				tr := v.transport(house.links["a"])
				test(t, house, v, &http.Client{Transport: tr}, stop)
				tr.CloseIdleConnections()
				if err := stop(); err != nil {
					t.Errorf("serve = %v, want nil", err)
				}
			})
		})
	}
}

// announced tells when the listener is there.
type announced struct {
	Link
	ready chan struct{}
}

func (a announced) Accept(p Proto) net.Listener {
	defer close(a.ready)
	return a.Link.Accept(p)
}

func ask(t *testing.T, c *http.Client, url, body string) string {
	t.Helper()
	r, err := c.Post(url, "text/plain", strings.NewReader(body))
	if err != nil {
		t.Error(err)
		return ""
	}
	defer r.Body.Close()
	got, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	return string(got)
}

func TestHTTPBetweenNodes(t *testing.T) {
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p, ok := PeerFrom(r.Context())
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %s@%s %s %s", r.Proto, ok, p.Node, p.Site, r.Host, body)
	})
	web(t, echo, func(t *testing.T, h house, v spoken, c *http.Client, _ func() error) {
		for range 3 {
			got := ask(t, c, "http://b/x", "hello")
			if want := v.name + " true a@eu b hello"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		}
		if got := h.links["a"].Counters()[0].Opened; got != 1 {
			t.Errorf("%d connections for three requests, want 1", got)
		}
		if v.proto == HTTP2 {
			var all sync.WaitGroup
			for range 90 {
				all.Go(func() { ask(t, c, "http://b/x", "hello") })
			}
			all.Wait()
			if got := h.links["a"].Counters()[0].Opened; got != 1 {
				t.Errorf("%d connections for 90 requests at once, want 1", got)
			}
		}
		_, err := c.Get("http://nobody/")
		if !errors.Is(err, ErrUnknownNode) {
			t.Errorf("unknown node: %v", err)
		}
	})
	if _, ok := PeerFrom(t.Context()); ok {
		t.Error("PeerFrom() of a request without link = true")
	}
}

func TestMoreHTTP2RequestsThanAConnectionTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- ServeHTTP2(ctx, h.links["b"], http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				time.Sleep(time.Second)
			}), nil)
		}()
		synctest.Wait()
		tr := HTTP2Transport(h.links["a"])
		began := time.Now()
		var all sync.WaitGroup
		for range streams * 3 / 2 {
			all.Go(func() {
				r, err := (&http.Client{Transport: tr}).Get("http://b/")
				if err != nil {
					t.Error(err)
					return
				}
				r.Body.Close()
			})
		}
		all.Wait()
		if got, want := time.Since(began), time.Second; got != want {
			t.Errorf("took %v, want %v", got, want)
		}
		if got := h.links["a"].Counters()[0].Opened; got < 2 || got > streams*3/2/100 { // Go gives a connection 100 until it knows the server's bound
			t.Errorf("%d connections for one and a half times what one takes, want 2 to %d", got, streams*3/2/100)
		}
		tr.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestHTTPToADeadNode(t *testing.T) {
	web(t, http.NotFoundHandler(), func(t *testing.T, h house, _ spoken, c *http.Client, stop func() error) {
		ask(t, c, "http://b/", "")
		stop()
		h.kill("b")
		c.Transport.(*Transport).CloseNode("b")
		if got := h.links["a"].Counters()[0].Open; got != 0 {
			t.Errorf("%d connections to a dead node are open", got)
		}
		if _, err := c.Get("http://b/"); !errors.Is(err, ErrRefused) {
			t.Errorf("Get() = %v, want ErrRefused", err)
		}
		c.Transport.(*Transport).CloseNode("never heard of")
	})
}

func TestStopLetsOpenRequestsEnd(t *testing.T) {
	asked, answer := make(chan struct{}, 1), make(chan struct{})
	web(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked <- struct{}{}
		<-answer
		io.WriteString(w, "whole")
	}), func(t *testing.T, h house, _ spoken, c *http.Client, stop func() error) {
		got := make(chan string, 1)
		go func() { got <- ask(t, c, "http://b/", "") }()
		<-asked
		stopped := make(chan error, 1)
		go func() { stopped <- stop() }()
		for { // until the server takes no more
			other, err := h.links["a"].Dial(t.Context(), "b", HTTP)
			other2, err2 := h.links["a"].Dial(t.Context(), "b", HTTP2)
			if err != nil && err2 != nil {
				break
			}
			for _, o := range []Conn{other, other2} {
				if o != nil {
					o.Close()
				}
			}
		}
		answer <- struct{}{}
		if got := <-got; got != "whole" {
			t.Errorf("the open request got %q, want it whole", got)
		}
		if err := <-stopped; err != nil {
			t.Error(err)
		}
	})
}

// TestSilentPeerIsFoundByPing: within three seconds of silence an open HTTP/2 request fails.
func TestSilentPeerIsFoundByPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() {
			done <- ServeHTTP2(ctx, h.links["b"], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(200)
				w.(http.Flusher).Flush()
				<-r.Context().Done()
			}), nil)
		}()
		synctest.Wait()
		tr := HTTP2Transport(h.links["a"])
		r, err := (&http.Client{Transport: tr}).Get("http://b/watch")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // pings keep it open
		began := time.Now()
		h.links["b"].Fault("a", Fault{Cut: true})
		if _, err := io.ReadAll(r.Body); err == nil {
			t.Error("the watch ended without an error")
		}
		if got, most := time.Since(began), pingAfter+pingFor; got > most {
			t.Errorf("found after %v, want %v at most", got, most)
		}
		r.Body.Close()
		tr.CloseIdleConnections()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestHTTP2ComesBack: the one connection of a pair is replaced after every kind of end.
func TestHTTP2ComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := NewHub()
		defer hub.Close()
		a := hub.Link(id("a"))
		tr := HTTP2Transport(a)
		defer tr.CloseIdleConnections()
		c := &http.Client{Transport: tr}
		start := func() (stop func()) {
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			b := hub.Link(id("b"))
			go func() {
				done <- ServeHTTP2(ctx, b, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil)
			}()
			synctest.Wait()
			return func() { cancel(); <-done }
		}
		for name, end := range map[string]func(stop func()){
			"clean": func(stop func()) { stop() },
			"kill":  func(stop func()) { hub.Kill("b"); stop() },
			"refused a while": func(stop func()) {
				hub.Kill("b")
				for range 5 {
					if _, err := c.Get("http://b/"); err == nil {
						t.Error("a dead node answered")
					}
				}
				stop()
			},
			"cut": func(stop func()) {
				a.Fault("b", Fault{Cut: true})
				ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
				defer cancel()
				r, _ := http.NewRequestWithContext(ctx, "GET", "http://b/", nil)
				if _, err := c.Do(r); err == nil {
					t.Error("a node that is cut off answered")
				}
				a.Fault("b", Fault{})
				stop()
			},
		} {
			stop := start()
			for range 3 {
				ask(t, c, "http://b/", name)
			}
			end(stop)
			stop = start()
			ask(t, c, "http://b/", name)
			stop()
		}
		if got := a.Counters()[0]; got.Open > 1 {
			t.Errorf("%d connections are open", got.Open)
		}
	})
}

// TestDialOfAPoolIsBounded: net/http dials on when a request is given up; a cut must not pile up dials.
func TestDialOfAPoolIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := memories(t, nil)
		h.links["a"].Fault("b", Fault{Cut: true})
		began := time.Now()
		tr := HTTPTransport(h.links["a"], HTTPOptions{Dial: 3 * time.Second})
		_, err := (&http.Client{Transport: tr}).Get("http://b/")
		if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("Get() = %v after %v, want the dial's bound, 3s", err, time.Since(began))
		}
	})
}

func TestPanicsAreLogged(t *testing.T) {
	h := memories(t, nil)
	log := make(lines, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan error, 1)
	go func() {
		done <- ServeHTTP1(ctx, announced{h.links["b"], ready}, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
			panic("spilled")
		}), slog.New(slog.NewTextHandler(log, nil)))
	}()
	<-ready
	if _, err := (&http.Client{Transport: HTTPTransport(h.links["a"], HTTPOptions{})}).Get("http://b/"); err == nil {
		t.Error("a panic was answered")
	}
	if got := <-log; !strings.Contains(got, "spilled") || !strings.Contains(got, "node=b") {
		t.Errorf("logged %q", got)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
