package l7

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"golang.org/x/net/http/httpguts"
)

// guard reads a client's bytes before net/http does, and refuses what two parsers could understand in
// two ways (request smuggling), where net/http is lenient: a length and a transfer coding together,
// repeated lengths or hosts, a transfer coding under HTTP/1.0, folded headers, bare LF or CR. net/http
// answers 400 then and closes the connection; nothing of the request reaches a handler but what stands
// before the fault in its body.
type guard struct {
	net.Conn
	off      atomic.Bool // speaks another protocol by now
	hijacked atomic.Bool // belongs to its handler
	scan     scanner     // of the one reader
	bad      error
}

func (g *guard) Read(p []byte) (int, error) {
	if g.bad == nil {
		n, err := g.Conn.Read(p)
		if n == 0 || g.off.Load() {
			return n, err
		}
		good, bad := g.scan.feed(p[:n])
		if g.bad = bad; bad == nil {
			return n, err
		} else if good > 0 {
			return good, nil
		}
	}
	// net/http reads one byte while a handler runs, to learn whether the client has left. A fault in what
	// follows must not end the request that is being answered.
	for len(p) == 1 {
		if _, err := g.Conn.Read(p); err != nil {
			return 0, err
		}
	}
	return 0, g.bad
}

// CloseWrite ends our half of the connection.
func (g *guard) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.ErrUnsupported
}

// scanner follows the framing of HTTP/1.1 messages: RFC 9112, read strictly. The zero value stands
// before a request line.
type scanner struct {
	at    state
	line  []byte // of the present line, without its end
	cr    bool   // the last byte was CR
	head  int    // bytes of the present head or trailer
	skip  int64  // bytes of body left
	whole int    // messages that have ended

	old     bool // HTTP/1.0
	hosts   int
	length  int64 // -1: none
	chunked bool
}

type state int

const (
	inLine    state = iota // request line
	inHeader               // header fields
	inBody                 // of known length
	inSize                 // line of a chunk's size
	inChunk                // its data
	inEnd                  // the line end after them
	inTrailer              // trailer fields
)

// maxScan is more than net/http reads of a head: its own answer to a head that is too long is better.
const maxScan = maxHead + 8<<10

// feed takes the next bytes. At a fault it returns how many before it are good.
func (s *scanner) feed(p []byte) (int, error) {
	for i := 0; i < len(p); {
		if s.at == inBody || s.at == inChunk {
			n := min(int64(len(p)-i), s.skip)
			i += int(n)
			if s.skip -= n; s.skip == 0 {
				s.bodyEnd()
			}
			continue
		}
		if err := s.byte(p[i]); err != nil {
			return i, err
		}
		i++
	}
	return len(p), nil
}

func (s *scanner) bodyEnd() {
	if s.at == inChunk {
		s.at = inEnd
		return
	}
	s.messageEnd()
}

func (s *scanner) messageEnd() { *s = scanner{line: s.line[:0], whole: s.whole + 1} }

func (s *scanner) byte(c byte) error {
	if s.head++; s.head > maxScan {
		return errors.New("head too long")
	}
	switch {
	case c == '\r' && !s.cr:
		s.cr = true
		return nil
	case c == '\n' && s.cr:
		s.cr = false
		line := s.line
		s.line = s.line[:0]
		return s.take(line)
	case c == '\n' || s.cr:
		return errors.New("a line must end in CR LF")
	case c < ' ' && c != '\t' || c == 0x7f:
		return fmt.Errorf("control character %#x", c)
	}
	s.line = append(s.line, c)
	return nil
}

// take handles one whole line. line is good until the next byte.
func (s *scanner) take(line []byte) error {
	switch s.at {
	case inLine:
		return s.requestLine(line)
	case inHeader:
		if len(line) == 0 {
			return s.headEnd()
		}
		return s.field(line)
	case inSize:
		return s.chunkSize(line)
	case inEnd:
		if len(line) != 0 {
			return errors.New("chunk longer than its size")
		}
		s.at, s.head = inSize, 0
	case inTrailer:
		if len(line) == 0 {
			s.messageEnd()
			return nil
		}
		_, _, err := split(line)
		return err
	}
	return nil
}

func (s *scanner) requestLine(line []byte) error {
	parts := bytes.Split(line, []byte(" "))
	if len(parts) != 3 || len(parts[0]) == 0 || len(parts[1]) == 0 {
		return errors.New("want METHOD TARGET HTTP/1.1")
	}
	switch string(parts[2]) {
	case "HTTP/1.1":
	case "HTTP/1.0":
		s.old = true
	default:
		return fmt.Errorf("want HTTP/1.1, have %q", parts[2])
	}
	s.at, s.length = inHeader, -1
	return nil
}

// split takes a field apart: a token, a colon at once, a value.
func split(line []byte) (name, value string, err error) {
	if line[0] == ' ' || line[0] == '\t' {
		return "", "", errors.New("folded header")
	}
	n, v, ok := bytes.Cut(line, []byte(":"))
	if !ok || !httpguts.ValidHeaderFieldName(string(n)) {
		return "", "", fmt.Errorf("want NAME: VALUE, have %.40q", line)
	}
	return string(n), strings.Trim(string(v), " \t"), nil
}

func (s *scanner) field(line []byte) error {
	name, value, err := split(line)
	if err != nil {
		return err
	}
	switch {
	case strings.EqualFold(name, "Host"):
		if s.hosts++; s.hosts > 1 {
			return errors.New("two Host headers")
		}
	case strings.EqualFold(name, "Content-Length"):
		n, err := strconv.ParseUint(value, 10, 63)
		if err != nil {
			return fmt.Errorf("bad Content-Length %.40q", value)
		}
		if s.length >= 0 {
			return errors.New("two Content-Length headers")
		}
		s.length = int64(n)
	case strings.EqualFold(name, "Transfer-Encoding"):
		if s.chunked || s.old || !strings.EqualFold(value, "chunked") {
			return fmt.Errorf("bad Transfer-Encoding %.40q", value)
		}
		s.chunked = true
	}
	return nil
}

func (s *scanner) headEnd() error {
	switch {
	case s.chunked && s.length >= 0:
		return errors.New("both Content-Length and Transfer-Encoding")
	case s.hosts == 0 && !s.old:
		return errors.New("no Host header")
	case s.chunked:
		s.at, s.head = inSize, 0
	case s.length > 0:
		s.at, s.skip = inBody, s.length
	default:
		s.messageEnd()
	}
	return nil
}

func (s *scanner) chunkSize(line []byte) error {
	digits, _, _ := bytes.Cut(line, []byte(";")) // extensions are dropped, RFC 9112 §7.1.1
	n, err := strconv.ParseUint(string(bytes.TrimRight(digits, " \t")), 16, 63)
	if err != nil {
		return fmt.Errorf("bad chunk size %.40q", line)
	}
	if s.at, s.head, s.skip = inChunk, 0, int64(n); n == 0 {
		s.at = inTrailer
	}
	return nil
}
