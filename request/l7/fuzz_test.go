package l7

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// script is a connection whose other side says what stands in it and then ends its half.
type script struct {
	in     *bytes.Reader
	step   int
	mu     sync.Mutex
	closed bool
	gone   chan struct{}
}

func (s *script) Read(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, net.ErrClosed
	}
	return s.in.Read(p[:min(len(p), s.step)])
}

func (s *script) Write(p []byte) (int, error) { return len(p), nil }

func (s *script) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.closed = true
		close(s.gone)
	}
	return nil
}

func (s *script) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1} }
func (s *script) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 2} }
func (s *script) SetDeadline(time.Time) error      { return nil }
func (s *script) SetReadDeadline(time.Time) error  { return nil }
func (s *script) SetWriteDeadline(time.Time) error { return nil }

// once is a listener with one connection.
type once struct {
	c    chan net.Conn
	done chan struct{}
}

func (l *once) Accept() (net.Conn, error) {
	select {
	case c := <-l.c:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *once) Close() error {
	select {
	case <-l.done:
	default:
		close(l.done)
	}
	return nil
}

func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

// requests returns what a door makes of bytes: each request that came whole, and what the instance would be sent.
func requests(t *testing.T, s *Switch, data []byte, step int) (got []string) {
	var mu sync.Mutex
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Header.Del("Transfer-Encoding")
		r.Header.Del("Trailer")
		if len(r.Header["Pragma"]) > 0 {
			r.Header.Del("Cache-Control") // net/http adds one
		}
		text := fmt.Sprintf("%s %s %q %q body %q trailer", r.Method, r.RequestURI, r.Host, r.Header, body)
		for _, name := range slices.Sorted(maps.Keys(r.Trailer)) {
			text += fmt.Sprintf(" %s:%q", name, r.Trailer[name])
		}
		if r.Method != http.MethodConnect && !s.o.Reference {
			onwards(t, s, w, r, body)
		}
		mu.Lock()
		got = append(got, text)
		mu.Unlock()
	})
	c := &script{in: bytes.NewReader(data), step: step, gone: make(chan struct{})}
	l := &once{c: make(chan net.Conn, 1), done: make(chan struct{})}
	l.c <- c
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Serve(ctx, l, h) }()
	select {
	case <-c.gone:
	case <-time.After(20 * time.Second):
		t.Fatalf("a door does not let go of %q", data)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return got
}

// onwards checks that what an instance is sent is one request, the same one.
func onwards(t *testing.T, s *Switch, w http.ResponseWriter, r *http.Request, body []byte) {
	x := s.exchange(w, r, true)
	x.small = body
	out := append(x.head(nil, "instance"), body...)
	br := bufio.NewReader(bytes.NewReader(out))
	next, err := http.ReadRequest(br)
	if err != nil {
		t.Errorf("the instance is sent %q: %v", out, err)
		return
	}
	got, err := io.ReadAll(next.Body)
	rest, _ := io.ReadAll(br)
	if err != nil || next.Method != r.Method || !bytes.Equal(got, body) || len(rest) > 0 || r.Host != "" && next.Host != r.Host {
		t.Errorf("of %s %s, Host %q with %d bytes, the instance is sent %q", r.Method, r.RequestURI, r.Host, len(body), out)
	}
	for name := range next.Header {
		if strings.HasPrefix(name, ours) {
			t.Errorf("the instance is sent %s", name)
		}
	}
}

// Both doors make the same requests of the same bytes; ours may refuse what net/http's takes, and never the other way round.
func FuzzDoors(f *testing.F) {
	for _, tt := range rawCases {
		if len(tt.request) < 2000 {
			f.Add([]byte(tt.request), uint8(100))
		}
	}
	f.Add([]byte("GET /1 HTTP/1.1\r\nHost: x\r\nConnection: X-A\r\nX-A: 1\r\nServent-Instance: api/1\r\nTe: trailers\r\n\r\n"+post+"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;a\r\nabc\r\n0\r\nX-T: 1\r\n\r\nGET /2 HTTP/1.0\r\n\r\n"), uint8(3))
	own, judge := New(Options{Self: "n"}), New(Options{Self: "n", Reference: true})
	f.Fuzz(func(t *testing.T, data []byte, step uint8) {
		ours, theirs := requests(t, own, data, int(step)+1), requests(t, judge, data, 1<<10)
		for i, got := range ours {
			if i >= len(theirs) {
				if bytes.Contains(data, []byte(" ;")) || bytes.Contains(data, []byte("\t;")) {
					return // RFC 9112 §7.1.1 allows space before a chunk's extension, net/http does not
				}
				t.Fatalf("%q: we alone take request %d: %s", data, i+1, got)
			}
			if got != theirs[i] {
				t.Fatalf("%q: request %d\nours   %s\ntheirs %s", data, i+1, got, theirs[i])
			}
		}
	})
}
