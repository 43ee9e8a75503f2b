package l7

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/route"
)

// patience is how long the beginning of an answer of unknown length is kept back, so that a short one
// is whole before it is committed. Streams of events are passed on at once.
const patience = 10 * time.Millisecond

// small holds buffers of replay+1 bytes: one more than fits, so that a full one says "too long".
var small = sync.Pool{New: func() any { b := make([]byte, replay+1); return &b }}

// deliver passes an instance's answer on to the client.
func (x *exchange) deliver(ctx context.Context, res *http.Response, in route.Instance, ended func()) (verdict, error) {
	buf := small.Get().(*[]byte)
	defer small.Put(buf)
	switch n := res.ContentLength; {
	case res.Body == http.NoBody || n == 0:
		x.commit(res.StatusCode, res.Header, in, ended)
		return answered, nil
	case n > 0 && n <= replay:
		body := (*buf)[:n]
		if _, err := io.ReadFull(res.Body, body); err != nil {
			return broken, fmt.Errorf("read its answer: %w", cause(ctx, err))
		}
		x.commit(res.StatusCode, res.Header, in, ended)
		return answered, x.write(body)
	case n > replay:
		x.commit(res.StatusCode, res.Header, in, ended)
		if v, err, ok := x.splice(ctx, res); ok {
			return v, err
		}
		for {
			n, err := res.Body.Read(*buf)
			if werr := x.write((*buf)[:n]); werr != nil {
				return answered, werr
			}
			if err == io.EOF {
				return answered, nil
			}
			if err != nil {
				return severed, fmt.Errorf("read its answer: %w", cause(ctx, err))
			}
		}
	}
	return x.pour(ctx, res, in, ended)
}

func (x *exchange) write(p []byte) error {
	n, err := x.w.Write(p)
	x.out += int64(n)
	if err != nil {
		return fmt.Errorf("write to the client: %w", err)
	}
	return nil
}

// splice passes an answer of known length on within the kernel, where both sides are sockets of ours.
func (x *exchange) splice(ctx context.Context, res *http.Response) (v verdict, err error, ok bool) {
	body, ours := res.Body.(*outgoing)
	w, engine := x.w.(*answer)
	if !ours || !engine {
		return 0, nil, false
	}
	n, ok, upErr, err := body.splice(w)
	x.out += n
	switch {
	case err != nil:
		return answered, fmt.Errorf("write to the client: %w", err), ok
	case upErr != nil && upErr != io.EOF:
		return severed, fmt.Errorf("read its answer: %w", cause(ctx, upErr)), ok
	}
	return answered, nil, ok
}

// pour passes an answer of unknown length on. A short one is collected first; of a longer or slower one
// every piece leaves as it comes.
func (x *exchange) pour(ctx context.Context, res *http.Response, in route.Instance, ended func()) (verdict, error) {
	if b, ok := res.Body.(*outgoing); ok && b.body.Whole() && len(res.Trailer) == 0 && x.collects(res) { // as below, without waiting
		buf := small.Get().(*[]byte)
		defer small.Put(buf)
		n, err := 0, error(nil)
		for m := 0; err == nil; n += m { // it comes out of a smaller buffer: h1.MaxHead
			m, err = b.Read((*buf)[n:])
		}
		if err != io.EOF {
			return broken, fmt.Errorf("read its answer: %w", cause(ctx, err))
		}
		res.Header.Set("Content-Length", strconv.Itoa(n))
		x.commit(res.StatusCode, res.Header, in, ended)
		return answered, x.write((*buf)[:n])
	}
	announced := slices.Sorted(maps.Keys(res.Trailer))
	p := startPump(res.Body) // from here on res.Trailer is the pump's, until the end of the body
	defer p.stop()
	var first []byte
	var end error
	if x.collects(res) {
		first, end = p.collect(patience)
		if end != nil && end != io.EOF {
			return broken, fmt.Errorf("read its answer: %w", cause(ctx, end))
		}
		if end == io.EOF && len(res.Trailer) == 0 && res.Header.Get("Content-Length") == "" {
			res.Header.Set("Content-Length", strconv.Itoa(len(first)))
		}
	}
	if len(announced) > 0 {
		x.w.Header().Set("Trailer", strings.Join(announced, ", "))
	}
	x.commit(res.StatusCode, res.Header, in, ended)
	flush := http.NewResponseController(x.w)
	if err := x.write(first); err != nil {
		return answered, err
	}
	for end == nil {
		if err := flush.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return answered, fmt.Errorf("write to the client: %w", err)
		}
		var piece []byte
		piece, end = p.next()
		if err := x.write(piece); err != nil {
			return answered, err
		}
	}
	if end != io.EOF {
		return severed, fmt.Errorf("read its answer: %w", cause(ctx, end))
	}
	if len(res.Trailer) > 0 {
		_ = flush.Flush() // chunked from here on, as trailers need
		for name, values := range res.Trailer {
			if !slices.Contains(announced, name) {
				name = http.TrailerPrefix + name
			}
			x.w.Header()[name] = values
		}
	}
	return answered, nil
}

// collects says that the answer may be kept back a little, for the sake of asking someone else.
func (x *exchange) collects(res *http.Response) bool {
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	return kind != "text/event-stream" && x.repeatable(broken)
}

// cause is why a body broke: our own reason, where we ended it.
func cause(ctx context.Context, err error) error {
	if c := context.Cause(ctx); c == errLost {
		return c
	}
	return err
}

// pump reads a body in a goroutine, so that its reader may lose patience.
type pump struct {
	body   io.ReadCloser
	pieces chan piece
	done   chan struct{}
	gone   sync.WaitGroup
	held   *[]byte // that next handed out last
}

type piece struct {
	buf *[]byte
	n   int
	err error
}

var pieces = sync.Pool{New: func() any { b := make([]byte, 16<<10); return &b }}

func startPump(body io.ReadCloser) *pump {
	p := &pump{body: body, pieces: make(chan piece), done: make(chan struct{})}
	p.gone.Go(func() {
		for {
			buf := pieces.Get().(*[]byte)
			n, err := body.Read(*buf)
			select {
			case p.pieces <- piece{buf, n, err}:
			case <-p.done:
				return
			}
			if err != nil {
				return
			}
		}
	})
	return p
}

// next returns the next piece, which is good until the next call, and how the body ended, if it did.
func (p *pump) next() ([]byte, error) {
	p.free()
	got := <-p.pieces
	p.held = got.buf
	return (*got.buf)[:got.n], got.err
}

// collect gathers what comes within patience, up to replay bytes; the error is nil if there is more.
func (p *pump) collect(patience time.Duration) ([]byte, error) {
	timer := time.NewTimer(patience)
	defer timer.Stop()
	var all []byte
	for len(all) <= replay {
		select {
		case got := <-p.pieces:
			all = append(all, (*got.buf)[:got.n]...)
			pieces.Put(got.buf)
			if got.err != nil {
				return all, got.err
			}
		case <-timer.C:
			return all, nil
		}
	}
	return all, nil
}

func (p *pump) free() {
	if p.held != nil {
		pieces.Put(p.held)
		p.held = nil
	}
}

// stop closes the body and waits until nobody reads it.
func (p *pump) stop() {
	close(p.done)
	_ = p.body.Close() // what is left of it is not wanted
	p.gone.Wait()
	p.free()
}
