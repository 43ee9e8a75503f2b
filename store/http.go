package store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Base is where the keys are: /kv/{key}, with a slash in a key written %2F.
const Base = "/kv/"

const (
	maxTTL        = 10 * 365 * 24 * time.Hour
	headerExpires = "Servent-Expires"
	headerMoved   = "Servent-Moved" // of 421, and why: nothing was done, another store has to be asked
	usage         = `a key-value database; a slash within KEY is written %2F

PUT    /kv/KEY              insert or overwrite; ?ttl=30s: it expires
GET    /kv/KEY              read
DELETE /kv/KEY              delete
GET    /kv/?prefix=&after=  list; &limit=100

If-Match: ETAG, If-None-Match: *    compare-and-set
`
)

var errBad = errors.New("bad request") // of a client

// ServeHTTP is the database as its users see it.
func (s *Store) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	rest, ok := strings.CutPrefix(r.URL.EscapedPath(), Base)
	switch {
	case r.URL.Path == "/" || r.URL.Path == "/kv" && r.URL.RawQuery == "":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			_, _ = io.WriteString(w, usage)
		}
		return
	case r.URL.Path == "/kv" || ok && rest == "":
		if allow(w, r, http.MethodGet, http.MethodHead) {
			s.serveKeysOf(w, r)
		}
		return
	case !ok:
		fail(w, http.StatusNotFound, "no such path: keys are at "+Base+"KEY")
		return
	case strings.Contains(rest, "/"):
		fail(w, http.StatusNotFound, "a key is one segment of the path; write its slashes as %2F: "+Base+strings.ReplaceAll(rest, "/", "%2F"))
		return
	}
	key, err := url.PathUnescape(rest)
	if err == nil {
		err = checkKey(key)
	}
	if err != nil {
		fail(w, http.StatusBadRequest, err.Error())
		return
	}
	if !allow(w, r, http.MethodGet, http.MethodHead, http.MethodPut, http.MethodDelete) {
		return
	}
	switch r.Method {
	case http.MethodPut:
		err = s.servePut(w, r, key)
	case http.MethodDelete:
		err = s.serveDelete(w, r, key)
	default:
		err = s.serveGet(w, r, key)
	}
	if err != nil {
		s.failWith(w, err)
	}
}

func allow(w http.ResponseWriter, r *http.Request, methods ...string) bool {
	for _, m := range methods {
		if r.Method == m {
			return true
		}
	}
	list := strings.Join(methods, ", ")
	w.Header().Set("Allow", list)
	fail(w, http.StatusMethodNotAllowed, "want one of "+list)
	return false
}

func fail(w http.ResponseWriter, status int, why string) {
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.Error(w, why, status)
}

// failWith answers with the status of an error.
func (s *Store) failWith(w http.ResponseWriter, err error) {
	var large *http.MaxBytesError
	var few *unmet
	status := http.StatusServiceUnavailable
	switch {
	case errors.Is(err, errBad):
		status = http.StatusBadRequest
	case errors.As(err, &large):
		status, err = http.StatusRequestEntityTooLarge, fmt.Errorf("a value has at most %d bytes", MaxValue)
	case errors.Is(err, errPrecondition):
		status = http.StatusPreconditionFailed
	case errors.Is(err, errNoCAS):
		status = http.StatusNotImplemented
	case full(err):
		status, err = http.StatusInsufficientStorage, fmt.Errorf("there is no room for the write: %w", err)
	case errors.Is(err, errNotMine):
		status = http.StatusMisdirectedRequest
		w.Header().Set(headerMoved, err.Error())
	case errors.As(err, &few), errors.Is(err, errBusy), errors.Is(err, errFenced), errors.Is(err, errLeaseOver):
		w.Header().Set("Retry-After", "1")
	}
	fail(w, status, err.Error())
}

func (s *Store) serveGet(w http.ResponseWriter, r *http.Request, key string) error {
	rec, err := s.look(r.Context(), key)
	if err != nil {
		return err
	}
	h := w.Header()
	h.Set("Cache-Control", "no-cache")
	if !rec.live(s.o.Now()) {
		fail(w, http.StatusNotFound, "no such key")
		return nil
	}
	h.Set("Etag", rec.version.ETag())
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Content-Type", rec.kind)
	if rec.kind == "" {
		h.Set("Content-Type", "application/octet-stream")
	}
	if rec.expires > 0 {
		h.Set(headerExpires, time.UnixMilli(rec.expires).UTC().Format(time.RFC3339Nano))
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(rec.value)) // with If-None-Match, If-Match, Range
	return nil
}

func (s *Store) servePut(w http.ResponseWriter, r *http.Request, key string) error {
	cond, err := parseCondition(r.Header)
	if err != nil {
		return err
	}
	ttl, err := parseTTL(r)
	if err != nil {
		return err
	}
	if r.Header.Get("Content-Range") != "" { // RFC 9110 §14.5
		return fmt.Errorf("%w: a part of a value cannot be put", errBad)
	}
	kind := r.Header.Get("Content-Type")
	if _, _, err := mime.ParseMediaType(kind); kind != "" && (err != nil || len(kind) > maxKind) {
		return fmt.Errorf("%w: Content-Type: want a media type of at most %d bytes", errBad, maxKind)
	}
	if r.ContentLength > MaxValue {
		return &http.MaxBytesError{Limit: MaxValue}
	}
	value, err := readValue(r)
	if err != nil {
		return err
	}
	out, err := s.put(r.Context(), key, record{kind: kind, value: value, expires: expiry(s.o.Now(), ttl)}, cond)
	if err != nil {
		return err
	}
	w.Header().Set("Etag", out.version.ETag())
	if out.existed {
		w.WriteHeader(http.StatusNoContent)
	} else {
		w.WriteHeader(http.StatusCreated)
	}
	return nil
}

// readValue reads one byte more than a value may have. It does not have the connection closed for one that is longer, as http.MaxBytesReader
// does: who still sends the last bytes would see it break before the answer, and between nodes that is no answer at all.
func readValue(r *http.Request) ([]byte, error) {
	var b bytes.Buffer
	if r.ContentLength > 0 {
		b.Grow(int(min(r.ContentLength, MaxValue)) + bytes.MinRead)
	}
	n, err := b.ReadFrom(io.LimitReader(r.Body, MaxValue+1))
	switch {
	case err != nil:
		err = fmt.Errorf("%w: the value did not arrive whole: %w", errBad, err)
	case n > MaxValue:
		err = &http.MaxBytesError{Limit: MaxValue}
	}
	return b.Bytes(), err
}

func (s *Store) serveDelete(w http.ResponseWriter, r *http.Request, key string) error {
	cond, err := parseCondition(r.Header)
	if err != nil {
		return err
	}
	out, err := s.put(r.Context(), key, record{dead: true}, cond)
	if err != nil {
		return err
	}
	if !out.existed {
		fail(w, http.StatusNotFound, "no such key")
		return nil
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}

// parseTTL reads ?ttl=30s or ?ttl=30, or the header TTL in seconds (RFC 8030 §5.2); 0 means for ever.
func parseTTL(r *http.Request) (time.Duration, error) {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return 0, fmt.Errorf("%w: the query: %w", errBad, err)
	}
	text := q.Get("ttl")
	if text == "" {
		if text = r.Header.Get("TTL"); text == "" {
			return 0, nil
		}
	}
	ttl, err := time.ParseDuration(text)
	if n, e := strconv.ParseUint(text, 10, 32); e == nil {
		ttl, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || ttl < time.Millisecond || ttl > maxTTL {
		return 0, fmt.Errorf("%w: ttl: want 1ms to 87600h, like 30s, have %q", errBad, text)
	}
	return ttl, nil
}

// condition is what a write expects of a key (RFC 9110 §13.1).
type condition struct {
	match  []string // If-Match: one of these
	some   bool     // If-Match: *
	none   bool     // If-None-Match: *
	noneOf []string // If-None-Match: none of these
}

func (c *condition) given() bool { return c.some || c.none || len(c.match)+len(c.noneOf) > 0 }

// holds judges a key as it is.
func (c *condition) holds(r *record, exists bool) bool {
	tag := ""
	if exists {
		tag = r.version.ETag()
	}
	switch {
	case c.some && !exists, c.none && exists:
		return false
	case len(c.match) > 0 && !oneOf(c.match, tag):
		return false
	}
	return !exists || !oneOf(c.noneOf, tag)
}

func oneOf(tags []string, tag string) bool {
	for _, t := range tags {
		if t == tag && tag != "" {
			return true
		}
	}
	return false
}

func parseCondition(h http.Header) (c condition, err error) {
	if c.match, c.some, err = parseTags(h.Values("If-Match")); err != nil {
		return c, fmt.Errorf("%w: If-Match: %w", errBad, err)
	}
	if c.noneOf, c.none, err = parseTags(h.Values("If-None-Match")); err != nil {
		return c, fmt.Errorf("%w: If-None-Match: %w", errBad, err)
	}
	for _, name := range []string{"If-Unmodified-Since", "If-Modified-Since"} {
		if h.Get(name) != "" {
			return c, fmt.Errorf("%w: %s: a write is conditional by ETag alone", errBad, name)
		}
	}
	return c, nil
}

// parseTags reads * or a list of entity tags. A weak one never matches a write (RFC 9110 §13.1.1): it stays in
// the list as it is.
func parseTags(lines []string) (tags []string, star bool, err error) {
	text := strings.TrimSpace(strings.Join(lines, ","))
	if text == "*" {
		return nil, true, nil
	}
	for text != "" {
		text = strings.TrimLeft(text, " \t,")
		if text == "" {
			break
		}
		strong, weak := strings.CutPrefix(text, "W/")
		end := strings.IndexByte(strings.TrimPrefix(strong, `"`), '"')
		if !strings.HasPrefix(strong, `"`) || end < 0 {
			return nil, false, fmt.Errorf("want * or tags in quotes, have %.80q", text)
		}
		tag := strong[:end+2]
		text = strings.TrimLeft(strong[end+2:], " \t")
		if text != "" && text[0] != ',' {
			return nil, false, fmt.Errorf("want a comma behind %s", tag)
		}
		if weak {
			tag = "W/" + tag
		}
		tags = append(tags, tag)
	}
	if len(lines) > 0 && len(tags) == 0 {
		return nil, false, errors.New("want * or tags in quotes, have nothing")
	}
	return tags, false, nil
}
