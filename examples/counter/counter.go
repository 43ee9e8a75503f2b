// Package counter keeps a number per name, in memory, behind HTTP: POST /c/{name} counts, GET /c/{name}
// reads; GET /_export/{name} and PUT /_import/{name} are for who moves a number to another instance. Run it as one instance and every answer is right; run it as two that know nothing of one
// another and it is wrong. Start at [Serve]; [Counter] is the whole state.
package counter

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

const (
	most    = 1_000_000 // names; a further one is refused, so that memory has a bound
	longest = 200       // bytes of a name
)

// Serve answers on ln until ctx ends, gives open requests 5s, and returns nil after a clean stop.
func Serve(ctx context.Context, ln net.Listener) error {
	srv, done := &http.Server{Handler: New(), ReadHeaderTimeout: 10 * time.Second}, make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		done <- srv.Shutdown(grace)
	})
	err := srv.Serve(ln)
	if stop() { // ctx still lives: the listener failed on its own
		return fmt.Errorf("serve %s: %w", ln.Addr(), err)
	}
	return <-done
}

// Counter is a number per name. It is lost with its instance.
type Counter struct {
	mux  http.ServeMux
	room int // names at most
	mu   sync.Mutex
	n    map[string]int64 // guarded by mu
}

// New returns a counter whose every number is 0.
func New() *Counter {
	c := &Counter{room: most, n: map[string]int64{}}
	c.mux.HandleFunc("POST /c/{name}", c.count)
	c.mux.HandleFunc("GET /c/{name}", c.read)
	c.mux.HandleFunc("GET /_export/{name}", c.export)
	c.mux.HandleFunc("PUT /_import/{name}", c.take)
	c.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, "POST /c/NAME counts, GET /c/NAME reads")
	})
	return c
}

func (c *Counter) ServeHTTP(w http.ResponseWriter, r *http.Request) { c.mux.ServeHTTP(w, r) }

func (c *Counter) count(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if len(name) > longest {
		http.Error(w, fmt.Sprintf("a name has at most %d bytes, this one has %d", longest, len(name)), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	n, known := c.n[name]
	full := !known && len(c.n) >= c.room
	if !full {
		n++
		c.n[name] = n
	}
	c.mu.Unlock() // before the answer: a slow client holds up nobody
	if full {
		http.Error(w, fmt.Sprintf("%d names are counted, there is no room for %q", c.room, name), http.StatusInsufficientStorage)
		return
	}
	fmt.Fprintln(w, n)
}

func (c *Counter) read(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	n := c.n[r.PathValue("name")]
	c.mu.Unlock()
	fmt.Fprintln(w, n)
}

// export reads a number to be kept elsewhere; one that was never counted is none.
func (c *Counter) export(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	n, known := c.n[r.PathValue("name")]
	c.mu.Unlock()
	if !known {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintln(w, n)
}

// take keeps a number that was counted elsewhere.
func (c *Counter) take(w http.ResponseWriter, r *http.Request) {
	var n int64
	if _, err := fmt.Fscan(http.MaxBytesReader(w, r.Body, 64), &n); err != nil {
		http.Error(w, "want a number: "+err.Error(), http.StatusBadRequest)
		return
	}
	name := r.PathValue("name")
	c.mu.Lock()
	_, known := c.n[name]
	full := len(name) > longest || !known && len(c.n) >= c.room
	if !full {
		c.n[name] = n
	}
	c.mu.Unlock()
	if full {
		http.Error(w, "no room", http.StatusInsufficientStorage)
	}
}
