package store

import (
	"cmp"
	"errors"
	"fmt"
	"sync"
	"time"
)

// Version orders the writes of a key: the greater one wins. No two writes have the same Clock and Node.
type Version struct {
	Term  uint64 // the highest fence known when it was written; a lease's holder writes its own, and over what it reads
	Clock uint64 // hybrid: milliseconds since 1970 in the upper 48 bits, a counter in the lower 16
	Node  string // who wrote it: the store's name and the number of its start, store/1.7
}

// Compare is -1, 0 or 1.
func (v Version) Compare(w Version) int {
	return cmp.Or(cmp.Compare(v.Term, w.Term), cmp.Compare(v.Clock, w.Clock), cmp.Compare(v.Node, w.Node))
}

// ETag is the write as a strong entity tag (RFC 9110 §8.8.3). It stays when a later holder of the lease takes the write
// over into its own term.
func (v Version) ETag() string { return fmt.Sprintf(`"%016x-%s"`, v.Clock, v.Node) }

// ms is the wall-clock part in milliseconds since 1970.
func (v Version) ms() int64 { return int64(v.Clock >> 16) }

// maxDrift is how far a peer's clock may be ahead. Beyond it a message is refused: one wrong clock would
// win every later write of its keys (Kulkarni et al. §6, out-of-bounds messages).
const maxDrift = time.Minute

var errDrift = errors.New("its clock is more than 1m ahead of this store's")

// clock is a hybrid logical clock: near wall time, and later than everything it has given out or seen.
// Kulkarni et al. keep l and c apart; here c is the lower 16 bits and carries into l when it is full.
type clock struct {
	node string
	now  func() time.Time

	mu   sync.Mutex // guards what follows
	last uint64
	term uint64
}

// next returns a version greater than every other of this clock.
func (c *clock) next() Version {
	wall := uint64(c.now().UnixMilli()) << 16
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last = max(c.last+1, wall)
	return Version{c.term, c.last, c.node}
}

// under is next with the term of a lease.
func (c *clock) under(term uint64) Version {
	v := c.next()
	v.Term = term
	return v
}

// see makes all later versions greater than v.
func (c *clock) see(v Version) error {
	if v.Clock>>16 > uint64(c.now().Add(maxDrift).UnixMilli()) {
		return fmt.Errorf("version %s: %w", v.ETag(), errDrift)
	}
	c.restore(v.Term, v.Clock)
	return nil
}

func (c *clock) restore(term, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.term = max(c.last, last), max(c.term, term)
}

// at is the present state, to be kept with a commit.
func (c *clock) at() (term, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term, c.last
}
