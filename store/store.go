package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Rule is how many of a key's owners a request waits for.
type Rule string

const (
	One    Rule = "one"
	Quorum Rule = "quorum" // more than half of them
	All    Rule = "all"
)

// of is the rule's number for so many owners.
func (r Rule) of(owners int) int {
	switch r {
	case One:
		return 1
	case All:
		return owners
	default:
		return majority(owners)
	}
}

func majority(n int) int { return n/2 + 1 }

// Options of [Open]. The zero value but for Name is a store of its own.
type Options struct {
	Name    string // of this store among its peers: 1 to 100 printable ASCII characters without space, quote and backslash
	MaxSize int64  // bytes of the database file; writes beyond are refused with 507. 0: no bound

	Cluster Cluster       // nil: this store is alone and keeps everything
	OneCopy bool          // a partition has one owner: no hash tree and no tombstones are kept
	Lease   Lease         // orders the writes of a partition; nil: nobody does, and the newest version wins
	NoCAS   string        // why there is no compare-and-set, for the user; empty: it is right without a lease, as one store alone is
	Read    Rule          // empty means quorum
	Write   Rule          // empty means quorum
	Timeout time.Duration // for owners to answer; 0 means 2s

	Keep   time.Duration // tombstones in a cluster; a store that was away for longer may bring deleted keys back. 0 means 7 days
	Sweep  time.Duration // between looks for what has expired; 0 means 1s
	Repair time.Duration // between comparisons with a peer; 0 means 1m
	Hints  int           // records kept for a peer that is away; 0 means 100,000. Further ones are left to the comparison

	Now func() time.Time // nil means time.Now
	Log *slog.Logger     // nil discards
}

// Store is one instance of the database. Its methods may be called at once.
type Store struct {
	o       Options
	log     *slog.Logger
	disk    *disk
	clock   *clock
	tree    *tree // nil where there is nothing to compare: without a cluster, and with one copy
	member  member
	fences  fences
	hints   hinted
	turns   turns
	watches watches
	counts  counts
	life    context.Context // of calls that outlive the request that made them; ends with Close
	end     context.CancelFunc
	pending sync.WaitGroup // those calls
}

// Open opens or makes the database in a folder, which no other process may have open. It starts nothing:
// the store answers at once, and expires, hands over and repairs while [Store.Run] runs.
func Open(dir string, o Options) (*Store, error) {
	if err := checkName(o.Name); err != nil {
		return nil, fmt.Errorf("open store: %w", err)
	}
	o.fill()
	s := &Store{o: o, log: o.Log, clock: &clock{now: o.Now}, turns: turns{held: map[string]chan struct{}{}}}
	path := filepath.Join(dir, "kv.db")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{
		Timeout: time.Second, FreelistType: bbolt.FreelistMapType, NoFreelistSync: true, MaxSize: int(o.MaxSize), NoStatistics: true})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	s.watches.news = make(chan struct{})
	s.disk = &disk{db: db, clock: s.clock, turn: make(chan struct{}, 1), watches: &s.watches}
	if o.Cluster != nil && !o.OneCopy {
		s.tree = newTree(o.Cluster.Partition, o.Cluster.Partitions())
		s.disk.tree, s.disk.keep = s.tree, o.Keep
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", path, err), db.Close())
	}
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

func (o *Options) fill() {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		zero  time.Duration
	}{{&o.Timeout, 2 * time.Second}, {&o.Keep, 7 * 24 * time.Hour}, {&o.Sweep, time.Second}, {&o.Repair, time.Minute}} {
		if *d.field <= 0 {
			*d.field = d.zero
		}
	}
	for _, r := range []*Rule{&o.Read, &o.Write} {
		if *r == "" {
			*r = Quorum
		}
	}
	if o.Hints <= 0 {
		o.Hints = 100_000
	}
}

func checkName(name string) error {
	if name == "" || len(name) > 100 || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' || r == '"' || r == '\\' }) {
		return fmt.Errorf("a store's name is 1 to 100 printable characters without space, quote and backslash, have %q", name)
	}
	return nil
}

// load makes the buckets, takes up the clock, and brings the index into the shape that the cluster wants.
func (s *Store) load() error {
	return s.disk.db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{bucketData, bucketDue, bucketIndex, bucketHints, bucketFence, bucketMeta, bucketOut, bucketTo} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		meta := tx.Bucket(bucketMeta)
		var boot uint64 = 1
		if b := meta.Get(metaBoot); len(b) == 8 {
			boot += binary.BigEndian.Uint64(b)
		}
		if err := meta.Put(metaBoot, binary.BigEndian.AppendUint64(nil, boot)); err != nil {
			return err
		}
		// A start of its own in every version: what was sent to peers before a crash and never committed here
		// cannot be sent again with another value.
		s.clock.node = fmt.Sprintf("%s.%d", s.o.Name, boot)
		if b := meta.Get(metaClock); len(b) == 16 {
			s.clock.restore(binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:]))
		}
		if err := s.loadFences(tx); err != nil {
			return err
		}
		s.loadMember(meta.Get(metaMember))
		s.hints.load(tx)
		return s.loadTree(tx)
	})
}

// loadTree builds the tree from the index, and the index from the data where it is of another shape.
func (s *Store) loadTree(tx *bbolt.Tx) error {
	shape, meta := []byte("none"), tx.Bucket(bucketMeta)
	if s.tree != nil {
		shape = fmt.Appendf(nil, "1 %d", s.tree.partitions)
	}
	index := tx.Bucket(bucketIndex)
	if string(meta.Get(metaShape)) != string(shape) {
		if err := tx.DeleteBucket(bucketIndex); err != nil {
			return err
		}
		var err error
		if index, err = tx.CreateBucket(bucketIndex); err != nil {
			return err
		}
		if s.tree != nil {
			err = tx.Bucket(bucketData).ForEach(func(k, v []byte) error {
				r, err := parseRecord(v)
				if err != nil {
					return err
				}
				return index.Put(append(leafKey(s.tree.leafOf(string(k))), k...), appendVersion(nil, r.version))
			})
		}
		if err != nil {
			return err
		}
		if err := meta.Put(metaShape, shape); err != nil {
			return err
		}
	}
	if s.tree == nil {
		return nil
	}
	return index.ForEach(func(k, v []byte) error {
		version, _, err := cutVersion(v)
		if err != nil || len(k) < leafBytes {
			return fmt.Errorf("%w in the index", errRecord)
		}
		s.tree.touch([]touch{{key: string(k[leafBytes:]), new: version}})
		return nil
	})
}

// Run expires values, tells who watches, hands hints over and compares copies with peers until ctx ends.
func (s *Store) Run(ctx context.Context) error {
	var work sync.WaitGroup
	defer work.Wait()
	if s.tree != nil {
		work.Go(func() { s.repairLoop(ctx) })
	}
	work.Go(func() { s.tellAll(ctx) })
	tick := time.NewTicker(s.o.Sweep)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := s.sweep(); err != nil {
			s.log.Warn("expired keys are not removed", "err", err)
		}
	}
}

// sweep deals with all that is due now.
func (s *Store) sweep() error {
	for {
		if idle, err := s.disk.idle(); idle || err != nil {
			return err
		}
		if n, err := s.disk.sweep(1000); n < 1000 || err != nil {
			return err
		}
	}
}

// Check says why the store cannot be trusted with a write any more, or nil.
func (s *Store) Check(context.Context) error {
	s.disk.mu.Lock()
	defer s.disk.mu.Unlock()
	return s.disk.broken
}

// Close ends open calls to peers and closes the database. Call it when Run has returned and no request is
// under way any more.
func (s *Store) Close() error {
	s.end()
	s.pending.Wait()
	return s.disk.db.Close()
}
