package store

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Cluster is what a store must know of its peers. All its stores answer Partition alike, for ever; Owners and Peers
// may differ for a moment while a plan spreads.
type Cluster interface {
	// Partitions is how many there are, 1 to 65,536.
	Partitions() int
	// Partition is that of a key, 0 to Partitions()-1.
	Partition(key string) int
	// Owners are the names of the stores that keep a partition's keys, the first one first.
	Owners(partition int) []string
	// Peers are the names of all stores of the cluster but this one.
	Peers() []string
	// RoundTrip sends a request to the handler of a peer's [Store.Peer].
	RoundTrip(peer string, r *http.Request) (*http.Response, error)
}

// Lease says whether this store orders the requests of a partition now.
type Lease interface {
	// Held returns the term under which it does. It may wait for one that is to come; the error says who does
	// instead, or what is in the way.
	Held(ctx context.Context, partition int) (Term, error)
	// Spent tells that a fence that Held gave is not to be given again: an owner knows a later one, or a write under it
	// was left unfinished. The next one is greater.
	Spent(partition int, fence uint64)
	// Settled says that nobody orders any more who began under owners of before. Until then no copy becomes complete.
	Settled() bool
}

// Term is a time in which one store orders the requests of a partition.
type Term struct {
	// Fence is greater than 0 and than that of every earlier holder; no other store has the same, nor has another
	// life of this one.
	Fence uint64
	// Until is when this store stops: half of the lease's time, counted from before it was asked for.
	Until time.Time
	// Owners are those among whom it orders. Under the same owners fences alone keep two holders apart; whoever begins
	// under others begins after Until.
	Owners []string
}

var (
	errFenced   = errors.New("a later lease orders this partition")
	errCatching = errors.New("its copy is not complete yet")
)

// unmet is a rule that too few owners met. A write may have taken place at some of them.
type unmet struct {
	write              bool
	rule               Rule
	have, need, owners int
	why                error
}

func (e *unmet) Error() string {
	what, end := "answered the read", ""
	if e.write {
		what, end = "keep the write", "; it may still take place: read before you write again"
	}
	return fmt.Sprintf("%d of %d owners %s, %q needs %d (%v)%s", e.have, e.owners, what, e.rule, e.need, e.why, end)
}

func (e *unmet) Unwrap() error { return e.why }

// member knows of which partitions this store's copy is complete. Whoever begins with an empty folder, because its disk
// was lost or because it has become an owner, knows nothing of what was acknowledged before: it takes
// writes, but its answer to a read counts only when it has compared itself with so many other owners that
// every quorum of a write has one of them: n − w + 1. Where no majority has ever been complete, nothing was
// ever acknowledged at a quorum and all begin empty.
type member struct {
	mu     sync.Mutex // guards what follows
	whole  []bool     // by partition
	synced map[int][]string
	fresh  map[int][]string
}

func (s *Store) loadMember(bits []byte) {
	if s.o.Cluster == nil {
		return
	}
	n := s.o.Cluster.Partitions()
	s.member.whole = make([]bool, n)
	for p := range n {
		s.member.whole[p] = p/8 < len(bits) && bits[p/8]&(1<<(p%8)) != 0
	}
	s.member.synced, s.member.fresh = map[int][]string{}, map[int][]string{}
}

// complete says that this store's answer to a read of a partition counts.
func (s *Store) complete(p int) bool {
	s.member.mu.Lock()
	defer s.member.mu.Unlock()
	return s.member.whole[p] || len(s.o.Cluster.Owners(p)) == 1
}

// bits are the complete partitions of some, in their order.
func (s *Store) bits(partitions []int) []byte {
	s.member.mu.Lock()
	defer s.member.mu.Unlock()
	b := make([]byte, len(partitions))
	for i, p := range partitions {
		if s.member.whole[p] {
			b[i] = 1
		}
	}
	return b
}

// compared notes that this store is now like a peer in some partitions, and which of them are whole there.
func (s *Store) compared(peer string, partitions []int, whole []byte) error {
	m, changed := &s.member, false
	m.mu.Lock()
	for i, p := range partitions {
		if m.whole[p] {
			continue
		}
		m.synced[p], m.fresh[p] = drop(m.synced[p], peer), drop(m.fresh[p], peer)
		if whole[i] == 1 {
			m.synced[p] = append(m.synced[p], peer)
		} else {
			m.fresh[p] = append(m.fresh[p], peer)
		}
		n := len(s.o.Cluster.Owners(p))
		if len(m.synced[p]) >= n-majority(n)+1 || 1+len(m.fresh[p]) >= majority(n) {
			m.whole[p], changed = true, true
			delete(m.synced, p)
			delete(m.fresh, p)
		}
	}
	m.mu.Unlock()
	if !changed {
		return nil
	}
	return s.keepMember()
}

// disowned forgets that partitions were complete that this store no longer owns.
func (s *Store) disowned() error {
	m, changed := &s.member, false
	for p := range s.o.Cluster.Partitions() {
		if slices.Contains(s.o.Cluster.Owners(p), s.o.Name) {
			continue
		}
		m.mu.Lock()
		changed = changed || m.whole[p]
		m.whole[p] = false
		m.mu.Unlock()
	}
	if !changed {
		return nil
	}
	return s.keepMember()
}

func (s *Store) keepMember() error {
	return s.disk.write(0, func(t *txn) error {
		s.member.mu.Lock()
		bits := make([]byte, (len(s.member.whole)+7)/8)
		for p, whole := range s.member.whole {
			if whole {
				bits[p/8] |= 1 << (p % 8)
			}
		}
		s.member.mu.Unlock()
		return t.Bucket(bucketMeta).Put(metaMember, bits)
	})
}

func drop(names []string, name string) []string {
	return slices.DeleteFunc(names, func(n string) bool { return n == name })
}

// fences are the highest terms heard of, by partition.
type fences struct {
	mu   sync.Mutex // guards what follows
	term map[int]uint64
}

func (s *Store) loadFences(tx *bbolt.Tx) error {
	s.fences.term = map[int]uint64{}
	return tx.Bucket(bucketFence).ForEach(func(k, v []byte) error {
		if len(k) != 2 || len(v) != 8 {
			return fmt.Errorf("%w: a fence", errRecord)
		}
		s.fences.term[int(binary.BigEndian.Uint16(k))] = binary.BigEndian.Uint64(v)
		return nil
	})
}

func (f *fences) of(p int) uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.term[p]
}

// fence refuses a term below the highest heard of, and keeps a higher one. Within a commit nothing comes
// between this and the write that it is for. Term 0 is of no lease: it passes.
func (s *Store) fence(t *txn, p int, term uint64) error {
	have := s.fences.of(p)
	if term == 0 || term == have {
		return nil
	}
	if term < have {
		return errFenced
	}
	if err := t.Bucket(bucketFence).Put(binary.BigEndian.AppendUint16(nil, uint16(p)), binary.BigEndian.AppendUint64(nil, term)); err != nil {
		return err
	}
	s.fences.mu.Lock() // now, for later writes of this commit; if it fails, a fence too high only refuses
	s.fences.term[p] = term
	s.fences.mu.Unlock()
	return nil
}

// raise is fence for a read: a promise, on the disk, that no lower term writes here any more.
func (s *Store) raise(p int, term uint64) error {
	switch have := s.fences.of(p); {
	case term == 0 || term == have:
		return nil
	case term < have:
		return errFenced
	}
	var refused error
	err := s.disk.write(0, func(t *txn) error {
		if refused = s.fence(t, p, term); errors.Is(refused, errFenced) {
			return nil
		}
		return refused
	})
	return errors.Join(err, refused)
}

// turns let requests on one key wait for one another, over calls to peers.
type turns struct {
	mu   sync.Mutex // guards what follows
	held map[string]chan struct{}
}

// take waits for the key's turn and returns what ends it.
func (t *turns) take(ctx context.Context, key string) (end func(), err error) {
	for {
		t.mu.Lock()
		held := t.held[key]
		if held == nil {
			mine := make(chan struct{})
			t.held[key] = mine
			t.mu.Unlock()
			return func() {
				t.mu.Lock()
				delete(t.held, key)
				t.mu.Unlock()
				close(mine)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-held:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
