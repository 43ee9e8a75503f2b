package flow

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/system"
	"servent/system/notation"
)

// run is one run of the flow.
type run struct {
	f     *Flow
	id    string
	begin *entry
	over  chan struct{} // closed when it ended, or its flow's instance does

	mu      sync.Mutex // guards what follows
	state   state
	value   any
	why     string
	past    []*entry          // in the order in which they were kept
	made    map[string]*entry // steps by path, done or failed for good
	back    map[string]*entry // steps that were taken back, by path
	undo    []undo            // in the order in which the steps were made
	stop    context.CancelFunc
	dropped bool // somebody cancelled it
}

// undo is what takes a step back.
type undo struct {
	of   *entry
	call *system.Call
	seen map[string]any // values as the step saw them, and its own result
}

func newRun(f *Flow, id string, begin *entry) *run {
	return &run{f: f, id: id, begin: begin, state: running, over: make(chan struct{}), made: map[string]*entry{}, back: map[string]*entry{}}
}

// replay takes in an entry of an earlier life.
func (r *run) replay(e *entry) {
	r.past = append(r.past, e)
	switch e.What {
	case "done", "failed":
		r.made[e.Path] = e
	case "undone":
		r.back[e.Path] = e
	case "cancel":
		r.dropped = true
	case "end":
		r.state, r.value, r.why = e.State, e.Value, e.Error
	}
}

// keep writes an entry down and takes it in.
func (r *run) keep(e *entry) error {
	e.At = time.Now().UTC()
	write := r.f.journal.Append
	if e.What == "end" {
		write = r.f.journal.End
	}
	if err := write(r.id, e.bytes()); err != nil {
		return fmt.Errorf("keep what was done: %w", err)
	}
	r.mu.Lock()
	r.replay(e)
	r.mu.Unlock()
	return nil
}

var (
	errReturn    = errors.New("the flow returned")
	errCancelled = errors.New("it was cancelled")
)

// stepError is a step that failed.
type stepError struct{ err error }

func (s *stepError) Error() string { return s.err.Error() }

func (s *stepError) Unwrap() error { return s.err }

// live makes the run until it ends or ctx does; then its next life goes on.
func (r *run) live(ctx context.Context) {
	own, stop := context.WithCancel(ctx)
	defer stop()
	r.mu.Lock()
	r.stop = stop
	if r.dropped {
		stop()
	}
	r.mu.Unlock()
	out := &outcome{}
	values := map[string]any{"input": r.begin.Input, "run": r.id}
	value, err := r.steps(own, r.begin.Steps, values, "", out)
	if out.set {
		value = out.value
	}
	r.mu.Lock()
	dropped := r.dropped
	r.mu.Unlock()
	if ctx.Err() != nil {
		return
	}
	_, isStep := errors.AsType[*stepError](err)
	switch {
	case err == nil, errors.Is(err, errReturn):
		err = r.keep(&entry{What: "end", State: done, Value: value})
	case dropped:
		err = r.takeBack(ctx, cancelled, errCancelled.Error())
	case isStep:
		err = r.takeBack(ctx, failed, err.Error())
	}
	if err != nil && ctx.Err() == nil { // the disk: nothing was acknowledged that is not kept, and a next life goes on
		r.mu.Lock()
		r.why = err.Error()
		r.mu.Unlock()
		r.f.o.Log.Error("a run stands still until the next start", "run", r.id, "err", err)
	}
}

// outcome is what a return step said.
type outcome struct {
	mu    sync.Mutex
	set   bool
	value any
}

// steps makes steps one after the other and returns the last one's result. values are those that they see; what they add is seen only below.
func (r *run) steps(ctx context.Context, steps []system.Step, values map[string]any, at string, out *outcome) (last any, err error) {
	values = maps.Clone(values)
	for i := range steps {
		s := &steps[i]
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		path := at + strconv.Itoa(i)
		switch {
		case s.Call != nil:
			last, err = r.call(ctx, s, path, values)
		case s.Branches != nil:
			last, err = r.together(ctx, len(s.Branches), len(s.Branches), func(ctx context.Context, n int) (any, error) {
				return r.steps(ctx, s.Branches[n], values, path+"/"+strconv.Itoa(n)+"/", out)
			})
		case s.Map != nil:
			last, err = r.each(ctx, s.Map, path, values, out)
		case s.Choice != nil:
			last, err = r.choose(ctx, s.Choice, path, values, out)
		case s.Fail != "":
			var text any
			if text, err = notation.Fill(s.Fail, values); err == nil {
				err = fmt.Errorf("%v", text)
			}
			err = &stepError{err}
		default:
			if last, err = notation.Fill(s.Return, values); err != nil {
				err = &stepError{fmt.Errorf("return: %w", err)}
				break
			}
			out.mu.Lock()
			out.set, out.value = true, last
			out.mu.Unlock()
			err = errReturn
		}
		if err != nil {
			return last, err
		}
		if s.Name != "" {
			values[s.Name] = last
		}
	}
	return last, nil
}

// together makes n things, at most so many at once. When one fails no other begins; those that are under way are waited for, since what they do must be
// known to be taken back.
func (r *run) together(ctx context.Context, n, atOnce int, one func(context.Context, int) (any, error)) (any, error) {
	results, errs := make([]any, n), make([]error, n)
	room := make(chan struct{}, max(1, atOnce))
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var all sync.WaitGroup
	for i := range n {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			break
		}
		all.Go(func() {
			defer func() { <-room }()
			if results[i], errs[i] = one(ctx, i); errs[i] != nil {
				stop(errs[i])
			}
		})
	}
	all.Wait()
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	return results, nil
}

func (r *run) each(ctx context.Context, m *system.Map, path string, values map[string]any, out *outcome) (any, error) {
	over, err := notation.Fill(m.Over, values)
	items, ok := over.([]any)
	if err == nil && !ok {
		err = fmt.Errorf("want a list, have %T", over)
	}
	if err == nil && len(items) > maxItems {
		err = fmt.Errorf("want at most %d items, have %d", maxItems, len(items))
	}
	if err != nil {
		return nil, &stepError{fmt.Errorf("map %s: %w", m.Over, err)}
	}
	return r.together(ctx, len(items), m.AtOnce, func(ctx context.Context, n int) (any, error) {
		seen := maps.Clone(values)
		seen["item"], seen["index"] = items[n], n
		return r.steps(ctx, m.Steps, seen, path+"/"+strconv.Itoa(n)+"/", out)
	})
}

func (r *run) choose(ctx context.Context, c *system.Choice, path string, values map[string]any, out *outcome) (any, error) {
	t, err := notation.ParseTemplate(c.On)
	text := ""
	if err == nil {
		text, err = t.Text(values, nil)
	}
	if err != nil {
		return nil, &stepError{fmt.Errorf("choice %s: %w", c.On, err)}
	}
	way, ok := c.When[text]
	if !ok {
		return r.steps(ctx, c.Else, values, path+"/else/", out)
	}
	return r.steps(ctx, way, values, path+"/"+url.PathEscape(text)+"/", out)
}

// call makes a step's request, unless an earlier life has, and keeps what came of it.
func (r *run) call(ctx context.Context, s *system.Step, path string, values map[string]any) (any, error) {
	r.mu.Lock()
	e := r.made[path]
	r.mu.Unlock()
	if e == nil {
		e = &entry{Path: path, Name: s.Name, Service: s.Call.Service, Began: time.Now().UTC()}
		r.try(ctx, s.Call, values, e, s.Call.Tries, r.id+"/"+path)
		if ctx.Err() != nil && e.What == "" {
			return nil, context.Cause(ctx)
		}
		if err := r.keep(e); err != nil {
			return nil, err
		}
	}
	if s.Call.Undo != nil && (e.What == "done" || e.Unknown) {
		seen := maps.Clone(values)
		if e.What == "done" && s.Name != "" {
			seen[s.Name] = e.Value
		}
		r.mu.Lock()
		r.undo = append(r.undo, undo{e, s.Call.Undo, seen})
		r.mu.Unlock()
	}
	if e.What == "failed" {
		return nil, &stepError{fmt.Errorf("%s: %s", s.Name, e.Error)}
	}
	return e.Value, nil
}

// try makes a request until it is answered for good, or ctx ends: then e says neither that it is done nor that it failed. A request that is under way is not cut
// off when another step fails: its answer says what there is to take back.
func (r *run) try(ctx context.Context, c *system.Call, values map[string]any, e *entry, tries int, key string) {
	fail := func(err error) { e.What, e.Error = "failed", err.Error() }
	path, body, err := fill(c, values)
	if err != nil {
		fail(err)
		return
	}
	e.Request = c.Method + " " + path
	base := r.f.o.URL(c.Service)
	if base == "" {
		fail(fmt.Errorf("the plan has no service %s", c.Service))
		return
	}
	for wait := c.Wait; ; wait = min(2*wait, waitMost) {
		e.Tries++
		var again bool
		e.Status, e.Value, again, err = r.f.ask(r.f.ctx, c, base+path, body, key, r.id)
		if err == nil {
			e.What, e.Error, e.Unknown = "done", "", false
			return
		}
		if r.f.ctx.Err() != nil { // this life ends: the next one makes it again
			return
		}
		e.Unknown = e.Unknown || again
		if !again || e.Tries >= tries {
			fail(err)
			return
		}
		select {
		case <-ctx.Done():
			if context.Cause(ctx) != ctx.Err() || r.gone() { // another step failed, or somebody cancelled: this one is given up
				fail(err)
			}
			return
		case <-time.After(wait/2 + rand.N(wait/2+1)):
		}
	}
}

// gone says that somebody cancelled the run.
func (r *run) gone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// fill fills a call's templates.
func fill(c *system.Call, values map[string]any) (path string, body []byte, err error) {
	t, err := notation.ParseTemplate(c.Path)
	if err != nil {
		return "", nil, err
	}
	if path, err = t.Text(values, url.PathEscape); err != nil {
		return "", nil, err
	}
	if c.Body == nil {
		return path, nil, nil
	}
	filled, err := notation.Fill(c.Body, values)
	if err != nil {
		return "", nil, err
	}
	body, err = json.Marshal(filled)
	return path, body, err
}

// ask makes one request. again says that another try may help, and that it may have been done all the same.
func (f *Flow) ask(ctx context.Context, c *system.Call, to string, body []byte, key, run string) (status int, value any, again bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, c.Method, to, bytes.NewReader(body))
	if err != nil {
		return 0, nil, false, err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Idempotency-Key", `"`+key+`"`)
	req.Header.Set("Servent-Run", run)
	resp, err := f.client.Do(req)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			err = fmt.Errorf("no answer within %s", c.Timeout)
		}
		return 0, nil, true, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, MaxInput+1))
	switch {
	case err != nil:
		return resp.StatusCode, nil, true, fmt.Errorf("the answer broke off: %w", err)
	case len(b) > MaxInput:
		return resp.StatusCode, nil, false, fmt.Errorf("an answer of more than %d bytes", MaxInput)
	}
	switch code := resp.StatusCode; {
	case code >= 200 && code < 300:
		value, err = parse(resp.Header.Get("Content-Type"), b)
		return code, value, false, err
	case code >= 500, code == http.StatusRequestTimeout, code == http.StatusTooEarly, code == http.StatusTooManyRequests:
		return code, nil, true, said(resp, b)
	}
	return resp.StatusCode, nil, false, said(resp, b)
}

// said is the error of an answer that is none of success, with its first words.
func said(resp *http.Response, b []byte) error {
	words := strings.Join(strings.Fields(string(b[:min(len(b), 200)])), " ")
	return errors.New(strings.TrimSpace(resp.Status + " " + words))
}

// parse reads an answer: JSON as its value, anything else as text, nothing as null.
func parse(kind string, b []byte) (any, error) {
	if len(b) == 0 {
		return nil, nil
	}
	if !strings.Contains(kind, "json") {
		return strings.ToValidUTF8(string(b), "\uFFFD"), nil
	}
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.UseNumber()
	var v any
	if err := dec.Decode(&v); err != nil {
		return nil, fmt.Errorf("the answer is no JSON: %w", err)
	}
	return v, nil
}

// takeBack undoes what was made, the last first, and ends the run.
func (r *run) takeBack(ctx context.Context, end state, why string) error {
	r.mu.Lock()
	r.state, r.why = undoing, why
	all := slices.Clone(r.undo)
	place := map[string]int{}
	for i, e := range r.past {
		if e.What == "done" || e.What == "failed" {
			place[e.Path] = i
		}
	}
	r.mu.Unlock()
	slices.SortStableFunc(all, func(a, b undo) int { return place[b.of.Path] - place[a.of.Path] })
	for _, u := range all {
		r.mu.Lock()
		_, back := r.back[u.of.Path]
		r.mu.Unlock()
		if back {
			continue
		}
		e := &entry{Path: u.of.Path, Name: u.of.Name, Service: u.call.Service, Began: time.Now().UTC()}
		r.try(ctx, u.call, u.seen, e, max(u.call.Tries, undoTries), r.id+"/"+u.of.Path+"/undo")
		if ctx.Err() != nil && e.What == "" {
			return nil
		}
		if e.What == "failed" && u.of.What == "failed" && e.Request == "" { // it needs a result that the step never gave
			continue
		}
		if e.What == "failed" {
			e.What, end = "not-undone", stuck
			why += fmt.Sprintf("; %s is not taken back: %s", u.of.Name, e.Error)
		} else {
			e.What = "undone"
		}
		if err := r.keep(e); err != nil {
			return err
		}
	}
	return r.keep(&entry{What: "end", State: end, Error: why})
}

// cancel ends the run as if a step had failed. What is under way is waited for.
func (r *run) cancel() error {
	r.mu.Lock()
	ended := r.state != running
	r.mu.Unlock()
	if ended {
		return nil
	}
	if err := r.keep(&entry{What: "cancel"}); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stop != nil {
		r.stop()
	}
	return nil
}
