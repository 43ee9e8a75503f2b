package h1

import (
	"bytes"
	"io"
	"net/http"
)

// Reader reads messages from a connection. Its buffer is taken from a pool when it is needed, and given back by [Reader.Release].
// It belongs to one goroutine at a time.
type Reader struct {
	src  io.Reader
	buf  *[]byte
	r, w int // what is read and not used
}

// NewReader reads from src.
func NewReader(src io.Reader) *Reader { return &Reader{src: src} }

// From has what comes next read from another source; what is buffered stays.
func (b *Reader) From(src io.Reader) { b.src = src }

// Back makes the last n bytes that were used unused again; nothing was read since.
func (b *Reader) Back(n int) { b.r -= n }

// Buffered is how many bytes are read and not used.
func (b *Reader) Buffered() int { return b.w - b.r }

// Peeked returns those bytes; they are good until the next call.
func (b *Reader) Peeked() []byte {
	if b.buf == nil {
		return nil
	}
	return (*b.buf)[b.r:b.w]
}

// Release gives the buffer back if nothing is in it.
func (b *Reader) Release() {
	if b.buf == nil || b.r < b.w {
		return
	}
	give(b.buf)
	b.buf, b.r, b.w = nil, 0, 0
}

// Drop gives the buffer back whatever is in it.
func (b *Reader) Drop() { b.r = b.w; b.Release() }

func give(buf *[]byte) {
	if len(*buf) == bufferSize {
		buffers.Put(buf)
	}
}

// Fill reads once, by read, into the free part of the buffer, which it makes larger than MaxHead for nobody. The error is
// read's, or [ErrFull].
func (b *Reader) Fill(read func([]byte) (int, error)) error {
	if b.buf == nil {
		b.buf = buffers.Get().(*[]byte)
	}
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if b.w == len(*b.buf) {
		if b.r > 0 {
			b.w = copy(*b.buf, (*b.buf)[b.r:b.w])
			b.r = 0
		} else if len(*b.buf) >= MaxHead {
			return ErrFull
		} else {
			larger := make([]byte, min(4*len(*b.buf), MaxHead))
			copy(larger, *b.buf)
			give(b.buf)
			b.buf = &larger
		}
	}
	n, err := read((*b.buf)[b.w:])
	b.w += n
	if n > 0 {
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// FillFree reads once into the free part of the buffer as it is; n is 0 when there is none.
func (b *Reader) FillFree(read func([]byte) (int, error)) (n int, err error) {
	if b.buf == nil {
		b.buf = buffers.Get().(*[]byte)
	}
	if b.r == b.w {
		b.r, b.w = 0, 0
	}
	if b.w == len(*b.buf) {
		return 0, nil
	}
	n, err = read((*b.buf)[b.w:])
	b.w += n
	return n, err
}

// Adopt takes over a buffer of [Lend] with n bytes in it; the reader has none.
func (b *Reader) Adopt(buf *[]byte, n int) { b.buf, b.r, b.w = buf, 0, n }

// Lend takes a buffer from the pool; [Reader.Adopt] or [Return] ends that.
func Lend() *[]byte { return buffers.Get().(*[]byte) }

// Return gives one back.
func Return(buf *[]byte) { give(buf) }

// ErrFull says that a head is longer than MaxHead.
var ErrFull error = &Error{http.StatusRequestHeaderFieldsTooLarge, "head too long"}

// Head returns the next head through its empty line; it is good until the next call. A line that does not end in CR LF is
// an [*Error] as soon as it is seen, unless lax. The error is io.EOF when nothing came, io.ErrUnexpectedEOF within a head.
func (b *Reader) Head(lax bool) ([]byte, error) {
	at := b.r // of the present line
	for seen := b.r; ; {
		if b.buf != nil {
			if i := bytes.IndexByte((*b.buf)[seen:b.w], '\n'); i >= 0 {
				end := seen + i
				text := (*b.buf)[at:end]
				if n := len(text); n > 0 && text[n-1] == '\r' {
					text = text[:n-1]
				} else if !lax {
					return nil, bad("a line must end in CR LF")
				}
				at, seen = end+1, end+1
				if len(text) == 0 {
					head := (*b.buf)[b.r:at]
					b.r = at
					return head, nil
				}
				continue
			}
			seen = b.w
		}
		was := b.r
		if err := b.Fill(b.src.Read); err != nil {
			if err == io.EOF && b.Buffered() > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
		at, seen = at-was+b.r, seen-was+b.r // what was there may have moved
	}
}

// line returns the next line, which ends in CR LF and has at most maxLine bytes, without its end.
func (b *Reader) line() ([]byte, error) {
	for {
		p := b.Peeked()
		if i := bytes.IndexByte(p, '\n'); i >= 0 {
			if i == 0 || p[i-1] != '\r' {
				return nil, bad("a line must end in CR LF")
			}
			b.r += i + 1
			return p[:i-1], nil
		}
		if len(p) > maxLine {
			return nil, bad("a chunk's line is too long")
		}
		if err := b.Fill(b.src.Read); err != nil {
			return nil, unexpected(err)
		}
	}
}

// Read returns what is buffered, or else reads from the connection into p.
func (b *Reader) Read(p []byte) (int, error) {
	if b.r < b.w {
		n := copy(p, (*b.buf)[b.r:b.w])
		b.r += n
		return n, nil
	}
	return b.src.Read(p)
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
