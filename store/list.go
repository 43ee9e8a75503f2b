package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.etcd.io/bbolt"
)

const (
	listLimit = 100    // keys of a page where the request says nothing
	maxLimit  = 10_000 // and at the most
)

// page asks for keys in the order of their bytes.
type page struct {
	prefix, after string
	limit         int
}

// serveKeysOf answers with a page of keys: JSON, or a line a key for who wants text/plain.
func (s *Store) serveKeysOf(w http.ResponseWriter, r *http.Request) {
	p, err := parsePage(r.URL.RawQuery)
	if err != nil {
		s.failWith(w, err)
		return
	}
	all, next, err := s.list(r.Context(), p)
	if err != nil {
		s.failWith(w, err)
		return
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	h.Set("X-Content-Type-Options", "nosniff")
	if next != "" {
		h.Set("Link", "<"+Base+"?"+url.Values{"prefix": {p.prefix}, "after": {next}, "limit": {strconv.Itoa(p.limit)}}.Encode()+`>; rel="next"`)
	}
	if strings.HasPrefix(r.Header.Get("Accept"), "text/plain") {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		var b bytes.Buffer
		for _, k := range all {
			b.WriteString(url.PathEscape(k.key) + "\n")
		}
		_, _ = w.Write(b.Bytes())
		return
	}
	type line struct {
		Key     string     `json:"key"`
		ETag    string     `json:"etag"`
		Size    int        `json:"size"` // bytes
		Expires *time.Time `json:"expires,omitempty"`
	}
	out := struct {
		Keys []line `json:"keys"`
		Next string `json:"next,omitempty"` // the after of the next page; absent on the last
	}{Keys: []line{}, Next: next}
	for _, k := range all {
		l := line{Key: k.key, ETag: k.version.ETag(), Size: k.size}
		if k.expires > 0 {
			at := time.UnixMilli(k.expires).UTC()
			l.Expires = &at
		}
		out.Keys = append(out.Keys, l)
	}
	h.Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // whoever has gone needs no answer
}

func parsePage(query string) (page, error) {
	q, err := url.ParseQuery(query)
	if err != nil {
		return page{}, fmt.Errorf("%w: the query: %w", errBad, err)
	}
	p := page{q.Get("prefix"), q.Get("after"), listLimit}
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxLimit {
			return p, fmt.Errorf("%w: limit: want 1 to %d, have %q", errBad, maxLimit, text)
		}
		p.limit = n
	}
	if len(p.prefix) > MaxKey || len(p.after) > MaxKey {
		return p, fmt.Errorf("%w: prefix and after have at most %d bytes", errBad, MaxKey)
	}
	return p, nil
}

// list returns keys that have a value, and after which key there may be more; empty: there are none.
func (s *Store) list(ctx context.Context, p page) (all []held, next string, err error) {
	if s.o.Cluster == nil {
		all, more, err := s.scan(p, false)
		if more {
			next = all[len(all)-1].key
		}
		return all, next, err
	}
	return s.listAll(ctx, p)
}

// scan lists this store's keys. With dead, also those that have no value now, for a merge.
func (s *Store) scan(p page, dead bool) (all []held, more bool, err error) {
	now := s.o.Now()
	err = s.disk.read(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketData).Cursor()
		from := []byte(max(p.prefix, p.after))
		k, v := c.Seek(from)
		if p.after != "" && string(k) == p.after {
			k, v = c.Next()
		}
		for ; k != nil && strings.HasPrefix(string(k), p.prefix); k, v = c.Next() {
			r, err := parseRecord(v)
			if err != nil {
				return fmt.Errorf("read %q: %w", k, err)
			}
			live := r.live(now)
			if !live && !dead {
				continue
			}
			if len(all) == p.limit {
				more = true
				return nil
			}
			all = append(all, held{string(k), r.version, live, len(r.value), r.expires})
		}
		return nil
	})
	return all, more, err
}

// part is a page of one store.
type part struct {
	peer  string
	whole []byte // a bit a partition: its copy is complete
	more  bool
	keys  []held
	err   error
}

// listAll asks every store for its page and merges them: of each key the newest version counts. Every partition
// must have answers of as many owners as the read rule wants, or what is missing would look deleted.
func (s *Store) listAll(ctx context.Context, p page) (all []held, next string, err error) {
	peers := append(slices.Clone(s.o.Cluster.Peers()), s.o.Name)
	parts := make(chan part, len(peers))
	for _, peer := range peers {
		s.pending.Go(func() {
			ctx, cancel := s.callContext(ctx)
			defer cancel()
			parts <- s.callList(ctx, peer, p)
		})
	}
	var have []part
	var why []error
	for range peers {
		one := <-parts // within the time of a call
		if one.err != nil {
			why = append(why, fmt.Errorf("%s: %w", one.peer, one.err))
			continue
		}
		have = append(have, one)
	}
	for n := range s.o.Cluster.Partitions() {
		owners := s.o.Cluster.Owners(n)
		answered, need := 0, s.o.Read.of(len(owners))
		for _, one := range have {
			if slices.Contains(owners, one.peer) && (len(owners) == 1 || n/8 < len(one.whole) && one.whole[n/8]&(1<<(n%8)) != 0) {
				answered++
			}
		}
		if answered < need {
			return nil, "", &unmet{false, s.o.Read, answered, need, len(owners), errors.Join(why...)}
		}
	}
	all, next = merge(have, p.limit)
	return all, next, nil
}

// merge keeps the newest version of each key. Beyond the last key of a page that is not the last one, its store
// may have something to say that is not here: the merged page ends there.
func merge(parts []part, limit int) (all []held, next string) {
	newest := map[string]held{}
	more, end := false, ""
	for _, one := range parts {
		if one.more && len(one.keys) > 0 {
			if last := one.keys[len(one.keys)-1].key; !more || last < end {
				end = last
			}
			more = true
		}
		for _, k := range one.keys {
			if have, ok := newest[k.key]; !ok || k.version.Compare(have.version) > 0 {
				newest[k.key] = k
			}
		}
	}
	for key, k := range newest {
		if k.live && (!more || key <= end) {
			all = append(all, k)
		}
	}
	slices.SortFunc(all, func(a, b held) int { return strings.Compare(a.key, b.key) })
	if len(all) > limit {
		return all[:limit], all[limit-1].key
	}
	return all, end
}

func (s *Store) callList(ctx context.Context, peer string, p page) part {
	q := binary.AppendUvarint(nil, uint64(len(p.prefix)))
	q = append(q, p.prefix...)
	q = append(binary.AppendUvarint(q, uint64(len(p.after))), p.after...)
	q = binary.AppendUvarint(q, uint64(p.limit))
	var out []byte
	var err error
	if peer == s.o.Name {
		out, err = s.serveList(q, 0)
	} else {
		out, err = s.call(ctx, peer, pathList, 0, q)
	}
	if err != nil {
		return part{peer: peer, err: err}
	}
	one, err := parsePart(out)
	one.peer, one.err = peer, err
	return one
}

func parseListQuestion(b []byte) (p page, err error) {
	var prefix, after []byte
	if prefix, b, err = cutPiece(b, MaxKey); err != nil {
		return p, err
	}
	if after, b, err = cutPiece(b, MaxKey); err != nil {
		return p, err
	}
	limit, b, err := cutUvarint(b)
	if err != nil || len(b) > 0 || limit < 1 || limit > maxLimit {
		return p, fmt.Errorf("%w: a limit", errRecord)
	}
	return page{string(prefix), string(after), int(limit)}, nil
}

func (s *Store) serveList(body []byte, _ uint64) ([]byte, error) {
	p, err := parseListQuestion(body)
	if err != nil {
		return nil, err
	}
	keys, more, err := s.scan(p, true)
	if err != nil {
		return nil, err
	}
	whole := make([]byte, (s.o.Cluster.Partitions()+7)/8)
	for n := range s.o.Cluster.Partitions() {
		if s.complete(n) {
			whole[n/8] |= 1 << (n % 8)
		}
	}
	out := append(binary.AppendUvarint(nil, uint64(len(whole))), whole...)
	if more {
		out = append(out, 1)
	} else {
		out = append(out, 0)
	}
	for _, h := range keys {
		out = h.append(out)
	}
	return out, nil
}

func parsePart(b []byte) (one part, err error) {
	if one.whole, b, err = cutPiece(b, 1<<13); err != nil {
		return one, err
	}
	if len(b) == 0 || b[0] > 1 {
		return one, fmt.Errorf("%w: a list", errRecord)
	}
	one.more = b[0] == 1
	one.keys, err = parseHeld(b[1:])
	return one, err
}
