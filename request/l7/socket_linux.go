package l7

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errAgain says that there is nothing to read yet; an event tells when there is.
var errAgain = errors.New("nothing to read yet")

// socket is a connection of a loop, for the codecs a net.Conn that never waits: a read finds nothing yet, and what cannot be
// written is kept for later. Only its loop touches it.
type socket struct {
	l        *loop
	fd       int // −1: closed
	readable bool
	hung     bool // the other side has ended its half, or all of it
	rest     []byte
	bad      error // of writing
	owner    interface{ ready() }
}

func (s *socket) Read(p []byte) (int, error) {
	if !s.readable || s.fd < 0 {
		return 0, errAgain
	}
	for {
		n, _, err := syscall.RawSyscall(syscall.SYS_READ, uintptr(s.fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
		switch {
		case err == syscall.EINTR:
			continue
		case err == syscall.EAGAIN:
			s.readable = false
			return 0, errAgain
		case err != 0:
			return 0, os.NewSyscallError("read", err)
		case n == 0 && len(p) > 0:
			return 0, io.EOF
		}
		if int(n) < len(p) && !s.hung { // drained: what comes now is an event
			s.readable = false
		}
		return int(n), nil
	}
}

// Write takes all of p.
func (s *socket) Write(p []byte) (int, error) {
	if s.bad != nil {
		return 0, s.bad
	}
	n := 0
	if len(s.rest) == 0 {
		if n = s.push(p); s.bad != nil {
			return n, s.bad
		}
	}
	if n < len(p) {
		s.rest = append(s.rest, p[n:]...)
	}
	return len(p), nil
}

// WriteBoth writes a and then b at once.
func (s *socket) WriteBoth(a, b []byte) error {
	if len(s.rest) == 0 && s.bad == nil {
		n, err := unix.Writev(s.fd, [][]byte{a, b})
		if err != nil && err != syscall.EAGAIN && err != syscall.EINTR {
			s.bad = os.NewSyscallError("writev", err)
			return s.bad
		}
		n = max(n, 0)
		s.rest = append(s.rest, a[min(n, len(a)):]...)
		s.rest = append(s.rest, b[min(max(n-len(a), 0), len(b)):]...)
		return nil
	}
	_, _ = s.Write(a)
	_, err := s.Write(b)
	return err
}

// push writes what can be.
func (s *socket) push(p []byte) (n int) {
	for n < len(p) {
		m, _, err := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(s.fd), uintptr(unsafe.Pointer(&p[n])), uintptr(len(p)-n))
		switch {
		case err == syscall.EINTR:
		case err == syscall.EAGAIN:
			return n
		case err != 0:
			s.bad = os.NewSyscallError("write", err)
			return n
		default:
			n += int(m)
		}
	}
	return n
}

// drain writes what is left; moved says that some of it could be.
func (s *socket) drain() (moved bool) {
	n := s.push(s.rest)
	if s.rest = s.rest[n:]; len(s.rest) == 0 {
		s.rest = nil
	}
	return n > 0
}

// Close closes it and drops what was not written.
func (s *socket) Close() error {
	if s.fd >= 0 {
		s.l.forget(s)
		_ = syscall.Close(s.fd)
		s.fd, s.rest = -1, nil
	}
	return nil
}

// release makes it a connection that goroutines wait for, with what is still to be written.
func (s *socket) release() (net.Conn, []byte, error) {
	_ = unix.EpollCtl(s.l.epoll, unix.EPOLL_CTL_DEL, s.fd, nil) // a duplicate would keep it there
	s.l.forget(s)
	f := os.NewFile(uintptr(s.fd), "")
	defer f.Close()
	rest := s.rest
	s.fd, s.rest = -1, nil
	nc, err := net.FileConn(f)
	return nc, rest, err
}

func (s *socket) LocalAddr() net.Addr              { return nil }
func (s *socket) RemoteAddr() net.Addr             { return nil }
func (s *socket) SetDeadline(time.Time) error      { return nil } // its owner has them
func (s *socket) SetReadDeadline(time.Time) error  { return nil }
func (s *socket) SetWriteDeadline(time.Time) error { return nil }

// dup is a descriptor of what a goroutine's connection or listener has.
func dup(c syscall.Conn) (int, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd, failed := -1, error(nil)
	if err = raw.Control(func(own uintptr) { fd, failed = unix.FcntlInt(own, unix.F_DUPFD_CLOEXEC, 0) }); err == nil {
		err = failed
	}
	return fd, err
}
