package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"
)

const (
	MaxKey   = 1 << 10 // bytes of a key
	MaxValue = 1 << 20 // bytes of a value
	maxKind  = 255     // bytes of a media type
	maxName  = 120     // bytes of a writer's name
	format   = 1       // of a record, its first byte
)

// record is what is kept of a key.
type record struct {
	version Version
	expires int64 // milliseconds since 1970; 0: never
	dead    bool  // a tombstone: deleted, or expired and emptied
	kind    string
	value   []byte
}

// live says that there is a value at a time.
func (r *record) live(now time.Time) bool {
	return r.version.Clock != 0 && !r.dead && (r.expires == 0 || now.UnixMilli() < r.expires)
}

// due is when the sweeper has to do with it: when its value expires, or when its tombstone, kept for so long,
// may go; 0 means never.
func (r *record) due(keep time.Duration) int64 {
	switch {
	case r.dead:
		return max(r.expires, r.version.ms()) + keep.Milliseconds()
	default:
		return r.expires
	}
}

// forgotten says that a tombstone's time is over: it is not taken in again.
func (r *record) forgotten(now time.Time, keep time.Duration) bool {
	if r.dead {
		return r.due(keep) <= now.UnixMilli()
	}
	return r.expires > 0 && r.expires+keep.Milliseconds() <= now.UnixMilli()
}

var errRecord = errors.New("bad record")

// appendVersion is term, clock, length of the name, name.
func appendVersion(b []byte, v Version) []byte {
	b = binary.AppendUvarint(b, v.Term)
	b = binary.BigEndian.AppendUint64(b, v.Clock)
	b = append(b, byte(len(v.Node)))
	return append(b, v.Node...)
}

func cutVersion(b []byte) (Version, []byte, error) {
	var v Version
	var err error
	if v.Term, b, err = cutUvarint(b); err != nil {
		return v, nil, err
	}
	if len(b) < 9 || int(b[8]) > maxName || len(b) < 9+int(b[8]) {
		return v, nil, fmt.Errorf("%w: it ends within its version", errRecord)
	}
	v.Clock = binary.BigEndian.Uint64(b)
	end := 9 + int(b[8])
	v.Node = string(b[9:end])
	return v, b[end:], nil
}

// cutUvarint reads the shortest form alone: one value has one encoding.
func cutUvarint(b []byte) (uint64, []byte, error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 {
		return 0, nil, fmt.Errorf("%w: bad number", errRecord)
	}
	return n, b[size:], nil
}

func (r *record) append(b []byte) []byte {
	flags := byte(0)
	if r.dead {
		flags = 1
	}
	b = append(b, format, flags)
	b = appendVersion(b, r.version)
	b = binary.AppendUvarint(b, uint64(r.expires))
	b = append(b, byte(len(r.kind)))
	b = append(b, r.kind...)
	return append(b, r.value...)
}

// parseRecord reads a record; its value is part of b.
func parseRecord(b []byte) (record, error) {
	var r record
	if len(b) < 2 || b[0] != format || b[1] > 1 {
		return r, fmt.Errorf("%w: want format %d", errRecord, format)
	}
	r.dead = b[1] == 1
	var err error
	if r.version, b, err = cutVersion(b[2:]); err != nil {
		return r, err
	}
	expires, b, err := cutUvarint(b)
	if err != nil {
		return r, err
	}
	r.expires = int64(expires)
	if len(b) < 1 || len(b) < 1+int(b[0]) {
		return r, fmt.Errorf("%w: it ends within its media type", errRecord)
	}
	end := 1 + int(b[0])
	r.kind, r.value = string(b[1:end]), b[end:]
	switch {
	case r.expires < 0 || r.expires > 1<<50:
		return r, fmt.Errorf("%w: it expires at no time", errRecord)
	case r.version.Clock == 0:
		return r, fmt.Errorf("%w: it has no version", errRecord)
	case len(r.value) > MaxValue:
		return r, fmt.Errorf("%w: a value of %d bytes", errRecord, len(r.value))
	case r.dead && len(r.value) > 0:
		return r, fmt.Errorf("%w: a tombstone with a value", errRecord)
	}
	return r, nil
}

// entry is a key with its record, as stores tell them to one another.
type entry struct {
	key string
	record
}

func (e *entry) append(b []byte) []byte {
	b = binary.AppendUvarint(b, uint64(len(e.key)))
	b = append(b, e.key...)
	rec := e.record.append(nil)
	b = binary.AppendUvarint(b, uint64(len(rec)))
	return append(b, rec...)
}

// cutPiece is a length and as many bytes.
func cutPiece(b []byte, most int) (piece, rest []byte, err error) {
	n, b, err := cutUvarint(b)
	if err != nil {
		return nil, nil, err
	}
	if n > uint64(len(b)) || n > uint64(most) {
		return nil, nil, fmt.Errorf("%w: a piece of %d bytes", errRecord, n)
	}
	return b[:n], b[n:], nil
}

func cutKey(b []byte) (string, []byte, error) {
	key, b, err := cutPiece(b, MaxKey)
	if err != nil {
		return "", nil, err
	}
	if err := checkKey(string(key)); err != nil {
		return "", nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	return string(key), b, nil
}

// parseEntries reads entries to the end of b.
func parseEntries(b []byte) ([]entry, error) {
	var all []entry
	for len(b) > 0 {
		var e entry
		var rec []byte
		var err error
		if e.key, b, err = cutKey(b); err != nil {
			return nil, err
		}
		if rec, b, err = cutPiece(b, MaxValue+1024); err != nil {
			return nil, err
		}
		if e.record, err = parseRecord(rec); err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

// checkKey says what is wrong with a key.
func checkKey(key string) error {
	switch {
	case key == "":
		return errors.New("the key is empty")
	case len(key) > MaxKey:
		return fmt.Errorf("a key has at most %d bytes, this one has %d", MaxKey, len(key))
	case !utf8.ValidString(key):
		return errors.New("a key is UTF-8 text")
	case key == "." || key == "..":
		return fmt.Errorf("%q is no key: on its way it would be taken for a folder", key)
	}
	return nil
}
