// Package h1 reads and writes HTTP/1.1 messages (RFC 9112): the heads of requests and responses, bodies by length, in chunks or
// until the end, and trailers. It reads strictly: what two parsers could understand in two ways is an [Error], never a guess.
// It opens no connection, sets no deadline and starts no goroutine: its callers do. Start at [Reader], [ParseRequest] and [Body].
package h1

import (
	"fmt"
	"net/http"
	"strings"
	"sync"

	"golang.org/x/net/http/httpguts"
)

// Bounds of what is read.
const (
	MaxHead   = 64 << 10 // bytes of a start line and its fields; of trailers, too
	MaxFields = 256      // fields of a head or of trailers
	maxLine   = 256      // bytes of a line that gives a chunk's size
	maxExcess = 16 << 10 // bytes of chunk lines beyond what their data justify
)

// Error is a message that is not accepted.
type Error struct {
	Status int // to answer with: 400, 414, 417, 431 or 505
	Why    string
}

func (e *Error) Error() string { return e.Why }

func bad(format string, args ...any) error {
	return &Error{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// field takes a line apart: a token, a colon at once, a value (RFC 9112 §5.1). s has no line end.
func field(s string) (name, value string, err error) {
	i := strings.IndexByte(s, ':')
	switch {
	case s[0] == ' ' || s[0] == '\t':
		return "", "", bad("folded header")
	case i <= 0 || !token(s[:i]):
		return "", "", bad("want NAME: VALUE, have %.40q", s)
	}
	value = s[i+1:]
	for len(value) > 0 && (value[0] == ' ' || value[0] == '\t') {
		value = value[1:]
	}
	for len(value) > 0 && (value[len(value)-1] == ' ' || value[len(value)-1] == '\t') {
		value = value[:len(value)-1]
	}
	for j := range len(value) {
		if c := value[j]; c < ' ' && c != '\t' || c == 0x7f {
			return "", "", bad("control character %#x in a header", c)
		}
	}
	return http.CanonicalHeaderKey(s[:i]), value, nil
}

func token(s string) bool {
	for i := range len(s) {
		if !httpguts.IsTokenRune(rune(s[i])) {
			return false
		}
	}
	return s != ""
}

// fields reads the lines of a head or of trailers after the first into h. lax accepts lines that end in LF alone.
func fields(s string, h http.Header, lax bool) error {
	n := strings.Count(s, "\n")
	if n > MaxFields {
		return &Error{http.StatusRequestHeaderFieldsTooLarge, fmt.Sprintf("more than %d header fields", MaxFields)}
	}
	values := make([]string, 0, n) // one allocation for most
	for s != "" {
		var line string
		var err error
		if line, s, err = cut(s, lax); err != nil {
			return err
		}
		if line == "" {
			if s != "" {
				return bad("bytes behind the end of a head")
			}
			return nil
		}
		name, value, err := field(line)
		if err != nil {
			return err
		}
		if have, ok := h[name]; ok {
			h[name] = append(have, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	return bad("the head has no end")
}

// cut takes the first line off.
func cut(s string, lax bool) (line, rest string, err error) {
	i := strings.IndexByte(s, '\n')
	switch {
	case i < 0:
		return "", "", bad("the head has no end")
	case i > 0 && s[i-1] == '\r':
		return s[:i-1], s[i+1:], nil
	case lax:
		return s[:i], s[i+1:], nil
	}
	return "", "", bad("a line must end in CR LF")
}

// length reads the framing that fields declare: −1 for chunks, −2 for none. old says HTTP/1.0.
func length(h http.Header, old bool) (int64, error) {
	lengths, codings := h["Content-Length"], h["Transfer-Encoding"]
	switch {
	case len(lengths) > 0 && len(codings) > 0:
		return 0, bad("both Content-Length and Transfer-Encoding")
	case len(lengths) > 1:
		return 0, bad("two Content-Length headers")
	case len(codings) > 1 || len(codings) == 1 && (old || !strings.EqualFold(codings[0], "chunked")):
		return 0, bad("bad Transfer-Encoding %.40q", strings.Join(codings, ", "))
	case len(codings) == 1:
		return -1, nil
	case len(lengths) == 0:
		return -2, nil
	}
	n, s := int64(0), lengths[0]
	if s == "" || len(s) > 18 {
		return 0, bad("bad Content-Length %.40q", s)
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, bad("bad Content-Length %.40q", s)
		}
		n = 10*n + int64(s[i]-'0')
	}
	return n, nil
}

// announced takes the field Trailer away and returns the names in it, each without values, or nil.
func announced(h http.Header) (http.Header, error) {
	var t http.Header
	for _, line := range h["Trailer"] {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name == "" {
				continue
			}
			if !httpguts.ValidTrailerHeader(name) {
				return nil, bad("%.40q cannot be a trailer", name)
			}
			if t == nil {
				t = http.Header{}
			}
			t[name] = nil
		}
	}
	delete(h, "Trailer")
	return t, nil
}

// has says that a list of tokens contains one, whatever its case.
func has(lines []string, want string) bool {
	for _, line := range lines {
		if strings.EqualFold(line, want) { // most have one
			return true
		}
	}
	return len(lines) > 0 && httpguts.HeaderValuesContainsToken(lines, want)
}

// bodyless says that a response has no body whatever its fields say: RFC 9112 §6.3.
func bodyless(method string, status int) bool {
	return method == http.MethodHead || status < 200 || status == http.StatusNoContent || status == http.StatusNotModified
}

// Buffers hold what is read; their size is that of most heads and small bodies.
const bufferSize = 8 << 10

var buffers = sync.Pool{New: func() any { b := make([]byte, bufferSize); return &b }}
