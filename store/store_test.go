package store

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
	"pgregory.net/rapid"
)

// open opens a store in a folder and closes it with the test.
func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	if o.Name == "" {
		o.Name = "store/1"
	}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// ask sends a request to a handler; header holds names and values by turns.
func ask(h http.Handler, method, target, body string, header ...string) *http.Response {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Result()
}

func text(res *http.Response) string {
	b, err := io.ReadAll(res.Body)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func TestHTTP(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	long := strings.Repeat("k", MaxKey)
	for _, tt := range []struct { // in this order, on one store
		method, target, body string
		header               []string
		status               int
		says                 string
	}{
		{"GET", "/kv/a", "", nil, 404, "no such key"},
		{"PUT", "/kv/a", "one", nil, 201, ""},
		{"GET", "/kv/a", "", nil, 200, "one"},
		{"PUT", "/kv/a", "two", nil, 204, ""},
		{"GET", "/kv/a", "", nil, 200, "two"},
		{"HEAD", "/kv/a", "", nil, 200, ""},
		{"GET", "/kv/a", "", []string{"Range", "bytes=1-"}, 206, "wo"},
		{"DELETE", "/kv/a", "", nil, 204, ""},
		{"DELETE", "/kv/a", "", nil, 404, "no such key"},
		{"GET", "/kv/a", "", nil, 404, ""},
		{"PUT", "/kv/empty", "", nil, 201, ""},
		{"GET", "/kv/empty", "", nil, 200, ""},
		{"PUT", "/kv/a%2Fb%20c", "slash", nil, 201, ""},
		{"GET", "/kv/a%2fb%20c", "", nil, 200, "slash"},
		{"PUT", "/kv/a/b", "x", nil, 404, "/kv/a%2Fb"},
		{"PUT", "/kv/" + long, "x", nil, 201, ""},
		{"PUT", "/kv/" + long + "k", "x", nil, 400, "at most 1024 bytes, this one has 1025"},
		{"PUT", "/kv/%ff", "x", nil, 400, "UTF-8"},
		{"PUT", "/kv/%2e%2e", "x", nil, 400, "no key"},
		{"PUT", "/kv/", "x", nil, 405, "GET"},
		{"POST", "/kv/a", "x", nil, 405, "PUT"},
		{"GET", "/elsewhere", "", nil, 404, "/kv/KEY"},
		{"GET", "/", "", nil, 200, "insert or overwrite"},
		{"PUT", "/kv/big", strings.Repeat("x", MaxValue), nil, 201, ""},
		{"PUT", "/kv/big", strings.Repeat("x", MaxValue+1), nil, 413, "at most 1048576 bytes"},
		{"PUT", "/kv/a?ttl=soon", "x", nil, 400, `have "soon"`},
		{"PUT", "/kv/a?ttl=-1s", "x", nil, 400, "ttl"},
		{"PUT", "/kv/a", "x", []string{"TTL", "0"}, 400, "ttl"},
		{"PUT", "/kv/a", "x", []string{"Content-Type", "what is/this"}, 400, "media type"},
		{"PUT", "/kv/a", "x", []string{"Content-Range", "bytes 0-1/2"}, 400, "part"},
		{"PUT", "/kv/a", "x", []string{"If-Match", "a"}, 400, "quotes"},
		{"PUT", "/kv/a", "x", []string{"If-Unmodified-Since", "now"}, 400, "ETag"},
		{"PUT", "/kv/a", "x", []string{"If-Match", "*"}, 412, "expects"},
		{"PUT", "/kv/a", "x", []string{"If-None-Match", "*"}, 201, ""},
		{"PUT", "/kv/a", "y", []string{"If-None-Match", "*"}, 412, "expects"},
		{"PUT", "/kv/a", "y", []string{"If-Match", `"0.0-x", W/"b"`}, 412, "expects"},
		{"PUT", "/kv/a", "y", []string{"If-Match", "*"}, 204, ""},
		{"DELETE", "/kv/a", "", []string{"If-Match", `"other"`}, 412, ""},
		{"GET", "/kv/a", "", nil, 200, "y"},
	} {
		res := ask(s, tt.method, tt.target, tt.body, tt.header...)
		if got := text(res); res.StatusCode != tt.status || !strings.Contains(got, tt.says) || tt.status == 200 && len(tt.target) < 20 && tt.target != "/" && got != tt.says {
			t.Errorf("%s %.40s = %d %.80q, want %d %q", tt.method, tt.target, res.StatusCode, got, tt.status, tt.says)
		}
	}
}

func TestETags(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	first := ask(s, "PUT", "/kv/a", "same").Header.Get("Etag")
	second := ask(s, "PUT", "/kv/a", "same").Header.Get("Etag")
	if first == "" || first == second || strings.HasPrefix(first, "W/") {
		t.Errorf("two writes have the tags %s and %s, want two strong ones", first, second)
	}
	for _, tt := range []struct {
		header []string
		status int
	}{
		{[]string{"If-None-Match", second}, 304},
		{[]string{"If-None-Match", `"x", ` + second}, 304},
		{[]string{"If-None-Match", first}, 200},
		{[]string{"If-Match", first}, 412},
		{[]string{"If-Match", second}, 200},
	} {
		if res := ask(s, "GET", "/kv/a", "", tt.header...); res.StatusCode != tt.status || res.Header.Get("Etag") != second && tt.status != 412 {
			t.Errorf("GET with %q = %d with tag %s, want %d", tt.header, res.StatusCode, res.Header.Get("Etag"), tt.status)
		}
	}
	if res := ask(s, "PUT", "/kv/a", "x", "If-Match", first); res.StatusCode != 412 {
		t.Errorf("PUT over an old tag = %d, want 412", res.StatusCode)
	}
	if res := ask(s, "PUT", "/kv/a", "x", "If-None-Match", second); res.StatusCode != 412 {
		t.Errorf("PUT if none of the present tag = %d, want 412", res.StatusCode)
	}
	if res := ask(s, "DELETE", "/kv/a", "", "If-Match", second); res.StatusCode != 204 {
		t.Errorf("DELETE of the present tag = %d, want 204", res.StatusCode)
	}
}

func TestMediaTypeIsKept(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	ask(s, "PUT", "/kv/a", "{}", "Content-Type", "application/json")
	ask(s, "PUT", "/kv/b", "<script>")
	for key, want := range map[string]string{"a": "application/json", "b": "application/octet-stream"} {
		res := ask(s, "GET", "/kv/"+key, "")
		if got := res.Header.Get("Content-Type"); got != want || res.Header.Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s is %s, want %s and no guessing", key, got, want)
		}
	}
}

func TestWithoutOrderThereIsNoCAS(t *testing.T) {
	s := open(t, t.TempDir(), Options{NoCAS: "each instance is a store of its own"})
	for _, header := range []string{"If-Match", "If-None-Match"} {
		for _, method := range []string{"PUT", "DELETE"} {
			if res := ask(s, method, "/kv/a", "x", header, "*"); res.StatusCode != 501 || !strings.Contains(text(res), "a store of its own") {
				t.Errorf("%s with %s = %d, want 501 and the reason", method, header, res.StatusCode)
			}
		}
	}
}

// past is a clock that tests turn.
type past struct{ ms atomic.Int64 }

func newPast() *past {
	p := &past{}
	p.ms.Store(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixMilli())
	return p
}

func (p *past) now() time.Time       { return time.UnixMilli(p.ms.Load()) }
func (p *past) pass(d time.Duration) { p.ms.Add(d.Milliseconds()) }

func count(s *Store, bucket []byte) (n int) {
	_ = s.disk.read(func(tx *bbolt.Tx) error {
		n = tx.Bucket(bucket).Stats().KeyN
		return nil
	})
	return n
}

func TestTTL(t *testing.T) {
	clock := newPast()
	s := open(t, t.TempDir(), Options{Now: clock.now})
	ask(s, "PUT", "/kv/short?ttl=30s", "x")
	ask(s, "PUT", "/kv/seconds?ttl=60", "x")
	ask(s, "PUT", "/kv/header", "x", "TTL", "90")
	ask(s, "PUT", "/kv/for-ever", "x")
	ask(s, "PUT", "/kv/renewed?ttl=30s", "x")
	ask(s, "PUT", "/kv/renewed", "x")
	if got, want := ask(s, "GET", "/kv/short", "").Header.Get("Servent-Expires"), "2026-01-01T00:00:30Z"; got != want {
		t.Errorf("Servent-Expires = %s, want %s", got, want)
	}
	for _, tt := range []struct {
		pass time.Duration
		left []string
	}{
		{30*time.Second - time.Millisecond, []string{"for-ever", "header", "renewed", "seconds", "short"}},
		{time.Millisecond, []string{"for-ever", "header", "renewed", "seconds"}},
		{30 * time.Second, []string{"for-ever", "header", "renewed"}},
		{time.Hour, []string{"for-ever", "renewed"}},
	} {
		clock.pass(tt.pass)
		for _, swept := range []bool{false, true} {
			if swept {
				if err := s.sweep(); err != nil {
					t.Fatal(err)
				}
				if n := count(s, bucketData); n != len(tt.left) {
					t.Errorf("at %v %d records are left after the sweep, want %d", clock.now(), n, len(tt.left))
				}
			}
			if got := keys(t, s, ""); !slices.Equal(got, tt.left) {
				t.Errorf("at %v (swept: %v) there are %q, want %q", clock.now(), swept, got, tt.left)
			}
		}
	}
	if n := count(s, bucketDue); n != 0 {
		t.Errorf("%d times are kept of keys that do not expire", n)
	}
	if res := ask(s, "PUT", "/kv/short", "x", "If-None-Match", "*"); res.StatusCode != 201 {
		t.Errorf("PUT of an expired key if there is none = %d, want 201", res.StatusCode)
	}
}

// keys lists all keys page by page.
func keys(t testing.TB, h http.Handler, query string) (all []string) {
	t.Helper()
	for after, n := "", 0; ; n++ {
		res := ask(h, "GET", "/kv/?after="+url.QueryEscape(after)+"&"+query, "")
		var page struct {
			Keys []struct{ Key string }
			Next string
		}
		if err := json.NewDecoder(res.Body).Decode(&page); err != nil || res.StatusCode != 200 || n > 10_000 {
			t.Fatalf("list after %q = %d, %v, page %d", after, res.StatusCode, err, n)
		}
		for _, k := range page.Keys {
			all = append(all, k.Key)
		}
		if after = page.Next; after == "" {
			return all
		}
	}
}

func TestList(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	for _, key := range []string{"b", "a/2", "a/10", "a", "a/é", "c%"} {
		ask(s, "PUT", "/kv/"+url.PathEscape(key), "x")
	}
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"", []string{"a", "a/10", "a/2", "a/é", "b", "c%"}},
		{"limit=1", []string{"a", "a/10", "a/2", "a/é", "b", "c%"}},
		{"limit=2&prefix=a/", []string{"a/10", "a/2", "a/é"}},
		{"prefix=x", nil},
	} {
		if got := keys(t, s, tt.query); !slices.Equal(got, tt.want) {
			t.Errorf("?%s = %q, want %q", tt.query, got, tt.want)
		}
	}
	if got, want := text(ask(s, "GET", "/kv/?prefix=a/", "", "Accept", "text/plain")), "a%2F10\na%2F2\na%2F%C3%A9\n"; got != want {
		t.Errorf("lines = %q, want %q", got, want)
	}
	if link := ask(s, "GET", "/kv/?limit=2&prefix=a", "").Header.Get("Link"); link != `</kv/?after=a%2F10&limit=2&prefix=a>; rel="next"` {
		t.Errorf("Link = %s", link)
	}
	for _, bad := range []string{"limit=0", "limit=10001", "limit=x", "prefix=%zz", "after=" + strings.Repeat("x", MaxKey+1)} {
		if res := ask(s, "GET", "/kv/?"+bad, ""); res.StatusCode != 400 {
			t.Errorf("?%.20s = %d, want 400", bad, res.StatusCode)
		}
	}
}

func TestOpenAgain(t *testing.T) {
	dir, clock := t.TempDir(), newPast()
	o := Options{Name: "store/1", Now: clock.now}
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	tag := ask(s, "PUT", "/kv/a", "kept").Header.Get("Etag")
	if _, err := Open(dir, o); err == nil || !strings.Contains(err.Error(), "timeout") {
		t.Errorf("opened twice: %v, want a refusal", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	clock.pass(-time.Hour) // the machine's clock was set back
	s = open(t, dir, o)
	res := ask(s, "GET", "/kv/a", "")
	if got := text(res); got != "kept" || res.Header.Get("Etag") != tag {
		t.Errorf("after a new start a = %q with %s, want kept with %s", got, res.Header.Get("Etag"), tag)
	}
	if again := ask(s, "PUT", "/kv/a", "kept").Header.Get("Etag"); again <= tag {
		t.Errorf("tag %s is not after %s", again, tag)
	}
	for _, name := range []string{"", "a b", `a"`, strings.Repeat("x", 101), "é"} {
		if _, err := Open(t.TempDir(), Options{Name: name}); err == nil {
			t.Errorf("a store named %q was opened", name)
		}
	}
}

func TestFullStoreRefusesAndGoesOn(t *testing.T) {
	s := open(t, t.TempDir(), Options{MaxSize: 4 << 20})
	value, n := strings.Repeat("x", 100_000), 0
	for ; n < 100; n++ {
		if res := ask(s, "PUT", fmt.Sprintf("/kv/%d", n), value); res.StatusCode != 201 {
			if res.StatusCode != http.StatusInsufficientStorage || !strings.Contains(text(res), "no room") {
				t.Fatalf("PUT into a full store = %d, want 507", res.StatusCode)
			}
			break
		}
	}
	if n < 5 || n > 60 {
		t.Fatalf("4 MiB took %d values of 100 kB", n)
	}
	if got := len(keys(t, s, "limit=1000")); got != n {
		t.Errorf("%d keys are there, %d were acknowledged", got, n)
	}
	for i := range n {
		ask(s, "DELETE", fmt.Sprintf("/kv/%d", i), "")
	}
	if res := ask(s, "PUT", "/kv/again", value); res.StatusCode != 201 {
		t.Errorf("PUT after room was made = %d %s, want 201", res.StatusCode, text(res))
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check() = %v", err)
	}
}

func TestWhatFullMeans(t *testing.T) {
	for err, want := range map[error]bool{syscall.ENOSPC: true, berrors.ErrMaxSizeReached: true, syscall.EIO: false, errBusy: false} {
		if got := full(fmt.Errorf("write kv.db: %w", err)); got != want {
			t.Errorf("full(%v) = %v, want %v", err, got, want)
		}
	}
}

// TestFailedDiskRefusesWrites: after an error that leaves open what is durable, nothing more is acknowledged.
func TestFailedDiskRefusesWrites(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	ask(s, "PUT", "/kv/a", "before")
	if err := s.disk.write(0, func(*txn) error { return syscall.EIO }); err == nil {
		t.Fatal("a failed commit was acknowledged")
	}
	if res := ask(s, "PUT", "/kv/a", "after"); res.StatusCode != 503 {
		t.Errorf("PUT = %d, want 503", res.StatusCode)
	}
	if got := text(ask(s, "GET", "/kv/a", "")); got != "before" {
		t.Errorf("GET = %q, want before", got)
	}
	if s.Check(t.Context()) == nil {
		t.Error("Check() = nil of a store whose disk failed")
	}
}

// TestGroupCommit: writes that wait while another commits share one commit.
func TestGroupCommit(t *testing.T) {
	s := open(t, t.TempDir(), Options{})
	const clients, each = 32, 50
	before := commits(s)
	var wg sync.WaitGroup
	for c := range clients {
		wg.Go(func() {
			for n := range each {
				if res := ask(s, "PUT", fmt.Sprintf("/kv/%d-%d", c, n), "x"); res.StatusCode != 201 {
					t.Errorf("PUT = %d", res.StatusCode)
				}
			}
		})
	}
	wg.Wait()
	if n := commits(s) - before; n > clients*each/4 {
		t.Errorf("%d writes of %d clients took %d commits", clients*each, clients, n)
	}
	if got := len(keys(t, s, "limit=10000")); got != clients*each {
		t.Errorf("%d keys, want %d", got, clients*each)
	}
}

func commits(s *Store) (n int) {
	_ = s.disk.read(func(tx *bbolt.Tx) error {
		n = tx.ID()
		return nil
	})
	return n
}

// TestAgainstAMap: what a store answers is what a map would.
func TestAgainstAMap(t *testing.T) {
	dir := t.TempDir()
	round := 0
	rapid.Check(t, func(rt *rapid.T) {
		round++
		clock := newPast()
		o := Options{Name: "store/1", Now: clock.now}
		path := fmt.Sprintf("%s/%d", dir, round)
		mustMkdir(t, path)
		s, err := Open(path, o)
		if err != nil {
			rt.Fatal(err)
		}
		defer func() { s.Close() }()
		type val struct {
			text string
			ends int64
		}
		twin := map[string]val{}
		for range rapid.IntRange(1, 40).Draw(rt, "steps") {
			key := rapid.SampledFrom([]string{"a", "b", "a/b", "é"}).Draw(rt, "key")
			target := "/kv/" + url.PathEscape(key)
			have, ok := twin[key]
			ok = ok && (have.ends == 0 || clock.ms.Load() < have.ends)
			switch rapid.SampledFrom([]string{"put", "put ttl", "delete", "get", "pass", "sweep", "reopen", "create"}).Draw(rt, "do") {
			case "put":
				v := rapid.StringN(0, 20, -1).Draw(rt, "value")
				ask(s, "PUT", target, v)
				twin[key] = val{v, 0}
			case "create":
				if got := ask(s, "PUT", target, "new", "If-None-Match", "*").StatusCode == 201; got == ok {
					rt.Fatalf("created %q: %v, though there was one: %v", key, got, ok)
				}
				if !ok {
					twin[key] = val{"new", 0}
				}
			case "put ttl":
				ask(s, "PUT", target+"?ttl=5s", "mortal")
				twin[key] = val{"mortal", clock.ms.Load() + 5000}
			case "delete":
				if got := ask(s, "DELETE", target, "").StatusCode == 204; got != ok {
					rt.Fatalf("deleted %q: %v, want %v", key, got, ok)
				}
				delete(twin, key)
			case "pass":
				clock.pass(time.Duration(rapid.IntRange(1, 6).Draw(rt, "seconds")) * time.Second)
			case "sweep":
				if err := s.sweep(); err != nil {
					rt.Fatal(err)
				}
			case "reopen":
				if err := s.Close(); err != nil {
					rt.Fatal(err)
				}
				if s, err = Open(path, o); err != nil {
					rt.Fatal(err)
				}
			case "get":
				res := ask(s, "GET", target, "")
				if got := text(res); (res.StatusCode == 200) != ok || ok && got != have.text {
					rt.Fatalf("GET %q = %d %q, want %v %q", key, res.StatusCode, got, ok, have.text)
				}
			}
		}
	})
}

func mustMkdir(t *testing.T, path string) {
	t.Helper()
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
}
