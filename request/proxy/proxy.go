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
	b = appendEnds(b, h.Client, h.Door)
	b = append(b, typeOf, byte(len(h.Service)>>8), byte(len(h.Service)))
	b = append(b, h.Service...)
	b = append(b, typeMAC, 0, macSize)
	binary.BigEndian.PutUint16(b[begin+14:], uint16(len(b)+macSize-begin-16))
	return append(b, k.sign(b[begin:])...)
}

// appendEnds writes a header that has the ends of a connection alone.
func appendEnds(b []byte, client, door netip.AddrPort) []byte {
	from, to := client.Addr().Unmap(), door.Addr().Unmap()
	b = append(b, signature...)
	if from.Is4() && to.Is4() {
		b = append(b, proxied, inet, 0, 2*4+4)
		b = append(append(b, from.AsSlice()...), to.AsSlice()...)
	} else {
		b = append(b, proxied, inet6, 0, 2*16+4)
		x, y := from.As16(), to.As16()
		b = append(append(b, x[:]...), y[:]...)
	}
	b = binary.BigEndian.AppendUint16(b, client.Port())
	return binary.BigEndian.AppendUint16(b, door.Port())
}

// ends reads the ends of a connection, and returns what stands behind them. false: they are not of TCP, or not there.
func ends(family byte, b []byte) (client, door netip.AddrPort, rest []byte, ok bool) {
	size := map[byte]int{inet: 4, inet6: 16}[family]
	if size == 0 || len(b) < 2*size+4 {
		return client, door, nil, false
	}
	from, _ := netip.AddrFromSlice(b[:size])
	to, _ := netip.AddrFromSlice(b[size : 2*size])
	ports := b[2*size:]
	return netip.AddrPortFrom(from.Unmap(), binary.BigEndian.Uint16(ports)), netip.AddrPortFrom(to.Unmap(), binary.BigEndian.Uint16(ports[2:])), ports[4:], true
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
	client, door, service, ok := ends(b[13], b[16:])
	if !ok || len(service) < 3+3+macSize {
		return h, ErrForeign
	}
	signed := len(b) - macSize
	length := int(binary.BigEndian.Uint16(service[1:]))
	if service[0] != typeOf || 3+length+3+macSize != len(service) || b[signed-3] != typeMAC || !hmac.Equal(k.sign(b[:signed]), b[signed:]) {
		return h, ErrForeign
	}
	return Header{Client: client, Door: door, Service: string(service[3 : 3+length])}, nil
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
