// Package memory is a control store inside one process: the twin of control/etcd for tests and for
// systems that never leave the process. It keeps etcd's meaning exactly: one revision a transaction,
// leases that end, a history that is compacted. It opens nothing and remembers nothing after the process.
// All of its time is package time's, so it works inside a testing/synctest bubble. Start at [Store].
package memory

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"servent/control"
)

// Store is a [control.Store]. Make it with [New].
type Store struct {
	// History is how many revisions are kept for watchers; 0 means 10,000. Set it before the first use.
	// A watcher that is farther behind gets [control.ErrCompacted].
	History int

	mu        sync.Mutex
	rev       control.Rev
	keys      map[string]control.KV
	history   []control.Batch // ascending; nothing that is older than compacted
	compacted control.Rev     // a watch may start here, not before
	leases    map[control.LeaseID]*lease
	granted   control.LeaseID // the last one
	moved     chan struct{}   // closed, and made anew, with every revision
}

type lease struct {
	ttl   time.Duration
	ends  time.Time
	timer *time.Timer
}

var _ control.Store = (*Store)(nil)

// New returns an empty store at revision 1, as an empty etcd is.
func New() *Store {
	return &Store{rev: 1, keys: map[string]control.KV{}, leases: map[control.LeaseID]*lease{}, moved: make(chan struct{})}
}

// Range implements [control.Store].
func (s *Store) Range(ctx context.Context, prefix string) ([]control.KV, control.Rev, error) {
	if err := ctx.Err(); err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", prefix, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	var out []control.KV
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if strings.HasPrefix(key, prefix) {
			out = append(out, clone(s.keys[key]))
		}
	}
	return out, s.rev, nil
}

// Commit implements [control.Store].
func (s *Store) Commit(ctx context.Context, txn control.Txn) (control.Rev, bool, error) {
	if err := txn.Check(); err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return 0, false, fmt.Errorf("commit: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	for _, c := range txn.Conds {
		kv := s.keys[c.Key] // a key that does not exist has revisions 0
		if c.Created != 0 && kv.Created != c.Created || c.Created == 0 && kv.Modified != c.Modified {
			return s.rev, false, nil
		}
	}
	for _, op := range txn.Ops {
		if op.Lease != 0 && s.leases[op.Lease] == nil {
			return 0, false, fmt.Errorf("put %s under lease %x: %w", op.Key, op.Lease, control.ErrLeaseLost)
		}
	}
	s.apply(txn.Ops)
	return s.rev, true, nil
}

// apply makes the operations at one new revision, if they change anything. s.mu is held.
func (s *Store) apply(ops []control.Op) {
	b := control.Batch{Rev: s.rev + 1}
	for _, op := range ops {
		old, exists := s.keys[op.Key]
		switch {
		case op.Delete && exists:
			delete(s.keys, op.Key)
			b.Changes = append(b.Changes, control.Change{KV: control.KV{Key: op.Key, Modified: b.Rev}, Deleted: true})
		case !op.Delete:
			kv := control.KV{Key: op.Key, Value: bytes.Clone(op.Value), Created: old.Created, Modified: b.Rev, Lease: op.Lease}
			if !exists {
				kv.Created = b.Rev
			}
			s.keys[op.Key] = kv
			b.Changes = append(b.Changes, control.Change{KV: kv})
		}
	}
	if len(b.Changes) == 0 {
		return
	}
	s.rev = b.Rev
	s.history = append(s.history, b)
	keep := s.History
	if keep == 0 {
		keep = 10_000
	}
	if extra := len(s.history) - keep; extra > 0 {
		s.history = s.history[extra:]
		s.compacted = s.history[0].Rev
	}
	close(s.moved)
	s.moved = make(chan struct{})
}

// Compact forgets what was before rev: a watch from an older revision gets [control.ErrCompacted].
func (s *Store) Compact(_ context.Context, rev control.Rev) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case rev <= s.compacted:
		return fmt.Errorf("compact at %d: %w", rev, control.ErrCompacted)
	case rev > s.rev:
		return fmt.Errorf("compact at %d: the present revision is %d", rev, s.rev)
	}
	s.compacted = rev
	s.history = slices.DeleteFunc(s.history, func(b control.Batch) bool { return b.Rev < rev })
	return nil
}

// Watch implements [control.Store].
func (s *Store) Watch(ctx context.Context, prefix string, from control.Rev, each func(control.Batch) error) error {
	if from == 0 {
		s.mu.Lock()
		now := s.rev
		s.mu.Unlock()
		if err := each(control.Batch{Rev: now}); err != nil {
			return err
		}
		from = now + 1
	}
	for ctx.Err() == nil {
		some, next, moved, err := s.since(from, prefix)
		if err != nil {
			return fmt.Errorf("watch %s from %d: %w", prefix, from, err)
		}
		for _, b := range some {
			if ctx.Err() != nil {
				return nil
			}
			if err := each(b); err != nil {
				return err
			}
		}
		if from = next; moved == nil {
			continue
		}
		select {
		case <-ctx.Done():
		case <-moved:
		}
	}
	return nil
}

// since returns some revisions from one on that change a key with the prefix, and the revision to go on
// from. moved is nil when there may be more at once, else it is closed by the next change.
func (s *Store) since(from control.Rev, prefix string) (some []control.Batch, next control.Rev, moved <-chan struct{}, err error) {
	const most = 64
	s.mu.Lock()
	defer s.mu.Unlock()
	if from < s.compacted {
		return nil, 0, nil, control.ErrCompacted
	}
	i, _ := slices.BinarySearchFunc(s.history, from, func(b control.Batch, rev control.Rev) int { return cmp.Compare(b.Rev, rev) })
	for _, b := range s.history[i:] {
		part := control.Batch{Rev: b.Rev}
		for _, c := range b.Changes {
			if strings.HasPrefix(c.KV.Key, prefix) {
				part.Changes = append(part.Changes, control.Change{KV: clone(c.KV), Deleted: c.Deleted})
			}
		}
		if len(part.Changes) > 0 {
			some = append(some, part)
		}
		if len(some) == most {
			return some, b.Rev + 1, nil, nil
		}
	}
	return some, max(from, s.rev+1), s.moved, nil
}

// Grant implements [control.Store]. The lease ends to the nanosecond.
func (s *Store) Grant(ctx context.Context, ttl time.Duration) (control.LeaseID, error) {
	if err := control.CheckTTL(ttl); err != nil {
		return 0, err
	}
	if err := ctx.Err(); err != nil {
		return 0, fmt.Errorf("grant a lease: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.granted++
	id := s.granted
	s.leases[id] = &lease{ttl: ttl, ends: time.Now().Add(ttl), timer: time.AfterFunc(ttl, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.settle()
	})}
	return id, nil
}

// settle ends the leases whose time is over, the longest overdue first. s.mu is held.
func (s *Store) settle() {
	now := time.Now()
	var over []control.LeaseID
	for id, l := range s.leases {
		if !now.Before(l.ends) {
			over = append(over, id)
		}
	}
	slices.SortFunc(over, func(a, b control.LeaseID) int {
		return cmp.Or(s.leases[a].ends.Compare(s.leases[b].ends), cmp.Compare(a, b))
	})
	for _, id := range over {
		s.end(id)
	}
}

// Renew implements [control.Store].
func (s *Store) Renew(ctx context.Context, id control.LeaseID) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("renew lease %x: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	l := s.leases[id]
	if l == nil {
		return fmt.Errorf("renew lease %x: %w", id, control.ErrLeaseLost)
	}
	l.ends = time.Now().Add(l.ttl)
	l.timer.Reset(l.ttl)
	return nil
}

// Revoke implements [control.Store].
func (s *Store) Revoke(ctx context.Context, id control.LeaseID) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("revoke lease %x: %w", id, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.end(id)
	return nil
}

// end deletes a lease and, at one revision and sorted, its keys. s.mu is held.
func (s *Store) end(id control.LeaseID) {
	l := s.leases[id]
	if l == nil {
		return
	}
	l.timer.Stop()
	delete(s.leases, id)
	var ops []control.Op
	for _, key := range slices.Sorted(maps.Keys(s.keys)) {
		if s.keys[key].Lease == id {
			ops = append(ops, control.Op{Key: key, Delete: true})
		}
	}
	s.apply(ops)
}

func clone(kv control.KV) control.KV {
	kv.Value = bytes.Clone(kv.Value)
	return kv
}
