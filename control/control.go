// Package control is where nodes agree: what is wanted, the plan, what is seen, leases, and who leads.
// Store is the one narrow interface; control/memory, control/etcd and control/remote implement it and
// one conformance suite (control/controltest) keeps them honest. Request traffic, logs, metrics and
// artifact bytes never go in. Start at [Store]; [Campaign] is the election, [Cluster] gives keys their words.
package control

import (
	"context"
	"errors"
	"time"
)

// Rev orders all changes of a store. It grows by at least one with each; 0 is before the first.
type Rev int64

// LeaseID names a lease; 0 is none.
type LeaseID int64

// Bounds of what a store takes.
const (
	MaxValue = 64 << 10 // bytes of one value
	MaxOps   = 128      // puts and deletes of one transaction
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

// Txn makes all Ops at one revision if all Conds hold, else none. No key stands twice in Ops.
type Txn struct {
	Conds []Cond `json:"conds,omitempty"`
	Ops   []Op   `json:"ops,omitempty"`
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

// Store is strict-serialisable. All calls may block until ctx ends; errors wrap those above.
type Store interface {
	// Range returns the keys with the prefix, sorted, and the revision at which they stood so.
	Range(ctx context.Context, prefix string) ([]KV, Rev, error)
	// Commit makes the transaction and returns its revision and true, or the present revision and
	// false when a condition does not hold.
	Commit(ctx context.Context, txn Txn) (Rev, bool, error)
	// Watch calls each for every revision ≥ from that changes a key with the prefix, in order, each
	// revision once and whole, until ctx ends (it returns nil then), each fails (that error) or the
	// store does ([ErrCompacted], [ErrUnavailable]). from 0 means from now on.
	Watch(ctx context.Context, prefix string, from Rev, each func(Batch) error) error
	// Grant makes a lease that ends ttl after its last renewal; ttl is at least MinTTL.
	Grant(ctx context.Context, ttl time.Duration) (LeaseID, error)
	// Renew begins the lease's time anew. A lease that has ended gives [ErrLeaseLost].
	Renew(ctx context.Context, id LeaseID) error
	// Revoke ends a lease and deletes its keys. Revoking an ended lease is no error.
	Revoke(ctx context.Context, id LeaseID) error
}
