package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"servent/control"
	"servent/system"
)

// Options of a [Store].
type Options struct {
	Servers   func() []system.NodeID             // who may answer, asked at every call; the first is asked first
	Transport http.RoundTripper                  // the host of a request's URL is a node's name
	Timeout   time.Duration                      // of one call, over all servers; 0 means 5s
	Silence   time.Duration                      // a watch's server that says nothing for so long is left; 0 means 3s
	Clock     func(system.NodeID, time.Duration) // hears by how much this machine's clock is ahead of a server's, to a second; nil: nobody does
	Seen      control.Rev                        // that the caller has seen in an earlier life: no older answer is taken
}

// Store is a [control.Store] at the servers' [Handler]. It starts nothing: connections are the transport's.
type Store struct {
	opts Options
	last atomic.Pointer[system.NodeID] // who answered last: asked first
	seen atomic.Int64                  // the greatest revision of an answer
}

var _ control.Store = (*Store)(nil)

// New returns a store.
func New(o Options) *Store {
	if o.Timeout == 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Silence == 0 {
		o.Silence = 3 * time.Second
	}
	s := &Store{opts: o}
	s.seen.Store(int64(o.Seen))
	return s
}

// Range implements [control.Store]. The keys that the caller may not read are left out.
func (s *Store) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	a, err := call[rangeAnswer](ctx, s, "range", rangeCall{prefix}, repeatable)
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", prefix, err)
	}
	return a.KVs, a.Rev, nil
}

// Commit implements [control.Store]. It goes to another server only as long as none was reached.
func (s *Store) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	if err := txn.Check(); err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	a, err := call[commitAnswer](ctx, s, "commit", txn, once)
	if err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	return a.Rev, a.OK, nil
}

// Grant implements [control.Store]. One whose answer is lost leaves a lease that ends by itself.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (control.LeaseID, error) {
	if err := control.CheckTTL(ttl); err != nil {
		return 0, err
	}
	a, err := call[leaseWord](ctx, s, "grant", grantCall{(ttl + time.Millisecond - 1).Milliseconds()}, repeatable)
	if err != nil {
		return 0, fmt.Errorf("grant a lease: %w", err)
	}
	return a.Lease, nil
}

// Renew implements [control.Store].
func (s *Store) Renew(ctx context.Context, id control.LeaseID) error {
	if _, err := call[nothing](ctx, s, "renew", leaseWord{id}, repeatable); err != nil {
		return fmt.Errorf("renew lease %x: %w", int64(id), err)
	}
	return nil
}

// Revoke implements [control.Store].
func (s *Store) Revoke(ctx context.Context, id control.LeaseID) error {
	if _, err := call[nothing](ctx, s, "revoke", leaseWord{id}, repeatable); err != nil {
		return fmt.Errorf("revoke lease %x: %w", int64(id), err)
	}
	return nil
}

// saw takes the revision of an answer. All answers are of one history, so none is older than what was seen before it was asked for.
func (s *Store) saw(rev control.Rev) {
	for {
		most := s.seen.Load()
		if int64(rev) <= most || s.seen.CompareAndSwap(most, int64(rev)) {
			return
		}
	}
}

// Ahead is by how much this machine's clock is ahead of that of a server that answered between two moments, by the answer's Date (RFC 9110 §6.6.1), which has no
// fractions of a second. false: it has none.
func Ahead(resp *http.Response, asked, answered time.Time) (time.Duration, bool) {
	if resp == nil {
		return 0, false
	}
	date, err := http.ParseTime(resp.Header.Get("Date"))
	if err != nil {
		return 0, false
	}
	here := asked.Round(0).Add(answered.Sub(asked) / 2) // the wall clock
	return here.Sub(date.Add(time.Second / 2)), true
}

// order is who to ask: the one who answered last, then the others.
func (s *Store) order() []system.NodeID {
	servers := slices.Clone(s.opts.Servers())
	if last := s.last.Load(); last != nil {
		if i := slices.Index(servers, *last); i > 0 {
			servers[0], servers[i] = servers[i], servers[0]
		}
	}
	return servers
}

// Whether a call may be sent again when its answer is lost.
const (
	once       = false
	repeatable = true
)

const (
	tryFor  = 2 * time.Second // one server's answer to a call that may go to another
	between = 100 * time.Millisecond
)

// errNobody: no server is known yet.
var errNobody = fmt.Errorf("%w: no server is known", control.ErrUnavailable)

// call asks one server after another, in rounds, until one answers or the time is over.
func call[A any](ctx context.Context, s *Store, name string, q any, again bool) (none A, _ error) {
	if err := ctx.Err(); err != nil {
		return none, err
	}
	body, err := json.Marshal(q)
	if err != nil {
		return none, err
	}
	all, cancel := context.WithTimeout(ctx, s.opts.Timeout)
	defer cancel()
	last := errNobody
	for {
		for _, server := range s.order() {
			a, reached, err := try[A](all, s, server, name, body, again)
			switch {
			case err == nil:
				s.last.Store(&server)
				return a, nil
			case ctx.Err() != nil:
				return none, ctx.Err()
			case !errors.Is(err, control.ErrUnavailable), reached && !again, all.Err() != nil:
				return none, err
			}
			last = err
		}
		select {
		case <-all.Done():
			if ctx.Err() != nil {
				return none, ctx.Err()
			}
			return none, last
		case <-time.After(between):
		}
	}
}

// try asks one server. reached is false when it is certain that the server never got the call.
func try[A any](ctx context.Context, s *Store, server system.NodeID, name string, body []byte, again bool) (a A, reached bool, err error) {
	if again {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, tryFor)
		defer cancel()
	}
	seen := control.Rev(s.seen.Load())
	resp, reached, err := s.post(ctx, server, name, body)
	if err != nil {
		return a, reached, err
	}
	defer resp.Body.Close()
	const most = 256 << 20 // bytes; more than control may hold
	if err := json.NewDecoder(io.LimitReader(resp.Body, most)).Decode(&a); err != nil {
		return a, true, fmt.Errorf("%w: %s: read the answer: %w", control.ErrUnavailable, server, err)
	}
	if of, ok := any(a).(dated); ok {
		if of.at() < seen {
			return a, true, fmt.Errorf("%s: revision %d after %d: %w", server, of.at(), seen, control.ErrBack)
		}
		s.saw(of.at())
	}
	return a, true, nil
}

// dated is an answer of which it is known at which revision it was given.
type dated interface{ at() control.Rev }

func (a rangeAnswer) at() control.Rev  { return a.Rev }
func (a commitAnswer) at() control.Rev { return a.Rev }

// post sends a call and returns the answer if its status is 200; the caller closes its body.
func (s *Store) post(ctx context.Context, server system.NodeID, name string, body []byte) (_ *http.Response, reached bool, _ error) {
	var asked, connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GetConn: func(string) { asked.Store(true) },
		GotConn: func(httptrace.GotConnInfo) { connected.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+string(server)+root+name, bytes.NewReader(body))
	if err != nil {
		return nil, false, fmt.Errorf("ask %s: %w", server, err)
	}
	req.Header.Set("Content-Type", "application/json")
	began := time.Now()
	resp, err := s.opts.Transport.RoundTrip(req)
	if ahead, ok := Ahead(resp, began, time.Now()); ok && s.opts.Clock != nil {
		s.opts.Clock(server, ahead)
	}
	if err != nil {
		// A transport that tells nothing of its connections may have sent the call.
		return nil, connected.Load() || !asked.Load(), fmt.Errorf("%w: %s: %w", control.ErrUnavailable, server, err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, true, nil
	}
	defer resp.Body.Close()
	var f failure
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	if err == nil {
		err = json.Unmarshal(text, &f)
	}
	if err != nil || f.Code == "" { // not our handler: a server that is starting or stopping
		return nil, true, fmt.Errorf("%w: %s: %s: %s", control.ErrUnavailable, server, resp.Status, strings.TrimSpace(string(text[:min(len(text), 200)])))
	}
	return nil, true, fmt.Errorf("%s: %w", server, f.err())
}
