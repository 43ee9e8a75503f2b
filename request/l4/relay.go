package l4

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"servent/link"
	"servent/request/proxy"
)

// spliceAfter is how many bytes of one direction are copied before they are spliced in the kernel, where
// both ends are sockets: splicing short messages costs more than it saves.
const spliceAfter = 64 << 10

// relay passes bytes between a client, or the node it entered by, and an instance.
type relay struct {
	client, up    net.Conn
	turns         *turns // nil: nothing is charged
	towards, back int64  // bytes passed; good when run has returned
}

// run returns when both sides have ended, one broke, or ctx ended; both connections are closed then. An
// end of one side is passed on as such; a break cuts the other side off. The error says that the
// instance broke, or why ctx ended.
func (r *relay) run(ctx context.Context) error {
	cut := func() { reset(r.client); reset(r.up) }
	stop := context.AfterFunc(ctx, cut)
	var ask, answer func(context.Context) error
	if r.turns != nil {
		ask, answer = r.turns.ask, r.turns.answer
	}
	var both sync.WaitGroup
	var asking, answering error // of the instance
	both.Go(func() {
		n, clientErr, upErr := pass(ctx, r.up, r.client, ask)
		r.towards, asking = n, upErr
		if clientErr != nil || upErr != nil {
			cut()
		}
	})
	both.Go(func() {
		n, upErr, clientErr := pass(ctx, r.client, r.up, answer)
		r.back, answering = n, upErr
		if clientErr != nil || upErr != nil {
			cut()
		}
	})
	both.Wait()
	if r.turns != nil {
		r.turns.drop()
	}
	if !stop() {
		return context.Cause(ctx)
	}
	_, _ = r.client.Close(), r.up.Close()
	for _, err := range []error{answering, asking} {
		if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, errors.ErrUnsupported) {
			return err // not only our own cut, after the client had broken
		}
	}
	return nil
}

var buffers = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

// pass copies one direction and passes its end on. first, if not nil, is called before every piece is
// written. The errors say which side failed.
func pass(ctx context.Context, to, from net.Conn, first func(context.Context) error) (n int64, fromErr, toErr error) {
	buf := buffers.Get().(*[]byte)
	defer func() {
		if buf != nil {
			buffers.Put(buf)
		}
	}()
	target, out := proxy.TCP(to)
	source, in := proxy.TCP(from)
	for first != nil || !in || !out || n < spliceAfter {
		m, err := from.Read(*buf)
		if m > 0 {
			if first != nil {
				if err := first(ctx); err != nil {
					return n, nil, err
				}
			}
			w, err := to.Write((*buf)[:m])
			if n += int64(w); err != nil {
				return n, nil, err
			}
		}
		if err == io.EOF {
			return n, nil, closeWrite(to)
		}
		if err != nil {
			return n, err, nil
		}
	}
	buffers.Put(buf)
	buf = nil
	m, err := io.Copy(target, source)
	if n += m; err != nil {
		return n, err, nil
	}
	return n, nil, closeWrite(to)
}

func closeWrite(c net.Conn) error {
	half, ok := c.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported // then its end is the end of both
	}
	if err := half.CloseWrite(); err != nil && !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// turns charges an emulated node for a connection: once for each time that data from the client follows
// data from the instance, which is a request and its answer in most protocols. What an instance says
// before it is asked, as some do in greeting, costs nothing. ask and answer are each called by one
// goroutine.
type turns struct {
	take func(context.Context) (link.Turn, error)
	open atomic.Pointer[link.Turn]
}

func (t *turns) ask(ctx context.Context) error {
	if t.open.Load() != nil {
		return nil
	}
	turn, err := t.take(ctx)
	if err == nil {
		t.open.Store(&turn)
	}
	return err
}

// drop ends a turn that got no answer; nobody asks or answers any more.
func (t *turns) drop() {
	if turn := t.open.Swap(nil); turn != nil {
		turn.Drop()
	}
}

func (t *turns) answer(ctx context.Context) error {
	if turn := t.open.Swap(nil); turn != nil {
		return turn.End(ctx)
	}
	return nil
}
