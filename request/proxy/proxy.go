// Package proxy says who a connection comes from that was passed on: the header of the PROXY protocol, version 2, with the
// service that is asked for and a signature, so that nobody else can say it.
package proxy

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"servent/identity"
)

// The header is that of https://www.haproxy.org/download/2.9/doc/proxy-protocol.txt, §2.2.
const (
	signature = "\r\n\r\n\x00\r\nQUIT\n"
	proxied   = 0x21 // version 2, command PROXY
	inet      = 0x11 // TCP over IPv4
	inet6     = 0x21 // TCP over IPv6
	typeOf    = 0xE0 // of our own: the service
	typeMAC   = 0xE1 // of our own, the last: HMAC-SHA256 of all before its value, 16 bytes
	macSize   = 16
	most      = 1 << 10 // bytes after the first 16
)

// ErrForeign says that a header is none of ours, or was changed.
var ErrForeign = errors.New("not a header of this system")

// Header is what is said before the first byte of a connection.
type Header struct {
	Client  netip.AddrPort
	Door    netip.AddrPort // that it came to
	Service string         // empty: the web door
}

// Key signs headers.
type Key []byte

// NewKey derives it from a secret that all nodes share.
func NewKey(secret identity.Secret) (Key, error) {
	key, err := secret.Derive("ways in")
	return Key(key), err
}

// Append writes a header. Addresses of both families are written as IPv6.
func (k Key) Append(b []byte, h Header) []byte {
	begin := len(b)
	from, to := h.Client.Addr().Unmap(), h.Door.Addr().Unmap()
	b = append(b, signature...)
	if from.Is4() && to.Is4() {
		b = append(b, proxied, inet, 0, 0)
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	} else {
		b = append(b, proxied, inet6, 0, 0)
		x, y := from.As16(), to.As16()
		b = append(append(b, x[:]...), y[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, h.Client.Port())
	b = binary.BigEndian.AppendUint16(b, h.Door.Port())
	b = append(b, typeOf, byte(len(h.Service)>>8), byte(len(h.Service)))
	b = append(b, h.Service...)
	b = append(b, typeMAC, 0, macSize)
	binary.BigEndian.PutUint16(b[begin+14:], uint16(len(b)+macSize-begin-16))
	return append(b, k.sign(b[begin:])...)
}

func (k Key) sign(b []byte) []byte {
	mac := hmac.New(sha256.New, k)
	mac.Write(b)
	return mac.Sum(nil)[:macSize]
}

// Read takes a header from a connection, and no byte more. The error is [ErrForeign], or why it did not come whole.
func (k Key) Read(r io.Reader) (h Header, err error) {
	b := make([]byte, 16, 256)
	if _, err := io.ReadFull(r, b); err != nil {
		return h, err
	}
	n := int(binary.BigEndian.Uint16(b[14:]))
	if string(b[:12]) != signature || b[12] != proxied || n > most {
		return h, ErrForeign
	}
	b = append(b, make([]byte, n)...)
	if _, err := io.ReadFull(r, b[16:]); err != nil {
		return h, fmt.Errorf("header cut: %w", err)
	}
	size := map[byte]int{inet: 4, inet6: 16}[b[13]]
	rest := 16 + 2*size + 4
	if size == 0 || len(b) < rest+3+3+macSize {
		return h, ErrForeign
	}
	signed := len(b) - macSize
	service := b[rest:]
	length := int(binary.BigEndian.Uint16(service[1:]))
	if service[0] != typeOf || rest+3+length+3 != signed || b[signed-3] != typeMAC || !hmac.Equal(k.sign(b[:signed]), b[signed:]) {
		return h, ErrForeign
	}
	from, _ := netip.AddrFromSlice(b[16 : 16+size])
	to, _ := netip.AddrFromSlice(b[16+size : 16+2*size])
	h.Client = netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(b[rest-4:]))
	h.Door = netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(b[rest-2:]))
	h.Service = string(service[3 : 3+length])
	return h, nil
}

// Conn is a connection that was passed on: its ends are those that the header says.
type Conn struct {
	*net.TCPConn
	header Header
}

// RemoteAddr is the client's.
func (c *Conn) RemoteAddr() net.Addr { return net.TCPAddrFromAddrPort(c.header.Client) }

// LocalAddr is that of the door that the client came to.
func (c *Conn) LocalAddr() net.Addr { return net.TCPAddrFromAddrPort(c.header.Door) }

// TCP is the socket that bytes go through, of a connection that is one or that was passed on.
func TCP(c net.Conn) (*net.TCPConn, bool) {
	if p, ok := c.(*Conn); ok {
		return p.TCPConn, true
	}
	tcp, ok := c.(*net.TCPConn)
	return tcp, ok
}
