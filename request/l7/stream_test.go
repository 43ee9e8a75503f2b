package l7

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"servent/driver"
	"servent/system"
)

// both runs a test with the instance on the door's node and on another.
func both(t *testing.T, h http.Handler, test func(t *testing.T, f *fleet, door string)) {
	for name, node := range map[string]system.NodeID{"local": "node-1", "remote": "node-2"} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2)
			f.run(node, 1, h)
			test(t, f, f.door("node-1"))
		})
	}
}

// echo switches to a protocol that sends everything back, and says goodbye at the end.
var echo = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	if r.Header.Get("Upgrade") != "echo" {
		http.Error(w, "want Upgrade: echo", http.StatusBadRequest)
		return
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprint(buf, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\nX-Program: yes\r\n\r\nhello ")
	_ = buf.Flush()
	_, _ = io.Copy(conn, buf)
	_, _ = io.WriteString(conn, " bye")
})

func dialEcho(t *testing.T, door string) (*net.TCPConn, *bufio.Reader, *http.Response) {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(door, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: echo\r\n\r\n")
	r := bufio.NewReader(conn)
	res, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	return conn.(*net.TCPConn), r, res
}

func TestUpgrade(t *testing.T) {
	both(t, echo, func(t *testing.T, f *fleet, door string) {
		conn, r, res := dialEcho(t, door)
		if res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" || res.Header.Get("X-Program") != "yes" || !strings.Contains(res.Header.Get("Server-Timing"), `"api/1"`) {
			t.Fatalf("got %d %v", res.StatusCode, res.Header)
		}
		// What follows is no HTTP, and longer than any buffer.
		long := strings.Repeat("GET / HTTP/9\n\x00", 20000)
		var writing sync.WaitGroup
		writing.Go(func() {
			_, _ = io.WriteString(conn, long)
			_ = conn.CloseWrite() // the program still answers after our end
		})
		got, err := io.ReadAll(r)
		writing.Wait()
		if want := "hello " + long + " bye"; err != nil || string(got) != want {
			t.Errorf("got %d bytes, %v, want %d", len(got), err, len(want))
		}
		n := f.nodes["node-1"]
		eventually(t, "nothing in flight", func() bool { return n.sw.Inflight("api/1") == 0 && n.meter.Snapshot()[0].Requests == 1 })
		row := n.meter.Snapshot()[0]
		if row.In != int64(len(long)) || row.Out != int64(len(long)+10) || row.Errors != 0 {
			t.Errorf("counted %+v", row)
		}
		if res, _ := ask(t, client(t), "GET", door, nil); res.StatusCode != 400 {
			t.Errorf("without Upgrade: %d, want the program's 400", res.StatusCode)
		}
	})
}

func TestUpgradedConnectionsEnd(t *testing.T) {
	ended := func(r io.Reader) { _, _ = io.ReadAll(r) } // returns; FIN and RST are both an end
	t.Run("with the node", func(t *testing.T) {
		f := newFleet(t, 2)
		f.run("node-2", 1, echo)
		_, r, _ := dialEcho(t, f.door("node-1"))
		f.lose("node-2")
		ended(r)
	})
	t.Run("with the program", func(t *testing.T) {
		f := newFleet(t, 2)
		p := f.run("node-1", 1, echo)
		_, r, _ := dialEcho(t, f.door("node-1"))
		p.kill()
		ended(r)
	})
	t.Run("with the switch", func(t *testing.T) {
		f := newFleet(t, 1)
		f.run("node-1", 1, echo)
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		sw := f.nodes["node-1"].sw
		go func() { done <- sw.Serve(ctx, ln, sw.Door("api")) }()
		_, r, _ := dialEcho(t, "http://"+ln.Addr().String())
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Serve() = %v", err)
		}
		if n := sw.Inflight("api/1"); n != 0 {
			t.Errorf("%d in flight after Serve returned", n)
		}
		ended(r)
	})
}

func TestServeFinishesOpenRequests(t *testing.T) {
	f := newFleet(t, 1)
	began, finish := make(chan bool), make(chan bool)
	f.run("node-1", 1, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		began <- true
		<-finish
		_, _ = io.WriteString(w, "whole")
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	sw := f.nodes["node-1"].sw
	done, got := make(chan error, 1), make(chan string, 1)
	go func() { done <- sw.Serve(ctx, ln, sw.Door("api")) }()
	go func() { _, body := ask(t, client(t), "GET", "http://"+ln.Addr().String(), nil); got <- body }()
	<-began
	cancel()
	eventually(t, "no new connections", func() bool {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	close(finish)
	if body := <-got; body != "whole" {
		t.Errorf("the open request got %q", body)
	}
	if err := <-done; err != nil {
		t.Errorf("Serve() = %v", err)
	}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	if err := sw.Serve(t.Context(), closed, nil); err == nil {
		t.Error("Serve on a closed listener = nil, want an error")
	}
}

func TestTrailers(t *testing.T) {
	for _, size := range []int{0, 10, 3 * replay} {
		both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			h := w.Header()
			h.Set("Trailer", "X-Sum, X-Asked")
			_, _ = w.Write(make([]byte, size))
			_ = http.NewResponseController(w).Flush()
			h.Set("X-Sum", fmt.Sprint(len(body)))
			h.Set("X-Asked", r.Trailer.Get("X-Mine"))
			h.Set(http.TrailerPrefix+"X-Late", "late")
		}), func(t *testing.T, f *fleet, door string) {
			r, err := http.NewRequestWithContext(t.Context(), "PUT", door, struct{ io.Reader }{strings.NewReader("12345")})
			if err != nil {
				t.Fatal(err)
			}
			r.Trailer = http.Header{"X-Mine": {"asked"}}
			res, err := client(t).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			n, err := io.Copy(io.Discard, res.Body)
			if err != nil || n != int64(size) {
				t.Errorf("%d bytes, %v, want %d", n, err, size)
			}
			want := http.Header{"X-Sum": {"5"}, "X-Asked": {"asked"}, "X-Late": {"late"}}
			if diff := cmp.Diff(want, res.Trailer); diff != "" {
				t.Errorf("trailers (-want +got):\n%s", diff)
			}
		})
	}
}

func TestEarlyHints(t *testing.T) {
	both(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "</a.css>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Del("Link")
		_, _ = io.WriteString(w, "body")
	}), func(t *testing.T, f *fleet, door string) {
		var hints []string
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			hints = append(hints, fmt.Sprint(code, " ", h.Get("Link")))
			return nil
		}})
		r, _ := http.NewRequestWithContext(ctx, "GET", door, nil)
		res, err := client(t).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if want := []string{"103 </a.css>; rel=preload"}; !cmp.Equal(hints, want) || res.Header.Get("Link") != "" {
			t.Errorf("hints %q, final Link %q, want %q and none", hints, res.Header.Get("Link"), want)
		}
	})
}

// Every piece of a stream arrives before the next is made.
func TestStreaming(t *testing.T) {
	for _, kind := range []string{"text/event-stream", "text/plain"} {
		next := make(chan bool)
		both(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", kind)
			flush := http.NewResponseController(w).Flush
			_ = flush() // the head alone
			for i := range 3 {
				<-next
				fmt.Fprintf(w, "data: %d\n\n", i)
				_ = flush()
			}
		}), func(t *testing.T, f *fleet, door string) {
			res, err := client(t).Get(door)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			r := bufio.NewReader(res.Body)
			for i := range 3 {
				next <- true
				got, err := r.ReadString('\n')
				if want := fmt.Sprintf("data: %d\n", i); got != want || err != nil {
					t.Fatalf("got %q, %v, want %q", got, err, want)
				}
				_, _ = r.ReadString('\n')
			}
			if rest, err := io.ReadAll(r); len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
		})
	}
}

// The answer comes while the request's body is still being sent.
func TestFullDuplex(t *testing.T) {
	letters := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		_ = rc.EnableFullDuplex()
		_ = rc.Flush()
		buf := make([]byte, 1)
		for {
			if _, err := r.Body.Read(buf); err != nil {
				return
			}
			_, _ = w.Write(buf)
			_ = rc.Flush()
		}
	})
	test := func(t *testing.T, _ *fleet, door string) {
		for range 5 {
			pr, pw := io.Pipe()
			r, _ := http.NewRequestWithContext(t.Context(), "POST", door, pr)
			res, err := client(t).Do(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, b := range []byte("ping") {
				_, _ = pw.Write([]byte{b})
				got := make([]byte, 1)
				if _, err := io.ReadFull(res.Body, got); err != nil || got[0] != b {
					t.Fatalf("got %q, %v, want %q", got, err, b)
				}
			}
			pw.Close()
			if rest, err := io.ReadAll(res.Body); len(rest) > 0 || err != nil {
				t.Errorf("then %q, %v", rest, err)
			}
			res.Body.Close()
		}
	}
	both(t, letters, test)
	t.Run("inside, remote", func(t *testing.T) {
		f := newFleet(t, 2)
		f.place("node-2", 1, driver.Endpoint{Handler: letters})
		test(t, f, f.door("node-1"))
	})
}

// Nobody reads a request's body once its exchange is over: net/http reads the next request there.
func TestStreamEnds(t *testing.T) {
	b := &stream{body: strings.NewReader("ab"), turn: make(chan struct{}, 1)}
	if n, err := b.Read(make([]byte, 1)); n != 1 || err != nil {
		t.Fatalf("Read() = %d, %v", n, err)
	}
	b.end(nil)
	if n, err := b.Read(make([]byte, 1)); n != 0 || err != http.ErrBodyReadAfterClose {
		t.Errorf("after the end: Read() = %d, %v, want nothing", n, err)
	}
}

// An answer before the body was sent ends the exchange; the client's next request gets a new connection.
func TestAnswerBeforeTheBody(t *testing.T) {
	both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "PUT" {
			_ = http.NewResponseController(w).EnableFullDuplex() // else net/http reads the body first
			http.Error(w, "too large", http.StatusRequestEntityTooLarge)
		}
	}), func(t *testing.T, f *fleet, door string) {
		conn, err := net.Dial("tcp", strings.TrimPrefix(door, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n") // and no more
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			t.Errorf("got %d, want 413", res.StatusCode)
		}
		n := f.nodes["node-1"].sw
		eventually(t, "the exchange has ended", func() bool { return n.Inflight("api/1") == 0 })
		ask(t, client(t), "GET", door, nil)
	})
}

func TestExpectContinue(t *testing.T) {
	both(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/no" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		n, _ := io.Copy(io.Discard, r.Body)
		fmt.Fprint(w, fmt.Sprint(n, r.Header["Expect"]))
	}), func(t *testing.T, f *fleet, door string) {
		for _, tt := range []struct {
			path   string
			size   int
			status string
		}{{"/", 5, "100"}, {"/", 2 * replay, "100"}, {"/no", 2 * replay, "403"}} {
			conn, err := net.Dial("tcp", strings.TrimPrefix(door, "http://"))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(conn, "PUT %s HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: %d\r\n\r\n", tt.path, tt.size)
			r := textproto.NewReader(bufio.NewReader(conn))
			line, err := r.ReadLine()
			if !strings.HasPrefix(line, "HTTP/1.1 "+tt.status) {
				t.Errorf("%s with %d bytes: %q, %v, want %s before the body", tt.path, tt.size, line, err, tt.status)
			}
			if tt.status == "100" {
				_, _ = r.ReadLine()
				_, _ = conn.Write(make([]byte, tt.size))
				res, err := http.ReadResponse(r.R, nil)
				if err != nil {
					t.Fatal(err)
				}
				body, _ := io.ReadAll(res.Body)
				want := fmt.Sprint(tt.size) + " []" // we have said "continue" for a body that we read ourselves
				if tt.size <= replay && string(body) != want || !strings.HasPrefix(string(body), fmt.Sprint(tt.size)) {
					t.Errorf("the program read %q, want %q", body, want)
				}
			}
			conn.Close()
		}
	})
}
