package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"servent/control"
)

// Watch implements [control.Store]. A short outage is bridged, by etcd's client or here; a store that
// does not answer for some seconds gives [control.ErrUnavailable].
func (s *Store) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	if from == 0 {
		now, err := s.now(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("watch %s: %w", prefix, err)
		}
		if err := each(control.Batch{Rev: now}); err != nil {
			return err
		}
		from = now + 1
	}
	guarded, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.guard(guarded, fail)
	}()
	defer func() { fail(nil); <-done }()

	w := watch{Store: s, prefix: prefix, next: from, each: each}
	for {
		err := w.stream(guarded)
		switch {
		case w.failed != nil:
			return w.failed
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, control.ErrCompacted):
			return fmt.Errorf("watch %s from %d: %w", prefix, w.next, err)
		}
		select {
		case <-guarded.Done():
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("watch %s: %w", prefix, context.Cause(guarded))
		case <-time.After(50 * time.Millisecond): // the server cancelled it: go on where it stopped
		}
	}
}

// guard fails a watch whose server is silent.
func (s *Store) guard(ctx context.Context, fail context.CancelCauseFunc) {
	tick := time.NewTicker(quiet)
	defer tick.Stop()
	since := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if s.silence() > quiet && s.asking.CompareAndSwap(false, true) {
			s.ask(ctx)
			s.asking.Store(false)
		}
		if min(s.silence(), time.Since(since)) > patience {
			fail(fmt.Errorf("%w: no answer for %v", control.ErrUnavailable, patience))
			return
		}
	}
}

func (s *Store) silence() time.Duration { return time.Since(s.born) - time.Duration(s.heard.Load()) }

// ask asks the server for nothing; an answer is noted by once.
func (s *Store) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, try)
	defer cancel()
	_ = s.once(ctx, func(ctx context.Context) error {
		_, err := s.client.Get(ctx, s.prefix+nothing)
		return err
	})
}

// watch is one Watch in progress.
type watch struct {
	*Store
	prefix string
	next   control.Rev // all before it were given to each
	each   func(control.Batch) error
	failed error // of each
}

// stream gives what one stream of etcd's delivers, until it or each fails.
func (w *watch) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// A server without a leader says so instead of being silent; a large revision comes in fragments,
	// which the client joins again.
	for resp := range w.client.Watch(clientv3.WithRequireLeader(ctx), w.Store.prefix+w.prefix,
		clientv3.WithPrefix(), clientv3.WithRev(int64(w.next)), clientv3.WithFragment(), clientv3.WithProgressNotify()) {
		if err := resp.Err(); err != nil {
			return w.meaning(ctx, err)
		}
		w.answered()
		for events := resp.Events; len(events) > 0; {
			var b control.Batch
			b, events = w.revision(events)
			if w.failed = w.give(ctx, b); w.failed != nil {
				return w.failed
			}
		}
		if now := control.Rev(resp.Header.Revision); resp.IsProgressNotify() && now >= w.next {
			if w.failed = w.give(ctx, control.Batch{Rev: now}); w.failed != nil {
				return w.failed
			}
		}
	}
	return nil
}

func (w *watch) give(ctx context.Context, b control.Batch) error {
	if ctx.Err() != nil {
		return nil
	}
	w.next = b.Rev + 1
	return w.each(b)
}

// revision takes the first revision's events off.
func (w *watch) revision(events []*clientv3.Event) (control.Batch, []*clientv3.Event) {
	b := control.Batch{Rev: control.Rev(events[0].Kv.ModRevision)}
	for i, e := range events {
		if control.Rev(e.Kv.ModRevision) != b.Rev {
			return b, events[i:]
		}
		kv := control.KV{Key: strings.TrimPrefix(string(e.Kv.Key), w.Store.prefix), Modified: b.Rev}
		if e.Type == clientv3.EventTypeDelete {
			b.Changes = append(b.Changes, control.Change{KV: kv, Deleted: true})
			continue
		}
		kv.Value, kv.Created, kv.Lease = e.Kv.Value, control.Rev(e.Kv.CreateRevision), control.LeaseID(e.Kv.Lease)
		b.Changes = append(b.Changes, control.Change{KV: kv})
	}
	return b, nil
}
