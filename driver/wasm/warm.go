package wasm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/tetratelabs/wazero/api"
)

// idleAfter is how long an instance waits for a call; the last one waits for ever.
const idleAfter = time.Minute

// warm is an instance of a reactor: a module that exports handle, and _initialize if it has something to prepare. It
// answers one call at a time and keeps its memory from one to the next.
type warm struct {
	module api.Module
	handle api.Function
	fuel   api.MutableGlobal
	in     *input
	out    *output
	since  time.Time // when its last call ended
}

// input is what a reactor reads: the request under way.
type input struct{ r io.Reader }

// Read implements [io.Reader].
func (i *input) Read(p []byte) (int, error) {
	if i.r == nil {
		return 0, io.EOF
	}
	return i.r.Read(p)
}

// output is where a reactor's answer goes.
type output struct{ w io.Writer }

// Write implements [io.Writer]. What is written outside of a call goes nowhere.
func (o *output) Write(p []byte) (int, error) {
	if o.w == nil {
		return len(p), nil
	}
	return o.w.Write(p)
}

// end frees an instance.
func (w *warm) end() { _ = w.module.Close(context.Background()) }

// place is where the calls of one caller run: an engine, and instances on it. It is guarded by the caller's mu.
type place struct {
	engine  *engine
	users   int     // calls
	retired bool    // it goes with its last call
	idle    []*warm // instances that wait for a call, the one that was called last at the end
}

// enter returns the place of a call that begins, and leave lets go of it.
func (c *caller) enter() *place {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.place.users++
	if c.place.engine.key.interpreted {
		c.interpreted++
	}
	return c.place
}

func (c *caller) leave(at *place) {
	c.mu.Lock()
	at.users--
	last := at.retired && at.users == 0
	c.mu.Unlock()
	if last {
		c.of.close(at.engine)
	}
}

// change has calls that begin from now on run at another place. The old one ends with its last call, its idle instances at once.
func (c *caller) change(to *place) (interpreted int64) {
	c.mu.Lock()
	old, idle := c.place, c.place.idle
	c.place, old.retired, old.idle = to, true, nil
	last := old.users == 0
	interpreted = c.interpreted
	c.mu.Unlock()
	for _, w := range idle {
		w.end()
	}
	if last {
		c.of.close(old.engine)
	}
	return interpreted
}

// follow changes to compiled code when there is some, and returns then or when ctx ends.
func (c *caller) follow(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-c.of.done:
	}
	var to *place
	err := c.of.err
	if err == nil {
		to, err = c.open(ctx, false)
	}
	if err != nil {
		if ctx.Err() == nil {
			c.say("it stays interpreted: %v", err)
		}
		return
	}
	n := c.change(to)
	c.say("compiled in %v; until then %d calls were interpreted", c.of.took.Round(time.Millisecond), n)
}

// open makes a place, and for a reactor the first instance there.
func (c *caller) open(ctx context.Context, interpreted bool) (*place, error) {
	e, err := c.of.open(context.WithoutCancel(ctx), c.spec.Limits.Memory, interpreted)
	if err != nil {
		return nil, err
	}
	at := &place{engine: e}
	if e.reactor {
		if err := c.first(ctx, at); err != nil {
			c.of.close(e)
			return nil, err
		}
	}
	return at, nil
}

// first makes an instance before anybody calls it.
func (c *caller) first(ctx context.Context, at *place) error {
	ctx, cancel := context.WithTimeout(ctx, c.spec.Limits.Timeout)
	defer cancel()
	b := c.budget(ctx)
	b.turn.begin(false)
	defer b.turn.end(false)
	w, err := c.make(context.WithValue(ctx, budgetKey{}, b), at.engine)
	if err = why(ctx, err, nil); err != nil {
		return fmt.Errorf("%s: _initialize: %w", c.name, err)
	}
	c.put(at, w)
	return nil
}

// make makes an instance and has it initialize itself.
func (c *caller) make(ctx context.Context, e *engine) (*warm, error) {
	w := &warm{in: &input{}, out: &output{}}
	m, err := e.runtime.InstantiateModule(withMemory(ctx), e.module, c.config.WithStdin(w.in).WithStdout(w.out).WithStartFunctions("_initialize"))
	if err != nil {
		if m != nil {
			_ = m.Close(context.WithoutCancel(ctx))
		}
		return nil, err
	}
	w.module, w.handle = m, m.ExportedFunction("handle")
	fuel, ok := m.ExportedGlobal(counter).(api.MutableGlobal)
	if !ok || w.handle == nil {
		_ = m.Close(context.WithoutCancel(ctx))
		return nil, errors.New("it ended while it prepared itself")
	}
	w.fuel = fuel
	c.mu.Lock()
	c.made++
	c.mu.Unlock()
	return w, nil
}

// take returns an idle instance, or makes one. There are never more than calls that may run at a time.
func (c *caller) take(ctx context.Context, at *place) (*warm, error) {
	c.mu.Lock()
	if n := len(at.idle); n > 0 {
		w := at.idle[n-1]
		at.idle = at.idle[:n-1]
		c.mu.Unlock()
		return w, nil
	}
	c.mu.Unlock()
	return c.make(ctx, at.engine)
}

// put has an instance wait for its next call.
func (c *caller) put(at *place, w *warm) {
	w.since = time.Now()
	c.mu.Lock()
	kept := !at.retired && !c.ended
	if kept {
		at.idle = append(at.idle, w)
		if len(at.idle) > 1 && !c.sweeping {
			c.sweeping = true
			c.sweeper = time.AfterFunc(c.idleAfter, c.sweep)
		}
	}
	c.mu.Unlock()
	if !kept {
		w.end()
	}
}

// sweep ends instances that nobody has called for long, but for the last.
func (c *caller) sweep() {
	c.mu.Lock()
	at, n := c.place, 0
	for n < len(at.idle)-1 && time.Since(at.idle[n].since) >= c.idleAfter {
		n++
	}
	old := slices.Clone(at.idle[:n])
	at.idle = slices.Delete(at.idle, 0, n)
	if c.sweeping = len(at.idle) > 1 && !c.ended; c.sweeping {
		c.sweeper = time.AfterFunc(max(time.Millisecond, c.idleAfter-time.Since(at.idle[0].since)), c.sweep)
	}
	c.mu.Unlock()
	for _, w := range old {
		w.end()
	}
}

// handle answers a request by a reactor.
func (c *caller) handle(ctx context.Context, at *place, b *budget, r *http.Request, body io.Reader, length int64, a *answer) error {
	w, err := c.take(ctx, at)
	if err != nil {
		return why(b.ctx, err, a)
	}
	w.in.r, w.out.w = io.MultiReader(bytes.NewReader(netstring(variables(r, length), length)), body), a
	w.fuel.Set(0) // what the last call left is not this one's
	_, err = w.handle.Call(ctx)
	w.in.r, w.out.w = nil, nil
	if err = why(b.ctx, err, a); err == nil {
		err = a.end()
	}
	if err != nil || w.module.IsClosed() { // who knows what is in its memory now
		w.end()
		return err
	}
	c.put(at, w)
	return nil
}

// netstring writes CGI variables as SCGI does: a netstring of names and values, CONTENT_LENGTH first, each ended by a
// zero byte: "SCGI: A Simple Common Gateway Interface alternative", Schemenauer 2008, §3.
func netstring(vars [][2]string, length int64) []byte {
	var head []byte
	add := func(name, value string) {
		head = append(append(append(append(head, name...), 0), value...), 0)
	}
	add("CONTENT_LENGTH", strconv.FormatInt(length, 10))
	add("SCGI", "1")
	for _, v := range vars {
		if v[0] != "CONTENT_LENGTH" {
			add(v[0], v[1])
		}
	}
	out := append(strconv.AppendInt(nil, int64(len(head)), 10), ':')
	return append(append(out, head...), ',')
}
