package schedule

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"servent/control"
	"servent/control/memory"
	"servent/system"
)

// called is who is called: it keeps when and how.
type called struct {
	mu     sync.Mutex
	due    []string
	keys   map[string]int
	answer func(n int) int
	takes  time.Duration
}

func (c *called) RoundTrip(r *http.Request) (*http.Response, error) {
	c.mu.Lock()
	c.due = append(c.due, r.Header.Get("Servent-Scheduled")+" "+r.Method+" "+r.URL.String())
	if c.keys == nil {
		c.keys = map[string]int{}
	}
	c.keys[r.Header.Get("Idempotency-Key")]++
	n := len(c.due)
	c.mu.Unlock()
	select {
	case <-time.After(c.takes):
	case <-r.Context().Done():
		return nil, r.Context().Err()
	}
	code := 200
	if c.answer != nil {
		code = c.answer(n)
	}
	return &http.Response{StatusCode: code, Status: http.StatusText(code), Body: io.NopCloser(strings.NewReader("words"))}, nil
}

func (c *called) count() (calls, due int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.due), len(c.keys)
}

func lead(t *testing.T, store control.Store, who string) (control.Fence, control.LeaseID) {
	t.Helper()
	lease, err := store.Grant(t.Context(), time.Hour*24)
	if err != nil {
		t.Fatal(err)
	}
	f, err := control.Campaign(t.Context(), store, control.Seat, who, lease)
	if err != nil {
		t.Fatal(err)
	}
	return f, lease
}

// begin runs a schedule until stop.
func begin(t *testing.T, store control.Store, f control.Fence, to *called, crons ...string) (stop func()) {
	svc := system.Service{Name: "job"}
	for _, c := range crons {
		svc.On = append(svc.On, system.Trigger{Cron: c, Method: "POST", Path: "/run"})
	}
	plan := &system.Plan{Services: []system.Deployment{{Service: svc}}}
	never := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		Run(ctx, Options{Store: store, Fence: f, Plan: func() *system.Plan { return plan }, Changed: func() <-chan struct{} { return never },
			URL: func(system.ServiceName) string { return "http://job" }, Transport: to})
	})
	return func() { cancel(); done.Wait() }
}

// Each minute one call, by whoever leads, and none by who leads no more; what was due in between is made up for once.
func TestCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, to := memory.New(), &called{}
		first, lease := lead(t, store, "a")
		stop := begin(t, store, first, to, "* * * * *", "@every 30s")
		time.Sleep(10*time.Minute + time.Second)
		if calls, due := to.count(); calls != 30 || due != 30 {
			t.Errorf("%d calls of %d times in ten minutes, want 10 + 20", calls, due)
		}
		if err := store.Revoke(t.Context(), lease); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute) // it does not know that it leads no more, and its claims fail
		if calls, _ := to.count(); calls != 30 {
			t.Errorf("%d calls by who leads no more", calls-30)
		}
		stop()
		second, _ := lead(t, store, "b")
		stop = begin(t, store, second, to, "* * * * *")
		time.Sleep(time.Millisecond)
		calls, _ := to.count()
		if calls > 31 {
			t.Errorf("%d calls at once for five minutes that nobody led, want at most the newest", calls-30)
		}
		time.Sleep(2 * time.Minute)
		if after, due := to.count(); after != calls+2 || due != after {
			t.Errorf("%d calls of %d times, want two more than %d", after, due, calls)
		}
		stop()
	})
}

// A call that may have been lost is made again with its key; one that is refused is not; one that has not ended lets the next be left out.
func TestTries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, to := memory.New(), &called{answer: func(n int) int { return map[bool]int{true: 503, false: 200}[n%3 != 0] }}
		f, _ := lead(t, store, "a")
		stop := begin(t, store, f, to, "* * * * *")
		time.Sleep(2*time.Minute + 30*time.Second)
		if calls, due := to.count(); calls != 6 || due != 2 {
			t.Errorf("%d calls of %d times, want three tries of two", calls, due)
		}
		stop()
		to = &called{answer: func(int) int { return 404 }}
		stop = begin(t, store, f, to, "* * * * *")
		time.Sleep(2 * time.Minute)
		if calls, due := to.count(); calls != due || calls < 2 {
			t.Errorf("%d calls of %d times that are refused", calls, due)
		}
		stop()
		to = &called{takes: 150 * time.Second}
		stop = begin(t, store, f, to, "* * * * *")
		time.Sleep(7 * time.Minute)
		if calls, _ := to.count(); calls != 3 {
			t.Errorf("%d calls that take two and a half minutes, in seven, want 3", calls)
		}
		stop()
	})
}
