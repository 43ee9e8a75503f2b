package store

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"sync"

	"go.etcd.io/bbolt"
)

// hinted counts the hints that wait on this store's disk, by peer. A hint is the newest record of a key that an
// owner missed. It is a courtesy: nothing rests on it, and what has no room is found by comparison.
type hinted struct {
	mu    sync.Mutex // guards what follows
	count map[string]int
}

func (h *hinted) load(tx *bbolt.Tx) {
	h.count = map[string]int{}
	c := tx.Bucket(bucketHints).Cursor()
	for k, _ := c.First(); k != nil; k, _ = c.Next() {
		if peer, _, ok := bytes.Cut(k, []byte{0}); ok {
			h.count[string(peer)]++
		}
	}
}

// waiting is how many hints wait for a peer.
func (h *hinted) waiting(peer string) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count[peer]
}

func (h *hinted) add(peer string, n int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count[peer] += n
}

func hintKey(peer, key string) []byte { return append(append([]byte(peer), 0), key...) }

// hint keeps a record for a peer that did not take it.
func (s *Store) hint(peer, key string, r record) {
	if s.hints.waiting(peer) >= s.o.Hints {
		return
	}
	err := s.disk.write(len(r.value), func(t *txn) error {
		b, at := t.Bucket(bucketHints), hintKey(peer, key)
		if have := b.Get(at); have != nil {
			if old, err := parseRecord(have); err == nil && old.version.Compare(r.version) >= 0 {
				return nil
			}
		} else {
			t.after = append(t.after, func() { s.hints.add(peer, 1) })
		}
		return b.Put(at, r.append(nil))
	})
	if err != nil {
		s.log.Warn("no hint is kept; the comparison of copies will find it", "peer", peer, "err", err)
	}
}

// handOver gives a peer the hints that wait for it.
func (s *Store) handOver(ctx context.Context, peer string) error {
	for s.hints.waiting(peer) > 0 && ctx.Err() == nil {
		batch, err := s.hintsFor(peer)
		if err != nil || len(batch) == 0 {
			return err
		}
		if err := s.callPush(ctx, peer, batch); err != nil {
			return err
		}
		if err := s.unhint(peer, batch); err != nil {
			return err
		}
		s.counts.handedOver.Add(int64(len(batch)))
	}
	return ctx.Err()
}

// hintsFor is a batch of hints.
func (s *Store) hintsFor(peer string) (batch []entry, err error) {
	err = s.disk.read(func(tx *bbolt.Tx) error {
		size, prefix := 0, hintKey(peer, "")
		c := tx.Bucket(bucketHints).Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix) && len(batch) < maxPush && size < maxBytes; k, v = c.Next() {
			r, err := parseRecord(v)
			if err != nil {
				return err
			}
			r.value = bytes.Clone(r.value)
			batch = append(batch, entry{string(k[len(prefix):]), r})
			size += len(r.value)
		}
		return nil
	})
	return batch, err
}

// unhint forgets hints that were handed over, but for those that are newer by now.
func (s *Store) unhint(peer string, batch []entry) error {
	return s.disk.write(0, func(t *txn) error {
		b, gone := t.Bucket(bucketHints), 0
		for _, e := range batch {
			at := hintKey(peer, e.key)
			have := b.Get(at)
			if have == nil {
				continue
			}
			if r, err := parseRecord(have); err == nil && r.version != e.version {
				continue
			}
			gone++
			if err := b.Delete(at); err != nil {
				return err
			}
		}
		t.after = append(t.after, func() { s.hints.add(peer, -gone) })
		return nil
	})
}

// strangers' hints, of a peer that is none any more, are dropped.
func (s *Store) dropHints(peers []string) error {
	s.hints.mu.Lock()
	var gone []string
	for peer, n := range s.hints.count {
		if n > 0 && !slices.Contains(peers, peer) {
			gone = append(gone, peer)
		}
	}
	s.hints.mu.Unlock()
	var errs []error
	for _, peer := range gone {
		for s.hints.waiting(peer) > 0 {
			batch, err := s.hintsFor(peer)
			if err == nil && len(batch) > 0 {
				err = s.unhint(peer, batch)
			}
			if err != nil || len(batch) == 0 {
				errs = append(errs, err)
				break
			}
		}
	}
	return errors.Join(errs...)
}
