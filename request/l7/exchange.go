package l7

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"

	"servent/route"
	"servent/system"
)

// replay is the size up to which request bodies are read before they are sent, so that they can be sent
// again, and answers before they are passed on, so that the request can.
const replay = 64 << 10

var (
	errLost    = errors.New("its node is lost")
	errNotHere = errors.New("it does not run here")
)

// verdict is how an attempt at one instance ended.
type verdict int

const (
	answered verdict = iota // the client has its answer, or has left
	refused                 // the instance never saw the request
	broken                  // it may have seen it; the client has nothing yet
	severed                 // the answer broke when a part of it was with the client
	misread                 // the client's own body broke
)

// exchange is one request on its way to an answer.
type exchange struct {
	s     *Switch
	w     http.ResponseWriter
	in    *http.Request
	entry bool // false: another node's switch sent it here
	start time.Time

	keyed  *keyed      // set when a key decides who answers
	kept   *session    // set when clients stay with an instance by a cookie
	why    string      // the instance that is being asked is
	header http.Header // for the next hop; each attempt gets a copy
	small  []byte      // the body, when it is small and of known length
	stream *stream     // the body, when it is not
	waits  bool        // for our word before the other node sends the body
	once   bool        // the service tells one write from two

	called system.ServiceName // it is counted as a call of, or empty
	timed  bool               // and how long its answer takes
	wakes  bool               // it waits, or has waited, for a first instance to be made
	cold   time.Duration      // so long

	status  int           // of the answer
	began   time.Duration // after start, until the answer began to leave
	out     int64         // bytes of the answer's body
	towards int64         // bytes to the instance after both have switched protocols
}

// stream is a request's body that is read but once, by one reader at a time: who holds turn.
type stream struct {
	body    io.Reader
	turn    chan struct{} // of capacity 1
	ended   bool          // the exchange is over; belongs to who holds turn
	touched atomic.Bool
	failed  atomic.Bool
	why     error       // it failed; set before that
	whole   atomic.Bool // all of it was read
	n       atomic.Int64
}

func (b *stream) Read(p []byte) (int, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	if b.ended {
		return 0, http.ErrBodyReadAfterClose
	}
	b.touched.Store(true)
	n, err := b.body.Read(p)
	b.n.Add(int64(n))
	switch err {
	case nil:
	case io.EOF:
		b.whole.Store(true)
	default:
		b.why = err
		b.failed.Store(true)
	}
	return n, err
}

// Close leaves the body open for the next attempt; the server closes it.
func (b *stream) Close() error { return nil }

// end stops the transport's reading, which goes on behind an answer that came before the request was
// read whole. A read that waits for the client is cut short, and with it the connection's next request.
func (b *stream) end(w http.ResponseWriter) {
	select {
	case b.turn <- struct{}{}:
	default:
		_ = http.NewResponseController(w).SetReadDeadline(time.Unix(1, 0)) // a hijacked connection has none
		b.turn <- struct{}{}
	}
	b.ended = true
	<-b.turn
}

func (s *Switch) exchange(w http.ResponseWriter, r *http.Request, entry bool) *exchange {
	return &exchange{s: s, w: w, in: r, entry: entry, start: time.Now(), header: onward(r, entry, s.o.Table())}
}

// body makes the request's body ready: read, or to be streamed while the answer may already come. Every
// body has one [exchange.end].
func (x *exchange) body() error {
	switch n := x.in.ContentLength; {
	case x.in.Body == nil || x.in.Body == http.NoBody || n == 0:
	case n > 0 && n <= replay:
		x.header.Del("Expect") // the server says "100 Continue" as we read
		x.small = make([]byte, n)
		if _, err := io.ReadFull(x.in.Body, x.small); err != nil {
			return fmt.Errorf("read the request's body: %w", err)
		}
	default:
		x.stream = &stream{body: x.in.Body, turn: make(chan struct{}, 1)}
		_ = http.NewResponseController(x.w).EnableFullDuplex() // HTTP/2 always is
	}
	return nil
}

func (x *exchange) end() {
	if x.called != "" {
		now := time.Now()
		x.s.o.Calls.End(x.called, now)
		if x.timed {
			x.s.o.Calls.Took(x.called, now, cmp.Or(x.began, now.Sub(x.start))) // to the answer, or to the end without one
		}
	}
	if x.stream != nil {
		x.stream.end(x.w)
	}
}

// count tells of a request to a service whose instances follow its calls, once.
func (x *exchange) count(to route.Target) {
	if to.Called && x.called == "" && x.s.o.Calls != nil {
		x.called, x.timed = to.Service, to.Timed
		x.s.o.Calls.Begin(to.Service, time.Now(), len(to.Among) == 0)
	}
}

// warm ends the wait for a first instance.
func (x *exchange) warm(to route.Target) {
	if x.wakes && x.cold == 0 {
		x.cold = time.Since(x.start)
		x.s.o.Meter.Line(to.Service, "").Cold()
	}
}

// repeatable says that the request can be sent once more: to an instance, if none has seen it.
func (x *exchange) repeatable(v verdict) bool {
	if x.stream != nil && x.stream.touched.Load() {
		return false
	}
	return v == refused || v == broken && x.harmless()
}

// harmless says that an instance may see the request twice. One that writes on a condition is not, whatever its
// method: the first time may have made the condition false, and the second answer would deny what took place. Nor is a write
// of a service that orders them: in between another one may have come.
func (x *exchange) harmless() bool {
	switch x.in.Method {
	case http.MethodPut, http.MethodDelete:
		if x.once {
			return false
		}
		for _, name := range []string{"If-Match", "If-None-Match", "If-Unmodified-Since"} {
			if x.in.Header.Get(name) != "" {
				return false
			}
		}
	}
	return idempotent(x.in.Method)
}

// run is the life of a request that enters here.
func (x *exchange) run(aim func(*route.Table) route.Target) {
	s := x.s
	if to := aim(s.table()); x.entry && to.Model == route.ModelOne {
		patient, cancel := context.WithTimeoutCause(x.in.Context(), s.o.Hold, route.ErrTurn)
		done, err := s.turns.Take(patient, to.Service, s.o.Waiters)
		cancel()
		if err != nil {
			x.refuse(http.StatusServiceUnavailable, fmt.Sprintf("%s: %v", to.Service, err), "ask again, or: switch: {model: threads}")
			return
		}
		defer done()
	}
	if err := x.body(); err != nil {
		x.refuse(misreadAs(err), err.Error(), "")
		return
	}
	defer x.end()
	(&journey{x: x, aim: aim, hold: holding{s: s}}).run(false)
}

// misreadAs is the status for a body that could not be read.
func misreadAs(err error) int {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return http.StatusRequestTimeout
	}
	return http.StatusBadRequest
}

// abandon ends the exchange when the client has left. Just to return would send it an empty 200, and one
// that has closed but its own half would believe it.
func (x *exchange) abandon() {
	if x.in.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
}

func (x *exchange) moved() int64 {
	if x.stream != nil {
		return x.stream.n.Load() + x.towards
	}
	return int64(len(x.small)) + x.towards
}

// giveUp answers that no instance can take the request.
func (x *exchange) giveUp(to route.Target, last, err error) {
	x.s.o.Meter.Line(to.Service, "").Refused()
	why := to.Why
	switch {
	case last != nil && len(to.Among) > 0:
		why = last.Error()
	case to.Each > 0 && len(to.Among) > 0:
		why = fmt.Sprintf("each of %d has the %d requests that it is given at a time", len(to.Among), to.Each)
	case why == "":
		why = err.Error()
	}
	if errors.Is(err, errHeld) {
		why += fmt.Sprintf("; waited %v for it", x.s.o.Hold)
	} else if errors.Is(err, errFull) {
		why += "; " + err.Error()
	}
	x.w.Header().Set("Retry-After", strconv.Itoa(1))
	x.refuse(http.StatusServiceUnavailable, fmt.Sprintf("no instance of %s can answer: %s", to.Service, why), "servent explain "+string(to.Service))
}

// refuse answers with an error of ours, given by no instance.
func (x *exchange) refuse(status int, why, next string) {
	x.stamp(x.w.Header(), status, route.Instance{Node: x.s.o.Self, Local: true})
	refuse(x.w, status, why, next)
}

var (
	errNobody = errors.New("none is ready")
	errHeld   = errors.New("none became ready in time")
	errFull   = errors.New("too many requests wait already")
)

// holding is one request's wait for an instance, in parts, up to Options.Hold in all.
type holding struct {
	s     *Switch
	until *time.Timer
	pause time.Duration // until instances that refused are asked again
}

// wait returns nil when it is worth looking again: after a table swap, or after a short while when
// there are instances that refuse, as one does whose program has just ended.
func (h *holding) wait(ctx context.Context, to route.Target, changed <-chan struct{}) error {
	if len(to.Among) == 0 && !to.Coming && !to.Seeks {
		return errNobody
	}
	if h.until == nil {
		if h.s.o.Hold < 0 {
			return errNobody
		}
		if h.s.waiting.Add(1) > int64(h.s.o.Waiters) {
			h.s.waiting.Add(-1)
			return errFull
		}
		h.until = time.NewTimer(h.s.o.Hold)
		h.s.o.Meter.Line(to.Service, "").Held()
	}
	var again <-chan time.Time
	if len(to.Among) > 0 || to.Seeks {
		most := 250 * time.Millisecond
		if to.Each > 0 { // a place is free as soon as an answer is there
			most = 50 * time.Millisecond
		}
		h.pause = min(max(2*h.pause, 10*time.Millisecond), most)
		t := time.NewTimer(h.pause)
		defer t.Stop()
		again = t.C
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-h.until.C:
		return errHeld
	case <-changed:
	case <-again:
	}
	return nil
}

func (h *holding) end() {
	if h.until != nil {
		h.until.Stop()
		h.s.waiting.Add(-1)
	}
}

// request makes one for the next hop. A small body may be sent again by the transport itself, when a
// kept connection turns out to be closed before anything was written to it.
func (x *exchange) request(ctx context.Context, host string) *http.Request {
	u := *x.in.URL
	u.Scheme, u.Host, u.User, u.Fragment = "http", host, nil, ""
	r := (&http.Request{
		Method: x.in.Method, URL: &u, Host: x.in.Host, Header: x.header.Clone(),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, RemoteAddr: x.in.RemoteAddr, RequestURI: x.in.RequestURI,
	}).WithContext(ctx)
	if _, ok := r.Header["User-Agent"]; !ok {
		r.Header["User-Agent"] = nil // else http.Transport names itself
	}
	switch {
	case x.stream != nil:
		r.Body, r.ContentLength = x.stream, x.in.ContentLength
		r.Trailer = x.in.Trailer // shared: filled when the body has been read
	case len(x.small) > 0:
		r.ContentLength = int64(len(x.small))
		r.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(x.small)), nil }
		r.Body, _ = r.GetBody()
	}
	return r
}
