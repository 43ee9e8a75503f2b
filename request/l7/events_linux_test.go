package l7

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"servent/driver"
	"servent/route"
)

// lone is a fleet of one node whose doors are served by events, as long as the machines themselves are what is tested.
func lone(t *testing.T, h http.Handler, change ...func(*Options)) (*fleet, string) {
	if reference || model != route.ModelEvents {
		t.Skip("not by events")
	}
	f := newFleet(t, 1, change...)
	if h != nil {
		f.run("node-1", 1, h)
	}
	return f, strings.TrimPrefix(f.door("node-1"), "http://")
}

// machines are how many connections loops have, and how many of theirs goroutines have for now.
func machines(s *Switch) (own, lent int) {
	s.loops.each(func(l *loop) {
		for _, k := range l.sockets {
			if k != nil {
				if _, ok := k.owner.(*machine); ok {
					own++
				}
			}
		}
		lent += int(l.lent.Load())
	})
	return own, lent
}

// Of connections that wait, none has a goroutine, and each little memory.
func TestIdleMachinesAreSmall(t *testing.T) {
	const conns = 2000
	f, addr := lone(t, text("ok"))
	clients := make([]net.Conn, 0, conns)
	defer func() {
		for _, c := range clients {
			c.Close()
		}
	}()
	measure := func() (memory, goroutines int) {
		runtime.GC()
		runtime.GC() // pools
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int(m.HeapAlloc + m.StackInuse), runtime.NumGoroutine()
	}
	ask := func(c net.Conn) {
		t.Helper()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		res, err := http.ReadResponse(bufio.NewReaderSize(c, 512), nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(res.Body); string(body) != "ok" {
			t.Fatalf("got %q", body)
		}
	}
	one := func() {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		clients = append(clients, c)
		ask(c)
	}
	one()
	before, threads := measure()
	for range conns - 1 {
		one()
	}
	after, now := measure()
	own, lent := machines(f.nodes["node-1"].sw)
	if own != conns || lent != 0 {
		t.Errorf("%d connections are machines and %d are lent, want %d and none", own, lent, conns)
	}
	if now > threads+20 {
		t.Errorf("%d goroutines, %d before %d connections", now, threads, conns)
	}
	each := (after - before) / conns
	t.Logf("%d bytes a connection, both ends", each)
	if each > 3<<10 {
		t.Errorf("%d bytes an idle connection, both ends; want 3 KiB at most", each)
	}
	for _, c := range clients[:10] {
		ask(c)
	}
}

// What a machine cannot do a goroutine does; then the connection comes back.
func TestHandedOverAndBack(t *testing.T) {
	f, addr := lone(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		switch r.URL.Path {
		case "/long":
			w.Header().Set("Content-Length", fmt.Sprint(2*replay))
			_, _ = w.Write(make([]byte, 2*replay))
		case "/slow":
			for range 3 {
				fmt.Fprint(w, "piece ")
				_ = http.NewResponseController(w).Flush()
				time.Sleep(2 * patience)
			}
		default:
			fmt.Fprint(w, n)
		}
	}))
	s := f.nodes["node-1"].sw
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	r := bufio.NewReader(c)
	for range 3 {
		for _, tt := range []struct {
			name, request string
			length        int
		}{
			{"small", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", 1},
			{"in chunks", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", 1},
			{"a long body", post + fmt.Sprintf("Content-Length: %d\r\n\r\n", 2*replay) + strings.Repeat("x", 2*replay), len(fmt.Sprint(2 * replay))},
			{"awaited", post + "Expect: 100-continue\r\nContent-Length: 3\r\n\r\nabc", 1},
			{"a long answer", "GET /long HTTP/1.1\r\nHost: x\r\n\r\n", 2 * replay},
			{"a slow answer", "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n", 18},
			{"two at once", "GET / HTTP/1.1\r\nHost: x\r\n\r\n" + post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1},
			{"a small body", post + "Content-Length: 3\r\n\r\nabc", 1},
		} {
			go func() { _, _ = io.WriteString(c, tt.request) }()
			for range 1 + strings.Count(tt.name, "two") {
				res, err := http.ReadResponse(r, nil)
				for err == nil && res.StatusCode == http.StatusContinue {
					res, err = http.ReadResponse(r, nil)
				}
				if err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				if body, err := io.ReadAll(res.Body); err != nil || len(body) != tt.length || res.StatusCode != 200 {
					t.Errorf("%s: %d, %d bytes, %v, want %d", tt.name, res.StatusCode, len(body), err, tt.length)
				}
			}
			eventually(t, tt.name+": the connection is a machine again", func() bool { own, lent := machines(s); return own == 1 && lent == 0 })
		}
	}
}

// A plan that changes its mind is followed by connections that are open.
func TestModelChanges(t *testing.T) {
	f, addr := lone(t, text("ok"))
	s := f.nodes["node-1"].sw
	c := client(t)
	for i, want := range []int{1, 0, 1} {
		f.change(func() {
			f.service("api").Switch.Model = "threads"
			if want > 0 {
				f.service("api").Switch.Model = route.ModelEvents
			}
		})
		if res, body := ask(t, c, "GET", "http://"+addr, nil); res.StatusCode != 200 || body != "ok" {
			t.Errorf("step %d: %d %s", i, res.StatusCode, body)
		}
		eventually(t, fmt.Sprintf("step %d: %d machines", i, want), func() bool { own, _ := machines(s); return own == want })
	}
}

// Nothing keeps a file: not clients that leave, not instances that refuse, end or are asked again, not what was handed over.
func TestNoFileIsKept(t *testing.T) {
	f, addr := lone(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			panic(http.ErrAbortHandler)
		case "/half":
			w.Header().Set("Content-Length", "1000")
			fmt.Fprint(w, "half")
		case "/last":
			w.Header().Set("Connection", "close")
		}
		_, _ = io.Copy(io.Discard, r.Body)
	}))
	f.place("node-1", 2, driver.Endpoint{Address: refusing(t)})
	files := func() int {
		all, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	round := func() {
		for _, request := range []string{"", "GET", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET /cut HTTP/1.1\r\nHost: x\r\n\r\n", "GET /half HTTP/1.1\r\nHost: x\r\n\r\n",
			"GET /last HTTP/1.1\r\nHost: x\r\n\r\n", post + "Content-Length: 9\r\n\r\nabc", post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "\n\n"} {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, request)
			_ = c.(*net.TCPConn).CloseWrite()
			_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
			if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
				t.Errorf("%.20q: the door keeps the connection", request)
			}
			c.Close()
		}
	}
	round()
	before := files()
	for range 20 {
		round()
	}
	left := 0
	eventually(t, "no file more than before", func() bool { left = files(); return left <= before+1 })
	if n := f.nodes["node-1"].sw.Inflight("api/1"); n != 0 {
		t.Errorf("%d requests in flight", n)
	}
}

// refusing is an address that nobody listens on.
func refusing(t *testing.T) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
