// Package journal keeps what happened in runs of something, in order, on disk: what an append returned from is there after a power cut. Runs
// are named by text that sorts by age. Start at [Open].
package journal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"
)

var (
	bucketEntries = []byte("entries") // run, 0, number (8 bytes) → entry
	bucketOpen    = []byte("open")    // run → nothing: it has not ended
	bucketKeys    = []byte("keys")    // key of a start → run
	bucketRuns    = []byte("runs")    // run → key of its start
)

// ErrNoRun: nothing is known of the run.
var ErrNoRun = errors.New("no such run")

// Journal is an open journal. Its methods may be called by several goroutines; appends at the same time share one sync of the disk.
type Journal struct{ db *bbolt.DB }

// Open opens the journal in a file, or makes it. A file that another process has open is waited for as long as wait.
func Open(file string, wait time.Duration) (*Journal, error) {
	db, err := bbolt.Open(file, 0o600, &bbolt.Options{Timeout: wait, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, fmt.Errorf("open the journal %s: %w", file, err)
	}
	db.MaxBatchDelay = 200 * time.Microsecond // those that come while one syncs wait anyway
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, b := range [][]byte{bucketEntries, bucketOpen, bucketKeys, bucketRuns} {
			if _, err := tx.CreateBucketIfNotExists(b); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open the journal %s: %w", file, err), db.Close())
	}
	return &Journal{db}, nil
}

// Close closes the file.
func (j *Journal) Close() error { return j.db.Close() }

// Begin begins a run with its first entry. If key is not empty and began a run before, nothing is done and that one's name is returned.
func (j *Journal) Begin(run, key string, entry []byte) (string, error) {
	out := run
	err := j.db.Batch(func(tx *bbolt.Tx) error {
		out = run
		if key != "" {
			keys := tx.Bucket(bucketKeys)
			if was := keys.Get([]byte(key)); was != nil {
				out = string(was)
				return nil
			}
			if err := keys.Put([]byte(key), []byte(run)); err != nil {
				return err
			}
		}
		if err := tx.Bucket(bucketRuns).Put([]byte(run), []byte(key)); err != nil {
			return err
		}
		if err := tx.Bucket(bucketOpen).Put([]byte(run), nil); err != nil {
			return err
		}
		return add(tx, run, entry)
	})
	return out, err
}

func add(tx *bbolt.Tx, run string, entry []byte) error {
	b := tx.Bucket(bucketEntries)
	n, err := b.NextSequence()
	if err != nil {
		return err
	}
	return b.Put(binary.BigEndian.AppendUint64(prefix(run), n), entry)
}

func prefix(run string) []byte { return append([]byte(run), 0) }

// Append adds an entry to a run.
func (j *Journal) Append(run string, entry []byte) error {
	return j.db.Batch(func(tx *bbolt.Tx) error {
		if tx.Bucket(bucketRuns).Get([]byte(run)) == nil {
			return fmt.Errorf("%s: %w", run, ErrNoRun)
		}
		return add(tx, run, entry)
	})
}

// End adds a run's last entry.
func (j *Journal) End(run string, entry []byte) error {
	return j.db.Batch(func(tx *bbolt.Tx) error {
		if err := tx.Bucket(bucketOpen).Delete([]byte(run)); err != nil {
			return err
		}
		return add(tx, run, entry)
	})
}

// Entries are those of a run, in order.
func (j *Journal) Entries(run string) (all [][]byte, err error) {
	err = j.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketEntries).Cursor()
		for k, v := c.Seek(prefix(run)); bytes.HasPrefix(k, prefix(run)); k, v = c.Next() {
			all = append(all, bytes.Clone(v))
		}
		return nil
	})
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%s: %w", run, ErrNoRun)
	}
	return all, err
}

// Open lists the runs that have not ended, the oldest first.
func (j *Journal) Open() (runs []string, err error) {
	return runs, j.db.View(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketOpen).ForEach(func(k, _ []byte) error {
			runs = append(runs, string(k))
			return nil
		})
	})
}

// Last lists the names of the newest runs, the newest first.
func (j *Journal) Last(most int) (runs []string, err error) {
	return runs, j.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketRuns).Cursor()
		for k, _ := c.Last(); k != nil && len(runs) < most; k, _ = c.Prev() {
			runs = append(runs, string(k))
		}
		return nil
	})
}

// Trim forgets the oldest runs that have ended, but for the newest keep of all, at most so many at a time. It returns how many it forgot.
func (j *Journal) Trim(keep, most int) (n int, err error) {
	err = j.db.Update(func(tx *bbolt.Tx) error {
		runs, open := tx.Bucket(bucketRuns), tx.Bucket(bucketOpen)
		over := runs.Stats().KeyN - keep
		var old [][]byte
		c := runs.Cursor()
		for k, _ := c.First(); k != nil && over > 0 && len(old) < most; k, _ = c.Next() {
			over--
			if !has(open, k) {
				old = append(old, bytes.Clone(k))
			}
		}
		for _, run := range old {
			if key := runs.Get(run); len(key) > 0 {
				if err := tx.Bucket(bucketKeys).Delete(key); err != nil {
					return err
				}
			}
			if err := runs.Delete(run); err != nil {
				return err
			}
			entries := tx.Bucket(bucketEntries)
			e := entries.Cursor()
			for k, _ := e.Seek(prefix(string(run))); bytes.HasPrefix(k, prefix(string(run))); k, _ = e.Seek(prefix(string(run))) {
				if err := entries.Delete(k); err != nil {
					return err
				}
			}
		}
		n = len(old)
		return nil
	})
	return n, err
}

// has says whether a bucket has a key, also one whose value is empty.
func has(b *bbolt.Bucket, key []byte) bool {
	k, _ := b.Cursor().Seek(key)
	return bytes.Equal(k, key)
}
