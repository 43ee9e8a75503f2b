// Package control is where nodes agree: what is wanted, the plan, what is seen, leases, and who leads.
// Store is the one narrow interface; control/memory, control/etcd and control/remote implement it and
// one conformance suite (control/controltest) keeps them honest. Request traffic, logs, metrics and
// artifact bytes never go in. Start at [Store]; [Campaign] is the election, [Cluster] gives keys their words.
package control

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

// Rev orders all changes of a store. It grows by at least one with each; 0 is before the first.
type Rev int64

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Bounds of what a store takes.
const (
	MaxKey   = 512      // bytes of one key
	MaxValue = 64 << 10 // bytes of one value
	MaxOps   = 128      // puts and deletes of one transaction, and as many conditions
	MaxTxn   = 1 << 20  // bytes of all keys and values of one transaction
	MinTTL   = 2 * time.Second
)

var (
	// ErrCompacted: the revision asked for is no longer kept; read again and watch from there.
	ErrCompacted = errors.New("revision is compacted")
	// ErrLeaseLost: the lease has ended; what stood under it is gone.
	ErrLeaseLost = errors.New("lease is lost")
	// ErrDenied: the caller's certificate does not give it this right.
	ErrDenied = errors.New("denied")
	// ErrUnavailable: no server answered; the change may or may not have been made.
	ErrUnavailable = errors.New("control is unavailable")
	// ErrBack: control is at an older revision than it was before: it was put back to an older state. As long as it is so it counts as unavailable.
	ErrBack = fmt.Errorf("%w: it was put back to an older state", ErrUnavailable)
	// ErrTooLarge: the value or the transaction is beyond the bounds.
	ErrTooLarge = errors.New("too large for control")
)

// KV is one key as it stands. Created and Modified are the revisions of its first and last change since
// it last did not exist.
type KV struct {
	Key      string  `json:"key"`
	Value    []byte  `json:"value"`
	Created  Rev     `json:"created"`
	Modified Rev     `json:"modified"`
	Lease    LeaseID `json:"lease,omitempty"`
}

// Cond must hold for a transaction to be made.
type Cond struct {
	Key      string `json:"key"`
	Modified Rev    `json:"modified"` // the key's Modified; 0: the key does not exist
	Created  Rev    `json:"created"`  // when not 0, the key's Created is compared instead: a fence
}

// Op puts or deletes one key.
type Op struct {
	Key    string  `json:"key"`
	Value  []byte  `json:"value,omitempty"`
	Lease  LeaseID `json:"lease,omitempty"`
	Delete bool    `json:"delete,omitempty"`
}

// Txn makes all Ops at one revision if all Conds hold, else none. No key stands twice in Ops. Deleting
// what does not exist is no change, and a transaction without a change makes no revision.
type Txn struct {
	Conds []Cond `json:"conds,omitempty"`
	Ops   []Op   `json:"ops,omitempty"`
}

// Check says whether a store may take the transaction: [ErrTooLarge] when it is beyond the bounds,
// another error when it makes no sense. Every store calls it first.
func (t Txn) Check() error {
	if len(t.Ops) > MaxOps || len(t.Conds) > MaxOps {
		return fmt.Errorf("%w: %d operations and %d conditions, at most %d of each", ErrTooLarge, len(t.Ops), len(t.Conds), MaxOps)
	}
	for _, c := range t.Conds {
		if err := checkKey(c.Key); err != nil {
			return err
		}
		if c.Modified < 0 || c.Created < 0 {
			return fmt.Errorf("condition on %s: want a revision, have %d", c.Key, min(c.Modified, c.Created))
		}
	}
	size, seen := 0, make(map[string]bool, len(t.Ops))
	for _, op := range t.Ops {
		if err := checkKey(op.Key); err != nil {
			return err
		}
		switch {
		case seen[op.Key]:
			return fmt.Errorf("key %s stands twice in one transaction", op.Key)
		case op.Delete && (len(op.Value) > 0 || op.Lease != 0):
			return fmt.Errorf("delete of %s has a value or a lease", op.Key)
		case len(op.Value) > MaxValue:
			return fmt.Errorf("%w: %s has %d bytes, at most %d", ErrTooLarge, op.Key, len(op.Value), MaxValue)
		}
		seen[op.Key] = true
		size += len(op.Key) + len(op.Value)
	}
	if size > MaxTxn {
		return fmt.Errorf("%w: a transaction of %d bytes, at most %d", ErrTooLarge, size, MaxTxn)
	}
	return nil
}

func checkKey(key string) error {
	switch {
	case key == "" || !utf8.ValidString(key):
		return fmt.Errorf("key %q: want text", key)
	case len(key) > MaxKey:
		return fmt.Errorf("%w: a key of %d bytes, at most %d", ErrTooLarge, len(key), MaxKey)
	}
	return nil
}

// Change is one key's change as a watcher sees it.
type Change struct {
	KV      KV   `json:"kv"` // of a delete: key, and Modified is the revision of the delete
	Deleted bool `json:"deleted,omitempty"`
}

// Batch is all changes of one revision below the watched prefix, or a sign that the watch has caught up
// to Rev with no change.
type Batch struct {
	Rev     Rev      `json:"rev"`
	Changes []Change `json:"changes,omitempty"`
}

// Store is strict-serialisable. All calls may block until ctx ends; a call that no server answers gives
// up after some seconds with [ErrUnavailable]. Errors wrap those above.
type Store interface {
	// Range returns the keys with the prefix, sorted, and the revision at which they stood so.
	Range(ctx context.Context, prefix string) ([]KV, Rev, error)
	// Commit makes the transaction and returns its revision and true, or the present revision and
	// false when a condition does not hold.
	Commit(ctx context.Context, txn Txn) (Rev, bool, error)
	// Watch calls each for every revision ≥ from that changes a key with the prefix, in order, each
	// revision once and whole, until ctx ends (it returns nil then), each fails (that error) or the
	// store does ([ErrCompacted], [ErrUnavailable]). from 0 means from now on: each is called at once
	// with an empty batch of the present revision. A short outage is bridged: the watch goes on at
	// the revision after the last one it gave.
	Watch(ctx context.Context, prefix string, from Rev, each func(Batch) error) error
	// Grant makes a lease that ends ttl after its last renewal; a store may round ttl up to whole
	// seconds and end the lease up to two seconds late, never early. ttl is at least MinTTL.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew begins the lease's time anew. A lease that has ended gives [ErrLeaseLost].
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends a lease and deletes its keys. Revoking an ended lease is no error.
	Revoke(ctx context.Context, id LeaseID) error
}

// CheckTTL says whether a store may grant a lease of ttl.
func CheckTTL(ttl time.Duration) error {
	if ttl < MinTTL {
		return fmt.Errorf("lease of %v: want at least %v", ttl, MinTTL)
	}
	return nil
}
