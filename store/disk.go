package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

const (
	maxQueue = 4096    // writes that wait for a commit; a further one is refused
	maxBatch = 1024    // writes of one commit
	maxBytes = 4 << 20 // of their values, about
)

var (
	bucketData  = []byte("data")  // key → record
	bucketDue   = []byte("due")   // milliseconds (8 bytes), key → nothing: what the sweeper looks at
	bucketIndex = []byte("index") // leaf (3 bytes), key → version: the leaves of the hash tree
	bucketHints = []byte("hints") // peer, 0, key → record that the peer missed
	bucketFence = []byte("fence") // partition (2 bytes) → highest term
	bucketMeta  = []byte("meta")
	metaClock   = []byte("clock")  // term and clock at the last commit
	metaBoot    = []byte("boot")   // number of starts
	metaMember  = []byte("member") // bit map of partitions whose copy is complete
	metaShape   = []byte("shape")  // of the index; another one is built anew
)

var (
	errBusy   = errors.New("too many writes wait for the disk; try again")
	errClosed = errors.New("the store is closed")
)

// disk is the database with its queue of writes. Whoever finds nobody committing commits for all who wait:
// many writes, one fsync, and no goroutine that would have to be started.
type disk struct {
	db      *bbolt.DB
	clock   *clock
	keep    time.Duration
	tree    *tree         // nil: no index is kept
	watches *watches      // nil: nobody is told of changes
	turn    chan struct{} // one slot: its holder commits

	mu     sync.Mutex // guards what follows
	queue  []*op
	broken error // the disk failed in a way that leaves open what it holds; sticks
}

// op is one write that waits for a commit.
type op struct {
	size int
	do   func(*txn) error // its error undoes the whole commit: results of its own it keeps elsewhere
	done chan struct{}    // closed after the commit
	err  error
}

// txn is one commit under way.
type txn struct {
	*bbolt.Tx
	d       *disk
	touched []touch
	after   []func() // once it is durable
}

// touch is a change of the hash tree, made once the commit is durable.
type touch struct {
	key      string
	old, new Version // a Clock of 0: none
}

// write does f as part of a commit and returns once that is on the disk. What was queued is done even if
// the caller goes away.
func (d *disk) write(size int, f func(*txn) error) error {
	o := &op{size: size, do: f, done: make(chan struct{})}
	d.mu.Lock()
	err := d.broken
	if err == nil && len(d.queue) >= maxQueue {
		err = errBusy
	}
	if err == nil {
		d.queue = append(d.queue, o)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	for {
		select {
		case <-o.done:
			return o.err
		case d.turn <- struct{}{}:
		}
		select {
		case <-o.done: // another's commit had it
		default:
			d.commit()
		}
		<-d.turn
	}
}

// commit takes what waits, up to a bound, and makes it durable.
func (d *disk) commit() {
	d.mu.Lock()
	n, size := 0, 0
	for n < len(d.queue) && n < maxBatch && (n == 0 || size+d.queue[n].size <= maxBytes) {
		size += d.queue[n].size
		n++
	}
	batch := d.queue[:n:n]
	d.queue = append([]*op(nil), d.queue[n:]...)
	err := d.broken
	d.mu.Unlock()
	t := &txn{d: d}
	if err == nil {
		err = d.db.Update(func(tx *bbolt.Tx) error {
			t.Tx = tx
			for _, o := range batch {
				if err := o.do(t); err != nil {
					return err
				}
			}
			return t.Bucket(bucketMeta).Put(metaClock, d.clockBytes())
		})
		if err != nil && !harmless(err) {
			err = fmt.Errorf("the disk failed, and what it holds is not known until the store starts again: %w", err)
			d.mu.Lock()
			d.broken = err
			d.mu.Unlock()
		}
	}
	if err == nil {
		if d.tree != nil {
			d.tree.touch(t.touched)
		}
		for _, f := range t.after {
			f()
		}
	}
	for _, o := range batch {
		o.err = err
		close(o.done)
	}
}

// harmless errors come before anything of the commit counts: the database is what it was.
func harmless(err error) bool {
	return full(err) || errors.Is(err, berrors.ErrDatabaseNotOpen) || errors.Is(err, errRecord)
}

// full says that there is no room for a write.
func full(err error) bool {
	return errors.Is(err, berrors.ErrMaxSizeReached) || noSpace(err)
}

func (d *disk) clockBytes() []byte {
	term, last := d.clock.at()
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, term), last)
}

// read calls f with what is durable.
func (d *disk) read(f func(*bbolt.Tx) error) error {
	err := d.db.View(f)
	if errors.Is(err, berrors.ErrDatabaseNotOpen) {
		return errClosed
	}
	return err
}

// get returns the record of a key, with a value of its own.
func (d *disk) get(key string) (record, error) {
	var r record
	err := d.read(func(tx *bbolt.Tx) error {
		have, err := recordOf(tx, key)
		r = have
		r.value = append([]byte(nil), have.value...)
		return err
	})
	return r, err
}

// recordOf is the record of a key, or none with a Clock of 0. Its value lives as long as tx.
func recordOf(tx *bbolt.Tx, key string) (record, error) {
	b := tx.Bucket(bucketData).Get([]byte(key))
	if b == nil {
		return record{}, nil
	}
	r, err := parseRecord(b)
	if err != nil {
		return r, fmt.Errorf("read %q: %w", key, err)
	}
	return r, nil
}

// apply takes a record in if it is newer than what is there, and returns what was there.
func (t *txn) apply(key string, r record) (old record, applied bool, err error) {
	if old, err = recordOf(t.Tx, key); err != nil {
		return old, false, err
	}
	if old.version.Compare(r.version) >= 0 || old.version.Clock == 0 && r.forgotten(t.d.clock.now(), t.d.keep) {
		return old, false, nil
	}
	err = t.put(key, old, r)
	old.value = nil // it lives no longer than the commit
	return old, true, err
}

// put replaces a record by another.
func (t *txn) put(key string, old, r record) error {
	if err := t.undue(key, old); err != nil {
		return err
	}
	if due := r.due(t.d.keep); due > 0 {
		if err := t.Bucket(bucketDue).Put(dueKey(due, key), nil); err != nil {
			return err
		}
	}
	if err := t.Bucket(bucketData).Put([]byte(key), r.append(make([]byte, 0, len(r.value)+128))); err != nil {
		return err
	}
	if gone := old.version.Clock == 0 || old.dead; old.version != r.version || old.dead != r.dead {
		op := "put"
		if r.dead {
			op = "delete"
		}
		if !r.dead || !gone {
			if err := t.note(key, op); err != nil {
				return err
			}
		}
	}
	return t.index(key, old.version, r.version)
}

// remove leaves nothing of a key.
func (t *txn) remove(key string, old record) error {
	if err := t.undue(key, old); err != nil {
		return err
	}
	if err := t.Bucket(bucketData).Delete([]byte(key)); err != nil {
		return err
	}
	if old.version.Clock != 0 && !old.dead {
		if err := t.note(key, "delete"); err != nil {
			return err
		}
	}
	return t.index(key, old.version, Version{})
}

func (t *txn) undue(key string, old record) error {
	if due := old.due(t.d.keep); old.version.Clock != 0 && due > 0 {
		return t.Bucket(bucketDue).Delete(dueKey(due, key))
	}
	return nil
}

func (t *txn) index(key string, old, new Version) error {
	if t.d.tree == nil || old == new {
		return nil
	}
	t.touched = append(t.touched, touch{key, old, new})
	at := append(leafKey(t.d.tree.leafOf(key)), key...)
	if new.Clock == 0 {
		return t.Bucket(bucketIndex).Delete(at)
	}
	return t.Bucket(bucketIndex).Put(at, appendVersion(nil, new))
}

func dueKey(ms int64, key string) []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(key)), uint64(ms)), key...)
}

// sweep empties what has expired and removes what is due, so many at the most, and says how many it saw.
func (d *disk) sweep(most int) (n int, err error) {
	now := d.clock.now().UnixMilli()
	err = d.write(0, func(t *txn) error {
		c := t.Bucket(bucketDue).Cursor()
		var all [][]byte
		for k, _ := c.First(); k != nil && len(all) < most; k, _ = c.Next() {
			if len(k) < 8 || int64(binary.BigEndian.Uint64(k)) > now {
				break
			}
			all = append(all, append([]byte(nil), k...))
		}
		n = len(all)
		for _, k := range all {
			if err := t.Bucket(bucketDue).Delete(k); err != nil {
				return err
			}
			if err := t.sweepKey(string(k[8:]), now); err != nil {
				return err
			}
		}
		return nil
	})
	return n, err
}

// sweepKey does what is due of a key. An expired value becomes a tombstone of the same version, so that
// another store's copy, which is swept later, does not bring it back.
func (t *txn) sweepKey(key string, now int64) error {
	r, err := recordOf(t.Tx, key)
	if err != nil || r.version.Clock == 0 {
		return err
	}
	old := r
	if !r.dead && r.expires > 0 && r.expires <= now {
		r.dead, r.kind, r.value = true, "", nil
	}
	if r.dead && r.due(t.d.keep) <= now {
		return t.remove(key, old)
	}
	return t.put(key, old, r) // also when keep has changed since
}

// idle says that nothing is due now: the sweeper need not commit.
func (d *disk) idle() (idle bool, err error) {
	now := d.clock.now().UnixMilli()
	err = d.read(func(tx *bbolt.Tx) error {
		k, _ := tx.Bucket(bucketDue).Cursor().First()
		idle = len(k) < 8 || int64(binary.BigEndian.Uint64(k)) > now
		return nil
	})
	return idle, err
}
