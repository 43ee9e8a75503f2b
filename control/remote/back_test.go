package remote_test

import (
	"errors"
	"net/http"
	"sync"
	"testing"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/control/remote"
	"servent/identity"
	"servent/system"
)

// TestPutBack: control that stands at an older revision than it did is not believed, by whoever has seen the newer one; the server hears of that.
func TestPutBack(t *testing.T) {
	t.Parallel()
	was, old := memory.New(), memory.New()
	for range 5 {
		put(t, was, "k", "new")
	}
	put(t, old, "k", "old")
	f := newFleet(t)
	var mu sync.Mutex
	var heard []error
	now := f.serve("s1", was, remote.Bounds{})
	s := remote.New(remote.Options{Servers: f.servers, Transport: f.transport(identity.Server, "s3"), Timeout: 4 * time.Second, Silence: time.Second})
	put(t, s, "k", "newest")
	now.Close()
	f.serve("s2", old, remote.Bounds{Denied: func(_ *http.Request, err error) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, err)
	}})
	if _, _, err := s.Range(t.Context(), "k"); !errors.Is(err, control.ErrBack) || !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Range = %v, want ErrBack, which is unavailable", err)
	}
	if _, _, err := s.Commit(t.Context(), control.Txn{Conds: []control.Cond{{Key: "k", Modified: 1}}}); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Commit = %v, want ErrBack", err)
	}
	err := s.Watch(t.Context(), "", 7, func(b control.Batch) error { t.Errorf("a watch gives %+v", b); return nil })
	if !errors.Is(err, control.ErrBack) {
		t.Errorf("Watch = %v, want ErrBack", err)
	}
	mu.Lock()
	if len(heard) == 0 || !errors.Is(heard[0], control.ErrBack) {
		t.Errorf("the server heard %v, want that it was put back", heard)
	}
	mu.Unlock()
	for range 5 {
		put(t, old, "k", "grown")
	}
	if kvs, _, err := s.Range(t.Context(), "k"); err != nil || len(kvs) != 1 {
		t.Errorf("Range = %v, %v; want it again, now that it has grown", kvs, err)
	}
	seen := remote.New(remote.Options{Servers: f.servers, Transport: f.transport(identity.Server, "s4"), Seen: 100, Timeout: time.Second})
	if _, _, err := seen.Range(t.Context(), "k"); !errors.Is(err, control.ErrBack) {
		t.Errorf("Range of who has seen revision 100 in an earlier life = %v, want ErrBack", err)
	}
}

// TestClock: whoever asks hears how far its clock is from the server's.
func TestClock(t *testing.T) {
	t.Parallel()
	asked := time.Date(2026, 1, 1, 12, 0, 30, 0, time.UTC)
	answer := &http.Response{Header: http.Header{"Date": {asked.Add(-40 * time.Second).Format(http.TimeFormat)}}}
	if by, ok := remote.Ahead(answer, asked, asked.Add(2*time.Second)); !ok || by != 40*time.Second+time.Second/2 {
		t.Errorf("Ahead = %v, %v; want 40.5s: half of the way there, and half of the second that Date leaves out", by, ok)
	}
	for _, bad := range []*http.Response{nil, {}, {Header: http.Header{"Date": {"yesterday"}}}} {
		if by, ok := remote.Ahead(bad, asked, asked); ok {
			t.Errorf("Ahead of no date = %v", by)
		}
	}
	f := newFleet(t)
	f.serve("s1", memory.New(), remote.Bounds{})
	var mu sync.Mutex
	var heard []time.Duration
	s := remote.New(remote.Options{Servers: f.servers, Transport: f.transport(identity.Node, "n1"), Clock: func(server system.NodeID, by time.Duration) {
		mu.Lock()
		defer mu.Unlock()
		heard = append(heard, by)
	}})
	if _, _, err := s.Range(t.Context(), "plan/"); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if len(heard) != 1 || heard[0].Abs() > 30*time.Second {
		t.Errorf("heard %v of a server with the same clock", heard)
	}
}
