package dns

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// room is of a buffer for an answer: the longest, eight SRV records with names of 255 bytes and their addresses, is less.
const room = 8 << 10

// accept answers TCP connections (RFC 7766) until the listener closes.
func (s *Server) accept(ctx context.Context, ln net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			s.o.Log.Warn("cannot accept a connection; tries again", "err", err)
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		select {
		case s.conns <- struct{}{}:
			open.Go(func() {
				defer func() { <-s.conns }()
				defer c.Close()
				defer context.AfterFunc(ctx, func() { _ = c.Close() })() // reading ends
				s.stream(c)
			})
		default:
			_ = c.Close() // the client asks again
		}
	}
}

// stream answers one connection, query by query in order.
func (s *Server) stream(c net.Conn) {
	from := peer(c.RemoteAddr())
	w := s.worker(&s.tcp)
	rd := bufio.NewReaderSize(c, 1<<10)
	query, out := make([]byte, 0, 1<<10), make([]byte, 2+room)
	for {
		var length [2]byte
		if c.SetDeadline(time.Now().Add(s.o.Idle)) != nil {
			return
		}
		if _, err := io.ReadFull(rd, length[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint16(length[:]))
		if cap(query) < n {
			query = make([]byte, n)
		}
		if _, err := io.ReadFull(rd, query[:n]); err != nil {
			return
		}
		w.now = time.Now()
		size := w.reply(query[:n], out[2:], from, true)
		if size == 0 {
			return // not a query: there is nothing to wait for
		}
		binary.BigEndian.PutUint16(out, uint16(size))
		if _, err := c.Write(out[:2+size]); err != nil {
			return
		}
	}
}

func peer(a net.Addr) netip.Addr {
	if t, ok := a.(*net.TCPAddr); ok {
		return t.AddrPort().Addr().Unmap()
	}
	return netip.Addr{}
}
