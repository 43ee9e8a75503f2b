package load

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"net/http"
	"strconv"
)

// The generator speaks HTTP/1.1 itself: a request and its answer take a third of the processor's time that
// they take with net/http's Transport, which has two goroutines a connection (BenchmarkClient). It is strict:
// what is not RFC 9112 counts as malformed, and the connection is not used again.

// errMalformed: what came is not HTTP/1.1, or not what was expected.
var errMalformed = errors.New("malformed answer")

func malformed(format string, args ...any) error {
	return fmt.Errorf("%w: %s", errMalformed, fmt.Sprintf(format, args...))
}

const (
	bodyKept   = 256     // bytes of an answer's body that a record keeps
	headerMost = 1 << 18 // bytes of an answer's header
)

// shot is one request, drawn, and its answer.
type shot struct {
	n, client, entry int
	seed             uint64
	kind             *kind     // of TCP: nil
	recorded         *Recorded // of a replay
	wrote, got       int64     // bytes
	key, path, value []byte
	out              []byte // what is written
	answer
}

// answer is what came back.
type answer struct {
	begun  bool // some of it came
	reuse  bool // the connection may be used again
	status int
	keep   bool // body and hash are wanted
	body   []byte
	hash   uint64
	timing timing
}

// begin forgets an earlier answer.
func (a *answer) begin() {
	*a = answer{keep: a.keep, body: a.body[:0], hash: fnvOffset, timing: timing{node: a.timing.node[:0], instance: a.timing.instance[:0]}}
}

// fnvOffset is the hash of no bytes.
var fnvOffset = fnv.New64a().Sum64()

// feed takes a piece of the body: FNV-1a, as package hash/fnv has it, without its interface.
func (a *answer) feed(b []byte) {
	if !a.keep {
		return
	}
	if room := bodyKept - len(a.body); room > 0 {
		a.body = append(a.body, b[:min(room, len(b))]...)
	}
	h := a.hash
	for _, c := range b {
		h = (h ^ uint64(c)) * 1099511628211
	}
	a.hash = h
}

// render writes the request of a shot: RFC 9112 §3.
func (s *shot) render(host string) {
	k := s.kind
	s.value = k.body.append(s.value[:0], s)
	if k.replayed {
		s.path = append(s.path[:0], s.recorded.Path...)
	} else {
		s.path = k.path.append(s.path[:0], s)
	}
	b := append(append(append(s.out[:0], k.Method...), ' '), s.path...)
	b = append(b, " HTTP/1.1\r\n"...)
	if !k.hasHost {
		b = append(append(append(b, "Host: "...), host...), '\r', '\n')
	}
	for _, line := range k.head {
		b = append(line.append(b, s), '\r', '\n')
	}
	if k.writes {
		if !k.hasType {
			b = append(b, "Content-Type: application/octet-stream\r\n"...)
		}
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), int64(len(s.value)), 10), '\r', '\n')
	}
	b = append(b, '\r', '\n')
	s.out = append(b, s.value...)
}

// readHTTP reads one answer to a method.
func readHTTP(rd *bufio.Reader, method string, a *answer) error {
	a.begin()
	if _, err := rd.Peek(1); err != nil {
		return err
	}
	a.begun = true
	h := header{length: -1, left: headerMost}
	for {
		if err := h.status(rd, a); err != nil {
			return err
		}
		if err := h.fields(rd, a); err != nil {
			return err
		}
		if a.status >= 200 {
			break
		}
		if a.status == http.StatusSwitchingProtocols {
			return malformed("101 Switching Protocols, which nobody asked for")
		}
		h = header{length: -1, left: h.left} // RFC 9110 §15.2: any number of interim answers
	}
	a.reuse = !h.close && (h.minor == 1 || h.keepAlive)
	switch { // RFC 9112 §6.3, in its order
	case method == http.MethodHead, a.status == http.StatusNoContent, a.status == http.StatusNotModified:
		return nil
	case h.chunked && h.length >= 0:
		return malformed("both Transfer-Encoding and Content-Length")
	case h.chunked:
		return chunked(rd, a, &h)
	case h.length >= 0:
		return take(rd, a, h.length)
	}
	a.reuse = false
	err := take(rd, a, math.MaxInt64)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return nil // the end of the connection is that of the answer
	}
	return err
}

// header is what must be known of an answer's header.
type header struct {
	minor     int // HTTP/1.minor
	length    int64
	chunked   bool
	close     bool
	keepAlive bool
	left      int // bytes that the header may still have
}

// line reads one line without its CRLF. It is valid until the next read.
func (h *header) line(rd *bufio.Reader) ([]byte, error) {
	b, err := rd.ReadSlice('\n')
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, malformed("a line is longer than %d bytes", len(b))
	case err != nil:
		return nil, cutShort(err)
	case len(b) < 2 || b[len(b)-2] != '\r':
		return nil, malformed("a line does not end with CR LF: %.40q", b)
	}
	if h.left -= len(b); h.left < 0 {
		return nil, malformed("its header is longer than %d bytes", headerMost)
	}
	return b[:len(b)-2], nil
}

func (h *header) status(rd *bufio.Reader, a *answer) error {
	b, err := h.line(rd)
	if err != nil {
		return err
	}
	// HTTP/1.1 200 OK; the reason may be empty, and the space before it was forgotten by some.
	if len(b) < 12 || string(b[:7]) != "HTTP/1." || b[7] != '0' && b[7] != '1' || b[8] != ' ' || len(b) > 12 && b[12] != ' ' {
		return malformed("no status line: %.40q", b)
	}
	h.minor = int(b[7] - '0')
	code, ok := digits(b[9:12])
	if !ok || code < 100 || code > 599 {
		return malformed("no status: %.40q", b)
	}
	a.status = int(code)
	return nil
}

func (h *header) fields(rd *bufio.Reader, a *answer) error {
	for {
		b, err := h.line(rd)
		if err != nil || len(b) == 0 {
			return err
		}
		at := bytes.IndexByte(b, ':')
		if at <= 0 || bytes.ContainsAny(b[:at], " \t") {
			return malformed("no header field: %.40q", b) // obs-fold, too: RFC 9112 §5.2
		}
		name, value := b[:at], bytes.Trim(b[at+1:], " \t")
		switch {
		case is(name, "content-length"):
			n, ok := digits(value)
			if !ok || h.length >= 0 && h.length != n {
				return malformed("Content-Length: %.40q", value)
			}
			h.length = n
		case is(name, "transfer-encoding"):
			if !is(value, "chunked") || h.chunked {
				return malformed("Transfer-Encoding: %.40q", value)
			}
			h.chunked = true
		case is(name, "connection"):
			for word := range bytes.SplitSeq(value, []byte(",")) {
				word = bytes.Trim(word, " \t")
				h.close = h.close || is(word, "close")
				h.keepAlive = h.keepAlive || is(word, "keep-alive")
			}
		case is(name, "server-timing"):
			a.timing.read(value)
		}
	}
}

// is compares with a name in lower case.
func is(b []byte, name string) bool {
	if len(b) != len(name) {
		return false
	}
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != name[i] {
			return false
		}
	}
	return true
}

// digits reads a whole number of digits alone.
func digits(b []byte) (int64, bool) {
	if len(b) == 0 || len(b) > 18 {
		return 0, false
	}
	n := int64(0)
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = n*10 + int64(c-'0')
	}
	return n, true
}

// take reads n bytes of a body.
func take(rd *bufio.Reader, a *answer, n int64) error {
	for n > 0 {
		if _, err := rd.Peek(1); err != nil {
			return cutShort(err)
		}
		b, _ := rd.Peek(int(min(n, int64(rd.Buffered())))) // it is buffered
		a.feed(b)
		_, _ = rd.Discard(len(b))
		n -= int64(len(b))
	}
	return nil
}

// chunked reads a body in chunks: RFC 9112 §7.1.
func chunked(rd *bufio.Reader, a *answer, h *header) error {
	for {
		b, err := h.line(rd)
		if err != nil {
			return err
		}
		h.left += len(b) + 2 // a body may have any number of chunks
		size, _, _ := bytes.Cut(b, []byte(";"))
		n, err := strconv.ParseUint(string(bytes.TrimRight(size, " \t")), 16, 62)
		if err != nil {
			return malformed("no size of a chunk: %.40q", b)
		}
		if n == 0 {
			break
		}
		if err := take(rd, a, int64(n)); err != nil {
			return err
		}
		if b, err = h.line(rd); err != nil {
			return err
		} else if len(b) > 0 {
			return malformed("a chunk is longer than it said")
		}
		h.left += 2
	}
	for { // trailers
		if b, err := h.line(rd); err != nil || len(b) == 0 {
			return err
		}
	}
}

// cutShort makes an end within an answer what it is.
func cutShort(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
