package link

import (
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// pipeRoom is how many bytes one direction of a pipe holds before its writer waits.
const pipeRoom = 64 << 10

// pipe makes a connection inside the process that behaves like TCP: buffered, with half-close,
// deadlines and resets.
func pipe(a, b net.Addr) (*end, *end) {
	there, back := newHalf(), newHalf()
	return &end{back, there, a, b}, &end{there, back, b, a}
}

// end is one end of a pipe.
type end struct {
	in, out       *half
	local, remote net.Addr
}

func (e *end) Read(p []byte) (int, error)         { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error)        { return e.out.write(p) }
func (e *end) CloseWrite() error                  { e.out.finish(); return nil }
func (e *end) LocalAddr() net.Addr                { return e.local }
func (e *end) RemoteAddr() net.Addr               { return e.remote }
func (e *end) SetReadDeadline(t time.Time) error  { e.in.limit(&e.in.reads, t); return nil }
func (e *end) SetWriteDeadline(t time.Time) error { e.out.limit(&e.out.writes, t); return nil }

func (e *end) SetDeadline(t time.Time) error {
	_ = e.SetReadDeadline(t)
	return e.SetWriteDeadline(t)
}

// Close lets the other end read what was written, then the end of it; what it writes is an error.
func (e *end) Close() error {
	e.out.finish()
	e.out.leave(&e.out.writerGone)
	e.in.leave(&e.in.readerGone)
	return nil
}

// reset breaks both directions; bytes on their way are lost.
func (e *end) reset() {
	e.in.leave(&e.in.broken)
	e.out.leave(&e.out.broken)
}

// half is one direction.
type half struct {
	mu                             sync.Mutex
	moved                          sync.Cond
	buf                            []byte
	finished                       bool // nothing more will be written
	readerGone, writerGone, broken bool
	reads, writes                  limit
}

func newHalf() *half {
	h := &half{}
	h.moved.L = &h.mu
	return h
}

func (h *half) read(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		switch {
		case h.readerGone:
			return 0, net.ErrClosed
		case h.broken:
			return 0, syscall.ECONNRESET
		case h.reads.passed():
			return 0, os.ErrDeadlineExceeded
		case len(p) == 0:
			return 0, nil
		case len(h.buf) > 0:
			n := copy(p, h.buf)
			h.buf = h.buf[n:]
			h.moved.Broadcast()
			return n, nil
		case h.finished:
			return 0, io.EOF
		}
		h.moved.Wait()
	}
}

func (h *half) write(p []byte) (int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	done := 0
	for {
		switch {
		case h.writerGone:
			return done, net.ErrClosed
		case h.broken:
			return done, syscall.ECONNRESET
		case h.finished, h.readerGone:
			return done, syscall.EPIPE
		case h.writes.passed():
			return done, os.ErrDeadlineExceeded
		}
		n := min(len(p)-done, pipeRoom-len(h.buf))
		h.buf = append(h.buf, p[done:done+n]...)
		if done += n; n > 0 {
			h.moved.Broadcast()
		}
		if done == len(p) {
			return done, nil
		}
		h.moved.Wait()
	}
}

func (h *half) finish() { h.leave(&h.finished) }

// leave sets one of the flags and wakes those who wait.
func (h *half) leave(flag *bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	*flag = true
	h.moved.Broadcast()
	if h.readerGone || h.broken {
		h.reads.stop()
		h.buf = nil
	}
	if h.writerGone || h.broken {
		h.writes.stop()
	}
}

func (h *half) limit(l *limit, t time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l.set(t, &h.moved)
}
