package dns

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// batch is how many datagrams one call takes or sends.
const batch = 64

// share opens sockets that share a port's datagrams by the client's address (SO_REUSEPORT, socket(7)).
func share(ctx context.Context, addr string, n int) ([]*net.UDPConn, error) {
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) {
			if n > 1 {
				failed = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
			}
			_ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20) // the default will do, too
		})
		return errors.Join(err, failed)
	}}
	var all []*net.UDPConn
	for range n {
		c, err := lc.ListenPacket(ctx, "udp", addr)
		if err != nil {
			for _, c := range all {
				c.Close()
			}
			return nil, err
		}
		all = append(all, c.(*net.UDPConn))
	}
	return all, nil
}

// mmsghdr is struct mmsghdr of recvmmsg(2); the compiler pads it as C does.
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// many are datagrams that one call takes or sends.
type many struct {
	msgs  [batch]mmsghdr
	iovs  [batch]unix.Iovec
	names [batch]unix.RawSockaddrInet6 // as large as an IPv4 one
}

func (m *many) point(i int, b []byte) {
	m.iovs[i].Base = unsafe.SliceData(b)
	m.iovs[i].SetLen(len(b))
	h := &m.msgs[i].hdr
	h.Name, h.Namelen = (*byte)(unsafe.Pointer(&m.names[i])), unix.SizeofSockaddrInet6
	h.Iov = &m.iovs[i]
	h.SetIovlen(1)
}

// datagrams answers what comes at a socket, as many at a call as there are: recvmmsg(2), sendmmsg(2). The descriptor does not
// block: neither call gives the processor away, which costs more than what they do; the runtime's poller waits when nothing is there.
func (s *Server) datagrams(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	w, in, out := s.datagram(), new(many), new(many)
	var queries [batch][]byte
	for i := range batch {
		queries[i] = make([]byte, 2<<10)
		in.point(i, queries[i])
		out.point(i, make([]byte, room))
	}
	var errno syscall.Errno
	got := 0
	take := func(fd uintptr) bool {
		n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&in.msgs[0])), batch, unix.MSG_DONTWAIT, 0, 0)
		got, errno = int(n), e
		return e != unix.EAGAIN && e != unix.EINTR
	}
	from, sent, answers := 0, 0, 0
	give := func(fd uintptr) bool {
		n, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(&out.msgs[from])), uintptr(answers-from), unix.MSG_DONTWAIT, 0, 0)
		sent, errno = int(n), e
		return e != unix.EAGAIN && e != unix.EINTR
	}
	for failures := 0; ; {
		if err := raw.Read(take); err != nil {
			return err
		}
		if errno != 0 { // an answer to an earlier one came back (ECONNREFUSED), or there is no memory
			if failures++; failures > 1000 {
				return fmt.Errorf("recvmmsg: %w", errno)
			}
			continue
		}
		failures, answers = 0, 0
		w.now = time.Now()
		for i := range got {
			h := &in.msgs[i]
			who, ok := source(&in.names[i])
			truncated := h.hdr.Flags&unix.MSG_TRUNC != 0
			size, length := 0, int(h.len)
			h.hdr.Namelen, h.hdr.Flags = unix.SizeofSockaddrInet6, 0
			if ok && !truncated {
				answer := unsafe.Slice(out.iovs[answers].Base, room)
				size = w.reply(queries[i][:length], answer, who, false)
			}
			if size == 0 {
				continue
			}
			out.names[answers] = in.names[i]
			o := &out.msgs[answers].hdr
			o.Namelen = unix.SizeofSockaddrInet6
			if in.names[i].Family == unix.AF_INET {
				o.Namelen = unix.SizeofSockaddrInet4
			}
			out.iovs[answers].SetLen(size)
			answers++
		}
		for from = 0; from < answers; from += max(1, sent) { // what cannot be sent is lost, as any datagram may be
			if sent, errno = 0, 0; raw.Write(give) != nil {
				return net.ErrClosed
			}
			if errno != 0 {
				sent = 0
			}
		}
	}
}

// source is where a datagram came from; port 0 is nowhere.
func source(a *unix.RawSockaddrInet6) (netip.Addr, bool) {
	port := a.Port
	ok := port != 0
	switch a.Family {
	case unix.AF_INET:
		return netip.AddrFrom4((*unix.RawSockaddrInet4)(unsafe.Pointer(a)).Addr), ok
	case unix.AF_INET6:
		return netip.AddrFrom16(a.Addr).Unmap(), ok
	}
	return netip.Addr{}, false
}

// passing says that a failed read is about an earlier answer, which nobody took.
func passing(err error) bool { return errors.Is(err, unix.ECONNREFUSED) }
