package l7

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"

	"servent/route"
)

// tunnel joins client and instance after both have switched protocols (101), until both sides have
// ended, one breaks, or ctx ends. An end of one side is passed on as such.
func (x *exchange) tunnel(ctx context.Context, res *http.Response, in route.Instance, ended func()) (verdict, error) {
	asked, got := upgrade(x.in.Header), upgrade(res.Header)
	if asked == "" || !strings.EqualFold(asked, got) {
		return broken, fmt.Errorf("it switched to %q where %q was asked for", got, asked)
	}
	back, ok := res.Body.(io.ReadWriteCloser)
	if !ok {
		return broken, errors.New("its connection cannot be switched")
	}
	unguard(x.in.Context())
	client, buffered, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		return broken, fmt.Errorf("switch the client's connection: %w", err)
	}
	defer client.Close()
	ended()
	endToEnd(res.Header)
	res.Header.Set("Connection", "Upgrade")
	res.Header.Set("Upgrade", got)
	x.stamp(res.Header, res.StatusCode, in)
	res.Body = nil                                        // only the head is written
	early, _ := buffered.Peek(buffered.Reader.Buffered()) // cannot fail: they are there
	if err := errors.Join(res.Write(buffered), buffered.Flush()); err != nil {
		return answered, fmt.Errorf("write to the client: %w", err)
	}

	end := func() { _, _ = client.Close(), back.Close() } // both copies end
	stop := context.AfterFunc(ctx, end)
	defer stop()
	var both sync.WaitGroup
	both.Go(func() { x.towards = relay(back, io.MultiReader(bytes.NewReader(early), client), end) })
	both.Go(func() { x.out = relay(client, back, end) })
	both.Wait()
	return answered, nil
}

// relay copies one direction and passes its end on. When it breaks, or its end cannot be told apart
// from the connection's, it calls end.
func relay(to io.Writer, from io.Reader, end func()) int64 {
	n, err := io.Copy(to, from)
	half, ok := to.(interface{ CloseWrite() error })
	if err != nil || !ok || half.CloseWrite() != nil {
		end()
	}
	return n
}
