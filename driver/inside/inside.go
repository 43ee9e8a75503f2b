// Package inside holds the drivers whose instances are handlers of the node's own process: [Files] serves
// a folder, [Origin] an HTTP server that runs elsewhere. They take no port and no process of their own.
// They never cache and never choose between instances: edge and request do.
// Start at [Files] and [Origin]; instance is what both start.
package inside

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"servent/driver"
)

// instance is a handler that can be stopped.
type instance struct {
	name    string
	handler http.Handler
	check   func(ctx context.Context) error
	end     func() // frees what the handler holds
	kill    context.CancelFunc
	exit    chan driver.Exit
	over    chan struct{} // closed when the last call has ended
	calls   atomic.Int64

	mu       sync.Mutex // guards what follows
	open     int        // calls
	stopping bool
}

// start wraps a handler. It starts no goroutine: a stopped instance ends with its last call.
func start(name string, h http.Handler, check func(context.Context) error, end func()) *instance {
	life, kill := context.WithCancel(context.Background())
	i := &instance{name: name, check: check, end: end, kill: kill, exit: make(chan driver.Exit, 1), over: make(chan struct{})}
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

func (i *instance) enter() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.stopping {
		return false
	}
	i.open++
	i.calls.Add(1)
	return true
}

func (i *instance) leave() {
	i.mu.Lock()
	i.open--
	last := i.stopping && i.open == 0
	i.mu.Unlock()
	if last {
		i.finish()
	}
}

// finish is called once, by the last call or by the stop that finds none.
func (i *instance) finish() {
	i.kill()
	i.end()
	i.exit <- driver.Exit{}
	close(i.over)
}

func (i *instance) ID() string { return "inside" }

func (i *instance) Endpoint() driver.Endpoint { return driver.Endpoint{Handler: i.handler} }

func (i *instance) Wait() <-chan driver.Exit { return i.exit }

// Check asks what stands behind the handler.
func (i *instance) Check(ctx context.Context) error { return i.check(ctx) }

// Stats are calls alone: processor and memory are the node's.
func (i *instance) Stats(context.Context) (driver.Stats, error) {
	select {
	case <-i.over:
		return driver.Stats{}, fmt.Errorf("%s is stopped", i.name)
	default:
		return driver.Stats{Calls: i.calls.Load()}, nil
	}
}

// Stop refuses new calls, gives open ones grace or until ctx ends, and breaks them off.
func (i *instance) Stop(ctx context.Context, grace time.Duration) error {
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
func (i *instance) Exec(context.Context, []string) error {
	return fmt.Errorf("run a command in %s: %w", i.name, driver.ErrUnsupported)
}
