package control

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Fence is the number under which a leader acts: the revision at which it won. Later leaders have
// higher ones, and every write of a leader carries [Fence.Cond], so that one who lost cannot write.
type Fence struct {
	Key string
	Rev Rev
}

// Cond holds as long as the leader still leads.
func (f Fence) Cond() Cond { return Cond{Key: f.Key, Created: f.Rev} }

var errFree = errors.New("the seat is free")

// Campaign blocks until the caller leads: until no one else holds key, and it wrote value there under
// lease. It returns ctx's error when ctx ends first, [ErrLeaseLost] when the lease does, and
// [ErrUnavailable] when the store does not answer: then campaign again with the same lease, for one
// who won and whose answer was lost finds itself in the seat.
func Campaign(ctx context.Context, s Store, key, value string, lease LeaseID) (Fence, error) {
	for {
		if err := s.Renew(ctx, lease); err != nil {
			return Fence{}, fmt.Errorf("campaign for %s: %w", key, err)
		}
		_, _, err := s.Commit(ctx, Txn{
			Conds: []Cond{{Key: key}},
			Ops:   []Op{{Key: key, Value: []byte(value), Lease: lease}},
		})
		if err != nil {
			return Fence{}, fmt.Errorf("campaign for %s: %w", key, err)
		}
		kvs, rev, err := s.Range(ctx, key)
		if err != nil {
			return Fence{}, fmt.Errorf("campaign for %s: %w", key, err)
		}
		held := KV{}
		for _, kv := range kvs {
			if kv.Key == key {
				held = kv
			}
		}
		switch {
		case held.Key == "":
			continue // left between the two calls
		case held.Lease == lease && string(held.Value) == value:
			return Fence{Key: key, Rev: held.Created}, nil
		}
		if err := awaitFree(ctx, s, key, rev, lease); err != nil {
			return Fence{}, fmt.Errorf("campaign for %s: %w", key, err)
		}
	}
}

// awaitFree returns nil when key is deleted after rev. It keeps the candidate's lease alive meanwhile.
func awaitFree(ctx context.Context, s Store, key string, rev Rev, lease LeaseID) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	kept := make(chan struct{})
	go func() {
		defer close(kept)
		if err := KeepAlive(ctx, s, lease, time.Second); err != nil {
			cancel(err)
		}
	}()
	err := s.Watch(ctx, key, rev+1, func(b Batch) error {
		for _, c := range b.Changes {
			if c.Deleted && c.KV.Key == key {
				return errFree
			}
		}
		return nil
	})
	cause := context.Cause(ctx)
	cancel(nil)
	<-kept
	switch {
	case errors.Is(err, errFree), errors.Is(err, ErrCompacted): // look again
		return nil
	case err != nil:
		return err
	}
	return cause
}

// KeepAlive renews the lease every interval until ctx ends (nil) or the lease does ([ErrLeaseLost]).
// While the store is unavailable it goes on trying.
func KeepAlive(ctx context.Context, s Store, id LeaseID, every time.Duration) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		try, cancel := context.WithTimeout(ctx, every)
		err := s.Renew(try, id)
		cancel()
		if errors.Is(err, ErrLeaseLost) || errors.Is(err, ErrDenied) {
			return err
		}
	}
}
