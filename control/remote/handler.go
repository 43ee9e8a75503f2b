package remote

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"servent/control"
	"servent/identity"
)

// Bounds of a [Handler].
type Bounds struct {
	Watches int           // of one caller at once; 0 means 16
	Beat    time.Duration // between a watch's signs of life; 0 means 500ms
	Write   time.Duration // a watcher that takes no line for so long is cut off; 0 means 10s

	// Denied hears of each call that the caller may not make, and of each that shows that control was put back; nil: nobody does.
	Denied func(*http.Request, error)
}

const (
	smallCall  = 4 << 10                      // bytes of any call but a commit
	commitCall = 2*control.MaxTxn + smallCall // values are base64 in JSON
)

// Handler answers the calls of [Store] out of a store. who names the caller, as its certificate does;
// false is refused. What a caller may do:
//
//	server    everything
//	operator  read all, write what is wanted and who is a member, delete the word of who holds data
//	node      read plan, reports and who was put out, write its own report under its own lease
//	edge      read its own part of the plan, who was put out and its own report, write that under its own lease
//
// A call that reads more than the caller may is answered with what it may.
func Handler(store control.Store, who func(*http.Request) (identity.ID, bool), b Bounds) http.Handler {
	if b.Watches == 0 {
		b.Watches = 16
	}
	if b.Beat == 0 {
		b.Beat = 500 * time.Millisecond
	}
	if b.Write == 0 {
		b.Write = 10 * time.Second
	}
	h := &handler{store: store, who: who, bounds: b, leases: leases{store: store}, watches: map[identity.ID]int{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+root+"range", answer(h, smallCall, h.list))
	mux.HandleFunc("POST "+root+"commit", answer(h, commitCall, h.commit))
	mux.HandleFunc("POST "+root+"grant", answer(h, smallCall, h.grant))
	mux.HandleFunc("POST "+root+"renew", answer(h, smallCall, h.renew))
	mux.HandleFunc("POST "+root+"revoke", answer(h, smallCall, h.revoke))
	mux.HandleFunc("POST "+root+"watch", h.watch)
	return mux
}

type handler struct {
	store  control.Store
	who    func(*http.Request) (identity.ID, bool)
	bounds Bounds
	leases leases

	mu      sync.Mutex
	watches map[identity.ID]int // open ones
}

// caller is who asks, and what it may do.
type caller struct {
	identity.ID
	rights rights
}

// answer makes a handler of one call.
func answer[Q, A any](h *handler, most int64, call func(context.Context, caller, Q) (A, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q Q
		c, err := h.read(w, r, most, &q)
		var a A
		if err == nil {
			a, err = call(r.Context(), c, q)
		}
		if err != nil {
			h.refuse(w, r, err)
			return
		}
		say(w, http.StatusOK, a)
	}
}

// read says who calls and reads what it asks.
func (h *handler) read(w http.ResponseWriter, r *http.Request, most int64, q any) (caller, error) {
	id, ok := h.who(r)
	if !ok {
		return caller{}, fmt.Errorf("%w: the caller has no name", control.ErrDenied)
	}
	in := json.NewDecoder(http.MaxBytesReader(w, r.Body, most))
	err := in.Decode(q)
	if err == nil {
		if _, more := in.Token(); more != io.EOF {
			err = errors.New("more than one value")
		}
	}
	if long, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return caller{}, fmt.Errorf("%w: a call of more than %d bytes", control.ErrTooLarge, long.Limit)
	}
	if err != nil {
		return caller{}, fmt.Errorf("%w: %w", errBad, err)
	}
	return caller{id, rightsOf(id)}, nil
}

func (h *handler) refuse(w http.ResponseWriter, r *http.Request, err error) {
	if h.bounds.Denied != nil && (errors.Is(err, control.ErrDenied) || errors.Is(err, control.ErrBack)) {
		h.bounds.Denied(r, err)
	}
	f, status := fail(err)
	say(w, status, f)
}

func say(w http.ResponseWriter, status int, a any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(a) // a caller that is gone needs no answer
}

func (h *handler) list(ctx context.Context, c caller, q rangeCall) (rangeAnswer, error) {
	if err := c.rights.ask(c.ID, q.Prefix); err != nil {
		return rangeAnswer{}, err
	}
	kvs, rev, err := h.store.Range(ctx, q.Prefix)
	if err != nil {
		return rangeAnswer{}, err
	}
	a := rangeAnswer{Rev: rev, KVs: []control.KV{}}
	for _, kv := range kvs {
		if within(c.rights.read, kv.Key) {
			a.KVs = append(a.KVs, kv)
		}
	}
	eye, err := sightOf(ctx, h.store, c.ID)
	if err != nil {
		return rangeAnswer{}, err
	}
	a.KVs = eye.list(a.KVs)
	return a, nil
}

func (h *handler) commit(ctx context.Context, c caller, txn control.Txn) (commitAnswer, error) {
	if err := txn.Check(); err != nil {
		return commitAnswer{}, fmt.Errorf("%w: %w", errBad, err)
	}
	if err := c.rights.commit(c.ID, txn); err != nil {
		return commitAnswer{}, err
	}
	for _, op := range txn.Ops {
		if err := h.mayUse(ctx, c, op.Lease); err != nil {
			return commitAnswer{}, err
		}
	}
	rev, ok, err := h.store.Commit(ctx, txn)
	return commitAnswer{rev, ok}, err
}

// mayUse says whether the lease, if it is one, is the caller's.
func (h *handler) mayUse(ctx context.Context, c caller, lease control.LeaseID) error {
	if lease == 0 || c.rights.every {
		return nil
	}
	return h.leases.check(ctx, c.ID, lease)
}

func (h *handler) grant(ctx context.Context, c caller, q grantCall) (leaseWord, error) {
	if len(c.rights.put) == 0 {
		return leaseWord{}, fmt.Errorf("%w: %v may have no lease", control.ErrDenied, c.ID)
	}
	const longest = 24 * time.Hour // whoever is away for longer is gone
	if q.TTL < 0 || q.TTL > longest.Milliseconds() {
		return leaseWord{}, fmt.Errorf("%w: lease of %d ms: want at most %v", errBad, q.TTL, longest)
	}
	ttl := time.Duration(q.TTL) * time.Millisecond
	if err := control.CheckTTL(ttl); err != nil {
		return leaseWord{}, fmt.Errorf("%w: %w", errBad, err)
	}
	lease, err := h.store.Grant(ctx, ttl)
	if err != nil || c.rights.every {
		return leaseWord{lease}, err
	}
	_, _, err = h.store.Commit(ctx, control.Txn{Ops: []control.Op{{Key: leaseKey(lease), Value: []byte(c.ID.String()), Lease: lease}}})
	if err != nil {
		return leaseWord{}, err // nobody knows of the lease: it ends by itself
	}
	h.leases.note(lease, c.ID.String())
	return leaseWord{lease}, nil
}

func (h *handler) renew(ctx context.Context, c caller, q leaseWord) (nothing, error) {
	if err := h.mayUse(ctx, c, q.Lease); err != nil {
		return nothing{}, err
	}
	return nothing{}, h.store.Renew(ctx, q.Lease)
}

func (h *handler) revoke(ctx context.Context, c caller, q leaseWord) (nothing, error) {
	switch err := h.mayUse(ctx, c, q.Lease); {
	case errors.Is(err, control.ErrLeaseLost):
		return nothing{}, nil
	case err != nil:
		return nothing{}, err
	}
	return nothing{}, h.store.Revoke(ctx, q.Lease)
}

// reached fails if the store has not come to a revision that the caller has seen.
func reached(ctx context.Context, store control.Store, seen control.Rev) error {
	now, _, err := store.Commit(ctx, control.Txn{}) // no change, and the present revision
	if err == nil && now < seen {
		err = fmt.Errorf("revision %d after %d: %w", now, seen, control.ErrBack)
	}
	return err
}

// watch answers with lines until the caller leaves.
func (h *handler) watch(w http.ResponseWriter, r *http.Request) {
	var q watchCall
	c, err := h.read(w, r, smallCall, &q)
	if err == nil {
		err = c.rights.ask(c.ID, q.Prefix)
	}
	if err == nil && q.From < 0 {
		err = fmt.Errorf("%w: watch from %d", errBad, q.From)
	}
	if err == nil && q.From > 1 {
		err = reached(r.Context(), h.store, q.From-1)
	}
	var eye *sight
	if err == nil {
		eye, err = sightOf(r.Context(), h.store, c.ID)
	}
	if err == nil {
		err = h.enter(c.ID)
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	defer h.leave(c.ID)

	ctx, stop := context.WithCancel(r.Context())
	batches := make(chan control.Batch, 16) // when full, the store waits for the watcher
	var end error                           // when batches is closed
	go func() {
		defer close(batches)
		end = h.store.Watch(ctx, q.Prefix, q.From, func(b control.Batch) error {
			select {
			case batches <- b:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	defer func() {
		stop()
		for range batches {
		}
	}()

	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(http.StatusOK)
	lines := lines{w: w, wait: h.bounds.Write}
	tick := time.NewTicker(h.bounds.Beat)
	defer tick.Stop()
	upto := max(q.From-1, 0)
	for err = lines.say(watchLine{Rev: upto}); err == nil; {
		select {
		case b, more := <-batches:
			if !more {
				if end != nil {
					f, _ := fail(end)
					lines.say(watchLine{Error: &f})
				}
				return
			}
			upto = max(upto, b.Rev)
			if b, ok := c.mine(b, eye); ok {
				err = lines.say(watchLine{Batch: &b})
			}
		case <-tick.C:
			err = lines.say(watchLine{Rev: upto})
		}
	}
}

// mine leaves out what the caller may not read. A batch of which nothing is left is not said, but one
// that is empty by itself is: it tells where a watch from now began.
func (c caller) mine(b control.Batch, eye *sight) (control.Batch, bool) {
	if len(b.Changes) == 0 {
		return b, true
	}
	part := control.Batch{Rev: b.Rev}
	for _, change := range b.Changes {
		if within(c.rights.read, change.KV.Key) {
			part.Changes = append(part.Changes, change)
		}
	}
	part = eye.batch(part)
	return part, len(part.Changes) > 0
}

func (h *handler) enter(id identity.ID) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watches[id] >= h.bounds.Watches {
		return fmt.Errorf("%v watches at once: %w", h.bounds.Watches, errBusy)
	}
	h.watches[id]++
	return nil
}

func (h *handler) leave(id identity.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.watches[id]--; h.watches[id] == 0 {
		delete(h.watches, id)
	}
}

// lines writes a stream of JSON lines, each at once.
type lines struct {
	w    http.ResponseWriter
	wait time.Duration
}

func (l lines) say(line watchLine) error {
	out := http.NewResponseController(l.w)
	if err := out.SetWriteDeadline(time.Now().Add(l.wait)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	if err := json.NewEncoder(l.w).Encode(line); err != nil {
		return err
	}
	if err := out.Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}
