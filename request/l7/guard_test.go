package l7

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httputil"
	"strings"
	"testing"
)

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
