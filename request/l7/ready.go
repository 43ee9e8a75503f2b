package l7

import (
	"net"

	"servent/request/h1"
)

// readHeld reads once into a buffer that is held meanwhile.
func readHeld(c net.Conn) (*[]byte, int, error) {
	buf := h1.Lend()
	n, err := c.Read(*buf)
	if n == 0 {
		h1.Return(buf)
		return nil, 0, err
	}
	return buf, n, nil
}
