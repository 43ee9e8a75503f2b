// Package increment is the course's first server: a client sends a number, the server sends it back
// plus one. It keeps nothing between two lines, so any number of copies give the same answers.
// The same program stands beside it in C, Python and Erlang. Start at [Serve]; [Answer] is the protocol.
package increment

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"sync"
)

const (
	longest = 64   // bytes of a line, its end included; a longer one is an error
	clients = 1000 // connections served at once; further ones wait in the kernel's queue
)

// Serve answers every connection of ln, each in a goroutine of its own, until ctx ends. Then it closes
// them, which loses nothing: there is no state.
func Serve(ctx context.Context, ln net.Listener) error {
	var open sync.WaitGroup
	defer open.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // before the wait: a failed listener ends its connections too
	context.AfterFunc(ctx, func() { ln.Close() })

	slots := make(chan struct{}, clients)
	for {
		select {
		case slots <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case err != nil:
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		open.Go(func() {
			defer func() { <-slots }()
			converse(ctx, conn)
		})
	}
}

// converse answers one client, line by line, until it leaves or ctx ends.
func converse(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	in := bufio.NewReaderSize(conn, longest)
	for {
		line, err := in.ReadSlice('\n')
		for errors.Is(err, bufio.ErrBufferFull) { // too long: drop it up to its end
			line = nil
			_, err = in.ReadSlice('\n')
		}
		if err != nil {
			return // the client left; half a line is no line
		}
		if _, err := conn.Write([]byte(Answer(strings.TrimSuffix(string(line), "\n")) + "\n")); err != nil {
			return
		}
	}
}

// Answer is the whole protocol: "41" gives "42", and what is no number below 2⁶³-1 gives "error …".
func Answer(line string) string {
	line = strings.TrimSuffix(line, "\r") // telnet and Windows end lines with \r\n
	n, err := strconv.ParseInt(line, 10, 64)
	if err != nil || line[0] == '+' || n+1 < n {
		return "error want a whole number below 9223372036854775807"
	}
	return strconv.FormatInt(n+1, 10)
}
