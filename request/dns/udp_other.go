//go:build !linux

package dns

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"
)

// share opens one socket: elsewhere than on Linux several on one port do not share its datagrams.
func share(_ context.Context, addr string, _ int) ([]*net.UDPConn, error) {
	at, err := netip.ParseAddrPort(addr)
	if err != nil {
		return nil, err
	}
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	return []*net.UDPConn{c}, err
}

func (s *Server) datagrams(c *net.UDPConn) error { return s.plain(c) }

// passing says that a failed read is about an earlier answer, which nobody took: Windows tells so (WSAECONNRESET, WSAEMSGSIZE).
func passing(err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	time.Sleep(time.Millisecond) // whatever it is, it is not to spin
	return true
}
