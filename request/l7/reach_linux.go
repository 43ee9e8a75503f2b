package l7

import (
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"servent/request/h1"
)

// reach is a loop's connection to an instance.
type reach struct {
	socket
	up   upstream
	m    *machine // that asks; nil: idle
	open bool     // it is connected
}

// take returns an idle connection, or nil. It has not ended as far as the loop knows; again says that this is enough.
func (l *loop) take(at string, again bool) *reach {
	for all := l.idle[at]; len(all) > 0; all = l.idle[at] {
		r := all[len(all)-1]
		all[len(all)-1] = nil
		l.idle[at] = all[:len(all)-1]
		if again || r.silent() {
			return r
		}
		r.up.cut()
	}
	return nil
}

// silent asks the kernel, for what must not be sent twice.
func (r *reach) silent() bool {
	var one [1]byte
	_, _, err := unix.Recvfrom(r.fd, one[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	return err == unix.EAGAIN
}

// give keeps a connection for the next request.
func (l *loop) give(u *upstream) {
	r := u.nc.(*socket).owner.(*reach)
	r.m = nil
	u.used, u.since = true, l.now
	u.in.Release()
	if len(l.idle[u.at]) >= idleMost || r.hung || r.bad != nil || len(r.rest) > 0 {
		u.cut()
		return
	}
	l.idle[u.at] = append(l.idle[u.at], r)
}

// regain keeps a connection that comes back from a goroutine.
func (l *loop) regain(fd int, at string) {
	r := &reach{open: true}
	if l.join(&r.socket, fd, r) != nil {
		_ = unix.Close(fd)
		return
	}
	r.up.nc, r.up.at = &r.socket, at
	r.up.in = h1.NewReader(&r.socket)
	l.give(&r.up)
}

// reap closes what has been idle since before a time.
func (l *loop) reap(before time.Time) {
	for at, all := range l.idle {
		n := 0
		for n < len(all) && !all[n].up.since.After(before) {
			all[n].up.cut()
			n++
		}
		if n == len(all) {
			delete(l.idle, at)
		} else if n > 0 {
			l.idle[at] = append([]*reach(nil), all[n:]...)
		}
	}
}

// dial begins to connect to an instance; ok is false where that takes more than an address.
func (l *loop) dial(at string, m *machine) (r *reach, ok bool, err error) {
	addr, err := netip.ParseAddrPort(at)
	if err != nil {
		return nil, false, nil
	}
	fd, to, err := dialing(addr)
	if err == nil {
		r = &reach{m: m}
		if err = l.join(&r.socket, fd, r); err == nil {
			err = unix.Connect(fd, to)
			if err == unix.EINPROGRESS || err == nil {
				r.up.nc, r.up.at = &r.socket, at
				r.up.in = h1.NewReader(&r.socket)
				return r, true, nil
			}
			_ = r.Close()
		} else {
			_ = unix.Close(fd)
		}
	}
	return nil, true, unconnected(at, err)
}

func dialing(addr netip.AddrPort) (fd int, to unix.Sockaddr, err error) {
	family := unix.AF_INET
	if a := addr.Addr().Unmap(); a.Is4() {
		to = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: a.As4()}
	} else {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(addr.Port()), Addr: a.As16()}
	}
	if fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0); err == nil {
		_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	return fd, to, err
}

// unconnected is the error of a connection that did not come about, as net has it.
func unconnected(at string, err error) error {
	addr, _ := net.ResolveTCPAddr("tcp", at) // it is an address: nobody is asked
	return &net.OpError{Op: "dial", Net: "tcp", Addr: addr, Err: os.NewSyscallError("connect", err)}
}

// ready is called at an event.
func (r *reach) ready() {
	m := r.m
	if m == nil { // nobody has asked: it ends, or says what nobody wants
		if r.hung || r.stirs() {
			r.drop()
		}
		return
	}
	if !r.open {
		code, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && code != 0 {
			err = syscall.Errno(code)
		}
		if err != nil {
			r.up.cut()
			m.refused(unconnected(r.up.at, err))
			return
		}
		r.open = true
		m.send()
		m.advance()
		return
	}
	if len(r.rest) > 0 {
		r.drain() // a failure shows as its answer is read
	}
	m.advance()
}

// stirs says that something came by an idle connection.
func (r *reach) stirs() bool { return r.readable && !r.silent() }

// drop ends an idle connection.
func (r *reach) drop() {
	all := slices.DeleteFunc(r.l.idle[r.up.at], func(other *reach) bool { return other == r })
	if r.l.idle[r.up.at] = all; len(all) == 0 {
		delete(r.l.idle, r.up.at)
	}
	r.up.cut()
}
