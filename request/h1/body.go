package h1

import (
	"bytes"
	"io"
	"net/http"
)

// Body reads a message's body from a [Reader], never beyond its end. It belongs to one goroutine at a time.
type Body struct {
	from    *Reader
	left    int64 // bytes of the body, or of the present chunk
	kind    kind
	inside  bool // a chunk's data were read: CR LF follows
	excess  int  // bytes of chunk lines beyond what their data justify
	trailer http.Header
	err     error // the end, or why there is none
}

type kind int

const (
	known kind = iota
	chunks
	until // the connection ends
)

// NewBody reads a body of length bytes; −1: in chunks, whose trailers are added to trailer; −2: until the end.
func NewBody(from *Reader, length int64, trailer http.Header) *Body {
	b := &Body{from: from, left: max(length, 0), trailer: trailer}
	switch {
	case length == -1:
		b.kind = chunks
	case length < 0:
		b.kind = until
	case length == 0:
		b.err = io.EOF
	}
	return b
}

// Ended says that the body was read whole.
func (b *Body) Ended() bool { return b.err == io.EOF }

// Known returns how many bytes are still to come, if that is known.
func (b *Body) Known() (int64, bool) { return b.left, b.kind == known }

// Passed says that n bytes of a body of known length were taken from the connection itself.
func (b *Body) Passed(n int64) {
	if b.left -= n; b.left == 0 && b.err == nil {
		b.err = io.EOF
	}
}

// Read returns io.EOF at the end, together with the last bytes where it is known by then, an [*Error] where the
// framing is wrong, and io.ErrUnexpectedEOF where the connection ends too soon.
func (b *Body) Read(p []byte) (n int, err error) {
	if b.err != nil {
		return 0, b.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	switch b.kind {
	case known:
		n, b.err = b.from.Read(p[:min(int64(len(p)), b.left)])
		b.err = unexpected(b.err)
		if b.left -= int64(n); b.left == 0 {
			b.err = io.EOF
		}
	case until:
		n, b.err = b.from.Read(p)
	case chunks:
		n, b.err = b.chunk(p)
	}
	return n, b.err
}

// chunk reads from the chunks that are here, and waits for the first byte alone.
func (b *Body) chunk(p []byte) (n int, err error) {
	for n < len(p) {
		if b.left == 0 {
			if n > 0 && !b.here() {
				return n, nil
			}
			if err := b.size(); err != nil {
				return n, err
			}
		}
		if n > 0 && b.from.Buffered() == 0 {
			return n, nil
		}
		m, err := b.from.Read(p[n:min(int64(len(p)), int64(n)+b.left)])
		n += m
		b.left -= int64(m)
		if err != nil {
			return n, unexpected(err)
		}
	}
	return n, nil
}

// Whole says that all that is left of a body in chunks is buffered and has no trailers: to read it waits for nobody.
func (b *Body) Whole() bool {
	if b.kind != chunks || b.err != nil {
		return false
	}
	p, left, inside := b.from.Peeked(), b.left, b.inside
	for {
		if left > int64(len(p)) {
			return false
		}
		p = p[left:]
		if inside {
			if !bytes.HasPrefix(p, []byte("\r\n")) {
				return false
			}
			p = p[2:]
		}
		left, inside = 0, true
		digits := 0
		for ; digits < len(p) && digits < 8 && unhex(p[digits]) >= 0; digits++ {
			left = left<<4 | int64(unhex(p[digits]))
		}
		i := bytes.IndexByte(p, '\n')
		if digits == 0 || i < digits {
			return false
		}
		if p = p[i+1:]; left == 0 {
			return bytes.HasPrefix(p, []byte("\r\n"))
		}
	}
}

// here says that the next size line is buffered, with the end of the data before it.
func (b *Body) here() bool {
	ends := 1
	if b.inside {
		ends = 2
	}
	for _, c := range b.from.Peeked() {
		if c == '\n' {
			if ends--; ends == 0 {
				return true
			}
		}
	}
	return false
}

// size reads the line before a chunk's data (RFC 9112 §7.1), and behind the last one the trailers; io.EOF is the end.
func (b *Body) size() error {
	if b.inside {
		line, err := b.from.line()
		if err != nil {
			return err
		}
		if len(line) != 0 {
			return bad("chunk longer than its size")
		}
		b.inside = false
	}
	line, err := b.from.line()
	if err != nil {
		return err
	}
	n, digits := int64(0), 0
	for ; digits < len(line); digits++ {
		d := unhex(line[digits])
		if d < 0 {
			break
		}
		if n = n<<4 | int64(d); digits >= 15 {
			return bad("bad chunk size %.40q", line)
		}
	}
	ext := line[digits:]
	for len(ext) > 0 && (ext[0] == ' ' || ext[0] == '\t') {
		ext = ext[1:]
	}
	if digits == 0 || len(ext) > 0 && ext[0] != ';' || len(ext) == 0 && digits < len(line) {
		return bad("bad chunk size %.40q", line)
	}
	for _, c := range ext { // which are dropped, RFC 9112 §7.1.1
		if c < ' ' && c != '\t' || c == 0x7f {
			return bad("control character %#x in a chunk's line", c)
		}
	}
	// As net/http does: many lines for little data are an attack.
	if b.excess = max(0, b.excess+len(line)+2-16-int(min(2*n, maxExcess))); b.excess > maxExcess {
		return bad("chunks of too little data")
	}
	if n > 0 {
		b.left, b.inside = n, true
		return nil
	}
	return b.end()
}

func (b *Body) end() error {
	p := b.from.Peeked()
	if len(p) >= 2 && p[0] == '\r' && p[1] == '\n' { // most have no trailers
		b.from.r += 2
		return io.EOF
	}
	head, err := b.from.Head(false)
	if err != nil {
		return unexpected(err)
	}
	t := http.Header{}
	if err := fields(string(head), t, false); err != nil {
		return err
	}
	for name, values := range t {
		if !trailing(name) {
			return bad("%.40q cannot be a trailer", name)
		}
		if b.trailer != nil {
			b.trailer[name] = append(b.trailer[name], values...)
		}
	}
	return io.EOF
}

func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
