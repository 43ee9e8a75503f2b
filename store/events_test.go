package store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// listener is told of changes, and refuses them while it is told to.
type listener struct {
	mu    sync.Mutex
	fails error
	heard []string // number op key
}

func (l *listener) tell(_ context.Context, c Change) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fails != nil {
		return l.fails
	}
	l.heard = append(l.heard, fmt.Sprintf("%s %s", c.Op, c.Key))
	return nil
}

func (l *listener) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fails = err
}

func (l *listener) until(t *testing.T, want ...string) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		l.mu.Lock()
		got := slices.Clone(l.heard)
		l.mu.Unlock()
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("heard %q, want %q", got, want)
		}
	}
}

// lives opens a store in a folder and runs it until end.
func lives(t *testing.T, dir string) (s *Store, end func()) {
	t.Helper()
	s, err := Open(dir, Options{Name: "kv/1", Sweep: 20 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	end = sync.OnceFunc(func() {
		cancel()
		if err := errors.Join(<-done, s.Close()); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	return s, end
}

func request(t *testing.T, s *Store, method, path, body string) {
	t.Helper()
	path = "/kv/" + strings.ReplaceAll(strings.TrimPrefix(path, "/kv/"), "/", "%2F") // a slash of a key
	w := httptest.NewRecorder()
	s.ServeHTTP(w, httptest.NewRequest(method, path, strings.NewReader(body)))
	if w.Code >= 300 && (w.Code != http.StatusNotFound || method != "DELETE") {
		t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
}

func watch(t *testing.T, s *Store, list ...Watch) {
	t.Helper()
	if err := s.Watch(list); err != nil {
		t.Fatal(err)
	}
}

// Each change of a key with the prefix is told in order, also after a failure, and after a start.
func TestWatchTells(t *testing.T) {
	dir := t.TempDir()
	s, end := lives(t, dir)
	request(t, s, "PUT", "/kv/a/0", "before anybody watches")
	l, other := &listener{}, &listener{}
	watch(t, s, Watch{"l", "a/", l.tell}, Watch{"other", "", other.tell})
	request(t, s, "PUT", "/kv/a/1", "x")
	request(t, s, "PUT", "/kv/b/1", "x")
	request(t, s, "PUT", "/kv/a/1", "y")
	request(t, s, "DELETE", "/kv/a/1", "")
	request(t, s, "DELETE", "/kv/a/1", "") // changes nothing
	request(t, s, "PUT", "/kv/a/2?ttl=50ms", "z")
	want := []string{"put a/1", "put a/1", "delete a/1", "put a/2", "delete a/2"}
	l.until(t, want...)
	other.until(t, "put a/1", "put b/1", "put a/1", "delete a/1", "put a/2", "delete a/2")

	l.fail(errors.New("away"))
	request(t, s, "PUT", "/kv/a/3", "x")
	request(t, s, "PUT", "/kv/a/4", "x")
	other.until(t, "put a/1", "put b/1", "put a/1", "delete a/1", "put a/2", "delete a/2", "put a/3", "put a/4") // is not kept waiting
	end()
	s, _ = lives(t, dir)
	l.fail(nil)
	watch(t, s, Watch{"l", "a/", l.tell}, Watch{"other", "", other.tell})
	l.until(t, append(want, "put a/3", "put a/4")...)
	l.fail(ErrSkip)
	request(t, s, "PUT", "/kv/a/5", "x")
	time.Sleep(50 * time.Millisecond)
	l.fail(nil)
	request(t, s, "PUT", "/kv/a/6", "x")
	l.until(t, append(want, "put a/3", "put a/4", "put a/6")...)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) { // what everybody was told is forgotten
		if _, more, err := s.after(0); err != nil || time.Now().After(end) {
			t.Fatal("changes are kept that everybody was told", err)
		} else if !more {
			break
		}
	}
	watch(t, s)
	request(t, s, "PUT", "/kv/a/7", "x")
	if _, more, err := s.after(0); more || err != nil {
		t.Error("a change is kept that nobody is to be told of", err)
	}
}

// Who never takes anything costs no more than a bound, and hears of the newest when it does.
func TestWatchIsBounded(t *testing.T) {
	s, _ := lives(t, t.TempDir())
	l := &listener{fails: errors.New("away")}
	watch(t, s, Watch{"l", "", l.tell})
	if err := s.disk.write(0, func(t *txn) error { return t.Bucket(bucketOut).SetSequence(mostOut - 5) }); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		request(t, s, "PUT", fmt.Sprintf("/kv/%d", i), "x")
	}
	n := 0
	for at := uint64(0); ; n++ {
		c, more, err := s.after(at)
		if err != nil {
			t.Fatal(err)
		}
		if !more {
			break
		}
		at = c.Number
	}
	if n != 20 {
		t.Errorf("%d changes are kept, want all 20: there are no more than may be", n)
	}
	if err := s.disk.write(0, func(t *txn) error { return t.Bucket(bucketOut).SetSequence(2*mostOut - 5) }); err != nil {
		t.Fatal(err)
	}
	for i := range 10 {
		request(t, s, "PUT", fmt.Sprintf("/kv/%d", i), "y")
	}
	if c, more, err := s.after(0); err != nil || !more || c.Number != mostOut+6 {
		t.Errorf("kept from %d on, %v; want the first ten to have gone for the last ten", c.Number, err)
	}
}
