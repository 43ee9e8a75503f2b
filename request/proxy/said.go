package proxy

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// ErrUnsaid says that a connection does not begin with a header of the PROXY protocol.
var ErrUnsaid = errors.New("no header of the PROXY protocol")

const (
	local     = 0x20    // version 2, command LOCAL
	unspec    = 0x00    // of neither family
	longest   = 107     // bytes of a header of version 1, with its end (§2.1)
	mostSaid  = 4 << 10 // bytes after the first 16 of version 2: addresses, and what a proxy says beside them
	saidFirst = 12      // bytes that tell the versions apart; no header is shorter
)

// Said reads the header of the PROXY protocol, version 1 or 2, that a proxy in front begins a connection with, and no byte more. The client is not valid when the proxy speaks
// for itself, as to ask whether anybody is there.
func Said(r io.Reader) (client, door netip.AddrPort, err error) {
	b := make([]byte, saidFirst, 256)
	if _, err := io.ReadFull(r, b); err != nil {
		return client, door, fmt.Errorf("%w: %w", ErrUnsaid, err)
	}
	switch {
	case string(b) == signature:
		return said2(r, b)
	case bytes.HasPrefix(b, []byte("PROXY ")):
		return said1(r, b)
	}
	return client, door, ErrUnsaid
}

// said1 reads the rest of a line like "PROXY TCP4 192.0.2.7 198.51.100.1 51111 443\r\n", one byte at a time: what follows is the client's.
func said1(r io.Reader, b []byte) (client, door netip.AddrPort, err error) {
	for one := make([]byte, 1); b[len(b)-1] != '\n'; b = append(b, one[0]) {
		if len(b) == longest {
			return client, door, ErrUnsaid
		}
		if _, err := io.ReadFull(r, one); err != nil {
			return client, door, fmt.Errorf("%w: %w", ErrUnsaid, err)
		}
	}
	line, ok := strings.CutSuffix(string(b), "\r\n")
	words := strings.Split(line, " ")
	if !ok || len(words) < 2 {
		return client, door, ErrUnsaid
	}
	if words[1] == "UNKNOWN" {
		return client, door, nil
	}
	if len(words) != 6 || words[1] != "TCP4" && words[1] != "TCP6" {
		return client, door, ErrUnsaid
	}
	parse := func(host, port string) (netip.AddrPort, error) {
		a, err := netip.ParseAddr(host)
		if err != nil || a.Is4() != (words[1] == "TCP4") || a.Zone() != "" || port != "0" && strings.HasPrefix(port, "0") {
			return netip.AddrPort{}, ErrUnsaid
		}
		p, err := netip.ParseAddrPort(net.JoinHostPort(host, port))
		if err != nil {
			return p, ErrUnsaid
		}
		return netip.AddrPortFrom(p.Addr().Unmap(), p.Port()), nil
	}
	if client, err = parse(words[2], words[4]); err == nil {
		door, err = parse(words[3], words[5])
	}
	if err != nil {
		return netip.AddrPort{}, netip.AddrPort{}, err
	}
	return client, door, nil
}

// said2 reads the rest of a binary header. What a proxy says beside the addresses is passed over.
func said2(r io.Reader, b []byte) (client, door netip.AddrPort, err error) {
	b = append(b, make([]byte, 4)...)
	if _, err := io.ReadFull(r, b[saidFirst:]); err != nil {
		return client, door, fmt.Errorf("%w: %w", ErrUnsaid, err)
	}
	n := int(binary.BigEndian.Uint16(b[14:]))
	if n > mostSaid || b[12] != local && b[12] != proxied {
		return client, door, ErrUnsaid
	}
	rest := make([]byte, n)
	if _, err := io.ReadFull(r, rest); err != nil {
		return client, door, fmt.Errorf("%w: %w", ErrUnsaid, err)
	}
	if b[12] == local || b[13] == unspec {
		return client, door, nil
	}
	client, door, _, ok := ends(b[13], rest)
	if !ok {
		return client, door, ErrUnsaid
	}
	return client, door, nil
}

// Say is a header of the PROXY protocol, of version 2 or 1. When an address is not known it says so.
func Say(second bool, client, door netip.AddrPort) []byte {
	from, to := client.Addr().Unmap(), door.Addr().Unmap()
	switch known := client.IsValid() && door.IsValid(); {
	case second && known:
		return appendEnds(nil, client, door)
	case second:
		return append([]byte(signature), local, unspec, 0, 0)
	case !known:
		return []byte("PROXY UNKNOWN\r\n")
	case from.Is4() && to.Is4():
		return fmt.Appendf(nil, "PROXY TCP4 %s %s %d %d\r\n", from, to, client.Port(), door.Port())
	}
	return fmt.Appendf(nil, "PROXY TCP6 %s %s %d %d\r\n", netip.AddrFrom16(from.As16()), netip.AddrFrom16(to.As16()), client.Port(), door.Port())
}

// Hear makes a connection one from whom the proxy says that it is, if it is from one of these proxies; any other is what it is. The error is [ErrUnsaid]: such a connection says nothing
// that can be believed.
func Hear(c *net.TCPConn, proxies []netip.Prefix) (net.Conn, error) {
	peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
	if !slices.ContainsFunc(proxies, func(p netip.Prefix) bool { return p.Contains(peer) }) {
		return c, nil
	}
	_ = c.SetReadDeadline(time.Now().Add(headerWithin))
	client, door, err := Said(c)
	if err != nil {
		return nil, err
	}
	_ = c.SetReadDeadline(time.Time{})
	if !client.IsValid() {
		return c, nil
	}
	return &Conn{c, Header{Client: client, Door: door}}, nil
}

// Behind is a listener whose connections are those of ln, from whom these proxies say that they are. It owns ln.
func Behind(ln net.Listener, proxies func() []netip.Prefix) net.Listener {
	b := &behind{Listener: ln, conns: make(chan net.Conn, pending), closed: make(chan struct{})}
	go b.run(proxies) // ends with ln
	return b
}

type behind struct {
	net.Listener
	conns  chan net.Conn
	closed chan struct{} // ln is
	err    error         // of ln, once it is closed
}

// Accept implements [net.Listener].
func (b *behind) Accept() (net.Conn, error) {
	select {
	case c := <-b.conns:
		return c, nil
	case <-b.closed:
		return nil, b.err
	}
}

func (b *behind) run(proxies func() []netip.Prefix) {
	var all sync.WaitGroup
	b.err = accept(context.Background(), b.Listener, &all, func(c *net.TCPConn) {
		heard, err := Hear(c, proxies())
		if err != nil {
			c.Close()
			return
		}
		select {
		case b.conns <- heard:
		case <-b.closed:
			c.Close()
		}
	})
	close(b.closed)
	all.Wait()
	for len(b.conns) > 0 { // nobody will take them
		(<-b.conns).Close()
	}
}
