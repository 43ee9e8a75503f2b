//go:build unix

package l7

import (
	"io"
	"net"
	"syscall"

	"servent/request/h1"
)

// rawConn lets a connection be waited for without a buffer; nil if it cannot.
func rawConn(c net.Conn) syscall.RawConn {
	sys, ok := c.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := sys.SyscallConn()
	if err != nil {
		return nil
	}
	return raw
}

// readLent reads once into a buffer that is only taken while there is something to read.
func readLent(c net.Conn, raw syscall.RawConn) (buf *[]byte, n int, err error) {
	if raw == nil {
		return readHeld(c)
	}
	got := error(nil)
	err = raw.Read(func(fd uintptr) bool {
		buf = h1.Lend()
		for {
			n, got = syscall.Read(int(fd), *buf)
			if got != syscall.EINTR {
				break
			}
		}
		if got == nil && n > 0 {
			return true
		}
		h1.Return(buf)
		buf = nil
		return got != syscall.EAGAIN
	})
	switch {
	case err != nil:
		return nil, 0, err
	case got != nil:
		return nil, 0, got
	case n == 0:
		return nil, 0, io.EOF
	}
	return buf, n, nil
}

// silent says that a connection that nobody reads is open, and nothing came by it.
func silent(raw syscall.RawConn) bool {
	if raw == nil {
		return true // nobody knows: see take
	}
	open := false
	var one [1]byte
	err := raw.Control(func(fd uintptr) {
		_, _, err := syscall.Recvfrom(int(fd), one[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		open = err == syscall.EAGAIN
	})
	return err == nil && open
}
