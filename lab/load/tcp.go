package load

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"

	"servent/system/notation"
)

// TCP is a request over plain TCP: some bytes, and what is to come back.
type TCP struct {
	Send   string // template: {key}, {n}, {value}; may be empty
	Expect Expect
	Each   bool // a connection a request; else they are kept, as long as the other end does
}

// Expect says when an answer over TCP is whole. The zero value is a line.
type Expect struct {
	Length int64 // so many bytes; 0: see below
	End    bool  // until the connection ends: the generator says that it sends no more, and waits
}

// lineMost is the longest line that is taken for an answer.
const lineMost = 1 << 20

// ParseExpect reads line, end, or a number of bytes.
func ParseExpect(s string) (Expect, error) {
	switch s {
	case "line":
		return Expect{}, nil
	case "end":
		return Expect{End: true}, nil
	}
	n, err := notation.Count(s)
	if err != nil || n == 0 {
		return Expect{}, fmt.Errorf("want line, end or a number of bytes, have %q", s)
	}
	return Expect{Length: int64(n)}, nil
}

// String is what ParseExpect reads.
func (e Expect) String() string {
	switch {
	case e.End:
		return "end"
	case e.Length > 0:
		return strconv.FormatInt(e.Length, 10)
	}
	return "line"
}

// ParseSend reads bytes as a command line has them: \n, \r, \t, \0, \\ and \x41 stand for what they do in C.
func ParseSend(s string) (string, error) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			b.WriteByte(s[i])
			continue
		}
		i++
		at := -1
		if i < len(s) {
			at = strings.IndexByte(`nrt0\`, s[i])
		}
		switch {
		case at >= 0:
			b.WriteByte("\n\r\t\x00\\"[at])
		case i+2 < len(s) && s[i] == 'x':
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return "", fmt.Errorf(`want two hexadecimal digits after \x, have %q`, s[i+1:i+3])
			}
			b.WriteByte(byte(n))
			i += 2
		default:
			return "", fmt.Errorf(`want \n, \r, \t, \0, \\ or \x41 after a backslash, have %q`, s)
		}
	}
	return b.String(), nil
}

// readTCP reads one answer.
func readTCP(c *conn, e Expect, a *answer) error {
	rd := c.rd
	a.begin()
	if e.End {
		// Many servers answer when the other end says no more, and all may close then.
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok {
			_ = half.CloseWrite() // reading will tell what is wrong
		}
	}
	if _, err := rd.Peek(1); err != nil {
		if e.End && errors.Is(err, io.EOF) {
			return nil // an empty answer is one
		}
		return err
	}
	a.begun = true
	switch {
	case e.End:
		if err := take(rd, a, math.MaxInt64); !errors.Is(err, io.ErrUnexpectedEOF) {
			return err
		}
		return nil
	case e.Length > 0:
		a.reuse = true
		return take(rd, a, e.Length)
	}
	for n := 0; ; {
		if _, err := rd.Peek(1); err != nil {
			return cutShort(err)
		}
		b, _ := rd.Peek(rd.Buffered())
		end := bytes.IndexByte(b, '\n')
		if end >= 0 {
			b = b[:end+1]
		}
		a.feed(b)
		_, _ = rd.Discard(len(b))
		if end >= 0 {
			a.reuse = true
			return nil
		}
		if n += len(b); n > lineMost {
			return malformed("a line is longer than %d bytes", lineMost)
		}
	}
}
