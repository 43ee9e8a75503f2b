package wasm

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/sys"

	"servent/driver"
)

const (
	mostHead = 64 << 10 // bytes of a program's header lines
	mostBody = 8 << 20  // bytes of a request's body whose length is not said before
)

var (
	errFuel   = errors.New("it used up its fuel")
	errTime   = errors.New("it took too long")
	errGone   = errors.New("nobody waits for the answer any more")
	errOutput = errors.New("it wrote more than it may")
	errHead   = errors.New("its header lines are no CGI response (RFC 3875 §6): want lines like Content-Type: text/plain, then an empty one")
	errMute   = errors.New("it ended without an answer")
)

// caller makes calls of one instance's module.
type caller struct {
	name      string
	spec      driver.Spec
	turns     chan struct{} // one is taken by every call that runs
	waiting   chan struct{} // and by every one that waits or runs
	config    wazero.ModuleConfig
	host      *host
	idleAfter time.Duration

	logged sync.Mutex // one line at a time

	of   *prepared
	long atomic.Bool // its last call

	mu          sync.Mutex // guards what follows, and the places
	place       *place
	interpreted int64 // calls that did not wait for the compiler
	made        int64 // instances that live on
	ended       bool
	sweeping    bool
	sweeper     *time.Timer
}

func newCaller(p *prepared, s driver.Spec) *caller {
	s.Limits.Timeout = cmp.Or(s.Limits.Timeout, defaultTimeout)
	s.Limits.Output = cmp.Or(s.Limits.Output, defaultOutput)
	s.Limits.Concurrency = cmp.Or(s.Limits.Concurrency, defaultConcurrency)
	c := &caller{name: p.name, of: p, spec: s, idleAfter: idleAfter}
	c.turns, c.waiting = make(chan struct{}, s.Limits.Concurrency), make(chan struct{}, 2*s.Limits.Concurrency)
	c.host = newHost(s, c.say)
	stderr := s.Stderr
	if stderr == nil {
		stderr = io.Discard
	}
	c.config = wazero.NewModuleConfig().WithName("").WithArgs(p.name).WithStderr(stderr).WithRandSource(rand.Reader).
		WithSysWalltime().WithSysNanotime() // a program's own sleep is refused: it would hold its turn
	for _, pair := range s.Env {
		if k, v, ok := strings.Cut(pair, "="); ok && k != "" {
			c.config = c.config.WithEnv(k, v)
		}
	}
	return c
}

// say writes a line to the instance's log.
func (c *caller) say(format string, args ...any) {
	if c.spec.Stderr == nil {
		return
	}
	c.logged.Lock()
	defer c.logged.Unlock()
	fmt.Fprintf(c.spec.Stderr, format+"\n", args...)
}

// end frees what the calls used, when there are none any more.
func (c *caller) end() {
	c.mu.Lock()
	c.ended = true
	at := c.place
	idle := at.idle
	at.idle = nil
	if c.sweeper != nil {
		c.sweeper.Stop()
	}
	c.mu.Unlock()
	c.host.close()
	for _, w := range idle {
		w.end()
	}
	c.of.close(at.engine)
}

// budget is what one call may still use.
type budget struct {
	ctx  context.Context
	left int64 // instructions; none is no bound
	some bool  // left is a bound
	turn turn
	host *host
	rest []byte // of a host call's answer, to be taken
}

func (c *caller) budget(ctx context.Context) *budget {
	return &budget{ctx: ctx, host: c.host, turn: turn{lane: c.of.lane, ctx: ctx}, left: int64(c.spec.Limits.Fuel), some: c.spec.Limits.Fuel > 0}
}

// spend charges for what the host does, and ends a call that cannot pay.
func (b *budget) spend(n int64) {
	if !b.some {
		return
	}
	if b.left -= n; b.left < 0 {
		panic(errFuel)
	}
}

type budgetKey struct{}

// refuel is the host's side of [Meter]: it gives a call the next slice of its budget, or ends it.
func refuel(ctx context.Context, stack []uint64) {
	b, ok := ctx.Value(budgetKey{}).(*budget)
	if !ok {
		panic(errFuel)
	}
	if err := b.ctx.Err(); err != nil {
		panic(late(err))
	}
	b.turn.pass()
	next := int64(slice)
	if b.some {
		next = min(next, b.left)
		b.left -= next
	}
	next += int64(stack[0]) // what was used beyond the last slice
	if b.some && next < 0 {
		panic(errFuel)
	}
	stack[0] = uint64(next)
}

func late(err error) error {
	if errors.Is(err, context.DeadlineExceeded) {
		return errTime
	}
	return errGone
}

// serve answers one request.
func (c *caller) serve(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), c.spec.Limits.Timeout)
	defer cancel()
	select {
	case c.waiting <- struct{}{}:
		defer func() { <-c.waiting }()
	default:
		w.Header().Set("Retry-After", "1")
		http.Error(w, fmt.Sprintf("%s: %d calls run and as many wait", c.spec.Instance, c.spec.Limits.Concurrency), http.StatusServiceUnavailable)
		return
	}
	select {
	case c.turns <- struct{}{}:
		defer func() { <-c.turns }()
	case <-ctx.Done():
		http.Error(w, string(c.spec.Instance)+": no turn in time", http.StatusServiceUnavailable)
		return
	}
	if strings.Contains(r.URL.Path, "\x00") { // ends a variable; no other part of a request can have it
		http.Error(w, "want a path without a zero byte (%00)", http.StatusBadRequest)
		return
	}
	body, length, err := content(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	a := &answer{w: w, left: c.spec.Limits.Output, broke: cancel}
	err = c.call(ctx, r, body, length, a)
	if err == nil {
		return
	}
	c.say("%s %s: %v", r.Method, r.URL.Path, err)
	if a.begun { // what was sent cannot be taken back; the client must see that it is not whole
		panic(http.ErrAbortHandler)
	}
	status := http.StatusBadGateway
	if errors.Is(err, errTime) {
		status = http.StatusGatewayTimeout
	}
	http.Error(w, fmt.Sprintf("%s: %v", c.spec.Instance, err), status)
}

// content is the request's body and its length, which a program must know before it reads.
func content(r *http.Request) (io.Reader, int64, error) {
	if r.Body == nil || r.ContentLength == 0 {
		return bytes.NewReader(nil), 0, nil
	}
	if r.ContentLength > 0 {
		return r.Body, r.ContentLength, nil
	}
	all, err := io.ReadAll(io.LimitReader(r.Body, mostBody+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("read the body: %w", err)
	case len(all) > mostBody:
		return nil, 0, fmt.Errorf("a body whose length is not said may have %d MiB", mostBody>>20)
	}
	return bytes.NewReader(all), int64(len(all)), nil
}

// call has the module answer one request: a command from an empty memory, a reactor by an instance that lives on.
func (c *caller) call(ctx context.Context, r *http.Request, body io.Reader, length int64, a *answer) error {
	at := c.enter()
	defer c.leave(at)
	e := at.engine
	b := c.budget(ctx)
	b.turn.begin(c.long.Load())
	var err error
	defer func() { c.long.Store(b.turn.end(err != nil)) }()
	inside := context.WithValue(ctx, budgetKey{}, b)
	if e.reactor {
		err = c.handle(inside, at, b, r, body, length, a)
	} else {
		config := c.config.WithStdin(body).WithStdout(a)
		for _, v := range variables(r, length) {
			config = config.WithEnv(v[0], v[1])
		}
		var m api.Module
		if m, err = e.runtime.InstantiateModule(withMemory(inside), e.module, config); m != nil {
			_ = m.Close(context.WithoutCancel(ctx)) // frees its memory
		}
		if err = why(ctx, err, a); err == nil {
			err = a.end()
		}
	}
	if e.key.interpreted && errors.Is(err, errTime) {
		return fmt.Errorf("%w, interpreted: the module is still being compiled", err)
	}
	return err
}

// why says in few words how a program ended.
func why(ctx context.Context, err error, a *answer) error {
	var exit *sys.ExitError
	switch {
	case err == nil:
		return nil
	case a != nil && a.err != nil:
		return a.err
	case errors.Is(err, errFuel):
		return errFuel
	case errors.Is(err, errTime), errors.Is(err, errGone):
		return late(ctx.Err())
	case errors.Is(err, errPass):
		return errPass
	case errors.As(err, &exit) && exit.ExitCode() == 0:
		return nil
	case errors.As(err, &exit):
		return fmt.Errorf("it ended with exit %d", exit.ExitCode())
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // the rest is the module's stack
	for _, name := range []string{"_start", "_initialize"} {
		text = strings.TrimPrefix(text, "module[] function["+name+"] failed: ")
	}
	return errors.New(text)
}

// variables are what a CGI program reads of a request, RFC 3875 §4.1.
func variables(r *http.Request, length int64) [][2]string {
	host, port := r.Host, "80"
	if h, p, err := net.SplitHostPort(r.Host); err == nil {
		host, port = h, p
	}
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	path, err := url.PathUnescape(r.URL.EscapedPath())
	if err != nil {
		path = r.URL.Path
	}
	out := [][2]string{{"GATEWAY_INTERFACE", "CGI/1.1"}, {"SERVER_SOFTWARE", "servent"}, {"SERVER_PROTOCOL", r.Proto},
		{"SERVER_NAME", host}, {"SERVER_PORT", port}, {"REQUEST_METHOD", r.Method}, {"REQUEST_URI", r.URL.RequestURI()},
		{"SCRIPT_NAME", ""}, {"PATH_INFO", path}, {"QUERY_STRING", r.URL.RawQuery}, {"REMOTE_ADDR", remote}, {"HTTP_HOST", r.Host}}
	if length > 0 {
		out = append(out, [2]string{"CONTENT_LENGTH", strconv.FormatInt(length, 10)})
	}
	if t := r.Header.Get("Content-Type"); t != "" {
		out = append(out, [2]string{"CONTENT_TYPE", t})
	}
	for name, values := range r.Header {
		if slices.Contains([]string{"Authorization", "Content-Type", "Content-Length", "Proxy", "Connection"}, name) {
			continue // §4.1.18; Proxy would be read as HTTP_PROXY, where programs send what they ask others
		}
		if strings.Contains(name, "_") {
			continue // X_User would be read as X-User
		}
		out = append(out, [2]string{"HTTP_" + strings.ToUpper(strings.ReplaceAll(name, "-", "_")), strings.Join(values, ", ")})
	}
	return out
}

// answer takes what a program writes: header lines, an empty line, the body. RFC 3875 §6.
type answer struct {
	w     http.ResponseWriter
	head  []byte // until the empty line
	begun bool   // the client has the status
	left  int64  // bytes that may still be written
	err   error  // of the first write that failed
	broke func() // is called then: the program need not go on
}

// Write implements [io.Writer].
func (a *answer) Write(p []byte) (int, error) {
	if a.err != nil {
		return 0, a.err
	}
	defer func() {
		if a.err != nil {
			a.broke()
		}
	}()
	if a.left -= int64(len(p)); a.left < 0 {
		a.err = errOutput
		return 0, a.err
	}
	n := len(p)
	if !a.begun {
		a.head = append(a.head, p...)
		end, gap := blank(a.head)
		switch {
		case end < 0 && len(a.head) > mostHead:
			a.err = errHead
		case end >= 0:
			a.err = a.begin(a.head[:end])
			p = a.head[end+gap:]
		}
		if a.err != nil || !a.begun {
			return n, a.err
		}
	}
	if len(p) > 0 {
		_, a.err = a.w.Write(p)
	}
	return n, a.err
}

// blank finds the empty line and how long it is.
func blank(head []byte) (at, length int) {
	for i, c := range head {
		if c != '\n' {
			continue
		}
		if rest := head[i+1:]; bytes.HasPrefix(rest, []byte("\n")) {
			return i + 1, 1
		} else if bytes.HasPrefix(rest, []byte("\r\n")) {
			return i + 1, 2
		}
	}
	if bytes.HasPrefix(head, []byte("\n")) {
		return 0, 1
	}
	return -1, 0
}

// begin sends the status and the header lines.
func (a *answer) begin(head []byte) error {
	lines, err := textproto.NewReader(bufio.NewReader(bytes.NewReader(append(slices.Clone(head), "\n"...)))).ReadMIMEHeader()
	if err != nil || len(lines) == 0 {
		return errHead
	}
	status := http.StatusOK
	if lines.Get("Location") != "" {
		status = http.StatusFound // §6.2.3
	}
	if text := lines.Get("Status"); text != "" {
		code, _, _ := strings.Cut(text, " ")
		if status, err = strconv.Atoi(code); err != nil || status < 200 || status > 599 {
			return fmt.Errorf("status %q: want a number from 200 to 599", text)
		}
	}
	lines.Del("Status")
	for name, values := range lines {
		for _, v := range values {
			if name != "Transfer-Encoding" && name != "Connection" {
				a.w.Header().Add(name, v)
			}
		}
	}
	a.w.WriteHeader(status)
	a.begun = true
	return nil
}

// end says whether the answer is whole.
func (a *answer) end() error {
	switch {
	case a.err != nil:
		return a.err
	case !a.begun && len(a.head) == 0:
		return errMute
	case !a.begun:
		return errHead
	}
	return nil
}
