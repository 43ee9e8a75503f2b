package container

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"servent/driver"
)

// Addresses in an instance's network, of the range that is nobody's (RFC 6598): there is no other network in
// there that they could be mistaken for.
var (
	instanceAddress = netip.AddrFrom4([4]byte{100, 64, 0, 1})
	mask            = netip.AddrFrom4([4]byte{255, 255, 0, 0})
)

const mostNames = 4096 // services that an instance knows

// wayAddress is that of the n-th name, from 0: 100.64.1.1, 100.64.1.2, …
func wayAddress(n int) netip.Addr {
	return netip.AddrFrom4([4]byte{100, 64, byte(1 + n/250), byte(1 + n%250)})
}

// ways are the doors of the node as an instance reaches them: listeners at the other end of a cable (veth(4))
// that leads out of its network, one address a service. They are not in the instance's network, because a
// program that listens on all addresses of it would find its port taken.
type ways struct {
	listeners []net.Listener
	hosts     []string // lines of /etc/hosts
	to        []string
	inside    string       // ",NAME" of each: what is reached without a proxy
	http      net.Listener // of the proxies; nil: no egress
	socks     net.Listener
}

// open lays the cable and opens the listeners. Nothing is accepted yet.
func openWays(r *room, all []driver.Way, egress bool) (*ways, error) {
	w := &ways{}
	if len(all) == 0 && !egress {
		return w, nil
	}
	names := namesOf(all)
	w.inside, w.hosts = reached(names), hostsOf(names)
	addresses := make([]netip.Addr, len(names))
	for n := range names {
		addresses[n] = wayAddress(n)
	}
	other, err := newRoom(networked) // only to make sockets in: they and the cable stay when its thread has ended
	if err != nil {
		return nil, err
	}
	defer other.close()
	if egress {
		addresses = append(addresses, egressAddress)
	}
	if err := w.lay(r, other, addresses); err != nil {
		return nil, err
	}
	for _, way := range all {
		n := slices.Index(names, way.Name)
		if n < 0 {
			continue
		}
		ln, err := other.listen(net.JoinHostPort(addresses[n].String(), strconv.Itoa(way.Port)))
		if errors.Is(err, unix.EADDRINUSE) {
			continue // two ports of one service that are the same
		}
		if err != nil {
			w.close()
			return nil, fmt.Errorf("way to %s:%d: %w", way.Name, way.Port, err)
		}
		w.listeners, w.to = append(w.listeners, ln), append(w.to, way.To)
	}
	if egress {
		w.http, err = other.listen(netip.AddrPortFrom(egressAddress, httpProxyPort).String())
		if err == nil {
			w.socks, err = other.listen(netip.AddrPortFrom(egressAddress, socksProxyPort).String())
		}
		if err != nil {
			w.close()
			return nil, fmt.Errorf("egress: %w", err)
		}
	}
	return w, nil
}

// namesOf lists those of the ways, each once; the n-th is found at wayAddress(n).
func namesOf(all []driver.Way) (names []string) {
	for _, way := range all {
		if len(names) < mostNames && !slices.Contains(names, way.Name) {
			names = append(names, way.Name)
		}
	}
	return names
}

// hostsOf is the lines of /etc/hosts that lead to them.
func hostsOf(names []string) (lines []string) {
	for n, name := range names {
		lines = append(lines, wayAddress(n).String()+"\t"+name+"\n")
	}
	return lines
}

// reached is the end of NO_PROXY: ",NAME" of each.
func reached(names []string) (list string) {
	for _, name := range names {
		list += "," + name
	}
	return list
}

// lay makes the cable: its end eth0 in the instance's network, out with all addresses in the other.
func (w *ways) lay(r, other *room, addresses []netip.Addr) error {
	fd := -1
	err := r.do(func() (err error) {
		fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := other.do(func() error { return cable("out", "eth0", fd) }); err != nil {
		return fmt.Errorf("make a network cable (veth): %w", err)
	}
	err = other.do(func() error {
		for n, at := range addresses {
			label := "out"
			if n > 0 {
				label += ":" + strconv.Itoa(n)
			}
			if err := address(label, at); err != nil {
				return err
			}
		}
		return nil
	})
	return cmp.Or(err, r.do(func() error { return address("eth0", instanceAddress) }))
}

// address gives an interface of the calling thread's network an address and takes it up (netdevice(7)).
func address(name string, at netip.Addr) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	for _, one := range []struct {
		call uint
		set  func(*unix.Ifreq) error
	}{
		{unix.SIOCSIFADDR, func(i *unix.Ifreq) error { return i.SetInet4Addr(at.AsSlice()) }},
		{unix.SIOCSIFNETMASK, func(i *unix.Ifreq) error { return i.SetInet4Addr(mask.AsSlice()) }},
		{unix.SIOCSIFFLAGS, func(i *unix.Ifreq) error { i.SetUint16(unix.IFF_UP | unix.IFF_RUNNING); return nil }},
	} {
		i, err := unix.NewIfreq(name)
		if err == nil {
			err = one.set(i)
		}
		if err == nil {
			err = unix.IoctlIfreq(fd, one.call, i)
		}
		if err != nil {
			return fmt.Errorf("address %s of %s: %w", at, name, err)
		}
	}
	return nil
}

// cable makes a pair of interfaces (rtnetlink(7)): name in the calling thread's network, peer in the one that
// the descriptor is of.
func cable(name, peer string, network int) error {
	const vethInfoPeer = 1 // linux/veth.h
	info := make([]byte, unix.SizeofIfInfomsg)
	far := append(append(append([]byte(nil), info...), attribute(unix.IFLA_IFNAME, append([]byte(peer), 0))...),
		attribute(unix.IFLA_NET_NS_FD, binary.NativeEndian.AppendUint32(nil, uint32(network)))...)
	kind := append(attribute(unix.IFLA_INFO_KIND, []byte("veth")), attribute(unix.IFLA_INFO_DATA, attribute(vethInfoPeer, far))...)
	body := append(append(info, attribute(unix.IFLA_IFNAME, append([]byte(name), 0))...), attribute(unix.IFLA_LINKINFO, kind)...)
	head := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	head = binary.NativeEndian.AppendUint16(head, unix.RTM_NEWLINK)
	head = binary.NativeEndian.AppendUint16(head, unix.NLM_F_REQUEST|unix.NLM_F_CREATE|unix.NLM_F_EXCL|unix.NLM_F_ACK)
	head = binary.NativeEndian.AppendUint64(head, 1) // sequence number, and the kernel's port

	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, append(head, body...), 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 || binary.NativeEndian.Uint16(answer[4:]) != unix.NLMSG_ERROR {
		return errors.New("the kernel's answer is not understood")
	}
	if code := int32(binary.NativeEndian.Uint32(answer[unix.SizeofNlMsghdr:])); code != 0 {
		return unix.Errno(-code)
	}
	return nil
}

// attribute is one of netlink's, padded.
func attribute(kind uint16, value []byte) []byte {
	b := binary.NativeEndian.AppendUint16(nil, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// serve passes connections to the doors until close.
func (w *ways) serve(ctx context.Context, log *slog.Logger) {
	var all sync.WaitGroup
	if w.http != nil {
		p := newProxy(dialOutside, log)
		all.Go(func() { p.serve(ctx, w.http) })
		all.Go(func() { each(ctx, w.socks, func(c net.Conn) { p.socks(ctx, c) }) })
	}
	for n, ln := range w.listeners {
		all.Go(func() {
			pass(ctx, ln, func(ctx context.Context) (net.Conn, error) { return dialDoor(ctx, w.to[n]) })
		})
	}
	all.Wait()
}

func dialDoor(ctx context.Context, to string) (net.Conn, error) {
	d := net.Dialer{Timeout: 5 * time.Second}
	return d.DialContext(ctx, "tcp", to)
}

func (w *ways) close() {
	for _, ln := range append(slices.Clone(w.listeners), w.http, w.socks) {
		if ln != nil {
			ln.Close()
		}
	}
}

// pass joins each connection of a listener to one that dial opens, until the listener is closed and ctx ends.
func pass(ctx context.Context, ln net.Listener, dial func(context.Context) (net.Conn, error)) {
	each(ctx, ln, func(c net.Conn) { join(ctx, c, dial) })
}

const mostOpen = 1024 // connections of a listener; more wait to be accepted

// each serves the connections of a listener until it is closed and ctx ends.
func each(ctx context.Context, ln net.Listener, serve func(net.Conn)) {
	var open sync.WaitGroup
	defer open.Wait()
	slots := make(chan struct{}, mostOpen)
	for {
		c, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // no more files, or a client that left at once
			select {
			case <-ctx.Done():
				return
			case <-time.After(10 * time.Millisecond):
			}
			continue
		}
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			c.Close()
			return
		}
		open.Go(func() {
			defer func() { <-slots }()
			serve(c)
		})
	}
}

// join passes bytes both ways until both sides have ended, one broke, or ctx ended.
func join(ctx context.Context, c net.Conn, dial func(context.Context) (net.Conn, error)) {
	up, err := dial(ctx)
	if err != nil {
		reset(c)
		return
	}
	both(ctx, c, up, nil)
}

// both passes bytes both ways, first what c said before, as join does, and closes both.
func both(ctx context.Context, c, up net.Conn, early []byte) {
	defer c.Close()
	defer up.Close()
	stop := context.AfterFunc(ctx, func() { reset(c); reset(up) })
	defer stop()
	if _, err := up.Write(early); len(early) > 0 && err != nil {
		reset(c)
		return
	}
	var ways sync.WaitGroup
	one := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(interface{ CloseWrite() error }); ok && err == nil {
			err = half.CloseWrite()
		}
		if err != nil {
			reset(c)
			reset(up)
		}
	}
	ways.Go(func() { one(up, c) })
	ways.Go(func() { one(c, up) })
	ways.Wait()
}

// reset ends a connection at once: the other side learns that it broke.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
