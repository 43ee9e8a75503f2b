package store

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"

	"go.etcd.io/bbolt"
)

// What stores say to one another: POST with a binary body, answered by a binary body. 200 is done, 409 refused
// by a fence, 412 the two see other owners, 503 not now.
const (
	pathWrite = "/v1/store/write" // an entry → existed, and the version of what is newer
	pathRead  = "/v1/store/read"  // a key → its record, or nothing
	pathPush  = "/v1/store/push"  // entries → nothing
	pathPull  = "/v1/store/pull"  // keys → entries, as many as fit
	pathTree  = "/v1/store/tree"  // what is compared → digests
	pathKeys  = "/v1/store/keys"  // leaves of a partition → keys and versions
	pathList  = "/v1/store/list"  // prefix, after, limit → keys and versions

	headerTerm = "Servent-Store-Term"
	maxPush    = 256 // entries of one push or pull
	maxBody    = maxBytes + MaxValue + maxPush*(MaxKey+1024)
)

// errViews: the peer sees other owners; the comparison waits until the plan has spread.
var errViews = errors.New("it sees other owners than this store")

// Peer is the handler for this store's peers, and for nobody else: it trusts who asks.
func (s *Store) Peer() http.Handler {
	mux := http.NewServeMux()
	for path, f := range map[string]func(body []byte, term uint64) ([]byte, error){
		pathWrite: s.serveWrite, pathRead: s.serveRead, pathPush: s.servePush, pathPull: s.servePull,
		pathTree: s.serveTree, pathKeys: s.serveKeys, pathList: s.serveList,
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { serve(w, r, f) })
	}
	return mux
}

func serve(w http.ResponseWriter, r *http.Request, f func([]byte, uint64) ([]byte, error)) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	var term uint64
	if err == nil && r.Header.Get(headerTerm) != "" {
		term, err = strconv.ParseUint(r.Header.Get(headerTerm), 10, 64)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := f(body, term)
	switch {
	case err == nil:
		w.Header().Set("Content-Type", "application/octet-stream")
		_, _ = w.Write(out) // the asker notices
	case errors.Is(err, errFenced):
		http.Error(w, err.Error(), http.StatusConflict)
	case errors.Is(err, errViews):
		http.Error(w, err.Error(), http.StatusPreconditionFailed)
	case errors.Is(err, errRecord):
		http.Error(w, err.Error(), http.StatusBadRequest)
	default:
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
	}
}

// call asks a peer and returns its answer.
func (s *Store) call(ctx context.Context, peer, path string, term uint64, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://store"+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	if term > 0 {
		r.Header.Set(headerTerm, strconv.FormatUint(term, 10))
	}
	res, err := s.o.Cluster.RoundTrip(peer, r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	out, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	switch {
	case err != nil:
		return nil, err
	case res.StatusCode == http.StatusOK:
		return out, nil
	case res.StatusCode == http.StatusConflict:
		return nil, errFenced
	case res.StatusCode == http.StatusPreconditionFailed:
		return nil, errViews
	}
	return nil, fmt.Errorf("%d %s", res.StatusCode, strings.TrimSpace(string(out[:min(len(out), 200)])))
}

func (s *Store) callWrite(ctx context.Context, peer, key string, r record, term uint64) (existed bool, newer Version, err error) {
	e := entry{key, r}
	out, err := s.call(ctx, peer, pathWrite, term, e.append(nil))
	if err != nil {
		return false, newer, err
	}
	return parseAck(out)
}

// parseAck reads existed (1 byte) and, if there is one, the newer version.
func parseAck(b []byte) (existed bool, newer Version, err error) {
	if len(b) == 0 || b[0] > 1 {
		return false, newer, fmt.Errorf("%w: an acknowledgement", errRecord)
	}
	existed = b[0] == 1
	if b = b[1:]; len(b) > 0 {
		if newer, b, err = cutVersion(b); err == nil && len(b) > 0 {
			err = fmt.Errorf("%w: an acknowledgement", errRecord)
		}
	}
	return existed, newer, err
}

func (s *Store) serveWrite(body []byte, term uint64) ([]byte, error) {
	all, err := parseEntries(body)
	if err != nil {
		return nil, err
	}
	if len(all) != 1 {
		return nil, fmt.Errorf("%w: want one entry, have %d", errRecord, len(all))
	}
	existed, newer, err := s.take(all[0].key, all[0].record, term)
	if err != nil {
		return nil, err
	}
	out := []byte{0}
	if existed {
		out[0] = 1
	}
	if newer.Clock != 0 {
		out = appendVersion(out, newer)
	}
	return out, nil
}

func (s *Store) callRead(ctx context.Context, peer, key string, term uint64) (record, error) {
	out, err := s.call(ctx, peer, pathRead, term, []byte(key))
	if err != nil || len(out) == 0 {
		return record{}, err
	}
	return parseRecord(out)
}

func (s *Store) serveRead(body []byte, term uint64) ([]byte, error) {
	key := string(body)
	if err := checkKey(key); err != nil {
		return nil, fmt.Errorf("%w: %w", errRecord, err)
	}
	r, err := s.ask(s.life, s.o.Name, key, term)
	if err != nil || r.version.Clock == 0 {
		return nil, err
	}
	return r.append(nil), nil
}

func (s *Store) callPush(ctx context.Context, peer string, all []entry) error {
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	var body []byte
	for _, e := range all {
		body = e.append(body)
	}
	_, err := s.call(ctx, peer, pathPush, 0, body)
	return err
}

func (s *Store) servePush(body []byte, _ uint64) ([]byte, error) {
	all, err := parseEntries(body)
	if err != nil {
		return nil, err
	}
	return nil, s.takeAll(all)
}

// takeAll takes in many records in one commit.
func (s *Store) takeAll(all []entry) error {
	size := 0
	for _, e := range all {
		if err := s.clock.see(e.version); err != nil {
			return err
		}
		size += len(e.key) + len(e.value)
	}
	return s.disk.write(size, func(t *txn) error {
		for _, e := range all {
			if _, _, err := t.apply(e.key, e.record); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) callPull(ctx context.Context, peer string, keys []string) ([]entry, error) {
	ctx, cancel := s.callContext(ctx)
	defer cancel()
	out, err := s.call(ctx, peer, pathPull, 0, appendKeys(nil, keys))
	if err != nil {
		return nil, err
	}
	return parseEntries(out)
}

func (s *Store) servePull(body []byte, _ uint64) (out []byte, err error) {
	keys, err := parseKeys(body)
	if err != nil {
		return nil, err
	}
	err = s.disk.read(func(tx *bbolt.Tx) error {
		for i, key := range keys {
			if i == maxPush || len(out) > maxBytes {
				return nil // the asker asks again for the others
			}
			r, err := recordOf(tx, key)
			if err != nil {
				return err
			}
			if r.version.Clock != 0 {
				out = (&entry{key, r}).append(out)
			}
		}
		return nil
	})
	return out, err
}

func appendKeys(b []byte, keys []string) []byte {
	for _, key := range keys {
		b = append(binary.AppendUvarint(b, uint64(len(key))), key...)
	}
	return b
}

func parseKeys(b []byte) (keys []string, err error) {
	for len(b) > 0 {
		var key string
		if key, b, err = cutKey(b); err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

// held is a key with the version that a store has of it, and whether that is a value now.
type held struct {
	key     string
	version Version
	live    bool
	size    int
	expires int64
}

func (h *held) append(b []byte) []byte {
	b = append(binary.AppendUvarint(b, uint64(len(h.key))), h.key...)
	b = appendVersion(b, h.version)
	live := byte(0)
	if h.live {
		live = 1
	}
	b = binary.AppendUvarint(append(b, live), uint64(h.size))
	return binary.AppendUvarint(b, uint64(h.expires))
}

func parseHeld(b []byte) (all []held, err error) {
	for len(b) > 0 {
		var h held
		if h.key, b, err = cutKey(b); err != nil {
			return nil, err
		}
		if h.version, b, err = cutVersion(b); err != nil {
			return nil, err
		}
		if len(b) == 0 || b[0] > 1 || h.version.Clock == 0 {
			return nil, fmt.Errorf("%w: a key's version", errRecord)
		}
		h.live = b[0] == 1
		var size, expires uint64
		if size, b, err = cutUvarint(b[1:]); err != nil {
			return nil, err
		}
		if expires, b, err = cutUvarint(b); err != nil {
			return nil, err
		}
		if size > MaxValue || expires > 1<<50 {
			return nil, fmt.Errorf("%w: a key's size", errRecord)
		}
		h.size, h.expires = int(size), int64(expires)
		all = append(all, h)
	}
	return all, nil
}
