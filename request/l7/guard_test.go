package l7

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
)

// raw sends bytes to a door and returns all that comes back, in full, and what reached the program.
func raw(t *testing.T, addr, request string) string {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	answer, _ := http.ReadResponse(bufio.NewReader(conn), nil)
	if answer == nil {
		return "closed"
	}
	return answer.Status
}

func TestSmuggling(t *testing.T) {
	const rest = "\r\nConnection: close\r\n\r\n"
	for _, tt := range []struct {
		name, request, want string
		reaches             bool
	}{
		{"plain", "GET / HTTP/1.1\r\nHost: x" + rest, "200 OK", true},
		{"plain 1.0", "GET / HTTP/1.0\r\n\r\n", "200 OK", true},
		{"length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3" + rest + "abc", "200 OK", true},
		{"chunked", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked" + rest + "3;a=b\r\nabc\r\n0\r\nX-T: 1\r\n\r\n", "200 OK", true},
		{"empty value, absolute target", "GET http://x/a?b HTTP/1.1\r\nHost: x\r\nX-Empty:" + rest, "200 OK", true},
		{"length and coding", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked" + rest + "0\r\n\r\n", "400", false},
		{"coding and length", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 3" + rest + "0\r\n\r\n", "400", false},
		{"two lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 4" + rest + "abcd", "400", false},
		{"one length twice", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nContent-Length: 3" + rest + "abc", "400", false},
		{"list of lengths", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3, 3" + rest + "abc", "400", false},
		{"signed length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +3" + rest + "abc", "400", false},
		{"negative length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -3" + rest + "abc", "400", false},
		{"hexadecimal length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x3" + rest + "abc", "400", false},
		{"no length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length:" + rest, "400", false},
		{"huge length", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999" + rest, "400", false},
		{"unknown coding", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked" + rest + "0\r\n\r\n", "400", false},
		{"two codings", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked" + rest + "0\r\n\r\n", "400", false},
		{"coding twice", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked" + rest + "0\r\n\r\n", "400", false},
		{"coding under 1.0", "POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "0\r\n\r\n", "400", false},
		{"space before the colon", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked" + rest + "0\r\n\r\n", "400", false},
		{"folded header", "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\r\n Transfer-Encoding: chunked" + rest, "400", false},
		{"bare LF", "GET / HTTP/1.1\nHost: x\n\n", "400", false},
		{"one bare LF", "GET / HTTP/1.1\r\nHost: x\nX-A: 1" + rest, "400", false},
		{"bare CR", "GET / HTTP/1.1\r\nHost: x\r\nX-A: 1\rX-B: 2" + rest, "400", false},
		{"NUL", "GET / HTTP/1.1\r\nHost: x\r\nX-A: \x00" + rest, "400", false},
		{"no host", "GET / HTTP/1.1" + rest, "400", false},
		{"two hosts", "GET / HTTP/1.1\r\nHost: x\r\nHost: y" + rest, "400", false},
		{"no name", "GET / HTTP/1.1\r\nHost: x\r\n: y" + rest, "400", false},
		{"no colon", "GET / HTTP/1.1\r\nHost: x\r\nX-A" + rest, "400", false},
		{"two spaces", "GET  / HTTP/1.1\r\nHost: x" + rest, "400", false},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "400", false},
		{"no version", "GET /\r\n\r\n", "400", false},
		{"head too long", "GET / HTTP/1.1\r\nHost: x\r\nX-A: " + strings.Repeat("a", maxScan) + rest, "431", false},
		// The faults of a body are found while it is on its way; the program may see its beginning, never its end.
		{"LF in a chunk's extension", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "3;a\nb\r\nabc\r\n0\r\n\r\n", "400", false},
		{"chunk too long", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "3\r\nabcd\r\n0\r\n\r\n", "400", false},
		{"negative chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "-3\r\nabc\r\n0\r\n\r\n", "400", false},
		{"huge chunk", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "fffffffffffffffff\r\nabc\r\n0\r\n\r\n", "400", false},
		{"folded trailer", "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked" + rest + "0\r\n X: 1\r\n\r\n", "400", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFleet(t, 1)
			whole := make(chan bool, 1)
			f.run("node-1", 1, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err != nil {
					panic(http.ErrAbortHandler)
				}
				whole <- true
			}))
			got := raw(t, strings.TrimPrefix(f.door("node-1"), "http://"), tt.request)
			if !strings.HasPrefix(got, tt.want) {
				t.Errorf("got %s, want %s", got, tt.want)
			}
			if reached := len(whole) > 0; reached != tt.reaches {
				t.Errorf("reached the program whole: %v, want %v", reached, tt.reaches)
			}
		})
	}
}

// A fault in a request that follows another on the same connection does not harm the first.
func TestSmugglingInAPipeline(t *testing.T) {
	f := newFleet(t, 1)
	p := f.run("node-1", 1, text("ok"))
	conn, err := net.Dial("tcp", strings.TrimPrefix(f.door("node-1"), "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /1 HTTP/1.1\r\nHost: x\r\n\r\nPOST /2 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nabPOST /3 HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
	r := bufio.NewReader(conn)
	for _, want := range []int{200, 200, 400} {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		if res.StatusCode != want {
			t.Errorf("got %d, want %d", res.StatusCode, want)
		}
	}
	if n := p.hits.Load(); n != 2 {
		t.Errorf("the program saw %d requests, want 2", n)
	}
}

// What the guard lets through, net/http cuts into the same messages; how the bytes arrive does not matter.
func FuzzGuard(f *testing.F) {
	for _, s := range []string{
		"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET / HTTP/1.0\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3;x=\"y\"\r\nabc\r\n000\r\nX: 1\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 1\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
	} {
		f.Add([]byte(s), uint8(7))
	}
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		var once, bits scanner
		good, err := once.feed(data)
		at, bitErr := 0, error(nil)
		for p := data; len(p) > 0 && bitErr == nil; {
			n := min(len(p), int(step)+1)
			var g int
			g, bitErr = bits.feed(p[:n])
			at, p = at+g, p[n:]
		}
		if at != good || (err == nil) != (bitErr == nil) || once.whole != bits.whole {
			t.Fatalf("whole: %d good, %d messages, %v; in steps of %d: %d, %d, %v", good, once.whole, err, step+1, at, bits.whole, bitErr)
		}
		// Where does net/http end its messages?
		src := bytes.NewReader(data[:good])
		br := bufio.NewReader(src)
		var s scanner
		fed, theirs := 0, 0
		for {
			r, err := http.ReadRequest(br)
			if err != nil {
				break // it may refuse more than we do
			}
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				break
			}
			theirs++
			end := good - src.Len() - br.Buffered()
			if _, err := s.feed(data[fed:end]); err != nil {
				t.Fatal(err)
			}
			if fed = end; s.whole != theirs || s.at != inLine || len(s.line) > 0 {
				t.Fatalf("net/http ends message %d at byte %d of %q, we have %d whole", theirs, end, data[:good], s.whole)
			}
		}
	})
}

func BenchmarkGuard(b *testing.B) {
	request := []byte("GET /api/items/17?full=1 HTTP/1.1\r\nHost: shop.example.org\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\nCookie: session=0123456789abcdef0123456789abcdef\r\n\r\n")
	var s scanner
	b.SetBytes(int64(len(request)))
	for b.Loop() {
		if _, err := s.feed(request); err != nil {
			b.Fatal(err)
		}
	}
}

// benchmark makes small keep-alive requests through h.
func benchmark(b *testing.B, url string) {
	c := client(b)
	b.ReportAllocs()
	for b.Loop() {
		res, err := c.Get(url)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		res.Body.Close()
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
}

// BenchmarkSwitch compares the program alone, through httputil.ReverseProxy, and through doors.
func BenchmarkSwitch(b *testing.B) {
	f := newFleet(b, 2)
	p := f.run("node-1", 1, text(strings.Repeat("x", 1024)))
	b.Run("direct", func(b *testing.B) { benchmark(b, "http://"+p.addr) })
	b.Run("reverseproxy", func(b *testing.B) {
		transport := &http.Transport{MaxIdleConnsPerHost: 100, DisableCompression: true}
		defer transport.CloseIdleConnections()
		benchmark(b, f.open("node-1", &httputil.ReverseProxy{Transport: transport, Rewrite: func(r *httputil.ProxyRequest) { r.Out.URL.Scheme, r.Out.URL.Host = "http", p.addr }}))
	})
	local, remote := f.door("node-1"), f.door("node-2")
	b.Run("local", func(b *testing.B) { benchmark(b, local) })
	b.Run("remote", func(b *testing.B) { benchmark(b, remote) })
}
