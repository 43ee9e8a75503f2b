package dns

import (
	"net"
	"time"
)

// plain answers datagrams one by one, where there is no call for many.
func (s *Server) plain(c *net.UDPConn) error {
	w := s.datagram()
	query, out := make([]byte, 4<<10), make([]byte, room)
	for {
		n, from, err := c.ReadFromUDPAddrPort(query)
		if err != nil {
			if passing(err) {
				continue
			}
			return err
		}
		w.now = time.Now()
		if size := w.reply(query[:n], out, from.Addr().Unmap(), false); size > 0 {
			_, _ = c.WriteToUDPAddrPort(out[:size], from) // a datagram may be lost anywhere
		}
	}
}
