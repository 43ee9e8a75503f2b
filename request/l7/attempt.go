package l7

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
	"servent/route"
)

// attempt sends the request to the instance that it has entered, and its answer to the client.
func (j *journey) attempt() (verdict, error) {
	x, s, in := j.x, j.x.s, j.in
	var v verdict
	var err error
	unreachable, ended := false, false
	j.enter()
	defer func() {
		if !ended { // a handler panicked
			s.loads.End(in.ID)
			j.line.End()
		}
	}()
	if in.Node == s.o.Self {
		v, err = x.here(x.in.Context(), in)
	} else {
		ctx, cancel := context.WithCancelCause(x.in.Context())
		defer cancel(nil)
		var watching sync.WaitGroup
		watching.Go(func() { s.watch(ctx, in.Node, func() { cancel(errLost) }) })
		v, unreachable, err = x.there(ctx, in)
		lost := context.Cause(ctx) == errLost
		cancel(nil)
		watching.Wait()
		if lost && v != answered {
			err = errLost
		}
	}
	ended = true
	j.leave(v, unreachable, x.in.Context().Err() != nil, err)
	return v, err
}

// here asks an instance of this node.
func (x *exchange) here(ctx context.Context, in route.Instance) (verdict, error) {
	s := x.s
	if s.o.Local == nil {
		return refused, errNotHere
	}
	ep, ok := s.o.Local(in.ID)
	if !ok {
		return refused, errNotHere
	}
	n := s.serving(in.ID)
	n.Add(1)
	defer n.Add(-1)
	leave, err := x.enter(ctx, in.ID)
	if err != nil {
		return refused, err
	}
	defer leave()
	turn, err := s.o.Station.Serve(ctx)
	if err != nil {
		return refused, err
	}
	ended := func() {}
	if s.o.Station != nil {
		ended = sync.OnceFunc(func() { _ = turn.End(ctx) }) // a client that left does not wait
		defer ended()
	}
	if ep.Handler != nil {
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		return x.call(ctx, ep.Handler, in, ended)
	}
	var way http.RoundTripper // nil: the switch's own
	if s.o.Reference {
		way = s.local
		if ep.Dial != nil {
			ctx = context.WithValue(ctx, endpoint{}, ep)
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		defer cancel()
	}
	v, _, err := x.send(ctx, way, ep, in, ended)
	return v, err
}

// there sends the request on to the instance's node. unreachable says that the node was not reached.
func (x *exchange) there(ctx context.Context, in route.Instance) (v verdict, unreachable bool, err error) {
	s := x.s
	var way http.RoundTripper
	if s.o.Remote != nil {
		way = s.o.Remote(in.Node)
	}
	if way == nil {
		return refused, true, errors.New("no link to its node")
	}
	if err := s.o.Station.Pass(ctx); err != nil {
		return refused, false, err
	}
	x.header.Set(headerInstance, string(in.ID))
	defer x.header.Del(headerInstance)
	if x.keyed != nil {
		x.keyed.set(x.header)
		defer x.keyed.del(x.header)
	}
	if x.stream != nil && x.header.Get("Expect") == "" {
		// A body that is read but once is sent when the instance is known to be there.
		x.header.Set("Expect", "100-continue")
		x.header.Set(headerContinue, "1")
		defer x.header.Del("Expect")
		defer x.header.Del(headerContinue)
	}
	return x.send(ctx, way, driver.Endpoint{Address: string(in.Node)}, in, func() {})
}

// send makes one HTTP exchange. ended is called before the answer begins to leave. unsent says that no
// connection was there to send it on.
func (x *exchange) send(ctx context.Context, way http.RoundTripper, ep driver.Endpoint, in route.Instance, ended func()) (v verdict, unsent bool, err error) {
	hints := informer{w: x.w}
	var res *http.Response
	var sent bool
	if way == nil {
		res, sent, err = x.s.near.ask(ctx, x, ep, &hints)
	} else {
		res, sent, err = x.trip(ctx, way, ep, &hints)
	}
	hints.close()
	switch {
	case err != nil && x.stream != nil && x.stream.failed.Load():
		return misread, false, fmt.Errorf("read the request's body: %w", x.stream.why)
	case err != nil && !sent:
		return refused, true, err
	case err != nil:
		return broken, false, err
	}
	defer res.Body.Close()
	if in.Node != x.s.o.Self {
		if why := res.Header.Get(headerMoved); why != "" {
			return refused, false, fmt.Errorf("%w: %s", errMoved, why)
		}
		if why := res.Header.Get(headerRefused); why != "" {
			return refused, false, errors.New(why)
		}
		if why := res.Header.Get(headerBroken); why != "" {
			return broken, false, errors.New(why)
		}
	}
	v, err = x.receive(ctx, res, in, ended)
	return v, false, err
}

// receive has the client get an instance's answer.
func (x *exchange) receive(ctx context.Context, res *http.Response, in route.Instance, ended func()) (verdict, error) {
	if res.StatusCode == http.StatusSwitchingProtocols {
		return x.tunnel(ctx, res, in, ended)
	}
	return x.deliver(ctx, res, in, ended)
}

// trip is the exchange by net/http: with other nodes, and where it stands in for our own way.
func (x *exchange) trip(ctx context.Context, way http.RoundTripper, ep driver.Endpoint, hints *informer) (*http.Response, bool, error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn:        func(string) { sent.Store(false) }, // also when the transport tries again by itself
		GotConn:        func(httptrace.GotConnInfo) { sent.Store(true); x.proceed() },
		Got1xxResponse: hints.pass,
	})
	res, err := way.RoundTrip(x.request(ctx, ep.Address))
	return res, sent.Load(), err
}

// proceed asks the node that sent the request for its body, now that the instance is there. Left to
// itself, net/http would when the body is first read: too late if the answer begins before.
func (x *exchange) proceed() {
	if x.waits {
		x.waits = false
		x.w.WriteHeader(http.StatusContinue)
	}
}

// informer passes answers of the 1xx kind on, from the transport's goroutine, until the exchange has
// its final answer or none.
type informer struct {
	mu     sync.Mutex
	w      http.ResponseWriter
	closed bool
}

func (i *informer) pass(code int, header textproto.MIMEHeader) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.closed || code == http.StatusContinue { // our server says "continue" itself, as the body is read
		return nil
	}
	h := i.w.Header()
	before := maps.Clone(h)
	maps.Copy(h, http.Header(header))
	endToEnd(h)
	i.w.WriteHeader(code)
	clear(h)
	maps.Copy(h, before)
	return nil
}

func (i *informer) close() {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.closed = true
}

// commit sends the head of the answer; from here on there is no other attempt.
func (x *exchange) commit(status int, header http.Header, in route.Instance, ended func()) {
	ended()
	endToEnd(header)
	var h http.Header
	if w, ok := x.w.(*answer); ok && len(w.h) == 0 {
		w.h, h = header, header
	} else {
		h = x.w.Header()
		maps.Copy(h, header)
	}
	if _, ok := h["Content-Type"]; !ok {
		h["Content-Type"] = nil // else net/http guesses one
	}
	x.stamp(h, status, in)
	x.w.WriteHeader(status)
}

// stamp notes when the answer began and, where the request entered, says who gave it.
func (x *exchange) stamp(h http.Header, status int, in route.Instance) {
	x.status, x.began = status, time.Since(x.start)
	if x.stream != nil && !x.stream.whole.Load() && x.in.ProtoMajor == 1 {
		h.Set("Connection", "close") // RFC 9112 §9.3: what is left of the request would be read as the next one
	}
	if x.entry {
		h.Add("Server-Timing", timing(in, x.began, x.cold, x.why)+x.keyed.timing())
		x.keep(h, in.ID)
	}
}

// call has a handler inside this process answer. It cannot refuse; if it panics before it has written
// anything, its answer broke.
func (x *exchange) call(ctx context.Context, h http.Handler, in route.Instance, ended func()) (v verdict, err error) {
	x.proceed()
	w := &insider{x: x, in: in, ended: ended}
	r := x.request(ctx, x.in.Host)
	r.URL.Scheme, r.URL.Host = "", "" // as a server's requests are
	r.TLS = x.in.TLS
	if r.Body == nil {
		r.Body = http.NoBody
	}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("its handler panicked: %v", p)
			if v = broken; w.committed {
				v = severed
			}
		}
	}()
	h.ServeHTTP(w, r)
	if w.moved != "" {
		return refused, fmt.Errorf("%w: %s", errMoved, w.moved)
	}
	if !w.committed {
		w.WriteHeader(http.StatusOK)
	}
	return answered, nil
}

// insider is the answer of a handler inside this process. One of 421 with Servent-Moved, and why, is none: the handler
// did nothing, because another instance has to answer, and the owner is looked for again.
type insider struct {
	x         *exchange
	in        route.Instance
	ended     func()
	committed bool
	moved     string // set: what it answers is thrown away
}

func (w *insider) Header() http.Header { return w.x.w.Header() }

func (w *insider) WriteHeader(status int) {
	if w.moved != "" {
		return
	}
	if why := w.Header().Get(headerMoved); !w.committed && status == http.StatusMisdirectedRequest && why != "" {
		w.moved = why
		clear(w.Header())
		return
	}
	if !w.committed && (status >= 200 || status == http.StatusSwitchingProtocols) {
		w.committed = true
		w.ended()
		h := w.Header()
		for _, name := range []string{headerRefused, headerBroken, headerInstance, headerMoved} {
			h.Del(name)
		}
		w.x.stamp(h, status, w.in)
	}
	w.x.w.WriteHeader(status)
}

func (w *insider) Write(p []byte) (int, error) {
	if !w.committed {
		w.WriteHeader(http.StatusOK)
	}
	if w.moved != "" {
		return len(p), nil
	}
	n, err := w.x.w.Write(p)
	w.x.out += int64(n)
	return n, err
}

// ReadFrom lets files go out by sendfile.
func (w *insider) ReadFrom(r io.Reader) (int64, error) {
	if !w.committed {
		w.WriteHeader(http.StatusOK)
	}
	if w.moved != "" {
		return io.Copy(io.Discard, r)
	}
	n, err := io.Copy(w.x.w, r)
	w.x.out += n
	return n, err
}

// Flush sends what is written so far.
func (w *insider) Flush() {
	if !w.committed {
		w.WriteHeader(http.StatusOK)
	}
	if w.moved != "" {
		return
	}
	_ = http.NewResponseController(w.x.w).Flush() // the next write tells
}

// Hijack hands the connection over to the handler.
func (w *insider) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	w.ended()
	w.committed = true
	w.x.status, w.x.began = http.StatusSwitchingProtocols, time.Since(w.x.start)
	unguard(w.x.in.Context())
	return http.NewResponseController(w.x.w).Hijack()
}

// Unwrap is for http.ResponseController.
func (w *insider) Unwrap() http.ResponseWriter { return w.x.w }
