package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// hurried has the engine lose patience soon. It is called before anybody connects.
func hurried(f *fleet) {
	for _, n := range f.nodes {
		n.sw.headFor, n.sw.moveFor = 300*time.Millisecond, 300*time.Millisecond
	}
}

// A client that sends a byte now and then does not keep its place for ever.
func TestSlowLoris(t *testing.T) {
	if reference {
		t.Skip("net/http has no deadline for bodies")
	}
	f := newFleet(t, 1)
	hurried(f)
	var got seen
	f.run("node-1", 1, &got)
	addr := strings.TrimPrefix(f.door("node-1"), "http://")
	cases := []struct {
		name, begin, drip, want string
	}{
		{"in the head", "GET / HTTP/1.1\r\nHost: x\r\n", "X-A: 1\r\n", "408"},
		{"in a small body", post + "Content-Length: 1000\r\n\r\nabc", "", "408"},
		{"in a long body", post + "Content-Length: 1000000\r\n\r\nabc", "", "408"},
		{"in chunks", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nabc", "", "408"},
		{"in trailers", post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-", "", "408"},
		{"with nothing", "", "", ""},
	}
	one := func(begin, drip, want string) func(*testing.T) {
		return func(t *testing.T) {
			t.Parallel()
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, begin)
			stop := make(chan struct{})
			var wg sync.WaitGroup
			wg.Go(func() {
				tick := time.NewTicker(20 * time.Millisecond)
				defer tick.Stop()
				for drip != "" {
					select {
					case <-stop:
						return
					case <-tick.C:
						_, _ = io.WriteString(conn, drip)
					}
				}
			})
			answer, _ := io.ReadAll(conn) // returns
			close(stop)
			wg.Wait()
			if !strings.HasPrefix(string(answer), strings.TrimSuffix("HTTP/1.1 "+want, "HTTP/1.1 ")) || want == "" && len(answer) > 0 {
				t.Errorf("got %.60q, want %s", answer, want)
			}
		}
	}
	t.Run("all", func(t *testing.T) {
		for _, tt := range cases {
			t.Run(tt.name, one(tt.begin, tt.drip, tt.want))
		}
	})
	if whole := got.take(); whole != "" {
		t.Errorf("the program got %q", whole)
	}
}

// After all sorts of abuse nothing is left: no goroutine, no request in flight, no connection to the program.
func TestNothingIsKeptAfterAbuse(t *testing.T) {
	f := newFleet(t, 1)
	hurried(f)
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for buf := make([]byte, 64<<10); ; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		case "/long":
			w.Header().Set("Content-Length", fmt.Sprint(64<<20))
			for buf := make([]byte, 64<<10); ; {
				if _, err := w.Write(buf); err != nil {
					return
				}
			}
		case "/hang":
			if _, err := io.Copy(io.Discard, r.Body); err == nil { // net/http's server looks after its client from then on
				<-r.Context().Done()
			}
		default:
			_, _ = io.Copy(io.Discard, r.Body)
		}
	}))
	door := f.door("node-1")
	addr := strings.TrimPrefix(door, "http://")
	c := client(t)
	ask(t, c, "GET", door, nil)
	c.CloseIdleConnections()
	n := f.nodes["node-1"].sw
	eventually(t, "nothing idle", func() bool { n.near.mu.Lock(); defer n.near.mu.Unlock(); return len(n.near.idle) == 0 })
	runtime.GC()
	before := runtime.NumGoroutine()

	var clients sync.WaitGroup
	abuse := func(request string, after func(*net.TCPConn)) {
		clients.Go(func() {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			_, _ = io.WriteString(conn, request)
			after(conn.(*net.TCPConn))
		})
	}
	wait := func(c *net.TCPConn) { // without reading, until the door has had enough
		if reference {
			return // it never has
		}
		for range 200 {
			time.Sleep(10 * time.Millisecond)
			if _, err := c.Write(nil); err != nil {
				return
			}
		}
	}
	rst := func(c *net.TCPConn) { _ = c.SetLinger(0) }
	half := func(c *net.TCPConn) { _ = c.CloseWrite(); _, _ = io.Copy(io.Discard, c) }
	some := func(c *net.TCPConn) { _, _ = io.ReadFull(c, make([]byte, 100<<10)); _ = c.SetLinger(0) }
	for range 10 {
		for _, request := range []string{
			"", "GET / HT", "GET / HTTP/1.1\r\nHost: x\r\n", "\x00\x01\x02\r\n\r\n",
			post + "Content-Length: 10\r\n\r\nabc", post + "Content-Length: 1000000\r\n\r\nabc", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
			"GET /hang HTTP/1.1\r\nHost: x\r\n\r\n", "POST /hang HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
			"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n", "GET /long HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
			strings.Repeat("GET /hang HTTP/1.1\r\nHost: x\r\n\r\n", 50),
		} {
			abuse(request, rst)
			if !strings.Contains(request, "/endless") && !strings.Contains(request, "/long") {
				abuse(request, half)
			}
			if strings.Contains(request, "/endless") || strings.Contains(request, "/long") {
				abuse(request, some)
				abuse(request, wait)
			}
		}
	}
	clients.Wait()
	eventually(t, "nothing in flight", func() bool {
		return n.Inflight("api/1") == 0 && n.loads.Of("api/1", time.Now(), n.table()).Inflight == 0
	})
	left := 0
	defer func() {
		if t.Failed() {
			buf := make([]byte, 1<<20)
			t.Logf("%d goroutines, %d before\n%.8000s", left, before, buf[:runtime.Stack(buf, true)])
		}
	}()
	eventually(t, "no goroutine more than before", func() bool { left = runtime.NumGoroutine(); return left <= before+2 })
	if res, _ := ask(t, c, "GET", door, nil); res.StatusCode != 200 {
		t.Errorf("afterwards: %d", res.StatusCode)
	}
}

// An idle connection has no buffer.
func TestIdleConnectionsAreSmall(t *testing.T) {
	if reference {
		t.Skip("net/http keeps two buffers for each")
	}
	const conns = 400
	f := newFleet(t, 1)
	f.run("node-1", 1, text("ok"))
	addr := strings.TrimPrefix(f.door("node-1"), "http://")
	var all []net.Conn
	defer func() {
		for _, c := range all {
			c.Close()
		}
	}()
	measure := func() uint64 {
		runtime.GC()
		runtime.GC() // pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc + m.StackInuse
	}
	one := func() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	one()
	before := measure()
	for range conns {
		one()
	}
	each := (int64(measure()) - int64(before)) / conns
	t.Logf("%d bytes a connection, both ends", each)
	if each > 16<<10 {
		t.Errorf("%d bytes an idle connection, both ends; want 16 KiB at most", each)
	}
}
