// Package schedule calls services when it is time: what a file's cron asks for, from the one node whose conductor leads. Start at [Run].
package schedule

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"servent/control"
	"servent/system"
	"servent/system/notation"
)

const (
	prefix     = "tick/"         // control's keys: when each was last due
	makeUpFor  = time.Minute     // what was due while nobody led is made up for so long; what is older is missed
	callFor    = 5 * time.Minute // one call, with its tries
	tries      = 3
	firstWait  = time.Second // before the second try; then three times as long
	longestNap = time.Minute // a clock that is set is noticed
)

// Options of [Run].
type Options struct {
	Store     control.Store
	Fence     control.Fence                   // of the conductor that leads: nothing is called without it
	Plan      func() *system.Plan             // the newest; nil: none yet
	Changed   func() <-chan struct{}          // closed at the next change of it
	URL       func(system.ServiceName) string // of a service's door here; empty: there is none
	Transport http.RoundTripper               // nil means http.DefaultTransport
	Log       *slog.Logger                    // nil discards
}

// timer is one cron of one service.
type timer struct {
	key  string // service/number
	svc  system.ServiceName
	on   system.Trigger
	when notation.Schedule
	last time.Time // when it was last due, or followed first
	busy bool      // its last call has not ended; guarded by runner.mu
}

type runner struct {
	o      Options
	client *http.Client
	calls  sync.WaitGroup
	timers map[string]*timer

	mu sync.Mutex // guards busy of all timers
}

// Run calls until ctx ends. Whatever is due is first claimed in control, under the fence: so it is called by one node, once, also when another takes over.
// A node that dies between claim and call has not called.
func Run(ctx context.Context, o Options) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	r := &runner{o: o, client: &http.Client{Transport: o.Transport}, timers: map[string]*timer{}}
	defer r.calls.Wait()
	for ctx.Err() == nil {
		changed := o.Changed()
		r.follow(ctx, o.Plan(), time.Now())
		nap := r.due(ctx, time.Now())
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(nap):
		}
	}
}

// follow makes the timers those of the plan.
func (r *runner) follow(ctx context.Context, plan *system.Plan, now time.Time) {
	named := map[string]bool{}
	for i := range services(plan) {
		s := &plan.Services[i].Service
		for n, on := range s.On {
			if on.Cron == "" { // it is called by something else
				continue
			}
			key := string(s.Name) + "/" + strconv.Itoa(n)
			named[key] = true
			if was := r.timers[key]; was != nil && was.on.Cron == on.Cron && was.on.Zone == on.Zone {
				was.on = on
				continue
			}
			when, err := notation.Cron(on.Cron, on.Zone)
			if err != nil { // the file was checked
				r.o.Log.Error("a cron that cannot be read", "service", s.Name, "err", err)
				continue
			}
			r.timers[key] = &timer{key: key, svc: s.Name, on: on, when: when, last: r.lastDue(ctx, key, on, now)}
		}
	}
	for key := range r.timers {
		if !named[key] {
			delete(r.timers, key)
		}
	}
}

func services(plan *system.Plan) []system.Deployment {
	if plan == nil {
		return nil
	}
	return plan.Services
}

// tick is what control keeps of a timer.
type tick struct {
	Cron string    `json:"cron"`
	Zone string    `json:"zone,omitempty"`
	Due  time.Time `json:"due"`
}

// lastDue is when a timer was last due under an earlier leader, if that is not too long ago; else now.
func (r *runner) lastDue(ctx context.Context, key string, on system.Trigger, now time.Time) time.Time {
	kvs, _, err := r.o.Store.Range(ctx, prefix+key)
	if err != nil {
		return now
	}
	for _, kv := range kvs {
		var t tick
		if kv.Key == prefix+key && json.Unmarshal(kv.Value, &t) == nil && t.Cron == on.Cron && t.Zone == on.Zone && t.Due.Before(now) {
			if now.Sub(t.Due) > makeUpFor {
				when, err := notation.Cron(on.Cron, on.Zone)
				if next := when.Next(t.Due); err == nil && !next.IsZero() && next.Before(now.Add(-makeUpFor)) {
					r.o.Log.Warn("missed: nobody led when it was due", "cron", key, "due", next)
				}
				return now.Add(-makeUpFor)
			}
			return t.Due
		}
	}
	return now
}

// due claims and calls all that is due, and says how long to sleep.
func (r *runner) due(ctx context.Context, now time.Time) (nap time.Duration) {
	nap = longestNap
	for _, t := range r.timers {
		next := t.when.Next(t.last)
		for !next.IsZero() && !next.After(now) {
			if after := t.when.Next(next); !after.IsZero() && !after.After(now) { // several are due: the newest counts for all
				next = after
				continue
			}
			ok, err := r.claim(ctx, t, next)
			if err != nil {
				r.o.Log.Warn("not called: control is away", "cron", t.key, "due", next, "err", err)
				nap = min(nap, time.Second)
				next = time.Time{}
				break
			}
			t.last = next
			if ok {
				r.start(ctx, t, next)
			}
			next = t.when.Next(t.last)
		}
		if !next.IsZero() {
			nap = min(nap, max(0, next.Sub(now)))
		}
	}
	return nap
}

// claim writes down that a timer's call is this leader's to make.
func (r *runner) claim(ctx context.Context, t *timer, due time.Time) (bool, error) {
	b, err := json.Marshal(tick{t.on.Cron, t.on.Zone, due.UTC()})
	if err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, ok, err := r.o.Store.Commit(ctx, control.Txn{Conds: []control.Cond{r.o.Fence.Cond()}, Ops: []control.Op{{Key: prefix + t.key, Value: b}}})
	return ok, err
}

// start calls in the background, unless the call before has not ended.
func (r *runner) start(ctx context.Context, t *timer, due time.Time) {
	r.mu.Lock()
	busy := t.busy
	t.busy = true
	r.mu.Unlock()
	if busy {
		r.o.Log.Warn("not called: the call before has not ended", "cron", t.key, "due", due)
		return
	}
	on, svc := t.on, t.svc
	r.calls.Go(func() {
		defer func() {
			r.mu.Lock()
			t.busy = false
			r.mu.Unlock()
		}()
		ctx, cancel := context.WithTimeout(ctx, callFor)
		defer cancel()
		if err := r.call(ctx, svc, on, t.key, due); err != nil && ctx.Err() == nil {
			r.o.Log.Warn("a scheduled call failed", "cron", t.key, "due", due, "err", err)
		}
	})
}

// call makes a request, and makes it again where that may help.
func (r *runner) call(ctx context.Context, svc system.ServiceName, on system.Trigger, key string, due time.Time) error {
	for n, wait := 1, firstWait; ; n, wait = n+1, 3*wait {
		again, err := r.once(ctx, svc, on, key, due)
		if err == nil || !again || n == tries {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(wait):
		}
	}
}

func (r *runner) once(ctx context.Context, svc system.ServiceName, on system.Trigger, key string, due time.Time) (again bool, err error) {
	base := r.o.URL(svc)
	if base == "" {
		return true, errors.New("its door is not open yet")
	}
	req, err := http.NewRequestWithContext(ctx, on.Method, base+on.Path, bytes.NewReader([]byte(on.Body)))
	if err != nil {
		return false, err
	}
	if on.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("Servent-Event", "cron")
	req.Header.Set("Servent-Scheduled", due.UTC().Format(time.RFC3339))
	req.Header.Set("Idempotency-Key", fmt.Sprintf(`"cron/%s/%d"`, key, due.Unix()))
	resp, err := r.client.Do(req)
	if err != nil {
		return true, err
	}
	defer resp.Body.Close()
	words, _ := io.ReadAll(io.LimitReader(resp.Body, 200)) // only words
	if resp.StatusCode >= 300 {
		return resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests, errors.New(resp.Status + " " + strings.Join(strings.Fields(string(words)), " "))
	}
	return false, nil
}
