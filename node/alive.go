package node

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"servent/link"
	"servent/system"
)

// dead returns nil as soon as a node is certainly dead: a connection to it broke, and dialling it was
// refused, twice, a moment apart. A node that says nothing is not dead; its lease tells.
func (n *Node) dead(ctx context.Context, id system.NodeID) error {
	for {
		conn, err := n.link.Dial(ctx, id, link.Alive)
		if err == nil {
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			_, _ = io.Copy(io.Discard, conn) // until it breaks
			stop()
			conn.Close()
		} else if errors.Is(err, link.ErrRefused) {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(50 * time.Millisecond):
			}
			if conn, err = n.link.Dial(ctx, id, link.Alive); errors.Is(err, link.ErrRefused) {
				return nil
			} else if err == nil {
				conn.Close()
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// hold keeps the connections by which others notice this node's end.
func hold(ctx context.Context, ln net.Listener) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		conn, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		wg.Go(func() {
			stop := context.AfterFunc(ctx, func() { conn.Close() }) // at once where ctx ended meanwhile
			defer stop()
			defer conn.Close()
			_, _ = io.Copy(io.Discard, conn) // until the other side goes
		})
	}
}
