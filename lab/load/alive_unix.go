//go:build !windows

package load

import (
	"net"
	"syscall"
	"time"
)

const connRefused = syscall.ECONNREFUSED

var resets = []syscall.Errno{syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED}

// alive looks at an idle connection without waiting: an end or a byte that nobody asked for makes it useless.
// A connection that has no socket to look at is taken for alive.
func alive(c net.Conn) bool {
	if secure, ok := c.(interface{ NetConn() net.Conn }); ok { // below TLS: an end is announced by some bytes
		c = secure.NetConn()
	}
	sc, ok := c.(syscall.Conn)
	if !ok {
		return true
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false
	}
	if c.SetReadDeadline(time.Time{}) != nil { // that of the last request may have passed
		return false
	}
	lives := false
	err = raw.Read(func(fd uintptr) bool {
		var b [1]byte
		n, err := syscall.Read(int(fd), b[:])
		lives = n < 0 && (err == syscall.EAGAIN || err == syscall.EWOULDBLOCK || err == syscall.EINTR)
		return true
	})
	return err == nil && lives
}
