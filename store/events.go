package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"go.etcd.io/bbolt"
)

// Change is one change of a key that somebody is to be told of.
type Change struct {
	Number uint64    `json:"number"` // grows from change to change
	Key    string    `json:"key"`
	Op     string    `json:"op"` // put, delete; a value that expires is deleted
	At     time.Time `json:"at"`
}

// Watch is somebody who is told of the changes of the keys with a prefix.
type Watch struct {
	Name   string // by which it is remembered how far it was told
	Prefix string
	// Tell is called with one change after the other, in the order of the commits. When it fails the same change is told again, later and later,
	// until it does not or [ErrSkip] says that it is of no use.
	Tell func(context.Context, Change) error
}

// ErrSkip: the change is never taken, and the next one may be told.
var ErrSkip = errors.New("the change is refused")

var (
	bucketOut = []byte("out") // number (8 bytes) → change: what somebody has not been told yet
	bucketTo  = []byte("to")  // name of a watch → number of the last change that it was told
)

const (
	mostOut   = 100_000 // changes kept for who does not take them; the oldest are lost beyond
	tellFirst = 100 * time.Millisecond
	tellMost  = time.Minute
)

// watches are those who are told, and how they are woken.
type watches struct {
	mu   sync.Mutex
	list []Watch
	news chan struct{} // closed at the next commit with a change, or change of the list
}

func (w *watches) look() ([]Watch, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list, w.news
}

func (w *watches) wake() {
	w.mu.Lock()
	close(w.news)
	w.news = make(chan struct{})
	w.mu.Unlock()
}

// wants says that somebody is to be told of a key.
func (w *watches) wants(key string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.ContainsFunc(w.list, func(x Watch) bool { return strings.HasPrefix(key, x.Prefix) })
}

// Watch says who is told of changes from now on. One of a name that was there goes on where it was; a new one begins with the next change.
func (s *Store) Watch(list []Watch) error {
	s.watches.mu.Lock()
	same := slices.EqualFunc(list, s.watches.list, func(a, b Watch) bool { return a.Name == b.Name && a.Prefix == b.Prefix })
	s.watches.mu.Unlock()
	if same {
		return nil
	}
	err := s.disk.write(0, func(t *txn) error {
		to, last := t.Bucket(bucketTo), t.Bucket(bucketOut).Sequence()
		named := map[string]bool{}
		for _, w := range list {
			named[w.Name] = true
			if to.Get([]byte(w.Name)) == nil {
				if err := to.Put([]byte(w.Name), binary.BigEndian.AppendUint64(nil, last)); err != nil {
					return err
				}
			}
		}
		var gone [][]byte
		if err := to.ForEach(func(k, _ []byte) error {
			if !named[string(k)] {
				gone = append(gone, bytes.Clone(k))
			}
			return nil
		}); err != nil {
			return err
		}
		for _, k := range gone {
			if err := to.Delete(k); err != nil {
				return err
			}
		}
		return t.trimOut()
	})
	if err != nil {
		return err
	}
	s.watches.mu.Lock()
	s.watches.list = slices.Clone(list)
	s.watches.mu.Unlock()
	s.watches.wake()
	return nil
}

// note keeps a change for those who are to be told of it, in the commit that makes it.
func (t *txn) note(key, op string) error {
	if t.d.watches == nil || !t.d.watches.wants(key) {
		return nil
	}
	out := t.Bucket(bucketOut)
	n, err := out.NextSequence()
	if err != nil {
		return err
	}
	b, err := json.Marshal(Change{Number: n, Key: key, Op: op, At: t.d.clock.now().UTC()})
	if err != nil {
		return err
	}
	t.after = append(t.after, t.d.watches.wake)
	if err := out.Put(binary.BigEndian.AppendUint64(nil, n), b); err != nil {
		return err
	}
	if n > mostOut { // numbers have no gaps: so many are kept at the most
		return out.Delete(binary.BigEndian.AppendUint64(nil, n-mostOut))
	}
	return nil
}

// trimOut forgets what everybody was told.
func (t *txn) trimOut() error {
	least := t.Bucket(bucketOut).Sequence()
	if err := t.Bucket(bucketTo).ForEach(func(_, v []byte) error {
		if len(v) == 8 {
			least = min(least, binary.BigEndian.Uint64(v))
		}
		return nil
	}); err != nil {
		return err
	}
	c := t.Bucket(bucketOut).Cursor()
	for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= least; k, _ = c.First() {
		if err := c.Delete(); err != nil {
			return err
		}
	}
	return nil
}

// after is the first kept change with a number above n.
func (s *Store) after(n uint64) (c Change, ok bool, err error) {
	err = s.disk.read(func(tx *bbolt.Tx) error {
		k, v := tx.Bucket(bucketOut).Cursor().Seek(binary.BigEndian.AppendUint64(nil, n+1))
		if ok = k != nil; !ok {
			return nil
		}
		return json.Unmarshal(v, &c)
	})
	return c, ok, err
}

// told is the number of the last change that a watch was told.
func (s *Store) told(name string) (n uint64, err error) {
	return n, s.disk.read(func(tx *bbolt.Tx) error {
		if b := tx.Bucket(bucketTo).Get([]byte(name)); len(b) == 8 {
			n = binary.BigEndian.Uint64(b)
		}
		return nil
	})
}

// tellAll tells everybody until ctx ends; who does not take a change keeps nobody else waiting.
func (s *Store) tellAll(ctx context.Context) {
	type teller struct {
		watch Watch
		stop  context.CancelFunc
	}
	running := map[string]teller{}
	var all sync.WaitGroup
	defer all.Wait()
	for {
		list, news := s.watches.look()
		named := map[string]bool{}
		for _, w := range list {
			named[w.Name] = true
			if was, ok := running[w.Name]; ok && was.watch.Prefix == w.Prefix {
				continue
			} else if ok {
				was.stop()
			}
			own, stop := context.WithCancel(ctx)
			running[w.Name] = teller{w, stop}
			all.Go(func() { s.tellOne(own, w) })
		}
		for name, t := range running {
			if !named[name] {
				t.stop()
				delete(running, name)
			}
		}
		select {
		case <-ctx.Done():
			for _, t := range running {
				t.stop()
			}
			return
		case <-news:
		}
	}
}

// tellOne tells one watch, a change at a time, until ctx ends.
func (s *Store) tellOne(ctx context.Context, w Watch) {
	at, err := s.told(w.Name)
	for wait := tellFirst; ctx.Err() == nil; {
		_, news := s.watches.look()
		var c Change
		more := false
		if err == nil {
			c, more, err = s.after(at)
		}
		if err == nil && !more {
			select {
			case <-ctx.Done():
			case <-news:
			}
			continue
		}
		if err == nil && c.Number > at+1 && at > 0 {
			s.log.Warn("changes that were not taken are lost", "watch", w.Name, "changes", c.Number-at-1)
		}
		if err == nil && strings.HasPrefix(c.Key, w.Prefix) {
			err = w.Tell(ctx, c)
			if errors.Is(err, ErrSkip) {
				s.log.Warn("a change is refused", "watch", w.Name, "key", c.Key, "err", err)
				err = nil
			}
		}
		if err == nil {
			at, wait = c.Number, tellFirst
			if err = s.took(w.Name, at); err == nil {
				continue
			}
		}
		if ctx.Err() != nil {
			return
		}
		s.log.Debug("a change is not taken", "watch", w.Name, "err", err)
		err = nil
		select {
		case <-ctx.Done():
		case <-time.After(wait):
			wait = min(2*wait, tellMost)
		}
	}
}

// took notes how far a watch was told.
func (s *Store) took(name string, n uint64) error {
	return s.disk.write(0, func(t *txn) error {
		to := t.Bucket(bucketTo)
		if to.Get([]byte(name)) == nil { // it is told no more
			return nil
		}
		if err := to.Put([]byte(name), binary.BigEndian.AppendUint64(nil, n)); err != nil {
			return err
		}
		return t.trimOut()
	})
}
