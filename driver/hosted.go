package driver

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// hosted is a handler of this process that can be stopped.
type hosted struct {
	name    string
	handler http.Handler
	check   func(ctx context.Context) error
	end     func() // frees what the handler holds
	kill    context.CancelFunc
	exit    chan Exit
	over    chan struct{} // closed when the last call has ended
	calls   atomic.Int64

	mu       sync.Mutex // guards what follows
	open     int        // calls
	stopping bool
}

// Host makes an instance of a handler that runs in this process. check says whether what stands behind it is
// well, end frees what it holds; end is called once, after the last call. Host starts no goroutine: a stopped
// instance ends with its last call, and one that is stopped breaks off what outlives its grace.
func Host(name string, h http.Handler, check func(context.Context) error, end func()) Instance {
	life, kill := context.WithCancel(context.Background())
	i := &hosted{name: name, check: check, end: end, kill: kill, exit: make(chan Exit, 1), over: make(chan struct{})}
	i.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !i.enter() {
			w.Header().Set("Retry-After", "1")
			http.Error(w, name+" is stopped", http.StatusServiceUnavailable)
			return
		}
		defer i.leave()
		ctx, cancel := context.WithCancel(r.Context())
		defer cancel()
		defer context.AfterFunc(life, cancel)()
		h.ServeHTTP(w, r.WithContext(ctx))
	})
	return i
}

func (i *hosted) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopping {
		return false
	}
	i.open++
	i.calls.Add(1)
	return true
}

func (i *hosted) leave() {
	i.mu.Lock()
	i.open--
	last := i.stopping && i.open == 0
	i.mu.Unlock()
	if last {
		i.finish()
	}
}

// finish is called once, by the last call or by the stop that finds none.
func (i *hosted) finish() {
	i.kill()
	i.end()
	i.exit <- Exit{}
	close(i.over)
}

func (i *hosted) ID() string { return "inside" }

func (i *hosted) Endpoint() Endpoint { return Endpoint{Handler: i.handler} }

func (i *hosted) Wait() <-chan Exit { return i.exit }

// Check asks what stands behind the handler.
func (i *hosted) Check(ctx context.Context) error { return i.check(ctx) }

// Stats are calls alone: processor and memory are the node's.
func (i *hosted) Stats(context.Context) (Stats, error) {
	select {
	case <-i.over:
		return Stats{}, fmt.Errorf("%s is stopped", i.name)
	default:
		return Stats{Calls: i.calls.Load()}, nil
	}
}

// Stop refuses new calls, gives open ones grace or until ctx ends, and breaks them off.
func (i *hosted) Stop(ctx context.Context, grace time.Duration) error {
	i.mu.Lock()
	first := !i.stopping
	i.stopping = true
	idle := first && i.open == 0
	i.mu.Unlock()
	if idle {
		i.finish()
	}
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-i.over:
		return nil
	case <-timer.C:
	case <-ctx.Done():
	}
	i.kill()
	const allow = 5 * time.Second // for handlers to notice
	timer.Reset(allow)
	select {
	case <-i.over:
		return nil
	case <-timer.C:
		return fmt.Errorf("stop %s: a call still runs %v after it was broken off", i.name, allow)
	}
}

// Exec has nothing to run in.
func (i *hosted) Exec(context.Context, []string) error {
	return fmt.Errorf("run a command in %s: %w", i.name, ErrUnsupported)
}
